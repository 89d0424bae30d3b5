// Package perform makes the call: bpf(), on the request's copy, in the
// workload's place. It knows nothing of policy.
package perform

import (
	"bytes"
	"sync"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/arena"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/request"
)

// Place is where a call belongs: the target's namespaces, file system and ids.
type Place interface {
	// Enter makes the calling thread act in the target's place as far as n says.
	// Where it fails, nothing has changed.
	Enter(n Needs) sys.Errno
	// Leave takes Enter back.
	Leave()
	// PIDFrom translates a process id of the target's pid namespace to ours, and
	// PIDIn one of ours to the target's.
	PIDFrom(pid uint32) (uint32, sys.Errno)
	PIDIn(pid uint32) (uint32, sys.Errno)
	// UIDIn translates a user id of our user namespace to the target's.
	UIDIn(uid uint32) (uint32, sys.Errno)
	// TID is the target's thread id in our pid namespace.
	TID() uint32
	// OpenPath opens, with O_PATH, what a path of the target's leads to, from the
	// directory fd base or sys.AtCWD. It closes the fd when the call is over.
	OpenPath(base int, path []byte) (int, sys.Errno)
}

// Needs says what of the target's a call is made with.
type Needs struct {
	Creds bool // uid and gid
	Plain bool // groups too, and no capability: it opens what the target may open
	Net   bool // network namespace
	Root  bool // root and working directory
}

// Objects knows which objects are the workload's.
type Objects interface {
	Owns(kind abi.Object, id uint32) bool
	// Next returns the smallest id above after that the workload owns, 0 for none.
	Next(kind abi.Object, after uint32) uint32
	Add(kind abi.Object, id uint32)
}

// Result is what the kernel answered.
type Result struct {
	Value int // what bpf() returned, where Errno is 0 and there is no FD
	FD    int // a new fd in the calling thread's table, or -1
	// CloseOnExec says that FD shall be O_CLOEXEC, as all of bpf()'s are.
	CloseOnExec bool
	Errno       sys.Errno // 0: success

	Attr []byte // the attribute as the kernel left it; nil: it has never seen it
	// Out holds, for each of the request's buffers, its memory as the kernel left
	// it; nil where the kernel had nothing to write.
	Out [][]byte
}

// Performer makes calls, one at a time, on one locked thread.
type Performer struct {
	mem     *arena.Arena
	objects Objects
	res     Result
	pathErr sys.Errno // why a path leads nowhere
}

// New returns a Performer that takes its memory from mem.
func New(mem *arena.Arena, objects Objects) *Performer {
	return &Performer{mem: mem, objects: objects}
}

// attrRoom is what the kernel may write to of our attribute: its own union
// bpf_attr, which may be larger than the table's.
const attrRoom = 1024

// keep is how many buffers there is room for between calls: a request with many
// symbols has far more.
const keep = 1024

// unwritten marks a log's true size before the call: more than any log can have.
const unwritten = 0xffffffff

// noText is at the beginning of a log buffer before the call. No log has it.
const noText = 0xff

// bigLog lets one call at a time use a log buffer of more than abi.FirstLog.
var bigLog sync.Mutex

// Do performs the request and returns what came of it; the result is valid
// until the next call. A result's FD is the caller's to close.
func (p *Performer) Do(q *request.Request, at Place) *Result {
	r := &p.res
	if cap(r.Out) > keep {
		r.Out = nil
	}
	*r = Result{FD: -1, CloseOnExec: true, Out: r.Out[:0]}
	p.pathErr = 0
	e := p.build(q, r, at)
	if e == 0 {
		e = at.Enter(needs(q))
	}
	if e != 0 {
		r.Errno, r.Attr, r.Out = e, nil, nil
		return r
	}
	r.Value, r.Errno = p.call(q, r)
	at.Leave()
	if r.Errno == sys.ENOENT && p.pathErr != 0 {
		r.Errno = p.pathErr
	}
	if log := logOf(q); log != nil && r.Errno != 0 {
		p.growLog(q, r, at, log)
	}
	idsInTarget(q, r, at)
	p.finish(q, r)
	return r
}

func (p *Performer) call(q *request.Request, r *Result) (int, sys.Errno) {
	if q.Syscall == abi.SyscallPerfEventOpen {
		return perfEventOpen(q, r)
	}
	switch q.Command {
	case abi.ProgGetNextID, abi.MapGetNextID, abi.BTFGetNextID, abi.LinkGetNextID:
		return p.nextID(q, r)
	}
	return sys.BPF(uint32(q.Command), r.Attr, q.Size)
}

// needs says where the call must be made.
func needs(q *request.Request) Needs {
	n := Needs{Creds: q.Row.Creds, Net: len(q.Row.Net) > 0 && abi.Holds(q.Row.Net, q.Attr)}
	for i := range q.Row.Fields {
		f := &q.Row.Fields[i]
		if f.Class == abi.Ifindex && f.Live(q.Attr) && f.Uint(q.Attr) != 0 {
			n.Net = true
		}
	}
	for i := range q.Buffers {
		switch q.Buffers[i].Field.Buffer.Path {
		case abi.PathOpen, abi.PathCreate:
			// What it opens, it opens as the target; the others look at nothing
			// of the file's once it is found.
			n.Plain = q.Row.Creds
		case abi.PathShown:
			n.Root = true
		}
	}
	return n
}

