// Package broker strings the steps of an operation together: receive, request,
// facts, decision, performance, reply.
package broker

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/audit"
	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/helper"
	"github.com/bpfbroker/bpfbroker/inspect"
	"github.com/bpfbroker/bpfbroker/internal/arena"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/ledger"
	"github.com/bpfbroker/bpfbroker/notify"
	"github.com/bpfbroker/bpfbroker/perform"
	"github.com/bpfbroker/bpfbroker/policy"
	"github.com/bpfbroker/bpfbroker/reply"
	"github.com/bpfbroker/bpfbroker/request"
	"github.com/bpfbroker/bpfbroker/workload"
)

// Config is what a broker serves.
type Config struct {
	// Fds in the process's fd table.
	Listener int // the seccomp listener
	Channel  int // to the daemon (package helper)
	Token    int // a BPF token, -1 for none

	Ledger *ledger.Ledger
	Audit  *audit.Writer // nil: no log is kept
	// Holdings are where is counted what the workload holds; nil: the policy doesn't ask.
	Holdings *workload.Holdings
	Known    *workload.Known
	Policy   policy.Policy
	Probes   request.Probes
}

const (
	// StallDeadline is how long a call may wait for memory or files of its target's.
	// It may for longer, as long as there are threads for others; but it isn't begun
	// anew then.
	StallDeadline = 30 * time.Second
	// memory bounds what the operations under way use together, beside 128 KiB a
	// thread and one large verifier log (see perform.growLog).
	memory = 256 << 20
)

// Broker serves one listener with as many threads as there are operations
// under way, up to the ledger's slots; further ones wait in the kernel.
type Broker struct {
	cfg     Config
	channel helper.Channel
	budget  *arena.Budget
	loaders chan struct{} // one for each loader that runs
	shared  sys.Timer     // the pool's timer, by its number in the process's fd table
	pool    pool
	again   *calls        // nil: once received, calls aren't interrupted
	first   *ledger.Slot  // of the first thread, from Start on; nil: there was none for it
	begin   chan struct{} // closed: calls may be received
	gone    chan struct{}
	end     sync.Once // closes gone
}

// New returns a broker; Prepare and Start make it serve.
func New(cfg Config) (*Broker, error) {
	timer, err := sys.NewTimer()
	if err != nil {
		return nil, err
	}
	b := &Broker{cfg: cfg, budget: arena.NewBudget(memory), loaders: make(chan struct{}, maxLoaders), shared: timer, begin: make(chan struct{}), gone: make(chan struct{})}
	if cfg.Known.Interrupted {
		b.again = newCalls()
	}
	b.pool.grow = func(s *ledger.Slot) { go b.serve(s, false, nil) }
	b.pool.procs, b.pool.turnLasts, b.pool.linger = runtime.NumCPU(), turnLasts, linger
	return b, nil
}

// Prepare finds out whether this process can serve, and makes a first thread. It
// touches no call.
func (b *Broker) Prepare() error {
	if err := sys.CheckNotifSizes(); err != nil {
		return err
	}
	if sys.FaultAddr == 0 {
		return errors.New("reserve 16 GiB of addresses: not possible; raise the limit of address space (ulimit -v)")
	}
	if e := sys.NotifSyncWakeUp(b.cfg.Listener); e != 0 && e != sys.EINVAL && e != sys.ENOTTY {
		// Before 6.6 there is no such thing; wake-ups are slower then.
		return fmt.Errorf("ask for synchronous wake-ups: %w", e)
	}
	ready := make(chan error)
	go b.serve(nil, false, ready)
	return <-ready
}

// Start begins to serve, first what the ledger says that another has left: there is
// no other now.
func (b *Broker) Start() {
	var left []*ledger.Slot
	p := &b.pool
	p.mu.Lock()
	for i := range ledger.Slots {
		if s := b.cfg.Ledger.Slot(i); s.Taken() {
			left = append(left, s)
		} else {
			s.Free() // perhaps half of it was
			p.free = append(p.free, s)
		}
	}
	p.threads = len(left)
	if len(p.free) > 0 { // or else the first that has finished with what is left goes on
		b.first = p.slot()
		p.threads, p.idle = p.threads+1, 1
	}
	p.mu.Unlock()
	for _, s := range left {
		go b.serve(s, true, nil)
	}
	close(b.begin)
}

// Gone is closed when calls can't be answered any more. They wait for ever then,
// unless another worker takes over or the listener is closed.
func (b *Broker) Gone() <-chan struct{} { return b.gone }

