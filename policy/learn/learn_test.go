package learn_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/policy"
	"github.com/bpfbroker/bpfbroker/policy/learn"
	"github.com/bpfbroker/bpfbroker/policy/load"
	"github.com/bpfbroker/bpfbroker/policy/names"
)

var update = flag.Bool("update", false, "rewrite the golden files")

type unknown = struct{ Fact, Why string }

func ok(f facts.Facts) learn.Operation {
	return learn.Operation{Facts: f, Verdict: policy.Allow, Outcome: "ok"}
}

func failed(errno string, f facts.Facts) learn.Operation {
	return learn.Operation{Facts: f, Verdict: policy.Allow, Outcome: errno}
}

// learned is the policy of the operations, and what it is as package load reads it.
func learned(t *testing.T, o learn.Options, ops ...learn.Operation) (*learn.Policy, *policy.Rules) {
	t.Helper()
	l := learn.New()
	for _, op := range ops {
		if err := l.Add(op); err != nil {
			t.Fatal(err)
		}
	}
	if o.Name == "" {
		o.Name = "test"
	}
	p := l.Write(o)
	r, err := load.Parse("test.yaml", p.Text)
	if err != nil {
		t.Fatalf("%v\n%s", err, p.Text)
	}
	return p, r
}

// tracer is what a tracing tool does, and a probe of what the kernel has.
func tracer() []learn.Operation {
	load := func(name string, insns int64, helpers ...string) facts.Facts {
		return facts.Facts{Command: "prog_load", Prog: facts.Prog{Type: "kprobe", Name: name, License: "GPL", Insns: insns, Helpers: helpers,
			MapTypes: []string{"hash"}, Digest: strings.Repeat("ab", 32)}}
	}
	probe := facts.Facts{Command: "prog_load", Prog: facts.Prog{Type: "kprobe", Insns: 2, Digest: strings.Repeat("cd", 32)}}
	probe.Unknown = append(probe.Unknown, unknown{"prog.kfuncs", "the function with BTF id 7: there is none"})
	event := func(typ, tracepoint string, config, pid int64) facts.Facts {
		return facts.Facts{Command: "perf_event_open", Event: facts.Event{Type: typ, Tracepoint: tracepoint, Config: config, PID: pid}}
	}
	made := func(o learn.Operation, kind string) learn.Operation { o.Made = kind; return o }
	return []learn.Operation{
		made(ok(facts.Facts{Command: "map_create", Map: facts.Map{Type: "hash", KeySize: 4, ValueSize: 8, MaxEntries: 1000, Name: "counts\n  - name: evil", Bytes: 1 << 20}}), "map"),
		made(ok(facts.Facts{Command: "map_create", Map: facts.Map{Type: "array", KeySize: 4, ValueSize: 8, MaxEntries: 1024, Bytes: 9000}}), "map"),
		made(ok(facts.Facts{Command: "map_create", Map: facts.Map{Type: "perf_event_array", KeySize: 4, ValueSize: 4, MaxEntries: 2}}), "map"),
		failed("EINVAL", facts.Facts{Command: "map_create", Map: facts.Map{Type: "77 /* bpf_map_type? */"}}),
		made(ok(load("one", 20, "bpf_map_lookup_elem")), "prog"),
		made(ok(load("two", 30, "bpf_get_current_comm", "bpf_map_lookup_elem")), "prog"),
		failed("EINVAL", facts.Facts{Command: "prog_load", Prog: facts.Prog{Type: "kprobe", Insns: 2, Helpers: []string{"helper 12345"}}}),
		failed("EINVAL", probe),
		ok(event("tracepoint", "sched:sched_switch", 320, -1)),
		ok(event("software", "", 9, -1)),
		ok(facts.Facts{Command: "perf_event_open", Event: facts.Event{Type: "uprobe", File: "/proc/4242/root/usr/lib/libc.so.6", FileShared: true, PIDOwn: true, PID: 7}}),
		ok(facts.Facts{Command: "perf_event_open", Event: facts.Event{Type: "uprobe", File: "/tmp/go-build123/exe/a.out", PID: -1}}),
		ok(facts.Facts{Command: "perf_event_set_bpf", Attach: facts.Attach{ProgType: "kprobe", ProgOwn: true}}),
		ok(facts.Facts{Command: "obj_get_info_by_fd", Object: facts.Object{Kind: "map", Own: true}}),
		ok(facts.Facts{Command: "obj_pin", Object: facts.Object{Kind: "map", Own: true}, Pin: facts.Pin{Path: "/sys/fs/bpf/x"}}),
		ok(facts.Facts{Command: "map_get_fd_by_id", Object: facts.Object{Kind: "map", Own: true}}),
		failed("ENOENT", facts.Facts{Command: "map_get_fd_by_id", Object: facts.Object{Kind: "map"}}),
		ok(facts.Facts{Command: "map_get_next_id"}),
		failed("ENOENT", facts.Facts{Command: "map_get_next_id"}),
	}
}

