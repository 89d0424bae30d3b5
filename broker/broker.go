// Package broker strings the steps of an operation together: receive, request,
// facts, decision, performance, reply.
package broker

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/inspect"
	"github.com/bpfbroker/bpfbroker/internal/arena"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/notify"
	"github.com/bpfbroker/bpfbroker/perform"
	"github.com/bpfbroker/bpfbroker/policy"
	"github.com/bpfbroker/bpfbroker/reply"
	"github.com/bpfbroker/bpfbroker/request"
	"github.com/bpfbroker/bpfbroker/workload"
)

// Config is what a broker serves.
type Config struct {
	Listener int    // fd of the seccomp listener, in the process's fd table
	Workload string // the workload's id
	Policy   policy.Policy
	// Record is told of every decision. It is called by many threads at once and
	// must not touch fds: the threads have fd tables of their own.
	Record func(*facts.Facts, policy.Decision)
}

const (
	// maxThreads bounds the operations under way at once; further ones wait in
	// the kernel.
	maxThreads = 128
	// idleThreads is how many threads are kept waiting for work.
	idleThreads = 2
	// memory bounds what the operations under way use together, beside 128 KiB a
	// thread and one large verifier log (see perform.growLog).
	memory = 256 << 20
)

// Broker serves one listener with as many threads as there are operations
// under way.
type Broker struct {
	cfg     Config
	objects *workload.Objects
	probes  request.Probes
	budget  *arena.Budget
	failed  chan error
	gone    chan struct{}

	mu            sync.Mutex
	threads, idle int
	served        atomic.Uint64
}

// New returns a broker; Start makes it serve.
func New(cfg Config) *Broker {
	b := &Broker{
		cfg: cfg, objects: workload.NewObjects(perform.Exists), probes: request.Probes{},
		budget: arena.NewBudget(memory), failed: make(chan error, 1), gone: make(chan struct{}),
	}
	for pmu, probe := range map[string]abi.Probe{"kprobe": abi.Kprobe, "uprobe": abi.Uprobe} {
		if n, ok := sys.EventType(pmu); ok {
			b.probes[n] = probe
		}
	}
	return b
}

// Start begins to serve. It returns once the first thread is ready to receive.
func (b *Broker) Start() error {
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
	b.threads, b.idle = 1, 1
	go b.serve(ready)
	return <-ready
}

// Failed receives an error that ended a thread; one that nobody has received yet
// hides those after it.
func (b *Broker) Failed() <-chan error { return b.failed }

// Gone is closed when the last thread has failed. Calls wait for ever then, unless
// the listener is closed.
func (b *Broker) Gone() <-chan struct{} { return b.gone }

// Served is the number of calls received so far.
func (b *Broker) Served() uint64 { return b.served.Load() }

// thread is what one serving thread works with.
type thread struct {
	*Broker
	own       *sys.Thread
	listener  notify.Listener
	target    *workload.Target
	mem       *arena.Arena
	reader    *request.Reader
	performer *perform.Performer
}

func (b *Broker) newThread() (*thread, error) {
	t := &thread{Broker: b, listener: notify.Listener{FD: b.cfg.Listener}, mem: arena.New(b.budget)}
	own, err := sys.Isolate(&t.listener.FD)
	if err != nil {
		return nil, err
	}
	netNS, err := own.NetNS()
	if err != nil {
		return nil, err
	}
	t.own = own
	t.target = workload.NewTarget(own, &t.listener, netNS)
	t.reader = request.NewReader(t.mem, b.probes)
	t.performer = perform.New(t.mem, b.objects)
	return t, nil
}

// serve is the life of a thread: it ends when enough others are idle.
func (b *Broker) serve(ready chan<- error) {
	t, err := b.newThread()
	if ready != nil {
		ready <- err
	}
	if err != nil {
		b.leave(err)
		return
	}
	for {
		n, err := t.listener.Receive()
		if err != nil {
			b.leave(fmt.Errorf("receive: %w", err))
			return
		}
		b.busy()
		b.served.Add(1) // before the target goes on, perhaps to its end
		sound := t.guarded(&n)
		if !b.stay(sound && !t.own.Large()) {
			return
		}
	}
}

