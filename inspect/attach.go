package inspect

import (
	"fmt"
	"slices"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/request"
)

// attach finds out what a program is attached to, by any of the calls that do it.
func (i *Inspector) attach() {
	q := i.q
	switch q.Command {
	case abi.ProgAttach, abi.ProgDetach, abi.ProgQuery, abi.LinkCreate:
		i.attachPoint()
		i.netfilter()
		i.multi()
	case abi.RawTPOpen, abi.LinkUpdate, abi.LinkDetach, abi.IterCreate:
	default:
		if q.Syscall != abi.SyscallPerfSetBPF {
			return
		}
	}
	if i.needs.Any("attach.prog") {
		i.attachedProg()
	}
}

// progFields are the fields that name the program, in the order in which they are looked
// for.
var progFields = [...]string{"attach_bpf_fd", "prog_fd", "new_prog_fd"}

// attachedProg finds out which program it is: of a link that is there already, that of
// the link.
func (i *Inspector) attachedProg() {
	q, a := i.q, &i.f.Attach
	unknown := func(err error) {
		for _, fact := range []string{"attach.prog_id", "attach.prog_type", "attach.prog_own"} {
			i.unknown(fact, err.Error())
		}
	}
	for _, name := range progFields {
		f := q.Row.Field(name)
		if f == nil || !f.Live(q.Attr) {
			continue
		}
		n := int(int32(f.Uint(q.Attr)))
		if f.ZeroIsNone && n == 0 {
			return // none is named
		}
		if file := q.File(n); file == nil || file.Kind&abi.Prog == 0 {
			return // of a struct_ops it is a map; else none, which the kernel refuses
		}
		if err := i.ask(n, "id", &abi.ProgInfo); err != nil {
			unknown(err)
			return
		}
		typ := abi.ProgInfo.Field("type")
		a.ProgID, a.ProgType = id32(abi.ProgInfo.Field("id").Uint(i.info[:])), typ.Values.Name(typ.Uint(i.info[:]))
		i.progOwn()
		return
	}
	if f := q.Row.Field("link_fd"); f != nil {
		n := int(int32(f.Uint(q.Attr)))
		if err := i.is(n, abi.Link); err != nil {
			unknown(err)
			return
		}
		if err := i.ask(n, "prog_id", &abi.LinkInfo); err != nil {
			unknown(err)
			return
		}
		if a.ProgID = id32(abi.LinkInfo.Field("prog_id").Uint(i.info[:])); a.ProgID != 0 {
			i.unknown("attach.prog_type", "the program is known by its link alone")
			i.progOwn()
		}
	}
}

// progOwn finds out whether the program is the workload's, and the one whose place it takes:
// that may be what confines the workload.
func (i *Inspector) progOwn() {
	if !i.wants("attach.prog_own") {
		return
	}
	own, _, err := i.at.Owns(abi.Prog, uint32(i.f.Attach.ProgID))
	if f := i.q.Row.Field("replace_bpf_fd"); own && err == nil && f != nil && f.Live(i.q.Attr) {
		own, err = i.ownFD(abi.Prog, int(int32(f.Uint(i.q.Attr))))
	}
	i.found("attach.prog_own", err)
	i.f.Attach.ProgOwn = own && err == nil
}

// ownFD says whether the object at fd n is the workload's. One of another kind, which the
// kernel refuses, is not.
func (i *Inspector) ownFD(kind abi.Object, n int) (bool, error) {
	if file := i.q.File(n); file == nil || file.Kind&kind == 0 {
		return false, nil
	}
	l := abi.InfoLayout(kind)
	if err := i.ask(n, "id", l); err != nil {
		return false, err
	}
	own, _, err := i.at.Owns(kind, uint32(l.Field("id").Uint(i.info[:])))
	return own, err
}

// attachPoint finds out what a cgroup, an interface, a network namespace, a sockmap is.
func (i *Inspector) attachPoint() {
	q, a := i.q, &i.f.Attach
	netns := false // it is in the caller's network namespace
	if f := q.Row.Field("target_ifindex"); f.Live(q.Attr) {
		netns = true
		if i.wants("attach.ifname") {
			name, err := i.at.Ifname(uint32(f.Uint(q.Attr)))
			i.found("attach.ifname", err)
			a.Ifname = name
		}
	}
	netns = netns || len(q.Row.Net) > 0 && abi.Holds(q.Row.Net, q.Attr)
	if netns {
		i.netNSOwn(CallersNetNS)
	}
	if f := q.Row.Field("target_fd"); f.Live(q.Attr) {
		n := int(int32(f.Uint(q.Attr)))
		switch file := q.File(n); {
		case file == nil:
		case file.Kind&abi.Cgroup != 0:
			i.cgroup(n)
		case file.Kind&abi.Netns != 0 && !netns:
			i.netNSOwn(n)
		case file.Kind&abi.Map != 0 && i.wants("attach.map_own"):
			own, err := i.ownFD(abi.Map, n)
			i.found("attach.map_own", err)
			a.MapOwn = own && err == nil
		}
	}
	i.iterator()
}

func (i *Inspector) netNSOwn(n int) {
	if i.wants("attach.netns_own") {
		own, err := i.at.NetNSOwn(n)
		i.found("attach.netns_own", err)
		i.f.Attach.NetnsOwn = own && err == nil
	}
}

