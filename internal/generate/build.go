package generate

import (
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/bpfbroker/bpfbroker/abi"
)

// builder makes a request. Nothing random happens while the fields of a recipe are put,
// but where in the arena their memory is.
type builder struct {
	*rand.Rand
	req  *Request
	row  *abi.Row
	attr []byte
	refs []Ref // of the attribute: At is an offset

	plain bool   // all memory is in rows, aligned, as an application would have it
	next  uint64 // free memory of rw
	roNex uint64 // of ro
	edges []Area // not used yet

	bufs []placed // what pointers of the attribute lead to
}

// placed is memory that a pointer field of the attribute points to.
type placed struct {
	field *abi.Field
	piece int // index into req.Pieces, -1 for an output
	addr  uint64
	n     uint64
}

func newBuilder(r *rand.Rand, call string) *builder {
	rw, ro := area("rw"), area("ro")
	b := &builder{Rand: r, req: &Request{Call: call}, row: RowOf(call), next: rw.begin() + 64, roNex: ro.begin()}
	for _, a := range Areas {
		if a.Size == page {
			b.edges = append(b.edges, a)
		}
	}
	b.attr = make([]byte, b.row.Size)
	return b
}

// Build is a plain request of an object's call, for making the world and steps.
func Build(o *Object) *Request {
	b := newBuilder(rand.New(rand.NewPCG(1, 1)), o.Call)
	b.plain = true
	b.fields(o.F)
	return b.finish(b.row.LastEnd)
}

// fields puts all, in a fixed order.
func (b *builder) fields(f F) {
	for _, name := range slices.Sorted(maps.Keys(f)) {
		b.put(name, f[name])
	}
}

// put sets a field to
//   - an int or uint64, a Value, an ID, a Before, a PID: the number;
//   - a string: itself in a name; else memory with a NUL behind it;
//   - a []byte, a Struct: memory that holds it;
//   - a Room: memory for an output.
func (b *builder) put(name string, v any) {
	f := b.row.Field(name)
	if f == nil {
		panic("generate: " + b.row.Kernel + " has no field " + name)
	}
	switch v := v.(type) {
	case int:
		f.Put(b.attr, uint64(v))
	case uint64:
		f.Put(b.attr, v)
	case Value, ID, PID, Before:
		ref := Ref{At: uint64(f.Offset), Size: f.Size, Name: refName(v)}
		if _, ok := v.(Before); ok {
			ref.Add = -1
		}
		b.refs = append(b.refs, ref)
	case string:
		if f.Class == abi.Name {
			copy(b.attr[f.Offset:f.Offset+f.Size], v)
			return
		}
		b.memory(f, append([]byte(v), 0))
	case []byte:
		b.memory(f, v)
	case Struct:
		b.structure(f, v)
	case Room:
		n := uint64(v)
		addr := b.place(n, true)
		f.Put(b.attr, addr)
		b.bufs = append(b.bufs, placed{f, -1, addr, n})
	default:
		panic("generate: a value of a kind that fields can't have")
	}
}

// memory is what a pointer field points to.
func (b *builder) memory(f *abi.Field, data []byte) uint64 {
	out := f.Buffer != nil && f.Buffer.Dir != abi.In
	addr := b.place(uint64(len(data)), out)
	b.req.Pieces = append(b.req.Pieces, Piece{addr, slices.Clone(data)})
	b.bufs = append(b.bufs, placed{f, len(b.req.Pieces) - 1, addr, uint64(len(data))})
	f.Put(b.attr, addr)
	return addr
}

