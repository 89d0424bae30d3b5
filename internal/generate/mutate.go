package generate

import (
	"math/rand/v2"
	"slices"

	"github.com/bpfbroker/bpfbroker/abi"
)

// New is the request of a seed. The calls take turns.
func New(seed uint64) *Request {
	calls := Calls()
	return Make(calls[seed%uint64(len(calls))], seed)
}

// Make is a seed's request for a certain call: a recipe, in half of the cases changed
// in one or more places.
func Make(call string, seed uint64) *Request {
	b := newBuilder(rand.New(rand.NewPCG(seed, 0)), call)
	b.req.Seed = seed
	all := recipesOf(call)
	r := all[b.IntN(len(all))]
	b.plain = b.IntN(3) == 0
	b.fields(r.f)
	b.req.Steps = r.steps
	b.req.Fill = []byte{0, 0, 0xa5, 0xff}[b.IntN(4)]

	n := []int{0, 0, 0, 0, 0, 1, 1, 1, 2, 2 + b.IntN(7)}[b.IntN(10)]
	size := b.size()
	fields := b.IntN(n + 1)
	for range fields {
		b.mutateField()
	}
	b.finish(size)
	for range n - fields {
		b.mutateCall()
	}
	b.harmless()
	return b.req
}

// size is one that the kernel takes, if nothing but zeros follows the last field.
func (b *builder) size() uint32 {
	row := b.row
	if row.Syscall != abi.SyscallBPF {
		return uint32(b.row.Layout.Size)
	}
	used := uint32(1)
	for i, c := range b.attr {
		if c != 0 {
			used = uint32(i) + 1
		}
	}
	for _, ref := range b.refs {
		used = max(used, uint32(ref.At)+ref.Size)
	}
	switch b.IntN(8) {
	case 0:
		return abi.AttrSize
	case 1:
		return row.LastEnd + b.Uint32N(abi.AttrSize+64-row.LastEnd)
	case 2:
		return page
	case 3:
		// Older applications know fewer fields. Outputs that don't fit aren't written.
		return used + b.Uint32N(max(row.LastEnd, used+1)-used)
	}
	return row.LastEnd
}

// boundaries are numbers at which something ends.
var boundaries = []uint64{0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 1000, 4095, 4096, 4097,
	0xffff, 0x10000, 1 << 20, 1<<20 + 1, 1 << 24, 1 << 30, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff}

// odd are fds that aren't of the world, or of a kind that bpf() doesn't take.
var odd = []int{-1, 0, fdStdout, 2, 3, fdClosed, 99, 255, 1000, 1001, 1024, 0x7fffffff, -100, -2147483648, fdNull, fdSocket, fdFile, fdPath}

func (b *builder) someFD() uint64 {
	if b.IntN(3) == 0 {
		return uint64(uint32(odd[b.IntN(len(odd))]))
	}
	return uint64(numbers[b.IntN(len(numbers))])
}

// mutateField changes a field of the attribute in a way of its class.
func (b *builder) mutateField() {
	f := &b.row.Fields[b.IntN(len(b.row.Fields))]
	// Fields that mean something are more interesting than those that are zero.
	for range 3 {
		if f.Uint(b.attr) == 0 || !f.Live(b.attr) {
			f = &b.row.Fields[b.IntN(len(b.row.Fields))]
		}
	}
	if f.Name == "probe" {
		return // the broker's, not the call's
	}
	if ref := b.refOf(f); ref >= 0 {
		switch b.IntN(4) {
		case 0:
			b.refs[ref].Add += int32([]int{-1, 1, 1 << 20, -2}[b.IntN(4)])
		case 1:
			b.refs[ref].Name = refName(ID(numbers[b.IntN(len(numbers))]))
		default:
			b.refs = slices.Delete(b.refs, ref, ref+1)
			b.scalar(f)
		}
		return
	}
	switch f.Class {
	case abi.FD:
		f.Put(b.attr, b.someFD())
	case abi.Pointer:
		b.mutatePointer(f)
	case abi.Enum:
		n := uint64(len(f.Values.Names))
		f.Put(b.attr, []uint64{b.Uint64N(n), b.Uint64N(n), n, 0xffffffff, f.Uint(b.attr) ^ 1}[b.IntN(5)])
	case abi.Flags:
		bit := uint64(1) << b.IntN(32)
		if n := len(f.Values.Bits); n > 0 && b.IntN(2) == 0 {
			bit = f.Values.Bits[b.IntN(n)].Bit
		}
		f.Put(b.attr, f.Uint(b.attr)^bit)
	case abi.Name, abi.Bytes:
		at := int(f.Offset) + b.IntN(int(f.Size))
		if b.IntN(4) == 0 {
			for i := range f.Size {
				b.attr[f.Offset+i] = 'n'
			}
		}
		b.attr[at] = []byte{0, ' ', '-', '.', 'x', 0xff}[b.IntN(6)]
	case abi.ID, abi.PID:
		if b.IntN(2) == 0 {
			v := any(PID{})
			if f.Class == abi.ID {
				v = ID(numbers[b.IntN(len(numbers))])
			}
			f.Put(b.attr, 0)
			b.refs = append(b.refs, Ref{At: uint64(f.Offset), Size: f.Size, Name: refName(v)})
			return
		}
		b.scalar(f)
	default:
		b.scalar(f)
	}
}

