package perform

import (
	"slices"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/request"
)

// finish looks at a result: whose is what came, and what is new.
func (p *Performer) finish(q *request.Request, r *Result) {
	if r.Errno != 0 {
		return
	}
	kinds := q.Row.Returns.FD
	if kinds == 0 {
		return
	}
	r.FD, r.Value = r.Value, 0
	switch q.Command {
	case abi.ProgGetFDByID, abi.MapGetFDByID, abi.LinkGetFDByID, abi.BTFGetFDByID:
		id := uint32(q.Row.Fields[0].Uint(q.Attr))
		switch {
		case !p.visible(kinds, id, r.FD):
			sys.Close(r.FD)
			r.FD, r.Errno = -1, sys.ENOENT
		case kinds == abi.Map && p.readOnly(id) && q.Field("open_flags")&abi.FRdonly == 0:
			sys.Close(r.FD)
			r.FD, r.Errno = -1, sys.EACCES
		}
		return
	}
	if p.host == nil {
		return
	}
	tell := p.host.Made
	if q.Command == abi.ObjGet {
		kinds, tell = ObjectAt(r.FD), p.host.Opened
		if kinds == abi.Map && len(p.ReadOnly) > 0 && q.Field("file_flags")&abi.FRdonly == 0 && p.readOnly(ObjectID(abi.Map, r.FD)) {
			sys.Close(r.FD)
			r.FD, r.Errno = -1, sys.EACCES // as for a pin that may not be written
			return
		}
	}
	if kinds == abi.Map || kinds == abi.Prog || kinds == abi.BTF {
		tell(r.FD)
	}
}

// readOnly says whether a map is opened to be read alone.
func (p *Performer) readOnly(id uint32) bool { return slices.Contains(p.ReadOnly, id) }

// ObjectID asks the kernel for the id of the object at fd, which is of this kind;
// 0 where it has none.
func ObjectID(kind abi.Object, fd int) uint32 {
	l := abi.InfoLayout(kind)
	if l == nil || l.Field("id") == nil {
		return 0
	}
	f := l.Field("id")
	var info [256]byte
	if ObjectInfo(fd, info[:f.Offset+f.Size]) != 0 {
		return 0
	}
	return uint32(f.Uint(info[:]))
}

// ObjectInfo makes a BPF_OBJ_GET_INFO_BY_FD of our own; info must be zero where
// the structure has pointers.
func ObjectInfo(fd int, info []byte) sys.Errno {
	row := abi.RowOf(abi.ObjGetInfoByFD)
	var attr [sys.AttrRoom]byte
	row.Field("bpf_fd").Put(attr[:], uint64(fd))
	row.Field("info_len").Put(attr[:], uint64(len(info)))
	row.Field("info").Put(attr[:], sys.Addr(info))
	_, e := sys.BPF(uint32(abi.ObjGetInfoByFD), attr[:], row.LastEnd)
	return e
}

// nextID answers …_GET_NEXT_ID with the workload's own objects, and for BTF with
// the kernel's as well.
func (p *Performer) nextID(q *request.Request, r *Result) (int, sys.Errno) {
	kind := q.Row.Fields[0].Object
	start, next := q.Row.Field("start_id"), q.Row.Field("next_id")
	// The attribute is zero behind what the application gave. With its size, the
	// kernel might not look at the start_id that we put there.
	size := max(q.Size, q.Row.LastEnd)
	for {
		v, e := sys.BPF(uint32(q.Command), r.Attr, size)
		if e != 0 {
			copy(r.Attr[next.Offset:next.Offset+next.Size], q.Attr[next.Offset:]) // as if never written
			return v, e
		}
		id := uint32(next.Uint(r.Attr))
		if p.visibleID(kind, id) {
			return v, 0
		}
		from := uint64(id)
		if kind == abi.Map || kind == abi.Prog { // no need to ask for what lies between
			own := p.objects.Next(kind, id)
			if own == 0 {
				copy(r.Attr[next.Offset:next.Offset+next.Size], q.Attr[next.Offset:])
				return 0, sys.ENOENT
			}
			from = uint64(own) - 1
		}
		start.Put(r.Attr, from)
	}
}

