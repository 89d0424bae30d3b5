package e2e

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/cilium/ebpf/btf"

	"github.com/bpfbroker/bpfbroker/abi"
)

func progAttach(s *script) {
	c := s.cgroup()
	p := s.must(s.load("p", "cgroup_skb", ret1, nil), "program")
	q := s.must(s.load("q", "cgroup_skb", ret1, nil), "program")
	const ingress, multi, replace = 0, 2, 4
	s.do("attach", abi.ProgAttach, f{"target_fd": c, "attach_bpf_fd": p, "attach_type": ingress, "attach_flags": multi})
	s.do("attach again", abi.ProgAttach, f{"target_fd": c, "attach_bpf_fd": p, "attach_type": ingress, "attach_flags": multi})
	s.do("replace", abi.ProgAttach, f{"target_fd": c, "attach_bpf_fd": q, "replace_bpf_fd": p, "attach_type": ingress, "attach_flags": multi | replace})
	s.do("replace by nothing", abi.ProgAttach, f{"target_fd": c, "attach_bpf_fd": q, "replace_bpf_fd": 77, "attach_type": ingress, "attach_flags": multi | replace})
	s.do("detach what isn't there", abi.ProgDetach, f{"target_fd": c, "attach_bpf_fd": p, "attach_type": ingress})
	s.do("detach", abi.ProgDetach, f{"target_fd": c, "attach_bpf_fd": q, "attach_type": ingress})
	s.do("attach alone", abi.ProgAttach, f{"target_fd": c, "attach_bpf_fd": p, "attach_type": 1})
	s.do("detach any", abi.ProgDetach, f{"target_fd": c, "attach_type": 1})
	s.do("attach to stdout", abi.ProgAttach, f{"target_fd": 1, "attach_bpf_fd": p, "attach_type": ingress})
	s.do("attach to nothing", abi.ProgAttach, f{"target_fd": 77, "attach_bpf_fd": p, "attach_type": ingress})
	s.do("attach to a plain directory", abi.ProgAttach, f{"target_fd": s.openFile("/", syscall.O_RDONLY), "attach_bpf_fd": p, "attach_type": ingress})
	s.do("attach stdout", abi.ProgAttach, f{"target_fd": c, "attach_bpf_fd": 1, "attach_type": ingress})
	s.do("attach of another type", abi.ProgAttach, f{"target_fd": c, "attach_bpf_fd": p, "attach_type": attachType("cgroup_device")})
	dis := s.load("dis", "flow_dissector", ret1, nil)
	s.do("flow dissector", abi.ProgAttach, f{"attach_bpf_fd": dis, "attach_type": attachType("flow_dissector")})
	s.do("off again", abi.ProgDetach, f{"attach_bpf_fd": dis, "attach_type": attachType("flow_dissector")})
	sock := s.do("sockmap", abi.MapCreate, f{"map_type": mapType("sockmap"), "key_size": 4, "value_size": 4, "max_entries": 1})
	verdict := s.load("verdict", "sk_skb", ret1, f{"expected_attach_type": attachType("sk_skb_verdict")})
	s.do("attach to map", abi.ProgAttach, f{"target_fd": sock, "attach_bpf_fd": verdict, "attach_type": attachType("sk_skb_verdict")})
	s.do("detach from map", abi.ProgDetach, f{"target_fd": sock, "attach_bpf_fd": verdict, "attach_type": attachType("sk_skb_verdict")})
	tcx := s.load("tcx", "sched_cls", ret0, nil)
	const before = 8
	s.do("tcx", abi.ProgAttach, f{"target_ifindex": 1, "attach_bpf_fd": tcx, "attach_type": attachType("tcx_ingress")})
	other := s.load("tcx2", "sched_cls", ret0, nil)
	s.do("tcx before it", abi.ProgAttach, f{"target_ifindex": 1, "attach_bpf_fd": other, "attach_type": attachType("tcx_ingress"), "attach_flags": before, "relative_fd": tcx})
	s.do("tcx, revision", abi.ProgAttach, f{"target_ifindex": 1, "attach_bpf_fd": other, "attach_type": attachType("tcx_egress"), "expected_revision": 7})
	s.do("tcx, no interface", abi.ProgAttach, f{"target_ifindex": 99, "attach_bpf_fd": tcx, "attach_type": attachType("tcx_ingress")})
	s.do("tcx off", abi.ProgDetach, f{"target_ifindex": 1, "attach_bpf_fd": tcx, "attach_type": attachType("tcx_ingress")})
	s.do("tcx off again", abi.ProgDetach, f{"target_ifindex": 1, "attach_bpf_fd": tcx, "attach_type": attachType("tcx_ingress")})
	s.do("lirc on a map", abi.ProgAttach, f{"target_fd": sock, "attach_bpf_fd": tcx, "attach_type": attachType("lirc_mode2")})
}