// build makes the attribute and the buffers that the kernel is given.
func (p *Performer) build(q *request.Request, r *Result, at Place) sys.Errno {
	if r.Attr = p.mem.Alloc(attrRoom); r.Attr == nil {
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
	if f := q.Row.Field("func_info_cnt"); f != nil && f.Uint(r.Attr) > abi.MaxSubprogs {
		f.Put(r.Attr, abi.MaxSubprogs+1)
	}
	if log := logOf(q); log != nil {
		log.true.Put(r.Attr, unwritten)
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
	case rule.Wrote == abi.WroteElems || rule.Wrote == abi.WroteString || rule.Wrote == abi.WroteCount && q.Info == &abi.LinkInfo:
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

// structure copies what the kernel reads of a structure that it also writes: not
// what it only writes, and no pointer, which are set later. Of the padding at the
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
		if f.Class != abi.Pointer && f.Dir != abi.Out && int(f.Offset+f.Size) <= len(out) {
			copy(out[f.Offset:f.Offset+f.Size], b.Data[f.Offset:])
		}
	}
	for i := range q.Info.Fields {
		f := &q.Info.Fields[i]
		if f.Class == abi.Pointer && f.Live(q.Selector) && int(f.Offset+f.Size) <= len(out) {
			f.Put(out, 0)
		}
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

// Log is a command's log: where its size and its true size are.
type logFields struct {
	size, true *abi.Field
	buffer     int // index in the request's buffers, -1 for none
}

func logOf(q *request.Request) *logFields {
	prefix := ""
	switch q.Command {
	case abi.ProgLoad:
	case abi.BTFLoad:
		prefix = "btf_"
	default:
		return nil
	}
	l := &logFields{size: q.Row.Field(prefix + "log_size"), true: q.Row.Field(prefix + "log_true_size"), buffer: -1}
	for i := range q.Buffers {
		if q.Buffers[i].Field.Buffer.Len.Clamp == abi.ClampLog {
			l.buffer = i
		}
	}
	return l
}

// growLog performs a load again whose log didn't fit into our smaller buffer,
// but might have fitted into the application's: it has failed with ENOSPC, so
// nothing is there to undo.
func (p *Performer) growLog(q *request.Request, r *Result, at Place, log *logFields) {
	if r.Errno != sys.ENOSPC || log.buffer < 0 {
		return
	}
	want := q.Buffers[log.buffer].Len
	if want <= abi.FirstLog || want > abi.MaxLog {
		return
	}
	if n := log.true.Uint(r.Attr); n != unwritten {
		if n <= abi.FirstLog {
			return
		}
		want = min(want, n)
	}
	bigLog.Lock()
	defer bigLog.Unlock()
	m, e := sys.MapGuarded(int(want))
	if e != 0 {
		r.Errno = sys.ENOMEM
		return
	}
	p.mem.Own(m)
	m.Bytes[0] = noText
	r.Out[log.buffer] = m.Bytes
	abi.Put(r.Attr, q.Buffers[log.buffer].Offset, 8, sys.Addr(m.Bytes))
	log.size.Put(r.Attr, want)
	log.true.Put(r.Attr, unwritten)
	if e := at.Enter(needs(q)); e != 0 {
		r.Errno = e
		return
	}
	r.Value, r.Errno = p.call(q, r)
	at.Leave()
}

// nextID answers …_GET_NEXT_ID with the workload's own objects, and for BTF with
// the kernel's as well.
func (p *Performer) nextID(q *request.Request, r *Result) (int, sys.Errno) {
	kind := q.Row.Fields[0].Object
	start, next := q.Row.Field("start_id"), q.Row.Field("next_id")
	for {
		v, e := sys.BPF(uint32(q.Command), r.Attr, q.Size)
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

// LogLength is how many bytes of the log buffer the kernel wrote: what its true
// size says (kernel 6.4, kernel/bpf/log.c), or up to the NUL before.
func LogLength(q *request.Request, r *Result) int {
	log := logOf(q)
	if log == nil || log.buffer < 0 || r.Out[log.buffer] == nil {
		return 0
	}
	out := r.Out[log.buffer]
	if n := log.true.Uint(r.Attr); n != unwritten && n > 0 {
		return int(min(n, uint64(len(out))))
	}
	if len(out) == 0 || out[0] == noText {
		return 0
	}
	if i := bytes.IndexByte(out, 0); i >= 0 {
		return i + 1
	}
	return len(out)
}

// Untouched says whether the kernel left an output field of the attribute as it
// was before the call, or wrote what was there.
func Untouched(q *request.Request, r *Result, f *abi.Field) bool {
	if log := logOf(q); log != nil && f == log.true && f.Uint(r.Attr) == unwritten {
		return true
	}
	return f.Uint(r.Attr) == f.Uint(q.Attr)
}
