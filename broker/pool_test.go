package broker

import (
	"testing"
	"time"

	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/ledger"
)

// newPool returns a pool with a thread whose turn it is, and free slots; made
// receives each thread that is to be made.
func newPool(t *testing.T, free int) (p *pool, first *member, made chan *member) {
	t.Helper()
	timer, err := sys.NewTimer()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sys.Close(int(timer)) })
	made = make(chan *member, free)
	p = &pool{grow: func(s *ledger.Slot) { made <- &member{s, timer} }, threads: 1, idle: 1}
	for range free {
		p.free = append(p.free, new(ledger.Slot))
	}
	first = &member{new(ledger.Slot), timer}
	if _, err := p.await(first); err != nil {
		t.Fatal(err)
	}
	return p, first, made
}

// awaits makes a thread wait for its turn; what it returns is closed when it has it.
func awaits(t *testing.T, p *pool, m *member) <-chan struct{} {
	got := make(chan struct{})
	go func() {
		if turn, err := p.await(m); err != nil || !turn {
			t.Errorf("turn %v, %v", turn, err)
		}
		close(got)
	}()
	return got
}

func gets(t *testing.T, turn <-chan struct{}) {
	t.Helper()
	select {
	case <-turn:
	case <-time.After(time.Minute):
		t.Fatal("it doesn't get the turn")
	}
}

func getsNot(t *testing.T, turn <-chan struct{}) {
	t.Helper()
	select {
	case <-turn:
		t.Fatal("two threads have the turn")
	case <-time.After(20 * turnLasts):
	}
}

// TestTurn: a thread keeps its turn while it waits, and from call to call, and loses
// it over a long one.
func TestTurn(t *testing.T) {
	p, first, made := newPool(t, 2)
	p.received(first)
	heir := <-made // for the first call there must be one
	if !p.stay(first, true) || p.turn != first.slot {
		t.Fatal("a short call costs the turn")
	}
	turn := awaits(t, p, heir)
	getsNot(t, turn) // though the timer has expired
	p.received(first)
	gets(t, turn)
	if len(made) != 0 {
		t.Error("a thread is made though nobody has received a second call")
	}
	p.received(heir) // the heir, while the first is still at it
	if last := <-made; last.slot == first.slot || last.slot == heir.slot {
		t.Error("the new thread's slot isn't free")
	}
	if !p.stay(first, true) {
		t.Error("it isn't kept, though threads were just made")
	}
	if p.threads != 3 || p.idle != 2 {
		t.Errorf("%d threads, %d idle, wanted 3 and 2", p.threads, p.idle)
	}
}

// TestPass: who knows that a call takes long gives the turn away, once.
func TestPass(t *testing.T) {
	p, first, made := newPool(t, 1)
	p.received(first)
	heir := <-made
	turn := awaits(t, p, heir)
	p.pass(first)
	gets(t, turn)
	p.pass(first) // has no turn to give
	if p.turn != heir.slot {
		t.Error("a thread gives away what another has")
	}
}

// TestUnsound: where the thread whose turn it is can't go on, another does.
func TestUnsound(t *testing.T) {
	p, first, made := newPool(t, 1)
	p.received(first)
	turn := awaits(t, p, <-made)
	if p.stay(first, false) {
		t.Fatal("a thread stays that can't serve")
	}
	gets(t, turn)
	if len(p.free) != 1 || p.free[0] != first.slot || p.threads != 1 || p.idle != 0 {
		t.Errorf("%d slots free, %d threads, %d idle, wanted 1, 1 and 0", len(p.free), p.threads, p.idle)
	}
}

// TestFull: without a free slot no thread is made, and the first that has finished
// gets the turn.
func TestFull(t *testing.T) {
	p, first, made := newPool(t, 1)
	p.received(first)
	second := <-made
	gets(t, awaits(t, p, second))
	p.received(second) // no slot is left for an heir
	if len(made) != 0 {
		t.Fatal("a thread is made without a slot")
	}
	if !p.stay(first, true) {
		t.Fatal("the only one that could be heir ends")
	}
	gets(t, awaits(t, p, first))
}

// TestLinger: a thread that isn't needed ends when none was made for a while, also
// one that waits.
func TestLinger(t *testing.T) {
	p, first, made := newPool(t, 3)
	p.received(first)
	heir := <-made
	gets(t, awaits(t, p, heir))
	p.idle, p.made = idleThreads, time.Now().Add(-2*linger)
	if p.stay(first, true) {
		t.Error("too many stay")
	}
	p.idle = 0
	p.received(heir)
	var waiting []*member
	for m := <-made; ; m = <-made {
		waiting = append(waiting, m)
		if len(p.free) == 0 {
			break
		}
		p.idle = 0 // as if it had a call
		p.replace()
	}
	p.idle = len(waiting)
	if !p.stay(heir, true) || p.turn != heir.slot {
		t.Error("the thread whose turn it is ends")
	}
	ended := make(chan struct{})
	for _, m := range waiting {
		go func() {
			if turn, err := p.await(m); err != nil || turn {
				t.Errorf("turn %v, %v", turn, err)
			}
			ended <- struct{}{}
		}()
	}
	for range len(waiting) - idleThreads {
		gets(t, ended)
	}
	getsNot(t, ended)
	if p.threads != 1+idleThreads || p.idle != idleThreads {
		t.Errorf("%d threads, %d idle, wanted %d and %d", p.threads, p.idle, 1+idleThreads, idleThreads)
	}
}
