package abi

// The table, in the order of enum bpf_cmd.

// Commands that other packages speak of by name.
const (
	MapCreate       Command = 0
	MapLookupElem   Command = 1
	MapUpdateElem   Command = 2
	MapDeleteElem   Command = 3
	ProgLoad        Command = 5
	ObjPin          Command = 6
	ObjGet          Command = 7
	ProgAttach      Command = 8
	ProgDetach      Command = 9
	ProgTestRun     Command = 10
	ProgGetNextID   Command = 11
	MapGetNextID    Command = 12
	ProgGetFDByID   Command = 13
	MapGetFDByID    Command = 14
	ObjGetInfoByFD  Command = 15
	ProgQuery       Command = 16
	RawTPOpen       Command = 17
	BTFLoad         Command = 18
	BTFGetFDByID    Command = 19
	TaskFDQuery     Command = 20
	MapFreeze       Command = 22
	BTFGetNextID    Command = 23
	LinkCreate      Command = 28
	LinkUpdate      Command = 29
	LinkGetFDByID   Command = 30
	LinkGetNextID   Command = 31
	EnableStats     Command = 32
	IterCreate      Command = 33
	LinkDetach      Command = 34
	ProgBindMap     Command = 35
	TokenCreate     Command = 36
	ProgStreamRead  Command = 37
	NoCommand       Command = 0xffffffff // of another system call than bpf()
	afterLastRow            = 38
	mapElemsAreOwn          = "acts on a map that the caller holds an fd of, by the fd's own mode"
	needsCapability         = "needs capabilities that the workload doesn't have"
	attachUnchecked         = "the kernel checks no capability, only the fd: the decision is ours"
	idsKernelWide           = "ids are kernel-wide: a workload sees its own objects' only"
)

// RowOf returns the row of a command, or nil for one that the table doesn't know.
func RowOf(c Command) *Row {
	if c < Command(len(table)) {
		return &table[c]
	}
	return nil
}

// Table returns all rows, in the order of their commands. They are shared: read only.
func Table() []Row { return table[:] }

// AttrSize is the size of union bpf_attr that the table describes, in bytes.
var AttrSize = func() uint32 {
	n := uint32(0)
	for i := range table {
		n = max(n, table[i].Size)
	}
	return n
}()

// Intercepted says whether there is a kernel on which the filter intercepts the command.
func (r *Row) Intercepted() bool { return !r.Native || r.NativeSince != "" }

// NativeCommands lists the commands that the filter leaves to a kernel of that release
// (uname -r). BPF_PROG_TEST_RUN isn't one where there may be loaders: programs of type
// BPF_PROG_TYPE_SYSCALL.
func NativeCommands(release string, loaders bool) []uint32 {
	var out []uint32
	for i := range table {
		if loaders && table[i].Command == ProgTestRun {
			continue
		}
		if table[i].Native && !Older(release, table[i].NativeSince) {
			out = append(out, uint32(table[i].Command))
		}
	}
	return out
}

func mt(names ...string) []uint64 { return values(MapTypes, "BPF_MAP_TYPE_", names) }
func at(names ...string) []uint64 { return values(AttachTypes, "BPF_", names) }

func values(v *Values, prefix string, names []string) []uint64 {
	out := make([]uint64, len(names))
	for i, n := range names {
		out[i] = v.must(prefix + n)
	}
	return out
}

