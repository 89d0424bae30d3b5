package perform

import (
	"bytes"
	"sync"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/request"
)

// unwritten marks a log's true size before the call: more than any log can have.
const unwritten = 0xffffffff

// tellsTrueSize says whether the kernel knows log_true_size (Linux 6.4). An older one
// wants it to be zero, which it looks at before all else (EINVAL).
var tellsTrueSize = sync.OnceValue(func() bool {
	row, attr := abi.RowOf(abi.ProgLoad), make([]byte, sys.AttrRoom)
	row.Field("log_true_size").Put(attr, 1)
	_, e := sys.BPF(uint32(abi.ProgLoad), attr, row.LastEnd)
	return e != sys.EINVAL
})

// noText is at the beginning of a log buffer before the call. No log has it.
const noText = 0xff

// bigLog lets one call at a time use a log buffer of more than abi.FirstLog.
var bigLog sync.Mutex

// logFields are a command's log: where its level, its size and its true size are.
type logFields struct {
	level, size, true *abi.Field
	buffer            int // index in the request's buffers, -1 for none
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
	l := &logFields{level: q.Row.Field(prefix + "log_level"), size: q.Row.Field(prefix + "log_size"), true: q.Row.Field(prefix + "log_true_size"), buffer: -1}
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
	whole := q.Buffers[log.buffer].Len
	if whole <= abi.FirstLog || whole > abi.MaxLog {
		return
	}
	size := whole
	if n := log.true.Uint(r.Attr); n != unwritten && tellsTrueSize() {
		if n <= abi.FirstLog {
			return
		}
		size = min(whole, n)
	}
	bigLog.Lock()
	defer bigLog.Unlock()
	p.withLog(q, r, at, log, size)
	if r.Errno == sys.ENOSPC && size < whole {
		// We were stopped the first time, and its log had not come to its end.
		p.withLog(q, r, at, log, whole)
	}
}

// withLog performs a load again, with a log buffer of that size.
func (p *Performer) withLog(q *request.Request, r *Result, at Place, log *logFields, size uint64) {
	m, e := sys.MapGuarded(int(size))
	if e != 0 {
		r.Errno = sys.ENOMEM
		return
	}
	p.mem.Own(m)
	m.Bytes[0] = noText
	r.Out[log.buffer] = m.Bytes
	abi.Put(r.Attr, q.Buffers[log.buffer].Offset, 8, sys.Addr(m.Bytes))
	log.size.Put(r.Attr, size)
	if tellsTrueSize() {
		log.true.Put(r.Attr, unwritten)
	}
	if e := at.Enter(needs(q)); e != 0 {
		r.Errno = e
		return
	}
	r.Value, r.Errno = p.call(q, r)
	at.Leave()
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
// was before the call, or wrote what was there in a call that failed. Of a log's true
// size it writes as much as the caller has room for, and with a token we may have said
// more than the application has.
func Untouched(q *request.Request, r *Result, f *abi.Field) bool {
	if log := logOf(q); log != nil && f == log.true {
		return f.Uint(r.Attr) == unwritten || q.Size < f.Offset+f.Size
	}
	written := r.Errno == 0 && !f.Maybe
	return !written && f.Uint(r.Attr) == f.Uint(q.Attr)
}

// Logs says whether the request is a load whose caller wants to know how it went.
func Logs(q *request.Request) bool {
	log := logOf(q)
	return log != nil && log.buffer >= 0 && log.level.Uint(q.Attr) != 0 && !q.Buffers[log.buffer].Fault
}

// Explained is the result of a load that isn't performed, but refused with e: its log is
// the text, as the verifier writes one. A NUL ends it, it is cut to the caller's room,
// and its true size is told by kernels that do so.
func Explained(q *request.Request, e sys.Errno, text string) *Result {
	r := &Result{FD: -1, Errno: e, Attr: bytes.Clone(q.Attr), Out: make([][]byte, len(q.Buffers))}
	writeLog(q, r, text)
	return r
}

// writeLog makes a text the log of a load that Logs.
func writeLog(q *request.Request, r *Result, text string) {
	log := logOf(q)
	log.true.Put(r.Attr, unwritten)
	if tellsTrueSize() {
		log.true.Put(r.Attr, uint64(len(text)+1))
	}
	if room := q.Buffers[log.buffer].Len; room > 0 {
		r.Out[log.buffer] = append([]byte(text[:min(uint64(len(text)), room-1)]), 0)
	}
}