func (b *builder) refOf(f *abi.Field) int {
	return slices.IndexFunc(b.refs, func(r Ref) bool { return r.At == uint64(f.Offset) })
}

func (b *builder) scalar(f *abi.Field) {
	v := f.Uint(b.attr)
	switch b.IntN(6) {
	case 0:
		v++
	case 1:
		v--
	case 2:
		v ^= 1 << b.IntN(int(f.Size)*8)
	case 3:
		v = b.Uint64()
	default:
		v = boundaries[b.IntN(len(boundaries))]
	}
	f.Put(b.attr, v)
}

// mutatePointer changes where a pointer leads, or what is there.
func (b *builder) mutatePointer(f *abi.Field) {
	i := slices.IndexFunc(b.bufs, func(p placed) bool { return p.field == f })
	n := uint64(64)
	if i >= 0 {
		n = b.bufs[i].n
		if p := b.bufs[i].piece; p >= 0 && b.IntN(2) == 0 {
			b.spoil(p)
			return
		}
	}
	to := b.badAddress(n)
	f.Put(b.attr, to)
	if i >= 0 {
		if p := b.bufs[i].piece; p >= 0 {
			b.req.Pieces[p].Addr = to
		}
	}
}

// badAddress is one where n bytes can't be read or written, or are something else.
func (b *builder) badAddress(n uint64) uint64 {
	e := b.someEdge()
	switch b.IntN(12) {
	case 0:
		return 0
	case 1:
		return 8
	case 2:
		return Base // the first page can't be touched
	case 3:
		return e.end() // just behind memory
	case 4, 5:
		return e.end() - n + 1 // the last byte is beyond
	case 6:
		return area("ro").begin() - n/2 // begins well, and can't be written in its second half
	case 7:
		return area("ro").begin()
	case 8:
		return []uint64{1 << 47, 0xffff800000000000, ^uint64(0), ^uint64(7), 1<<47 - page}[b.IntN(5)]
	}
	// Onto another buffer, in whole or in part.
	if len(b.req.Pieces) == 0 {
		return area("rw").begin()
	}
	p := b.req.Pieces[b.IntN(len(b.req.Pieces))]
	return p.Addr + b.Uint64N(uint64(len(p.Data))+1)
}

func (b *builder) someEdge() Area {
	var edges []Area
	for _, a := range Areas {
		if a.Size == page {
			edges = append(edges, a)
		}
	}
	return edges[b.IntN(len(edges))]
}

// spoil changes memory that the kernel reads.
func (b *builder) spoil(piece int) {
	p := &b.req.Pieces[piece]
	if len(p.Data) == 0 {
		return
	}
	at := b.IntN(len(p.Data))
	switch b.IntN(6) {
	case 0:
		p.Data = p.Data[:at] // what the fill is, follows
	case 1:
		p.Data[at] = byte(b.IntN(256))
	case 2:
		if at+4 <= len(p.Data) {
			abi.Put(p.Data, uint32(at&^3), 4, b.someFD())
		}
	default:
		p.Data[at] ^= 1 << b.IntN(8)
	}
}

