package abi

// The structures that attributes point to: include/uapi/linux/bpf.h.

func structure(name string, parts ...part) Layout { return layout(name, parts) }

// list is an array that info points to; the application gives its room in
// count, the kernel writes back how much there is.
func list(name, count string, e Elem, elem uint32) part {
	return u64(name).inout().outBuf(e, Len{Count: count, Elem: elem, Max: MaxInfoBuffer}, WroteCount)
}

func recs(name, count, rec string) part {
	return u64(name).inout().outBuf(ElemBytes, Len{Count: count, Rec: rec, Max: MaxInfoBuffer}, WroteCount)
}

func text(name, count string) part {
	return u64(name).inout().outBuf(ElemString, Len{Count: count, Elem: 1, Max: MaxInfoString}, WroteString)
}

// ProgInfo is struct bpf_prog_info.
var ProgInfo = structure("bpf_prog_info",
	u32("type").enum(ProgTypes).out(), u32("id").id(Prog).out(), bytes("tag", 8).out(),
	u32("jited_prog_len").inout(), u32("xlated_prog_len").inout(),
	list("jited_prog_insns", "jited_prog_len", ElemBytes, 1), list("xlated_prog_insns", "xlated_prog_len", ElemBytes, 1),
	u64("load_time").out(), u32("created_by_uid").uid().out(), u32("nr_map_ids").inout(), list("map_ids", "nr_map_ids", ElemU32, 4),
	name16("name").out(), u32("ifindex").ifindex().out(), u32("gpl_compatible").out(),
	u64("netns_dev").out(), u64("netns_ino").out(), u32("nr_jited_ksyms").inout(), u32("nr_jited_func_lens").inout(),
	list("jited_ksyms", "nr_jited_ksyms", ElemU64, 8), list("jited_func_lens", "nr_jited_func_lens", ElemU32, 4),
	u32("btf_id").id(BTF).out(), u32("func_info_rec_size").inout(), recs("func_info", "nr_func_info", "func_info_rec_size"),
	u32("nr_func_info").inout(), u32("nr_line_info").inout(), recs("line_info", "nr_line_info", "line_info_rec_size"),
	recs("jited_line_info", "nr_jited_line_info", "jited_line_info_rec_size"), u32("nr_jited_line_info").inout(),
	u32("line_info_rec_size").inout(), u32("jited_line_info_rec_size").inout(), u32("nr_prog_tags").inout(),
	list("prog_tags", "nr_prog_tags", ElemBytes, 8), u64("run_time_ns").out(), u64("run_cnt").out(), u64("recursion_misses").out(),
	u32("verified_insns").out(), u32("attach_btf_obj_id").id(BTF).out(), u32("attach_btf_id").out(),
)

// MapInfo is struct bpf_map_info.
var MapInfo = structure("bpf_map_info",
	u32("type").enum(MapTypes).out(), u32("id").id(Map).out(), u32("key_size").out(), u32("value_size").out(),
	u32("max_entries").out(), u32("map_flags").flags(MapFlags).out(), name16("name").out(), u32("ifindex").ifindex().out(),
	u32("btf_vmlinux_value_type_id").out(), u64("netns_dev").out(), u64("netns_ino").out(), u32("btf_id").id(BTF).out(),
	u32("btf_key_type_id").out(), u32("btf_value_type_id").out(), u32("btf_vmlinux_id").id(BTF).out(), u64("map_extra").out(),
	u64("hash").inout().outBuf(ElemBytes, Len{Count: "hash_size", Elem: 1, Max: MaxHash}, WroteAll).since("6.18"), u32("hash_size").inout().since("6.18"),
)

// BTFInfo is struct bpf_btf_info.
var BTFInfo = structure("bpf_btf_info",
	list("btf", "btf_size", ElemBytes, 1), u32("btf_size").inout(), u32("id").id(BTF).out(),
	text("name", "name_len"), u32("name_len").inout(), u32("kernel_btf").out(),
)

// TokenInfo is struct bpf_token_info.
var TokenInfo = structure("bpf_token_info",
	u64("allowed_cmds").out(), u64("allowed_maps").out(), u64("allowed_progs").out(), u64("allowed_attachs").out())

func lt(names ...string) Cond {
	return all(is("type", values(LinkTypes, "BPF_LINK_TYPE_", names)...))
}

func pt(names ...string) Cond {
	return all(is("perf_event.type", values(PerfEventTypes, "BPF_PERF_EVENT_", names)...))
}

