package helper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/audit"
	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/inspect"
	"github.com/bpfbroker/bpfbroker/internal/arena"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/perform"
	"github.com/bpfbroker/bpfbroker/policy"
	"github.com/bpfbroker/bpfbroker/request"
	"github.com/bpfbroker/bpfbroker/workload"
)

// Config says for whom a Server works.
type Config struct {
	Socket  *os.File // the daemon's end of the channel
	Policy  policy.Policy
	Objects *workload.Objects
	Audit   *audit.Log // nil: none is kept
	Bell    *uint32    // shared with the worker: see receive
	Probes  request.Probes
	Worker  int    // the worker's process id
	NetNS   uint64 // inode of the workload's network namespace
	Known   *workload.Known
	Cgroup  *os.File // the directory of the workload's cgroup (v2), if it is known; else nil
	// Holdings are what the workload holds, if that is counted; else nil.
	Holdings *workload.Holdings
	// Serving says that the worker served before, for another daemon.
	Serving bool
}

// Server serves one worker.
type Server struct {
	cfg   Config
	ready chan error
	ended chan struct{}
	err   error
}

// memory bounds what a call may use beside 128 KiB: what an info structure points
// to may be large.
const memory = 256 << 20

// Serve begins to serve, on a thread of its own, until the worker is gone.
func Serve(cfg Config) *Server {
	s := &Server{cfg: cfg, ready: make(chan error, 1), ended: make(chan struct{})}
	go func() { // a thread that ends with it
		defer close(s.ended)
		s.err = s.guarded()
		s.setReady(errors.Join(errors.New("the worker ended before it served"), s.err))
	}()
	return s
}

// Ready receives nil once the worker could serve, or why it can't.
func (s *Server) Ready() <-chan error { return s.ready }

// Go lets a worker serve that is ready.
func (s *Server) Go() error { return sys.SendWithFDs(int(s.cfg.Socket.Fd()), []byte{kindGo}) }

// Ended is closed when the worker has closed its end of the channel. Then Err
// may be called.
func (s *Server) Ended() <-chan struct{} { return s.ended }

// Err says, after Ended, what went wrong with the channel; nil: nothing.
func (s *Server) Err() error { return s.err }

func (s *Server) setReady(err error) {
	select {
	case s.ready <- err:
	default: // it was said
	}
}

// server is what the thread works with.
type server struct {
	*Server
	sock      int
	own       *sys.Thread
	mem       *arena.Arena
	reader    *request.Reader
	inspector inspect.Inspector
	performer *perform.Performer
	netNS     uint64 // that the thread is in
	worker    int    // pidfd; -1 once it serves
	serving   bool   // the worker has said that it is ready
	rested    bool   // the last packet wasn't one of many that nobody waits for
	served    uint32 // the number of the last call, 0: there was none
	buf       []byte
	call      target
}

// guarded makes an error of a panic: it is the worker that is replaced then, not the
// daemon.
func (s *Server) guarded() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return s.run()
}

func (s *Server) run() error {
	t := &server{Server: s, sock: int(s.cfg.Socket.Fd()), mem: arena.New(arena.NewBudget(memory)), buf: make([]byte, packetSize), rested: true}
	cgroup, keep := -1, []*int{&t.sock}
	if s.cfg.Cgroup != nil {
		cgroup = int(s.cfg.Cgroup.Fd())
		keep = append(keep, &cgroup)
	}
	own, err := sys.Isolate(keep...)
	if err != nil {
		return err
	}
	t.own = own
	own.Yielding()                        // to the worker, which doesn't wait for most that it sends
	defer func() { sys.HangUp(t.sock) }() // the worker sees it, whoever else has our end open
	if t.netNS, _, err = own.NetNS(); err != nil {
		return err
	}
	t.reader = request.NewReader(t.mem, s.cfg.Probes)
	t.inspector.Workload, t.inspector.CPUs = s.cfg.Known.Workload, s.cfg.Known.CPUs
	t.performer = perform.NewForHost(t.mem, s.cfg.Objects)
	t.performer.ReadOnly, t.performer.Guard, t.performer.IDs, t.performer.Cgroup = s.cfg.Known.ReadOnly, s.cfg.Known.Guard, s.cfg.Known.IDs, cgroup
	t.call.server = t
	t.call.Files = workload.FilesOf(s.cfg.Known)
	if h := s.cfg.Holdings; h != nil {
		t.call.Count = func() (facts.Counts, error) { return h.Living(lives), nil }
	}
	for i := range t.call.fds {
		t.call.fds[i] = -1
	}
	t.worker = -1
	if s.cfg.Serving {
		t.serving = true
		s.setReady(nil)
		if err := t.send([]byte{kindAgain}); err != nil {
			return err
		}
	} else {
		// Now: once it is reaped, its number may be another's.
		var e sys.Errno
		if t.worker, e = sys.PidfdOpen(s.cfg.Worker); e != 0 {
			return fmt.Errorf("open the worker's process: %w", e)
		}
	}
	for {
		n, fds, err := t.receive()
		if err == sys.ECONNRESET {
			continue // told once: it is gone, and hasn't read all. What it sent last is still there
		}
		if err == nil && n == 0 {
			return nil // it is gone
		}
		if err == nil {
			// Until it is done with, the packet stays for the next daemon.
			err = t.packet(t.buf[:n], fds)
			sys.DropPacket(t.sock)
		}
		if err != nil {
			return err
		}
	}
}