// Living lists the ids of all objects of a kind on the host, ascending.
func Living(kind abi.Object) (ids []uint32) {
	command := map[abi.Object]abi.Command{abi.Map: abi.MapGetNextID, abi.Prog: abi.ProgGetNextID, abi.BTF: abi.BTFGetNextID, abi.Link: abi.LinkGetNextID}[kind]
	row := abi.RowOf(command)
	start, next := row.Field("start_id"), row.Field("next_id")
	var attr [sys.AttrRoom]byte
	for {
		if _, e := sys.BPF(uint32(command), attr[:], row.LastEnd); e != 0 {
			return ids
		}
		ids = append(ids, uint32(next.Uint(attr[:])))
		start.Put(attr[:], next.Uint(attr[:]))
	}
}

// Lives says whether there is a map, program or link of that id.
func Lives(kind abi.Object, id uint32) bool {
	fd, e := openByID(kind, id)
	if e != 0 {
		return e != sys.ENOENT // it can't be opened now, but it is there
	}
	sys.Close(fd)
	return true
}

// visibleID says whether the workload may see the object of this kind and id.
func (p *Performer) visibleID(kind abi.Object, id uint32) bool {
	if p.objects.Sees(kind, id) {
		return true
	}
	if kind != abi.BTF && kind != abi.Link {
		return false
	}
	fd, e := openByID(kind, id)
	if e != 0 {
		return false
	}
	defer sys.Close(fd)
	return p.visible(kind, id, fd)
}

// Sees says whether the workload may see the object of this kind and id: what it owns, has
// opened or is shared with it, links of such programs, the kernel's BTF.
func (p *Performer) Sees(kind abi.Object, id uint32) bool {
	if p.host != nil {
		return p.host.Sees(kind, id)
	}
	return p.visibleID(kind, id)
}

// visible is visibleID for an object that is open at fd.
func (p *Performer) visible(kind abi.Object, id uint32, fd int) bool {
	switch {
	case p.objects.Sees(kind, id):
		return true
	case kind == abi.BTF:
		return IsKernelBTF(fd)
	case kind == abi.Link:
		return linkOf(fd, p.objects.Sees)
	}
	return false
}

// LinkOf says whether the link of that id is of a program or, of type struct_ops, of a map
// that is one of these.
func LinkOf(id uint32, is func(abi.Object, uint32) bool) bool {
	fd, e := openByID(abi.Link, id)
	if e != 0 {
		return false
	}
	defer sys.Close(fd)
	return linkOf(fd, is)
}

// linkOf says whether the link at fd is of a program or, of type struct_ops, of a map that
// is one of these. Who has a program's fd may link it to what it can name.
func linkOf(fd int, is func(abi.Object, uint32) bool) bool {
	info := make([]byte, abi.LinkInfo.Size)
	if ObjectInfo(fd, info) != 0 {
		return false
	}
	if prog := uint32(abi.LinkInfo.Field("prog_id").Uint(info)); prog != 0 {
		return is(abi.Prog, prog)
	}
	m := abi.LinkInfo.Field("struct_ops.map_id")
	return m.Live(info) && is(abi.Map, uint32(m.Uint(info)))
}

// openByID opens an object by its id, as the host.
func openByID(kind abi.Object, id uint32) (int, sys.Errno) {
	command := map[abi.Object]abi.Command{abi.Map: abi.MapGetFDByID, abi.Prog: abi.ProgGetFDByID, abi.BTF: abi.BTFGetFDByID, abi.Link: abi.LinkGetFDByID}[kind]
	row := abi.RowOf(command)
	var attr [sys.AttrRoom]byte
	row.Fields[0].Put(attr[:], uint64(id))
	return sys.BPF(uint32(command), attr[:], row.LastEnd)
}

// Reopen opens the program at fd anew, as the host: of one that was opened by
// somebody with less rights, the kernel shows less, whoever asks (bpf_dump_raw_ok
// with the file's credentials).
func Reopen(fd int) (int, sys.Errno) {
	id := ObjectID(abi.Prog, fd)
	if id == 0 {
		return -1, sys.EBADF
	}
	return openByID(abi.Prog, id)
}

// IsKernelBTF says whether the BTF at fd is the kernel's or a module's.
func IsKernelBTF(fd int) bool {
	f := abi.BTFInfo.Field("kernel_btf")
	info := make([]byte, abi.BTFInfo.Size)
	return ObjectInfo(fd, info) == 0 && f.Uint(info) != 0
}
