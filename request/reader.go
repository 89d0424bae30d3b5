package request

import (
	stdbytes "bytes"
	"sync"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/arena"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// Reader reads requests, one at a time, into memory that it uses again.
type Reader struct {
	mem     *arena.Arena
	req     Request
	raw     []byte
	probes  Probes
	numbers []int
	segs    []sys.Segment
	segOf   []int
}

// NewReader returns a Reader that takes its memory from mem.
func NewReader(mem *arena.Arena, probes Probes) *Reader {
	return &Reader{mem: mem, raw: make([]byte, abi.PageSize), probes: probes}
}

const (
	// maxStrings bounds the bytes of all symbols that one request may name.
	maxStrings = 64 << 20
	// perString is what we note of a symbol beside its text, also in perform.
	perString = 256
	// keep is how many buffers there is room for between requests. A request has
	// ten or so, but for one with symbols.
	keep = 1024
)

// Read copies the call from the target. The errors are the kernel's own for
// what the kernel checks before it looks at the command: E2BIG, EFAULT, EINVAL;
// EPERM where the target's memory or files may not be read.
func (r *Reader) Read(t Target, c Call) (*Request, sys.Errno) {
	q := &r.req
	if cap(q.Buffers) > keep {
		q.Buffers = nil
	}
	*q = Request{Call: c, Buffers: q.Buffers[:0], Files: q.Files[:0]}
	row := q.Call.Row()
	q.Row = row
	if c.Syscall != abi.SyscallBPF {
		if e := r.other(t, q); e != 0 {
			return nil, e
		}
	} else if e := r.attribute(t, q, row); e != 0 {
		return nil, e
	}
	if c.Command != abi.ObjGetInfoByFD {
		r.mem.Reserve(plan(&row.Layout, q.Attr))
	}
	if e := r.pointers(t, q, &row.Layout, q.Attr, NoParent); e != 0 {
		return nil, e
	}
	r.collect(q)
	if e := r.take(t, q); e != 0 {
		return nil, e
	}
	if c.Command == abi.ObjGetInfoByFD {
		if e := r.info(t, q); e != 0 {
			return nil, e
		}
	}
	return q, 0
}

// ReadPlain copies the attribute of a call of bpf(), and takes the files that it names,
// but follows no pointer.
func (r *Reader) ReadPlain(t Target, c Call) (*Request, sys.Errno) {
	q := &r.req
	*q = Request{Call: c, Buffers: q.Buffers[:0], Files: q.Files[:0]}
	q.Row = c.Row()
	if e := r.attribute(t, q, q.Row); e != 0 {
		return nil, e
	}
	r.numbers = r.numbers[:0]
	r.fields(&q.Row.Layout, q.Attr)
	return q, r.take(t, q)
}

// Taken lists the files that the last Read took, also where it failed: they are
// in the thread's fd table until they are dropped.
func (r *Reader) Taken() []File { return r.req.Files }

// attribute copies the attribute by the kernel's size rules: kernel/bpf/syscall.c,
// __sys_bpf and bpf_check_uarg_tail_zero.
func (r *Reader) attribute(t Target, q *Request, row *abi.Row) sys.Errno {
	if q.Call.Size > abi.PageSize {
		return sys.E2BIG
	}
	raw := r.raw[:q.Call.Size]
	n, e := t.Read(q.Call.Addr, raw)
	if e != 0 && e != sys.EFAULT {
		return e
	}
	known := min(knownAttr(), len(raw))
	end := n
	if n < known && known < len(raw) {
		// The kernel looks at what it doesn't know before what it does.
		m, e := t.Read(q.Call.Addr+uint64(known), raw[known:])
		if e != 0 && e != sys.EFAULT {
			return e
		}
		end = known + m
	}
	if end > known {
		for _, b := range raw[known:end] {
			if b != 0 {
				return sys.E2BIG
			}
		}
	}
	if n < len(raw) {
		return sys.EFAULT
	}
	if row == nil {
		return sys.EINVAL
	}
	// What lies behind the command's last field isn't this command's (CHECK_ATTR).
	// A kernel that is newer than the table may know more: we may not.
	if known > int(row.LastEnd) {
		for _, b := range raw[row.LastEnd:known] {
			if b != 0 {
				return sys.EINVAL
			}
		}
	}
	q.Attr = r.mem.Alloc(int(abi.AttrSize))
	if q.Attr == nil {
		return sys.ENOMEM
	}
	clear(q.Attr)
	copy(q.Attr, raw[:known])
	q.Size = uint32(known)
	return 0
}

// knownAttr is how much of union bpf_attr both the kernel and the table know: what lies
// behind that must be zero, or else it is E2BIG.
var knownAttr = sync.OnceValue(func() int {
	attr := make([]byte, sys.AttrRoom)
	n := abi.AttrSize
	for ; n > abi.RowOf(abi.MapCreate).LastEnd; n -= 4 {
		clear(attr)
		attr[n-1] = 1
		if _, e := sys.BPF(uint32(abi.MapCreate), attr, n); e != sys.E2BIG {
			break
		}
	}
	return int(n)
})

// pointers copies what the live pointer fields of layout l point to; b holds
// the structure's bytes, parent is its index among the buffers.
func (r *Reader) pointers(t Target, q *Request, l *abi.Layout, b []byte, parent int) sys.Errno {
	first := len(q.Buffers)
	for i := range l.Fields {
		f := &l.Fields[i]
		if f.Class != abi.Pointer || int(f.Offset+f.Size) > len(b) || !f.Live(b) {
			continue
		}
		addr := f.Uint(b)
		if addr == 0 {
			continue
		}
		q.Buffers = append(q.Buffers, Buffer{Field: f, Parent: parent, Offset: f.Offset, Addr: addr, Len: length(l, f, b)})
	}
	if e := r.fill(t, q, l, b, first); e != 0 {
		return e
	}
	for i := first; i < len(q.Buffers); i++ {
		u := &q.Buffers[i]
		if u.Fault || u.Data == nil {
			continue
		}
		switch {
		case u.Field.Buffer.Elem == abi.ElemStrings:
			if e := r.symbols(t, q, i); e != 0 {
				return e
			}
		case u.Field.Buffer.Struct != nil && u.Field.Buffer.Dir == abi.In:
			if e := r.pointers(t, q, u.Field.Buffer.Struct, u.Data, i); e != 0 {
				return e
			}
		}
	}
	return 0
}

// length is the number of bytes that the application says a buffer has.
func length(l *abi.Layout, f *abi.Field, b []byte) uint64 {
	n := f.Buffer.Len
	if n.Count == "" {
		return uint64(n.Elem)
	}
	count := l.Field(n.Count).Uint(b)
	if n.Rec != "" {
		return count * l.Field(n.Rec).Uint(b)
	}
	return count * uint64(n.Elem)
}

// plan is how much memory the buffers of a layout may take, in bytes.
func plan(l *abi.Layout, b []byte) int64 {
	var n uint64
	for i := range l.Fields {
		f := &l.Fields[i]
		if f.Class != abi.Pointer || int(f.Offset+f.Size) > len(b) || !f.Live(b) || f.Uint(b) == 0 {
			continue
		}
		size := min(clamp(l, f, b), f.Buffer.Len.Max)
		switch {
		case f.Buffer.Len.Clamp == abi.ClampLog:
			size = min(size, abi.FirstLog)
		case f.Buffer.Elem == abi.ElemStrings:
			size += min(size/8*abi.MaxSymbol, maxStrings) + size/8*perString
		}
		n += size
	}
	return int64(n)
}

// fill copies the buffers from index first on. All of fixed length come in one
// system call; what that doesn't bring is read one by one.
func (r *Reader) fill(t Target, q *Request, l *abi.Layout, b []byte, first int) sys.Errno {
	r.segs, r.segOf = r.segs[:0], r.segOf[:0]
	for i := first; i < len(q.Buffers); i++ {
		u := &q.Buffers[i]
		rule := u.Field.Buffer
		if rule.Dir == abi.Out || rule.Elem == abi.ElemString || (rule.Elem == abi.ElemStruct && rule.Struct == nil) ||
			rule.Len.Clamp == abi.ClampFDArray {
			continue
		}
		n := clamp(l, u.Field, b)
		if n > rule.Len.Max {
			u.Fault = true
			continue
		}
		if n == 0 {
			continue
		}
		// Of a structure a field that is given in part counts, too: the rest is zero.
		size := n
		if rule.Struct != nil {
			size = max(n, uint64(rule.Struct.Size))
		}
		if u.Data = r.mem.Alloc(int(size)); u.Data == nil {
			return sys.ENOMEM
		}
		clear(u.Data[n:])
		r.segs = append(r.segs, sys.Segment{Addr: u.Addr, Data: u.Data[:n]})
		r.segOf = append(r.segOf, i)
	}
	if len(r.segs) > 0 && (len(r.segs) == 1 || !t.ReadAll(r.segs)) {
		for k, s := range r.segs {
			if n, e := t.Read(s.Addr, s.Data); n < len(s.Data) {
				if e != 0 && e != sys.EFAULT {
					return e
				}
				q.Buffers[r.segOf[k]].Fault = true
			}
		}
	}
	for i := first; i < len(q.Buffers); i++ {
		u := &q.Buffers[i]
		rule := u.Field.Buffer
		var e sys.Errno
		switch {
		case rule.Dir == abi.In && rule.Elem == abi.ElemString:
			if buf := r.mem.Alloc(int(rule.Len.Max)); buf == nil {
				e = sys.ENOMEM
			} else {
				u.Data, u.Fault, e = text(t, u.Addr, buf)
			}
		case rule.Len.Clamp == abi.ClampFDArray:
			e = r.fdArray(t, q, u)
		}
		if e != 0 {
			return e
		}
	}
	return 0
}

// clamp is a buffer's length after the rules of abi/lengths.go.
func clamp(l *abi.Layout, f *abi.Field, b []byte) uint64 {
	n := length(l, f, b)
	switch rule := f.Buffer.Len; rule.Clamp {
	case abi.ClampLineInfo:
		return min(n, (l.Field("insn_cnt").Uint(b)+1)*l.Field(rule.Rec).Uint(b))
	case abi.ClampFuncInfo:
		return min(n, (abi.MaxSubprogs+1)*l.Field(rule.Rec).Uint(b))
	}
	return n
}

// text copies a string of at most len(buf) bytes to buf, up to and including
// its NUL. Where there is no NUL within that, all of buf comes, as
// strncpy_from_user has it. fault: the memory ends before the NUL.
func text(t Target, addr uint64, buf []byte) (s []byte, fault bool, e sys.Errno) {
	for n := 0; n < len(buf); {
		// To the end of the page: the next one may not be there.
		chunk := min(len(buf)-n, abi.PageSize-int((addr+uint64(n))%abi.PageSize))
		got, e := t.Read(addr+uint64(n), buf[n:n+chunk])
		if e != 0 && e != sys.EFAULT {
			return nil, false, e
		}
		if i := stdbytes.IndexByte(buf[n:n+got], 0); i >= 0 {
			return buf[: n+i+1 : n+i+1], false, 0
		}
		if n += got; got < chunk {
			return nil, true, 0
		}
	}
	return buf, false, 0
}

// symbols copies the strings that an array of pointers (kprobe_multi.syms)
// points to; each becomes a buffer of its own.
func (r *Reader) symbols(t Target, q *Request, array int) sys.Errno {
	data := q.Buffers[array].Data
	room := r.mem.Alloc(min(len(data)/8*abi.MaxSymbol, maxStrings))
	if room == nil {
		return sys.ENOMEM
	}
	for off := 0; off+8 <= len(data); off += 8 {
		u := Buffer{Field: &symbolField, Parent: array, Offset: uint32(off), Addr: abi.Uint(data, uint32(off), 8), Len: abi.MaxSymbol}
		if len(room) < abi.MaxSymbol {
			return sys.ENOMEM
		}
		var e sys.Errno
		if u.Data, u.Fault, e = text(t, u.Addr, room[:abi.MaxSymbol:abi.MaxSymbol]); e != 0 {
			return e
		}
		room = room[len(u.Data):]
		q.Buffers = append(q.Buffers, u)
		if u.Fault || u.Data[len(u.Data)-1] != 0 {
			break // the kernel stops here as well: EFAULT, E2BIG
		}
	}
	return 0
}

var symbolField = abi.Field{Name: "sym", Size: 8, Class: abi.Pointer,
	Buffer: &abi.Buffer{Dir: abi.In, Elem: abi.ElemString, Len: abi.Len{Elem: abi.MaxSymbol, Max: abi.MaxSymbol}}}

// info copies the structure of BPF_OBJ_GET_INFO_BY_FD, whose layout only the
// kind of the file tells, and prepares the buffers that it points to.
func (r *Reader) info(t Target, q *Request) sys.Errno {
	f := q.File(int(int32(q.Field("bpf_fd"))))
	at := -1
	for i := range q.Buffers {
		if q.Buffers[i].Field.Name == "info" {
			at = i
		}
	}
	if f == nil || at < 0 {
		return 0
	}
	u := &q.Buffers[at]
	if q.Info = abi.InfoLayout(f.Kind); q.Info == nil || u.Len > abi.PageSize {
		u.Fault = q.Info == nil
		return 0
	}
	raw := r.mem.Alloc(int(u.Len))
	if raw == nil {
		return sys.ENOMEM
	}
	if n, e := t.Read(u.Addr, raw); n < len(raw) {
		if e != 0 && e != sys.EFAULT {
			return e
		}
		u.Fault = true
		return 0
	}
	// As for the attribute: what we don't know must be zero.
	if len(raw) > int(q.Info.Size) {
		for _, b := range raw[q.Info.Size:] {
			if b != 0 {
				return sys.E2BIG
			}
		}
	}
	if q.Selector = r.mem.Alloc(int(q.Info.Size)); q.Selector == nil {
		return sys.ENOMEM
	}
	clear(q.Selector)
	copy(q.Selector, raw)
	if f.Kind == abi.Link {
		if e := r.linkSelector(t, f.N, q.Selector); e != 0 {
			return e
		}
	}
	r.mem.Reserve(plan(q.Info, q.Selector))
	if whole := wholePointers(q.Info, q.Selector, len(raw)); whole > len(raw) {
		part := raw
		if raw = r.mem.Zeroed(whole); raw == nil {
			return sys.ENOMEM
		}
		copy(raw, part)
	}
	u.Data = raw
	for i := range q.Info.Fields {
		p := &q.Info.Fields[i]
		if p.Class != abi.Pointer || int(p.Offset+p.Size) > len(raw) || !p.Live(q.Selector) {
			continue
		}
		// The kernel writes through all of them and reads through none.
		if addr := p.Uint(raw); addr != 0 {
			q.Buffers = append(q.Buffers, Buffer{Field: p, Parent: at, Offset: p.Offset, Addr: addr, Len: length(q.Info, p, q.Selector)})
		}
	}
	return 0
}

// wholePointers is how long a structure of n bytes is with all of the pointer in which it
// ends: the kernel takes what isn't there for 0, and half of the pointer that we put in
// its place would be another.
func wholePointers(l *abi.Layout, sel []byte, n int) int {
	for i := range l.Fields {
		f := &l.Fields[i]
		if f.Class == abi.Pointer && int(f.Offset) < n && n < int(f.Offset+f.Size) && f.Live(sel) {
			return int(f.Offset + f.Size)
		}
	}
	return n
}

// linkSelector sets the types in sel by which a link's union is told apart: the
// link, not the application, knows them.
func (r *Reader) linkSelector(t Target, fd int, sel []byte) sys.Errno {
	info := r.mem.Alloc(len(sel))
	if info == nil {
		return sys.ENOMEM
	}
	clear(info)
	if e := t.LinkInfo(fd, info); e != 0 {
		return e
	}
	linkType, eventType := abi.LinkInfo.Field("type"), abi.LinkInfo.Field("perf_event.type")
	linkType.Put(sel, linkType.Uint(info))
	if abi.LinkTypes.KernelName(linkType.Uint(info)) == "BPF_LINK_TYPE_PERF_EVENT" {
		eventType.Put(sel, eventType.Uint(info))
	}
	return 0
}