func progQuery(s *script) {
	c := s.cgroup()
	p := s.must(s.load("p", "cgroup_skb", ret1, nil), "program")
	q := s.must(s.load("q", "cgroup_skb", ret1, nil), "program")
	s.do("empty", abi.ProgQuery, f{"target_fd": c})
	for _, fd := range []int{p, q} {
		s.do("attach", abi.ProgAttach, f{"target_fd": c, "attach_bpf_fd": fd, "attach_type": 0, "attach_flags": 2})
	}
	s.do("count", abi.ProgQuery, f{"target_fd": c})
	s.do("ids", abi.ProgQuery, f{"target_fd": c, "prog_ids": s.idList(abi.Prog, 8), "count": 8})
	s.do("ids and flags", abi.ProgQuery, f{"target_fd": c, "prog_ids": s.idList(abi.Prog, 8), "count": 8, "prog_attach_flags": s.out(32)})
	s.do("no room", abi.ProgQuery, f{"target_fd": c, "prog_ids": s.idList(abi.Prog, 8), "count": 1})
	s.do("faults", abi.ProgQuery, f{"target_fd": c, "prog_ids": 4096, "count": 8})
	s.do("huge count", abi.ProgQuery, f{"target_fd": c, "prog_ids": s.idList(abi.Prog, 8), "count": uint64(0xffffffff)})
	s.do("effective", abi.ProgQuery, f{"target_fd": c, "query_flags": 1, "prog_ids": s.idList(abi.Prog, 8), "count": 8})
	s.do("bad flags", abi.ProgQuery, f{"target_fd": c, "query_flags": 2})
	s.do("of stdout", abi.ProgQuery, f{"target_fd": 1})
	s.sized("short attribute", abi.ProgQuery, 28, f{"target_fd": c, "prog_ids": s.idList(abi.Prog, 8), "count": 8})
	tcx := s.load("tcx", "sched_cls", ret0, nil)
	link := s.do("tcx link", abi.LinkCreate, f{"prog_fd": tcx, "target_ifindex": 1, "attach_type": attachType("tcx_ingress")})
	query := f{"target_ifindex": 1, "attach_type": attachType("tcx_ingress")}
	s.do("tcx count", abi.ProgQuery, query)
	query["count"], query["prog_ids"], query["link_ids"] = 4, s.idList(abi.Prog, 4), s.idList(abi.Link, 4)
	query["prog_attach_flags"], query["link_attach_flags"] = s.out(16), s.out(16)
	s.do("tcx", abi.ProgQuery, query)
	s.do("tcx, no interface", abi.ProgQuery, f{"target_ifindex": 99, "attach_type": attachType("tcx_ingress")})
	syscall.Close(link)
	ns := s.openFile("/proc/self/ns/net", syscall.O_RDONLY)
	s.do("flow dissector", abi.ProgQuery, f{"target_fd": ns, "attach_type": attachType("flow_dissector")})
	s.do("sk_lookup", abi.ProgQuery, f{"target_fd": ns, "attach_type": attachType("sk_lookup"), "count": 4, "prog_ids": s.idList(abi.Prog, 4)})
}