// network attaches, at what is its own and at what isn't.
func network() []learn.Operation {
	link := func(a facts.Attach) facts.Facts {
		a.ProgOwn = true
		return facts.Facts{Command: "link_create", Attach: a}
	}
	xdp := facts.Facts{Command: "prog_load", Prog: facts.Prog{Type: "xdp", AttachType: "xdp", Insns: 100, Helpers: []string{"bpf_redirect"}, Kfuncs: []string{"bpf_dynptr_from_xdp"}}}
	xdp.Workload.NetnsOwn = true
	var many []string
	for i := range 400 {
		many = append(many, fmt.Sprintf("tcp_function_with_a_long_name_%03d", i))
	}
	return []learn.Operation{
		ok(xdp),
		ok(link(facts.Attach{Type: "xdp", ProgType: "xdp", Ifname: "veth0", NetnsOwn: true, Flags: []string{"XDP_FLAGS_SKB_MODE"}})),
		ok(link(facts.Attach{Type: "cgroup_inet_ingress", ProgType: "cgroup_skb", Cgroup: "/workload/a7b1", CgroupInside: true})),
		ok(link(facts.Attach{Type: "cgroup_inet_egress", ProgType: "cgroup_skb", Cgroup: "/workload/a7b2", CgroupInside: true})),
		ok(link(facts.Attach{Type: "cgroup_inet_egress", ProgType: "cgroup_skb", Cgroup: "/system.slice"})),
		ok(link(facts.Attach{Type: "trace_kprobe_multi", ProgType: "kprobe", Functions: many})),
		ok(facts.Facts{Command: "raw_tracepoint_open", Attach: facts.Attach{ProgType: "raw_tracepoint", ProgOwn: true, Tracepoint: "sched_switch"}}),
		ok(facts.Facts{Command: "prog_load", Prog: facts.Prog{Type: "tracing", AttachType: "trace_fentry", Insns: 5, Target: facts.Target{Kind: "kernel", Name: "tcp_v4_connect"}}}),
		{Facts: facts.Facts{Command: "prog_query", Attach: facts.Attach{Type: "cgroup_inet_egress", CgroupInside: true}}, Verdict: policy.Native, Outcome: "continued"},
	}
}

