package broker

import (
	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/guard"
	"github.com/bpfbroker/bpfbroker/policy"
	"github.com/bpfbroker/bpfbroker/request"
)

// scope denies what is allowed for the workload's tasks alone, and can't be limited to
// them. Package perform limits the rest: programs have a guard, events are of a cgroup.
func (t *thread) scope(q *request.Request, f *facts.Facts, d *policy.Decision) {
	why := ""
	switch {
	case q.Syscall == abi.SyscallPerfEventOpen:
		if q.Field("flags")&abi.PerfFlagPIDCgroup != 0 {
			why = "the event is of a cgroup that the caller names"
		}
	case q.Command != abi.ProgLoad:
		return
	default:
		if _, err := guard.Foreign(f.Prog.Type, f.Prog.AttachType); err != nil {
			why = err.Error()
			break
		}
		for _, fact := range []string{"prog.helpers", "prog.kfuncs"} {
			if unknown := f.Unknown.Why(fact); unknown != "" {
				why = fact + " isn't known: " + unknown
			}
		}
		if err := guard.Calls(f.Prog.Helpers, f.Prog.Kfuncs); err != nil {
			why = err.Error()
		}
		// What a tracer has called by a clock would wait for the workload to run.
		if b := q.Buffer("insns"); why == "" && f.Prog.Type == "perf_event" && b != nil && len(f.Prog.Kfuncs) == 0 && guard.Subjectless(b.Data, f.Prog.Helpers) {
			d.Scope, d.PIDs = policy.ScopeHost, policy.ScopeHost
			return
		}
	}
	if why == "" && !t.cfg.Known.Guard.Known() {
		why = "the workload has no cgroup of v2 whose place in the hierarchy is known"
	}
	switch {
	case why != "":
		*d = d.Unscoped(why)
	case d.PIDs == policy.ScopeWorkload && t.cfg.Known.IDs.Unusable() != "":
		*d = d.Unnumbered(t.cfg.Known.IDs.Unusable())
	}
}
