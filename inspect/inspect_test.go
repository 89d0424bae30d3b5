package inspect

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/internal/brokertest"
	"github.com/bpfbroker/bpfbroker/request"
)

// Requests, and the facts of each when all are asked for, but for those of the caller.
// inPlaceOf attaches the program 9 in the place of an object. Of programs, owned are the
// workload's.
func inPlaceOf(kind abi.Object, id uint64, owned ...uint32) func(e *env) *request.Request {
	return func(e *env) *request.Request {
		filter := values{"type": value(abi.ProgTypes, "cgroup_device"), "id": 9}
		e.object(3, abi.Prog, filter)
		of := values{"id": id}
		if kind == abi.Prog {
			of["type"] = filter["type"]
		}
		e.object(5, kind, of)
		e.place.Owned = map[abi.Object][]uint32{abi.Prog: owned}
		return e.bpf(abi.ProgAttach, values{"attach_bpf_fd": 3, "attach_type": attachType("cgroup_device"), "attach_flags": 6, "replace_bpf_fd": 5})
	}
}

// toSockmap attaches the workload's program 9 to a map. Of maps, 7 is the workload's.
func toSockmap(id uint64) func(e *env) *request.Request {
	return func(e *env) *request.Request {
		e.object(3, abi.Prog, values{"type": value(abi.ProgTypes, "sk_skb"), "id": 9})
		e.object(4, abi.Map, values{"id": id})
		e.place.Owned = map[abi.Object][]uint32{abi.Prog: {9}, abi.Map: {7}}
		return e.bpf(abi.ProgAttach, values{"target_fd": 4, "attach_bpf_fd": 3, "attach_type": attachType("sk_skb_stream_verdict")})
	}
}