// thread is what one serving thread works with.
type thread struct {
	*Broker
	own       *sys.Thread
	listener  notify.Listener
	channelFD int
	token     int
	member    // of the pool
	pad       *audit.Pad
	target    *workload.Target
	mem       *arena.Arena
	reader    *request.Reader
	inspector inspect.Inspector
	performer *perform.Performer
	host      *helper.Client

	ongoing *ongoing // the call, if it may be made again
	last    *repeat  // as it was made last; nil: it wasn't made again

	claim workload.Held // room that is taken for what the call makes; Kind 0: none

	newPerformer func(*arena.Arena) *perform.Performer // for calls within one
}

func (b *Broker) newThread() (*thread, error) {
	t := &thread{Broker: b, listener: notify.Listener{FD: b.cfg.Listener}, channelFD: b.cfg.Channel, token: b.cfg.Token, member: member{timer: b.shared}, mem: arena.New(b.budget)}
	keep := []*int{&t.listener.FD, &t.channelFD, (*int)(&t.timer)}
	var token *int
	if t.token >= 0 {
		token = &t.token
		keep = append(keep, token)
	}
	own, err := sys.Isolate(keep...)
	if err != nil {
		return nil, err
	}
	t.own = own
	t.queue = t.listener.Pending
	host := b.channel.NewClient(&t.channelFD, b.cfg.Ledger.Bell())
	if t.target, err = workload.NewTarget(own, &t.listener, b.cfg.Known, host); err != nil {
		return nil, err
	}
	if b.again != nil {
		t.target.Again = t.comesAgain
	}
	t.host = host
	if h := b.cfg.Holdings; h != nil {
		t.target.Count = func() (facts.Counts, error) {
			err := h.Forget(host.Lives)
			return h.Counts(), err
		}
	}
	t.reader = request.NewReader(t.mem, b.cfg.Probes)
	t.inspector.Workload, t.inspector.CPUs = b.cfg.Known.Workload, b.cfg.Known.CPUs
	t.newPerformer = func(mem *arena.Arena) *perform.Performer {
		p := perform.NewForWorker(mem, host, token)
		p.ReadOnly, p.Guard, p.IDs = b.cfg.Known.ReadOnly, b.cfg.Known.Guard, b.cfg.Known.IDs
		return p
	}
	t.performer = t.newPerformer(t.mem)
	return t, nil
}

// serve is the life of a thread, which works in slot. If a call is left in the slot,
// the worker before was killed over it, and it is the first. (Whether one is isn't for
// the slot to say: a workload may have taken over a worker, and write to it any time.)
// Without a slot the thread is the first one.
func (b *Broker) serve(slot *ledger.Slot, left bool, ready chan<- error) {
	t, err := b.newThread()
	if ready != nil {
		ready <- err
		if err != nil {
			return // nobody begins
		}
	}
	<-b.begin
	if slot == nil {
		if slot = b.first; slot == nil {
			return
		}
	}
	if err != nil {
		b.leave(&member{slot: slot}, !left, err)
		return
	}
	t.slot, t.pad = slot, b.cfg.Audit.Pad(b.cfg.Ledger.Number(slot))
	if left {
		n := notify.Of(&slot.Notif)
		sound := t.guarded(&n, t.resume)
		if !b.pool.stay(&t.member, sound && !t.spent()) {
			return
		}
	}
	for {
		turn, err := b.pool.await(&t.member)
		if err != nil {
			b.leave(&t.member, true, fmt.Errorf("wait for a turn: %w", err))
			return
		}
		if !turn {
			return
		}
		n, err := t.listener.Receive(&slot.Notif)
		if err != nil {
			b.leave(&t.member, false, fmt.Errorf("receive: %w", err))
			return
		}
		b.pool.received(&t.member)
		b.cfg.Ledger.Count() // before the target goes on, perhaps to its end
		sound := t.guarded(&n, t.first)
		if !b.pool.stay(&t.member, sound && !t.spent()) {
			return
		}
	}
}

// spent says that the thread can't serve another call, or shouldn't.
func (t *thread) spent() bool { return t.own.Large() || t.target.Astray() }

// guarded handles a call; a panic answers it with EPERM and makes the thread,
// whose state is unknown then, unfit to serve another.
func (t *thread) guarded(n *notify.Notification, handle func(*notify.Notification)) (sound bool) {
	defer t.slot.Free()
	defer t.pad.Free()
	defer func() {
		if p := recover(); p != nil {
			t.pad.Ended(&audit.Ended{Errno: sys.EPERM})
			t.listener.Answer(n, 0, sys.EPERM)
			t.cfg.Ledger.Fault(fmt.Errorf("panic while serving bpf(%#x): %v\n%s", n.Data.Args[0], p, debug.Stack()))
		}
	}()
	handle(n)
	return true
}

