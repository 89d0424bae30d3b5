package generate

import (
	"fmt"

	"github.com/bpfbroker/bpfbroker/abi"
)

// The world is what a process makes before its first request: objects and files at
// fixed numbers. No request changes them, so that each finds the same. What a request
// may change is made by its steps and is gone after it.

// F are fields of an attribute, or of a structure in memory, by name. What they may be
// is said at builder.put.
type F map[string]any

// Object is something that a call makes, at a fixed number.
type Object struct {
	Name  string
	FD    int // 0: the call makes no fd
	Call  string
	F     F
	Needs []string // steps
}

// Value is a number of the running kernel's, by its name:
//
//	type KIND NAME      the id of a type in the kernel's BTF
//	event NAME          the type of a PMU
//	tracepoint NAME     the id of a tracepoint
type Value string

// ID is the kernel's id of the object at an fd.
type ID int

// Before is the number below an ID, from which to look for it.
type Before int

// PID is the process id of whoever makes the call.
type PID struct{}

// Room is memory for an output, bytes.
type Room int

// Struct is a structure in memory, of Size bytes, with some fields.
type Struct struct {
	Layout *abi.Layout
	Size   int
	F      F
}

// The world's numbers. Those below 100 are for new fds.
const (
	fdStdout = 1
	fdClosed = 77

	fdHash      = 100
	fdArray     = 101
	fdSockmap   = 102
	fdRingbuf   = 103
	fdProgArray = 104
	fdOuter     = 105
	fdTyped     = 106
	fdReadable  = 107
	fdBTF       = 110
	fdProgs     = 120 // and up, in the order of programs

	fdBpffs  = 160
	fdNetns  = 161
	fdRoot   = 162
	fdFile   = 163
	fdPath   = 164
	fdPidfd  = 165
	fdSocket = 166
	fdNull   = 167

	fdCgroup     = 180
	fdCgroup2    = 181
	fdLink       = 182
	fdClock      = 183
	fdTracepoint = 184
	fdUprobe     = 185
)

// BpffsPath is where each process has a bpffs of its own; it is the working directory.
const BpffsPath = "/sys/fs/bpf"

// Files are those of the world that no call of ours makes.
var Files = map[string]int{
	"bpffs": fdBpffs, "netns": fdNetns, "root": fdRoot, "file": fdFile, "path": fdPath, "pidfd": fdPidfd, "socket": fdSocket, "null": fdNull,
	"cgroup": fdCgroup, "cgroup2": fdCgroup2,
}

// World lists what calls make for the world, in their order.
func World() []Object {
	all := []Object{
		{"btf", fdBTF, "btf_load", F{"btf": typesBTF, "btf_size": len(typesBTF)}, nil},
		{"hash", fdHash, "map_create", F{"map_type": mapType("hash"), "key_size": 4, "value_size": 8, "max_entries": 8, "map_name": "hash"}, nil},
		{"array", fdArray, "map_create", F{"map_type": mapType("array"), "key_size": 4, "value_size": 8, "max_entries": 1, "map_name": "array"}, nil},
		{"sockmap", fdSockmap, "map_create", F{"map_type": mapType("sockmap"), "key_size": 4, "value_size": 4, "max_entries": 1}, nil},
		{"ringbuf", fdRingbuf, "map_create", F{"map_type": mapType("ringbuf"), "max_entries": 4096}, nil},
		{"prog_array", fdProgArray, "map_create", F{"map_type": mapType("prog_array"), "key_size": 4, "value_size": 4, "max_entries": 2}, nil},
		{"outer", fdOuter, "map_create", F{"map_type": mapType("array_of_maps"), "key_size": 4, "value_size": 4, "max_entries": 2, "inner_map_fd": fdArray}, nil},
		{"typed", fdTyped, "map_create", F{"map_type": mapType("hash"), "key_size": 4, "value_size": 4, "max_entries": 8, "btf_fd": fdBTF, "btf_key_type_id": 1, "btf_value_type_id": 1}, nil},
		{"readable", fdReadable, "map_create", F{"map_type": mapType("hash"), "key_size": 4, "value_size": 8, "max_entries": 8, "map_flags": 8}, nil},
	}
	for i, p := range programs {
		all = append(all, Object{p.name, fdProgs + i, "prog_load", p.fields(), nil})
	}
	return all
}

