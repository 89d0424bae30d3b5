package e2e

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// What the storm, kill and attack tests share: plain bpf() calls without the
// table of the ABI (which is among what is tested), and a look at a worker from
// outside.

// patience is for what must happen but has no time by which it must have.
const patience = 2 * time.Minute

// Commands of bpf(), enum bpf_cmd.
const (
	cmdMapCreate     = 0
	cmdMapLookup     = 1
	cmdMapUpdate     = 2
	cmdMapNextKey    = 4
	cmdProgLoad      = 5
	cmdObjPin        = 6
	cmdObjGet        = 7
	cmdProgNextID    = 11
	cmdMapNextID     = 12
	cmdProgByID      = 13
	cmdMapByID       = 14
	cmdObjInfo       = 15
	cmdRawTracepoint = 17
	cmdLinkCreate    = 28
	progTypeSocket   = 1
	progTypeSyscall  = 31
	noPrealloc       = 1 // BPF_F_NO_PREALLOC
)

// attr is a union bpf_attr in the making.
type attr [256]byte

func (a *attr) u32(offset int, v uint32) *attr {
	binary.NativeEndian.PutUint32(a[offset:], v)
	return a
}

func (a *attr) u64(offset int, v uint64) *attr {
	binary.NativeEndian.PutUint64(a[offset:], v)
	return a
}

func (a *attr) name(offset int, s string) *attr {
	copy(a[offset:offset+15], s)
	return a
}

// bpf makes a call; keep are the buffers that a points to.
func bpf(cmd uint32, a *attr, size uint32, keep ...[]byte) (int, sys.Errno) {
	v, _, e := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(unsafe.Pointer(a)), uintptr(size)|unseen)
	runtime.KeepAlive(keep)
	return int(v), e
}

// unseen are bits of the size that the kernel doesn't look at: see TestKilledAtEachStep.
var unseen uintptr

// hashMap is what the tests ask for, in ever other sizes: a map that is taken for
// another shows it.
type hashMap struct{ key, value, entries int }

// variety returns the i-th of many shapes.
func variety(i int) hashMap { return hashMap{4 + 4*(i%5), 8 + 8*(i/5%7), 1 + i%3} }

func (h hashMap) create(name string) (int, sys.Errno) {
	a := new(attr).u32(0, 1).u32(4, uint32(h.key)).u32(8, uint32(h.value)).u32(12, uint32(h.entries)).u32(16, noPrealloc).name(28, name)
	return bpf(cmdMapCreate, a, 72)
}

