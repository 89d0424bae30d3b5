package abi

// Syscall tells the system calls apart that a row may be of; of ioctl(), the requests.
type Syscall uint8

const (
	SyscallBPF Syscall = iota
	SyscallPerfEventOpen
	SyscallPerfSetBPF   // ioctl(fd, PERF_EVENT_IOC_SET_BPF, prog_fd)
	SyscallPerfQueryBPF // ioctl(fd, PERF_EVENT_IOC_QUERY_BPF, query)
	afterLastSyscall
)

// The ioctls' requests, include/uapi/linux/perf_event.h.
const (
	PerfIOCSetBPF   = 0x40042408 // PERF_EVENT_IOC_SET_BPF
	PerfIOCQueryBPF = 0xc008240a // PERF_EVENT_IOC_QUERY_BPF
)

var others = [afterLastSyscall]*Row{SyscallPerfEventOpen: &PerfEventOpen, SyscallPerfSetBPF: &PerfSetBPF, SyscallPerfQueryBPF: &PerfQueryBPF}

// RowOfSyscall returns the row of a system call that isn't bpf(); nil: there is none.
func RowOfSyscall(s Syscall) *Row {
	if int(s) < len(others) {
		return others[s]
	}
	return nil
}

// Rows returns all rows: the table's, and those of other system calls. They are
// shared: read only.
func Rows() []*Row {
	var all []*Row
	for i := range table {
		all = append(all, &table[i])
	}
	return append(all, others[SyscallBPF+1:]...)
}

// PerfEventOpen is perf_event_open(2): half of all BPF tools attach by it. Its
// attribute is struct perf_event_attr (include/uapi/linux/perf_event.h) of
// Linux 6.18; behind it the row has the call's other arguments, and what the
// broker alone can tell: which of the kernel's dynamic types means a probe.
var PerfEventOpen = func() Row {
	probe := func(p Probe) Cond { return all(is("probe", uint64(p))) }
	r := row(Row{Syscall: SyscallPerfEventOpen, Command: NoCommand, Kernel: "perf_event_open", Name: "perf_event_open", Since: "2.6.31", Last: "flags", Host: "CAP_PERFMON",
		Args:    []string{1: "pid", 2: "cpu", 3: "group_fd", 4: "flags"},
		Returns: Result{FD: PerfEvent}, Why: "tracepoints, probes and events of a CPU need CAP_PERFMON"},
		u32("type").enum(EventTypes).fact("perf_event.type"), u32("size").inout().maybe(), u64("config").fact("perf_event.config"),
		u64("sample_period"), u64("sample_type").flags(PerfSampleFlags).fact("perf_event.sample"), u64("read_format"), u64("bits"), u32("wakeup_events"), u32("bp_type"),
		union(
			[]part{u64("config1").when(probe(NoProbe))},
			[]part{u64("kprobe_func").in(ElemString, Len{Elem: MaxSymbol, Max: MaxSymbol}).when(probe(Kprobe)).fact("perf_event.function")},
			[]part{u64("uprobe_path").path(PathOpen).kept().when(probe(Uprobe)).fact("perf_event.file")},
		),
		u64("config2").fact("perf_event.offset"), u64("branch_sample_type").since("3.4"), u64("sample_regs_user").since("3.7"),
		u32("sample_stack_user").since("3.7"), s32("clockid").since("4.1"), u64("sample_regs_intr").since("4.1"),
		u32("aux_watermark").since("4.1"), field("sample_max_stack", 2, 2, Scalar).since("4.8"), field("reserved_2", 2, 2, Scalar),
		u32("aux_sample_size").since("5.5"), u32("aux_action").since("6.14"), u64("sig_data").since("5.13"), u64("config3").since("6.3"),
		// The arguments behind the first.
		union(
			[]part{s32("pid").pid().when(all(hasNot("flags", PerfFlagPIDCgroup))).fact("perf_event.pid")},
			[]part{s32("cgroup_fd").fd(Cgroup).when(all(has("flags", PerfFlagPIDCgroup)))},
		),
		s32("cpu").fact("perf_event.cpu"), s32("group_fd").fd(PerfEvent), u32("probe"), u64("flags").flags(PerfEventFlags),
	)
	return r
}()

// PerfSetBPF attaches a program to a perf event (kernel/events/core.c, _perf_ioctl).
var PerfSetBPF = row(Row{Syscall: SyscallPerfSetBPF, Command: NoCommand, Kernel: "PERF_EVENT_IOC_SET_BPF", Name: "perf_event_set_bpf", Since: "4.1", Last: "prog_fd",
	Args: []string{0: "fd", 2: "prog_fd"}, Effect: true, Why: "the kernel checks no capability, and a tracepoint's program runs for all tasks, whatever the event's pid"},
	s32("fd").fd(PerfEvent), s32("prog_fd").fd(Prog))