// program is a kind of program that loads.
type program struct {
	name, typ, attach string
	insns             []byte
	value             Value // attach_btf_id
	more              F
}

func (p program) fields() F {
	f := F{"prog_type": progType(p.typ), "insns": p.insns, "insn_cnt": len(p.insns) / 8, "license": "GPL", "prog_name": p.name}
	if p.attach != "" {
		f["expected_attach_type"] = attachType(p.attach)
	}
	if p.value != "" {
		f["attach_btf_id"] = p.value
	}
	for k, v := range p.more {
		f[k] = v
	}
	return f
}

var programs = []program{
	{name: "socket", typ: "socket_filter", insns: returns(0)},
	{name: "skb", typ: "cgroup_skb", insns: returns(1)},
	{name: "skb2", typ: "cgroup_skb", insns: returns(1)},
	{name: "cls", typ: "sched_cls", insns: returns(0)},
	{name: "cls2", typ: "sched_cls", insns: returns(0)},
	{name: "xdp", typ: "xdp", insns: returns(2)},
	{name: "xdp2", typ: "xdp", insns: returns(2)},
	{name: "netfilter", typ: "netfilter", attach: "netfilter", insns: returns(1)},
	{name: "lookup", typ: "sk_lookup", attach: "sk_lookup", insns: returns(1)},
	{name: "dissector", typ: "flow_dissector", insns: returns(0)},
	{name: "raw", typ: "raw_tracepoint", insns: returns(0)},
	{name: "raw_map", typ: "raw_tracepoint", insns: join(loadMap(1, fdHash, 0), returns(0))},
	{name: "tp_btf", typ: "tracing", attach: "trace_raw_tp", insns: returns(0), value: "type typedef btf_trace_task_rename"},
	{name: "iter_elem", typ: "tracing", attach: "trace_iter", insns: returns(0), value: "type func bpf_iter_bpf_map_elem"},
	{name: "iter_task", typ: "tracing", attach: "trace_iter", insns: returns(0), value: "type func bpf_iter_task"},
	{name: "iter_cgroup", typ: "tracing", attach: "trace_iter", insns: returns(0), value: "type func bpf_iter_cgroup"},
	{name: "iter_map", typ: "tracing", attach: "trace_iter", insns: returns(0), value: "type func bpf_iter_bpf_map"},
	{name: "kprobe", typ: "kprobe", insns: returns(0)},
	{name: "uprobe_multi", typ: "kprobe", attach: "trace_uprobe_multi", insns: returns(0)},
	{name: "perf", typ: "perf_event", insns: returns(0)},
	{name: "tracepoint", typ: "tracepoint", insns: returns(0)},
	{name: "verdict", typ: "sk_skb", attach: "sk_skb_verdict", insns: returns(1)},
	{name: "msg", typ: "sk_msg", attach: "sk_msg_verdict", insns: returns(1)},
	{name: "sock", typ: "cgroup_sock", attach: "cgroup_inet_sock_create", insns: returns(1)},
	{name: "device", typ: "cgroup_device", attach: "cgroup_device", insns: returns(1)},
	{name: "sysctl", typ: "cgroup_sysctl", attach: "cgroup_sysctl", insns: returns(1)},
	{name: "ops", typ: "sock_ops", attach: "cgroup_sock_ops", insns: returns(1)},
	{name: "bind4", typ: "cgroup_sock_addr", attach: "cgroup_inet4_bind", insns: returns(1)},
	{name: "getsockopt", typ: "cgroup_sockopt", attach: "cgroup_getsockopt", insns: returns(1)},
	{name: "typed", typ: "socket_filter", insns: returns(0), more: F{
		"prog_btf_fd": fdBTF, "func_info": words(0, 3), "func_info_cnt": 1, "func_info_rec_size": 8,
		"line_info": words(0, 10, 17, 1<<10|1), "line_info_cnt": 1, "line_info_rec_size": 16}},
}

