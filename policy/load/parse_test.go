package load_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/policy"
	"github.com/bpfbroker/bpfbroker/policy/load"
)

const example = `apiVersion: bpfbroker/v1alpha1
kind: Policy
metadata: {name: example, description: for a test}
spec:
  selector: {users: [alice], groups: [dev], images: ["reg/*"], labels: {app: x}, cgroups: [/user.slice]}
  variables:
    small: map.max_entries <= size_limit
    size_limit: 4 * 2
  limits: {maps: 3, bytes: 2Mi, instructions: 100}
  share:
  - /sys/fs/bpf/a
  - {path: /sys/fs/bpf/b, access: read-write}
  - {kind: map, id: 7}
  rules:
  - name: maps
    commands: [map_create]
    when: map.type == "array" && map.max_entries <= 8
    verdict: allow
    limits: {maps: 2, bytes: 64Ki}
    audit: none
  - name: progs
    commands: [prog_load]
    when: prog.helpers.all(h, h in ["bpf_loop"])
    verdict: allow
    audit: full
    limits: {instructions: 10}
  - name: until
    commands: [obj_pin]
    verdict: allow
    expires: 2030-01-02T03:04:05+01:00
  - name: no
    commands: [obj_get]
    when: pin.path.startsWith("/x")
    verdict: deny
    errno: EACCES
    message: not there
  - name: yours
    commands: [btf_load]
    verdict: native
`

