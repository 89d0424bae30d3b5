package abi

// Clamp names a length rule that isn't a plain field. Each mirrors a kernel
// function, which is named at it.
type Clamp uint8

const (
	ClampNone Clamp = iota

	// ClampLineInfo: line_info records must have strictly rising insn_off below
	// insn_cnt (kernel/bpf/verifier.c, check_btf_line), so the kernel stops with
	// EINVAL at the latest at record insn_cnt+1; no more than those are copied.
	ClampLineInfo

	// ClampFuncInfo: one record a subprogram, at most maxSubprogs (verifier.c,
	// check_btf_func: func_info_cnt must equal the number of subprograms, else
	// EINVAL). A larger count is performed as maxSubprogs+1, which fails alike.
	ClampFuncInfo

	// ClampFDArray: without fd_array_cnt the kernel reads just those elements of
	// fd_array that instructions name (verifier.c, resolve_pseudo_ldimm64 and
	// find_kfunc_desc_btf). The copy goes as far as the largest index named.
	ClampFDArray

	// ClampLog: the copy of a log buffer starts small and is made larger when the
	// kernel says that the log didn't fit.
	ClampLog
)

func (c Clamp) String() string {
	return [...]string{"", "line_info", "func_info", "fd_array", "log"}[c]
}

// Limits of the kernel, with the place that has them.
const (
	PageSize        = 4096
	MaxInsns        = 1_000_000     // BPF_COMPLEXITY_LIMIT_INSNS, include/linux/bpf.h
	MaxSubprogs     = 256           // BPF_MAX_SUBPROGS, include/linux/bpf_verifier.h
	MaxBTF          = 16 << 20      // BTF_MAX_SIZE, include/linux/btf.h
	MaxLog          = 1<<30 - 1     // UINT_MAX >> 2, kernel/bpf/log.c, bpf_verifier_log_attr_valid
	MaxLicense      = 127           // kernel/bpf/syscall.c, bpf_prog_load: what it reads at most
	MaxTracepoint   = 127           // kernel/bpf/syscall.c, bpf_raw_tp_link_attach
	MaxPath         = 4096          // PATH_MAX
	MaxMulti        = 1 << 20       // MAX_KPROBE_MULTI_CNT, MAX_UPROBE_MULTI_CNT, kernel/trace/bpf_trace.c
	MaxSymbol       = 512           // KSYM_NAME_LEN, include/linux/kallsyms.h
	MaxRecord       = 252           // MAX_FUNCINFO_REC_SIZE, kernel/bpf/verifier.c
	MaxSignature    = 8192          // KMALLOC_MAX_CACHE_SIZE, kernel/bpf/syscall.c, bpf_prog_verify_signature
	MaxHash         = 64            // more than any digest; SHA-256 is 32
	MaxFDArray      = 1 << 15       // indexes of fd_array that we follow; the kernel takes 64 maps and 256 BTFs
	MaxFiles        = 64 + 256 + 8  // fds of one request: MAX_USED_MAPS, MAX_KFUNC_BTFS, and those of the attribute
	MaxTraceProgs   = 64            // BPF_TRACE_MAX_PROGS, kernel/trace/bpf_trace.c
	FirstLog        = 16 << 20      // bytes of a log buffer at first: see ClampLog
	MaxCoreRelos    = 64 << 20      // bytes; the kernel would take 32 GiB: see docs/limits.md
	MaxQuery        = 64 << 10      // ids that a PROG_QUERY may ask for; a hook holds at most 64
	MaxInfoBuffer   = 64 << 20      // bytes of one buffer that info points to
	MaxInfoString   = MaxPath + 128 // bytes of a name or path that info points to; the kernel knows none that is longer
	MaxTaskFDString = 4096 + 128    // kernel/trace/bpf_trace.c, bpf_get_perf_event_info
)