func rawTracepoint(s *script) {
	p := s.must(s.load("p", "raw_tracepoint", ret0, nil), "program")
	s.do("open", abi.RawTPOpen, f{"name": "sys_enter", "prog_fd": p})
	s.do("open with cookie", abi.RawTPOpen, f{"name": "sys_enter", "prog_fd": p, "cookie": uint64(0x1122334455667788)})
	s.do("no such tracepoint", abi.RawTPOpen, f{"name": "no_such_thing", "prog_fd": p})
	s.do("long name", abi.RawTPOpen, f{"name": strings.Repeat("x", 200), "prog_fd": p})
	s.do("no name", abi.RawTPOpen, f{"prog_fd": p})
	s.do("faulting name", abi.RawTPOpen, f{"name": 4096, "prog_fd": p})
	s.do("stdout", abi.RawTPOpen, f{"name": "sys_enter", "prog_fd": 1})
	s.do("nothing", abi.RawTPOpen, f{"name": "sys_enter", "prog_fd": 77})
	s.do("of another type", abi.RawTPOpen, f{"name": "sys_enter", "prog_fd": s.filterProg("f")})
	if id := s.kernelType("btf_trace_sys_enter", (*btf.Typedef)(nil)); id != 0 {
		tp := s.load("tp", "tracing", ret0, f{"expected_attach_type": attachType("trace_raw_tp"), "attach_btf_id": id})
		s.do("by btf", abi.RawTPOpen, f{"prog_fd": tp})
		s.do("by btf, with name", abi.RawTPOpen, f{"prog_fd": tp, "name": "sys_enter"})
	}
}

// kernelType is the id of a type of the kernel's BTF.
func (s *script) kernelType(name string, want btf.Type) int {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		s.note("kernel BTF: %v", err)
		return 0
	}
	types, err := spec.AnyTypesByName(name)
	if err != nil {
		s.note("kernel type %s: %v", name, err)
		return 0
	}
	for _, t := range types {
		if fmt.Sprintf("%T", t) == fmt.Sprintf("%T", want) {
			id, err := spec.TypeID(t)
			if err == nil {
				return int(id)
			}
		}
	}
	s.note("kernel type %s: none fits", name)
	return 0
}

func taskFDQuery(s *script) {
	l := s.rawLink()
	own := os.Getpid()
	s.do("own link", abi.TaskFDQuery, f{"pid": own, "fd": l, "buf": s.out(64).text(), "buf_len": 64})
	s.do("without buffer", abi.TaskFDQuery, f{"pid": own, "fd": l})
	s.do("no room", abi.TaskFDQuery, f{"pid": own, "fd": l, "buf": s.out(64).text(), "buf_len": 4})
	s.do("faults", abi.TaskFDQuery, f{"pid": own, "fd": l, "buf": 4096, "buf_len": 64})
	s.do("huge length", abi.TaskFDQuery, f{"pid": own, "fd": l, "buf": s.out(64).text(), "buf_len": 1 << 30})
	s.do("stdout", abi.TaskFDQuery, f{"pid": own, "fd": 1, "buf": s.out(64).text(), "buf_len": 64})
	s.do("nothing", abi.TaskFDQuery, f{"pid": own, "fd": 77, "buf": s.out(64).text(), "buf_len": 64})
	s.do("nobody", abi.TaskFDQuery, f{"pid": 4194303, "fd": l})
	s.do("pid 0", abi.TaskFDQuery, f{"pid": 0, "fd": l})
	s.do("flags", abi.TaskFDQuery, f{"pid": own, "fd": l, "flags": 1})
}

