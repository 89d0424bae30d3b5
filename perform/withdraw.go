package perform

import (
	"fmt"
	"strings"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// What a workload has attached is taken away from outside, as the host: by links, to
// cgroups, interfaces, network namespaces, sockmaps, and struct_ops.

// Withdrawn is what came of it.
type Withdrawn struct {
	Links    int // that were detached
	Attached int // programs attached without a link that were detached, and struct_ops maps
	// Left are links that the kernel detaches only when nobody holds them: "raw_tracepoint
	// link 7".
	Left []string
}

// Withdraw detaches the links of a workload's objects, and its struct_ops maps and
// programs on sockmaps.
func Withdraw(o Objects) (w Withdrawn) {
	p := &Performer{objects: o}
	for _, id := range Living(abi.Link) {
		fd, e := openByID(abi.Link, id)
		if e != 0 {
			continue // it is gone
		}
		if p.ownLink(fd) {
			w.link(fd, id)
		}
		sys.Close(fd)
	}
	for id := o.Next(abi.Map, 0); id != 0; id = o.Next(abi.Map, id) {
		fd, e := openByID(abi.Map, id)
		if e != 0 {
			continue
		}
		w.ownMap(fd, o)
		sys.Close(fd)
	}
	return w
}

// link detaches the link at fd.
func (w *Withdrawn) link(fd int, id uint32) {
	c := own(abi.LinkDetach)
	c.put("link_fd", uint64(fd))
	if _, e := c.do(); e == 0 {
		w.Links++
		return
	}
	kind := "link"
	info := make([]byte, abi.LinkInfo.Size)
	if ObjectInfo(fd, info) == 0 {
		kind = abi.LinkTypes.Name(abi.LinkInfo.Field("type").Uint(info)) + " link"
	}
	w.Left = append(w.Left, fmt.Sprintf("%s %d", kind, id))
}

// ownMap takes a map of the workload's out of use, if it is of a type that is used by
// others than who holds it.
func (w *Withdrawn) ownMap(fd int, o Objects) {
	info := make([]byte, abi.MapInfo.Size)
	if ObjectInfo(fd, info) != 0 {
		return
	}
	switch abi.MapTypes.Name(abi.MapInfo.Field("type").Uint(info)) {
	case "struct_ops":
		if DeleteElem(fd, make([]byte, 4)) == 0 { // fails if it isn't registered, or by a link
			w.Attached++
		}
	case "sockmap", "sockhash":
		for _, name := range []string{"sk_skb_stream_parser", "sk_skb_stream_verdict", "sk_skb_verdict", "sk_msg_verdict"} {
			w.From(Point{FD: fd, Type: name}, o)
		}
	}
}

// Point is where programs are attached.
type Point struct {
	FD      int    // of a cgroup, network namespace or map
	Ifindex uint32 // or an interface of the calling thread's network namespace
	Type    string // attach type: "cgroup_device"
}

// From detaches the workload's programs from a point, where they were attached without
// a link.
func (w *Withdrawn) From(at Point, o Objects) {
	t, ok := abi.AttachTypes.Value(at.Type)
	if !ok {
		panic("no attach type " + at.Type)
	}
	set := func(c *ownCall) *ownCall {
		c.put("attach_type", t)
		if at.Ifindex != 0 {
			c.put("target_ifindex", uint64(at.Ifindex))
		} else {
			c.put("target_fd", uint64(at.FD))
		}
		return c
	}
	ids := make([]byte, 4*maxAttached)
	q := set(own(abi.ProgQuery))
	q.point("prog_ids", ids)
	q.put("count", maxAttached)
	if _, e := q.do(); e != 0 {
		return // nothing is attached there, or can be
	}
	for i := range min(int(q.row.Field("count").Uint(q.attr)), maxAttached) {
		id := uint32(abi.Uint(ids, uint32(4*i), 4))
		if !o.Owns(abi.Prog, id) {
			continue
		}
		fd, e := openByID(abi.Prog, id)
		if e != 0 {
			continue
		}
		d := set(own(abi.ProgDetach))
		d.put("attach_bpf_fd", uint64(fd))
		if _, e := d.do(); e == 0 { // fails for one that is there by a link
			w.Attached++
		}
		sys.Close(fd)
	}
}

// FromCgroup is From for all that can be attached to the cgroup whose directory is fd.
func (w *Withdrawn) FromCgroup(fd int, o Objects) {
	for t := range abi.AttachTypes.Names {
		if name := abi.AttachTypes.Name(uint64(t)); strings.HasPrefix(name, "cgroup_") || name == "lsm_cgroup" {
			w.From(Point{FD: fd, Type: name}, o)
		}
	}
}

// FromNetNS is From for a network namespace, which is open at fd and the calling
// thread's, and these interfaces of it.
func (w *Withdrawn) FromNetNS(fd int, interfaces []uint32, o Objects) {
	w.From(Point{FD: fd, Type: "flow_dissector"}, o)
	for _, i := range interfaces {
		for _, name := range []string{"tcx_ingress", "tcx_egress", "netkit_primary", "netkit_peer"} {
			w.From(Point{Ifindex: i, Type: name}, o)
		}
	}
}