// retry is how long after one couldn't be made another thread is tried.
const retry = 100 * time.Millisecond

// leave ends a thread that can't go on. If there is a call in its slot, or nobody is
// left, the worker ends: another one answers.
func (b *Broker) leave(m *member, idle bool, err error) {
	b.cfg.Ledger.Fault(err)
	if m.slot.Taken() {
		b.end.Do(func() { close(b.gone) })
		return
	}
	p := &b.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if idle {
		p.leaveIdle(m)
	}
	p.remove(m)
	switch {
	case p.threads == 0:
		b.end.Do(func() { close(b.gone) })
	case p.heir == nil && !p.later: // perhaps there will be memory for another thread
		p.later = true
		time.AfterFunc(retry, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.later = false
			p.replace()
		})
	}
}

// first handles a call that was just received.
func (t *thread) first(n *notify.Notification) {
	t.pad.Begin()
	t.handle(n, nil)
}

// resume handles a call over which a worker was killed. No call may fail because of
// that, nor happen twice.
func (t *thread) resume(n *notify.Notification) {
	t.target.At(n)
	if !t.listener.Waits(n) {
		return // it was answered
	}
	t.pad.Again()
	answer := func(value int, e sys.Errno, o ledger.Object) {
		t.pad.Ended(&audit.Ended{Errno: e, Kind: o.Kind, ID: o.ID, Resumed: true})
		t.listener.Answer(n, value, e)
	}
	if t.slot.Blame > ledger.MaxBlame {
		t.cfg.Ledger.Fault(fmt.Errorf("bpf(%#x) of thread %d: workers end over it again and again; it is refused", n.Data.Args[0], n.TID))
		answer(0, sys.EPERM, ledger.Object{})
		return
	}
	if t.slot.Waiting() > StallDeadline {
		answer(0, sys.EPERM, ledger.Object{})
		return
	}
	switch t.slot.Phase() {
	case ledger.Performed:
		value, e := t.slot.Outcome()
		answer(value, e, ledger.Object{})
	case ledger.Performing:
		t.handle(n, &perform.Redo{Before: t.slot.Before})
	case ledger.Handing:
		fd, ok := t.target.Handed(t.slot.Object)
		if !ok {
			t.handle(n, nil)
			return
		}
		t.slot.Handed(fd)
		fallthrough
	case ledger.Handed:
		fd, _ := t.slot.Outcome()
		t.target.Settle(fd, t.slot.Object)
		answer(fd, 0, t.slot.Object)
	default:
		t.handle(n, nil)
	}
}

// handle is the way of one operation, and the one place where it is to be read
// as a whole. Whatever goes wrong, the call is answered. redo is nil for a call
// that wasn't performed before.
func (t *thread) handle(n *notify.Notification, redo *perform.Redo) {
	defer t.mem.Reset()
	if redo == nil {
		t.slot.Begin()
	} else {
		t.slot.Again()
	}
	t.target.At(n)
	if t.attack(n) { // in builds for tests alone
		return
	}
	call, ok := request.CallOf(&n.Data)
	if !ok { // a filter not of our making sent it
		t.listener.Answer(n, 0, sys.ENOSYS)
		return
	}
	if call.Command == abi.ProgTestRun {
		t.testRun(n, call)
		return
	}
	if row := abi.RowOf(call.Command); row != nil && !row.Intercepted() {
		t.listener.Continue(n) // a filter not of our making sent it; the kernel decides
		return
	}

	q, e := t.reader.Read(remembered{t.target, t.slot}, call)
	t.reached(stepRead)
	if !t.listener.Waits(n) {
		t.drop()
		return // and nothing that was read can be trusted to be the target's
	}
	if e != 0 {
		t.drop()
		t.listener.Answer(n, 0, e)
		return
	}

	if t.interrupted(n, q) {
		t.drop()
		return
	}
	defer t.finished(n.TID)
	f := t.facts(q, n)
	d := t.decide(q, f)
	defer t.unclaimed()
	t.pad.Decided(f, t.cfg.Policy.Name(), &d)
	switch d.Verdict {
	case policy.Allow:
	case policy.Native:
		t.drop()
		t.pad.Ended(&audit.Ended{How: audit.Continued})
		t.listener.Continue(n)
		return
	default:
		e := t.deny(t.target, q, f, &d)
		t.drop()
		t.tell(n, e)
		return
	}

	if perform.Slow(q) {
		t.pool.pass(&t.member)
	}
	t.performer.Scoped, t.performer.Numbered = d.Scope == policy.ScopeWorkload, d.PIDs == policy.ScopeWorkload
	r := t.performer.Do(q, t.target, t.log(), redo)
	t.reached(stepPerformed)
	if !q.Row.Effect { // those have no outputs
		t.slot.Replying(reply.Inputs(q))
	}
	handing := func() {
		t.slot.Handing(t.target.Describe(r.FD, q.Row.Returns.FD, q.Row.Makes()))
		t.made(q, t.slot.Object.ID)
		t.reached(stepHanding)
	}
	var value int
	var there bool
	if t.again != nil {
		e, there = t.deliver(n, q, r, handing) // and it is answered
	} else {
		value, e, there = reply.Deliver(&t.listener, n, t.target, q, r, handing)
	}
	t.reached(stepHanded)
	if r.FD >= 0 {
		if there && e == 0 && t.again == nil {
			t.slot.Handed(value)
		}
		workload.Unmark(r.FD, t.slot.Object)
		sys.Close(r.FD)
	}
	t.ended(q, r, e, there)
	t.drop()
	if there && t.again == nil {
		t.reached(stepDropped)
		t.listener.Answer(n, value, e)
		t.reached(stepAnswered)
	}
}