func linkCreate(s *script) {
	create := func(label string, prog int, attach string, kind string, more f) int {
		fields := f{"prog_fd": prog, "attach_type": attachType(attach)}
		for k, v := range more {
			fields[k] = v
		}
		l := s.do(label, abi.LinkCreate, fields)
		if l >= 0 {
			s.info("info of "+label, l, abi.Link, nil)
		}
		return l
	}
	c := s.cgroup()
	skb := s.load("skb", "cgroup_skb", ret1, nil)
	first := create("cgroup", skb, "cgroup_inet_egress", "cgroup", f{"target_fd": c})
	create("cgroup, before", s.load("skb2", "cgroup_skb", ret1, nil), "cgroup_inet_egress", "", f{"target_fd": c, "flags": 8 | 1<<13, "cgroup.relative_fd": first})
	create("cgroup, no fd", skb, "cgroup_inet_egress", "", f{"target_fd": 77})
	create("cgroup, a map", skb, "cgroup_inet_egress", "", f{"target_fd": s.hashMap("m")})
	xdp := s.load("xdp", "xdp", prog(movR0(2), exit), nil)
	x := create("xdp on lo", xdp, "xdp", "xdp", f{"target_ifindex": 1, "flags": 2})
	create("xdp twice", xdp, "xdp", "xdp", f{"target_ifindex": 1, "flags": 2})
	create("xdp on nothing", xdp, "xdp", "xdp", f{"target_ifindex": 99})
	syscall.Close(x)
	if i, err := net.InterfaceByName("lo"); err != nil || i.Index != 1 {
		s.note("lo: %v", err)
	}
	cls := s.load("cls", "sched_cls", ret0, nil)
	tcx := create("tcx", cls, "tcx_egress", "tcx", f{"target_ifindex": 1})
	create("tcx, relative", s.load("cls2", "sched_cls", ret0, nil), "tcx_egress", "", f{"target_ifindex": 1, "flags": 16 | 1<<13, "tcx.relative_fd": tcx})
	create("tcx, relative id", s.load("cls3", "sched_cls", ret0, nil), "tcx_egress", "", f{"target_ifindex": 1, "flags": 16 | 1<<13 | 1<<5, "tcx.relative_id": uint64(s.idOf(tcx, abi.Link))})
	create("netkit on lo", cls, "netkit_primary", "", f{"target_ifindex": 1})
	nf := s.load("nf", "netfilter", ret1, f{"expected_attach_type": attachType("netfilter")})
	create("netfilter", nf, "netfilter", "netfilter", f{"netfilter.pf": 2, "netfilter.hooknum": 1, "netfilter.priority": uint64(0xfffffff6)})
	create("netfilter, bad hook", nf, "netfilter", "", f{"netfilter.pf": 2, "netfilter.hooknum": 77})
	ns := s.openFile("/proc/self/ns/net", syscall.O_RDONLY)
	look := s.load("look", "sk_lookup", ret1, f{"expected_attach_type": attachType("sk_lookup")})
	create("sk_lookup", look, "sk_lookup", "netns", f{"target_fd": ns})
	create("sk_lookup on a cgroup", look, "sk_lookup", "netns", f{"target_fd": c})
	if id := s.kernelType("btf_trace_sys_enter", (*btf.Typedef)(nil)); id != 0 {
		tp := s.load("tp", "tracing", ret0, f{"expected_attach_type": attachType("trace_raw_tp"), "attach_btf_id": id})
		create("tp_btf", tp, "trace_raw_tp", "tracing", f{"tracing.cookie": 99})
	}
	up := s.load("up", "kprobe", ret0, f{"expected_attach_type": attachType("trace_uprobe_multi")})
	exe := fmt.Sprintf("/proc/%d/exe", os.Getpid())
	offsets := []byte{0x40, 0x12, 0, 0, 0, 0, 0, 0, 0x80, 0x12, 0, 0, 0, 0, 0, 0}
	multi := func(label string, more f) {
		fields := f{"uprobe_multi.path": "/bin/true", "uprobe_multi.offsets": offsets, "uprobe_multi.cnt": 2}
		for k, v := range more {
			fields[k] = v
		}
		l := create(label, up, "trace_uprobe_multi", "uprobe_multi", fields)
		if l < 0 {
			return
		}
		s.info("all of "+label, l, abi.Link, f{
			"uprobe_multi.path": s.out(64).text(), "uprobe_multi.path_size": 64, "uprobe_multi.count": 2,
			"uprobe_multi.offsets": s.out(16), "uprobe_multi.cookies": s.out(16), "uprobe_multi.ref_ctr_offsets": s.out(16)})
		syscall.Close(l)
	}
	multi("uprobe_multi", nil)
	multi("uprobe_multi with cookies", f{"uprobe_multi.cookies": offsets})
	multi("uprobe_multi for this process", f{"uprobe_multi.pid": os.Getpid()})
	multi("uprobe_multi for nobody", f{"uprobe_multi.pid": 4194303})
	multi("uprobe_multi through proc", f{"uprobe_multi.path": exe})
	multi("uprobe_multi, no file", f{"uprobe_multi.path": "/no/such/file"})
	multi("uprobe_multi, a directory", f{"uprobe_multi.path": "/bin"})
	multi("uprobe_multi, no path", f{"uprobe_multi.path": 0})
	multi("uprobe_multi, path faults", f{"uprobe_multi.path": 4096})
	multi("uprobe_multi, offsets fault", f{"uprobe_multi.offsets": 4096})
	multi("uprobe_multi, too many", f{"uprobe_multi.cnt": 1 << 21})
	multi("uprobe_multi, none", f{"uprobe_multi.cnt": 0})
	multi("uprobe_multi, flags", f{"uprobe_multi.flags": 1})
	multi("uprobe_multi, bad flags", f{"uprobe_multi.flags": 2})
	kp := s.load("kp", "kprobe", ret0, f{"expected_attach_type": attachType("trace_kprobe_multi")})
	syms := s.pointers("vfs_read", "vfs_write")
	create("kprobe_multi", kp, "trace_kprobe_multi", "kprobe_multi", f{"kprobe_multi.syms": syms, "kprobe_multi.cnt": 2})
	create("kprobe_multi, no symbol", kp, "trace_kprobe_multi", "", f{"kprobe_multi.syms": s.pointers("no_such_symbol"), "kprobe_multi.cnt": 1})
	create("kprobe_multi, long symbol", kp, "trace_kprobe_multi", "", f{"kprobe_multi.syms": s.pointers(strings.Repeat("x", 600)), "kprobe_multi.cnt": 1})
	create("kprobe_multi, faults", kp, "trace_kprobe_multi", "", f{"kprobe_multi.syms": make([]byte, 8), "kprobe_multi.cnt": 1})
	create("perf event on a map", s.load("pe", "perf_event", ret0, nil), "perf_event", "", f{"target_fd": s.hashMap("m2")})
	create("struct_ops of a hash", s.hashMap("m3"), "struct_ops", "", nil)
	sock := s.do("sockmap", abi.MapCreate, f{"map_type": mapType("sockmap"), "key_size": 4, "value_size": 4, "max_entries": 1})
	verdict := s.load("verdict", "sk_skb", ret1, f{"expected_attach_type": attachType("sk_skb_verdict")})
	create("sockmap link", verdict, "sk_skb_verdict", "sockmap", f{"target_fd": sock})
	create("program is stdout", 1, "cgroup_inet_egress", "", f{"target_fd": c})
	create("program is nothing", 77, "cgroup_inet_egress", "", f{"target_fd": c})
}

