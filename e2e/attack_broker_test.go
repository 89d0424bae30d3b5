package e2e

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
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

// Attacks on the broker itself: on its memory, its time, its files, its process.

// TestStall lets calls name memory that never comes: reading it stalls whoever
// does. Other threads of the workload and other workloads must go on, and the
// workload must end when it is told to.
func TestStall(t *testing.T) {
	needRoot(t)
	device := userfaultfd(t)
	s := start(t, brokered(probe("stall", device)))
	worker := s.findWorker()
	s.expect("going on")
	eventually(t, "calls hang", func() bool { return look(worker).threads >= stallThreads+idleThreads })
	says(t, brokered(probe("target-plain")))

	// One that is killed takes its calls along.
	stalled := look(worker).threads
	s.say("kill the first")
	s.expect("going on")
	eventually(t, "the worker's threads are free again", func() bool { return look(worker).threads <= stalled-stallThreads/2 })

	// More than the worker has threads.
	s.say("stall all")
	s.expect("stalled")
	eventually(t, "the worker has no thread left", func() bool { return look(worker).threads > maxServing })
	says(t, brokered(probe("target-plain")))

	// After a while the worker is replaced, and what stalled is refused.
	s.say("go on")
	s.expect("going on")
	if now := s.process("worker"); now == worker {
		t.Error("it is the same worker")
	}
	worker = s.process("worker")
	began := time.Now()
	s.cmd.Process.Signal(syscall.SIGTERM)
	s.end(false)
	eventually(t, "the worker's end", func() bool { return syscall.Kill(worker, 0) == syscall.ESRCH })
	t.Logf("ended within %v", time.Since(began))
}

const stallThreads = 12

// idleThreads is how many threads a worker has at least that serve nothing.
const idleThreads = 6

// userfaultfd makes a device that a workload may open: the host's is root's.
func userfaultfd(t *testing.T) string {
	b, err := os.ReadFile("/proc/misc")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 2 || f[1] != "userfaultfd" {
			continue
		}
		minor, err := strconv.Atoi(f[0])
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(bin, "userfaultfd")
		os.Remove(path)
		if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(10, uint32(minor)))); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Skip("this kernel has no userfaultfd")
	return ""
}

// neverThere maps n pages whose content someone would have to bring, and nobody
// does.
func neverThere(device string, n int) []byte {
	dev, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		fail("open %s: %v", device, err)
	}
	ioctl := func(fd int, req uintptr, arg uintptr) int {
		r, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, arg)
		if e != 0 {
			fail("userfaultfd: ioctl %#x: %v", req, e)
		}
		return int(r)
	}
	fd := ioctl(dev, 0xaa00, unix.O_CLOEXEC) // USERFAULTFD_IOC_NEW
	api := [3]uint64{0xaa}
	ioctl(fd, 0xc018aa3f, uintptr(unsafe.Pointer(&api))) // UFFDIO_API
	mem, err := unix.Mmap(-1, 0, n*os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		fail("mmap: %v", err)
	}
	missing := [4]uint64{sys.Addr(mem), uint64(len(mem)), 1}
	ioctl(fd, 0xc020aa00, uintptr(unsafe.Pointer(&missing))) // UFFDIO_REGISTER
	return mem
}

// stall makes n calls that stall, in turn by their attribute and by their
// instructions, each on a thread of its own. (A log there doesn't stall: see
// sys.Memory.)
func stall(device string, n int) {
	page := os.Getpagesize()
	mem := neverThere(device, n)
	for i := range n {
		p := mem[i*page:][:page]
		go func() {
			var e sys.Errno
			if i%2 == 0 {
				_, e = sys.BPF(cmdMapCreate, p, 72)
			} else {
				_, e = load(progTypeSocket, "stall", p[:16], 0, nil)
			}
			if e != sys.EPERM { // with its worker replaced
				fail("a call came back from memory that isn't there: %v", e)
			}
		}()
	}
	time.Sleep(100 * time.Millisecond) // more or less until they hang
}

func init() {
	probes["stall-first"] = func() {
		stall(os.Args[1], stallThreads)
		ask("stalled")
	}
	probes["stall"] = func() {
		c := exec.Command("/proc/self/exe", os.Args[1])
		c.Env = append(os.Environ(), probeEnv+"=stall-first")
		c.Stderr = os.Stderr
		c.Stdin, _, _ = os.Pipe()
		out, err := c.StdoutPipe()
		if err != nil {
			fail("%v", err)
		}
		if err := c.Start(); err != nil {
			fail("%v", err)
		}
		out.Read(make([]byte, 1))
		goOn := func() {
			if err := someMaps(100); err != nil {
				fail("%v", err)
			}
			ask("going on")
		}
		goOn()
		c.Process.Kill()
		c.Wait()
		goOn()
		stall(os.Args[1], maxServing+20)
		ask("stalled")
		goOn()
	}
}

