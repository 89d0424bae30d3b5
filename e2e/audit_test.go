package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/audit"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/policy"
)

// audited runs the command with an audit log, and returns the log.
func audited(t *testing.T, c *exec.Cmd) (log []*audit.Entry, stdout, stderr string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "log")
	c.Args = append(append(append([]string{}, c.Args[:2]...), "--audit="+file), c.Args[2:]...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		t.Logf("%v: %v", c.Args, err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: %v\n%s", c.Args, err, errs.String())
	}
	for l := range bytes.Lines(b) {
		e, err := audit.ParseLine(l)
		if err != nil {
			t.Fatalf("%v: %s", err, l)
		}
		log = append(log, e)
	}
	return log, out.String(), errs.String()
}

// TestAudit compares the log with what a workload did.
func TestAudit(t *testing.T) {
	needRoot(t)
	for _, kind := range kinds(t) {
		log, did, stderr := audited(t, brokered(probe("audit"), "--worker="+kind))
		var got strings.Builder
		for i, e := range log {
			if e.Seq != uint64(i+1) || e.Decision.Verdict != policy.Allow || e.Policy != "trusted" || e.Took <= 0 || e.Lost != 0 || e.Attempt > 1 {
				t.Errorf("%s: record %d: %+v", kind, i, e)
			}
			fmt.Fprintln(&got, e.Facts.Command, e.Facts.Map.Name+e.Facts.Prog.Name, e.Outcome, e.Record.Outcome.Kind, e.Record.Outcome.ID, e.Record.Outcome.ByDaemon)
		}
		if got.String() != did || stderr != "" {
			t.Errorf("%s: the log says\n%swhat it did is\n%s%s", kind, got.String(), did, stderr)
		}
	}
}

func init() {
	probes["audit"] = func() {
		made := func(command, name, kind string, fd int, e sys.Errno) {
			if e != 0 {
				fmt.Println(command, name, sys.ErrnoName(e), "", 0, false)
				return
			}
			b, e := info(fd)
			if e != 0 {
				fail("info: %v", e)
			}
			fmt.Println(command, name, "ok", kind, le32(b[4:]), false)
			fmt.Println("obj_get_info_by_fd", "", "ok", "", 0, kind == "prog") // a program's shows addresses
		}
		fd, e := variety(1).create("one")
		made("map_create", "one", "map", fd, e)
		fd, e = load(progTypeSocket, "two", returns(1), 0, nil)
		made("prog_load", "two", "prog", fd, e)
		fd, e = load(progTypeSocket, "bad", prog(insn(0x61, 0, 9, 0, 0), exit), 0, nil)
		made("prog_load", "bad", "prog", fd, e)
		_, e = bpf(cmdMapByID, new(attr).u32(0, 0x7fffffff), 12)
		fmt.Println("map_get_fd_by_id", "", sys.ErrnoName(e), "", 0, true)
	}
}

// TestAuditKilled kills the worker at each step of calls: no call goes unrecorded, and
// what is recorded twice says so.
func TestAuditKilled(t *testing.T) {
	needRoot(t)
	binary := attackBuild(t, false)
	c := brokered(probe("audit-killed"))
	c.Path, c.Args[0] = binary, binary
	log, said, stderr := audited(t, c)
	if said != "ok\n" {
		t.Fatalf("%s%s", said, stderr)
	}
	seen := map[string]*audit.Entry{}
	pins := 0
	for _, e := range log {
		if e.Lost != 0 {
			t.Errorf("%d are lost: %s", e.Lost, e.Why)
			continue
		}
		name := e.Facts.Map.Name + e.Facts.Prog.Name
		if e.Outcome != "ok" || e.Decision.Rule != "trusted" {
			t.Errorf("%s %s: got %+v", e.Facts.Command, name, e)
		}
		if name == "" {
			if e.Facts.Command == "obj_pin" && e.Attempt < 2 {
				pins++
			}
			continue
		}
		if e.Record.Outcome.ID == 0 {
			t.Errorf("%s %s: no id", e.Facts.Command, name)
		}
		if first := seen[name]; first != nil && e.Attempt < 2 {
			t.Errorf("%s %s: recorded twice, as %d and %d", e.Facts.Command, name, first.Seq, e.Seq)
		}
		seen[name] = e
	}
	for step := range steps {
		for _, kind := range []string{"m", "p"} {
			e := seen[fmt.Sprint(kind, step)]
			if e == nil {
				t.Errorf("%s%d isn't in the log", kind, step)
			} else {
				t.Logf("%s%d: seq %d, attempt %d", kind, step, e.Seq, e.Attempt)
			}
		}
	}
	if pins > steps {
		t.Errorf("%d records of %d pins, not of a second attempt", pins, steps)
	}
}