var (
	atNetdev  = at("XDP", "TCX_INGRESS", "TCX_EGRESS", "NETKIT_PRIMARY", "NETKIT_PEER")
	atTCX     = at("TCX_INGRESS", "TCX_EGRESS")
	atNetkit  = at("NETKIT_PRIMARY", "NETKIT_PEER")
	atKprobeM = at("TRACE_KPROBE_MULTI", "TRACE_KPROBE_SESSION")
	atUprobeM = at("TRACE_UPROBE_MULTI", "TRACE_UPROBE_SESSION")
	atCgroup  = at("CGROUP_INET_INGRESS", "CGROUP_INET_EGRESS", "CGROUP_INET_SOCK_CREATE", "CGROUP_SOCK_OPS",
		"CGROUP_DEVICE", "CGROUP_INET4_BIND", "CGROUP_INET6_BIND", "CGROUP_INET4_CONNECT", "CGROUP_INET6_CONNECT",
		"CGROUP_INET4_POST_BIND", "CGROUP_INET6_POST_BIND", "CGROUP_UDP4_SENDMSG", "CGROUP_UDP6_SENDMSG",
		"CGROUP_SYSCTL", "CGROUP_UDP4_RECVMSG", "CGROUP_UDP6_RECVMSG", "CGROUP_GETSOCKOPT", "CGROUP_SETSOCKOPT",
		"CGROUP_INET4_GETPEERNAME", "CGROUP_INET6_GETPEERNAME", "CGROUP_INET4_GETSOCKNAME", "CGROUP_INET6_GETSOCKNAME",
		"CGROUP_INET_SOCK_RELEASE", "LSM_CGROUP", "CGROUP_UNIX_CONNECT", "CGROUP_UNIX_SENDMSG",
		"CGROUP_UNIX_RECVMSG", "CGROUP_UNIX_GETPEERNAME", "CGROUP_UNIX_GETSOCKNAME")
	// atTracing are the attach types that take struct tracing: all that reach
	// bpf_tracing_prog_attach, and BPF_PROG_TYPE_EXT, whose attach type is 0.
	atTracing = append(at("TRACE_RAW_TP", "TRACE_FENTRY", "TRACE_FEXIT", "MODIFY_RETURN", "LSM_MAC"), 0)

	// anyAttach is what an attach point's or a program's fd may be; the kernel
	// tells by the attach type and the program which one it wants.
	anyAttach = Map | Prog | Cgroup | Netns | PerfEvent | Lirc
)

// elem is the part of union bpf_attr that the map element commands share.
func elem(key, value Dir, flags bool) []part {
	m := []part{u32("map_fd").fd(Map)}
	kptr := u64("key")
	if key == In {
		kptr = kptr.in(ElemBytes, Len{}).need("length: the map's key_size")
	}
	m = append(m, kptr)
	v := u64("value").ptr(value, ElemBytes, Len{}, WroteAll).need("length: value_size, for per-CPU maps rounded up to 8 times the possible CPUs (bpf_map_value_size)")
	m = append(m, v)
	if flags {
		m = append(m, u64("flags").flags(ElemFlags))
	}
	return m
}

func batch(keys, values Dir) []part {
	lenNeed := "length: count times the map's key or value size"
	p := []part{
		u64("in_batch").in(ElemBytes, Len{}).need(lenNeed), u64("out_batch").outBuf(ElemBytes, Len{}, WroteAll).need(lenNeed),
		u64("keys").ptr(keys, ElemBytes, Len{}, WroteAll).need(lenNeed),
		u64("values").ptr(values, ElemBytes, Len{}, WroteAll).need(lenNeed),
		u32("count").inout(), u32("map_fd").fd(Map), u64("elem_flags").flags(ElemFlags), u64("flags").flags(NoFlags),
	}
	return p
}

func byID(id string, o Object) part { return u32(id).id(o) }

// nextID is what the …_GET_NEXT_ID commands share.
func nextID(o Object) []part {
	return []part{u32("start_id").id(o), u32("next_id").id(o).out()}
}

// attachPoint is target_fd or target_ifindex, told apart by the attach type.
func attachPoint() part {
	return union(
		[]part{u32("target_fd").fd(anyAttach).when(all(isNot("attach_type", atNetdev...)))},
		[]part{u32("target_ifindex").ifindex().when(all(is("attach_type", atNetdev...))).since("6.6").fact("attach.ifindex")},
	)
}

// callersNetns are the attach types of PROG_ATTACH and PROG_DETACH that act on the
// network namespace of the caller (kernel/bpf/net_namespace.c, netns_bpf_prog_attach).
var callersNetns = []Cond{all(is("attach_type", at("FLOW_DISSECTOR")...))}

// relative is where among several programs: before or after which.
func relative(flags string) part {
	return union(
		[]part{u32("relative_fd").fd(Prog | Link).zeroIsNone().when(all(hasNot(flags, FID)))},
		[]part{u32("relative_id").id(Prog | Link).when(all(has(flags, FID)))},
	)
}

