package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/audit"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/policy"
	policyload "github.com/bpfbroker/bpfbroker/policy/load"
)

// What a workload would try against the built-in policies. Each attack succeeds natively,
// as root, and under trusted, so that it isn't refused for another reason; each policy that
// has to do with it denies it, and says why. The attacks are in attack_policy_*_test.go, by
// subject.

// attack is one.
type attack struct {
	name string
	// private: it is made in a network namespace of its own.
	private bool
	// denied says by which policies, and with which words.
	denied by
	// refused says where something else than a policy's rule stops it, with which errno, and
	// what: "ENOENT: …". A policy may have the kind of worker behind it: trusted/token.
	refused by
	// mayLack says why some kernels or machines refuse it natively: there trusted has to give
	// the same errno.
	mayLack string
	// rule is in the rule that would allow it, if that isn't the fact and the value that
	// the denial is about.
	rule string
	do   func(*attacker) error
}

// by says something of policies, and of native, which is none.
type by map[string]string

const native = "native"

// attackable are the policies that claim to stop something.
var attackable = []string{"observe", "network", "container-devices"}

// all3 denies it under each of them, with the same words.
func all3(words string) by {
	return by{"observe": words, "network": words, "container-devices": words}
}

// attacks lists them all.
var attacks = slices.Concat(attacksByLoading, attacksByCalling, attacksOnObjects, attacksOnMaps, attacksAtCgroups, attacksInNetworks, attacksByEvents)

// attacker is who attacks, and what it has of the host's.
type attacker struct {
	*script
	theHosts
	policy string // under which it does
}

// step makes what the attack is made of: that this is denied is no success of the policy.
func (a *attacker) step(what string, fd int) int {
	if fd < 0 {
		fail("no %s: %s", what, a.log.String())
	}
	return fd
}

// try makes the call that is the attack.
func (a *attacker) try(c abi.Command, fields f) error {
	at := make([]byte, abi.AttrSize)
	a.put(&abi.RowOf(c).Layout, at, fields)
	fd, e := sys.BPF(uint32(c), at, abi.RowOf(c).LastEnd)
	runtime.KeepAlive(a.keep)
	return tried(fd, e)
}

// tried is the result of such a call.
func tried(_ int, e sys.Errno) error {
	if e != 0 {
		return e
	}
	return nil
}

// loading loads a program as the attack.
func (a *attacker) loading(typ string, insns []byte, more f) error {
	fields := f{"prog_type": progType(typ), "insns": insns, "insn_cnt": len(insns) / 8, "license": "GPL", "prog_name": "attack"}
	maps.Copy(fields, more)
	return a.try(abi.ProgLoad, fields)
}

// own loads a program for an attack that begins with one of one's own.
func (a *attacker) own(typ string, insns []byte, attach string) int {
	return a.step("program", a.load("own", typ, insns, f{"expected_attach_type": attachType(attach)}))
}

func init() {
	// It attacks, and says "done", or the errno of what was to be the attack.
	probes["attack"] = func() {
		a := &attacker{script: &script{ids: map[string]string{}}, policy: os.Args[1]}
		if err := json.Unmarshal([]byte(os.Getenv(hostEnv)), &a.theHosts); err != nil {
			fail("the host: %v", err)
		}
		i := slices.IndexFunc(attacks, func(a attack) bool { return a.name == os.Args[2] })
		defer undisturbed()() // natively a signal makes a load fail
		switch err := attacks[i].do(a).(type) {
		case nil:
			say0("done")
		case syscall.Errno:
			say0(errnoName(err))
		default:
			fail("%v", err)
		}
	}

	// It makes attacks one after the other, each in a process of its own, and says a line
	// about each. In the audit log a map is made before it, whose name has its number.
	probes["attacks"] = func() {
		policy, names, files := os.Args[1], os.Args[2:], inherited()
		for i, name := range names {
			if fd, e := bpf(cmdMapCreate, new(attr).u32(0, 2).u32(4, 4).u32(8, 4).u32(12, 1).name(28, fmt.Sprint(markName, i)), 72); e == 0 {
				unix.Close(fd)
			}
			c := exec.Command("/proc/self/exe", policy, name)
			c.Env = append(os.Environ(), probeEnv+"=attack")
			c.ExtraFiles = files
			out, err := c.CombinedOutput()
			line := strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", "; ")
			if err != nil {
				line = fmt.Sprintf("%v: %s", err, line)
			}
			say0(line)
		}
	}
}

const markName = "attack_"

// result is of one attack.
type result struct {
	said   string
	denied []*audit.Entry
}

