package helper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/perform"
	"github.com/bpfbroker/bpfbroker/request"
)

// Channel is a worker's side. It is safe for use by many threads.
type Channel struct {
	mu  sync.Mutex // of whoever waits for an answer
	seq uint32

	own owned
}

// deadline is how long a call may wait for its answer. None takes as long, unless
// the daemon waits for something of the workload's.
const deadline = 30 * time.Second

// Client is the Channel as one thread uses it, by the number that the socket has
// in that thread's fd table. It implements perform.Host.
type Client struct {
	channel *Channel
	sock    *int
	bell    *uint32
	buf     []byte // for what comes
	out     []byte // for what goes
	call    Call
	answer  answer
}

// NewClient returns a client for the calling thread. bell is shared with the server.
func (c *Channel) NewClient(sock *int, bell *uint32) *Client {
	return &Client{channel: c, sock: sock, bell: bell}
}

// Ready says that the worker could serve, and waits until it shall. An error: the
// daemon is gone, and nobody knows of this worker.
func Ready(sock int) error {
	if err := sys.SendWithFDs(sock, []byte{kindReady}); err != nil {
		return err
	}
	var b [1]byte
	n, _, err := sys.RecvWithFDs(sock, b[:])
	if err != nil || n != 1 || b[0] != kindGo && b[0] != kindAgain {
		return fmt.Errorf("wait for the daemon: it is gone, or says %d (%v)", b[0], err)
	}
	return nil
}

// Fail says why the worker can't.
func Fail(sock int, err error) error {
	text := err.Error()
	return sys.SendWithFDs(sock, append([]byte{kindError}, text[:min(len(text), packetSize-1)]...))
}

// Token makes a token with the policy's ceiling: from a bpffs of the worker's user
// namespace that the daemon creates and that is mounted nowhere.
func Token(sock int) (token int, err error) {
	// The worker's own mount namespace belongs to the host: whoever else is in its user
	// namespace can't enter it, nor mount there what the worker would read. A bpffs can
	// be begun in one alone that belongs to the user namespace.
	err = sys.InOwnMountNS(func() error {
		fs, err := sys.OpenFS("bpf", "0700")
		if err != nil {
			return err
		}
		defer sys.Close(fs)
		if err := delegated(sock, fs); err != nil {
			return err
		}
		token, err = sys.TokenOf(fs)
		return err
	})
	return token, err
}

// delegated has the daemon create the bpffs that fs has begun. It takes fs from us: who
// sends fds can be kept from it by others of its uid (unix(7), ETOOMANYREFS), and
// without a token there is no worker.
func delegated(sock, fs int) error {
	if err := sys.SendWithFDs(sock, binary.LittleEndian.AppendUint32([]byte{kindBPFFS}, uint32(fs))); err != nil {
		return fmt.Errorf("ask for a bpffs: %w", err)
	}
	var b [8]byte
	n, _, err := sys.RecvWithFDs(sock, b[:])
	if err != nil || n == 0 {
		return fmt.Errorf("ask for a bpffs: no answer (%v)", err)
	}
	r := reader{b: b[:n]}
	if kind, e := r.u8(), r.u32(); r.short || kind != kindDone || e != 0 {
		return fmt.Errorf("create bpffs: %w", sys.Errno(e))
	}
	return nil
}

// Made implements perform.Host. It doesn't wait.
func (c *Client) Made(fd int) { c.show(kindMade, fd) }

// Opened implements perform.Host, likewise.
func (c *Client) Opened(fd int) { c.show(kindOpened, fd) }

func (c *Client) show(kind byte, fd int) {
	// Or the daemon is gone, or busy for long: nobody finds the object by its id then.
	_ = c.send(func() {
		if c.channel.mu.TryLock() { // nobody waits for an answer
			c.drain()
			c.channel.mu.Unlock()
		}
	}, []byte{kind}, fd)
}