func TestFacts(t *testing.T) {
	const exitInsn = 0x95
	for _, c := range []struct {
		name string
		make func(e *env) *request.Request
		want string
	}{
		{"map_create", func(e *env) *request.Request {
			return e.bpf(abi.MapCreate, values{"map_type": 2, "key_size": 4, "value_size": 12, "max_entries": 5, "map_flags": 1<<10 | 1<<16 | 1<<30, "map_name": 'm' | 'a'<<8})
		}, `map.type=array
map.key_size=4
map.value_size=12
map.max_entries=5
map.flags=[BPF_F_MMAPABLE BPF_F_TOKEN_FD 0x40000000]
map.name=ma
map.bytes=8192
token=true`},
		{"prog_load", func(e *env) *request.Request {
			e.object(5, abi.Map, values{"type": 1, "id": 77})
			e.object(6, abi.Map, values{"type": 2, "id": 12})
			e.Files[8], e.Files[9] = abi.BTF, abi.BTF
			e.place.BTFs = map[int]string{8: "xfs", 9: "vmlinux"}
			e.place.Owned = map[abi.Object][]uint32{abi.Map: {12}}
			e.place.Types = map[brokertest.Type]string{{BTF: 8, ID: 300}: "xfs_kfunc", {BTF: -1, ID: 40}: "bpf_task_acquire", {BTF: -1, ID: 50}: "tcp_v4_connect"}
			insns := slices.Concat(
				wide(1, 5, 0), wide(6, 1, 16), insn(call, 0, 0, 6), insn(call, 1, 0, 1), insn(exitInsn, 0, 0, 0),
				// a subprogram
				insn(call, 0, 0, 1), insn(call, 0, 0, 999), insn(call, 0, 0, 6), insn(call, 2, 2, 300), insn(call, 2, 0, 40), insn(call, 2, 0, 0), insn(exitInsn, 0, 0, 0))
			var array []byte
			for _, fd := range []uint32{0xffffffff, 6, 8} {
				array = binary.LittleEndian.AppendUint32(array, fd)
			}
			return e.bpf(abi.ProgLoad, values{"prog_type": value(abi.ProgTypes, "tracing"), "expected_attach_type": attachType("trace_fentry"),
				"insns": e.AtEnd(insns), "insn_cnt": uint64(len(insns) / 8), "license": e.str("GPL"), "prog_flags": 1 << 4,
				"prog_name": 'p', "fd_array": e.AtEnd(array), "attach_btf_id": 50, "signature": e.str("x"), "signature_size": 1})
		}, `prog.type=tracing
prog.attach_type=trace_fentry
prog.name=p
prog.license=GPL
prog.insns=14
prog.flags=[BPF_F_SLEEPABLE]
prog.sleepable=true
prog.signed=true
prog.helpers=[bpf_map_lookup_elem bpf_trace_printk helper 999]
prog.kfuncs=[bpf_task_acquire xfs_kfunc]
prog.map_types=[array hash]
prog.map_ids=[12 77]
prog.foreign_map_ids=[77]
prog.target_kind=kernel
prog.target=tcp_v4_connect
prog.digest=DIGEST`},
		{"prog_load of a module's tracepoint", func(e *env) *request.Request {
			e.Files[4] = abi.BTF
			e.place.BTFs = map[int]string{4: "xfs"}
			e.place.Types = map[brokertest.Type]string{{BTF: 4, ID: 7}: "btf_trace_xfs_iget"}
			return e.bpf(abi.ProgLoad, values{"prog_type": value(abi.ProgTypes, "tracing"), "expected_attach_type": attachType("trace_raw_tp"), "attach_btf_id": 7, "attach_prog_fd": 4})
		}, `prog.type=tracing
prog.attach_type=trace_raw_tp
prog.target_kind=module
prog.target_module=xfs
prog.target=xfs_iget
prog.helpers? the instructions can't be read
prog.kfuncs? the instructions can't be read
prog.kernel_stacks? the instructions can't be read
prog.digest? the instructions can't be read`},
		{"prog_load that replaces a function", func(e *env) *request.Request {
			e.object(4, abi.Prog, values{"id": 31})
			e.place.ProgTypes = map[brokertest.Type]string{{BTF: 4, ID: 7}: "parse"}
			return e.bpf(abi.ProgLoad, values{"prog_type": value(abi.ProgTypes, "ext"), "attach_btf_id": 7, "attach_prog_fd": 4, "insns": e.AtEnd(insn(exitInsn, 0, 0, 0)), "insn_cnt": 1})
		}, `prog.type=ext
prog.insns=1
prog.target_kind=program
prog.target_prog=31
prog.target=parse
prog.digest=DIGEST`},
		{"prog_load of an iterator", func(e *env) *request.Request {
			e.place.Types = map[brokertest.Type]string{{BTF: -1, ID: 7}: "bpf_iter_bpf_map"}
			return e.bpf(abi.ProgLoad, values{"prog_type": value(abi.ProgTypes, "tracing"), "expected_attach_type": attachType("trace_iter"), "attach_btf_id": 7, "insns": e.AtEnd(insn(exitInsn, 0, 0, 0)), "insn_cnt": 1})
		}, `prog.type=tracing
prog.attach_type=trace_iter
prog.insns=1
prog.target_kind=kernel
prog.target=bpf_map
prog.digest=DIGEST`},
		{"prog_load, nothing known", func(e *env) *request.Request {
			e.Files[5], e.Files[4] = abi.Map, abi.BTF
			insns := slices.Concat(wide(1, 5, 0), insn(call, 2, 0, 40), insn(call, 2, 1, 41), insn(exitInsn, 0, 0, 0))
			return e.bpf(abi.ProgLoad, values{"prog_type": value(abi.ProgTypes, "xdp"), "insns": e.AtEnd(insns), "insn_cnt": uint64(len(insns) / 8), "attach_btf_id": 1, "attach_prog_fd": 4,
				"core_relo_cnt": 1, "core_relo_rec_size": 16, "core_relos": e.AtEnd(make([]byte, 16))})
		}, `prog.type=xdp
prog.insns=5
prog.kfuncs? the function with BTF id 40: {-1 40}: not there
prog.map_types? look at fd 5: bad file descriptor
prog.map_ids? look at fd 5: bad file descriptor
prog.foreign_map_ids? look at fd 5: bad file descriptor
prog.target_kind? 4: not there
prog.target_module? 4: not there
prog.target? 4: not there
prog.digest? the kernel relocates the instructions (core_relos): what is run differs from what is loaded`},
		{"a kfunc without an fd_array", func(e *env) *request.Request {
			insns := slices.Concat(insn(call, 2, 3, 40), insn(exitInsn, 0, 0, 0))
			return e.bpf(abi.ProgLoad, values{"prog_type": value(abi.ProgTypes, "cgroup_skb"), "insns": e.AtEnd(insns), "insn_cnt": 2, "license": 1})
		}, `prog.type=cgroup_skb
prog.attach_type=cgroup_inet_ingress
prog.insns=2
prog.digest=DIGEST
prog.license? it can't be read
prog.kfuncs? the function with BTF id 40: fd_array has no index 3`},
		{"prog_attach to a cgroup", func(e *env) *request.Request {
			e.object(3, abi.Prog, values{"type": value(abi.ProgTypes, "cgroup_skb"), "id": 9})
			e.Files[4] = abi.Cgroup | abi.Directory | abi.Bpffs
			e.place.Owned = map[abi.Object][]uint32{abi.Prog: {9}}
			e.place.CgroupPaths, e.place.Inside = map[int]string{4: "/a/b"}, map[int]bool{4: true}
			return e.bpf(abi.ProgAttach, values{"target_fd": 4, "attach_bpf_fd": 3, "attach_type": attachType("cgroup_inet_egress")})
		}, `attach.type=cgroup_inet_egress
attach.prog_id=9
attach.prog_type=cgroup_skb
attach.prog_own=true
attach.cgroup=/a/b
attach.cgroup_inside=true`},
		{"prog_attach in the place of one's own", inPlaceOf(abi.Prog, 8, 8, 9), `attach.type=cgroup_device
attach.flags=[BPF_F_ALLOW_MULTI BPF_F_REPLACE]
attach.prog_id=9
attach.prog_type=cgroup_device
attach.prog_own=true`},
		{"prog_attach in the place of another's", inPlaceOf(abi.Prog, 8, 9), `attach.type=cgroup_device
attach.flags=[BPF_F_ALLOW_MULTI BPF_F_REPLACE]
attach.prog_id=9
attach.prog_type=cgroup_device`},
		{"prog_attach in the place of what is no program", inPlaceOf(abi.Map, 9, 9), `attach.type=cgroup_device
attach.flags=[BPF_F_ALLOW_MULTI BPF_F_REPLACE]
attach.prog_id=9
attach.prog_type=cgroup_device`},
		{"prog_attach to a sockmap", toSockmap(7), `attach.type=sk_skb_stream_verdict
attach.prog_id=9
attach.prog_type=sk_skb
attach.prog_own=true
attach.map_own=true`},
		{"prog_attach to another's sockmap", toSockmap(9), `attach.type=sk_skb_stream_verdict
attach.prog_id=9
attach.prog_type=sk_skb
attach.prog_own=true`},
		{"prog_detach of whatever there is", func(e *env) *request.Request {
			e.Files[0] = abi.Cgroup | abi.Directory | abi.Bpffs
			e.place.CgroupPaths, e.place.Inside = map[int]string{0: "/"}, map[int]bool{0: false}
			return e.bpf(abi.ProgDetach, values{"target_fd": 0, "attach_type": attachType("cgroup_device")})
		}, `attach.type=cgroup_device
attach.cgroup=/`},
		{"prog_attach of what is no program", func(e *env) *request.Request {
			e.Files[3], e.Files[4] = abi.BTF, abi.Cgroup
			return e.bpf(abi.ProgAttach, values{"target_fd": 4, "attach_bpf_fd": 3, "attach_type": attachType("cgroup_device")})
		}, `attach.type=cgroup_device
attach.cgroup? 4: not there
attach.cgroup_inside? 4: not there`},
		{"prog_attach in the network namespace", func(e *env) *request.Request {
			e.object(3, abi.Prog, values{"type": value(abi.ProgTypes, "flow_dissector"), "id": 9})
			e.place.Owned = map[abi.Object][]uint32{abi.Prog: {8}}
			e.place.NetNSs = map[int]bool{-1: true}
			return e.bpf(abi.ProgAttach, values{"target_fd": 0, "attach_bpf_fd": 3, "attach_type": attachType("flow_dissector")})
		}, `attach.type=flow_dissector
attach.prog_id=9
attach.prog_type=flow_dissector
attach.netns_own=true`},
		{"prog_query of an interface", func(e *env) *request.Request {
			e.place.Ifnames, e.place.NetNSs = map[uint32]string{2: "eth0"}, map[int]bool{-1: false}
			return e.bpf(abi.ProgQuery, values{"target_ifindex": 2, "attach_type": attachType("tcx_ingress")})
		}, `attach.type=tcx_ingress
attach.ifindex=2
attach.ifname=eth0`},
		{"link_create to an interface", func(e *env) *request.Request {
			e.object(3, abi.Prog, values{"type": value(abi.ProgTypes, "xdp"), "id": 9})
			e.place.Ifnames, e.place.NetNSs = map[uint32]string{2: "eth0"}, map[int]bool{-1: true}
			e.place.Owned = map[abi.Object][]uint32{abi.Prog: {9}}
			return e.bpf(abi.LinkCreate, values{"target_ifindex": 2, "prog_fd": 3, "attach_type": attachType("xdp")})
		}, `attach.type=xdp
attach.prog_id=9
attach.prog_type=xdp
attach.prog_own=true
attach.ifindex=2
attach.ifname=eth0
attach.netns_own=true`},
		{"link_create to another network namespace", func(e *env) *request.Request {
			e.object(3, abi.Prog, values{"type": value(abi.ProgTypes, "sk_lookup"), "id": 9})
			e.Files[4] = abi.Netns
			e.place.NetNSs = map[int]bool{4: true}
			e.place.Owned = map[abi.Object][]uint32{abi.Prog: {9}}
			return e.bpf(abi.LinkCreate, values{"target_fd": 4, "prog_fd": 3, "attach_type": attachType("sk_lookup")})
		}, `attach.type=sk_lookup
attach.prog_id=9
attach.prog_type=sk_lookup
attach.prog_own=true
attach.netns_own=true`},
		{"link_create of netfilter", func(e *env) *request.Request {
			e.object(3, abi.Prog, values{"type": value(abi.ProgTypes, "netfilter"), "id": 9})
			e.place.NetNSs = map[int]bool{-1: false}
			e.place.Owned = map[abi.Object][]uint32{abi.Prog: {9}}
			return e.bpf(abi.LinkCreate, values{"prog_fd": 3, "attach_type": attachType("netfilter"), "netfilter.pf": 2, "netfilter.hooknum": 4, "netfilter.priority": 0xffffff38})
		}, `attach.type=netfilter
attach.prog_id=9
attach.prog_type=netfilter
attach.prog_own=true
attach.protocol=ipv4
attach.hook=postrouting
attach.priority=-200`},
		{"link_create of netfilter, unknown numbers", func(e *env) *request.Request {
			e.object(3, abi.Map, values{})
			e.place.NetNSs = map[int]bool{-1: false}
			return e.bpf(abi.LinkCreate, values{"prog_fd": 3, "attach_type": attachType("netfilter"), "netfilter.pf": 5, "netfilter.hooknum": 9})
		}, `attach.type=netfilter
attach.protocol=5 /* protocol? */
attach.hook=9 /* hook? */`},
		{"link_create of kprobes", func(e *env) *request.Request {
			e.object(3, abi.Prog, values{"type": value(abi.ProgTypes, "kprobe"), "id": 9})
			var syms []byte
			for _, s := range []string{"tcp_connect", "udp_sendmsg"} {
				syms = binary.LittleEndian.AppendUint64(syms, e.str(s))
			}
			e.place.Owned = map[abi.Object][]uint32{abi.Prog: {9}}
			return e.bpf(abi.LinkCreate, values{"prog_fd": 3, "attach_type": attachType("trace_kprobe_multi"), "kprobe_multi.cnt": 2, "kprobe_multi.syms": e.AtEnd(syms)})
		}, `attach.type=trace_kprobe_multi
attach.prog_id=9
attach.prog_type=kprobe
attach.prog_own=true
attach.functions=[tcp_connect udp_sendmsg]`},
		{"link_create of kprobes by address", func(e *env) *request.Request {
			e.object(3, abi.Map, values{})
			return e.bpf(abi.LinkCreate, values{"prog_fd": 3, "attach_type": attachType("trace_kprobe_multi"), "kprobe_multi.cnt": 2, "kprobe_multi.addrs": e.AtEnd(make([]byte, 16))})
		}, `attach.type=trace_kprobe_multi
attach.functions? they are named by their addresses`},
		{"link_create of kprobes, one name not there", func(e *env) *request.Request {
			e.object(3, abi.Map, values{})
			return e.bpf(abi.LinkCreate, values{"prog_fd": 3, "attach_type": attachType("trace_kprobe_multi"), "kprobe_multi.cnt": 2, "kprobe_multi.syms": e.AtEnd(make([]byte, 16))})
		}, `attach.type=trace_kprobe_multi
attach.functions? their names can't be read`},
		{"link_create of uprobes", func(e *env) *request.Request {
			e.object(3, abi.Map, values{})
			e.place.Files = map[string]brokertest.File{"libc.so": {Name: "/lib/libc.so.6", Shared: true}}
			e.place.PIDs = map[uint32]bool{7: true}
			return e.bpf(abi.LinkCreate, values{"prog_fd": 3, "attach_type": attachType("trace_uprobe_multi"), "uprobe_multi.cnt": 2, "uprobe_multi.path": e.str("libc.so"),
				"uprobe_multi.offsets": e.AtEnd(append(binary.LittleEndian.AppendUint64(nil, 64), bytes.Repeat([]byte{0xff}, 8)...)), "uprobe_multi.pid": 7})
		}, `attach.type=trace_uprobe_multi
attach.file=/lib/libc.so.6
attach.file_shared=true
attach.offsets=[64 9223372036854775807]
attach.pid=7
attach.pid_own=true`},
		{"link_create of uprobes, nothing known", func(e *env) *request.Request {
			e.object(3, abi.Map, values{})
			return e.bpf(abi.LinkCreate, values{"prog_fd": 3, "attach_type": attachType("trace_uprobe_multi"), "uprobe_multi.cnt": maxList + 1, "uprobe_multi.path": e.str("libc.so"), "uprobe_multi.pid": 0xffffffff})
		}, `attach.type=trace_uprobe_multi
attach.file_shared=true
attach.pid=-1
attach.offsets? there are more than 4096
attach.file? libc.so: not there
attach.file_shared? libc.so: not there`},
		{"link_create of a cgroup's iterator", func(e *env) *request.Request {
			e.object(3, abi.Prog, values{"type": value(abi.ProgTypes, "tracing"), "id": 9})
			e.Files[4] = abi.Cgroup
			e.place.CgroupPaths, e.place.Inside = map[int]string{4: "/a"}, map[int]bool{4: true}
			info := make([]byte, abi.IterLinkInfo.Size)
			abi.IterLinkInfo.Field("cgroup.cgroup_fd").Put(info, 4)
			e.place.Owned = map[abi.Object][]uint32{abi.Prog: {9}}
			return e.bpf(abi.LinkCreate, values{"prog_fd": 3, "attach_type": attachType("trace_iter"), "iter_info": e.AtEnd(info), "iter_info_len": uint64(len(info))})
		}, `attach.type=trace_iter
attach.prog_id=9
attach.prog_type=tracing
attach.prog_own=true
attach.cgroup=/a
attach.cgroup_inside=true`},
		{"raw_tracepoint_open", func(e *env) *request.Request {
			e.object(3, abi.Prog, values{"type": value(abi.ProgTypes, "raw_tracepoint"), "id": 9})
			e.place.Owned = map[abi.Object][]uint32{abi.Prog: {9}}
			return e.bpf(abi.RawTPOpen, values{"name": e.str("sched_switch"), "prog_fd": 3})
		}, `attach.prog_id=9
attach.prog_type=raw_tracepoint
attach.prog_own=true
attach.tracepoint=sched_switch`},
		{"link_update", func(e *env) *request.Request {
			e.object(3, abi.Prog, values{"type": value(abi.ProgTypes, "xdp"), "id": 9})
			e.object(4, abi.Link, values{"type": value(abi.LinkTypes, "xdp"), "id": 2, "prog_id": 8})
			e.place.Owned = map[abi.Object][]uint32{abi.Prog: {9}, abi.Link: {}}
			return e.bpf(abi.LinkUpdate, values{"link_fd": 4, "new_prog_fd": 3})
		}, `attach.prog_id=9
attach.prog_type=xdp
attach.prog_own=true
object.kind=link
object.id=2`},
		{"link_detach", func(e *env) *request.Request {
			e.object(4, abi.Link, values{"type": value(abi.LinkTypes, "xdp"), "id": 2, "prog_id": 8})
			e.place.Owned = map[abi.Object][]uint32{abi.Prog: {8}}
			return e.bpf(abi.LinkDetach, values{"link_fd": 4})
		}, `attach.prog_id=8
attach.prog_own=true
object.kind=link
object.id=2
object.own=true
attach.prog_type? the program is known by its link alone`},
		{"link_detach of a struct_ops", func(e *env) *request.Request {
			e.object(4, abi.Link, values{"type": value(abi.LinkTypes, "struct_ops"), "id": 2, "struct_ops.map_id": 8})
			e.place.Owned = map[abi.Object][]uint32{abi.Map: {8}}
			return e.bpf(abi.LinkDetach, values{"link_fd": 4})
		}, `object.kind=link
object.id=2
object.own=true`},
		{"perf_event_set_bpf", func(e *env) *request.Request {
			e.object(3, abi.Prog, values{"type": value(abi.ProgTypes, "kprobe"), "id": 9})
			e.Files[4] = abi.PerfEvent
			e.place.Owned = map[abi.Object][]uint32{abi.Prog: {}}
			return e.setBPF(4, 3)
		}, `attach.prog_id=9
attach.prog_type=kprobe`},
		{"perf_event_open of a tracepoint", func(e *env) *request.Request {
			e.place.Tracepoints = map[uint64]string{316: "sched:sched_switch"}
			return e.perf(values{"type": 2, "config": 316, "pid": 0xffffffff, "cpu": 3})
		}, `perf_event.type=tracepoint
perf_event.config=316
perf_event.pid=-1
perf_event.cpu=3
perf_event.tracepoint=sched:sched_switch`},
		{"perf_event_open of a kprobe", func(e *env) *request.Request {
			return e.perf(values{"type": kprobePMU, "config": 1, "kprobe_func": e.str("tcp_connect"), "config2": 16, "cpu": 0xffffffff})
		}, `perf_event.type=kprobe
perf_event.config=1
perf_event.pid_own=true
perf_event.cpu=-1
perf_event.function=tcp_connect
perf_event.offset=16`},
		{"perf_event_open of a kprobe by address", func(e *env) *request.Request {
			return e.perf(values{"type": kprobePMU, "config2": 1 << 40, "pid": 5})
		}, `perf_event.type=kprobe
perf_event.pid=5
perf_event.function? it is named by its address
perf_event.pid_own? 5: not there`},
		{"perf_event_open of a uprobe", func(e *env) *request.Request {
			e.place.Files = map[string]brokertest.File{"/bin/sh": {Name: "/usr/bin/dash"}}
			e.place.PIDs = map[uint32]bool{5: true}
			return e.perf(values{"type": uprobePMU, "uprobe_path": e.str("/bin/sh"), "config2": 16, "pid": 5})
		}, `perf_event.type=uprobe
perf_event.pid=5
perf_event.pid_own=true
perf_event.file=/usr/bin/dash
perf_event.offset=16`},
		{"perf_event_open of a cgroup", func(e *env) *request.Request {
			e.Files[4] = abi.Cgroup
			return e.perf(values{"type": 1, "cgroup_fd": 4, "flags": abi.PerfFlagPIDCgroup, "config": 1 << 63})
		}, `perf_event.type=software
perf_event.config=9223372036854775807
perf_event.pid=-1
perf_event.pid? the event is of a cgroup's processes
perf_event.pid_own? the event is of a cgroup's processes`},
		{"obj_pin", func(e *env) *request.Request {
			e.object(4, abi.Map, values{"id": 7})
			e.place.Owned = map[abi.Object][]uint32{abi.Map: {7}}
			return e.bpf(abi.ObjPin, values{"bpf_fd": 4, "pathname": e.str("/sys/fs/bpf/x")})
		}, `object.kind=map
object.id=7
object.own=true
pin.path=/sys/fs/bpf/x`},
		{"obj_get", func(e *env) *request.Request {
			return e.bpf(abi.ObjGet, values{"pathname": e.str("/sys/fs/bpf/" + strings.Repeat("x", 200))})
		}, `pin.path=/sys/fs/bpf/` + strings.Repeat("x", 200) + `
object.kind? nothing can be opened there: no such file or directory
object.id? nothing can be opened there: no such file or directory
object.own? nothing can be opened there: no such file or directory
object.shared? nothing can be opened there: no such file or directory`},
		{"obj_get, own", func(e *env) *request.Request {
			e.object(9, abi.Map, values{"id": 7})
			e.place.Pins = map[string]brokertest.Pin{"/pin": {Kind: abi.Map, FD: 9}}
			e.place.Owned = map[abi.Object][]uint32{abi.Map: {7}}
			return e.bpf(abi.ObjGet, values{"pathname": e.str("/pin")})
		}, `object.kind=map
object.id=7
object.own=true
pin.path=/pin`},
		{"obj_get, shared", func(e *env) *request.Request {
			e.object(9, abi.Prog, values{"id": 7})
			e.place.Pins = map[string]brokertest.Pin{"/pin": {Kind: abi.Prog, FD: 9}}
			e.place.Owned, e.place.SharedIDs = map[abi.Object][]uint32{abi.Prog: {}}, map[abi.Object][]uint32{abi.Prog: {7}}
			return e.bpf(abi.ObjGet, values{"pathname": e.str("/pin")})
		}, `object.kind=prog
object.id=7
object.shared=true
pin.path=/pin`},
		{"obj_get_info_by_fd", func(e *env) *request.Request {
			e.object(4, abi.BTF, values{"id": 7})
			e.place.Owned = map[abi.Object][]uint32{abi.BTF: {}}
			return e.bpf(abi.ObjGetInfoByFD, values{"bpf_fd": 4})
		}, `object.kind=btf
object.id=7`},
		{"obj_get_info_by_fd of a shared link", func(e *env) *request.Request { // of a program that isn't
			e.object(4, abi.Link, values{"type": value(abi.LinkTypes, "xdp"), "id": 2, "prog_id": 8})
			e.place.Owned, e.place.SharedIDs = map[abi.Object][]uint32{abi.Prog: {}, abi.Link: {}}, map[abi.Object][]uint32{abi.Link: {2}}
			return e.bpf(abi.ObjGetInfoByFD, values{"bpf_fd": 4})
		}, `object.kind=link
object.id=2
object.shared=true`},
		{"obj_get_info_by_fd of a shared link that is detached", func(e *env) *request.Request {
			e.object(4, abi.Link, values{"type": value(abi.LinkTypes, "xdp"), "id": 2})
			e.place.Owned, e.place.SharedIDs = map[abi.Object][]uint32{abi.Link: {}}, map[abi.Object][]uint32{abi.Link: {2}}
			return e.bpf(abi.ObjGetInfoByFD, values{"bpf_fd": 4})
		}, `object.kind=link
object.id=2
object.shared=true`},
		{"obj_get_info_by_fd of a token", func(e *env) *request.Request {
			e.Files[4] = abi.Token
			return e.bpf(abi.ObjGetInfoByFD, values{"bpf_fd": 4})
		}, `object.kind=token`},
		{"obj_get_info_by_fd of nothing", func(e *env) *request.Request {
			return e.bpf(abi.ObjGetInfoByFD, values{"bpf_fd": 4})
		}, `object.kind? the fd is of no object
object.id? the fd is of no object
object.own? the fd is of no object
object.shared? the fd is of no object`},
		{"map_get_fd_by_id", func(e *env) *request.Request {
			e.place.Owned = map[abi.Object][]uint32{abi.Map: {7}}
			return e.bpf(abi.MapGetFDByID, values{"map_id": 7})
		}, `object.kind=map
object.id=7
object.own=true`},
		{"link_get_fd_by_id", func(e *env) *request.Request {
			e.place.Owned = map[abi.Object][]uint32{abi.Link: {7}}
			return e.bpf(abi.LinkGetFDByID, values{"link_id": 7})
		}, `object.kind=link
object.id=7
object.own=true`},
		{"btf_load", func(e *env) *request.Request { return e.bpf(abi.BTFLoad, values{"btf_flags": abi.FTokenFD}) }, `token=true`},
	} {
		e := newEnv(t)
		q := c.make(e)
		needs := facts.All()
		for i := range facts.Table {
			// Each has a test of its own.
			if n := facts.Table[i].Name; strings.HasPrefix(n, "workload.") || strings.HasPrefix(n, "counts.") {
				needs = without(needs, i)
			}
		}
		i := &Inspector{CPUs: 2}
		f := i.Request(q, needs, &e.place)
		got := show(f)
		if f.Command != q.Row.Name {
			t.Errorf("%s: the command is %q", c.name, f.Command)
		}
		if f.Prog.Digest != "" {
			got = strings.Replace(got, f.Prog.Digest, "DIGEST", 1)
		}
		if got != c.want {
			t.Errorf("%s: got\n%s\nwanted\n%s", c.name, got, c.want)
		}
		// A fact that its command doesn't have would be seen by no policy.
		for j := range facts.Table {
			if fact := &facts.Table[j]; !fact.Has(f.Command) && (strings.Contains(got, fact.Name+"=") || strings.Contains(got, fact.Name+"? ")) {
				t.Errorf("%s has %s, says inspect, and facts.Table doesn't", f.Command, fact.Name)
			}
		}
		// What isn't asked for isn't found out.
		e.place.Asked = 0
		f = i.Request(q, facts.Set{}, &e.place)
		for j := range facts.Table {
			if fact := &facts.Table[j]; fact.Costs && strings.Contains(show(f), fact.Name+"=") && !free[fact.Name] {
				t.Errorf("%s: %s is found out, which nobody has asked for", c.name, fact.Name)
			}
		}
		if e.place.Asked != 0 {
			t.Errorf("%s: the place was asked %d times, for nothing", c.name, e.place.Asked)
		}
	}
}

