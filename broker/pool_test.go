package broker

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/ledger"
)

// poolTest is a pool whose threads are the test's goroutines.
type poolTest struct {
	*pool
	t     *testing.T
	timer sys.Timer
	queue atomic.Bool  // a call waits
	made  chan *member // threads that are to be made

	waiting atomic.Int32 // threads for their turn
}

// newPool returns a pool with a thread whose turn it is, and free slots.
func newPool(t *testing.T, free int) (p *poolTest, first *member) {
	t.Helper()
	timer, err := sys.NewTimer()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for p.waiting.Load() > 0 { // or else one reads what gets the timer's number next
			p.mu.Lock()
			p.turn = nil
			p.replace()
			timer.Set(1)
			p.mu.Unlock()
			time.Sleep(turnLasts)
		}
		sys.Close(int(timer))
	})
	p = &poolTest{t: t, timer: timer, made: make(chan *member, free)}
	p.pool = &pool{grow: func(s *ledger.Slot) { p.made <- p.member(s) }, procs: 2, turnLasts: turnLasts, linger: 2 * time.Second, threads: 1, idle: 1}
	for range free {
		p.free = append(p.free, new(ledger.Slot))
	}
	first = p.member(new(ledger.Slot))
	p.gets(p.awaits(first))
	return p, first
}

func (p *poolTest) member(s *ledger.Slot) *member {
	return &member{slot: s, timer: p.timer, queue: p.queue.Load}
}

// awaits has a thread wait for its turn; the channel says whether it got it, or ended.
func (p *poolTest) awaits(m *member) <-chan bool {
	got := make(chan bool, 1)
	p.waiting.Add(1)
	go func() {
		defer p.waiting.Add(-1)
		turn, err := p.await(m)
		if err != nil {
			p.t.Error(err)
		}
		got <- turn
	}()
	return got
}

func (p *poolTest) gets(turn <-chan bool) {
	p.t.Helper()
	select {
	case got := <-turn:
		if !got {
			p.t.Fatal("it ends")
		}
	case <-time.After(time.Minute):
		p.t.Fatal("it doesn't get the turn")
	}
}

func (p *poolTest) getsNot(turn <-chan bool) {
	p.t.Helper()
	select {
	case <-turn:
		p.t.Fatal("two threads have the turn, or one has ended")
	case <-time.After(20 * turnLasts):
	}
}

// until waits for what is to become of a thread.
func (p *poolTest) until(what string, is func() bool) {
	p.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(turnLasts / 10) {
		p.mu.Lock()
		done := is()
		p.mu.Unlock()
		switch {
		case done:
			return
		case time.Now().After(end):
			p.t.Fatalf("it doesn't become %s", what)
		}
	}
}

func (p *poolTest) ends(turn <-chan bool) {
	p.t.Helper()
	select {
	case got := <-turn:
		if got {
			p.t.Fatal("it has the turn")
		}
	case <-time.After(time.Minute):
		p.t.Fatal("it doesn't end")
	}
}

// has wants so many threads, and so many of them to have nothing to do.
func (p *poolTest) has(threads, idle int) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.threads != threads || p.idle != idle {
		p.t.Errorf("%d threads, %d idle, wanted %d and %d", p.threads, p.idle, threads, idle)
	}
}

// TestTurn: a thread keeps its turn while it waits, and from call to call, and loses
// it over a long one.
func TestTurn(t *testing.T) {
	p, first := newPool(t, 2)
	p.received(first)
	heir := <-p.made // for the first call there must be one
	if !p.stay(first, true) {
		t.Fatal("it ends")
	}
	p.gets(p.awaits(first)) // a short call doesn't cost the turn
	turn := p.awaits(heir)
	p.getsNot(turn) // though the timer has expired
	p.received(first)
	p.gets(turn)
	if len(p.made) != 0 {
		t.Error("a thread is made though nobody has received a second call")
	}
	p.received(heir) // while the first is still at its own
	if last := <-p.made; last.slot == first.slot || last.slot == heir.slot {
		t.Error("the new thread's slot isn't free")
	}
	if !p.stay(first, true) {
		t.Error("it ends")
	}
	p.has(3, 2)
}

// TestQueue: more threads receive while calls wait, as many as there are processors.
func TestQueue(t *testing.T) {
	p, first := newPool(t, 3)
	p.turnLasts = 50 * time.Millisecond // longer than this thread is kept from running, mostly
	short := func(m *member) {          // a call that is no reason to lose the turn
		p.received(m)
		p.stay(m, true)
		if turn, err := p.await(m); !turn || err != nil {
			t.Fatal(turn, err)
		}
	}
	p.received(first)
	heir := <-p.made
	turn := p.awaits(heir)
	p.stay(first, true)
	for range 30 { // all in all longer than a turn
		short(first)
		time.Sleep(p.turnLasts / 10)
	}
	p.getsNot(turn)
	p.queue.Store(true)
	for took := false; !took; {
		p.received(first)
		select {
		case <-turn:
			took = true
		case <-time.After(p.turnLasts / 10):
			p.stay(first, true)
			if turn, err := p.await(first); !turn || err != nil {
				t.Fatal(turn, err)
			}
		}
	}
	// Both have a call now: whoever finishes takes the next one at once.
	p.received(heir)
	if !p.stay(first, true) {
		t.Fatal("it ends")
	}
	if turn, err := p.await(first); !turn || err != nil {
		t.Fatal("a call waits, and who has nothing to do doesn't receive it")
	}
	// A third thread would have no processor: it gets the turn by a long call alone.
	p.received(first)
	third := p.awaits(<-p.made)
	p.mu.Lock()
	may := p.since != 0 && sys.Since(p.since) < turnLasts && p.may(heir)
	p.mu.Unlock()
	if may {
		t.Error("more threads than processors receive")
	}
	p.gets(third)
}