// rest is how long objects that the worker shows may lie in the socket.
const rest = 4 * time.Millisecond

// receive waits for the next packet. Nobody waits for kindMade; waking up for each
// would cost the worker more than showing the object. So after one of these, and
// what else there is, we rest, until the worker rings because it waits for an answer.
func (t *server) receive() (n int, fds []int, err error) {
	if !t.rested {
		heard := atomic.LoadUint32(t.cfg.Bell)
		n, fds, err = sys.PeekWithFDs(t.sock, t.buf, false)
		if err != sys.EAGAIN {
			t.rested = n == 0 || !nobodyWaits(t.buf[0])
			return n, fds, err
		}
		sys.WaitOn(t.cfg.Bell, heard, rest)
	}
	n, fds, err = sys.PeekWithFDs(t.sock, t.buf, true)
	t.rested = n == 0 || !nobodyWaits(t.buf[0])
	return n, fds, err
}

// nobodyWaits says that a packet of this kind has no answer.
func nobodyWaits(kind byte) bool { return kind == kindMade || kind == kindOpened }

// packet handles one packet. An error ends the connection: such a packet is no
// worker's of ours.
func (t *server) packet(b []byte, fds []int) error {
	defer func() {
		for _, fd := range fds {
			sys.Close(fd)
		}
	}()
	switch b[0] {
	case kindBPFFS:
		r := reader{b: b[1:]}
		n := int(r.u32())
		if t.serving || r.short || len(r.b) != 0 {
			return errors.New("asks for a bpffs while it serves, or for none")
		}
		e := t.delegate(n)
		return t.send(binary.LittleEndian.AppendUint32([]byte{kindDone}, uint32(e)))
	case kindReady:
		if !t.serving { // its number may be one of a target's file from now on
			sys.Close(t.worker)
			t.worker = -1
		}
		t.serving = true
		t.setReady(nil)
	case kindError:
		err := errors.New(string(b[1:]))
		t.setReady(err)
		return err
	case kindMade:
		for _, fd := range fds {
			t.shown(fd, t.cfg.Objects.Add)
		}
	case kindOpened:
		for _, fd := range fds {
			t.shown(fd, t.cfg.Objects.Open)
		}
	case kindAsk:
		return t.about(b)
	case kindCall:
		t.call.reset()
		if err := parseCall(b, &t.call.Call); err != nil {
			return err
		}
		defer t.call.drop()
		again := t.call.Seq == t.served
		got := fds
		fds = nil // they are t.call's
		if err := t.call.take(got); err != nil {
			return err
		}
		if again {
			return nil // it was asked before kindAgain, which made the worker ask again
		}
		t.served = t.call.Seq
		return t.serve(t.call.Seq)
	default:
		return fmt.Errorf("a packet of kind %d", b[0])
	}
	return nil
}

// delegate makes a bpffs of the policy's ceiling from the fs context that the worker has
// begun, its fd n.
func (t *server) delegate(n int) sys.Errno {
	fs, e := sys.PidfdGetFD(t.worker, n)
	if e != 0 {
		return e
	}
	defer sys.Close(fs)
	return sys.CreateDelegation(fs, t.cfg.Policy.Ceiling().Options())
}

// shown has an object noted that the worker shows. What is no map, program or BTF is
// none of the workload's.
func (t *server) shown(fd int, note func(abi.Object, uint32)) {
	kind := perform.ObjectAt(fd)
	switch {
	case kind != abi.Map && kind != abi.Prog && kind != abi.BTF:
		return
	case kind == abi.BTF && perform.IsKernelBTF(fd):
		return // everybody's
	}
	if id := perform.ObjectID(kind, fd); id != 0 {
		note(kind, id)
	}
}

// serve goes the way of an operation: request, facts, decision, performance. The
// answer goes to the worker.
func (t *server) serve(seq uint32) error {
	defer t.mem.Reset()
	q, e := t.reader.Read(&t.call, t.call.Call.Call)
	// Before the answer: an application that closes its only fd of a link finds the link
	// gone.
	drop := func() {
		for _, f := range t.reader.Taken() {
			t.own.Clear(f.N)
		}
		t.call.drop()
	}
	if e == 0 {
		var allowed bool
		if allowed, t.performer.Scoped = t.allows(q); !allowed {
			e = sys.EPERM
		}
	}
	if e != 0 {
		drop()
		return t.answer(seq, &perform.Result{FD: -1, Errno: e})
	}
	r := t.performer.Do(q, &t.call, perform.Quiet, nil)
	drop()
	return t.answer(seq, withoutAddresses(q, r))
}

