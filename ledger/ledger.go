// Package ledger is what outlives a worker: which calls are under way, how far each
// has come, and what was counted. It is in shared memory (memfd_create(2)) that the
// daemon keeps open and the worker works in; the next worker goes on where the last
// one was killed.
//
// The kernel itself writes a call into its slot: the listener's receive has the
// slot as its buffer. So there is no instant at which a call was received, which
// nobody can do twice, and isn't in the ledger (kernel/seccomp.c,
// seccomp_notify_recv: where the copy fails, the call is taken back).
package ledger

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// Slots is how many calls may be under way at once.
const Slots = 128

// MaxBlame is as much as a call may have; one with more is refused.
const MaxBlame = 100

// Phase is how far a call has come.
type Phase uint32

const (
	// Reading: nothing has happened yet. The worker may be waiting for something of
	// the target's: memory, a file.
	Reading Phase = iota
	// Replying: what came of the call is being written to the target's memory; else as
	// Calling.
	Replying
	// Calling: the kernel performs the call, which leaves nothing behind but an fd,
	// and that dies with the worker. As after Reading, the next worker begins anew.
	Calling
	// Performing: the kernel performs a call with an effect beside its fd, which may
	// have happened.
	Performing
	// Performed: it has, with this outcome.
	Performed
	// Handing: the target may have its fd already.
	Handing
	// Handed: it has.
	Handed
)

// Slot is one call under way. It belongs to one thread of the worker.
type Slot struct {
	Notif sys.Notif // written by the kernel; its ID is 0 where there is no call

	phase uint32
	// Blame is how far the call is to blame for workers that ended over it.
	Blame uint32
	began int64

	// The outcome: Performed. Of Handed, the fd.
	errno uint32
	_     uint32
	value int64

	// Before is what a command with an effect found: see perform.Log.
	Before uint64

	// Object is what is being handed over: Handing.
	Object Object

	// inputs are what the target's memory held where outputs go.
	inputs [2]input
}

// input is a copy of some of a target's memory; n is set last, and 0 where there is
// none.
type input struct {
	addr uint64
	n    uint32
	data [InputSize]byte
}

// InputSize is as much as an input may have.
const InputSize = 256

// Object is a kernel object, as it is found again in a target's fd table.
type Object struct {
	Kind abi.Object
	Mark uint32 // of the open file; 0: the target can't have another one of the object
	ID   uint64 // 0: objects of this kind have none
}

// Phase is how far the call has come.
func (s *Slot) Phase() Phase { return Phase(atomic.LoadUint32(&s.phase)) }

// enter notes that the call has come to p; what belongs to p was noted before.
func (s *Slot) enter(p Phase) { atomic.StoreUint32(&s.phase, uint32(p)) }

// Replying notes that outputs are written next, and what the target's memory holds
// there that was read before.
func (s *Slot) Replying(memory []sys.Segment) {
	for i, m := range memory {
		in := &s.inputs[i]
		in.addr = m.Addr
		atomic.StoreUint32(&in.n, uint32(copy(in.data[:], m.Data)))
	}
	s.enter(Replying)
}

// Restore puts into p, which was read from the target's memory at addr, what
// Replying was told.
func (s *Slot) Restore(addr uint64, p []byte) {
	for i := range s.inputs {
		in := &s.inputs[i]
		for k, b := range in.data[:min(atomic.LoadUint32(&in.n), InputSize)] {
			if at := in.addr + uint64(k) - addr; at < uint64(len(p)) {
				p[at] = b
			}
		}
	}
}

// Calling implements perform.Log.
func (s *Slot) Calling() { s.enter(Calling) }

// Performing implements perform.Log.
func (s *Slot) Performing(before uint64) {
	s.Before = before
	s.enter(Performing)
}

// Performed implements perform.Log.
func (s *Slot) Performed(value int, e sys.Errno) {
	s.value, s.errno = int64(value), uint32(e)
	s.enter(Performed)
}

// Outcome is what Performed was told.
func (s *Slot) Outcome() (value int, e sys.Errno) { return int(s.value), sys.Errno(s.errno) }

// Handing notes that o is handed over next.
func (s *Slot) Handing(o Object) {
	s.Object = o
	s.enter(Handing)
}

// Handed notes that the target has the object at fd.
func (s *Slot) Handed(fd int) {
	s.value = int64(fd)
	s.enter(Handed)
}

// Free makes the slot ready for the next call, after the answer to the last one.
func (s *Slot) Free() { *s = Slot{} }

// Taken says whether there is a call in the slot.
func (s *Slot) Taken() bool { return s.Notif.ID != 0 }

// Begin notes that the call is begun now, perhaps anew.
func (s *Slot) Begin() {
	s.enter(Reading)
	atomic.StoreInt64(&s.began, sys.Monotonic())
}

// Again notes that a call with an effect is begun anew: it may have had its effect,
// and stays what it was.
func (s *Slot) Again() { atomic.StoreInt64(&s.began, sys.Monotonic()) }

// Waiting is how long the call has waited for something of its target's: 0 where it
// doesn't.
func (s *Slot) Waiting() time.Duration {
	if p := s.Phase(); !s.Taken() || p != Reading && p != Replying || s.Began() == 0 {
		return 0
	}
	return sys.Since(s.Began())
}

// Began is when that was: sys.Monotonic.
func (s *Slot) Began() int64 { return atomic.LoadInt64(&s.began) }

// book is the memory, as it is laid out.
type book struct {
	slots  [Slots]Slot
	bell   uint32
	served uint64
	denied [maxDenied]denial
	faults [maxFaults]text
}

// Ledger is a mapped one.
type Ledger struct {
	book    *book
	unmap   func()
	counter counter
}

// Create makes an empty ledger. The file is all that there is of it.
func Create() (*os.File, error) {
	f, err := sys.SharedMemory[book]("bpfbroker-ledger")
	if err != nil {
		return nil, fmt.Errorf("make ledger: %w", err)
	}
	return f, nil
}

// Layout is the version of what lies in a ledger, and of what its phases mean. It is
// counted up with each change (TestLayout): a worker of another version can't go on
// from it. It isn't noted in the ledger itself, to which a worker may write what it
// likes, but where only the daemon does (workload.OpenObjects).
const Layout = 2

// Open maps the ledger that is open at fd.
func Open(fd int) (*Ledger, error) {
	b, unmap, err := sys.MapShared[book](fd)
	if err != nil {
		return nil, fmt.Errorf("map ledger: %w", err)
	}
	return &Ledger{book: b, unmap: unmap}, nil
}

// Close unmaps it; no slot may be used afterwards.
func (l *Ledger) Close() { l.unmap() }

// Slot is the i-th slot.
func (l *Ledger) Slot(i int) *Slot { return &l.book.slots[i] }

// Number is the i of Slot(i).
func (l *Ledger) Number(s *Slot) int {
	for i := range l.book.slots {
		if &l.book.slots[i] == s {
			return i
		}
	}
	panic("a slot of another ledger")
}

// Bell is what a worker rings when it waits for the daemon: see package helper.
func (l *Ledger) Bell() *uint32 { return &l.book.bell }

// Count counts a call that was received.
func (l *Ledger) Count() { atomic.AddUint64(&l.book.served, 1) }