// check says what is wrong with a fd that should be of a new map like h. It uses
// the commands that go straight to the kernel.
func (h hashMap) check(fd int) error {
	if fd <= 2 {
		return fmt.Errorf("got fd %d for a new map", fd)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags != unix.FD_CLOEXEC {
		return fmt.Errorf("fd %d: flags %#x, %v", fd, flags, err)
	}
	const room = 128
	got := bytes.Repeat([]byte{0xee}, room)
	key := make([]byte, room)
	elem := func(cmd uint32, k, v []byte) sys.Errno {
		_, e := bpf(cmd, new(attr).u32(0, uint32(fd)).u64(8, sys.Addr(k)).u64(16, sys.Addr(v)), 32, k, v)
		return e
	}
	if e := elem(cmdMapNextKey, key, got); e != sys.ENOENT {
		return fmt.Errorf("a new map has a key: %v", e)
	}
	value := make([]byte, room)
	for i := range value {
		value[i] = byte(i + 1)
	}
	for i := range h.entries + 1 {
		for k := range h.key {
			key[k] = byte(i + 1)
		}
		want := sys.Errno(0)
		if i == h.entries {
			want = sys.E2BIG // it is full
		}
		if e := elem(cmdMapUpdate, key, value); e != want {
			return fmt.Errorf("update %d of %d: %v", i+1, h.entries, e)
		}
	}
	for k := range h.key {
		key[k] = 1
	}
	if e := elem(cmdMapLookup, key, got); e != 0 {
		return fmt.Errorf("lookup: %w", e)
	}
	if n := bytes.IndexByte(got, 0xee); n != h.value || !bytes.Equal(got[:n], value[:n]) {
		return fmt.Errorf("values have %d bytes, not %d", n, h.value)
	}
	got = bytes.Repeat([]byte{0xee}, room)
	if e := elem(cmdMapNextKey, nil, got); e != 0 {
		return fmt.Errorf("next key: %w", e)
	}
	if n := bytes.IndexByte(got, 0xee); n != h.key {
		return fmt.Errorf("keys have %d bytes, not %d", n, h.key)
	}
	return nil
}

// returns is a program that returns n.
func returns(n int32) []byte {
	return prog(movR0(n), exit)
}

// slow is a program that the verifier follows for a while: a loop of n rounds.
func slow(n int32) []byte {
	return prog(
		movR0(0),
		insn(0x07, 0, 0, 0, 1),  // r0 += 1
		insn(0xa5, 0, 0, -2, n), // if r0 < n goto -2
		exit)
}

var gpl = append([]byte("GPL"), 0)

// load loads a program of a type; log may be nil.
func load(progType uint32, name string, insns []byte, level uint32, log []byte) (int, sys.Errno) {
	a := new(attr).u32(0, progType).u32(4, uint32(len(insns)/8)).u64(8, sys.Addr(insns)).u64(16, sys.Addr(gpl)).name(48, name)
	if log != nil {
		a.u32(24, level).u32(28, uint32(len(log))).u64(32, sys.Addr(log))
	}
	return bpf(cmdProgLoad, a, 144, insns, log)
}

// info is the start of struct bpf_prog_info or bpf_map_info.
func info(fd int) ([]byte, sys.Errno) {
	b := make([]byte, 80)
	_, e := bpf(cmdObjInfo, new(attr).u32(0, uint32(fd)).u32(4, uint32(len(b))).u64(8, sys.Addr(b)), 16, b)
	return b, e
}

// nameOffset is where a name is in both of bpf_map_info and, behind other things,
// bpf_prog_info.
const (
	mapNameOffset  = 24
	progNameOffset = 64
)

// named counts the maps and programs of the whole host whose name begins with
// prefix.
func named(t *testing.T, prefix string) (n int) {
	t.Helper()
	for _, kind := range []struct {
		next, get  uint32
		nameOffset int
	}{{cmdMapNextID, cmdMapByID, mapNameOffset}, {cmdProgNextID, cmdProgByID, progNameOffset}} {
		for id := uint32(0); ; {
			a := new(attr).u32(0, id)
			if _, e := bpf(kind.next, a, 8); e == sys.ENOENT {
				break
			} else if e != 0 {
				t.Fatalf("list objects: %v", e)
			}
			id = binary.NativeEndian.Uint32(a[4:])
			fd, e := bpf(kind.get, new(attr).u32(0, id), 12)
			if e != 0 {
				continue // gone meanwhile
			}
			b, e := info(fd)
			syscall.Close(fd)
			if e == 0 && strings.HasPrefix(string(b[kind.nameOffset:kind.nameOffset+16]), prefix) {
				n++
			}
		}
	}
	return n
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// session is a probe that runs and talks with the test, line by line.
type session struct {
	t      *testing.T
	cmd    *exec.Cmd
	in     io.WriteCloser
	lines  chan string
	ended  chan struct{}
	err    error // valid once ended
	stderr lockedBuffer
	worker int
}

// start starts a command, brokered or not. The test's end ends it.
func start(t *testing.T, c *exec.Cmd) *session {
	t.Helper()
	s := &session{t: t, cmd: c, lines: make(chan string, 1000), ended: make(chan struct{})}
	c.Stderr = &s.stderr
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.in = in
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(s.ended)
		r := bufio.NewScanner(out)
		for r.Scan() {
			s.lines <- r.Text()
		}
		close(s.lines)
		s.err = c.Wait()
	}()
	t.Cleanup(func() {
		select {
		case <-s.ended:
		default:
			c.Process.Signal(syscall.SIGTERM) // run takes its workload along
			select {
			case <-s.ended:
			case <-time.After(patience):
				t.Errorf("%v doesn't end after SIGTERM", c.Args)
				c.Process.Kill()
			}
		}
		if e := s.stderr.String(); strings.Contains(e, "DATA RACE") {
			t.Errorf("%v: %s", c.Args, e)
		}
	})
	return s
}

// say sends the probe a line.
func (s *session) say(line string) {
	s.t.Helper()
	if _, err := fmt.Fprintln(s.in, line); err != nil {
		s.t.Fatalf("%v: %v\n%s", s.cmd.Args, err, s.stderr.String())
	}
}

// hear returns the probe's next line.
func (s *session) hear() string {
	s.t.Helper()
	return s.hearWithin(patience)
}

func (s *session) hearWithin(d time.Duration) string {
	s.t.Helper()
	select {
	case line, ok := <-s.lines:
		if !ok {
			<-s.ended
			s.t.Fatalf("%v ended: %v\n%s", s.cmd.Args, s.err, s.stderr.String())
		}
		return line
	case <-time.After(d):
		s.t.Fatalf("%v says nothing for %v\n%s", s.cmd.Args, d, s.stderr.String())
	}
	panic("unreachable")
}

// expect wants the probe to say just this.
func (s *session) expect(line string) {
	s.t.Helper()
	if got := s.hear(); got != line {
		s.t.Fatalf("the probe says %q, not %q", got, line)
	}
}

// end waits for the command's end and wants it to be a good one, or at least one
// that doesn't hang.
func (s *session) end(good bool) {
	s.t.Helper()
	s.in.Close()
	select {
	case <-s.ended:
	case <-time.After(patience):
		s.t.Fatalf("%v doesn't end", s.cmd.Args)
	}
	if good && (s.err != nil || s.stderr.String() != "") {
		s.t.Errorf("%v: %v\n%s", s.cmd.Args, s.err, s.stderr.String())
	}
}

// ask is the probe's side: it says a line and waits for one.
var stdin = bufio.NewReader(os.Stdin)

func ask(line string) string {
	fmt.Println(line)
	answer, err := stdin.ReadString('\n')
	if err != nil {
		os.Exit(0) // the test is over
	}
	return strings.TrimSuffix(answer, "\n")
}

// fail ends a probe.
func fail(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// findWorker finds the session's worker, once.
func (s *session) findWorker() int {
	s.t.Helper()
	if s.worker == 0 {
		s.worker = s.process("worker")
	}
	return s.worker
}

// process waits for the session's worker or daemon: the process that calls itself
// so, and has the id that run's child, the daemon, has.
func (s *session) process(name string) (pid int) {
	s.t.Helper()
	eventually(s.t, "a "+name, func() bool {
		id := ""
		for child, args := range ours("daemon") {
			if statusField(child, "PPid") == s.cmd.Process.Pid {
				id = args[2]
			}
		}
		for child, args := range ours(name) {
			if args[2] == id {
				pid = child
			}
		}
		return pid != 0
	})
	return pid
}

// ours lists the processes whose command line is "bpfbroker NAME --id=…".
func ours(name string) map[int][]string {
	out := map[int][]string{}
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		b, err := os.ReadFile(file)
		args := strings.Split(string(b), "\x00")
		if err == nil && len(args) > 2 && args[1] == name && strings.HasPrefix(args[2], "--id=") {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			out[pid] = args
		}
	}
	return out
}

// statusField is a number in /proc/PID/status; -1 where there is none.
func statusField(pid int, key string) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			if err == nil {
				return n
			}
		}
	}
	return -1
}

