package e2e

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/worker"
)

var update = flag.Bool("update", false, "rewrite testdata")

// TestTakenOver shows what whoever executes code in a worker can do with it: each
// attempt, under the worker's seccomp filter and in a worker without one, as text
// for reviewers. The policy allows array maps and socket filters
// (policy/attack.go).
func TestTakenOver(t *testing.T) {
	needRoot(t)
	confined, bare := attackBuild(t, false), attackBuild(t, true)
	for _, kind := range kinds(t) {
		t.Run(kind, func(t *testing.T) {
			with, without := attacked(t, confined, kind), attacked(t, bare, kind)
			if len(with) != len(without) {
				t.Fatalf("%d outcomes with the filter, %d without", len(with), len(without))
			}
			var b strings.Builder
			fmt.Fprintf(&b, "# What a workload can do that has taken its %s worker over (TestTakenOver).\n", kind)
			fmt.Fprintf(&b, "# %-68s %-16s %s\n", "attempt", "with its filter", "without")
			section := ""
			for i, w := range with {
				if w.Section != "" {
					fmt.Fprintf(&b, "\n%s\n", w.Section)
				}
				if section = cmp.Or(w.Section, section); section == holds {
					fmt.Fprintf(&b, "  %s: %s\n", w.Name, w.Outcome)
					continue
				}
				line := fmt.Sprintf("  %-68s %-16s %s", w.Name, w.Outcome, without[i].Outcome)
				if w.Why != "" && (w.Outcome == possible || without[i].Outcome == possible) {
					line += " (" + w.Why + ")"
				}
				fmt.Fprintln(&b, line)
				if w.Outcome == possible && w.Why == "" && kind == string(worker.Token) {
					t.Errorf("possible: %s", w.Name)
				}
			}
			if testing.Verbose() {
				fmt.Print(b.String())
			}
			golden := filepath.Join("testdata", "attack", kind+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil || b.String() != string(want) {
				t.Errorf("%s (%v) says otherwise; if that is meant, run go test ./e2e -run TestTakenOver -update\n%s", golden, err, diff(want, b.String()))
			}
		})
	}
}

// diff lists the lines that differ.
func diff(want []byte, got string) string {
	w, g := strings.Split(string(want), "\n"), strings.Split(got, "\n")
	var b strings.Builder
	for _, l := range w {
		if !slices.Contains(g, l) {
			fmt.Fprintln(&b, "-"+l)
		}
	}
	for _, l := range g {
		if !slices.Contains(w, l) {
			fmt.Fprintln(&b, "+"+l)
		}
	}
	return b.String()
}

// attackBuild builds a bpfbroker whose workers can be taken over.
func attackBuild(t *testing.T, withoutFilter bool) string {
	t.Helper()
	out, flags := filepath.Join(bin, "attack"), ""
	if withoutFilter {
		out, flags = filepath.Join(bin, "attack-bare"), "-X github.com/bpfbroker/bpfbroker/worker.withoutFilter=yes"
	}
	build := exec.Command("go", "build", "-tags=attack", "-ldflags="+flags, "-o", out, "../cmd/bpfbroker")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build.Args, err, out)
	}
	return out
}

// attacking makes of a command one in a workload that can take its worker over.
func attacking(c *exec.Cmd, binary, kind string, flags ...string) *exec.Cmd {
	c = brokered(c, slices.Concat([]string{"--policy=test-arrays", "--quiet", "--worker=" + kind}, flags)...)
	c.Path, c.Args[0] = binary, binary
	return c
}

// outcome is what came of an attempt.
type outcome struct{ Section, Name, Outcome, Why string }

// victims are whom the worker is turned against.
type victims struct {
	Run, Daemon, Guardian, Host, Other, OtherWorker int // process ids

	UID int // of another workload's process

	Handle     []byte // of the host's /etc/passwd, and its type: name_to_handle_at(2)
	HandleType int32
	Node       string // of /dev/zero, but for root alone
	Shm        int    // id of a segment of the host's that everybody may read

	Map, Prog, Link, BTF, OtherMap uint32 // ids
}