// allows says whether the worker should have asked for this: a call that it can't make
// itself, that the policy allows, about what the workload could name; and whether it is
// allowed for the workload's tasks alone.
func (t *server) allows(q *request.Request) (allowed, scoped bool) {
	if t.call.Asks && asking[q.Command] && q.Syscall == abi.SyscallBPF {
		return t.mayAskFor(q), false
	}
	f := t.inspector.Request(q, t.cfg.Policy.Needs(q.Row.Name), &t.call)
	f.Workload.Thread = int64(t.call.Thread)
	if f.Event.PID > 0 && f.Event.PID == f.Workload.Thread {
		f.Event.PID = 0 // as the caller says it
	}
	d := t.cfg.Policy.Decide(f)
	switch {
	case d.Verdict != policy.Allow:
	case !perform.NeedsHost(q):
		d = policy.Decision{Cause: policy.ByError, Message: "the worker asks for what it can make itself"}
	case !t.mayAskFor(q):
		d = policy.Decision{Cause: policy.ByError, Message: "the worker asks for a process that isn't the workload's"}
	}
	if d.Verdict != policy.Allow { // what is allowed is in the worker's record
		t.cfg.Audit.Add(&audit.Record{Time: time.Now(), Facts: f.Clone(), Has: audit.Has(f), Policy: t.cfg.Policy.Name(), Decision: d,
			Outcome: audit.Outcome{Errno: sys.EPERM, ByDaemon: true}})
	}
	return d.Verdict == policy.Allow, d.Scope == policy.ScopeWorkload
}

// asking are the commands by which a worker finds out on the way of another call how things
// stand: whether it happened, which of the kernel's types a name is. The policy isn't asked:
// they show what the workload may see, and change nothing.
var asking = map[abi.Command]bool{abi.ProgQuery: true, abi.TaskFDQuery: true, abi.BTFGetNextID: true, abi.BTFGetFDByID: true, abi.MapGetFDByID: true}

// mayAskFor says whether the process that the call is about is one that the workload
// could name: the worker says it by the host's number. A policy that trusts the
// workload trusts it with all, but to be sent SIGTRAP.
func (t *server) mayAskFor(q *request.Request) bool {
	for i := range q.Row.Fields {
		f := &q.Row.Fields[i]
		if f.Class != abi.PID || !f.Live(q.Attr) {
			continue
		}
		traps := q.Field("bits")&abi.PerfBitSigtrap != 0
		pid := int32(f.Uint(q.Attr))
		if pid > 0 && (traps || !t.cfg.Policy.Trusts()) && !sys.InUserNS(int(pid), t.cfg.Known.UserNS) {
			return false
		}
	}
	return true
}

// withoutAddresses takes our pointers out of what the worker is shown: where it
// asks whether the kernel has cleared one, 1 says no.
func withoutAddresses(q *request.Request, r *perform.Result) *perform.Result {
	if r.Attr == nil {
		return r
	}
	for i := range q.Row.Fields {
		if f := &q.Row.Fields[i]; f.Class == abi.Pointer && f.Live(q.Attr) {
			f.Put(r.Attr, f.Uint(q.Attr))
		}
	}
	for i := range q.Buffers {
		b := &q.Buffers[i]
		if b.Parent == request.NoParent || r.Out[b.Parent] == nil {
			continue
		}
		if abi.Uint(r.Out[b.Parent], b.Offset, 8) != 0 {
			abi.Put(r.Out[b.Parent], b.Offset, 8, 1)
		}
	}
	return r
}

func (t *server) answer(seq uint32, r *perform.Result) error {
	a := answer{Errno: r.Errno, Value: int64(r.Value), FD: r.FD >= 0, CloseOnExec: r.CloseOnExec}
	if r.Attr != nil {
		a.Attr = r.Attr[:abi.AttrSize]
		for _, out := range r.Out {
			n := int32(-1)
			if out != nil {
				n = int32(len(out))
			}
			a.Out = append(a.Out, n)
		}
	}
	number := binary.LittleEndian.AppendUint32(nil, seq)
	if r.FD >= 0 {
		// It goes first, so that ours is closed when the worker has the answer.
		err := t.send(number, r.FD)
		sys.Close(r.FD)
		if err != nil {
			return err
		}
	}
	p := appendAnswer(append(t.buf[:0], number...), &a)
	for i, out := range r.Out {
		if a.Out == nil || a.Out[i] < 0 {
			continue
		}
		for len(out) > 0 {
			if len(p) == packetSize {
				if err := t.send(p); err != nil {
					return err
				}
				p = append(t.buf[:0], number...)
			}
			n := min(len(out), packetSize-len(p))
			p, out = append(p, out[:n]...), out[n:]
		}
	}
	return t.send(p)
}

func (t *server) send(p []byte, fds ...int) error {
	err := sys.SendWithFDs(t.sock, p, fds...)
	if err == sys.EPIPE || err == sys.ECONNRESET {
		return nil // the next receive says so
	}
	return err
}
