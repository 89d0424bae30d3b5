package broker

import (
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/notify"
	"github.com/bpfbroker/bpfbroker/perform"
	"github.com/bpfbroker/bpfbroker/reply"
	"github.com/bpfbroker/bpfbroker/request"
)

// A runtime's filter may lack SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV. Then a signal
// interrupts a call that waits for us, and when the handler has run the kernel has the
// target make it again (SA_RESTART): another notification, of the same thread, from the
// same place, with the same arguments. It gets what the first one gets, which is performed
// once. The thread that performs it keeps the call until it could be answered; others hand
// the notifications over to it that are the same call.
//
// What has a new fd is answered and handed over in one step, in which the target either
// gets both or neither. An answer without an fd may be lost where a signal comes right when
// it is given: the call is made again then.

// comesAgain is how long a call that was interrupted is kept for when it is made again. A
// handler without SA_RESTART makes it fail with EINTR, and perhaps nobody ever does.
const comesAgain = time.Second

// calls are those under way, of targets whose calls may be interrupted.
type calls struct {
	mu      sync.Mutex
	ongoing map[int][]*ongoing // by thread: a handler may make others
	seed    maphash.Seed
}

func newCalls() *calls {
	return &calls{ongoing: map[int][]*ongoing{}, seed: maphash.MakeSeed()}
}

// ongoing is a call that a thread performs.
type ongoing struct {
	key  callKey
	next chan *repeat // as it was made again; room for one
}

// repeat is a notification of the same call.
type repeat struct {
	n    *notify.Notification
	over chan struct{} // closed when somebody has seen to it
}

// callKey tells calls of a thread apart.
type callKey struct {
	ip   uint64
	nr   int32
	args [6]uint64
	read uint64 // a hash of all that was read of its memory
}

func (c *calls) key(n *notify.Notification, q *request.Request) callKey {
	var h maphash.Hash
	h.SetSeed(c.seed)
	_, _ = h.Write(q.Attr) // never fails
	for i := range q.Buffers {
		_, _ = h.Write(q.Buffers[i].Data)
	}
	return callKey{n.Data.InstructionPointer, n.Data.Nr, n.Data.Args, h.Sum64()}
}

// begin says that a call is begun; or, with an ongoing one, hands it over to who performs
// that one already.
func (c *calls) begin(tid int, k callKey, n *notify.Notification) (mine *ongoing, over <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.ongoing[tid] {
		if o.key != k {
			continue
		}
		select {
		case old := <-o.next: // which was interrupted, too
			close(old.over)
		default:
		}
		a := &repeat{n, make(chan struct{})}
		o.next <- a
		return nil, a.over
	}
	mine = &ongoing{key: k, next: make(chan *repeat, 1)}
	c.ongoing[tid] = append(c.ongoing[tid], mine)
	return mine, nil
}

// end says that nobody has to see to the call any more; but if it was made again meanwhile,
// that is returned, and it isn't over.
func (c *calls) end(tid int, o *ongoing) *repeat {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case a := <-o.next:
		return a
	default:
	}
	c.ongoing[tid] = slices.DeleteFunc(c.ongoing[tid], func(x *ongoing) bool { return x == o })
	if len(c.ongoing[tid]) == 0 {
		delete(c.ongoing, tid)
	}
	return nil
}

// interrupted says whether the call is one that another thread performs, by whom it has
// been answered then. Otherwise it is this thread's: see finished.
func (t *thread) interrupted(n *notify.Notification, q *request.Request) bool {
	if t.again == nil {
		return false
	}
	k := t.again.key(n, q)
	for {
		mine, over := t.again.begin(n.TID, k, n)
		if mine != nil {
			t.ongoing = mine
			return false
		}
		t.pool.pass(&t.member) // it may take long
		<-over
		if !t.listener.Waits(n) {
			return true
		}
	}
}

// finished ends what interrupted has begun. Who has handed a notification over meanwhile
// sees to it itself.
func (t *thread) finished(tid int) {
	if t.ongoing == nil {
		return
	}
	if t.last != nil {
		close(t.last.over)
	}
	for a := t.again.end(tid, t.ongoing); a != nil; a = t.again.end(tid, t.ongoing) {
		close(a.over)
	}
	t.ongoing, t.last = nil, nil
}

// comesAgain waits for the call to be made again; nil: it isn't.
func (t *thread) comesAgain() *notify.Notification {
	if t.ongoing == nil {
		return nil
	}
	t.pool.pass(&t.member) // another receives it
	select {
	case a := <-t.ongoing.next:
		if t.last != nil {
			close(t.last.over)
		}
		t.last = a
		return a.n
	case <-time.After(comesAgain):
		return nil
	}
}

// deliver is reply.Deliver for a call that may be interrupted, and the answer.
func (t *thread) deliver(n *notify.Notification, q *request.Request, r *perform.Result, handing func()) (e sys.Errno, there bool) {
	if r.FD >= 0 {
		handing()
	}
	e = r.Errno
	there = t.answer(n, func(n *notify.Notification) bool {
		if !t.listener.Waits(n) { // what its memory is for now, nobody knows
			return false
		}
		if out := reply.Outputs(t.target, q, r); out != 0 {
			e = out
		}
		if e != 0 || r.FD < 0 {
			return t.listener.Answer(n, r.Value, e)
		}
		failed := t.listener.InstallAndAnswer(n, r.FD, r.CloseOnExec)
		if failed == 0 || !t.listener.Waits(n) {
			return failed == 0
		}
		e = failed // its table of files is full, say
		return t.listener.Answer(n, 0, e)
	})
	return e, there
}

// answer gives an answer to a call as often as it is made again. False: it isn't any more.
func (t *thread) answer(n *notify.Notification, once func(*notify.Notification) bool) bool {
	if t.last != nil {
		n = t.last.n
	}
	for !once(n) {
		if n = t.comesAgain(); n == nil {
			return false
		}
	}
	return true
}

// tell answers with an error.
func (t *thread) tell(n *notify.Notification, e sys.Errno) {
	t.answer(n, func(n *notify.Notification) bool { return t.listener.Answer(n, 0, e) })
}