// free are facts that sometimes cost something.
var free = map[string]bool{"perf_event.pid_own": true, "object.id": true}

func without(s facts.Set, i int) facts.Set {
	s[i/64] &^= 1 << (i % 64)
	return s
}

func TestCaller(t *testing.T) {
	e := newEnv(t)
	q := e.bpf(abi.MapFreeze, values{"map_fd": 1})
	i := &Inspector{Workload: facts.Workload{ID: "w", UID: 1000, Cgroup: "/w"}}
	var needs facts.Set
	for _, name := range []string{"workload.pid", "workload.comm", "workload.exe", "workload.argv", "counts.maps"} {
		needs.Add(name)
	}
	e.place.Process = &facts.Workload{PID: 3, Comm: "c", Exe: "/x", Argv: []string{"a", "b"}}
	e.place.Held = &facts.Counts{Maps: 4, Bytes: 5}
	f := i.Request(q, needs, &e.place)
	want := facts.Workload{ID: "w", UID: 1000, Cgroup: "/w", PID: 3, Comm: "c", Exe: "/x", Argv: []string{"a", "b"}}
	if fmt.Sprint(f.Workload) != fmt.Sprint(want) || f.Counts != *e.place.Held {
		t.Errorf("got %v, %v, wanted %v, %v", f.Workload, f.Counts, want, *e.place.Held)
	}
	e.place.Process, e.place.Held = nil, nil
	f = i.Request(q, needs, &e.place)
	for _, name := range []string{"workload.pid", "workload.comm", "workload.exe", "workload.argv", "counts.maps", "counts.bytes"} {
		if f.Unknown.Why(name) == "" {
			t.Errorf("%s is known", name)
		}
	}
	if f.Workload.UID != 1000 || f.Workload.PID != 0 {
		t.Errorf("the workload is %v", f.Workload)
	}
}

