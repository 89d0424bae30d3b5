package broker

import (
	"slices"
	"sync"
	"time"

	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/ledger"
)

// pool is the serving threads, each with a slot of the ledger, and says whose turn it
// is to receive. One does at a time: of several that wait for a call the kernel wakes
// every one (seccomp_do_user_notification in kernel/seccomp.c), which costs more than
// to serve most calls. For the same reason a thread keeps its turn while it handles a
// call. It loses it to another when it handles one for long, or knows that it will; or
// when more calls wait and there are processors for them.
//
// Of the threads that have nothing to do one is the heir. A timer wakes it while calls
// are handled, so that it sees whether it is its turn. The others are spare: they wait
// to become heir, and end when that takes long.
type pool struct {
	grow      func(*ledger.Slot) // makes a thread
	procs     int                // processors that calls may use at once
	turnLasts time.Duration      // how long the thread whose turn it is may handle a call, and how often the heir looks
	linger    time.Duration      // how long a spare thread lives

	mu            sync.Mutex
	threads, idle int            // of all, those that have nothing to do
	free          []*ledger.Slot // that no thread has
	turn          *member        // whose turn it is; nil: whoever comes first
	since         int64          // when that received the call that it handles; 0: it waits for one
	heir          *member        // waits on the timer, or is about to
	armed         bool           // the timer is set, or has expired and the heir is still to see it
	spare         []*member      // the last one to come is the first to go
	working       []*member      // those that handle a call which they have received
	later         bool           // a thread couldn't be made; it is tried again soon
}

const (
	turnLasts = time.Millisecond
	linger    = time.Second // making a thread costs as much as several calls
)

// member is a thread of the pool.
type member struct {
	slot   *ledger.Slot
	timer  sys.Timer   // the pool's one timer, by its number in the thread's fd table
	queue  func() bool // whether a call waits to be received
	called uint32      // changes when it stops being spare
	began  int64       // when it received the call that it handles
}

// await waits until it is m's turn. False: m isn't needed any more, and its slot is
// free.
func (p *pool) await(m *member) (turn bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.turn == m:
			return true, nil
		case p.may(m):
			p.leaveIdle(m)
			p.turn, p.since = m, 0
			return true, nil
		case p.heir == nil || p.heir == m:
			p.heir = m
			p.rearm()
			p.mu.Unlock()
			err := m.timer.Wait()
			p.mu.Lock()
			if err != nil {
				return false, err
			}
			p.armed = false
		default:
			p.spare = append(p.spare, m)
			if called := m.called; !p.park(m, called) {
				p.leaveIdle(m)
				p.remove(m)
				return false, nil
			}
		}
	}
}

// park waits until m, which is spare, is called. False: nobody needs it.
func (p *pool) park(m *member, called uint32) bool {
	for end := sys.Monotonic() + int64(p.linger); ; {
		p.mu.Unlock()
		sys.Park(&m.called, called, time.Duration(max(0, end-sys.Monotonic())))
		p.mu.Lock()
		switch {
		case m.called != called:
			return true
		case sys.Monotonic() >= end: // not only a signal
			return false
		}
	}
}

// may says whether m, which has nothing to do, may take the turn.
func (p *pool) may(m *member) bool {
	switch {
	case p.turn == nil:
		return true
	case p.since == 0: // who has it waits for a call
		return false
	}
	return sys.Since(p.since) >= p.turnLasts || p.busy() < p.procs && m.queue()
}

// busy is how many calls are taken to have a processor: those that take long rather
// wait for something.
func (p *pool) busy() (n int) {
	for _, m := range p.working {
		if sys.Since(m.began) < p.turnLasts {
			n++
		}
	}
	return n
}

// rearm sets the timer, if it must be: it has expired, and a call is under way still.
func (p *pool) rearm() {
	if p.since != 0 && !p.armed {
		p.armed = true
		p.heir.timer.Set(max(1, p.turnLasts-sys.Since(p.since)))
	}
}

// leaveIdle notes that m, which had nothing to do, has, or ends.
func (p *pool) leaveIdle(m *member) {
	p.idle--
	if p.heir == m {
		p.heir = nil
	}
	if i := slices.Index(p.spare, m); i >= 0 {
		p.spare = slices.Delete(p.spare, i, i+1)
	}
}

// received notes that m, whose turn it is, has a call to handle, and sees to it that
// there is an heir, which looks whether it takes long.
func (p *pool) received(m *member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since = sys.Monotonic()
	m.began = p.since
	p.working = append(p.working, m)
	p.replace()
	if !p.armed {
		p.armed = true
		m.timer.Set(p.turnLasts)
	}
}

// pass gives the turn, if it is m's, to an heir.
func (p *pool) pass(m *member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.turn == m {
		p.yield(m)
	}
}

// yield makes it the turn of whoever comes first.
func (p *pool) yield(m *member) {
	p.turn = nil
	p.armed = true
	m.timer.Set(1) // at once
}

// stay says whether m, which has finished, should await its turn. If not, its slot is
// free.
func (p *pool) stay(m *member, sound bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.working, m); i >= 0 { // not one that was left
		p.working = slices.Delete(p.working, i, i+1)
	}
	switch {
	case !sound:
		p.remove(m)
		p.replace()
		return false
	case p.turn == m:
		p.since = 0
	default:
		p.idle++
	}
	return true
}

// remove takes a thread out that isn't idle.
func (p *pool) remove(m *member) {
	p.threads--
	p.free = append(p.free, m.slot)
	if p.turn == m {
		p.yield(m)
	}
}

// replace sees to it that there is an heir: a spare thread, or one more if there may be.
func (p *pool) replace() {
	switch last := len(p.spare) - 1; {
	case p.heir != nil:
	case last >= 0:
		m := p.spare[last]
		p.spare = p.spare[:last]
		m.called++
		sys.Unpark(&m.called)
	case p.idle == 0 && len(p.free) > 0:
		p.threads++
		p.idle++
		p.grow(p.slot())
	}
}

// slot takes one that is free.
func (p *pool) slot() *ledger.Slot {
	last := len(p.free) - 1
	s := p.free[last]
	p.free = p.free[:last]
	return s
}