var table = [afterLastRow]Row{
	0: row(Row{Command: 0, Kernel: "BPF_MAP_CREATE", TokenFlags: "map_flags", TokenFD: "map_token_fd", Name: "map_create", Since: "3.18", Last: "excl_prog_hash_size", Returns: Result{FD: Map}, Why: needsCapability},
		u32("map_type").enum(MapTypes).fact("map.type"),
		u32("key_size").fact("map.key_size"), u32("value_size").fact("map.value_size"),
		u32("max_entries").fact("map.max_entries"), u32("map_flags").flags(MapFlags).fact("map.flags").since("4.6"),
		u32("inner_map_fd").fd(Map).when(all(is("map_type", mt("ARRAY_OF_MAPS", "HASH_OF_MAPS")...))).since("4.12"),
		u32("numa_node").since("4.14"), name16("map_name").fact("map.name").since("4.15"),
		u32("map_ifindex").ifindex().since("4.16"),
		u32("btf_fd").fd(BTF).when(all(set("btf_key_type_id")), all(set("btf_value_type_id")), all(set("btf_vmlinux_value_type_id"))).since("4.18"),
		u32("btf_key_type_id").since("4.18"), u32("btf_value_type_id").since("4.18"), u32("btf_vmlinux_value_type_id").since("5.6"),
		u64("map_extra").since("5.16"),
		s32("value_type_btf_obj_fd").fd(BTF).when(all(has("map_flags", FVtypeBTFObjFD))).since("6.9"),
		s32("map_token_fd").fd(Token).when(all(has("map_flags", FTokenFD))).since("6.9"),
		u64("excl_prog_hash").in(ElemBytes, Len{Count: "excl_prog_hash_size", Elem: 1, Max: MaxHash}).since("6.18"),
		u32("excl_prog_hash_size").since("6.18"),
	),
	1: row(Row{Command: 1, Kernel: "BPF_MAP_LOOKUP_ELEM", Name: "map_lookup_elem", Since: "3.18", Last: "flags", Native: true, Why: mapElemsAreOwn}, elem(In, Out, true)...),
	2: row(Row{Command: 2, Kernel: "BPF_MAP_UPDATE_ELEM", Name: "map_update_elem", Since: "3.18", Last: "flags", Native: true, Why: mapElemsAreOwn}, elem(In, In, true)...),
	3: row(Row{Command: 3, Kernel: "BPF_MAP_DELETE_ELEM", Name: "map_delete_elem", Since: "3.18", Last: "key", Native: true, Why: mapElemsAreOwn},
		u32("map_fd").fd(Map), u64("key").in(ElemBytes, Len{}).need("length: the map's key_size")),
	4: row(Row{Command: 4, Kernel: "BPF_MAP_GET_NEXT_KEY", Name: "map_get_next_key", Since: "3.18", Last: "next_key", Native: true, Why: mapElemsAreOwn},
		u32("map_fd").fd(Map), u64("key").in(ElemBytes, Len{}).need("length: the map's key_size"),
		u64("next_key").outBuf(ElemBytes, Len{}, WroteAll).need("length: the map's key_size")),
	5: row(Row{Command: 5, Kernel: "BPF_PROG_LOAD", TokenFlags: "prog_flags", TokenFD: "prog_token_fd", Creds: true, Name: "prog_load", Since: "3.18", Last: "keyring_id", Returns: Result{FD: Prog}, Why: needsCapability},
		u32("prog_type").enum(ProgTypes).fact("prog.type"), u32("insn_cnt").fact("prog.insns"),
		u64("insns").in(ElemInsns, Len{Count: "insn_cnt", Elem: 8, Max: MaxInsns * 8}),
		u64("license").in(ElemString, Len{Elem: MaxLicense, Max: MaxLicense}).fact("prog.license"),
		u32("log_level").flags(LogLevels), u32("log_size"),
		u64("log_buf").outBuf(ElemString, Len{Count: "log_size", Elem: 1, Max: MaxLog, Clamp: ClampLog}, WroteLog),
		u32("kern_version").since("4.1"), u32("prog_flags").flags(ProgFlags).fact("prog.flags").since("4.12"),
		name16("prog_name").fact("prog.name").since("4.15"), u32("prog_ifindex").ifindex().since("4.15"),
		u32("expected_attach_type").enum(AttachTypes).fact("prog.attach_type").since("4.17"),
		u32("prog_btf_fd").fd(BTF).when(all(set("prog_btf_fd")), all(set("func_info_cnt")), all(set("line_info_cnt")), all(set("core_relo_cnt"))).since("5.0"),
		u32("func_info_rec_size").inout().maybe().since("5.0"),
		u64("func_info").in(ElemBytes, Len{Count: "func_info_cnt", Rec: "func_info_rec_size", Max: (MaxSubprogs + 1) * MaxRecord, Clamp: ClampFuncInfo}).since("5.0"),
		u32("func_info_cnt").since("5.0"), u32("line_info_rec_size").inout().maybe().since("5.0"),
		u64("line_info").in(ElemBytes, Len{Count: "line_info_cnt", Rec: "line_info_rec_size", Max: (MaxInsns + 1) * MaxRecord, Clamp: ClampLineInfo}).since("5.0"),
		u32("line_info_cnt").since("5.0"), u32("attach_btf_id").since("5.5"),
		union([]part{u32("attach_prog_fd").fd(Prog | BTF).zeroIsNone().since("5.5")}, []part{u32("attach_btf_obj_fd").fd(Prog | BTF).zeroIsNone().since("5.11")}),
		u32("core_relo_cnt").since("5.17"),
		u64("fd_array").in(ElemFDs, Len{Count: "fd_array_cnt", Elem: 4, Max: MaxFDArray * 4, Clamp: ClampFDArray}).since("5.14"),
		u64("core_relos").in(ElemBytes, Len{Count: "core_relo_cnt", Rec: "core_relo_rec_size", Max: MaxCoreRelos}).since("5.17"),
		u32("core_relo_rec_size").inout().maybe().since("5.17"), u32("log_true_size").out().since("6.4"),
		s32("prog_token_fd").fd(Token).when(all(has("prog_flags", FTokenFD))).since("6.9"),
		u32("fd_array_cnt").since("6.14"),
		u64("signature").in(ElemBytes, Len{Count: "signature_size", Elem: 1, Max: MaxSignature}).since("6.18"),
		u32("signature_size").since("6.18"),
		s32("keyring_id").since("6.18").need("a keyring's serial number or KEY_SPEC_* means the performer's keyrings, not the target's"),
	),
	6: row(Row{Command: 6, Kernel: "BPF_OBJ_PIN", Effect: true, Creds: true, Name: "obj_pin", Since: "4.4", Last: "path_fd", Why: "the path is resolved in the target's mount namespace with its rights"},
		u64("pathname").path(PathCreate).fact("pin.path"), u32("bpf_fd").fd(Map|Prog|Link),
		u32("file_flags").flags(ObjectFlags).since("4.15"), s32("path_fd").fd(Directory).when(all(has("file_flags", FPathFD))).since("6.5")),
	7: row(Row{Command: 7, Kernel: "BPF_OBJ_GET", Creds: true, Name: "obj_get", Since: "4.4", Last: "path_fd", Returns: Result{FD: Map | Prog | Link}, Why: "as BPF_OBJ_PIN"},
		u64("pathname").path(PathOpen).fact("pin.path"), u32("bpf_fd"),
		u32("file_flags").flags(ObjectFlags).since("4.15"), s32("path_fd").fd(Directory).when(all(has("file_flags", FPathFD))).since("6.5")),
	8: row(Row{Command: 8, Kernel: "BPF_PROG_ATTACH", Effect: true, Name: "prog_attach", Since: "4.10", Last: "expected_revision", Why: attachUnchecked, Net: callersNetns}, attachParts(false)...),
	9: row(Row{Command: 9, Kernel: "BPF_PROG_DETACH", Effect: true, Name: "prog_detach", Since: "4.10", Last: "expected_revision", Why: "the kernel checks nothing at all here, not even whose program it is", Net: callersNetns}, attachParts(true)...),
	10: row(Row{Command: 10, Kernel: "BPF_PROG_TEST_RUN", Name: "prog_test_run", Since: "4.12", Member: "test", Last: "batch_size", Native: true, Why: "runs as the workload; intercepted where there may be programs of type syscall, which make bpf() calls themselves"},
		u32("prog_fd").fd(Prog), u32("retval").out(), u32("data_size_in"), u32("data_size_out").inout(),
		u64("data_in").in(ElemBytes, Len{Count: "data_size_in", Elem: 1}), u64("data_out").outBuf(ElemBytes, Len{Count: "data_size_out", Elem: 1}, WroteCount),
		u32("repeat"), u32("duration").out(), u32("ctx_size_in").since("5.2"), u32("ctx_size_out").inout().since("5.2"),
		u64("ctx_in").in(ElemBytes, Len{Count: "ctx_size_in", Elem: 1}).since("5.2"), u64("ctx_out").outBuf(ElemBytes, Len{Count: "ctx_size_out", Elem: 1}, WroteCount).since("5.2"),
		u32("flags").flags(TestFlags).since("5.10"), u32("cpu").since("5.10"), u32("batch_size").since("5.18")),
	11: row(Row{Command: 11, Kernel: "BPF_PROG_GET_NEXT_ID", Host: "CAP_SYS_ADMIN", Name: "prog_get_next_id", Since: "4.13", Last: "next_id", Why: idsKernelWide}, nextID(Prog)...),
	12: row(Row{Command: 12, Kernel: "BPF_MAP_GET_NEXT_ID", Host: "CAP_SYS_ADMIN", Name: "map_get_next_id", Since: "4.13", Last: "next_id", Why: idsKernelWide}, nextID(Map)...),
	13: row(Row{Command: 13, Kernel: "BPF_PROG_GET_FD_BY_ID", Host: "CAP_SYS_ADMIN", Name: "prog_get_fd_by_id", Since: "4.13", Last: "prog_id", Returns: Result{FD: Prog}, Why: idsKernelWide}, byID("prog_id", Prog)),
	14: row(Row{Command: 14, Kernel: "BPF_MAP_GET_FD_BY_ID", Host: "CAP_SYS_ADMIN", Name: "map_get_fd_by_id", Since: "4.13", Last: "open_flags", Returns: Result{FD: Map}, Why: idsKernelWide},
		byID("map_id", Map), u32("next_id"), u32("open_flags").flags(OpenFlags).since("4.15")),
	15: row(Row{Command: 15, Kernel: "BPF_OBJ_GET_INFO_BY_FD", Name: "obj_get_info_by_fd", Since: "4.13", Member: "info", Last: "info", Order: []string{"info", "info_len"}, Why: "without CAP_BPF the kernel hides a program's instructions"},
		u32("bpf_fd").fd(Map|Prog|Link|BTF|Token), u32("info_len").inout(), u64("info").ptr(InOut, ElemStruct, Len{Count: "info_len", Elem: 1, Max: PageSize}, WroteStruct)),
	16: row(Row{Command: 16, Kernel: "BPF_PROG_QUERY", Host: "CAP_NET_ADMIN", Name: "prog_query", Since: "4.15", Member: "query", Last: "revision", Order: []string{"attach_flags", "revision", "count", "prog_ids", "prog_attach_flags", "link_ids", "link_attach_flags"}, Why: "needs CAP_NET_ADMIN outside user namespaces"},
		attachPoint(), u32("attach_type").enum(AttachTypes).fact("attach.type"), u32("query_flags").flags(QueryFlags), u32("attach_flags").inout(),
		u64("prog_ids").outBuf(ElemU32, Len{Count: "count", Elem: 4, Max: MaxQuery * 4}, WroteElems),
		union([]part{u32("prog_cnt").inout()}, []part{u32("count").inout().since("6.6")}),
		u64("prog_attach_flags").outBuf(ElemU32, Len{Count: "count", Elem: 4, Max: MaxQuery * 4}, WroteElems).since("6.0"),
		u64("link_ids").outBuf(ElemU32, Len{Count: "count", Elem: 4, Max: MaxQuery * 4}, WroteElems).since("6.6"),
		u64("link_attach_flags").outBuf(ElemU32, Len{Count: "count", Elem: 4, Max: MaxQuery * 4}, WroteElems).since("6.6"),
		u64("revision").out().maybe().since("6.6")),
	17: row(Row{Command: 17, Kernel: "BPF_RAW_TRACEPOINT_OPEN", Name: "raw_tracepoint_open", Since: "4.17", Member: "raw_tracepoint", Last: "cookie", Returns: Result{FD: Link}, Why: attachUnchecked},
		u64("name").in(ElemString, Len{Elem: MaxTracepoint, Max: MaxTracepoint}).fact("attach.tracepoint"), u32("prog_fd").fd(Prog), u64("cookie").since("6.10")),
	18: row(Row{Command: 18, Kernel: "BPF_BTF_LOAD", TokenFlags: "btf_flags", TokenFD: "btf_token_fd", Name: "btf_load", Since: "4.18", Last: "btf_token_fd", Returns: Result{FD: BTF}, Why: needsCapability},
		u64("btf").in(ElemBytes, Len{Count: "btf_size", Elem: 1, Max: MaxBTF}),
		u64("btf_log_buf").outBuf(ElemString, Len{Count: "btf_log_size", Elem: 1, Max: MaxLog, Clamp: ClampLog}, WroteLog),
		u32("btf_size"), u32("btf_log_size"), u32("btf_log_level").flags(LogLevels), u32("btf_log_true_size").out().since("6.4"),
		u32("btf_flags").flags(BTFFlags).since("6.9"), s32("btf_token_fd").fd(Token).when(all(has("btf_flags", FTokenFD))).since("6.9")),
	19: row(Row{Command: 19, Kernel: "BPF_BTF_GET_FD_BY_ID", Host: "CAP_SYS_ADMIN", Name: "btf_get_fd_by_id", Since: "4.18", Last: "fd_by_id_token_fd", Returns: Result{FD: BTF}, Why: idsKernelWide},
		byID("btf_id", BTF), u32("next_id"), u32("open_flags").flags(OpenFlags), s32("fd_by_id_token_fd").fd(Token).when(all(has("open_flags", FTokenFD))).since("6.9")),
	20: row(Row{Command: 20, Kernel: "BPF_TASK_FD_QUERY", Host: "CAP_SYS_ADMIN", Name: "task_fd_query", Since: "4.18", Member: "task_fd_query", Last: "probe_addr", Why: "pids and what others hold"},
		u32("pid").pid(), u32("fd").need("a number in the fd table of pid, not of the target"), u32("flags").flags(NoFlags), u32("buf_len").inout(),
		u64("buf").outBuf(ElemString, Len{Count: "buf_len", Elem: 1, Max: MaxTaskFDString}, WroteString),
		u32("prog_id").id(Prog).out(), u32("fd_type").enum(TaskFDTypes).out(), u64("probe_offset").out(), u64("probe_addr").out()),
	21: row(Row{Command: 21, Kernel: "BPF_MAP_LOOKUP_AND_DELETE_ELEM", Name: "map_lookup_and_delete_elem", Since: "4.20", Last: "flags", Native: true, Why: mapElemsAreOwn}, elem(In, Out, true)...),
	22: row(Row{Command: 22, Kernel: "BPF_MAP_FREEZE", Name: "map_freeze", Since: "5.2", Last: "map_fd", Native: true, NativeSince: "6.5", Effect: true, Why: mapElemsAreOwn}, u32("map_fd").fd(Map)),
	23: row(Row{Command: 23, Kernel: "BPF_BTF_GET_NEXT_ID", Host: "CAP_SYS_ADMIN", Name: "btf_get_next_id", Since: "5.4", Last: "next_id", Why: idsKernelWide}, nextID(BTF)...),
	24: row(Row{Command: 24, Kernel: "BPF_MAP_LOOKUP_BATCH", Name: "map_lookup_batch", Since: "5.6", Member: "batch", Last: "flags", Native: true, Why: mapElemsAreOwn}, batch(Out, Out)...),
	25: row(Row{Command: 25, Kernel: "BPF_MAP_LOOKUP_AND_DELETE_BATCH", Name: "map_lookup_and_delete_batch", Since: "5.6", Member: "batch", Last: "flags", Native: true, Why: mapElemsAreOwn}, batch(Out, Out)...),
	26: row(Row{Command: 26, Kernel: "BPF_MAP_UPDATE_BATCH", Name: "map_update_batch", Since: "5.6", Member: "batch", Last: "flags", Native: true, Why: mapElemsAreOwn}, batch(In, In)...),
	27: row(Row{Command: 27, Kernel: "BPF_MAP_DELETE_BATCH", Name: "map_delete_batch", Since: "5.6", Member: "batch", Last: "flags", Native: true, Why: mapElemsAreOwn}, batch(In, In)...),
	28: row(Row{Command: 28, Kernel: "BPF_LINK_CREATE", Name: "link_create", Since: "5.7", Member: "link_create", Last: "uprobe_multi.pid", Returns: Result{FD: Link}, Why: attachUnchecked,
		Net: []Cond{all(is("attach_type", at("NETFILTER")...))}, CgroupNS: []Cond{all(is("attach_type", at("TRACE_ITER")...))}}, linkParts()...),
	29: row(Row{Command: 29, Kernel: "BPF_LINK_UPDATE", Effect: true, Name: "link_update", Since: "5.7", Member: "link_update", Last: "old_prog_fd", Why: attachUnchecked},
		u32("link_fd").fd(Link),
		union([]part{u32("new_prog_fd").fd(Prog | Map)}, []part{u32("new_map_fd").fd(Prog | Map).since("6.4")}),
		u32("flags").flags(UpdateFlags).fact("attach.flags"),
		union([]part{u32("old_prog_fd").fd(Prog | Map).when(all(has("flags", FReplace)))}, []part{u32("old_map_fd").fd(Prog | Map).when(all(has("flags", FReplace))).since("6.4")})),
	30: row(Row{Command: 30, Kernel: "BPF_LINK_GET_FD_BY_ID", Host: "CAP_SYS_ADMIN", Name: "link_get_fd_by_id", Since: "5.8", Last: "link_id", Returns: Result{FD: Link}, Why: idsKernelWide}, byID("link_id", Link)),
	31: row(Row{Command: 31, Kernel: "BPF_LINK_GET_NEXT_ID", Host: "CAP_SYS_ADMIN", Name: "link_get_next_id", Since: "5.8", Last: "next_id", Why: idsKernelWide}, nextID(Link)...),
	32: row(Row{Command: 32, Kernel: "BPF_ENABLE_STATS", Host: "CAP_SYS_ADMIN", Name: "enable_stats", Since: "5.8", Member: "enable_stats", Last: "type", Returns: Result{FD: Stats}, Why: "kernel-wide"},
		u32("type").enum(StatsTypes)),
	33: row(Row{Command: 33, Kernel: "BPF_ITER_CREATE", Name: "iter_create", Since: "5.8", Member: "iter_create", Last: "flags", Returns: Result{FD: Iter}, Native: true, Why: "an iterator shows its creator's pid namespace"},
		u32("link_fd").fd(Link), u32("flags").flags(NoFlags)),
	34: row(Row{Command: 34, Kernel: "BPF_LINK_DETACH", Effect: true, Name: "link_detach", Since: "5.9", Member: "link_detach", Last: "link_fd", Why: attachUnchecked}, u32("link_fd").fd(Link)),
	35: row(Row{Command: 35, Kernel: "BPF_PROG_BIND_MAP", Name: "prog_bind_map", Since: "5.10", Member: "prog_bind_map", Last: "flags", Native: true, Why: "acts on two objects that the caller holds fds of"},
		u32("prog_fd").fd(Prog), u32("map_fd").fd(Map), u32("flags").flags(NoFlags)),
	36: row(Row{Command: 36, Kernel: "BPF_TOKEN_CREATE", Creds: true, Name: "token_create", Since: "6.9", Member: "token_create", Last: "bpffs_fd", Returns: Result{FD: Token}, Why: "a token is a blanket grant"},
		u32("flags").flags(NoFlags), u32("bpffs_fd").fd(Bpffs)),
	37: row(Row{Command: 37, Kernel: "BPF_PROG_STREAM_READ_BY_FD", Name: "prog_stream_read_by_fd", Since: "6.17", Member: "prog_stream_read", Last: "prog_fd", Native: true, Why: "reads what a program that the caller holds an fd of has printed", Returns: Result{}},
		u64("stream_buf").outBuf(ElemBytes, Len{Count: "stream_buf_len", Elem: 1}, WroteAll), u32("stream_buf_len"), u32("stream_id"), u32("prog_fd").fd(Prog)),
}

