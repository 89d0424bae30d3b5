package audit

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/ledger"
	"github.com/bpfbroker/bpfbroker/policy"
)

const (
	// ringSize is how many bytes of records the reader may be behind. A record has some
	// 200 bytes.
	ringSize = 2 << 20
	// maxEntry bounds a record with its instructions: 130,000 of them.
	maxEntry = ringSize / 2
)

// book is the memory that worker and daemon share, as it is laid out. All that a
// worker writes may be anything.
type book struct {
	// The writer's. Records lie in the ring one after the other, each behind its length
	// (4 bytes); head is how many bytes were ever written, set when a record is complete.
	head uint64
	seq  uint64 // the number of the last decision, noted or not
	_    [48]byte
	// The reader's. It believes its own copies; these are for the next reader.
	tail   uint64 // how many bytes were read
	last   uint64 // the number of the last record that went to the sink
	asleep uint32 // 1: it wants to be woken
	_      [44]byte
	// What is known of the decisions whose outcome isn't, for the next worker: one for
	// each slot of the ledger.
	pads [ledger.Slots]padding
	ring [ringSize]byte
}

type padding struct {
	size    uint32 // of the body; 0: there is none
	attempt uint32
	began   int64 // monotonic
	wall    int64
	full    uint32
	_       uint32
	body    [bodySize]byte
}

// Create makes an empty book. The file is all that there is of it.
func Create() (*os.File, error) {
	f, err := sys.SharedMemory[book]("bpfbroker-audit")
	if err != nil {
		return nil, fmt.Errorf("make audit book: %w", err)
	}
	return f, nil
}

func open(fd int) (*book, func(), error) {
	b, unmap, err := sys.MapShared[book](fd)
	if err != nil {
		return nil, nil, fmt.Errorf("map audit book: %w", err)
	}
	return b, unmap, nil
}

// Writer is a worker's side. It is safe for use by many threads; nil notes nothing.
type Writer struct {
	book  *book
	unmap func()
	mu    sync.Mutex
}

// OpenWriter maps the book that is open at fd.
func OpenWriter(fd int) (*Writer, error) {
	b, unmap, err := open(fd)
	if err != nil {
		return nil, err
	}
	b.count()
	return &Writer{book: b, unmap: unmap}, nil
}

// count makes sure that the next record gets a new number: a worker that was killed after
// it had published a record hasn't counted it. (Had it counted before, one that was killed
// in between would leave a number that nothing has, and the log would tell of a loss.)
func (b *book) count() {
	seq := max(b.seq, atomic.LoadUint64(&b.last))
	head := b.head
	for at := atomic.LoadUint64(&b.tail); at != head && head-at <= ringSize; {
		var front [4 + headSize]byte
		if head-at < uint64(len(front)) {
			break // no record of ours
		}
		b.copyOut(at, front[:])
		size := uint64(le.Uint32(front[:]))
		if size < headSize || size > maxEntry || size > head-at-4 {
			break
		}
		seq = max(seq, seqOf(front[4:]))
		at += 4 + size
	}
	atomic.StoreUint64(&b.seq, seq)
}

// Close unmaps it; no pad may be used afterwards.
func (w *Writer) Close() { w.unmap() }

// Pad is where the call is noted that is in the ledger's slot of that number.
func (w *Writer) Pad(slot int) *Pad {
	if w == nil {
		return nil
	}
	return &Pad{w, &w.book.pads[slot]}
}

// Pad notes one call at a time. All does nothing for nil: where no log is kept.
type Pad struct {
	w *Writer
	p *padding
}

// Begin notes that a call was received.
func (p *Pad) Begin() {
	if p != nil {
		p.p.size, p.p.attempt, p.p.began = 0, 1, sys.Monotonic()
	}
}

// Next notes that the call makes another one, as a loader does.
func (p *Pad) Next() {
	if p != nil {
		p.p.size, p.p.attempt, p.p.began = 0, max(p.p.attempt, 1), sys.Monotonic()
	}
}