// TestMemory makes calls that are large or seem so, from many threads at once. The
// answers must be right and the worker's memory bounded.
func TestMemory(t *testing.T) {
	needRoot(t)
	s := start(t, brokered(probe("memory")))
	worker := s.findWorker()
	for _, what := range []string{"logs", "instructions", "long logs"} {
		if got := s.hearWithin(5 * patience); got != what {
			t.Fatalf("the probe says %q, not %q", got, what)
		}
		most := statusField(worker, "VmHWM") >> 10
		t.Logf("%s: at most %d MiB resident", what, most)
		if limit := 700; most > limit {
			t.Errorf("after %s, the worker has had %d MiB, more than %d", what, most, limit)
		}
		s.say("")
	}
	s.end(true)
}

// atOnce runs f on n threads.
func atOnce(n int, f func(i int) error) {
	var done sync.WaitGroup
	for i := range n {
		done.Go(func() {
			if err := f(i); err != nil {
				fail("%v", err)
			}
		})
	}
	done.Wait()
}

func init() {
	probes["memory"] = func() {
		const threads, gigabyte = 64, 1<<30 - 1
		logs := func(n int) [][]byte {
			var out [][]byte
			for range n {
				b, err := unix.Mmap(-1, 0, gigabyte, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
				if err != nil {
					fail("mmap: %v", err)
				}
				out = append(out, b)
			}
			return out
		}
		text := func(log []byte) []byte { return log[:bytes.IndexByte(log, 0)] }

		buffers := logs(threads)
		atOnce(threads, func(i int) error {
			for range 5 {
				log := buffers[i]
				if _, e := load(progTypeSocket, "memory", badR0, 1, log); e != sys.EACCES {
					return fmt.Errorf("a bad program: %v, not EACCES", e)
				}
				if got := text(log); !bytes.Contains(got, []byte("R0 !read_ok")) {
					return fmt.Errorf("log of a bad program: %q", got)
				}
				fd, e := load(progTypeSocket, "memory", slow(200), 2, log)
				if e != 0 {
					return e
				}
				unix.Close(fd)
				if got := text(log); !bytes.Contains(got, []byte("processed ")) {
					return fmt.Errorf("log of a good program: %.1000q", got)
				}
			}
			return nil
		})
		for _, b := range buffers {
			unix.Munmap(b)
		}
		ask("logs")

		// The type is none, which the kernel finds after it has copied them.
		insns := bytes.Repeat(movR0(0), 1_000_000)
		atOnce(threads, func(int) error {
			for range 5 {
				if _, e := load(9999, "memory", insns, 0, nil); e != sys.EINVAL {
					return fmt.Errorf("a million instructions of no type: %v, not EINVAL", e)
				}
			}
			return nil
		})
		ask("instructions")

		buffers = logs(3)
		atOnce(len(buffers), func(i int) error {
			fd, e := load(progTypeSocket, "memory", slow(20000), 2, buffers[i])
			if e != 0 {
				return fmt.Errorf("a long log: %w", e)
			}
			unix.Close(fd)
			if got := text(buffers[i]); len(got) < 20<<20 || !bytes.Contains(got[len(got)-200:], []byte("processed ")) {
				return fmt.Errorf("a long log has %d bytes and ends with %q", len(got), got[max(0, len(got)-200):])
			}
			return nil
		})
		ask("long logs")
	}
}

// TestSlow: while one program is verified for long, other threads' calls go on.
func TestSlow(t *testing.T) {
	needRoot(t)
	says(t, brokered(probe("slow")))
}

func init() {
	probes["slow"] = okay(func() error {
		var stop atomic.Bool
		var calls atomic.Int64
		var done sync.WaitGroup
		for range 3 {
			done.Go(func() {
				for !stop.Load() {
					if err := someMaps(1); err != nil {
						fail("%v", err)
					}
					calls.Add(1)
				}
			})
		}
		before := calls.Load()
		// The kernel's log of it is long, and the buffer isn't.
		_, e := load(progTypeSocket, "slow", slow(40000), 2, make([]byte, 4096))
		during := calls.Load() - before
		stop.Store(true)
		done.Wait()
		if e != sys.ENOSPC {
			return fmt.Errorf("the slow program: %v", e)
		}
		if during < 20 {
			return fmt.Errorf("only %d other calls came back during the slow one", during)
		}
		return nil
	})
}

// TestStopped: the worker is stopped and continued in the middle of loads, which makes
// the verifier give up, with an error of its own where the log is long by then.
func TestStopped(t *testing.T) {
	needRoot(t)
	s := start(t, brokered(probe("stopped")))
	worker := s.findWorker()
	for range 5 {
		s.expect("ready")
		s.say("load")
		for range 3 { // each time it begins anew
			time.Sleep(time.Duration(rand.Int64N(int64(400 * time.Millisecond))))
			for _, sig := range []syscall.Signal{unix.SIGSTOP, unix.SIGCONT} {
				if err := unix.Kill(worker, sig); err != nil {
					t.Fatal(err)
				}
			}
		}
		s.expect("loaded")
	}
	s.expect("ready")
	s.end(true)
}

func init() {
	probes["stopped"] = func() {
		log := make([]byte, 128<<20)
		for ask("ready") == "load" {
			fd, e := load(progTypeSocket, "stopped", slow(30000), 2, log)
			if e != 0 {
				fail("with a log of %d bytes: %v", bytes.IndexByte(log, 0), e)
			}
			unix.Close(fd)
			fmt.Println("loaded")
		}
	}
}

// TestNumbers names fds that the target doesn't have but the worker might, and
// fds that the target has where the worker has its own.
func TestNumbers(t *testing.T) {
	needRoot(t)
	for _, name := range []string{"numbers", "sizes"} {
		t.Run(name, func(t *testing.T) {
			native := output(t, natively(probe(name)))
			compare(t, "", native, output(t, brokered(probe(name))))
		})
	}
}

func init() {
	// What the worker's threads use, see sys.Isolate: 2, 1000 to 1005, and the two
	// below 4096, which are the one exception: see TestReserved.
	numbers := []int32{math.MinInt32, -1000, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 100, 999, 1000, 1001, 1002, 1003, 1004, 1005, 1006,
		4093, 4096, 5000, 19999, 20000, 65535, 1 << 20, math.MaxInt32 - 1, math.MaxInt32}
	answer := func(e sys.Errno) string {
		if e == 0 {
			return "fine"
		}
		return sys.ErrnoName(e)
	}
	probes["numbers"] = func() {
		own := map[int]bool{}
		for _, n := range sys.OpenFDs() {
			own[n] = true
		}
		dir := append([]byte("/sys/fs/bpf/number"), 0)
		for _, n := range numbers {
			if own[int(n)] {
				continue
			}
			try := func(what string, cmd uint32, a *attr, size uint32) {
				fd, e := bpf(cmd, a, size, dir)
				if e == 0 && fd > 0 {
					unix.Close(fd)
				}
				fmt.Println(n, what, answer(e))
			}
			u := uint32(n)
			insns := prog(ldMap(1, n, 0), movR0(0), exit)
			_, e := load(progTypeSocket, "numbers", insns, 0, nil)
			fmt.Println(n, "prog_load", answer(e))
			try("info", cmdObjInfo, new(attr).u32(0, u), 16)
			try("pin", cmdObjPin, new(attr).u64(0, sys.Addr(dir)).u32(8, u), 16)
			try("link", cmdLinkCreate, new(attr).u32(0, u).u32(4, u), 16)
			try("raw tracepoint", cmdRawTracepoint, new(attr).u32(8, u), 16)
			if n > 0 {
				try("map in map", cmdMapCreate, new(attr).u32(0, 13).u32(4, 4).u32(8, 4).u32(12, 1).u32(20, u), 72)
			}
		}
		// Now something is there.
		h := variety(8)
		fd, e := h.create("numbers")
		if e != 0 {
			fail("%v", e)
		}
		b, _ := info(fd)
		for _, n := range numbers {
			if n < 0 || own[int(n)] && n != 2 {
				continue
			}
			if err := unix.Dup3(fd, int(n), unix.O_CLOEXEC); err != nil {
				fmt.Println(n, "can't be")
				continue
			}
			got, e := info(int(n))
			unix.Close(int(n))
			fmt.Println(n, answer(e), bytes.Equal(got, b))
		}
	}
	probes["sizes"] = func() {
		big := make([]byte, 1<<20)
		for _, cmd := range []uint32{0, 5, 38, 39, 40, 63, 64, 99, 1<<16 - 1, 1 << 16, 1<<16 | 5, 1<<16 | 38, 1 << 31, math.MaxUint32} {
			for _, size := range []uint32{0, 1, 3, 4, 72, 4095, 4096, 4097, 1 << 20, 1 << 31, math.MaxUint32} {
				for _, last := range []byte{0, 1} {
					clear(big)
					if size > 0 && size <= 1<<20 {
						big[size-1] = last
					}
					_, e := sys.BPF(cmd, big, size)
					fmt.Printf("bpf(%#x, %d bytes, the last of them %d): %s\n", cmd, size, last, answer(e))
				}
			}
		}
	}
	probes["reserved"] = okay(func() error {
		h := variety(8)
		fd, e := h.create("reserved")
		if e != 0 {
			return e
		}
		for _, n := range []int{4094, 4095} {
			if err := unix.Dup3(fd, n, unix.O_CLOEXEC); err != nil {
				return err
			}
			if _, e := info(n); e != sys.EMFILE {
				return fmt.Errorf("fd %d: %v", n, e)
			}
		}
		return someMaps(10)
	})
}

// TestReserved: the two fds that a worker can't take because the Go runtime's
// poller has their numbers (sys.PlacePoller).
func TestReserved(t *testing.T) {
	needRoot(t)
	says(t, brokered(probe("reserved")))
}

// TestFilters lets a workload have filters of its own.
func TestFilters(t *testing.T) {
	needRoot(t)
	says(t, brokered(probe("filters")))
}

func init() {
	// install puts the calling thread under a filter that does this to bpf().
	install := func(action uint32, flags uintptr) unix.Errno {
		insns := []unix.SockFilter{
			{Code: 0x20, K: 0},
			{Code: 0x15, K: unix.SYS_BPF, Jt: 0, Jf: 1},
			{Code: 0x06, K: action},
			{Code: 0x06, K: unix.SECCOMP_RET_ALLOW},
		}
		p := unix.SockFprog{Len: uint16(len(insns)), Filter: &insns[0]}
		_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&p)))
		return e
	}
	probes["filters"] = okay(func() error {
		errs := make(chan error)
		go func() {
			runtime.LockOSThread()
			errs <- func() error {
				if e := install(unix.SECCOMP_RET_USER_NOTIF, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER); e != unix.EBUSY {
					return fmt.Errorf("a listener of our own: %v, not EBUSY", e)
				}
				// Allowing it changes nothing, nor does leaving it to a listener that isn't there.
				if e := install(unix.SECCOMP_RET_ALLOW, 0); e != 0 {
					return e
				}
				if err := someMaps(5); err != nil {
					return err
				}
				if e := install(unix.SECCOMP_RET_ERRNO|uint32(unix.EXDEV), 0); e != 0 {
					return e
				}
				if _, e := variety(1).create("filters"); e != unix.EXDEV {
					return fmt.Errorf("under a stricter filter: %v, not EXDEV", e)
				}
				return nil
			}()
			select {}
		}()
		if err := <-errs; err != nil {
			return err
		}
		return someMaps(5)
	})
}

