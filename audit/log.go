package audit

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// Config is what a Log works with.
type Config struct {
	Workload string // whose the book is
	Book     int    // its fd
	Sink     Sink   // the Log closes it
	Programs *Programs
	// Report is told of errors, once for each row of them: workloads go on without a
	// log.
	Report func(error)
}

// Log takes one workload's records from its book to a sink.
type Log struct {
	cfg   Config
	book  *book
	unmap func()

	closing atomic.Bool
	ended   chan struct{}

	mu    sync.Mutex
	added []*Record // the daemon's own
	over  uint64    // of these, as many were too many

	// The reader's.
	tail, last uint64
	buf        []byte
	print      *printer
	lines      []Line
	bytes      int
	unwritten  uint64 // records that the sink didn't take
	failing    bool
	full       bool // it was said that no more programs are kept
}

const (
	// batch is how many bytes of lines are written at once.
	batch = 64 << 10
	// rest is how long the reader leaves a worker alone after it has read what there
	// was: to wake it costs more than to note a record. If it has worked for longer, it
	// rests for as long, so that no workload's log takes more than half a processor.
	rest    = 5 * time.Millisecond
	maxRest = 100 * time.Millisecond
	// nap is how long it sleeps where nobody wakes it.
	nap = time.Second
	// maxAdded bounds the daemon's own records that wait.
	maxAdded = 256
	// lastWords is how long the sink may take at the end.
	lastWords = 2 * time.Second
	// skew is how old a record may say to be.
	skew = time.Minute
)

// Start begins to read, where the reader before has ended.
func Start(cfg Config) (*Log, error) {
	b, unmap, err := open(cfg.Book)
	if err != nil {
		return nil, err
	}
	l := &Log{cfg: cfg, book: b, unmap: unmap, ended: make(chan struct{}), print: newPrinter(),
		tail: atomic.LoadUint64(&b.tail), last: atomic.LoadUint64(&b.last)}
	go func() {
		defer close(l.ended)
		l.run()
	}()
	return l, nil
}

// Add notes a decision of the daemon's own. It doesn't wait. nil is no log.
func (l *Log) Add(r *Record) {
	if l == nil {
		return
	}
	l.mu.Lock()
	if len(l.added) < maxAdded {
		l.added = append(l.added, r)
	} else {
		l.over++
	}
	l.mu.Unlock()
	l.wake()
}

// Close writes what is left, once the workers have ended. A sink that doesn't take it
// for long is left to itself.
func (l *Log) Close() error {
	if l == nil || l.closing.Swap(true) {
		return nil
	}
	l.wake()
	select {
	case <-l.ended:
		l.unmap()
		return l.cfg.Sink.Close()
	case <-time.After(lastWords):
		return fmt.Errorf("audit log: %v didn't take its end within %v", l.cfg.Sink, lastWords)
	}
}

func (l *Log) wake() {
	if atomic.CompareAndSwapUint32(&l.book.asleep, 1, 0) {
		sys.Wake(&l.book.asleep)
	}
}

func (l *Log) run() {
	for {
		last := l.closing.Load() // what comes before that is there
		began := time.Now()
		some := l.drain(last)
		switch {
		case last:
			return
		case some:
			time.Sleep(min(max(rest, time.Since(began)), maxRest))
		default:
			l.sleep()
		}
	}
}

func (l *Log) sleep() {
	b := l.book
	atomic.StoreUint32(&b.asleep, 1)
	l.mu.Lock()
	waits := len(l.added) > 0
	l.mu.Unlock()
	if !waits && !l.closing.Load() && atomic.LoadUint64(&b.head) == l.tail {
		sys.WaitOn(&b.asleep, 1, nap)
	}
	atomic.StoreUint32(&b.asleep, 0)
}