// Again notes that a call is gone on with over which a worker was killed.
func (p *Pad) Again() {
	if p == nil {
		return
	}
	p.p.attempt = max(p.p.attempt, 1) + 1
	if p.p.began == 0 {
		p.p.began = sys.Monotonic()
	}
}

// Free notes that the call is over.
func (p *Pad) Free() {
	if p != nil {
		p.p.size, p.p.attempt, p.p.began = 0, 0, 0
	}
}

// Decided notes a decision.
func (p *Pad) Decided(f *facts.Facts, policyName string, d *policy.Decision) {
	if p == nil {
		return
	}
	pad := p.p
	atomic.StoreUint32(&pad.size, 0)
	if d.Audit == policy.AuditNone && d.Verdict != policy.Deny {
		return
	}
	pad.wall = time.Now().UnixNano()
	pad.full = 0
	if d.Audit == policy.AuditFull {
		pad.full = 1
	}
	b := appendBody(pad.body[:0], f, policyName, d)
	atomic.StoreUint32(&pad.size, uint32(min(len(b), bodySize)))
}

// Ended is what came of a call, as the broker has it.
type Ended struct {
	How      uint8
	Errno    sys.Errno
	Kind     abi.Object // of the object that an fd was made of
	ID       uint64
	ByDaemon bool
	Tag      uint64 // of the program that was made with a guard, as the kernel shows it (big-endian); 0: none was
	Insns    []byte // the program's, if it is one
	Resumed  bool   // the worker that decided was killed
}

// Ended publishes what was decided and what came of it. It never waits: where there is
// no room, the record is lost.
func (p *Pad) Ended(o *Ended) {
	if p == nil {
		return
	}
	pad := p.p
	size := atomic.LoadUint32(&pad.size)
	if size == 0 || size > bodySize {
		return
	}
	h := head{wall: pad.wall, took: sys.Monotonic() - pad.began, flags: o.How, errno: uint32(o.Errno), id: o.ID, kind: uint32(o.Kind), attempt: pad.attempt, tag: o.Tag}
	if o.ByDaemon {
		h.flags |= flagByDaemon
	}
	insns := o.Insns
	if pad.full == 0 {
		insns = nil
	} else if insns != nil {
		h.flags |= flagFull
	} else if o.Resumed {
		h.flags |= flagFull | flagLost
	}
	p.w.put(&h, pad.body[:size], insns)
	atomic.StoreUint32(&pad.size, 0)
}

// put writes a record into the ring, without its instructions if they don't fit.
func (w *Writer) put(h *head, body, insns []byte) {
	b := w.book
	w.mu.Lock()
	h.seq = b.seq + 1
	at := b.head
	used := at - atomic.LoadUint64(&b.tail)
	free := ringSize - min(used, ringSize)
	size := headSize + uint64(len(body))
	if n := size + uint64(len(insns)); n <= maxEntry && 4+n <= free {
		size, h.insns = n, uint32(len(insns))
	} else {
		insns = nil
	}
	if 4+size <= free {
		var front [4 + headSize]byte
		le.PutUint32(front[:], uint32(size))
		h.put(front[4:])
		at = b.copyIn(at, front[:])
		at = b.copyIn(at, body)
		at = b.copyIn(at, insns)
		atomic.StoreUint64(&b.head, at)
	}
	atomic.StoreUint64(&b.seq, h.seq) // after the record: see count
	w.mu.Unlock()
	if atomic.LoadUint32(&b.asleep) == 1 && atomic.CompareAndSwapUint32(&b.asleep, 1, 0) {
		sys.Wake(&b.asleep)
	}
}

func (b *book) copyIn(at uint64, p []byte) uint64 {
	n := copy(b.ring[at%ringSize:], p)
	copy(b.ring[:], p[n:])
	return at + uint64(len(p))
}

func (b *book) copyOut(at uint64, p []byte) {
	n := copy(p, b.ring[at%ringSize:])
	copy(p[n:], b.ring[:])
}
