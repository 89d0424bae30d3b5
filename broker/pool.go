package broker

import (
	"sync"
	"time"

	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/ledger"
)

// pool is the serving threads, each with a slot of the ledger, and says whose turn it
// is to receive. One does at a time: of several that wait for a call the kernel wakes
// every one (seccomp_do_user_notification in kernel/seccomp.c), which costs more than
// to serve most calls. For the same reason a thread keeps its turn while it handles a
// call. But who handles one for long loses it to an heir, which a timer wakes: a call
// waits for another for as long as that at most, and not for what is known to take
// long.
type pool struct {
	grow func(*ledger.Slot) // makes a thread

	mu            sync.Mutex
	threads, idle int            // of all, those that wait for their turn
	free          []*ledger.Slot // that no thread has
	made          time.Time      // when the last thread was
	turn          *ledger.Slot   // of the thread whose turn it is; nil: whoever comes first
	since         int64          // when it received the call that it handles; 0: it waits for one
}

const (
	// turnLasts is how long the thread whose turn it is may handle a call.
	turnLasts = time.Millisecond
	// idleThreads is how many threads wait for their turn, but while threads were made
	// less than a linger ago, as making one costs as much as several calls.
	idleThreads = 1
	linger      = time.Second
)

// member is a thread of the pool.
type member struct {
	slot  *ledger.Slot
	timer sys.Timer // the pool's one timer, by its number in the thread's fd table
}

// await waits until it is m's turn. False: m isn't needed any more, and its slot is
// free.
func (p *pool) await(m *member) (turn bool, err error) {
	for {
		if turn, spare := p.mine(m); turn || spare {
			return turn, nil
		}
		if err := m.timer.Wait(); err != nil {
			return false, err
		}
	}
}

// mine says whether it is m's turn, or else whether m was one too many.
func (p *pool) mine(m *member) (turn, spare bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.turn == m.slot:
		return true, false
	case p.turn == nil || p.since != 0 && sys.Since(p.since) >= turnLasts:
		p.turn, p.since = m.slot, 0
		p.idle--
		return true, false
	case p.since != 0: // the timer is set, or about to be
		return false, false
	default:
		return false, p.spare(m)
	}
}

// spare takes m out, which is idle, if it is one too many. The timer, which nobody
// needs while a call is waited for, brings the moment when it is, and the next one.
func (p *pool) spare(m *member) bool {
	if p.idle <= idleThreads {
		return false
	}
	left := linger - time.Since(p.made)
	if left > 0 {
		m.timer.Set(left)
		return false
	}
	p.idle--
	p.remove(m)
	if p.idle > idleThreads {
		m.timer.Set(1)
	}
	return true
}

// received notes that m, whose turn it is, has a call to handle, and sees to it that
// there is an heir.
func (p *pool) received(m *member) {
	p.mu.Lock()
	p.since = sys.Monotonic()
	p.replace()
	p.mu.Unlock()
	m.timer.Set(turnLasts)
}

// pass gives the turn, if it is m's, to an heir.
func (p *pool) pass(m *member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.turn == m.slot {
		p.yield(m)
	}
}

// yield makes it the turn of whoever comes first.
func (p *pool) yield(m *member) {
	p.turn = nil
	m.timer.Set(1) // at once
}

// stay says whether m, which has finished, should await its turn. If not, its slot is
// free.
func (p *pool) stay(m *member, sound bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !sound:
	case p.turn == m.slot:
		p.since = 0
		return true
	case p.idle < idleThreads || time.Since(p.made) < linger:
		p.idle++
		return true
	}
	p.remove(m)
	p.replace()
	return false
}

// remove takes a thread out that isn't idle.
func (p *pool) remove(m *member) {
	p.threads--
	p.free = append(p.free, m.slot)
	if p.turn == m.slot {
		p.yield(m)
	}
}

// replace makes a thread that awaits its turn, if none does and there may be one more.
func (p *pool) replace() {
	if p.idle == 0 && len(p.free) > 0 {
		p.threads++
		p.idle++
		p.made = time.Now()
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