// mutateCall changes the arguments, or memory behind the attribute's back.
func (b *builder) mutateCall() {
	r := b.req
	at, size := r.Attr()
	if b.row.Syscall != abi.SyscallBPF {
		i := b.IntN(len(r.Args))
		if Slots(b.row)[i] == "attr" {
			if b.IntN(2) == 0 {
				r.Args[i] = b.badAddress(uint64(size))
				return
			}
			b.spoil(b.attrPiece())
			return
		}
		r.Args[i] = []uint64{uint64(int64(int32(b.someFD()))), ^uint64(0), 0, uint64(b.IntN(16)), b.Uint64()}[b.IntN(5)]
		r.Refs = slices.DeleteFunc(r.Refs, func(ref Ref) bool { return ref.At == AtArg|uint64(i) })
		return
	}
	switch b.IntN(8) {
	case 0, 1:
		b.resize(b.Uint32N(abi.AttrSize + 64))
	case 2:
		b.resize([]uint32{0, 1, b.row.LastEnd - 1, b.row.LastEnd + 1, abi.AttrSize, abi.AttrSize + 1, page, page + 1, 1 << 20, 1 << 31, 0xffffffff}[b.IntN(11)])
	case 3: // behind the last field
		b.resize(max(uint32(r.Args[1]), b.row.LastEnd+1+b.Uint32N(abi.AttrSize+64-b.row.LastEnd)))
		if p := &r.Pieces[b.attrPiece()]; uint32(len(p.Data)) > b.row.LastEnd {
			p.Data[b.row.LastEnd+b.Uint32N(uint32(len(p.Data))-b.row.LastEnd)] = 1
		}
	case 4:
		r.Args[0] = b.badAddress(r.Args[1])
	case 5: // the attribute is at a bad place
		to := b.badAddress(r.Args[1])
		for i := range r.Refs {
			if o := r.Refs[i].At - at; o < uint64(size) {
				r.Refs[i].At = to + o
			}
		}
		r.Pieces[b.attrPiece()].Addr, r.Args[0] = to, to
	default:
		b.spoil(b.IntN(len(r.Pieces)))
	}
}

// attrPiece is the piece that was put last.
func (b *builder) attrPiece() int { return len(b.req.Pieces) - 1 }

func (b *builder) resize(size uint32) {
	r := b.req
	r.Args[1] = uint64(size)
	p := &r.Pieces[b.attrPiece()]
	if n := min(size, 2*page); n > uint32(len(p.Data)) {
		p.Data = pad(p.Data, n)
	}
}

// harmless makes sure that a request takes no gigabytes and sends the process no signal.
func (b *builder) harmless() {
	r := b.req
	at, _ := r.Attr()
	if at == 0 {
		return
	}
	attr := slices.Clone(pad(r.Image().bytes(at, uint64(b.row.Size)), b.row.Size))
	before := slices.Clone(attr)
	get := func(name string) uint64 { return b.row.Field(name).Uint(attr) }
	put := func(name string, v uint64) { b.row.Field(name).Put(attr, v) }
	switch r.Call {
	case "map_create":
		const most = 16 << 20
		if v := get("value_size"); v > most/64 && v < 1<<31 {
			put("value_size", 64)
		}
		if k := get("key_size"); k > most/64 && k < 1<<31 {
			put("key_size", 8)
		}
		// A size that wraps, or that isn't allocated in fact, is welcome; but to
		// tell those from others is the kernel's business.
		if n := get("max_entries"); n > 1024 && n*(get("value_size")+get("key_size")+64) > most {
			put("max_entries", 4096)
		}
	case "perf_event_open":
		const sigtrap, breakpoint, disabled = abi.PerfBitSigtrap, 5, 1
		if get("bits")&sigtrap != 0 || get("type") == breakpoint {
			put("bits", get("bits")|disabled)
		}
	}
	for i := range attr {
		if attr[i] != before[i] {
			r.Pieces = append(r.Pieces, Piece{at + uint64(i), []byte{attr[i]}})
		}
	}
}