// deny says no, to the ledger and the audit log, and if the target asked for a log of its
// load, there. It returns the errno to answer with.
func (t *thread) deny(m reply.Memory, q *request.Request, f *facts.Facts, d *policy.Decision) sys.Errno {
	e := sys.Errno(sys.EPERM)
	switch {
	case d.Errno != 0:
		e = sys.Errno(d.Errno)
	case d.Cause == policy.ByError && t.inspector.Errno != 0:
		e = t.inspector.Errno // what the decision would have been on isn't there
	}
	t.cfg.Ledger.Deny(f.Command, f.Kind(), d.Rule)
	if perform.Logs(q) {
		// Memory that doesn't take the text is no reason for another answer.
		_ = reply.Outputs(m, q, perform.Explained(q, e, audit.Explain(t.cfg.Policy.Name(), d)))
	}
	t.pad.Ended(&audit.Ended{Errno: e})
	return e
}

// ended notes what came of a call, before its target knows: if this worker is killed in
// between, the next one finds either the record or the call.
func (t *thread) ended(q *request.Request, r *perform.Result, e sys.Errno, there bool) {
	if t.pad == nil {
		return
	}
	end := audit.Ended{Errno: e, ByDaemon: perform.NeedsHost(q)}
	if !there {
		end.How = audit.Gone
	} else if r.FD >= 0 && e == 0 {
		end.Kind, end.ID, end.Tag = t.slot.Object.Kind, t.slot.Object.ID, r.Tag
	}
	if b := q.Buffer("insns"); b != nil {
		end.Insns = b.Data
	}
	t.pad.Ended(&end)
}

// The steps at which a worker may be killed, for tests (thread.reached does nothing
// otherwise).
const (
	stepRead      = iota // the request is read
	stepCalling          // the kernel is about to be called
	stepEffect           // it has been, which isn't noted yet
	stepPerformed        // it is
	stepHanding          // the fd is about to be installed
	stepHanded           // it is, and outputs are written
	stepDropped          // our copies are closed
	stepAnswered
)

// remembered is a target whose memory is as it was before a worker, which was
// killed then, wrote to it.
type remembered struct {
	*workload.Target
	slot *ledger.Slot
}

func (r remembered) Read(addr uint64, p []byte) (int, sys.Errno) {
	n, e := r.Target.Read(addr, p)
	r.slot.Restore(addr, p[:n])
	return n, e
}

func (r remembered) ReadAll(segs []sys.Segment) bool {
	ok := r.Target.ReadAll(segs)
	for _, s := range segs {
		r.slot.Restore(s.Addr, s.Data)
	}
	return ok
}

// drop closes the files that the request took or led to.
func (t *thread) drop() {
	t.target.Done()
	for _, f := range t.reader.Taken() {
		t.target.Drop(f.N)
	}
}

// facts derives those of a call that the policy looks at, and where a log is kept all.
func (t *thread) facts(q *request.Request, n *notify.Notification) *facts.Facts {
	needs := t.cfg.Policy.Needs(q.Row.Name)
	if t.pad != nil {
		needs.Union(recorded)
	}
	f := t.inspector.Request(q, needs, t.target)
	f.Workload.Thread = int64(n.TID)
	return f
}
