package perform

import (
	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/request"
)

// A call with an effect (abi.Row.Effect) must neither happen twice nor be lost if
// its performer is killed. So the state of what it changes is noted before it is
// made. The next performer looks at the state again: if it is as the call leaves it,
// the call has happened; if it is as it was, the call is made now. Where no state can
// be told, the call is made again.

// unknown is a state that can't be told.
const unknown = ^uint64(0)

// effect makes a call that has one.
func (p *Performer) effect(q *request.Request, r *Result, at Place, log Log, redo *Redo) {
	switch {
	case redo == nil:
		log.Performing(p.state(q, r, at))
		r.Value, r.Errno = p.call(q, r)
	case p.pathErr == 0 && p.happened(q, r, at, redo.Before):
		r.Value, r.Errno = 0, 0
	default:
		r.Value, r.Errno = p.call(q, r)
		if q.Command == abi.MapFreeze && r.Errno == sys.EBUSY {
			r.Value, r.Errno = 0, 0 // nothing tells whether it was frozen before
		}
	}
	p.explain(r)
	log.Performed(r.Value, r.Errno)
}

// state is what the call is about to change, as far as it matters.
func (p *Performer) state(q *request.Request, r *Result, at Place) uint64 {
	if q.Syscall == abi.SyscallPerfSetBPF {
		return p.programOf(q, at)
	}
	switch q.Command {
	case abi.ObjPin: // is the name taken?
		if path := pinPath(q, r); path != nil && sys.PathExists(path) {
			return 1
		}
		return 0
	case abi.LinkUpdate, abi.LinkDetach: // of what is the link?
		return linked(int(q.Field("link_fd")))
	case abi.ProgAttach, abi.ProgDetach: // is the program there? Or how many are?
		return p.attached(q, at)
	}
	return unknown
}

// happened says whether a call did its work, which it found the state before at.
func (p *Performer) happened(q *request.Request, r *Result, at Place, before uint64) bool {
	if before == unknown {
		return false
	}
	if q.Syscall == abi.SyscallPerfSetBPF { // an event takes one program, once
		now := p.programOf(q, at)
		return before == 0 && (now == unnamed || now != 0 && now == uint64(ObjectID(abi.Prog, int(int32(q.Field("prog_fd"))))))
	}
	switch q.Command {
	case abi.ObjPin:
		return before == 0 && sameObject(pinPath(q, r), int(q.Field("bpf_fd")))
	case abi.LinkUpdate:
		now := linked(int(q.Field("link_fd")))
		fd := int(q.Field("new_prog_fd"))
		id := uint64(ObjectID(abi.Prog, fd))
		if ObjectAt(fd) == abi.Map {
			id = uint64(ObjectID(abi.Map, fd)) << 32
		}
		return now != unknown && now != before && now == id
	case abi.LinkDetach:
		now := linked(int(q.Field("link_fd")))
		return now != unknown && now != before
	case abi.ProgAttach:
		now := p.attached(q, at)
		return now != unknown && now > before
	case abi.ProgDetach:
		return p.attached(q, at) < before
	}
	return false
}

func pinPath(q *request.Request, r *Result) []byte {
	for i := range q.Buffers {
		if q.Buffers[i].Field.Name == "pathname" {
			return r.Out[i]
		}
	}
	return nil
}

// sameObject says whether what is pinned at path is the object at fd.
func sameObject(path []byte, fd int) bool {
	there, e := openPin(path)
	if e != 0 {
		return false
	}
	defer sys.Close(there)
	kind := ObjectAt(there)
	id := ObjectID(kind, there)
	return kind == ObjectAt(fd) && id != 0 && id == ObjectID(kind, fd)
}

// linked is the id of the program that the link at fd is of, and in the upper half
// that of a struct_ops link's map.
func linked(fd int) uint64 {
	info := make([]byte, abi.LinkInfo.Size)
	if ObjectInfo(fd, info) != 0 {
		return unknown
	}
	of := abi.LinkInfo.Field("prog_id").Uint(info)
	if m := abi.LinkInfo.Field("struct_ops.map_id"); m.Live(info) {
		of |= m.Uint(info) << 32
	}
	return of
}

// maxAttached is as many programs as the kernel lets be attached to one point
// (BPF_CGROUP_MAX_PROGS, BPF_MPROG_MAX).
const maxAttached = 64

// attached asks the daemon whether the program of a BPF_PROG_ATTACH or …_DETACH is
// attached there, 1 or 0; without a program, how many are.
func (p *Performer) attached(q *request.Request, at Place) uint64 {
	if p.host == nil {
		return unknown
	}
	row := abi.RowOf(abi.ProgQuery)
	const somewhere = abi.PageSize
	ids := row.Field("prog_ids")
	query := request.Request{
		Call: request.Call{Command: abi.ProgQuery, Addr: 2 * somewhere, Size: row.LastEnd}, Row: row, Size: row.LastEnd,
		Attr:  make([]byte, abi.AttrSize),
		Files: q.Files,
	}
	copy(query.Attr[row.Field("target_fd").Offset:], q.Attr[q.Row.Field("target_fd").Offset:][:4])
	if len(q.Row.Net) > 0 && abi.Holds(q.Row.Net, q.Attr) {
		// Attached to the caller's network namespace, and asked for by an fd of it.
		ns, e := at.NetNS()
		if e != 0 {
			return unknown
		}
		defer sys.Close(ns)
		row.Field("target_fd").Put(query.Attr, uint64(ns))
		query.Files = []request.File{{N: ns, Kind: abi.Netns}}
	}
	row.Field("attach_type").Put(query.Attr, q.Field("attach_type"))
	ids.Put(query.Attr, somewhere)
	row.Field("count").Put(query.Attr, maxAttached)
	query.Buffers = []request.Buffer{{Field: ids, Parent: request.NoParent, Offset: ids.Offset, Addr: somewhere, Len: 4 * maxAttached}}
	r, ok := p.ask(&query, at)
	if !ok || r.Errno != 0 {
		return unknown
	}
	n := int(row.Field("count").Uint(r.Attr))
	want := uint64(0)
	if fd := q.Field("attach_bpf_fd"); fd != 0 || q.Command == abi.ProgAttach {
		want = uint64(ObjectID(abi.Prog, int(int32(fd))))
	} else {
		return uint64(n)
	}
	for i := range min(n, len(r.Out[0])/4) {
		if id := abi.Uint(r.Out[0], uint32(4*i), 4); id == want && id != 0 {
			return 1
		}
	}
	return 0
}

// ask has the daemon perform a query of our own. False: it wasn't made.
func (p *Performer) ask(q *request.Request, at Place) (*Result, bool) {
	asker := Performer{mem: p.mem, host: p.host, pathFD: -1, asks: true}
	r := &Result{FD: -1}
	if asker.build(q, r, at) != 0 {
		return nil, false
	}
	asker.atHost(q, r, at)
	return r, r.Attr != nil
}

// quiet is a Log that nobody reads: the daemon's.
type quiet struct{}

func (quiet) Calling()                 {}
func (quiet) Performing(uint64)        {}
func (quiet) Performed(int, sys.Errno) {}

// Quiet is a Log of what nobody will have to go on with.
var Quiet Log = quiet{}