// PerfQueryBPF lists the programs of a tracepoint (kernel/trace/bpf_trace.c,
// perf_event_query_prog_array). Its attribute is struct perf_event_query_bpf, but for
// the ids at its end; behind it the row has their address, and the call's fd.
var PerfQueryBPF = row(Row{Syscall: SyscallPerfQueryBPF, Command: NoCommand, Kernel: "PERF_EVENT_IOC_QUERY_BPF", Name: "perf_event_query_bpf", Since: "4.16", Last: "fd",
	Args: []string{0: "fd"}, Host: "CAP_PERFMON", Why: "needs CAP_PERFMON"},
	u32("ids_len"), u32("prog_cnt").out(),
	u64("ids").outBuf(ElemU32, Len{Count: "ids_len", Elem: 4, Max: MaxTraceProgs * 4}, WroteElems),
	s32("fd").fd(PerfEvent))

// PerfQuerySize is the part of struct perf_event_query_bpf before the ids, bytes.
const PerfQuerySize = 8

// PerfEventAttrSize is the part of the row that is struct perf_event_attr, bytes
// (PERF_ATTR_SIZE_VER8); PerfEventAttrMin that of the first version.
const (
	PerfEventAttrSize = 136
	PerfEventAttrMin  = 64
)

// Probe is the row's field probe.
type Probe uint32

const (
	NoProbe Probe = iota
	Kprobe
	Uprobe
)

// Some of the attribute's bits, and of its sample_type's.
const (
	PerfBitExcludeKernel          = 1 << 5  // exclude_kernel
	PerfBitExcludeCallchainKernel = 1 << 21 // exclude_callchain_kernel
	PerfBitSigtrap                = 1 << 37 // sigtrap

	PerfSampleCallchain = 1 << 5 // PERF_SAMPLE_CALLCHAIN
)

// Bits of perf_event_open's flags.
const (
	PerfFlagPIDCgroup = 1 << 2 // PERF_FLAG_PID_CGROUP
	PerfFlagFDCloexec = 1 << 3 // PERF_FLAG_FD_CLOEXEC
	PerfFlags         = 1<<4 - 1
)

var (
	// EventTypes are the fixed ones of enum perf_type_id; those of further PMUs
	// are in /sys/bus/event_source/devices/*/type.
	EventTypes = enum("perf_type_id", "PERF_TYPE_", "PERF_TYPE_HARDWARE", "PERF_TYPE_SOFTWARE", "PERF_TYPE_TRACEPOINT",
		"PERF_TYPE_HW_CACHE", "PERF_TYPE_RAW", "PERF_TYPE_BREAKPOINT")

	PerfEventFlags = bits("perf_event_open.flags",
		"PERF_FLAG_FD_NO_GROUP", 0, "PERF_FLAG_FD_OUTPUT", 1, "PERF_FLAG_PID_CGROUP", 2, "PERF_FLAG_FD_CLOEXEC", 3)

	// PerfSampleFlags are enum perf_event_sample_format.
	PerfSampleFlags = bits("perf_event_sample_format",
		"PERF_SAMPLE_IP", 0, "PERF_SAMPLE_TID", 1, "PERF_SAMPLE_TIME", 2, "PERF_SAMPLE_ADDR", 3, "PERF_SAMPLE_READ", 4, "PERF_SAMPLE_CALLCHAIN", 5,
		"PERF_SAMPLE_ID", 6, "PERF_SAMPLE_CPU", 7, "PERF_SAMPLE_PERIOD", 8, "PERF_SAMPLE_STREAM_ID", 9, "PERF_SAMPLE_RAW", 10,
		"PERF_SAMPLE_BRANCH_STACK", 11, "PERF_SAMPLE_REGS_USER", 12, "PERF_SAMPLE_STACK_USER", 13, "PERF_SAMPLE_WEIGHT", 14, "PERF_SAMPLE_DATA_SRC", 15,
		"PERF_SAMPLE_IDENTIFIER", 16, "PERF_SAMPLE_TRANSACTION", 17, "PERF_SAMPLE_REGS_INTR", 18, "PERF_SAMPLE_PHYS_ADDR", 19, "PERF_SAMPLE_AUX", 20,
		"PERF_SAMPLE_CGROUP", 21, "PERF_SAMPLE_DATA_PAGE_SIZE", 22, "PERF_SAMPLE_CODE_PAGE_SIZE", 23, "PERF_SAMPLE_WEIGHT_STRUCT", 24)
)