// attacked runs all attempts in a workload with a worker of this kind.
func attacked(t *testing.T, binary, kind string) (out []outcome) {
	t.Helper()
	// Others than those who run: a process of root's, and another workload with the
	// same ids.
	host := start(t, probe("wait"))
	host.expect("ready")
	other := start(t, attacking(probe("one array"), binary, kind))
	otherMap, err := strconv.Atoi(other.hear())
	if err != nil {
		t.Fatal(err)
	}
	v := victims{Host: host.cmd.Process.Pid, OtherWorker: other.process("worker"), OtherMap: uint32(otherMap)}
	hostObjects(t, &v)
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, "/etc/passwd", 0)
	if err != nil {
		t.Fatal(err)
	}
	v.Handle, v.HandleType = h.Bytes(), h.Type()
	v.Node = filepath.Join(bin, "zero")
	if err := unix.Mknod(v.Node, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(v.Node)
	shm, err := unix.SysvShmGet(0, 4096, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.SysvShmCtl(shm, unix.IPC_RMID, nil)
	v.Shm = shm

	// run's standard error, which the worker has, is a terminal; and its session
	// keyring has a secret.
	terminal := newTerminal(t)
	c := attacking(probe("take over"), binary, kind, "--net=private")
	c.Args = append([]string{"sh", "-c", `exec "$@" 2>"$0"`, terminal, c.Path}, c.Args[1:]...)
	c.Path, _ = exec.LookPath("sh")
	var s *session
	withSecret(t, func() { s = start(t, c) })
	v.Run, v.Daemon = s.cmd.Process.Pid, s.process("daemon")
	eventually(t, "the guardian", func() bool {
		v.Guardian = childOf(v.Run, "bpfbroker-guardian")
		return v.Guardian != 0
	})
	eventually(t, "the other workload's process", func() bool {
		v.Other = childOf(other.cmd.Process.Pid, filepath.Join(bin, "probe"))
		return v.Other != 0
	})
	v.UID = statusField(v.Other, "Uid")
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	s.say(string(text))
	for line := s.hear(); line != "end"; line = s.hear() {
		var o outcome
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("the probe says %q", line)
		}
		out = append(out, o)
	}
	s.end(false)
	if s.err != nil {
		t.Errorf("%v\n%s", s.err, s.stderr.String())
	}
	// They didn't notice.
	other.say("go on")
	other.expect("fine")
	other.end(true)
	host.end(true)
	return out
}

// newTerminal makes a pseudo-terminal, and returns its path.
func newTerminal(t *testing.T) string {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	var said lockedBuffer
	t.Cleanup(func() {
		master.Close()
		if t.Failed() {
			t.Log(said.String())
		}
	})
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	go io.Copy(&said, master)
	return fmt.Sprintf("/dev/pts/%d", n)
}

const secretKey = "bpfbroker-test"

// withSecret runs f on a thread whose session keyring is new, and has a key.
func withSecret(t *testing.T, f func()) {
	t.Helper()
	errs := make(chan error)
	go func() {
		runtime.LockOSThread() // for good
		_, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)
		if err == nil {
			_, err = unix.AddKey("user", secretKey, []byte("secret"), unix.KEY_SPEC_SESSION_KEYRING)
		}
		if err == nil {
			f()
		}
		errs <- err
	}()
	if err := <-errs; err != nil {
		t.Fatal(err)
	}
}