// Each field of the table that has a fact has one that there is, and of its command.
func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, row := range abi.Rows() {
		for i := range row.Fields {
			f := &row.Fields[i]
			if f.Fact == "" {
				continue
			}
			fact := facts.Find(f.Fact)
			if fact == nil {
				t.Errorf("%s.%s: facts.Table has no %q", row.Name, f.Name, f.Fact)
				continue
			}
			if !fact.Has(row.Name) {
				t.Errorf("%s.%s: facts.Table says that %s hasn't %s", row.Name, f.Name, row.Name, f.Fact)
			}
			seen[f.Fact] = true
		}
	}
	for i := range facts.Table {
		fact := &facts.Table[i]
		if !seen[fact.Name] && !computed[fact.Name] {
			t.Errorf("%s: no field of the table of the ABI is that fact; list it in computed, if it is more than a field", fact.Name)
		}
		if seen[fact.Name] && computed[fact.Name] {
			t.Errorf("%s: it is a field's", fact.Name)
		}
	}
	for name := range derived {
		if !seen[name] {
			t.Errorf("%s is derived from a field, and no field is that fact", name)
		}
	}
}

// computed are the facts that are no field of an attribute.
var computed = func() map[string]bool {
	m := map[string]bool{}
	for _, name := range []string{
		"command", "map.bytes", "token",
		"prog.sleepable", "prog.signed", "prog.helpers", "prog.kfuncs", "prog.kernel_stacks", "prog.map_types", "prog.map_ids", "prog.foreign_map_ids",
		"prog.target_kind", "prog.target_module", "prog.target_prog", "prog.target", "prog.digest",
		"attach.prog_id", "attach.prog_type", "attach.prog_own", "attach.cgroup", "attach.cgroup_inside",
		"attach.ifname", "attach.netns_own", "attach.map_own", "attach.file_shared", "attach.pid_own",
		"perf_event.pid_own", "perf_event.kernel_stacks", "perf_event.tracepoint", "perf_event.file_shared",
		"object.kind", "object.id", "object.own", "object.shared", "counts.maps", "counts.progs", "counts.links", "counts.bytes",
	} {
		m[name] = true
	}
	for i := range facts.Table {
		if strings.HasPrefix(facts.Table[i].Name, "workload.") {
			m[facts.Table[i].Name] = true
		}
	}
	return m
}()