// What is written for people to read.
func TestGolden(t *testing.T) {
	for _, c := range []struct {
		name string
		o    learn.Options
		ops  []learn.Operation
	}{
		{"tracer", learn.Options{Name: "tracer", Description: `what "tracer" did`}, tracer()},
		{"digests", learn.Options{Name: "123", Digests: true, NoLimits: true}, tracer()[4:8]},
		{"network", learn.Options{Name: "network-tool"}, network()},
		{"nothing", learn.Options{Name: "nothing"}, nil},
	} {
		p, r := learned(t, c.o, c.ops...)
		for _, op := range c.ops {
			decides(t, r, &op, p)
		}
		file := filepath.Join("testdata", c.name+".yaml")
		if *update {
			if err := os.WriteFile(file, p.Text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil || string(want) != string(p.Text) {
			t.Errorf("it differs from %s (%v); if that is meant, run go test ./policy/learn -update\n%s", file, err, p.Text)
		}
	}
}

// decides checks that the policy decides as what it was made of.
func decides(t *testing.T, r *policy.Rules, op *learn.Operation, p *learn.Policy) {
	t.Helper()
	f := op.Facts.Clone()
	for i := range facts.Table {
		if name := facts.Table[i].Name; op.Cut.Has(name) && f.Unknown.Why(name) == "" {
			f.Unknown = append(f.Unknown, unknown{name, "cut"})
		}
	}
	known := true // to bpfbroker, or no policy can allow it
	for name, v := range map[string]string{"map.type": f.Map.Type, "prog.type": f.Prog.Type, "prog.attach_type": f.Prog.AttachType} {
		if facts.Find(name).Has(f.Command) && !names.Of(name).Has(v) {
			known = false
		}
	}
	d := r.Decide(&f)
	switch {
	case d.Verdict == op.Verdict, op.Verdict == policy.Native && d.Verdict == policy.Allow:
	case !known && d.Verdict == policy.Deny:
	case op.Outcome != "ok" && op.Outcome != "gone" && len(f.Unknown) > 0 && p.Left > 0:
		// What the kernel refused, and nothing is known of.
	default:
		t.Fatalf("decided %v: %s\nwhat came out as %s: %.3000q\n%s", d.Verdict, d.Message, op.Outcome, fmt.Sprintf("%+v", f), p.Text)
	}
}

// What wasn't seen is denied, and the reason names what differs.
func TestVaried(t *testing.T) {
	p, r := learned(t, learn.Options{NoLimits: true}, append(tracer(), network()...)...)
	prog := func(f func(*facts.Prog)) facts.Facts {
		x := facts.Facts{Command: "prog_load", Prog: facts.Prog{Type: "kprobe", Insns: 20, Helpers: []string{"bpf_map_lookup_elem"}, MapTypes: []string{"hash"}}}
		f(&x.Prog)
		return x
	}
	array := func(f func(*facts.Map)) facts.Facts {
		x := facts.Facts{Command: "map_create", Map: facts.Map{Type: "array", KeySize: 4, ValueSize: 8, MaxEntries: 1024}}
		f(&x.Map)
		return x
	}
	link := func(typ string, f func(*facts.Attach)) facts.Facts {
		x := facts.Facts{Command: "link_create", Attach: facts.Attach{Type: typ, ProgOwn: true, ProgType: map[string]string{"xdp": "xdp", "trace_kprobe_multi": "kprobe"}[typ]}}
		if typ == "xdp" {
			x.Attach.Ifname, x.Attach.NetnsOwn = "veth0", true
		} else if typ != "trace_kprobe_multi" {
			x.Attach.ProgType, x.Attach.CgroupInside = "cgroup_skb", true
		}
		f(&x.Attach)
		return x
	}
	event := func(e facts.Event) facts.Facts { return facts.Facts{Command: "perf_event_open", Event: e} }
	for _, c := range []struct {
		f     facts.Facts
		names string // "": allowed
	}{
		{prog(func(p *facts.Prog) { p.Name = "another"; p.License = "none" }), ""},
		{prog(func(p *facts.Prog) { p.Insns = 64 }), ""},
		{prog(func(p *facts.Prog) { p.Insns = 65 }), "prog.insns"},
		{prog(func(p *facts.Prog) { p.Helpers = []string{"bpf_map_lookup_elem", "bpf_probe_write_user"} }), "bpf_probe_write_user"},
		{prog(func(p *facts.Prog) { p.Kfuncs = []string{"bpf_task_from_pid"} }), "prog.kfuncs"},
		{prog(func(p *facts.Prog) { p.MapTypes = []string{"array", "hash"} }), "prog.map_types"},
		{prog(func(p *facts.Prog) { p.Flags = []string{"BPF_F_SLEEPABLE"} }), "prog.flags"},
		{prog(func(p *facts.Prog) { p.Type = "tracepoint" }), "prog.type"},
		{prog(func(p *facts.Prog) { p.AttachType = "trace_kprobe_multi" }), "prog.attach_type"},
		{prog(func(p *facts.Prog) {
			*p = facts.Prog{Type: "tracing", AttachType: "trace_fentry", Insns: 5, Target: facts.Target{Kind: "kernel", Name: "tcp_v6_connect"}}
		}), "prog.target"},
		{prog(func(p *facts.Prog) {
			*p = facts.Prog{Type: "xdp", AttachType: "xdp", Insns: 100, Helpers: []string{"bpf_redirect"}}
		}), "workload.netns_own"},
		{array(func(*facts.Map) {}), ""},
		{array(func(m *facts.Map) { m.MaxEntries++ }), "map.max_entries is 1025, not at most 1024"},
		{array(func(m *facts.Map) { m.ValueSize = 9 }), "map.value_size"},
		{array(func(m *facts.Map) { m.Type = "ringbuf" }), "map.type"},
		{array(func(m *facts.Map) { m.Flags = []string{"BPF_F_MMAPABLE"} }), "map.flags"},
		{array(func(m *facts.Map) {
			*m = facts.Map{Type: "perf_event_array", KeySize: 4, ValueSize: 4, MaxEntries: 128}
		}), ""},
		{link("xdp", func(a *facts.Attach) { a.Flags = []string{"XDP_FLAGS_SKB_MODE"} }), ""},
		{link("xdp", func(a *facts.Attach) { a.Flags = []string{"XDP_FLAGS_DRV_MODE"} }), "attach.flags"},
		{link("xdp", func(a *facts.Attach) { a.Ifname = "veth1" }), "attach.ifname"},
		{link("xdp", func(a *facts.Attach) { a.NetnsOwn = false }), "attach.netns_own"},
		{link("xdp", func(a *facts.Attach) { a.ProgOwn = false }), "attach.prog_own"},
		{link("cgroup_inet_ingress", func(a *facts.Attach) { a.Cgroup = "/workload/other" }), ""},
		{link("cgroup_inet_ingress", func(a *facts.Attach) { a.Cgroup, a.CgroupInside = "/system.slice", false }), "attach.cgroup_inside"},
		{link("cgroup_inet_egress", func(a *facts.Attach) { a.Cgroup, a.CgroupInside = "/system.slice", false }), ""},
		{link("cgroup_inet_egress", func(a *facts.Attach) { a.Cgroup, a.CgroupInside = "/user.slice", false }), "attach.cgroup"},
		{link("trace_kprobe_multi", func(a *facts.Attach) { a.Functions = []string{"tcp_sendmsg"} }), ""}, // there were too many
		{link("trace_kprobe_multi", func(a *facts.Attach) { a.Functions = []string{"vfs_read"} }), "vfs_read"},
		{event(facts.Event{Type: "tracepoint", Tracepoint: "sched:sched_wakeup", PID: -1}), "perf_event.tracepoint"},
		{event(facts.Event{Type: "software", Config: 3, PID: -1}), "perf_event.config"},
		{event(facts.Event{Type: "breakpoint"}), "perf_event.type"},
		{event(facts.Event{Type: "uprobe", File: "/proc/99/root/usr/lib/libc.so.6", FileShared: true}), ""},
		{event(facts.Event{Type: "uprobe", File: "/tmp/go-build77/exe/a.out"}), ""},
		{event(facts.Event{Type: "uprobe", File: "/tmp/go-build77/x/exe/a.out"}), "perf_event.file"},
		{event(facts.Event{Type: "uprobe", File: "/usr/bin/bash"}), "perf_event.file"},
		{facts.Facts{Command: "raw_tracepoint_open", Attach: facts.Attach{ProgType: "raw_tracepoint", ProgOwn: true, Tracepoint: "sys_enter"}}, "attach.tracepoint"},
		{facts.Facts{Command: "obj_pin", Object: facts.Object{Kind: "map"}}, "object.own"},
		{facts.Facts{Command: "btf_load"}, "btf_load"},
	} {
		d := r.Decide(&c.f)
		if want := c.names == ""; (d.Verdict == policy.Allow) != want || !strings.Contains(d.Message, c.names) {
			t.Errorf("%+v: got %v, wanted a reason with %q: %s", c.f, d.Verdict, c.names, d.Message)
		}
	}
	if d := r.Decide(&facts.Facts{Command: "map_create", Map: facts.Map{Type: "77 /* bpf_map_type? */"}}); d.Errno != 22 {
		t.Errorf("a type that there isn't: %+v", d)
	}
	// Of a program's digest, neither its code nor its type may differ.
	_, r = learned(t, learn.Options{NoLimits: true, Digests: true}, tracer()[4:6]...)
	same := prog(func(p *facts.Prog) { p.Digest = strings.Repeat("ab", 32) })
	other := prog(func(p *facts.Prog) { p.Digest = strings.Repeat("ef", 32) })
	if d := r.Decide(&same); d.Verdict != policy.Allow {
		t.Errorf("the same program: %s", d.Message)
	}
	if d := r.Decide(&other); d.Verdict != policy.Deny || !strings.Contains(d.Message, "prog.digest") {
		t.Errorf("another program: %s", d.Message)
	}
	if t.Failed() {
		t.Logf("%s", p.Text)
	}
}

// Limits leave room above what was held at once, where that is known, else above what was
// made.
func TestLimits(t *testing.T) {
	for _, c := range []struct {
		held  int64 // maps, each of 100 MiB
		blind bool
		want  policy.Limits
	}{
		{0, false, policy.Limits{Maps: 200, Bytes: 20000 << 20}}, // it isn't told
		{1, false, policy.Limits{Maps: 8, Bytes: 400 << 20}},
		{30, false, policy.Limits{Maps: 62, Bytes: 6200 << 20}},
		{30, true, policy.Limits{Maps: 200, Bytes: 20000 << 20}},
	} {
		var ops []learn.Operation
		for range 100 {
			op := ok(facts.Facts{Command: "map_create", Map: facts.Map{Type: "array", Bytes: 100 << 20}, Counts: facts.Counts{Maps: c.held, Bytes: c.held * 100 << 20}})
			if op.Made = "map"; c.blind {
				op.Facts.Unknown = append(op.Facts.Unknown, unknown{"counts.maps", "it isn't counted"})
			}
			ops = append(ops, op)
		}
		if _, r := learned(t, learn.Options{}, ops...); r.Limits() != c.want {
			t.Errorf("held %d, blind %v: got %+v, wanted %+v", c.held, c.blind, r.Limits(), c.want)
		}
	}
}

// hostile are values with which a workload might try to write the policy itself.
var hostile = []string{"", "\"", "'", "\\", "\n", "\r\n- name: x\n  verdict: allow", "\"]) || true || (\"\" in [\"", "# x", "a\u2028b\u0085c", "\x00\x1b[31m", "\ufffd",
	"x\ufffdy", "${x}", "{{x}}", "*a", "&a", "!!str", "|", ">-", "%", "`", strings.Repeat("long", 300), "99 /* bpf_map_type? */", "helper 99", "0x40000000",
	"/proc/1/root/(.*)", "/tmp/a.(b|c)/[x]", "/var/tmp/1\n2/x", "eth0", "tcp_sendmsg", "über"}

// generated makes operations of all commands, with whatever values.
func generated(r *rand.Rand, n int, words []string) (ops []learn.Operation) {
	words = append(slices.Clone(hostile), words...)
	word := func(fact string) string {
		if d := names.Of(fact); d != nil && r.IntN(12) > 0 {
			return d.Names[r.IntN(len(d.Names))]
		}
		if r.IntN(3) == 0 {
			return fmt.Sprintf("name_%d", r.IntN(1000))
		}
		return words[r.IntN(len(words))]
	}
	commands := policy.Commands()
	if r.IntN(2) == 0 {
		commands = []string{"map_create", "prog_load", "link_create", "perf_event_open"}
	}
	for range n {
		op := learn.Operation{Verdict: policy.Allow, Outcome: []string{"ok", "ok", "EINVAL", "EACCES", "errno 524", "gone"}[r.IntN(6)]}
		if r.IntN(20) == 0 {
			op.Verdict = policy.Native
		}
		f := &op.Facts
		f.Command = commands[r.IntN(len(commands))]
		for i := range facts.Table {
			fact := &facts.Table[i]
			if fact.Name == "command" || !fact.Has(f.Command) || r.IntN(3) == 0 {
				continue
			}
			switch p := fact.At(f).(type) {
			case *string:
				*p = word(fact.Name)
			case *int64:
				*p = []int64{0, 1, -1, 4, 1000, 1 << 40, 1<<63 - 1, -1 << 63, r.Int64()}[r.IntN(9)]
			case *bool:
				*p = r.IntN(2) == 0
			case *[]string:
				for range r.IntN([]int{2, 5, 200}[r.IntN(3)]) {
					*p = append(*p, word(fact.Name))
				}
				slices.Sort(*p)
				*p = slices.Compact(*p)
			}
			switch r.IntN(40) {
			case 0:
				f.Unknown = append(f.Unknown, unknown{fact.Name, words[r.IntN(len(words))]})
			case 1:
				op.Cut.Add(fact.Name)
			}
		}
		ops = append(ops, op)
	}
	return ops
}

// FuzzLearn: whatever was seen, the policy is one that package load takes, and it allows
// what it was made of.
func FuzzLearn(f *testing.F) {
	for i := range uint64(32) {
		f.Add(i, uint16(1)<<(i%11), "x\x00y", i%3 == 0)
	}
	f.Fuzz(func(t *testing.T, seed uint64, n uint16, word string, digests bool) {
		var words []string
		for s := range strings.SplitSeq(strings.ToValidUTF8(word, "\ufffd"), "\x00") {
			words = append(words, s)
		}
		all := generated(rand.New(rand.NewPCG(seed, 1)), int(n%2000), words)
		l := learn.New()
		var ops []learn.Operation
		for _, op := range all {
			if l.Add(op) == nil {
				ops = append(ops, op)
			}
		}
		p := l.Write(learn.Options{Name: learn.Name(word), Description: word, Digests: digests})
		again := l.Write(learn.Options{Name: learn.Name(word), Description: word, Digests: digests})
		if string(p.Text) != string(again.Text) {
			t.Fatal("written twice, it isn't the same")
		}
		r, err := load.Parse("fuzz.yaml", p.Text)
		if err != nil {
			t.Fatalf("%v\n%s", err, p.Text)
		}
		if len(r.Spec().Rules) != p.Rules {
			t.Fatalf("%d rules became %d", p.Rules, len(r.Spec().Rules))
		}
		for i := range ops {
			decides(t, r, &ops[i], p)
		}
	})
}

// FuzzSmallest: the rule that an explanation prints allows what was denied.
func FuzzSmallest(f *testing.F) {
	for i := range uint64(200) {
		f.Add(i, "x")
	}
	f.Fuzz(func(t *testing.T, seed uint64, word string) {
		op := generated(rand.New(rand.NewPCG(seed, 2)), 1, []string{strings.ToValidUTF8(word, "\ufffd")})[0]
		if slices.Contains(names.Native(), op.Facts.Command) {
			return
		}
		rule := learn.Smallest(&op.Facts, op.Cut)
		text := "apiVersion: bpfbroker/v1alpha1\nkind: Policy\nmetadata: {name: x}\nspec:\n  rules:\n  " + strings.ReplaceAll(strings.TrimSpace(rule), "\n", "\n  ") + "\n"
		r, err := load.Parse("x.yaml", []byte(text))
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		op.Verdict = policy.Allow
		decides(t, r, &op, &learn.Policy{Text: []byte(text)})
	})
}

// TestOtherwise: of any operation, what a rule speaks of can't be otherwise, and the reason
// names it.
func TestOtherwise(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	tried := map[string]int{}
	for range 3000 {
		op := generated(r, 1, []string{"a", "b"})[0]
		op.Verdict, op.Outcome, op.Cut, op.Facts.Unknown = policy.Allow, "ok", facts.Set{}, nil
		l := learn.New()
		if l.Add(op) != nil {
			continue
		}
		p := l.Write(learn.Options{Name: "x", NoLimits: true})
		rules, err := load.Parse("x.yaml", p.Text)
		if err != nil {
			t.Fatalf("%v\n%s", err, p.Text)
		}
		if d := rules.Decide(&op.Facts); d.Verdict != policy.Allow {
			continue // a type that isn't known
		}
		_, cond, _ := strings.Cut(string(p.Text), "commands: ["+op.Facts.Command)
		cond, _, _ = strings.Cut(cond, "verdict:")
		var spoken []string // of these facts, and other words
		for _, w := range strings.FieldsFunc(cond, func(r rune) bool { return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz_.", r) }) {
			for _, method := range []string{".all", ".starts", ".matches"} {
				w = strings.TrimSuffix(w, method)
			}
			spoken = append(spoken, w)
		}
		for i := range facts.Table {
			fact := &facts.Table[i]
			if !fact.Has(op.Facts.Command) || !slices.Contains(spoken, fact.Name) {
				continue
			}
			f := op.Facts.Clone()
			switch p := fact.At(&f).(type) {
			case *string:
				*p = "something else"
			case *[]string:
				*p = append(*p, "something else")
			case *int64:
				if *p > 1<<60 {
					continue
				}
				*p = max(*p, 0)*8 + 4096
			case *bool:
				*p = !*p
			default:
				continue
			}
			tried[fact.Name]++
			if d := rules.Decide(&f); d.Verdict == policy.Allow || !strings.Contains(d.Message, fact.Name) {
				t.Fatalf("%s: decided %v: %s\n%s", fact.Name, d.Verdict, d.Message, p.Text)
			}
		}
	}
	if len(tried) < 30 {
		t.Errorf("only %d facts were tried: %v", len(tried), tried)
	}
}
