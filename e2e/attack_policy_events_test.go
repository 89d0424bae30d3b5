package e2e

import (
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// Events that tell of others, or change what they execute.

const (
	sampleTID, sampleStack, sampleRegs = unix.PERF_SAMPLE_TID, unix.PERF_SAMPLE_STACK_USER, unix.PERF_SAMPLE_REGS_USER
	// kernelText is where the kernel has its own memory, on either architecture.
	kernelText = 0xffffffff81000000
)

var attacksByEvents = []attack{
	{name: "stacks of others", denied: by{"observe": `perf_event.sample has "PERF_SAMPLE_STACK_USER"`},
		do: opensEvent(f{"type": unix.PERF_TYPE_SOFTWARE, "sample_type": sampleTID | sampleStack, "sample_stack_user": 8192}, everyone)},
	{name: "the stack of the test", denied: by{"observe": `perf_event.sample has "PERF_SAMPLE_STACK_USER"`},
		do: opensEvent(f{"type": unix.PERF_TYPE_SOFTWARE, "sample_type": sampleStack, "sample_stack_user": 8192}, theTest)},
	{name: "registers of others", denied: by{"observe": `perf_event.sample has "PERF_SAMPLE_REGS_USER"`},
		do: opensEvent(f{"type": unix.PERF_TYPE_SOFTWARE, "sample_type": sampleRegs, "sample_regs_user": 1}, everyone)},
	{name: "stacks of the kernel", denied: by{"observe": "perf_event.kernel_stacks is true"},
		do: opensEvent(f{"type": unix.PERF_TYPE_SOFTWARE, "sample_type": unix.PERF_SAMPLE_CALLCHAIN}, everyone)},
	{name: "a breakpoint in the test's memory", mayLack: noBreakpoints, denied: by{"observe": `perf_event.type is "breakpoint"`},
		do: opensEvent(f{"type": unix.PERF_TYPE_BREAKPOINT, "bp_type": 2, "config1": uint64(goText), "config2": 8}, theTest)},
	{name: "a breakpoint in the kernel's memory", mayLack: noBreakpoints, denied: by{"observe": `perf_event.type is "breakpoint"`},
		do: opensEvent(f{"type": unix.PERF_TYPE_BREAKPOINT, "bp_type": 2, "config1": uint64(kernelText), "config2": 8}, everyone)},
	{name: "a raw event", mayLack: "a machine may have no such counters", denied: by{"observe": `perf_event.type is "raw"`},
		do: opensEvent(f{"type": unix.PERF_TYPE_RAW, "config": 0x1b7}, everyone)},
	{name: "a raw event of the test", mayLack: "a machine may have no such counters", denied: by{"observe": `perf_event.type is "raw"`},
		do: opensEvent(f{"type": unix.PERF_TYPE_RAW, "config": 0x1b7}, theTest)},
	{name: "a uprobe in a program of all", denied: by{"observe": "perf_event.file_shared is true"}, rule: "perf_event.file == ", do: opensUprobe(everyone)},
	{name: "a uprobe in another's process", denied: by{"observe": "perf_event.file_shared is true"}, rule: "perf_event.file == ", do: opensUprobe(theTest)},
	{name: "uprobes by a link", denied: by{"observe": "attach.file_shared is true"}, rule: "attach.file == ", do: func(a *attacker) error {
		offsets := words(0x1240, 0)
		return a.try(abi.LinkCreate, f{"prog_fd": a.own("kprobe", ret0, "trace_uprobe_multi"), "attach_type": attachType("trace_uprobe_multi"),
			"uprobe_multi.path": "/bin/true", "uprobe_multi.offsets": offsets, "uprobe_multi.cnt": 1})
	}},
	{name: "an event of all", denied: by{"network": `no rule is for "perf_event_open"`, "container-devices": `no rule is for "perf_event_open"`},
		do: opensEvent(f{"type": unix.PERF_TYPE_SOFTWARE}, everyone)},
	{name: "another's program at a tracepoint", denied: by{"observe": "attach.prog_own is false", "network": `no rule is for "raw_tracepoint_open"`, "container-devices": `no rule is for "raw_tracepoint_open"`},
		do: calling(abi.RawTPOpen, func(v *theHosts) f { return f{"name": "sys_enter", "prog_fd": v.Raw} })},
}

const noBreakpoints = "a machine may have no breakpoints left"

// whose says of which processes an event is, and on which CPU.
type whose func(v *theHosts) (pid, cpu int)

func everyone(*theHosts) (pid, cpu int)  { return -1, 0 }
func theTest(v *theHosts) (pid, cpu int) { return v.PID, -1 }

// opensEvent is an attack by perf_event_open.
func opensEvent(fields f, of whose) func(*attacker) error {
	return func(a *attacker) error {
		pid, cpu := of(&a.theHosts)
		at := make([]byte, 200)
		a.put(&abi.PerfEventOpen.Layout, at, fields)
		abi.PerfEventOpen.Field("size").Put(at, 112)
		fd, e := sys.PerfEventOpen(at, pid, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
		runtime.KeepAlive(a.keep)
		return tried(fd, e)
	}
}

func opensUprobe(of whose) func(*attacker) error {
	return func(a *attacker) error {
		typ, ok := sys.EventType("uprobe")
		if !ok {
			fail("no uprobes")
		}
		return opensEvent(f{"type": int(typ), "uprobe_path": "/bin/true", "config2": 0x1240}, of)(a)
	}
}