func TestHelperNames(t *testing.T) {
	for id, want := range map[int32]string{1: "bpf_map_lookup_elem", 6: "bpf_trace_printk", 211: "bpf_cgrp_storage_delete", 0: "helper 0", -1: "helper -1", 212: "helper 212"} {
		if got := HelperName(id); got != want {
			t.Errorf("%d: got %q, wanted %q", id, got, want)
		}
	}
}

func TestMany(t *testing.T) {
	var insns []byte
	for i := range int32(100_000) {
		insns = append(insns, insn(call, 0, 0, 1000+i)...)
		insns = append(insns, insn(call, 2, 0, 1+i)...)
	}
	e := newEnv(t)
	e.place.Types = map[brokertest.Type]string{}
	for i := range uint32(100_000) {
		e.place.Types[brokertest.Type{BTF: -1, ID: i}] = fmt.Sprint("f", i)
	}
	q := e.bpf(abi.ProgLoad, values{"insns": e.AtEnd(insns), "insn_cnt": uint64(len(insns) / 8)})
	f := (&Inspector{}).Request(q, facts.All(), &e.place)
	if len(f.Prog.Helpers) != maxStrange || f.Unknown.Why("prog.helpers") == "" {
		t.Errorf("%d helpers; unknown: %q", len(f.Prog.Helpers), f.Unknown.Why("prog.helpers"))
	}
	if len(f.Prog.Kfuncs) != maxKfuncs || f.Unknown.Why("prog.kfuncs") == "" {
		t.Errorf("%d kfuncs; unknown: %q", len(f.Prog.Kfuncs), f.Unknown.Why("prog.kfuncs"))
	}
}