// hostObjects makes a map, a program, a link and a BTF on the host.
func hostObjects(t *testing.T, v *victims) {
	t.Helper()
	id := func(fd int, e sys.Errno) uint32 {
		t.Helper()
		if e != 0 {
			t.Fatal(e)
		}
		t.Cleanup(func() { unix.Close(fd) })
		b := make([]byte, 256)
		if _, e := bpf(cmdObjInfo, new(attr).u32(0, uint32(fd)).u32(4, uint32(len(b))).u64(8, sys.Addr(b)), 16, b); e != 0 {
			t.Fatal(e)
		}
		return binary.NativeEndian.Uint32(b[4:])
	}
	v.Map = id(variety(1).create("host"))
	fd, e := load(progTypeRawTP, "host", returns(0), 0, nil)
	v.Prog = id(fd, e)
	name := append([]byte("xdp_exception"), 0) // which happens to nobody
	v.Link = id(bpf(cmdRawTracepoint, new(attr).u64(0, sys.Addr(name)).u32(8, uint32(fd)), 16, name))
	b := smallBTF()
	fd, e = bpf(cmdBTFLoad, new(attr).u64(0, sys.Addr(b)).u32(16, uint32(len(b))), 28, b)
	if e != 0 {
		t.Fatal(e)
	}
	t.Cleanup(func() { unix.Close(fd) })
	info := make([]byte, 32) // struct bpf_btf_info: its id is behind a pointer and a size
	if _, e := bpf(cmdObjInfo, new(attr).u32(0, uint32(fd)).u32(4, uint32(len(info))).u64(8, sys.Addr(info)), 16, info); e != 0 {
		t.Fatal(e)
	}
	v.BTF = binary.NativeEndian.Uint32(info[12:])
}

// smallBTF is a BTF with the type int.
func smallBTF() []byte {
	ne := binary.NativeEndian
	b := ne.AppendUint16(nil, 0xeb9f)
	b = append(b, 1, 0)
	for _, n := range []uint32{24, 0, 16, 16, 5, 1, 1 << 24, 4, 1<<24 | 32} {
		b = ne.AppendUint32(b, n)
	}
	return append(b, "\x00int\x00"...)
}

const (
	cmdBTFLoad = 18
)

func init() {
	// wait does nothing.
	probes["wait"] = func() { ask("ready") }
	// one array makes a map, tells its id, and makes another one later.
	probes["one array"] = func() {
		array := func() int {
			fd, e := bpf(cmdMapCreate, new(attr).u32(0, 2).u32(4, 4).u32(8, 8).u32(12, 1), 72)
			if e != 0 {
				fail("map_create: %v", e)
			}
			return fd
		}
		b, e := info(array())
		if e != 0 {
			fail("info: %v", e)
		}
		ask(strconv.Itoa(int(binary.NativeEndian.Uint32(b[4:]))))
		array()
		ask("fine")
	}
	probes["take over"] = func() {
		var v victims
		text, err := stdin.ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(text, &v)
		}
		if err != nil {
			fail("%v", err)
		}
		t := takeOver()
		for _, s := range tries(&v, t) {
			section := s.name
			for _, a := range s.tries {
				if a.token && t.Token < 0 {
					continue
				}
				got := a.do()
				if got == endsWorker { // a worker that lives too shortly is followed after a pause
					time.Sleep(110 * time.Millisecond)
				}
				text, err := json.Marshal(outcome{section, a.name, got, a.why})
				if err != nil {
					fail("%v", err)
				}
				fmt.Println(string(text))
				section = ""
			}
		}
		ask("end")
	}
}

// TestGivenAway: a worker that was taken over gives the workload what it holds, and
// ends. The next one serves; the channel leads nowhere any more; and whatever the
// workload writes to the ledger, nothing but its own calls suffer, and only as long
// as it does.
func TestGivenAway(t *testing.T) {
	needRoot(t)
	binary := attackBuild(t, false)
	for _, kind := range kinds(t) {
		t.Run(kind, func(t *testing.T) {
			s := start(t, attacking(probe("give away"), binary, kind))
			s.expect("nobody there")
			daemon := s.process("daemon")
			s.say("go on")
			s.expect("fine")
			if now := s.process("daemon"); now != daemon {
				t.Error("the daemon was replaced")
			}
			s.end(false)
			if s.err != nil {
				t.Errorf("%v\n%s", s.err, s.stderr.String())
			}
			for _, r := range s.stderr.String() {
				if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
					t.Errorf("the workload has run say %q", s.stderr.String())
					break
				}
			}
		})
	}
}