func init() {
	probes["audit-killed"] = okay(func() error {
		runtime.LockOSThread()
		for step := range steps {
			doom := func() {
				if _, _, e := unix.Syscall(unix.SYS_BPF, cmdKill, uintptr(step), 0); e != 0 {
					panic(e)
				}
			}
			doom()
			m, e := variety(2).create(fmt.Sprint("m", step))
			if e != 0 {
				return e
			}
			doom()
			p, e := load(progTypeSocket, fmt.Sprint("p", step), returns(1), 0, nil)
			if e != 0 {
				return e
			}
			path := fmt.Appendf(nil, "/sys/fs/bpf/pin%d\x00", step)
			doom()
			if _, e := bpf(cmdObjPin, new(attr).u64(0, sys.Addr(path)).u32(8, uint32(m)), 16, path); e != 0 {
				return e
			}
			unix.Close(m)
			unix.Close(p)
		}
		return nil
	})
}

// TestAuditDaemonKilled kills daemon and worker in the middle of many calls: each is in
// the log, and once. What is there twice has the same number, as the daemon was killed
// between writing it and noting that.
func TestAuditDaemonKilled(t *testing.T) {
	needRoot(t)
	file := filepath.Join(t.TempDir(), "log")
	const kills = 6
	s := start(t, brokered(probe("audit-many"), "--audit="+file))
	s.expect("ready")
	for i := range kills {
		s.say("more")
		name := []string{"daemon", "worker"}[i%2]
		if err := unix.Kill(s.process(name), unix.SIGKILL); err != nil {
			t.Error(err)
		}
		s.expect("done")
	}
	s.end(false) // run tells of the kills
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	seen, twice, last := map[string]int{}, 0, uint64(0)
	for l := range bytes.Lines(b) {
		e, err := audit.ParseLine(l)
		if err != nil || e.Lost != 0 || e.Outcome != "ok" {
			t.Fatalf("%v: %s", err, l)
		}
		if e.Seq <= last {
			twice++
			continue
		}
		if e.Seq != last+1 {
			t.Errorf("number %d after %d", e.Seq, last)
		}
		last = e.Seq
		if seen[e.Facts.Map.Name]++; e.Attempt < 2 && seen[e.Facts.Map.Name] > 1 {
			t.Errorf("%q is there twice", e.Facts.Map.Name)
		}
	}
	if len(seen) != kills*manyCalls {
		t.Errorf("%d calls are in the log, of %d", len(seen), kills*manyCalls)
	}
	t.Logf("%d records, %d of them written twice", last, twice)
}

const manyCalls = 3000

func init() {
	probes["audit-many"] = func() {
		ask("ready")
		for round := 0; ; round++ {
			for i := range manyCalls {
				fd, e := variety(1).create(fmt.Sprintf("m%d_%d", round, i))
				if e != 0 {
					fail("%v", e)
				}
				unix.Close(fd)
			}
			ask("done")
		}
	}
}

// TestAuditProgram: where the policy wants it, what was run is kept to the byte.
func TestAuditProgram(t *testing.T) {
	needRoot(t)
	binary, file := attackBuild(t, false), filepath.Join(t.TempDir(), "log")
	c := brokered(probe("audit"), "--policy=test-arrays", "--quiet", "--audit="+file)
	c.Path, c.Args[0] = binary, binary
	c.Run() // it may not do all that it tries
	insns := returns(1)
	sum := sha256.Sum256(insns)
	digest := hex.EncodeToString(sum[:])
	if kept, err := os.ReadFile(filepath.Join(file+".programs", digest+".insns")); err != nil || !bytes.Equal(kept, insns) {
		t.Errorf("kept are %x, %v", kept, err)
	}
	shown := output(t, exec.Command(broker, "audit", "show", "--program", digest[:8], file))
	for _, want := range []string{`prog_load socket_filter "two"`, "program " + digest, "imm: 1", "Exit"} {
		if !strings.Contains(shown, want) {
			t.Errorf("no %q in\n%s", want, shown)
		}
	}
}