// send sends a packet, with patience, but not for ever: a daemon that waits for
// us to take an answer takes nothing. full is called while there is no room.
func (c *Client) send(full func(), p []byte, fds ...int) error {
	began, patience := time.Now(), deadline
	for {
		err := sys.SendWithFDs(*c.sock, p, fds...)
		switch err {
		case sys.EAGAIN: // SO_SNDTIMEO: see sys.PacketPair
			full()
		case sys.ETOOMANYREFS:
			// What all processes of our uid have on the way is more than RLIMIT_NOFILE:
			// somebody holds it there, or it is over soon.
			if patience = min(patience, crowded); time.Since(began) < patience {
				sys.Pause(time.Millisecond)
			}
		default:
			if p[0] == kindCall || p[0] == kindAsk {
				atomic.AddUint32(c.bell, 1)
				sys.Wake(c.bell)
			}
			return err
		}
		if time.Since(began) > patience {
			return err
		}
	}
}

// crowded is how long to wait for others' fds to arrive.
const crowded = 50 * time.Millisecond

// drain takes answers that nobody waits for any more.
func (c *Client) drain() {
	for {
		if ok, err := sys.WaitReadable(*c.sock, 0); err != nil || !ok {
			return
		}
		n, fds, err := sys.RecvWithFDs(*c.sock, c.room())
		for _, fd := range fds {
			sys.Close(fd)
		}
		if err != nil || n == 0 {
			return
		}
	}
}

// room is memory for what comes.
func (c *Client) room() []byte {
	if c.buf == nil {
		c.buf, c.out = make([]byte, packetSize), make([]byte, 0, packetSize)
	}
	return c.buf
}

// Call implements perform.Host. Without an answer it is EPERM.
func (c *Client) Call(q *request.Request, r *perform.Result, where perform.Where) {
	c.channel.mu.Lock()
	defer c.channel.mu.Unlock()
	if err := c.exchange(q, r, where); err != nil {
		if r.FD >= 0 {
			sys.Close(r.FD)
		}
		*r = perform.Result{FD: -1, Errno: sys.EPERM}
	}
}

func (c *Client) exchange(q *request.Request, r *perform.Result, where perform.Where) error {
	c.room()
	c.drain()
	c.channel.seq++
	var fds []int
	sent := c.ask(q, r, where, &fds)
	c.call.Seq = c.channel.seq
	if len(fds) > maxFDs || len(c.call.Segments) > maxSegments {
		return fmt.Errorf("%d fds, %d pieces of memory", len(fds), len(c.call.Segments))
	}
	p := appendCall(c.out[:0], &c.call)
	if len(p) > packetSize {
		return fmt.Errorf("a call of %d bytes", len(p))
	}
	if err := c.send(c.drain, p, fds...); err != nil {
		return err
	}
	return c.receive(q, r, c.call.Seq, sent, func() error {
		return c.send(func() {}, p, fds...) // what comes meanwhile may be the answer
	})
}

// ask fills c.call and the fds; it returns the attribute as it is shown.
func (c *Client) ask(q *request.Request, r *perform.Result, where perform.Where, fds *[]int) []byte {
	k := &c.call
	*k = Call{Call: q.Call, Asks: where.Asks, PathErr: where.PathErr, Thread: where.Thread, Numbers: k.Numbers[:0], Segments: k.Segments[:0]}
	if where.NetNS >= 0 {
		k.HasNetNS = true
		*fds = append(*fds, where.NetNS)
	}
	if where.Path >= 0 {
		k.HasPath = true
		*fds = append(*fds, where.Path)
	}
	for _, f := range q.Files {
		if f.Err == 0 {
			k.Numbers = append(k.Numbers, int32(f.N))
			*fds = append(*fds, f.N)
		}
	}
	attr := append([]byte(nil), q.Attr...)
	for i := range q.Row.Fields {
		if f := &q.Row.Fields[i]; f.Class == abi.PID && f.Live(q.Attr) {
			f.Put(attr, f.Uint(r.Attr)) // ours
		}
	}
	for i, name := range q.Row.Args {
		if name != "" {
			k.Args[i] = q.Row.Field(name).Uint(attr)
		}
	}
	size := perform.Whole(q)
	k.Call.Size = size
	if q.Syscall == abi.SyscallPerfEventOpen {
		k.Call.Size = q.Size
		// What the call is to say of its size, which needn't be all that there is.
		size = abi.PerfEventAttrSize
		q.Row.Field("size").Put(attr, uint64(q.Size))
	}
	k.Segments = append(k.Segments, sys.Segment{Addr: q.Addr, Data: attr[:size]})
	for i := range q.Buffers {
		if b := &q.Buffers[i]; !b.Fault && b.Data != nil {
			k.Segments = append(k.Segments, sys.Segment{Addr: b.Addr, Data: b.Data[:min(uint64(len(b.Data)), max(b.Len, 1))]})
		}
	}
	return attr
}