// attackUnder makes all these attacks natively or in one workload.
func attackUnder(t *testing.T, where, kind string, private bool, v *given, list []*attack) []result {
	t.Helper()
	c := probe("attacks", where)
	for _, a := range list {
		c.Args = append(c.Args, a.name)
	}
	c.Env = append(c.Env, v.env)
	c.ExtraFiles = v.files
	var stdout string
	var log []*audit.Entry
	if where == native {
		if private {
			c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
		}
		stdout = output(t, c)
	} else {
		flags := []string{"--quiet", "--worker=" + kind}
		if private {
			flags = append(flags, "--net=private")
		}
		c = brokeredBy(where, c, flags...)
		var stderr string
		if log, stdout, stderr = audited(t, c); stderr != "" {
			t.Error(stderr)
		}
	}
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	if len(lines) != len(list) {
		t.Fatalf("of %d attacks it says\n%s", len(list), stdout)
	}
	all := make([]result, len(list))
	at, marks := -1, 0
	for _, e := range log {
		if n := -1; strings.HasPrefix(e.Facts.Map.Name, markName) {
			fmt.Sscanf(e.Facts.Map.Name, markName+"%d", &n)
			if at, marks = n, marks+1; n != marks-1 {
				t.Fatalf("in the log mark %d comes after %d others", n, marks-1)
			}
		} else if e.Decision.Verdict == policy.Deny && at < 0 {
			t.Fatalf("denied before any attack: %s", e.Decision.Message)
		} else if e.Decision.Verdict == policy.Deny {
			all[at].denied = append(all[at].denied, e)
		}
	}
	if where != native && marks != len(list) {
		t.Fatalf("the log has %d marks of %d", marks, len(list))
	}
	for i := range all {
		all[i].said = lines[i]
	}
	return all
}

// TestAttacksOnPolicies tries each attack natively, under trusted, and under each policy
// that denies it, with workers of both kinds.
func TestAttacksOnPolicies(t *testing.T) {
	needRoot(t)
	v := hostOf(t)
	natively := map[string]string{} // what came of it
	for _, a := range attacks {
		if _, twice := natively[a.name]; twice || len(a.denied)+len(a.refused) == 0 {
			t.Fatalf("two are called %q, or no policy has to do with it", a.name)
		}
		natively[a.name] = ""
	}
	for _, where := range append([]string{native, "trusted"}, attackable...) {
		for _, private := range []bool{false, true} {
			var list []*attack
			for i := range attacks {
				a := &attacks[i]
				if a.private == private && (where == native || where == "trusted" || a.denied[where] != "" || a.refused[where] != "") {
					list = append(list, a)
				}
			}
			with := kinds(t)
			if where == native {
				with = []string{"root"}
			}
			for _, kind := range with {
				if len(list) == 0 {
					continue
				}
				name := where + "/" + kind
				if private {
					name += "/private"
				}
				t.Run(name, func(t *testing.T) {
					for i, o := range attackUnder(t, where, kind, private, v, list) {
						t.Run(strings.ReplaceAll(list[i].name, " ", "-"), func(t *testing.T) {
							a := list[i]
							if where == native {
								natively[a.name] = o.said
							}
							a.check(t, where, cmp.Or(a.refused[where], a.refused[where+"/"+kind]), &o, natively[a.name])
						})
					}
				})
			}
		}
	}
}

// check compares what came of an attack with what is to come of it, where and natively.
func (a *attack) check(t *testing.T, where, refused string, o *result, natively string) {
	words, errno := a.denied[where], "done"
	switch {
	case refused != "":
		errno, _, _ = strings.Cut(refused, ":")
	case words != "":
		errno = "EPERM"
	case a.mayLack != "" && natively != "": // else only what is under trusted was asked for
		errno = natively
		if strings.Contains(natively, " ") {
			t.Errorf("natively it got %q", natively)
		} else if natively != "done" {
			t.Logf("natively it got %s: %s", natively, a.mayLack)
		}
	}
	if o.said != errno {
		t.Errorf("it got %q, wanted %s", o.said, errno)
	}
	for _, e := range o.denied {
		t.Logf("denied: %s", e.Decision.Message)
	}
	switch {
	case words == "" && len(o.denied) > 0:
		t.Error("nothing should be denied")
	case words != "" && (len(o.denied) != 1 || !strings.Contains(o.denied[0].Decision.Message, words)):
		t.Errorf("one denial should say %q", words)
	}
	for _, e := range o.denied {
		a.checkRule(t, words, e)
	}
}

// aboutFact is what denials say of a fact, and of its value.
var aboutFact = regexp.MustCompile(`^([a-z]+\.[a-z_]+) (?:is|has) (".*")`)

// checkRule looks at the smallest rule that would allow what was denied: it names the command,
// and the fact with the value that the denial is about, and it does allow it. (That an
// object isn't the workload's is allowed by not asking.)
func (a *attack) checkRule(t *testing.T, words string, e *audit.Entry) {
	rule := audit.SmallestRule(e)
	names := []string{"commands: [" + e.Facts.Command + "]"}
	if m := aboutFact.FindStringSubmatch(words); a.rule != "" {
		names = append(names, a.rule)
	} else if m != nil {
		names = append(names, m[1:]...)
	}
	for _, name := range names {
		if !strings.Contains(rule, name) {
			t.Errorf("the rule that would allow it says nothing of %s:\n%s", name, rule)
		}
	}
	head := "apiVersion: bpfbroker/v1alpha1\nkind: Policy\nmetadata: {name: smallest}\nspec:\n  rules:\n  "
	p, err := policyload.Parse("smallest.yaml", []byte(head+strings.ReplaceAll(rule, "\n", "\n  ")))
	if err != nil {
		t.Errorf("the rule that would allow it can't be read: %v\n%s", err, rule)
	} else if d := p.Decide(&e.Facts); d.Verdict != policy.Allow {
		t.Errorf("the rule that would allow it doesn't: %s\n%s", d.Message, rule)
	}
}
