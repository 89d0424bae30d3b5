package guard

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/bpfbroker/bpfbroker/abi"
)

var scope = Scope{ID: 0x1122334455667788, Level: 3}

// at makes records of 8 bytes at these places.
func at(places ...uint32) Records {
	var b []byte
	for i, n := range places {
		b = binary.NativeEndian.AppendUint32(b, n)
		b = binary.NativeEndian.AppendUint32(b, uint32(i))
	}
	return Records{b, 8}
}

// of makes the program with a guard.
func of(s Scope, p *Program, foreign int32) (*Program, error) {
	return (&Guard{Scope: s, Foreign: foreign, Original: Original{Tag: [8]byte{9, 8, 7, 6, 5, 4, 3, 2}, Verified: 1<<32 - 1}}).Program(p, func(n int) []byte { return make([]byte, n) })
}

func TestGuard(t *testing.T) {
	body := bytes.Repeat([]byte{0xb7, 0, 0, 0, 0, 0, 0, 0}, 30)
	p := &Program{Insns: bytes.Clone(body), FuncInfo: at(0, 10, 20), LineInfo: at(0, 1, 29), CoreRelos: at(0, 80)}
	g, err := of(scope, p, 1)
	if err != nil {
		t.Fatal(err)
	}
	if len(g.Insns) != len(body)+Size || !bytes.Equal(g.Insns[Size:], body) || !bytes.Equal(p.Insns, body) {
		t.Error("the program itself has changed")
	}
	for what, c := range map[string]struct{ got, want Records }{
		"functions":   {g.FuncInfo, at(0, Insns+10, Insns+20)},
		"lines":       {g.LineInfo, at(0, Insns+1, Insns+29)},
		"relocations": {g.CoreRelos, at(Size, Size+80)},
	} {
		if !bytes.Equal(c.got.Data, c.want.Data) {
			t.Errorf("%s: % x, wanted % x", what, c.got.Data, c.want.Data)
		}
	}
	if !bytes.Equal(p.FuncInfo.Data, at(0, 10, 20).Data) {
		t.Error("what was given has changed")
	}

	// And back.
	shown := bytes.Clone(g.Insns)
	binary.NativeEndian.PutUint32(shown[callAt*InsnSize+4:], 0xdeadbeef) // as the kernel shows it
	back, ok := scope.Undo(shown, nil)
	if !ok || back.Verified != 1<<32-1 || back.Tag != [8]byte{9, 8, 7, 6, 5, 4, 3, 2} {
		t.Fatalf("the guard isn't found: %+v", back)
	}
	if got, err := back.Insns(shown); err != nil || !bytes.Equal(got, body) {
		t.Errorf("got (%v) % x", err, got)
	}
	if back.Records(&g.FuncInfo); !bytes.Equal(g.FuncInfo.Data, p.FuncInfo.Data) {
		t.Errorf("functions: % x", g.FuncInfo.Data)
	}
	for what, other := range map[string]Scope{"cgroup": {scope.ID + 1<<32, scope.Level}, "level": {scope.ID, 4}, "nothing": {}} {
		if _, is := other.Begins(g.Insns); is {
			t.Errorf("the guard of another %s is taken for ours", what)
		}
	}
	for n := range g.Insns[:Size] {
		if _, is := scope.Begins(g.Insns[:n]); is {
			t.Errorf("%d bytes are a guard", n)
		}
	}
	if _, is := scope.Begins(bytes.Repeat(body, 2)); is {
		t.Error("the body is a guard")
	}
}

func TestGuardRefuses(t *testing.T) {
	if _, err := of(scope, &Program{Insns: make([]byte, InsnSize*(abi.MaxInsns-Insns))}, 0); err != nil {
		t.Errorf("as long as it may be: %v", err)
	}
	if _, err := of(scope, &Program{Insns: make([]byte, InsnSize*(abi.MaxInsns-Insns+1))}, 0); err == nil {
		t.Error("too long")
	}
	for what, r := range map[string]Records{"cut": {make([]byte, 12), 8}, "no size": {make([]byte, 8), 0}, "a small one": {make([]byte, 6), 3}} {
		if _, err := of(scope, &Program{LineInfo: r}, 0); err == nil {
			t.Errorf("records: %s", what)
		}
	}
}

// TestForeign: the values that were looked up in the kernel, and what isn't guarded.
func TestForeign(t *testing.T) {
	for _, c := range []struct {
		prog, attach string
		want         int32
	}{
		{"kprobe", "cgroup_inet_ingress", 1}, {"kprobe", "perf_event", 1},
		{"kprobe", "trace_kprobe_multi", 0}, {"kprobe", "trace_uprobe_multi", 0},
		{"kprobe", "trace_kprobe_session", 1}, {"kprobe", "trace_uprobe_session", 1},
		{"tracepoint", "cgroup_inet_ingress", 1}, {"perf_event", "", 0}, {"raw_tracepoint", "", 0},
		{"tracing", "trace_raw_tp", 0}, {"tracing", "trace_fentry", 0}, {"tracing", "trace_fexit", 0}, {"tracing", "modify_return", 0},
	} {
		if got, err := Foreign(c.prog, c.attach); got != c.want || err != nil {
			t.Errorf("%s, %s: %d, %v", c.prog, c.attach, got, err)
		}
	}
	for _, c := range [][2]string{
		{"tracing", "trace_iter"}, {"tracing", "nothing"}, {"xdp", "xdp"}, {"sched_cls", ""}, {"struct_ops", ""}, {"ext", ""},
		{"syscall", ""}, {"lsm", "lsm_mac"}, {"raw_tracepoint_writable", ""}, {"", ""}, {"socket_filter", ""},
	} {
		if n, err := Foreign(c[0], c[1]); err == nil {
			t.Errorf("%s, %s: %d", c[0], c[1], n)
		}
	}
}

func TestCalls(t *testing.T) {
	if err := Calls([]string{"bpf_loop", "bpf_map_update_elem"}, []string{"bpf_iter_num_new"}); err != nil {
		t.Error(err)
	}
	for _, name := range later {
		if Calls([]string{"bpf_loop", name}, nil) == nil || Calls(nil, []string{name}) == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