// guarded handles a call; a panic answers it with EPERM and makes the thread,
// whose state is unknown then, unfit to serve another.
func (t *thread) guarded(n *notify.Notification) (sound bool) {
	defer func() {
		if p := recover(); p != nil {
			t.listener.Answer(n, 0, sys.EPERM)
			t.fail(fmt.Errorf("panic while serving bpf(%#x): %v\n%s", n.Data.Args[0], p, debug.Stack()))
		}
	}()
	t.handle(n)
	return true
}

// busy notes that a thread has work, and makes another one to wait in its place.
func (b *Broker) busy() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.idle--; b.idle == 0 && b.threads < maxThreads {
		b.threads++
		b.idle++
		go b.serve(nil)
	}
}

// stay says whether a thread that has finished should wait for more.
func (b *Broker) stay(sound bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.idle >= idleThreads || !sound {
		b.threads--
		if b.idle == 0 { // all were busy, and this one doesn't return
			b.threads++
			b.idle++
			go b.serve(nil)
		}
		return false
	}
	b.idle++
	return true
}

// leave ends a thread that can't go on.
func (b *Broker) leave(err error) {
	b.mu.Lock()
	b.threads--
	b.idle--
	last := b.threads == 0
	b.mu.Unlock()
	b.fail(err)
	if last {
		close(b.gone)
	}
}

// fail tells the owner of the broker of an error that isn't the workload's.
func (b *Broker) fail(err error) {
	select {
	case b.failed <- err:
	default:
	}
}

// handle is the way of one operation, and the one place where it is to be read
// as a whole. Whatever goes wrong, the call is answered.
func (t *thread) handle(n *notify.Notification) {
	defer t.mem.Reset()
	t.target.At(n)
	call, ok := request.CallOf(&n.Data)
	if !ok { // a filter not of our making sent it
		t.listener.Answer(n, 0, sys.ENOSYS)
		return
	}
	if row := abi.RowOf(call.Command); row != nil && row.Native {
		t.listener.Continue(n) // a filter not of our making sent it; the kernel decides
		return
	}

	q, e := t.reader.Read(t.target, call)
	if !t.listener.Waits(n) {
		t.drop()
		return // and nothing that was read can be trusted to be the target's
	}
	if e != 0 {
		t.drop()
		t.record(t.whose(inspect.Unknown(call), n), policy.Decision{Cause: policy.ByError, Message: "read the call: " + e.Error()})
		t.listener.Answer(n, 0, e)
		return
	}

	f := t.whose(inspect.Request(q), n)
	d := policy.Decide(t.cfg.Policy, &f)
	t.record(f, d)
	if d.Verdict != policy.Allow {
		t.drop()
		if d.Verdict == policy.Native {
			t.listener.Continue(n)
		} else {
			t.listener.Answer(n, 0, sys.EPERM)
		}
		return
	}

	r := t.performer.Do(q, t.target)
	value, e, there := reply.Deliver(&t.listener, n, t.target, q, r)
	if r.FD >= 0 {
		sys.Close(r.FD)
	}
	t.drop()
	if there {
		t.listener.Answer(n, value, e)
	}
}

// drop closes the files that the request took or led to.
func (t *thread) drop() {
	t.target.Done()
	for _, f := range t.reader.Taken() {
		t.target.Drop(f.N)
	}
}

// whose adds to the facts of a call who makes it.
func (t *thread) whose(f facts.Facts, n *notify.Notification) facts.Facts {
	f.Workload, f.TID = t.cfg.Workload, n.TID
	return f
}

func (t *thread) record(f facts.Facts, d policy.Decision) {
	if t.cfg.Record == nil {
		return
	}
	t.cfg.Record(&f, d)
}