// TestDenied: under a policy that allows nothing, nothing is made, a syscall
// program least of all; what is no bpf() call at all is answered by the kernel's
// rules, and what acts on own fds alone needs no one's leave.
func TestDenied(t *testing.T) {
	needRoot(t)
	says(t, brokered(probe("denied"), "--policy=deny", "--quiet"))
}

func init() {
	probes["denied"] = okay(func() error {
		for _, typ := range []uint32{progTypeSocket, progTypeSyscall, 0, 9999} {
			if fd, e := load(typ, "denied", returns(0), 0, nil); e != sys.EPERM {
				return fmt.Errorf("prog_load of type %d: %d, %v", typ, fd, e)
			}
		}
		if fd, e := variety(1).create("denied"); e != sys.EPERM {
			return fmt.Errorf("map_create: %d, %v", fd, e)
		}
		for _, cmd := range []uint32{38, 1 << 16, math.MaxUint32} {
			if _, e := bpf(cmd, new(attr), 4); e != sys.EINVAL {
				return fmt.Errorf("command %#x: %v", cmd, e)
			}
		}
		if _, e := bpf(cmdMapLookup, new(attr).u32(0, 1), 32); e != sys.EINVAL {
			return fmt.Errorf("map_lookup_elem of a pipe: %v", e)
		}
		return nil
	})
}
