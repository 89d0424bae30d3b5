package broker

import (
	"strings"
	"testing"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/guard"
	"github.com/bpfbroker/bpfbroker/policy"
	"github.com/bpfbroker/bpfbroker/request"
	"github.com/bpfbroker/bpfbroker/workload"
)

// TestScopeRefuses: what can't be limited to the workload's tasks isn't allowed for all.
func TestScopeRefuses(t *testing.T) {
	known := guard.Scope{ID: 17, Level: 2}
	load := func(f facts.Facts) (*request.Request, facts.Facts) {
		row := abi.RowOf(abi.ProgLoad)
		insns := row.Field("insns")
		return &request.Request{Call: request.Call{Command: abi.ProgLoad}, Row: row, Attr: make([]byte, abi.AttrSize),
			Buffers: []request.Buffer{{Field: insns, Parent: request.NoParent, Data: []byte{0x95, 0, 0, 0, 0, 0, 0, 0}}}}, f
	}
	event := func(flags uint64) (*request.Request, facts.Facts) {
		q := &request.Request{Call: request.Call{Syscall: abi.SyscallPerfEventOpen, Command: abi.NoCommand}, Row: &abi.PerfEventOpen, Attr: make([]byte, abi.AttrSize)}
		abi.PerfEventOpen.Field("flags").Put(q.Attr, flags)
		return q, facts.Facts{Command: "perf_event_open"}
	}
	prog := func(typ string, helpers ...string) facts.Facts {
		return facts.Facts{Command: "prog_load", Prog: facts.Prog{Type: typ, Helpers: helpers}}
	}
	unknown := prog("tracepoint")
	unknown.Unknown = facts.Unknown{{Fact: "prog.kfuncs", Why: "no names"}}
	for what, c := range map[string]struct {
		known guard.Scope
		call  func() (*request.Request, facts.Facts)
		why   string // "": it is allowed
		scope policy.Scope
	}{
		"tracepoint":         {known, func() (*request.Request, facts.Facts) { return load(prog("tracepoint", "bpf_loop")) }, "", policy.ScopeWorkload},
		"clock":              {known, func() (*request.Request, facts.Facts) { return load(prog("perf_event")) }, "", policy.ScopeHost},
		"profiler":           {known, func() (*request.Request, facts.Facts) { return load(prog("perf_event", "bpf_get_current_pid_tgid")) }, "", policy.ScopeWorkload},
		"tracepoint, a read": {known, func() (*request.Request, facts.Facts) { return load(prog("tracepoint")) }, "", policy.ScopeWorkload},
		"no cgroup":          {guard.Scope{}, func() (*request.Request, facts.Facts) { return load(prog("tracepoint")) }, "has no cgroup of v2", policy.ScopeWorkload},
		"tc":                 {known, func() (*request.Request, facts.Facts) { return load(prog("sched_cls")) }, "don't run for a task", policy.ScopeWorkload},
		"timer":              {known, func() (*request.Request, facts.Facts) { return load(prog("kprobe", "bpf_timer_set_callback")) }, "bpf_timer_set_callback", policy.ScopeWorkload},
		"unknown":            {known, func() (*request.Request, facts.Facts) { return load(unknown) }, "prog.kfuncs isn't known: no names", policy.ScopeWorkload},
		"event":              {known, func() (*request.Request, facts.Facts) { return event(0) }, "", policy.ScopeWorkload},
		"event of a cgroup":  {known, func() (*request.Request, facts.Facts) { return event(abi.PerfFlagPIDCgroup) }, "a cgroup that the caller names", policy.ScopeWorkload},
		"event, no cgroup":   {guard.Scope{}, func() (*request.Request, facts.Facts) { return event(0) }, "has no cgroup of v2", policy.ScopeWorkload},
	} {
		th := &thread{Broker: &Broker{cfg: Config{Known: &workload.Known{Guard: c.known}}}}
		q, f := c.call()
		d := policy.Decision{Verdict: policy.Allow, Cause: policy.ByRule, Message: "the rule allows it", Scope: policy.ScopeWorkload}
		th.scope(q, &f, &d)
		if allowed := d.Verdict == policy.Allow; allowed != (c.why == "") || !strings.Contains(d.Message, c.why) || d.Scope != c.scope {
			t.Errorf("%s: %v, scope %v: %s", what, d.Verdict, d.Scope, d.Message)
		}
	}
}