// TestStalled: a call that takes long has no processor, so those after it do as if it
// weren't there.
func TestStalled(t *testing.T) {
	p, first := newPool(t, 4)
	p.turnLasts = 20 * time.Millisecond
	p.queue.Store(true)
	p.received(first)
	second := <-p.made
	p.gets(p.awaits(second)) // there is another processor
	p.received(second)
	third := <-p.made
	p.gets(p.awaits(third)) // once the second's turn is over, when neither has one
	p.turnLasts = time.Minute
	p.received(third)
	fourth := <-p.made
	first.began, second.began = sys.Monotonic()-int64(time.Hour), sys.Monotonic()-int64(time.Hour)
	p.gets(p.awaits(fourth))
	p.received(fourth)
	if p.mu.Lock(); p.may(<-p.made) {
		t.Error("more calls than processors are handled")
	}
	p.mu.Unlock()
	for _, m := range []*member{first, second, third, fourth} {
		p.stay(m, true)
	}
	if len(p.working) != 0 {
		t.Errorf("%d threads work that have finished", len(p.working))
	}
}

// TestNoThread: while no thread can be made, it is tried every now and then, however
// many calls there are.
func TestNoThread(t *testing.T) {
	_, first := newPool(t, 0)
	file, err := ledger.Create()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	book, err := ledger.Open(int(file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	b := &Broker{cfg: Config{Ledger: book}}
	var made atomic.Int32
	b.pool.grow = func(s *ledger.Slot) {
		made.Add(1)
		go b.leave(&member{slot: s}, true, errors.New("no thread can be made"))
	}
	b.pool.procs, b.pool.turnLasts, b.pool.linger, b.pool.threads, b.pool.turn = 2, turnLasts, linger, 1, first
	b.pool.free = append(b.pool.free, new(ledger.Slot))
	for range 300 {
		b.pool.received(first)
		b.pool.stay(first, true)
		time.Sleep(turnLasts)
	}
	before := made.Load()
	time.Sleep(3*retry + retry/2)
	if n := made.Load() - before; n < 1 || n > 4 {
		t.Errorf("%d more threads were tried, not one at a time", n)
	}
	b.pool.mu.Lock() // the next one stays
	b.pool.grow = func(*ledger.Slot) {}
	b.pool.mu.Unlock()
}

// TestPass: who knows that a call takes long gives the turn away, once.
func TestPass(t *testing.T) {
	p, first := newPool(t, 1)
	p.received(first)
	heir := <-p.made
	turn := p.awaits(heir)
	p.pass(first)
	p.gets(turn)
	p.pass(first) // has no turn to give
	if p.turn != heir {
		t.Error("a thread gives away what another has")
	}
}

// TestUnsound: where the thread whose turn it is can't go on, another does.
func TestUnsound(t *testing.T) {
	p, first := newPool(t, 1)
	p.received(first)
	turn := p.awaits(<-p.made)
	if p.stay(first, false) {
		t.Fatal("a thread stays that can't serve")
	}
	p.gets(turn)
	p.has(1, 0)
	if len(p.free) != 1 || p.free[0] != first.slot {
		t.Errorf("%d slots are free, not its own", len(p.free))
	}
}

// TestFull: without a free slot no thread is made, and the first that has finished
// gets the turn.
func TestFull(t *testing.T) {
	p, first := newPool(t, 1)
	p.received(first)
	second := <-p.made
	p.gets(p.awaits(second))
	p.received(second) // no slot is left for an heir
	if len(p.made) != 0 {
		t.Fatal("a thread is made without a slot")
	}
	if !p.stay(first, true) {
		t.Fatal("the only one that could be heir ends")
	}
	p.gets(p.awaits(first))
}

// TestSpare: beside the heir threads wait to be needed, but not for ever, however many
// calls there are meanwhile. The timer doesn't wake them.
func TestSpare(t *testing.T) {
	p, first := newPool(t, 4)
	p.turnLasts = time.Second // longer than this test handles a call
	holder := first
	var done []*member
	for range 4 { // calls that are under way at once
		p.received(holder)
		p.pass(holder)
		done = append(done, holder)
		holder = <-p.made
		p.gets(p.awaits(holder))
	}
	p.has(5, 0)
	var waiting []<-chan bool
	for _, m := range done {
		if !p.stay(m, true) {
			t.Fatal("it ends")
		}
		waiting = append(waiting, p.awaits(m))
		p.until("heir, or spare", func() bool { return p.heir == m || len(p.spare) == len(waiting)-1 && p.heir != nil })
	}
	p.has(5, 4)
	// One call after the other, so that the timer is never at rest; by a long one the
	// heir gets the turn, and the last spare thread is the next heir.
	p.received(holder)
	p.pass(holder)
	p.gets(waiting[0])
	p.received(done[0])
	p.until("heir", func() bool { return p.heir == done[3] })
	p.stay(done[0], true)
	for began := time.Now(); time.Since(began) < p.linger+p.linger/4; {
		if turn, err := p.await(done[0]); !turn || err != nil {
			t.Fatal(turn, err)
		}
		p.received(done[0])
		p.stay(done[0], true)
	}
	p.ends(waiting[1])
	p.ends(waiting[2])
	p.getsNot(waiting[3])
	p.has(3, 1)
}