func (i *Inspector) cgroup(n int) {
	a := &i.f.Attach
	var err error
	if i.wants("attach.cgroup") {
		a.Cgroup, err = i.at.CgroupPath(n)
		i.found("attach.cgroup", err)
	}
	if i.wants("attach.cgroup_inside") {
		inside, err := i.at.CgroupInside(n)
		i.found("attach.cgroup_inside", err)
		a.CgroupInside = inside && err == nil
	}
}

// iterator looks whether an iterator begins at a cgroup that is named by its directory.
func (i *Inspector) iterator() {
	b := i.q.Buffer("iter_info")
	if b == nil || b.Fault {
		return
	}
	fd := abi.IterLinkInfo.Field("cgroup.cgroup_fd")
	if int(fd.Offset+fd.Size) > len(b.Data) {
		return
	}
	n := int(int32(fd.Uint(b.Data)))
	if f := i.q.File(n); n != 0 && f != nil && f.Kind&abi.Cgroup != 0 {
		i.cgroup(n)
	}
}

// Of netfilter: include/uapi/linux/netfilter.h, NFPROTO_… and enum nf_inet_hooks.
var (
	protocols = map[uint64]string{2: "ipv4", 10: "ipv6"}
	hooks     = [...]string{"prerouting", "input", "forward", "output", "postrouting"}
)

func (i *Inspector) netfilter() {
	q, a := i.q, &i.f.Attach
	pf := q.Row.Field("netfilter.pf")
	if pf == nil || !pf.Live(q.Attr) {
		return
	}
	n := pf.Uint(q.Attr)
	if a.Protocol = protocols[n]; a.Protocol == "" {
		a.Protocol = fmt.Sprintf("%d /* protocol? */", n)
	}
	if n = q.Field("netfilter.hooknum"); n < uint64(len(hooks)) {
		a.Hook = hooks[n]
	} else {
		a.Hook = fmt.Sprintf("%d /* hook? */", n)
	}
}

// maxList is how long a list of functions or offsets may be. Of a longer one nothing is
// known: a part would say the wrong thing.
const maxList = 4096

// multi looks at what a kprobe_multi or uprobe_multi names.
func (i *Inspector) multi() {
	q, a := i.q, &i.f.Attach
	if f := q.Row.Field("kprobe_multi.cnt"); f != nil && f.Live(q.Attr) {
		i.symbols(int(min(f.Uint(q.Attr), maxList+1)))
	}
	if f := q.Row.Field("uprobe_multi.path"); f == nil || !f.Live(q.Attr) {
		return
	}
	if count := q.Field("uprobe_multi.cnt"); count > maxList {
		i.unknown("attach.offsets", fmt.Sprintf("there are more than %d", maxList))
	} else if b := q.Buffer("uprobe_multi.offsets"); b != nil && b.Fault {
		i.unknown("attach.offsets", "they can't be read")
	} else if b != nil {
		i.offsets = i.offsets[:0]
		for o := uint32(0); int(o)+8 <= len(b.Data); o += 8 {
			i.offsets = append(i.offsets, clamped(abi.Uint(b.Data, o, 8)))
		}
		a.Offsets = i.offsets
	}
	a.File, a.FileShared = i.file("uprobe_multi.path", "attach.file", "attach.file_shared")
	if i.wants("attach.pid_own") && a.PID > 0 {
		own, err := i.at.PIDOwn(uint32(a.PID))
		i.found("attach.pid_own", err)
		a.PIDOwn = own && err == nil
	}
}

// symbols lists the functions of a kprobe_multi.
func (i *Inspector) symbols(count int) {
	const fact = "attach.functions"
	q := i.q
	array := slices.IndexFunc(q.Buffers, func(b request.Buffer) bool {
		return b.Parent == request.NoParent && b.Field.Name == "kprobe_multi.syms"
	})
	switch {
	case count > maxList:
		i.unknown(fact, fmt.Sprintf("there are more than %d", maxList))
		return
	case array < 0:
		i.unknown(fact, "they are named by their addresses")
		return
	}
	i.functions = i.functions[:0]
	for j := range q.Buffers {
		if b := &q.Buffers[j]; b.Parent == array && !b.Fault {
			i.functions = append(i.functions, i.text(b.Data))
		}
	}
	if len(i.functions) != count {
		i.unknown(fact, "their names can't be read")
	}
	i.f.Attach.Functions = i.functions
}

// file finds out what file a path leads to, as far as that is asked for.
func (i *Inspector) file(field, nameFact, sharedFact string) (name string, shared bool) {
	if !i.wants(nameFact) && !i.wants(sharedFact) {
		return "", false
	}
	b := i.q.Buffer(field)
	if b == nil || b.Fault || len(b.Data) < 2 || b.Data[len(b.Data)-1] != 0 {
		i.unknown(nameFact, "there is no path that can be read")
		i.unknown(sharedFact, "there is no path that can be read")
		return "", true
	}
	path := b.Data[:len(b.Data)-1]
	if i.wants(nameFact) {
		var err error
		name, err = i.at.FileName(path)
		i.found(nameFact, err)
	}
	if i.wants(sharedFact) {
		is, err := i.at.FileShared(path)
		i.found(sharedFact, err)
		shared = is || err != nil
	}
	return name, shared
}