func attachParts(detach bool) []part {
	prog := u32("attach_bpf_fd").fd(Prog)
	if detach {
		prog = prog.zeroIsNone()
	}
	return []part{
		attachPoint(), prog, u32("attach_type").enum(AttachTypes).fact("attach.type"), u32("attach_flags").flags(AttachFlags).fact("attach.flags"),
		u32("replace_bpf_fd").fd(Prog).when(all(has("attach_flags", FReplace))).since("5.6"),
		relative("attach_flags"), u64("expected_revision").since("6.6"),
	}
}

func linkParts() []part {
	mprog := func(name string, types []uint64) []part {
		return arm(name, whenAll([]part{relativeUnnamed(), u64("expected_revision")}, all(is("attach_type", types...)))...)
	}
	multi := func(p part, elem uint32) part {
		return p.in(ElemU64, Len{Count: "cnt", Elem: elem, Max: MaxMulti * uint64(elem)})
	}
	return []part{
		union([]part{u32("prog_fd").fd(Prog | Map).when(all(isNot("attach_type", at("STRUCT_OPS")...)))},
			[]part{u32("map_fd").fd(Map | Prog).when(all(is("attach_type", at("STRUCT_OPS")...))).since("6.4")}),
		attachPoint(), u32("attach_type").enum(AttachTypes).fact("attach.type"), u32("flags").flags(AttachFlags).fact("attach.flags"),
		union(
			whenAll([]part{u32("target_btf_id")}, all(is("attach_type", atTracing...))),
			whenAll([]part{
				u64("iter_info").in(ElemStruct, Len{Count: "iter_info_len", Elem: 1, Max: PageSize}).points(&IterLinkInfo),
				u32("iter_info_len")}, all(is("attach_type", at("TRACE_ITER")...))),
			arm("perf_event", whenAll([]part{u64("bpf_cookie")}, all(is("attach_type", at("PERF_EVENT")...)))...),
			arm("kprobe_multi", whenAll([]part{
				u32("flags").flags(KprobeMultiFlags), u32("cnt"),
				u64("syms").in(ElemStrings, Len{Count: "cnt", Elem: 8, Max: MaxMulti * 8}).fact("attach.functions"),
				multi(u64("addrs"), 8), multi(u64("cookies"), 8)}, all(is("attach_type", atKprobeM...)))...),
			arm("tracing", whenAll([]part{u32("target_btf_id"), u64("cookie")}, all(is("attach_type", atTracing...)))...),
			arm("netfilter", whenAll([]part{u32("pf").fact("attach.protocol"), u32("hooknum").fact("attach.hook"), s32("priority").fact("attach.priority"), u32("flags").flags(NetfilterFlags)}, all(is("attach_type", at("NETFILTER")...)))...),
			mprog("tcx", atTCX),
			arm("uprobe_multi", whenAll([]part{
				u64("path").path(PathOpen).fact("attach.file"),
				multi(u64("offsets"), 8).fact("attach.offsets"), multi(u64("ref_ctr_offsets"), 8), multi(u64("cookies"), 8),
				u32("cnt"), u32("flags").flags(UprobeMultiFlags), u32("pid").pid().fact("attach.pid")}, all(is("attach_type", atUprobeM...)))...),
			mprog("netkit", atNetkit),
			mprog("cgroup", atCgroup),
		),
	}
}

// relativeUnnamed is relative() for an arm of LINK_CREATE: the flags are outside it.
func relativeUnnamed() part { return relative("flags") }
