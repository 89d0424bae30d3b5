package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// A build with the tag attack has a command of bpf() by which a workload makes its
// worker make system calls: this is what a workload can do that has found a way to
// execute code there. Here is how it is told which (broker/attack.go,
// internal/sys/attack.go).

const (
	cmdAttack = 0x61747463
	storeStep = math.MaxUint64
)

// taken is a worker that was taken over: what the code finds in it.
type taken struct {
	Listener, Channel, Token, PID int32
}

// takeOver looks at the worker that serves now.
func takeOver() *taken {
	t := &taken{}
	for t.refresh() == unix.EOWNERDEAD {
	}
	return t
}

func (t *taken) refresh() sys.Errno { return t.code().run() }

// code is what the worker executes: steps on one thread, and their memory.
type code struct {
	in     *taken
	steps  []step
	memory []byte
	fine   map[int]unix.Errno // failures of steps that say that all was permitted
}

type step struct {
	Nr              uint64
	Args            [6]uint64
	Memory, Earlier uint64
	If              uint64
	Result          int64
}

type (
	at int // an address, as an offset into the memory
	of int // the result of a step
)

func (t *taken) code() *code { return &code{in: t, fine: map[int]unix.Errno{}} }

// room is n zero bytes.
func (c *code) room(n int) at {
	a := at(len(c.memory)+7) &^ 7
	c.memory = append(c.memory, make([]byte, int(a)+n-len(c.memory))...)
	return a
}

func (c *code) bytes(b []byte) at {
	a := c.room(len(b))
	copy(c.memory[a:], b)
	return a
}

// arg makes an argument of a number, an address, a result, or what is to be at an
// address.
func (c *code) arg(s *step, i int, v any) {
	switch v := v.(type) {
	case int:
		s.Args[i] = uint64(v)
	case int32:
		s.Args[i] = uint64(v)
	case uint32:
		s.Args[i] = uint64(v)
	case uint64:
		s.Args[i] = v
	case at:
		s.Args[i], s.Memory = uint64(v), s.Memory|1<<i
	case of:
		s.Args[i], s.Earlier = uint64(v), s.Earlier|1<<i
	case string:
		c.arg(s, i, c.bytes(append([]byte(v), 0)))
	case []byte:
		c.arg(s, i, c.bytes(v))
	default:
		fail("an argument of type %T", v)
	}
}

// call makes a system call.
func (c *code) call(nr int, args ...any) of {
	s := step{Nr: uint64(nr)}
	for i, v := range args {
		c.arg(&s, i, v)
	}
	c.steps = append(c.steps, s)
	return of(len(c.steps) - 1)
}

// put puts a value of size bytes into the memory, before the calls that follow.
func (c *code) put(to at, v any, size int) {
	s := step{Nr: storeStep}
	c.arg(&s, 0, to)
	c.arg(&s, 1, v)
	c.arg(&s, 2, size)
	c.steps = append(c.steps, s)
}

// done says that an errno of the last step means that it was permitted.
func (c *code) done(e unix.Errno) { c.fine[len(c.steps)-1] = e }

// run has the worker execute it. EOWNERDEAD: the worker was ended.
func (c *code) run() sys.Errno {
	list := make([]byte, binary.Size(c.steps))
	if _, err := binary.Encode(list, binary.NativeEndian, c.steps); err != nil {
		fail("%v", err)
	}
	attr := make([]byte, 48)
	for i, v := range []uint64{sys.Addr(list), uint64(len(c.steps)), sys.Addr(c.memory), uint64(len(c.memory))} {
		binary.NativeEndian.PutUint64(attr[8*i:], v)
	}
	_, e := sys.BPF(cmdAttack, attr, uint32(len(attr)))
	switch e {
	case 0:
	case unix.EOWNERDEAD:
		return e
	default:
		fail("the worker doesn't do what it is told: %v", e)
	}
	if _, err := binary.Decode(list, binary.NativeEndian, c.steps); err != nil {
		fail("%v", err)
	}
	if _, err := binary.Decode(attr[32:], binary.NativeEndian, c.in); err != nil {
		fail("%v", err)
	}
	return 0
}

const (
	possible   = "possible"
	endsWorker = "ends the worker"
)

// outcome runs it: possible, or the errno of the first step that failed.
func (c *code) outcome() string {
	if c.run() != 0 {
		return endsWorker
	}
	for i, s := range c.steps {
		e := unix.Errno(-s.Result)
		if s.Nr != storeStep && s.Result < 0 && s.Result > -4096 && (c.fine[i] == 0 || c.fine[i] != e) {
			return sys.ErrnoName(e)
		}
	}
	return possible
}