// workerState is what a worker holds.
type workerState struct {
	threads int
	most    int      // fds of the thread that has most; threads may have tables of their own
	objects []string // open maps, programs, links and what else a request can name
}

// look looks at a worker from outside.
func look(pid int) (w workerState) {
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	w.threads = len(tasks)
	for _, task := range tasks {
		dir := fmt.Sprintf("/proc/%d/task/%s/fd", pid, task.Name())
		fds, _ := os.ReadDir(dir)
		w.most = max(w.most, len(fds))
		for _, fd := range fds {
			to, err := os.Readlink(filepath.Join(dir, fd.Name()))
			if err != nil {
				continue
			}
			switch n, _ := strconv.Atoi(fd.Name()); {
			case strings.HasPrefix(to, "anon_inode:bpf"), to == "anon_inode:btf", to == "/dev/null" && n > 2 && (n < 1000 || n > 1010): // but for its own, see sys.Isolate
				w.objects = append(w.objects, task.Name()+"/"+fd.Name()+" → "+to)
			}
		}
	}
	return w
}

// shower sends all threads of processes one signal after another.
type shower struct {
	sent atomic.Int64
	stop chan struct{}
	done sync.WaitGroup
}

var signals = []unix.Signal{unix.SIGURG, unix.SIGUSR1, unix.SIGCHLD, unix.SIGWINCH, unix.SIGUSR2}

func startShower(pause time.Duration, pids ...int) *shower {
	s := &shower{stop: make(chan struct{})}
	for _, pid := range pids {
		s.done.Go(func() {
			for i := 0; ; i++ {
				tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
				if err != nil {
					return // it has ended
				}
				for range 20 {
					for _, task := range tasks {
						tid, _ := strconv.Atoi(task.Name())
						err := unix.Tgkill(pid, tid, signals[i%len(signals)])
						if err == nil {
							s.sent.Add(1)
						} else if !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.EAGAIN) {
							panic(err)
						}
						i++
					}
					select {
					case <-s.stop:
						return
					case <-time.After(pause):
					}
				}
			}
		})
	}
	return s
}

// end ends the shower and returns how many signals it sent.
func (s *shower) end() int64 {
	close(s.stop)
	s.done.Wait()
	return s.sent.Load()
}

// count reads a number of an environment variable.
func count(env string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(env)); err == nil && n > 0 {
		return n
	}
	return otherwise
}

// lockForGood locks the goroutine to a thread that ends with it.
func lockForGood() { runtime.LockOSThread() }
