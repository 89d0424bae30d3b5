package abi

// The bit sets of include/uapi/linux/bpf.h, by the field that holds them.

// Flag bits that conditions, or other packages, speak of.
const (
	FReplace       = 1 << 2  // BPF_F_REPLACE, in attach_flags and link_update.flags
	FID            = 1 << 5  // BPF_F_ID
	FLink          = 1 << 13 // BPF_F_LINK
	FPathFD        = 1 << 14 // BPF_F_PATH_FD
	FVtypeBTFObjFD = 1 << 15 // BPF_F_VTYPE_BTF_OBJ_FD
	FTokenFD       = 1 << 16 // BPF_F_TOKEN_FD
	FRdonly        = 1 << 3  // BPF_F_RDONLY
)

func bits(kernel string, names ...any) *Values {
	v := &Values{Kernel: kernel}
	for i := 0; i < len(names); i += 2 {
		v.Bits = append(v.Bits, Bit{names[i].(string), 1 << names[i+1].(int)})
	}
	return v
}

var (
	MapFlags = bits("map_flags",
		"BPF_F_NO_PREALLOC", 0, "BPF_F_NO_COMMON_LRU", 1, "BPF_F_NUMA_NODE", 2,
		"BPF_F_RDONLY", 3, "BPF_F_WRONLY", 4, "BPF_F_STACK_BUILD_ID", 5,
		"BPF_F_ZERO_SEED", 6, "BPF_F_RDONLY_PROG", 7, "BPF_F_WRONLY_PROG", 8,
		"BPF_F_CLONE", 9, "BPF_F_MMAPABLE", 10, "BPF_F_PRESERVE_ELEMS", 11,
		"BPF_F_INNER_MAP", 12, "BPF_F_LINK", 13, "BPF_F_PATH_FD", 14,
		"BPF_F_VTYPE_BTF_OBJ_FD", 15, "BPF_F_TOKEN_FD", 16,
		"BPF_F_SEGV_ON_FAULT", 17, "BPF_F_NO_USER_CONV", 18)

	ProgFlags = bits("prog_flags",
		"BPF_F_STRICT_ALIGNMENT", 0, "BPF_F_ANY_ALIGNMENT", 1, "BPF_F_TEST_RND_HI32", 2,
		"BPF_F_TEST_STATE_FREQ", 3, "BPF_F_SLEEPABLE", 4, "BPF_F_XDP_HAS_FRAGS", 5,
		"BPF_F_XDP_DEV_BOUND_ONLY", 6, "BPF_F_TEST_REG_INVARIANTS", 7, "BPF_F_TOKEN_FD", 16)

	AttachFlags = bits("attach_flags",
		"BPF_F_ALLOW_OVERRIDE", 0, "BPF_F_ALLOW_MULTI", 1, "BPF_F_REPLACE", 2,
		"BPF_F_BEFORE", 3, "BPF_F_AFTER", 4, "BPF_F_ID", 5, "BPF_F_PREORDER", 6, "BPF_F_LINK", 13)

	ElemFlags = &Values{Kernel: "elem_flags", Bits: []Bit{{"BPF_NOEXIST", 1}, {"BPF_EXIST", 2}, {"BPF_F_LOCK", 4}}}

	TestFlags = bits("test.flags",
		"BPF_F_TEST_RUN_ON_CPU", 0, "BPF_F_TEST_XDP_LIVE_FRAMES", 1, "BPF_F_TEST_SKB_CHECKSUM_COMPLETE", 2)

	ObjectFlags = bits("file_flags", "BPF_F_RDONLY", 3, "BPF_F_WRONLY", 4, "BPF_F_PATH_FD", 14)

	OpenFlags = bits("open_flags", "BPF_F_RDONLY", 3, "BPF_F_WRONLY", 4, "BPF_F_TOKEN_FD", 16)

	QueryFlags = bits("query_flags", "BPF_F_QUERY_EFFECTIVE", 0)

	BTFFlags = bits("btf_flags", "BPF_F_TOKEN_FD", 16)

	XDPFlags = bits("link_create.flags",
		"XDP_FLAGS_UPDATE_IF_NOEXIST", 0, "XDP_FLAGS_SKB_MODE", 1, "XDP_FLAGS_DRV_MODE", 2,
		"XDP_FLAGS_HW_MODE", 3, "XDP_FLAGS_REPLACE", 4)

	UpdateFlags = bits("link_update.flags", "BPF_F_REPLACE", 2)

	KprobeMultiFlags = bits("kprobe_multi.flags", "BPF_F_KPROBE_MULTI_RETURN", 0)

	UprobeMultiFlags = bits("uprobe_multi.flags", "BPF_F_UPROBE_MULTI_RETURN", 0)

	NetfilterFlags = bits("netfilter.flags", "BPF_F_NETFILTER_IP_DEFRAG", 0)

	LogLevels = bits("log_level", "BPF_LOG_LEVEL1", 0, "BPF_LOG_LEVEL2", 1, "BPF_LOG_STATS", 2, "BPF_LOG_FIXED", 3)

	NoFlags = &Values{Kernel: "flags"} // none is defined yet
)