// receive waits for the answer to seq, and puts it into r. A daemon that was
// started anew says so: what the one before left unanswered is sent again.
func (c *Client) receive(q *request.Request, r *perform.Result, seq uint32, sent []byte, again func() error) error {
	end := time.Now().Add(deadline)
	for {
		n, fds, err := c.packet(end)
		if err != nil {
			return err
		}
		if n == 1 && c.buf[0] == kindAgain {
			dropFD(r)
			if err := again(); err != nil {
				return err
			}
			continue
		}
		head := reader{b: c.buf[:n]}
		if head.u32() != seq { // of a call that nobody waits for any more
			for _, fd := range fds {
				sys.Close(fd)
			}
			continue
		}
		if len(head.b) == 0 && len(fds) == 1 && r.FD < 0 { // the answer's, which follows
			r.FD = fds[0]
			continue
		}
		for _, fd := range fds {
			sys.Close(fd)
			err = errors.New("an answer with fds")
		}
		var rest []byte
		if err == nil {
			rest, err = parseAnswer(head.b, &c.answer)
		}
		if err == nil && c.answer.FD != (r.FD >= 0) {
			err = errors.New("an answer without its fd, or with one too many")
		}
		if err != nil {
			dropFD(r)
			return err
		}
		a := &c.answer
		r.Errno, r.Value, r.CloseOnExec = a.Errno, int(a.Value), a.CloseOnExec
		if a.Attr == nil {
			r.Attr, r.Out = nil, nil
			return nil
		}
		// What the daemon left as it was shown is left as the application has it.
		copy(r.Attr, q.Attr)
		for i := range sent {
			if a.Attr[i] != sent[i] {
				r.Attr[i] = a.Attr[i]
			}
		}
		if err := c.outputs(r, seq, rest, end); err != errAgain {
			return err
		}
		dropFD(r)
		if err := again(); err != nil {
			return err
		}
	}
}

// dropFD closes the fd that came of a call, if there is one.
func dropFD(r *perform.Result) {
	if r.FD >= 0 {
		sys.Close(r.FD)
		r.FD = -1
	}
}

// errAgain says that a daemon was killed in the middle of an answer.
var errAgain = errors.New("another daemon")

// outputs receives the buffers, which may go on in further packets.
func (c *Client) outputs(r *perform.Result, seq uint32, rest []byte, end time.Time) error {
	if len(c.answer.Out) != len(r.Out) {
		return fmt.Errorf("%d buffers, not %d", len(c.answer.Out), len(r.Out))
	}
	for i, n := range c.answer.Out {
		if n < 0 {
			r.Out[i] = nil
			continue
		}
		if int(n) != len(r.Out[i]) {
			return fmt.Errorf("a buffer of %d bytes, not %d", n, len(r.Out[i]))
		}
		for out := r.Out[i]; len(out) > 0; {
			if len(rest) == 0 {
				n, fds, err := c.packet(end)
				if err != nil {
					return err
				}
				for _, fd := range fds {
					sys.Close(fd)
				}
				if n == 1 && c.buf[0] == kindAgain {
					return errAgain
				}
				head := reader{b: c.buf[:n]}
				if head.u32() != seq || len(head.b) == 0 {
					return fmt.Errorf("an answer that doesn't go on")
				}
				rest = head.b
			}
			k := copy(out, rest)
			out, rest = out[k:], rest[k:]
		}
	}
	return nil
}

func (c *Client) packet(end time.Time) (int, []int, error) {
	if ok, err := sys.WaitReadable(*c.sock, time.Until(end)); err != nil || !ok {
		return 0, nil, fmt.Errorf("no answer within %v (%v)", deadline, err)
	}
	n, fds, err := sys.RecvWithFDs(*c.sock, c.buf)
	if err == nil && n == 0 {
		err = fmt.Errorf("the daemon is gone")
	}
	return n, fds, err
}