// prog is the number of a program of the world.
func prog(name string) int {
	for i := range programs {
		if programs[i].name == name {
			return fdProgs + i
		}
	}
	panic("generate: no program " + name)
}

// Steps lists what a request may have made before it.
func Steps() []Object { return steps }

var steps = func() []Object {
	cgroup := []string{"cgroup"}
	all := []Object{
		{"cgroup", fdCgroup, "", nil, nil},
		{"cgroup2", fdCgroup2, "", nil, cgroup},
		{"clock", fdClock, "perf_event_open", F{"type": 1, "size": 112, "cpu": -1, "group_fd": -1}, nil},
		{"tracepoint", fdTracepoint, "perf_event_open", F{"type": 2, "size": 112, "config": Value("tracepoint task/task_rename"), "pid": -1, "group_fd": -1}, nil},
		{"uprobe", fdUprobe, "perf_event_open", F{"type": Value("event uprobe"), "size": 112, "uprobe_path": "/bin/true", "config2": 0x1240, "pid": -1, "group_fd": -1, "flags": 8}, nil},
		{"set tracepoint", 0, "perf_event_set_bpf", F{"fd": fdTracepoint, "prog_fd": prog("tracepoint")}, []string{"tracepoint"}},
		{"pin map", 0, "obj_pin", F{"pathname": BpffsPath + "/map", "bpf_fd": fdHash}, nil},
		{"pin prog", 0, "obj_pin", F{"pathname": BpffsPath + "/prog", "bpf_fd": prog("skb")}, nil},
		{"pin link", 0, "obj_pin", F{"pathname": BpffsPath + "/link", "bpf_fd": fdLink}, []string{"link raw"}},
		{"attach skb", 0, "prog_attach", F{"target_fd": fdCgroup, "attach_bpf_fd": prog("skb"), "attach_flags": 2}, cgroup},
		{"attach skb2", 0, "prog_attach", F{"target_fd": fdCgroup, "attach_bpf_fd": prog("skb2"), "attach_flags": 2}, cgroup},
		{"attach egress", 0, "prog_attach", F{"target_fd": fdCgroup, "attach_bpf_fd": prog("skb"), "attach_type": 1}, cgroup},
		{"attach below", 0, "prog_attach", F{"target_fd": fdCgroup2, "attach_bpf_fd": prog("skb2"), "attach_flags": 2}, []string{"cgroup2"}},
		{"attach cls", 0, "prog_attach", F{"target_ifindex": 1, "attach_bpf_fd": prog("cls"), "attach_type": attachType("tcx_ingress")}, nil},
		{"attach cls2", 0, "prog_attach", F{"target_ifindex": 1, "attach_bpf_fd": prog("cls2"), "attach_type": attachType("tcx_ingress")}, nil},
		{"attach dissector", 0, "prog_attach", F{"attach_bpf_fd": prog("dissector"), "attach_type": attachType("flow_dissector")}, nil},
		{"attach verdict", 0, "prog_attach", F{"target_fd": fdSockmap, "attach_bpf_fd": prog("verdict"), "attach_type": attachType("sk_skb_verdict")}, nil},
	}
	for _, l := range links {
		all = append(all, Object{"link " + l.name, fdLink, l.call, l.f, l.needs})
	}
	return all
}()

// StepOf is the step called name, or nil.
func StepOf(name string) *Object {
	for i := range steps {
		if steps[i].Name == name {
			return &steps[i]
		}
	}
	return nil
}

// link is a kind of link that can be made.
type link struct {
	name, call string
	f          F
	needs      []string
}

