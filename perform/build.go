package perform

import (
	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/request"
)

// build makes the attribute and the buffers that the kernel is given.
func (p *Performer) build(q *request.Request, r *Result, at Place) sys.Errno {
	if r.Attr = p.mem.Alloc(sys.AttrRoom); r.Attr == nil {
		return sys.ENOMEM
	}
	clear(r.Attr)
	fields(&q.Row.Layout, q.Attr, r.Attr)
	for i := range q.Buffers {
		out, e := p.buffer(&q.Buffers[i], q)
		if e != 0 {
			return e
		}
		r.Out = append(r.Out, out)
	}
	for i := range q.Buffers {
		b := &q.Buffers[i]
		holder := r.Attr
		if b.Parent != request.NoParent {
			holder = r.Out[b.Parent]
		}
		if holder != nil {
			abi.Put(holder, b.Offset, 8, address(b, r.Out[i]))
		}
	}
	if b := q.Buffer("info"); b != nil && uint64(len(b.Data)) > b.Len {
		// It goes as far as the pointer in which it ended.
		q.Row.Field("info_len").Put(r.Attr, uint64(len(b.Data)))
	}
	if f := q.Row.Field("func_info_cnt"); f != nil && f.Uint(r.Attr) > abi.MaxSubprogs {
		f.Put(r.Attr, abi.MaxSubprogs+1)
	}
	if log := logOf(q); log != nil {
		if tellsTrueSize() {
			log.true.Put(r.Attr, unwritten)
		}
		if n := log.size.Uint(r.Attr); n <= abi.MaxLog {
			log.size.Put(r.Attr, min(n, abi.FirstLog))
		}
	}
	idsFromTarget(q, r, at)
	return p.paths(q, r, at)
}

// fields copies the attribute field by field. Pointers are left zero, and so is
// what isn't live and shares its bytes with one: no number of the application's
// is ever taken for an address of ours.
func fields(l *abi.Layout, from, to []byte) {
	for i := range l.Fields {
		f := &l.Fields[i]
		if f.Class == abi.Pointer || (f.Overlaps && !f.Live(from)) {
			continue
		}
		copy(to[f.Offset:f.Offset+f.Size], from[f.Offset:f.Offset+f.Size])
	}
}

// buffer makes our side of a buffer: nil for what the kernel only reads, which
// is read from the request itself.
func (p *Performer) buffer(b *request.Buffer, q *request.Request) ([]byte, sys.Errno) {
	rule := b.Field.Buffer
	if b.Fault || b.Len == 0 {
		return nil, 0
	}
	var n uint64
	switch {
	case rule.Elem == abi.ElemStrings, rule.Dir == abi.InOut, rule.Struct == &abi.IterLinkInfo:
		n = uint64(len(b.Data))
	case rule.Dir == abi.In:
		return nil, 0
	case rule.Len.Clamp == abi.ClampLog:
		if n = b.Len; n > abi.MaxLog {
			return nil, 0
		}
		n = min(n, abi.FirstLog)
	default:
		n = min(b.Len, rule.Len.Max)
	}
	if n == 0 {
		return nil, 0
	}
	// Zeroed, so that what the kernel leaves out shows nobody what was there before.
	out := p.mem.Zeroed(int(n))
	if out == nil {
		return nil, sys.ENOMEM
	}
	switch {
	case rule.Wrote == abi.WroteElems || rule.Wrote == abi.WroteString || rule.Wrote == abi.WroteCount && FillsFirst(q.Info):
		fill(out, 0xff) // so that it can be seen how much the kernel wrote
	case rule.Wrote == abi.WroteLog:
		out[0] = noText
	case rule.Elem == abi.ElemStrings:
		// The strings that were copied put their addresses here. The kernel stops
		// where the copying did; if it doesn't, it finds no address of ours.
		for o := uint32(0); o+8 <= uint32(len(out)); o += 8 {
			abi.Put(out, o, 8, sys.FaultAddr)
		}
	case rule.Dir == abi.In:
		copy(out, b.Data) // a copy that may change: pids
	case rule.Elem == abi.ElemStruct:
		structure(q, b, out)
	}
	return out, 0
}

// structure copies a structure that the kernel reads and writes: no pointer, which are
// set later. Of the padding at the
// end, where no pointer has room, some kernels want it zero.
func structure(q *request.Request, b *request.Buffer, out []byte) {
	end := uint32(0)
	for i := range q.Info.Fields {
		end = max(end, q.Info.Fields[i].Offset+q.Info.Fields[i].Size)
	}
	if int(end) < len(out) {
		copy(out[end:], b.Data[end:])
	}
	for i := range q.Info.Fields {
		f := &q.Info.Fields[i]
		// Only what is live: other numbers might be half of a pointer. What the kernel has
		// nothing to say about it gives back; but the id tells whether it said anything.
		if f.Class != abi.Pointer && f.Name != "id" && f.Live(q.Selector) && int(f.Offset) < len(out) {
			copy(out[f.Offset:min(int(f.Offset+f.Size), len(out))], b.Data[f.Offset:])
		}
	}
	for i := range q.Info.Fields {
		f := &q.Info.Fields[i]
		if f.Class == abi.Pointer && f.Live(q.Selector) && int(f.Offset+f.Size) <= len(out) {
			f.Put(out, 0)
		}
	}
}

// FillsFirst says whether the kernel may fill what an information structure points to and
// then fail: a link's for want of room; a BTF's because of a name without a length
// (kernel/bpf/btf.c, btf_get_info_by_fd).
func FillsFirst(info *abi.Layout) bool { return info == &abi.LinkInfo || info == &abi.BTFInfo }

// infoAsGiven makes the length of a structure, where the kernel was given more of it, what
// it would be otherwise: at most what the application gave.
func infoAsGiven(q *request.Request, r *Result) {
	if f := q.Row.Field("info_len"); f != nil && r.Errno == 0 {
		f.Put(r.Attr, min(f.Uint(r.Attr), f.Uint(q.Attr)))
	}
}

func fill(b []byte, c byte) {
	if len(b) == 0 {
		return
	}
	b[0] = c
	for n := 1; n < len(b); n *= 2 {
		copy(b[n:], b[:n])
	}
}

// address is what the kernel is told of a buffer.
func address(b *request.Buffer, out []byte) uint64 {
	switch {
	case b.Fault:
		return sys.FaultAddr
	case out != nil:
		return sys.Addr(out)
	case b.Data != nil:
		return sys.Addr(b.Data)
	}
	// Nothing to read or write there; the kernel may still ask whether it is NULL.
	return sys.FaultAddr
}
