package guard

import (
	"fmt"
	"slices"
)

// Foreign says what a program of a type, with an expected attach type (both by their names
// in package abi), returns for a task that it isn't to run for: the value with which, for
// the kernel and for whoever else looks at the same event, nothing has happened. An error:
// such programs can't be guarded, and why.
func Foreign(progType, attachType string) (int32, error) {
	switch progType {
	case "kprobe":
		switch attachType {
		case "trace_kprobe_multi", "trace_uprobe_multi":
			// kernel/trace/bpf_trace.c, uprobe_multi_link_handler: 1 from a uprobe's handler
			// would remove the probe, in the kernels that hand it on.
			return 0, nil
		case "trace_kprobe_session", "trace_uprobe_session":
			// kernel/trace/bpf_trace.c, kprobe_multi_link_handler: 1 leaves the return out.
			return 1, nil
		}
		// kernel/trace/bpf_trace.c, trace_call_bpf: 0 would hide the event from all who
		// record it (perf), 1 lets it through.
		return 1, nil
	case "tracepoint":
		return 1, nil // likewise: kernel/events/core.c, perf_trace_run_bpf_submit
	case "perf_event":
		// kernel/events/core.c, bpf_overflow_handler: with 0 nothing is recorded in this
		// event, which is the workload's own: of others it would be a sample.
		return 0, nil
	case "raw_tracepoint":
		return 0, nil // nobody looks at it: kernel/trace/bpf_trace.c, __bpf_trace_run
	case "tracing":
		switch attachType {
		case "trace_raw_tp":
			return 0, nil // likewise
		case "trace_fentry", "trace_fexit", "trace_fsession":
			return 0, nil // kernel/bpf/verifier.c, check_return_code: no other is taken
		case "modify_return":
			return 0, nil // kernel/bpf/trampoline.c: the function runs as if nobody had asked
		case "trace_iter":
			return 0, fmt.Errorf("an iterator looks at what it goes through, not at who runs it")
		}
		return 0, fmt.Errorf("programs of type tracing for %q aren't known to have a subject", attachType)
	}
	if why := refused[progType]; why != "" {
		return 0, fmt.Errorf("programs of type %s %s", progType, why)
	}
	return 0, fmt.Errorf("programs of type %s don't run for a task", progType)
}

// refused are types with a reason of their own.
var refused = map[string]string{
	"raw_tracepoint_writable": "change what others pass at the tracepoint",
	"lsm":                     "decide for the kernel, in places where the current task isn't whom it is about",
	"struct_ops":              "are the kernel's own for all",
	"ext":                     "take the place of a function, and of the guard before it",
	"syscall":                 "act for whoever runs them",
}

// later are helpers and kernel functions that have a function of the program's called
// later, when the current task is any (bpf_timer, bpf_wq, bpf_task_work).
var later = []string{
	"bpf_timer_set_callback",
	"bpf_wq_set_callback", "bpf_wq_set_callback_impl",
	"bpf_task_work_schedule_signal", "bpf_task_work_schedule_signal_impl",
	"bpf_task_work_schedule_resume", "bpf_task_work_schedule_resume_impl",
}

// Calls says why a program with these helpers and kernel functions can't be guarded; nil:
// it can.
func Calls(helpers, kfuncs []string) error {
	for _, list := range [][]string{helpers, kfuncs} {
		for _, name := range list {
			if slices.Contains(later, name) {
				return fmt.Errorf("%s has a function called when the current task is any", name)
			}
		}
	}
	return nil
}
