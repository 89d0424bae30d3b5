package perform

import (
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
		if !p.visible(kinds, id, r.FD) {
			sys.Close(r.FD)
			r.FD, r.Errno = -1, sys.ENOENT
		}
		return
	}
	kind := kinds
	if q.Command == abi.ObjGet {
		k, _ := sys.KindOf(r.FD)
		kind = map[sys.FileKind]abi.Object{sys.MapFile: abi.Map, sys.ProgFile: abi.Prog, sys.LinkFile: abi.Link}[k]
	}
	if l := abi.InfoLayout(kind); l != nil && l.Field("id") != nil {
		if id := objectID(l, r.FD); id != 0 {
			p.objects.Add(kind, id)
		}
	}
}

// objectID asks the kernel for an object's id; 0 where it has none.
func objectID(l *abi.Layout, fd int) uint32 {
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
	var attr [attrRoom]byte
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
		if p.objects.Owns(kind, id) || kind == abi.BTF && kernelBTF(id) {
			return v, 0
		}
		from := uint64(id)
		if kind != abi.BTF { // no need to ask for what lies between
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

// Exists says whether there is an object of this kind and id.
func Exists(kind abi.Object, id uint32) bool {
	var c abi.Command
	switch kind {
	case abi.Map:
		c = abi.MapGetNextID
	case abi.Prog:
		c = abi.ProgGetNextID
	case abi.Link:
		c = abi.LinkGetNextID
	case abi.BTF:
		c = abi.BTFGetNextID
	default:
		return false
	}
	row := abi.RowOf(c)
	next := row.Field("next_id")
	var attr [attrRoom]byte
	row.Field("start_id").Put(attr[:], uint64(id)-1)
	_, e := sys.BPF(uint32(c), attr[:], row.LastEnd)
	return e == 0 && uint32(next.Uint(attr[:])) == id
}

func (p *Performer) visible(kind abi.Object, id uint32, fd int) bool {
	return p.objects.Owns(kind, id) || kind == abi.BTF && isKernelBTF(fd)
}

// kernelBTF says whether the BTF of this id is the kernel's or a module's.
func kernelBTF(id uint32) bool {
	row := abi.RowOf(abi.BTFGetFDByID)
	var attr [attrRoom]byte
	row.Field("btf_id").Put(attr[:], uint64(id))
	fd, e := sys.BPF(uint32(abi.BTFGetFDByID), attr[:], row.LastEnd)
	if e != 0 {
		return false
	}
	defer sys.Close(fd)
	return isKernelBTF(fd)
}

func isKernelBTF(fd int) bool {
	f := abi.BTFInfo.Field("kernel_btf")
	info := make([]byte, abi.BTFInfo.Size)
	return ObjectInfo(fd, info) == 0 && f.Uint(info) != 0
}