func init() {
	probes["give away"] = func() {
		t := takeOver()
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			fail("%v", err)
		}
		c := t.code()
		how := c.room(24)
		c.put(how, unix.O_RDWR|unix.O_CLOEXEC, 8)
		ledger := c.call(unix.SYS_OPENAT2, unix.AT_FDCWD, "/proc/self/fd/5", how, 24)
		sock := c.call(unix.SYS_PIDFD_GETFD, c.call(unix.SYS_PIDFD_OPEN, os.Getpid(), 0), fds[1], 0)
		c.send(sock, []byte{1}, ledger, t.Channel, t.Listener)
		if got := c.outcome(); got != possible {
			fail("give the worker's fds away: %s", got)
		}
		oob := make([]byte, 256)
		_, n, _, _, err := unix.Recvmsg(fds[0], make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
		if err != nil {
			fail("%v", err)
		}
		m, err := unix.ParseSocketControlMessage(oob[:n])
		if err != nil || len(m) != 1 {
			fail("%v", err)
		}
		got, err := unix.ParseUnixRights(&m[0])
		if err != nil || len(got) != 3 {
			fail("got %v, %v", got, err)
		}
		end := func() {
			for pid := t.PID; t.PID == pid; t.refresh() { // until another one serves
				c := t.code()
				c.call(unix.SYS_EXIT_GROUP, 0)
				c.run()
			}
		}
		end()
		// The daemon goes on with another channel.
		patient := time.Now().Add(patience)
		for {
			p := hostCall{command: cmdMapNextID, attr: make([]byte, 12)}.packet()
			if err := unix.Sendto(got[1], p, unix.MSG_NOSIGNAL, nil); err == unix.EPIPE {
				break
			}
			if time.Now().After(patient) {
				fail("somebody has a worker's channel open that is gone")
			}
			poll := []unix.PollFd{{Fd: int32(got[1]), Events: unix.POLLIN}}
			if n, _ := unix.Poll(poll, 100); n > 0 && poll[0].Revents&unix.POLLHUP == 0 {
				fail("the daemon answers to a worker that is gone")
			}
		}
		ask("nobody there")

		var st unix.Stat_t
		if err := unix.Fstat(got[0], &st); err != nil {
			fail("%v", err)
		}
		book, err := unix.Mmap(got[0], 0, int(st.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			fail("%v", err)
		}
		// Calls may fail meanwhile, or be lost.
		var stop atomic.Bool
		for range 4 {
			go func() {
				for !stop.Load() {
					if fd, e := bpf(cmdMapCreate, new(attr).u32(0, 2).u32(4, 4).u32(8, 8).u32(12, 1), 72); e == 0 {
						unix.Close(fd)
					}
				}
			}()
		}
		random := rand.New(rand.NewPCG(1, 2))
		for until := time.Now().Add(time.Second); time.Now().Before(until); {
			for i := 0; i < len(book); i += 8 {
				binary.NativeEndian.PutUint64(book[i:], random.Uint64()>>random.IntN(64))
			}
			if random.IntN(10) == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		stop.Store(true)
		// What run prints at the end is no command to a terminal.
		for text := []byte("\u009b2J\x1b[2J\u202e\x00"); len(book) > 0; book = book[copy(book, text):] {
		}
		end()
		end()
		fd, e := bpf(cmdMapCreate, new(attr).u32(0, 2).u32(4, 4).u32(8, 8).u32(12, 1), 72)
		if e != 0 {
			fail("map_create: %v", e)
		}
		unix.Close(fd)
		ask("fine")
	}
}