var links = []link{
	{"raw", "raw_tracepoint_open", F{"name": "task_rename", "prog_fd": prog("raw")}, nil},
	{"cgroup", "link_create", F{"prog_fd": prog("skb"), "target_fd": fdCgroup, "attach_type": 1}, []string{"cgroup"}},
	{"cgroup sock", "link_create", F{"prog_fd": prog("sock"), "target_fd": fdCgroup, "attach_type": attachType("cgroup_inet_sock_create")}, []string{"cgroup"}},
	{"cgroup device", "link_create", F{"prog_fd": prog("device"), "target_fd": fdCgroup, "attach_type": attachType("cgroup_device")}, []string{"cgroup"}},
	{"cgroup bind4", "link_create", F{"prog_fd": prog("bind4"), "target_fd": fdCgroup, "attach_type": attachType("cgroup_inet4_bind")}, []string{"cgroup"}},
	{"cgroup before", "link_create", F{"prog_fd": prog("skb"), "target_fd": fdCgroup, "attach_type": 0, "flags": 8, "cgroup.relative_fd": prog("skb2")}, []string{"cgroup", "attach skb2"}},
	{"xdp", "link_create", F{"prog_fd": prog("xdp"), "target_ifindex": 1, "attach_type": attachType("xdp"), "flags": 2}, nil},
	{"tcx", "link_create", F{"prog_fd": prog("cls"), "target_ifindex": 1, "attach_type": attachType("tcx_egress")}, nil},
	{"tcx before", "link_create", F{"prog_fd": prog("cls2"), "target_ifindex": 1, "attach_type": attachType("tcx_ingress"), "flags": 8, "tcx.relative_fd": prog("cls")}, []string{"attach cls"}},
	{"tcx after id", "link_create", F{"prog_fd": prog("cls2"), "target_ifindex": 1, "attach_type": attachType("tcx_ingress"), "flags": 16 | 32, "tcx.relative_id": ID(prog("cls"))}, []string{"attach cls"}},
	{"netfilter", "link_create", F{"prog_fd": prog("netfilter"), "attach_type": attachType("netfilter"), "netfilter.pf": 2, "netfilter.hooknum": 1, "netfilter.priority": 10}, nil},
	{"netns", "link_create", F{"prog_fd": prog("lookup"), "target_fd": fdNetns, "attach_type": attachType("sk_lookup")}, nil},
	{"tp_btf", "link_create", F{"prog_fd": prog("tp_btf"), "attach_type": attachType("trace_raw_tp"), "tracing.cookie": 99}, nil},
	{"iter task", "link_create", F{"prog_fd": prog("iter_task"), "attach_type": attachType("trace_iter"), "iter_info": Struct{&abi.IterLinkInfo, 16, F{"task.pid": PID{}}}, "iter_info_len": 16}, nil},
	{"iter pidfd", "link_create", F{"prog_fd": prog("iter_task"), "attach_type": attachType("trace_iter"), "iter_info": Struct{&abi.IterLinkInfo, 16, F{"task.pid_fd": fdPidfd}}, "iter_info_len": 16}, nil},
	{"iter map", "link_create", F{"prog_fd": prog("iter_map"), "attach_type": attachType("trace_iter")}, nil},
	{"iter elem", "link_create", F{"prog_fd": prog("iter_elem"), "attach_type": attachType("trace_iter"), "iter_info": words(fdHash), "iter_info_len": 4}, nil},
	{"iter cgroup", "link_create", F{"prog_fd": prog("iter_cgroup"), "attach_type": attachType("trace_iter"), "iter_info": Struct{&abi.IterLinkInfo, 16, F{"cgroup.order": 1, "cgroup.cgroup_fd": fdCgroup}}, "iter_info_len": 16}, []string{"cgroup"}},
	{"uprobe_multi", "link_create", F{"prog_fd": prog("uprobe_multi"), "attach_type": attachType("trace_uprobe_multi"), "uprobe_multi.path": "/bin/true",
		"uprobe_multi.offsets": words(0x1240, 0, 0x1280, 0), "uprobe_multi.cookies": words(1, 2, 3, 4), "uprobe_multi.cnt": 2}, nil},
	{"uprobe_multi pid", "link_create", F{"prog_fd": prog("uprobe_multi"), "attach_type": attachType("trace_uprobe_multi"), "uprobe_multi.path": "/bin/true",
		"uprobe_multi.offsets": words(0x1240, 0), "uprobe_multi.cnt": 1, "uprobe_multi.flags": 1, "uprobe_multi.pid": PID{}}, nil},
	{"perf clock", "link_create", F{"prog_fd": prog("perf"), "target_fd": fdClock, "attach_type": attachType("perf_event"), "perf_event.bpf_cookie": 5}, []string{"clock"}},
	{"perf tracepoint", "link_create", F{"prog_fd": prog("tracepoint"), "target_fd": fdTracepoint, "attach_type": attachType("perf_event")}, []string{"tracepoint"}},
	{"perf uprobe", "link_create", F{"prog_fd": prog("kprobe"), "target_fd": fdUprobe, "attach_type": attachType("perf_event"), "perf_event.bpf_cookie": 6}, []string{"uprobe"}},
	{"sockmap", "link_create", F{"prog_fd": prog("verdict"), "target_fd": fdSockmap, "attach_type": attachType("sk_skb_verdict")}, nil},
}