// LinkInfo is struct bpf_link_info. The union's arm is told by the link's type
// (and a perf event's by perf_event.type), which the kernel knows and the
// application may not have set: whoever decodes it must ask the kernel first.
var LinkInfo = structure("bpf_link_info",
	u32("type").enum(LinkTypes).out(), u32("id").id(Link).out(), u32("prog_id").id(Prog).out(),
	union(
		arm("raw_tracepoint", whenAll([]part{text("tp_name", "tp_name_len"), u32("tp_name_len").inout(), u64("cookie").out()}, lt("RAW_TRACEPOINT"))...),
		arm("tracing", whenAll([]part{u32("attach_type").enum(AttachTypes).out(), u32("target_obj_id").out(), u32("target_btf_id").out(), u64("cookie").out()}, lt("TRACING"))...),
		arm("cgroup", whenAll([]part{u64("cgroup_id").out(), u32("attach_type").enum(AttachTypes).out()}, lt("CGROUP"))...),
		arm("iter", whenAll([]part{text("target_name", "target_name_len"), u32("target_name_len").inout(),
			union(arm("map", u32("map_id").id(Map).out())),
			union(arm("cgroup", u64("cgroup_id").out(), u32("order").enum(CgroupIterOrders).out()),
				arm("task", u32("tid").out(), u32("pid").out()))}, lt("ITER"))...),
		arm("netns", whenAll([]part{u32("netns_ino").out(), u32("attach_type").enum(AttachTypes).out()}, lt("NETNS"))...),
		arm("xdp", whenAll([]part{u32("ifindex").ifindex().out()}, lt("XDP"))...),
		arm("struct_ops", whenAll([]part{u32("map_id").id(Map).out()}, lt("STRUCT_OPS"))...),
		arm("netfilter", whenAll([]part{u32("pf").out(), u32("hooknum").out(), s32("priority").out(), u32("flags").out()}, lt("NETFILTER"))...),
		arm("kprobe_multi", whenAll([]part{list("addrs", "count", ElemU64, 8), u32("count").inout(), u32("flags").out(), u64("missed").out(), list("cookies", "count", ElemU64, 8)}, lt("KPROBE_MULTI"))...),
		arm("uprobe_multi", whenAll([]part{text("path", "path_size").shown(), list("offsets", "count", ElemU64, 8), list("ref_ctr_offsets", "count", ElemU64, 8), list("cookies", "count", ElemU64, 8),
			u32("path_size").inout(), u32("count").inout(), u32("flags").out(), u32("pid").pid().out()}, lt("UPROBE_MULTI"))...),
		arm("perf_event", whenAll([]part{u32("type").enum(PerfEventTypes).out(),
			union(
				whenAll(arm("uprobe", text("file_name", "name_len"), u32("name_len").inout(), u32("offset").out(), u64("cookie").out(), u64("ref_ctr_offset").out()), pt("UPROBE", "URETPROBE")),
				whenAll(arm("kprobe", text("func_name", "name_len"), u32("name_len").inout(), u32("offset").out(), u64("addr").out(), u64("missed").out(), u64("cookie").out()), pt("KPROBE", "KRETPROBE")),
				whenAll(arm("tracepoint", text("tp_name", "name_len"), u32("name_len").inout(), u64("cookie").out()), pt("TRACEPOINT")),
				whenAll(arm("event", u64("config").out(), u32("type").out(), u64("cookie").out()), pt("EVENT")),
			)}, lt("PERF_EVENT"))...),
		arm("tcx", whenAll([]part{u32("ifindex").ifindex().out(), u32("attach_type").enum(AttachTypes).out()}, lt("TCX"))...),
		arm("netkit", whenAll([]part{u32("ifindex").ifindex().out(), u32("attach_type").enum(AttachTypes).out()}, lt("NETKIT"))...),
		arm("sockmap", whenAll([]part{u32("map_id").id(Map).out(), u32("attach_type").enum(AttachTypes).out()}, lt("SOCKMAP"))...),
	),
)

// IterLinkInfo is union bpf_iter_link_info. Which arm is live only the
// program's target (its BTF type) tells, so every fd in it is taken; 0 is none in
// each of them but map_fd. The pids stay as they are: they are looked up in the
// pid namespace of whoever creates the iterator, which is the target itself.
var IterLinkInfo = structure("bpf_iter_link_info",
	union(
		arm("map", u32("map_fd").fd(Map|Cgroup)),
		arm("cgroup", u32("order").enum(CgroupIterOrders), u32("cgroup_fd").fd(Cgroup|Map|Pidfd).zeroIsNone(), u64("cgroup_id")),
		arm("task", u32("tid"), u32("pid"), u32("pid_fd").fd(Pidfd|Cgroup|Map).zeroIsNone()),
	),
)

// InfoLayout returns the layout of what BPF_OBJ_GET_INFO_BY_FD says about an
// object of this kind, or nil.
func InfoLayout(o Object) *Layout {
	switch o {
	case Prog:
		return &ProgInfo
	case Map:
		return &MapInfo
	case BTF:
		return &BTFInfo
	case Link:
		return &LinkInfo
	case Token:
		return &TokenInfo
	}
	return nil
}

// InfoNeedsHost says whether BPF_OBJ_GET_INFO_BY_FD shows all that there is of an
// object to whoever has capabilities of the initial user namespace alone: a
// program's instructions (CAP_BPF: kernel/bpf/syscall.c, bpf_prog_get_info_by_fd)
// and the kernel addresses in it and in links to kprobes (CAP_SYSLOG:
// kallsyms_show_value). selector tells the arm of a link's info.
func InfoNeedsHost(l *Layout, selector []byte) bool {
	switch l {
	case &ProgInfo:
		return true
	case &LinkInfo:
		return addressLinks[0].holds(selector)
	}
	return false
}

var addressLinks = func() Cond {
	c := []Cond{lt("KPROBE_MULTI", "PERF_EVENT")}
	LinkInfo.resolve(c)
	return c[0]
}()