func (b *builder) structure(f *abi.Field, s Struct) {
	data := make([]byte, s.Size)
	type inner struct {
		f *abi.Field
		v any
	}
	var refs []inner
	for _, name := range slices.Sorted(maps.Keys(s.F)) {
		field := s.Layout.Field(name)
		if field == nil {
			panic("generate: " + s.Layout.Name + " has no field " + name)
		}
		if field.Offset+field.Size > uint32(s.Size) {
			continue
		}
		switch v := s.F[name].(type) {
		case int:
			field.Put(data, uint64(v))
		case Room:
			field.Put(data, b.place(uint64(v), true))
		default:
			refs = append(refs, inner{field, v})
		}
	}
	addr := b.memory(f, data)
	for _, r := range refs {
		b.req.Refs = append(b.req.Refs, Ref{At: addr + uint64(r.f.Offset), Size: r.f.Size, Name: refName(r.v)})
	}
}

// place finds memory for n bytes that ends where nothing follows, begins anywhere, or
// can't be written if it needn't be.
func (b *builder) place(n uint64, out bool) uint64 {
	if !b.plain {
		switch k := b.IntN(10); {
		case k < 2 && len(b.edges) > 0 && n <= page:
			e := b.edges[0]
			b.edges = b.edges[1:]
			return e.end() - n
		case k < 3 && !out && b.roNex+n <= area("ro").end():
			addr := b.roNex
			b.roNex += n
			return addr
		case k < 5:
			b.next += uint64(1 + b.IntN(7))
		default:
			b.next = (b.next + 7) &^ 7
		}
	}
	addr := b.next
	if addr+n > area("rw").end() {
		return area("rw").end() - min(n, area("rw").Size)
	}
	b.next = (addr + n + 15) &^ 7
	if !b.plain {
		b.next = addr + n
	}
	return addr
}

// finish puts the attribute, of a size, into the arena and makes the arguments.
func (b *builder) finish(size uint32) *Request {
	r := b.req
	if b.row.Syscall == abi.SyscallBPF {
		whole := pad(b.attr, size)[:size]
		addr := b.place(uint64(size), false)
		r.Pieces = append(r.Pieces, Piece{addr, whole})
		r.Args = []uint64{addr, uint64(size)}
		b.placeRefs(addr)
		return r
	}
	args := func(names []string) {
		for _, name := range names {
			f := b.row.Field(name)
			v := f.Uint(b.attr)
			if f.Size == 4 {
				v = uint64(int64(int32(v)))
			}
			for _, ref := range b.refs {
				if ref.At == uint64(f.Offset) {
					r.Refs = append(r.Refs, Ref{At: AtArg | uint64(len(r.Args)), Size: 4, Name: ref.Name, Add: ref.Add})
				}
			}
			r.Args = append(r.Args, v)
		}
	}
	switch b.row.Syscall {
	case abi.SyscallPerfEventOpen:
		n := min(max(size, abi.PerfEventAttrMin), 2*page)
		addr := b.place(uint64(n), true)
		r.Pieces = append(r.Pieces, Piece{addr, pad(b.attr[:abi.PerfEventAttrSize], n)[:n]})
		r.Args = []uint64{addr}
		b.placeRefs(addr)
		args([]string{"pid", "cpu", "group_fd", "flags"})
	case abi.SyscallPerfSetBPF:
		args([]string{"fd", "prog_fd"})
	case abi.SyscallPerfQueryBPF:
		// The ids follow the structure.
		n := min(uint64(b.row.Field("ids_len").Uint(b.attr)), 64)
		addr := b.place(abi.PerfQuerySize+4*n, true)
		r.Pieces = append(r.Pieces, Piece{addr, slices.Clone(b.attr[:abi.PerfQuerySize])})
		args([]string{"fd"})
		r.Args = append(r.Args, addr)
	}
	return r
}

// placeRefs moves the attribute's refs to where it is; those of arguments aren't in it.
func (b *builder) placeRefs(addr uint64) {
	inAttr := b.row.Size
	if b.row.Syscall == abi.SyscallPerfEventOpen {
		inAttr = abi.PerfEventAttrSize
	}
	for _, ref := range b.refs {
		if ref.At < uint64(inAttr) {
			ref.At += addr
			b.req.Refs = append(b.req.Refs, ref)
		}
	}
}