// pointers is an array of pointers to strings.
func (s *script) pointers(texts ...string) []byte {
	l := &abi.RowOf(abi.RawTPOpen).Layout // its name is a pointer at offset 0
	var out []byte
	for _, t := range texts {
		one := make([]byte, abi.AttrSize)
		s.put(l, one, f{"name": t})
		out = append(out, one[:8]...)
	}
	return out
}

func linkUpdate(s *script) {
	c := s.cgroup()
	p := s.must(s.load("p", "cgroup_skb", ret1, nil), "program")
	q := s.must(s.load("q", "cgroup_skb", ret1, nil), "program")
	l := s.must(s.do("link", abi.LinkCreate, f{"prog_fd": p, "target_fd": c, "attach_type": 0}), "link")
	s.do("update", abi.LinkUpdate, f{"link_fd": l, "new_prog_fd": q})
	s.do("update, the old one is another", abi.LinkUpdate, f{"link_fd": l, "new_prog_fd": p, "old_prog_fd": p, "flags": 4})
	s.do("update, the old one given", abi.LinkUpdate, f{"link_fd": l, "new_prog_fd": p, "old_prog_fd": q, "flags": 4})
	s.do("old without flag", abi.LinkUpdate, f{"link_fd": l, "new_prog_fd": p, "old_prog_fd": q})
	s.do("update by nothing", abi.LinkUpdate, f{"link_fd": l, "new_prog_fd": 77})
	s.do("update by stdout", abi.LinkUpdate, f{"link_fd": l, "new_prog_fd": 1})
	s.do("update stdout", abi.LinkUpdate, f{"link_fd": 1, "new_prog_fd": p})
	s.do("update a program", abi.LinkUpdate, f{"link_fd": p, "new_prog_fd": q})
	s.do("bad flags", abi.LinkUpdate, f{"link_fd": l, "new_prog_fd": q, "flags": 1})
	s.info("info", l, abi.Link, nil)
	s.do("detach", abi.LinkDetach, f{"link_fd": l})
	s.do("detach again", abi.LinkDetach, f{"link_fd": l})
	s.info("info after", l, abi.Link, nil)
	s.do("update after", abi.LinkUpdate, f{"link_fd": l, "new_prog_fd": q})
	s.do("detach stdout", abi.LinkDetach, f{"link_fd": 1})
	s.do("detach raw tracepoint", abi.LinkDetach, f{"link_fd": s.rawLink()})
}