// Whatever a request is made of, its facts don't depend on the ones before, and nothing
// panics.
func FuzzRequest(f *testing.F) {
	brokertest.Seeds(func(command, size uint32, attr, mem []byte) { f.Add(command, attr, mem) })
	f.Fuzz(func(t *testing.T, command uint32, attr, mem []byte) {
		if len(attr) > abi.PageSize || len(mem) > 1<<20 {
			return
		}
		c := request.Call{Size: uint32(len(attr))}
		c.Syscall, c.Command = brokertest.CallOf(command)
		target, addr := brokertest.FuzzTarget(c.Row(), attr, mem)
		c.Addr = addr
		e := newEnv(t)
		q, errno := e.reader.Read(target, c)
		if errno != 0 {
			return
		}
		e.place.Infos = map[int][]byte{1: mem, 2: mem, 10: mem, 4: mem}
		var i Inspector
		all := show(i.Request(q, facts.All(), &e.place))
		i.Request(q, facts.Set{}, &e.place)
		if again := show(i.Request(q, facts.All(), &e.place)); again != all {
			t.Errorf("the second time\n%s\nafter\n%s", again, all)
		}
	})
}

func BenchmarkRequest(b *testing.B) {
	var insns []byte
	for i := range int32(2000) {
		if i%10 == 0 {
			insns = append(insns, insn(call, 0, 0, 1+i%200)...)
		} else {
			insns = append(insns, insn(0xb7, 0, 0, i)...)
		}
	}
	for _, c := range []struct {
		name string
		make func(e *env) *request.Request
	}{
		{"map_create", func(e *env) *request.Request {
			return e.bpf(abi.MapCreate, values{"map_type": 1, "key_size": 4, "value_size": 8, "max_entries": 1024, "map_flags": 1, "map_name": 'm'})
		}},
		{"prog_load", func(e *env) *request.Request {
			return e.bpf(abi.ProgLoad, values{"prog_type": 2, "insns": e.AtEnd(insns), "insn_cnt": uint64(len(insns) / 8), "license": e.str("GPL"), "prog_name": 'p'})
		}},
	} {
		for name, needs := range map[string]facts.Set{"none": {}, "all": facts.All()} {
			e := newEnv(b)
			e.place.Process, e.place.Held = &facts.Workload{}, &facts.Counts{}
			q := c.make(e)
			i := &Inspector{CPUs: 2}
			i.Request(q, needs, &e.place)
			b.Run(c.name+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					i.Request(q, needs, &e.place)
				}
			})
			if n := testing.AllocsPerRun(100, func() { i.Request(q, facts.Set{}, &e.place) }); n != 0 {
				b.Errorf("%s: %v allocations", c.name, n)
			}
		}
	}
}