// TestDeniedLog: a load that the policy denies says why in the caller's log, cut to its
// room, as the verifier would.
func TestDeniedLog(t *testing.T) {
	needRoot(t)
	for _, kind := range kinds(t) {
		c := brokered(probe("denied-log"), "--policy=deny", "--worker="+kind, "--quiet")
		if got := output(t, c); got != "ok\n" {
			t.Errorf("%s: %s", kind, got)
		}
	}
}

func init() {
	probes["denied-log"] = okay(func() error {
		want := "bpfbroker: denied by policy deny, rule deny: policy deny allows nothing\n\x00"
		for _, size := range []int{1, 2, 20, len(want) - 1, len(want), len(want) + 1, 4096, 1 << 20} {
			log := bytes.Repeat([]byte{0xa5}, size+1)
			a := new(attr).u32(0, progTypeSocket).u32(4, 2).u64(8, sys.Addr(two)).u64(16, sys.Addr(gpl)).
				u32(24, 1).u32(28, uint32(size)).u64(32, sys.Addr(log))
			_, e := bpf(cmdProgLoad, a, 144, two, gpl, log)
			n := min(size, len(want))
			expected := want[:n-1] + "\x00" + strings.Repeat("\xa5", size+1-n)
			if e != sys.EPERM || string(log) != expected || le32(a[140:]) != uint32(len(want)) {
				return fmt.Errorf("room for %d: %v, log %q, true size %d", size, e, log[:min(size+1, 100)], le32(a[140:]))
			}
		}
		// Where there is no room to say how long it is, nothing is written there; nor a log
		// for whom none is asked.
		for _, level := range []uint32{0, 1} {
			log := bytes.Repeat([]byte{0xa5}, 200)
			a := new(attr).u32(0, progTypeSocket).u32(4, 2).u64(8, sys.Addr(two)).u64(16, sys.Addr(gpl)).u32(140, 7).
				u32(24, level).u32(28, 200).u64(32, sys.Addr(log))
			_, e := bpf(cmdProgLoad, a, 128, two, gpl, log)
			if e != sys.EPERM || (log[0] != 0xa5) != (level != 0) || le32(a[140:]) != 7 {
				return fmt.Errorf("level %d: %v, log %q, true size %d", level, e, log, le32(a[140:]))
			}
		}
		// A log that can't be written changes nothing.
		a := new(attr).u32(0, progTypeSocket).u32(4, 2).u64(8, sys.Addr(two)).u64(16, sys.Addr(gpl)).u32(24, 1).u32(28, 200).u64(32, 4096)
		if _, e := bpf(cmdProgLoad, a, 144, two, gpl); e != sys.EPERM {
			return fmt.Errorf("a log at a bad address: %v", e)
		}
		return nil
	})
}

var two = returns(1)

// TestDeniedLoader: a loader that is made for the verifier's log prints ours.
func TestDeniedLoader(t *testing.T) {
	needRoot(t)
	for _, tool := range []string{"clang", "bpftool"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err) // make deps installs it
		}
	}
	binary, dir := attackBuild(t, false), t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	source, object := filepath.Join(dir, "x.c"), filepath.Join(dir, "x.o")
	code := `__attribute__((section("xdp"), used)) int x(void *ctx) { return 2; }
char LICENSE[] __attribute__((section("license"))) = "GPL";`
	if err := os.WriteFile(source, []byte(code), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("clang", "-g", "-O2", "-target", "bpf", "-c", source, "-o", object).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// libbpf first tries whether it can load anything at all, a socket filter, which that
	// policy allows.
	c := brokered(exec.Command("bpftool", "prog", "load", object, "/sys/fs/bpf/x"), "--policy=test-arrays", "--quiet")
	c.Path, c.Args[0] = binary, binary
	c.Dir = dir
	out, err := c.CombinedOutput()
	if want := "bpfbroker: denied by policy test-arrays, no rule matches: outside of test-arrays"; err == nil || !strings.Contains(string(out), want) {
		t.Errorf("%v, wanted %q in\n%s", err, want, out)
	}
	t.Logf("%s", out)
}