func iterCreate(s *script) {
	m := s.hashMap("m")
	s.do("update", 2, f{"map_fd": m, "key": []byte{1, 0, 0, 0}, "value": []byte("12345678")})
	iter := func(target string) int {
		id := s.kernelType("bpf_iter_"+target, (*btf.Func)(nil))
		return s.load("iter", "tracing", ret0, f{"expected_attach_type": attachType("trace_iter"), "attach_btf_id": id})
	}
	link := func(label string, p int, info []byte) {
		fields := f{"prog_fd": p, "attach_type": attachType("trace_iter")}
		if info != nil {
			fields["iter_info"], fields["iter_info_len"] = info, len(info)
		}
		l := s.do(label, abi.LinkCreate, fields)
		if l < 0 {
			return
		}
		s.info("info", l, abi.Link, f{"iter.target_name": s.out(16).text(), "iter.target_name_len": 16})
		it := s.do("iterator", abi.IterCreate, f{"link_fd": l})
		n, err := syscall.Read(it, make([]byte, 64))
		s.note("read: %d %v", n, err)
	}
	elems := iter("bpf_map_elem")
	link("map elements", elems, words(uint32(m)))
	link("map elements, more bytes", elems, words(uint32(m), 0, 0, 0))
	link("map elements of nothing", elems, words(77))
	link("map elements of stdout", elems, words(1))
	link("map elements without a map", elems, nil)
	tasks := iter("task")
	own := uint32(os.Getpid())
	link("tasks", tasks, nil)
	link("one task", tasks, words(own, 0, 0, 0))
	link("one process", tasks, words(0, own, 0, 0))
	link("two", tasks, words(own, own, 0, 0))
	r, _, e := syscall.RawSyscall(434, uintptr(own), 0, 0) // pidfd_open
	s.note("pidfd: %v", e == 0)
	link("by pidfd", tasks, words(0, 0, uint32(r), 0))
	link("by no pidfd", tasks, words(0, 0, 77, 0))
	for size := 8; size < 12; size++ { // the number of an fd given in part
		link(fmt.Sprint("by part of a pidfd, ", size), tasks, words(0, 0, 1002)[:size])
	}
	link("too long", tasks, bytes.Repeat([]byte{0}, 64))
	link("too long, not zero", tasks, bytes.Repeat([]byte{1}, 64))
	link("huge", tasks, make([]byte, 5000))
	cg := iter("cgroup")
	link("cgroups", cg, words(1, uint32(s.cgroup()), 0, 0))
	link("cgroups of the namespace", cg, words(1, 0, 0, 0))
	link("cgroups without order", cg, words(0, uint32(s.cgroup()), 0, 0))
	link("cgroups of stdout", cg, words(1, 1, 0, 0))
	s.do("no link", abi.IterCreate, f{"link_fd": m})
}