// files lists what is open in a directory of fds.
func (t *taken) files(dir string) string {
	c := t.code()
	const size = 32 << 10
	buf := c.room(size)
	fd := c.call(unix.SYS_OPENAT, unix.AT_FDCWD, dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	got := c.call(unix.SYS_GETDENTS64, fd, buf, size)
	if out := c.outcome(); out != possible {
		return out
	}
	_, _, names := unix.ParseDirent(c.memory[buf:][:c.steps[got].Result], -1, nil)
	n := map[string]int{}
	for _, name := range names {
		c := t.code()
		const room = 128
		buf := c.room(room)
		c.call(unix.SYS_READLINKAT, unix.AT_FDCWD, dir+"/"+name, buf, room)
		if c.outcome() != possible {
			continue // the directory's own
		}
		to := c.memory[buf:][:room]
		to = to[:bytes.IndexByte(to, 0)]
		n[string(numbers.ReplaceAll(to, []byte("$1")))]++
	}
	var out []string
	for _, to := range slices.Sorted(maps.Keys(n)) {
		if n[to] > 1 {
			to += fmt.Sprintf(" (%d)", n[to])
		}
		out = append(out, to)
	}
	return strings.Join(out, ", ")
}

// numbers are those in the names of sockets and terminals.
var numbers = regexp.MustCompile(`(:\[|pts/)[0-9]+`)

// The kinds of packets on the channel to the daemon (helper/wire.go).
const (
	kindBPFFS = 1 + iota
	kindReady
	kindMade
	kindCall
	kindError
	kindDone
)

// packet sends the daemon a packet with fds.
func (c *code) packet(data []byte, fds ...any) { c.send(c.in.Channel, data, fds...) }

// send sends a packet over a socket.
func (c *code) send(sock any, data []byte, fds ...any) {
	iov := c.room(16)
	c.put(iov, c.bytes(data), 8)
	c.put(iov+8, len(data), 8)
	msg := c.room(56)
	c.put(msg+16, iov, 8)
	c.put(msg+24, 1, 8)
	if n := len(fds); n > 0 {
		control := c.room(16 + 4*n)
		c.put(control, 16+4*n, 8)
		c.put(control+8, unix.SOL_SOCKET, 4)
		c.put(control+12, unix.SCM_RIGHTS, 4)
		for i, fd := range fds {
			c.put(control+16+at(4*i), fd, 4)
		}
		c.put(msg+32, control, 8)
		c.put(msg+40, 16+4*n, 8)
	}
	c.call(unix.SYS_SENDMSG, sock, msg, unix.MSG_NOSIGNAL)
}

// hostCall is a call that the daemon is asked for, in the words of the channel.
type hostCall struct {
	perf     bool
	command  uint32
	attr     []byte
	netNS    bool // the first fd is of one
	numbers  []int32
	segments []byte // instead of attr's
}

// seq is the number of the last call: the daemon answers to each once.
var seq = uint32(cmdAttack)

func (h hostCall) packet() []byte {
	le := binary.LittleEndian
	b := []byte{kindCall, 0, 0}
	if h.perf {
		b[1] = 1
	}
	if h.netNS {
		b[2] = 1
	}
	const addr = 0x10000
	seq++
	b = le.AppendUint32(b, seq)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint32(b, 0) // the thread
	b = le.AppendUint32(b, h.command)
	b = le.AppendUint64(b, addr)
	b = le.AppendUint32(b, uint32(len(h.attr)))
	for range 6 {
		b = le.AppendUint64(b, math.MaxUint64) // of perf_event_open: any process, …
	}
	b = append(b, byte(len(h.numbers)), 1)
	for _, n := range h.numbers {
		b = le.AppendUint32(b, uint32(n))
	}
	if h.segments != nil {
		return append(b, h.segments...)
	}
	b = le.AppendUint64(b, addr)
	b = le.AppendUint32(b, uint32(len(h.attr)))
	return append(b, h.attr...)
}

// answered runs code that has sent packets, and says what the daemon answers to the
// call among them.
func (c *code) answered() string {
	poll := c.room(8)
	c.put(poll, c.in.Channel, 4)
	c.put(poll+4, unix.POLLIN, 2)
	wait := c.room(16)
	c.put(wait, 10, 8) // s
	ready := c.call(unix.SYS_PPOLL, poll, 1, wait, 0, 0)
	const size = 64 << 10
	buf, iov, msg := c.room(size), c.room(16), c.room(56)
	c.put(iov, buf, 8)
	c.put(iov+8, size, 8)
	c.put(msg+16, iov, 8)
	c.put(msg+24, 1, 8)
	got := c.call(unix.SYS_RECVMSG, c.in.Channel, msg, unix.MSG_CMSG_CLOEXEC)
	c.steps[got].If = uint64(ready) + 1
	c.done(unix.ECANCELED)
	switch out := c.outcome(); {
	case out != possible:
		return out
	case c.steps[ready].Result == 0:
		return "no answer"
	case c.steps[got].Result == 4: // an fd; the answer follows
		return c.in.code().answered()
	case c.steps[got].Result >= 8:
		if e := unix.Errno(binary.LittleEndian.Uint32(c.memory[buf+4:])); e != 0 {
			return sys.ErrnoName(e)
		}
		return possible
	}
	// The daemon has hung up, and is about to end the worker.
	for pid := c.in.PID; c.in.refresh() == 0 && c.in.PID == pid; {
		time.Sleep(time.Millisecond)
	}
	return endsWorker
}

// TestFDsOnTheWay has a workload keep as many fds on the way in sockets as the kernel
// lets it: all processes of a uid count together (unix(7), ETOOMANYREFS), and its worker
// is one of them. Another worker takes over all the same.
func TestFDsOnTheWay(t *testing.T) {
	needRoot(t)
	run := brokered(probe("hoarder"))
	limited := exec.Command("prlimit", append([]string{"--nofile=1200", "--"}, run.Args...)...)
	limited.Env, limited.Dir = run.Env, run.Dir
	s := start(t, limited)
	s.expect("full")
	worker := s.process("worker")
	if err := syscall.Kill(worker, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.say("go on")
	s.expect("ok")
	s.end(false)
	if s.err != nil || strings.Count(s.stderr.String(), "\n") != 1 {
		t.Errorf("%v, %s", s.err, s.stderr.String())
	}
}

func init() {
	probes["hoarder"] = okay(func() error {
		full := false
		for !full {
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
			if err != nil {
				return err
			}
			const most = 253 // SCM_MAX_FD
			switch err := unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(make([]int, most)...), nil, 0); {
			case err == unix.ETOOMANYREFS:
				full = true
			case err != nil:
				return err
			}
		}
		ask("full")
		fd, e := variety(0).create("hoarder")
		if e != 0 {
			return fmt.Errorf("map_create: %w", e)
		}
		if err := variety(0).check(fd); err != nil {
			return err
		}
		return nil
	})
}

// TestWorkerKilled kills a worker again and again: no call fails, nothing hangs, and
// run says what happened and cleans up.
func TestWorkerKilled(t *testing.T) {
	needRoot(t)
	s := start(t, brokered(probe("orphaned")))
	s.expect("calling")
	for range 5 {
		worker := s.process("worker")
		eventually(t, "the worker at work", func() bool { return cpuTicks(worker) > 5 })
		if err := syscall.Kill(worker, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "another worker", func() bool { return s.process("worker") != worker })
	}
	s.say("enough")
	s.expect("ok")
	s.end(false)
	if s.err != nil {
		t.Errorf("the command was fine, run wasn't: %v", s.err)
	}
	if got := s.stderr.String(); strings.Count(got, "ended by SIGKILL; another takes over") != 5 {
		t.Errorf("run doesn't tell of its killed workers: %q", got)
	}
	eventually(t, "nothing of them is left", func() bool { return named(t, "orphaned") == 0 })
}

func init() {
	probes["orphaned"] = okay(func() error {
		errs := make(chan error)
		var stop atomic.Bool
		const threads = 8
		for i := range threads {
			go func() {
				for !stop.Load() {
					var e sys.Errno
					var fd int
					if i%2 == 0 {
						fd, e = load(progTypeSocket, "orphaned", slow(50000), 2, make([]byte, 4096))
						if e == sys.ENOSPC {
							e = 0 // the log is too long for the buffer
							fd = -1
						}
					} else {
						fd, e = variety(i).create("orphaned")
						if e == 0 {
							if err := variety(i).check(fd); err != nil {
								errs <- err
								return
							}
						}
					}
					if e != 0 {
						errs <- fmt.Errorf("thread %d: %w", i, e)
						return
					}
					unix.Close(fd)
				}
				errs <- nil
			}()
		}
		ask("calling")
		stop.Store(true)
		for range threads {
			if err := <-errs; err != nil {
				return err
			}
		}
		return nil
	})
}