// drain takes what there is now, once around the ring at most, and says whether there
// was anything.
func (l *Log) drain(end bool) (some bool) {
	b := l.book
	head := atomic.LoadUint64(&b.head)
	now := time.Now()
	if head-l.tail > ringSize {
		l.lost(now, 1, "the worker's book is unreadable")
		l.tail = head
	}
	for l.tail != head {
		some = true
		p, ok := l.next(head)
		if !ok {
			l.lost(now, 1, "the worker's book is unreadable")
			l.tail = head
			break
		}
		l.tail += 4 + uint64(len(p))
		l.record(p, now)
		if l.bytes >= batch {
			l.flush()
		}
	}
	l.mu.Lock()
	added, over := l.added, l.over
	l.added, l.over = nil, 0
	l.mu.Unlock()
	for _, r := range added {
		some = true
		r.Workload = l.cfg.Workload
		l.line(l.print.decision(r))
	}
	if over > 0 {
		l.lost(now, over, "no room for records of the daemon's")
	}
	if seq := atomic.LoadUint64(&b.seq); end && seq > l.last { // nothing comes after them
		l.lost(now, seq-l.last, noRoom)
		l.last = seq
	}
	l.flush()
	return some
}

const noRoom = "no room for them: they came faster than they could be written"

// next is the record at the tail, a copy; false: there is none, which can't be.
func (l *Log) next(head uint64) ([]byte, bool) {
	there := head - l.tail
	if there < 4 {
		return nil, false
	}
	var size [4]byte
	l.book.copyOut(l.tail, size[:])
	n := uint64(le.Uint32(size[:]))
	if n < headSize || n > maxEntry || n > there-4 {
		return nil, false
	}
	if uint64(cap(l.buf)) < n {
		l.buf = make([]byte, n)
	}
	p := l.buf[:n]
	l.book.copyOut(l.tail+4, p)
	return p, true
}

// record makes a line of a record.
func (l *Log) record(p []byte, now time.Time) {
	r, err := parse(p)
	if err != nil {
		l.lost(now, 1, err.Error())
		if seq := seqOf(p); seq == l.last+1 {
			l.last = seq
		}
		return
	}
	switch {
	case r.Seq <= l.last: // the reader before has written it, or it is made up
		return
	case r.Seq != l.last+1:
		l.lost(now, r.Seq-l.last-1, noRoom)
	}
	l.last = r.Seq
	r.Workload = l.cfg.Workload
	if r.Time.After(now) || now.Sub(r.Time) > skew {
		r.Time = now
	}
	if r.Program.Insns != nil {
		l.keep(&r.Program)
	}
	l.line(l.print.decision(r))
}

// seqOf is the number of a record that needn't be one.
func seqOf(p []byte) uint64 { return le.Uint64(p[4:]) }

// keep stores a program's instructions.
func (l *Log) keep(p *Program) {
	digest, err := l.cfg.Programs.Keep(p.Insns)
	p.Insns, p.Digest = nil, digest
	if err != nil {
		p.Why = err.Error()
		if !l.full {
			l.cfg.Report(fmt.Errorf("audit log: keep program: %w; it is said once", err))
		}
	}
	l.full = err != nil
}

func (l *Log) lost(at time.Time, n uint64, why string) {
	l.line(l.print.lost(at, l.cfg.Workload, n, why))
}

func (l *Log) line(line Line) {
	l.lines = append(l.lines, line)
	l.bytes += len(line.Text)
}

// flush writes the lines, and notes how far we are.
func (l *Log) flush() {
	if len(l.lines) > 0 {
		lines := l.lines
		if l.unwritten > 0 {
			lines = append([]Line{l.print.lost(time.Now(), l.cfg.Workload, l.unwritten, "the log couldn't be written")}, lines...)
		}
		switch err := l.cfg.Sink.Write(lines); {
		case err == nil:
			l.unwritten, l.failing = 0, false
		default:
			l.unwritten += uint64(len(l.lines))
			if !l.failing {
				l.cfg.Report(fmt.Errorf("audit log: %w; records are lost until it works again", err))
			}
			l.failing = true
		}
		clear(l.lines)
		l.lines, l.bytes = l.lines[:0], 0
	}
	// In this order: the next reader passes over what has been written.
	atomic.StoreUint64(&l.book.last, l.last)
	atomic.StoreUint64(&l.book.tail, l.tail)
}