func TestParse(t *testing.T) {
	text := strings.Replace(example, "    small: map.max_entries <= size_limit\n    size_limit: 4 * 2\n", "    size_limit: 4 * 2\n    small: map.max_entries <= size_limit\n", 1)
	text = strings.Replace(text, "map.max_entries <= 8", "small", 1)
	p, err := load.Parse("e.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	s := p.Spec()
	if got, want := fmt.Sprint(s.Selector), "{[alice] [dev] [reg/*] map[app:x] [/user.slice]}"; got != want {
		t.Errorf("selector %s, wanted %s", got, want)
	}
	if want := []policy.Share{{Path: "/sys/fs/bpf/a"}, {Path: "/sys/fs/bpf/b", Write: true}, {Kind: "map", ID: 7}}; !slices.Equal(s.Share, want) {
		t.Errorf("share %v, wanted %v", s.Share, want)
	}
	if got, want := p.Limits(), (policy.Limits{Maps: 3, Bytes: 2 << 20, Insns: 100}); got != want {
		t.Errorf("limits %v, wanted %v", got, want)
	}
	if file, source := p.Source(); file != "e.yaml" || string(source) != text {
		t.Errorf("source %q of %d bytes", file, len(source))
	}
	needs := p.Needs("prog_load")
	for fact, want := range map[string]bool{"prog.helpers": true, "prog.insns": true, "prog.type": true, "map.type": false, "prog.digest": false} {
		if needs.Has(fact) != want {
			t.Errorf("prog_load needs %s: %v", fact, !want)
		}
	}
	if n := p.Needs("map_create"); !n.Has("map.max_entries") || !n.Has("map.bytes") {
		t.Errorf("map_create needs %v", n)
	}
	if n := p.Needs("link_create"); n != (facts.Set{}) {
		t.Errorf("link_create needs %v", n)
	}
	now := time.Date(2030, 1, 2, 2, 4, 4, 0, time.UTC)
	p = p.WithClock(func() time.Time { return now })
	long := facts.Facts{Command: "obj_get"}
	long.Pin.Path = "/x" + strings.Repeat("\x1b", 5000)
	for _, c := range []struct {
		f     facts.Facts
		later time.Duration
		want  policy.Decision
	}{
		{facts.Facts{Command: "map_create", Map: facts.Map{Type: "array", MaxEntries: 8}}, 0,
			policy.Decision{Verdict: policy.Allow, Cause: policy.ByRule, Rule: "maps", Audit: policy.AuditNone, Limits: &policy.Limits{Maps: 2, Bytes: 64 << 10},
				Message: `policy "example": rule "maps" (e.yaml:15) allows it`}},
		{facts.Facts{Command: "map_create", Map: facts.Map{Type: "array", MaxEntries: 9}}, 0,
			policy.Decision{Message: `policy "example": no rule matches map_create; nearest is "maps" (e.yaml:8): map.max_entries is 9, not at most 8`}},
		{facts.Facts{Command: "map_create", Map: facts.Map{Type: "hash", MaxEntries: 9}}, 0,
			policy.Decision{Message: `policy "example": no rule matches map_create; nearest is "maps" (e.yaml:17): map.type is "hash", not "array"`}},
		{facts.Facts{Command: "prog_load", Prog: facts.Prog{Type: "xdp", Insns: 11}}, 0,
			policy.Decision{Cause: policy.ByLimit, Rule: "progs", Audit: policy.AuditFull, Limits: &policy.Limits{Insns: 10},
				Message: `policy "example": rule "progs" (e.yaml:21) allows programs of 10 instructions; prog.insns is 11`}},
		{facts.Facts{Command: "prog_load", Prog: facts.Prog{Type: "xdp", Helpers: []string{"bpf_loop", "bpf_probe_read"}}}, 0,
			policy.Decision{Message: `policy "example": no rule matches prog_load; nearest is "progs" (e.yaml:23): prog.helpers has "bpf_probe_read", not in ["bpf_loop"]`}},
		{facts.Facts{Command: "prog_load", Unknown: facts.Unknown{{Fact: "prog.helpers", Why: "no BTF"}}}, 0,
			policy.Decision{Cause: policy.ByError, Rule: "progs", Audit: policy.AuditFull,
				Message: `policy "example": rule "progs" (e.yaml:21) can't be decided for prog_load: prog.helpers isn't known: "no BTF"`}},
		{facts.Facts{Command: "obj_pin"}, 0,
			policy.Decision{Verdict: policy.Allow, Cause: policy.ByRule, Rule: "until", Message: `policy "example": rule "until" (e.yaml:27) allows it`}},
		{facts.Facts{Command: "obj_pin"}, time.Second,
			policy.Decision{Message: `policy "example": no rule matches obj_pin; nearest is "until" (e.yaml:27): it has expired`}},
		{long, 0, policy.Decision{Cause: policy.ByRule, Rule: "no", Errno: 13,
			Message: `policy "example": rule "no" (e.yaml:31) denies obj_get, where pin.path is "/x` + strings.Repeat(`\x1b`, 98) + `…": not there`}},
		{facts.Facts{Command: "btf_load"}, 0,
			policy.Decision{Verdict: policy.Native, Cause: policy.ByRule, Rule: "yours", Message: `policy "example": rule "yours" (e.yaml:37) leaves it to the kernel`}},
		{facts.Facts{Command: "link_create"}, 0, policy.Decision{Message: `policy "example": no rule is for "link_create"`}},
		{facts.Facts{Command: "unknown"}, 0, policy.Decision{Message: `policy "example": no rule is for "unknown"`}},
		{facts.Facts{}, 0, policy.Decision{Message: `policy "example": no rule is for ""`}},
	} {
		was := now
		now = now.Add(c.later)
		got := p.Decide(&c.f)
		now = was
		limits := fmt.Sprint(got.Limits != nil && c.want.Limits != nil && *got.Limits == *c.want.Limits || got.Limits == c.want.Limits)
		if got.All != nil && *got.All != p.Spec().Limits {
			t.Errorf("%s: limits of the workload: %+v", c.f.Command, got.All)
		}
		got.Limits, c.want.Limits, got.All = nil, nil, nil
		if got != c.want || limits != "true" {
			t.Errorf("%s: got\n%+v (limits as wanted: %s), wanted\n%+v", c.f.Command, got, limits, c.want)
		}
	}
}

// What an instruction of a condition takes is bounded, whatever the facts are.
func TestSteps(t *testing.T) {
	p, err := load.Parse("p.yaml", []byte(`{apiVersion: bpfbroker/v1alpha1, kind: Policy, metadata: {name: test}, spec: {rules: [{name: r, commands: [prog_load], verdict: allow,
  when: 'prog.kfuncs.all(h, h in prog.helpers)'}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	f := facts.Facts{Command: "prog_load"}
	for i := range 4096 {
		f.Prog.Helpers = append(f.Prog.Helpers, fmt.Sprint(i))
		f.Prog.Kfuncs = append(f.Prog.Kfuncs, "4095")
	}
	start := time.Now()
	d := p.Decide(&f)
	if took := time.Since(start); d.Cause != policy.ByError || !strings.Contains(d.Message, "steps") || took > time.Second {
		t.Errorf("got %+v after %v", d, took)
	}
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/errors/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	more, err := filepath.Glob("../builtin/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range append(files, more...) {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(example))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := load.Parse("f.yaml", text)
		if err != nil {
			if p != nil || err.Error() == "" {
				t.Errorf("%v and %v", p, err)
			}
			return
		}
		for _, c := range policy.Commands() {
			if d := p.Decide(&facts.Facts{Command: c}); d.Message == "" {
				t.Errorf("%s: a decision without a reason", c)
			}
		}
		data, err := p.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := policy.Decode(data); err != nil {
			t.Errorf("decode what was encoded: %v", err)
		}
	})
}

// fifty is a policy of 50 rules for one command, of which the last matches.
func fifty(b *testing.B) *policy.Rules {
	var rules strings.Builder
	types := []string{"kprobe", "tracepoint", "perf_event", "socket_filter", "sched_cls"}
	for i := range 49 {
		fmt.Fprintf(&rules, "  - {name: r%d, commands: [prog_load], when: 'prog.type == %q && prog.name == \"p%d\" && prog.helpers.all(h, h in allowed)', verdict: allow}\n", i, types[i%5], i)
	}
	p, err := load.Parse("b.yaml", []byte(`apiVersion: bpfbroker/v1alpha1
kind: Policy
metadata: {name: fifty}
spec:
  variables:
    allowed: '["bpf_loop", "bpf_map_lookup_elem", "bpf_ktime_get_ns", "bpf_ringbuf_output"]'
  rules:
`+rules.String()+`  - {name: last, commands: [prog_load], when: 'prog.type == "xdp" && prog.helpers.all(h, h in allowed)', verdict: allow}
`))
	if err != nil {
		b.Fatal(err)
	}
	return p
}

func BenchmarkDecide(b *testing.B) {
	p := fifty(b)
	f := facts.Facts{Command: "prog_load"}
	f.Prog = facts.Prog{Type: "xdp", Name: "x", Helpers: []string{"bpf_loop", "bpf_ktime_get_ns", "bpf_map_lookup_elem"}}
	b.Run("allowed", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if p.Decide(&f).Rule != "last" {
				b.Fatal("not allowed")
			}
		}
	})
	g := f
	g.Prog.Type = "kprobe"
	b.Run("denied", func(b *testing.B) { // with its explanation
		b.ReportAllocs()
		for b.Loop() {
			if p.Decide(&g).Verdict != policy.Deny {
				b.Fatal("allowed")
			}
		}
	})
	observe, err := policy.Builtin("observe")
	if err != nil {
		b.Fatal(err)
	}
	g.Prog.AttachType = ""
	for i := range 40 {
		g.Prog.Helpers = append(g.Prog.Helpers, []string{"bpf_map_lookup_elem", "bpf_loop"}[i%2])
	}
	b.Run("observe", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if observe.Decide(&g).Verdict != policy.Allow {
				b.Fatal("not allowed")
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	text, _ := policy.BuiltinSource("observe")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := load.Parse("observe.yaml", text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	text, _ := policy.BuiltinSource("observe")
	p, err := load.Parse("observe.yaml", text)
	if err != nil {
		b.Fatal(err)
	}
	data, err := p.Encode()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := policy.Decode(data); err != nil {
			b.Fatal(err)
		}
	}
}

// TestNativeRules: of a command that the kernel is left to a rule isn't asked, and says so.
// (BPF_PROG_TEST_RUN comes to the broker for its loaders' calls, of which each is decided.)
func TestNativeRules(t *testing.T) {
	native := abi.NativeCommands("99.0", false)
	for _, row := range abi.Rows() {
		text := fmt.Sprintf("{apiVersion: bpfbroker/v1alpha1, kind: Policy, metadata: {name: test}, spec: {rules: [{name: r, commands: [%s], verdict: allow}]}}", row.Name)
		_, err := load.Parse("p.yaml", []byte(text))
		refused := err != nil && strings.Contains(err.Error(), row.Name+" acts on what the caller holds alone")
		if is := row.Native && !row.Intercepted(); refused != is || !refused && err != nil {
			t.Errorf("%s, native %v: %v", row.Name, is, err)
		}
		if refused && row.Command != abi.NoCommand && !slices.Contains(native, uint32(row.Command)) {
			t.Errorf("%s is refused, and the filter has it notified", row.Name)
		}
	}
}