// NameOf names what is at a number.
func NameOf(fd int) string {
	for name, n := range Files {
		if n == fd {
			return name
		}
	}
	for _, o := range World() {
		if o.FD == fd {
			return o.Name
		}
	}
	switch fd {
	case fdLink:
		return "link"
	case fdClock, fdTracepoint, fdUprobe:
		return "event"
	case 0, 1, 2:
		return fmt.Sprint("standard ", fd)
	}
	return "nothing"
}

// numbers are all fds of the world and of steps, sorted.
var numbers = func() (all []int) {
	for fd := fdStdout; fd < 256; fd++ {
		if NameOf(fd) != "nothing" {
			all = append(all, fd)
		}
	}
	return all
}()

// Values are the kernel's numbers that the world and the requests need.
func Values() (all []Value) {
	seen := map[Value]bool{}
	var walk func(F)
	walk = func(f F) {
		for _, v := range f {
			switch v := v.(type) {
			case Value:
				if !seen[v] {
					seen[v], all = true, append(all, v)
				}
			case Struct:
				walk(v.F)
			}
		}
	}
	for _, o := range World() {
		walk(o.F)
	}
	for _, o := range steps {
		walk(o.F)
	}
	for _, r := range recipes() {
		walk(r.f)
	}
	return all
}

// Detach lists the calls that take back what a request may have attached to what
// outlives it: the loopback interface, the network namespace, a map of the world.
func Detach() (all []Object) {
	off := func(f F) { all = append(all, Object{"off", 0, "prog_detach", f, nil}) }
	for _, p := range []string{"cls", "cls2"} {
		for _, t := range []string{"tcx_ingress", "tcx_egress"} {
			off(F{"target_ifindex": 1, "attach_bpf_fd": prog(p), "attach_type": attachType(t)})
		}
	}
	off(F{"attach_type": attachType("flow_dissector"), "attach_bpf_fd": prog("dissector")})
	off(F{"target_fd": fdSockmap, "attach_bpf_fd": prog("verdict"), "attach_type": attachType("sk_skb_verdict")})
	off(F{"target_fd": fdSockmap, "attach_bpf_fd": prog("verdict"), "attach_type": attachType("sk_skb_stream_verdict")})
	off(F{"target_fd": fdSockmap, "attach_bpf_fd": prog("msg"), "attach_type": attachType("sk_msg_verdict")})
	return all
}

// HostAdmin says whether the request asks for what takes a capability on the host that no
// token stands for.
func (r *Request) HostAdmin() bool {
	const zeroSeed = 1 << 6
	at, size := r.Attr()
	row := r.Row()
	attr := pad(r.Image().bytes(at, uint64(size)), row.Size)
	is := func(name string, bits uint64) bool {
		f := row.Field(name)
		return f != nil && f.Uint(attr)&bits != 0
	}
	return is("map_flags", zeroSeed) || is("map_ifindex", ^uint64(0)) || is("prog_ifindex", ^uint64(0))
}
