package e2e

import (
	"bytes"
	"fmt"
	"math"
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
	"github.com/bpfbroker/bpfbroker/worker"
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

// TestWorkerAccess lets the root of a workload that sees the worker's process id
// try to get hold of it, while it is idle and while it loads a program: then the
// serving thread has the target's real uid.
func TestWorkerAccess(t *testing.T) {
	needRoot(t)
	for _, kind := range worker.Kinds() {
		for _, state := range []string{"idle", "busy"} {
			t.Run(kind+"/"+state, func(t *testing.T) {
				s := start(t, brokered(probe("access", kind, state), "--worker="+kind))
				s.expect("which")
				s.say(strconv.Itoa(s.findWorker()))
				for line := s.hear(); line != "ok"; line = s.hear() {
					if line == "killed" {
						eventually(t, "another worker", func() bool { return s.process("worker") != s.worker })
						s.say("another serves")
					}
				}
				s.end(false)
				if s.err != nil {
					t.Errorf("%v\n%s", s.err, s.stderr.String())
				}
			})
		}
	}
}

// access is what may be tried of a worker.
type access struct {
	name string
	try  func(id int) error // of a thread
	may  may
}

// may says when it may work.
type may int

const (
	never may = iota
	// To a token worker, which has the workload's ids; and for as long as a thread of a
	// capability worker has the target's real uid.
	byRealUID
	// To a token worker.
	sameIDs
)

// accesses lists what doesn't end a worker.
func accesses(pid int) (all []access) {
	add := func(name string, m may, f func(id int) error) { all = append(all, access{name, f, m}) }
	var page [4096]byte
	local := unix.Iovec{Base: &page[0], Len: uint64(len(page))}
	remote := []unix.RemoteIovec{{Base: goText, Len: len(page)}}
	add("attach", never, unix.PtraceAttach)
	add("seize", never, unix.PtraceSeize)
	add("read", never, func(id int) error { _, err := unix.ProcessVMReadv(id, []unix.Iovec{local}, remote, 0); return err })
	add("write", never, func(id int) error {
		_, err := unix.ProcessVMWritev(id, []unix.Iovec{local}, remote, 0)
		if err == unix.EFAULT { // text; but who may not at all hears that first
			return nil
		}
		return err
	})
	for _, f := range []string{"mem", "environ", "maps", "auxv", "syscall", "stack", "pagemap", "fdinfo", "fd", "map_files", "io", "personality"} {
		add("read "+f, never, func(id int) error {
			if _, err := os.ReadDir(fmt.Sprintf("/proc/%d/%s", id, f)); err == nil {
				return nil
			}
			h, err := os.Open(fmt.Sprintf("/proc/%d/%s", id, f))
			if err != nil {
				return err
			}
			defer h.Close()
			n, err := h.Read(page[:])
			if n == 0 && err == nil {
				return unix.EPERM
			}
			return err
		})
	}
	for _, f := range []string{"fd/3", "fd/1000", "fd/1002", "exe", "cwd", "root", "ns/user", "ns/mnt", "ns/net"} {
		add("follow "+f, never, func(id int) error { _, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", id, f)); return err })
		add("open "+f, never, func(id int) error {
			h, err := os.Open(fmt.Sprintf("/proc/%d/%s", id, f))
			if err == nil {
				h.Close()
			}
			return err
		})
	}
	for _, f := range []string{"oom_score_adj", "comm", "timers", "clear_refs", "coredump_filter", "uid_map", "mem"} {
		add("open for writing "+f, never, func(id int) error {
			h, err := os.OpenFile(fmt.Sprintf("/proc/%d/%s", id, f), os.O_WRONLY, 0)
			if err == nil {
				defer h.Close()
				_, err = h.WriteString("1")
			}
			return err
		})
	}
	byPidfd := func(f func(fd int) error) func(int) error {
		return func(id int) error {
			fd, err := unix.PidfdOpen(id, unix.O_EXCL) // PIDFD_THREAD
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return f(fd)
		}
	}
	add("take an fd", never, byPidfd(func(fd int) error {
		for n := range 1100 {
			if _, err := unix.PidfdGetfd(fd, n, 0); err == nil {
				return nil
			}
		}
		return unix.EPERM
	}))
	for name, flag := range map[string]int{"user": unix.CLONE_NEWUSER, "mount": unix.CLONE_NEWNS, "network": unix.CLONE_NEWNET, "IPC": unix.CLONE_NEWIPC, "cgroup": unix.CLONE_NEWCGROUP} {
		add("enter its "+name+" namespace", never, byPidfd(func(fd int) error { return unix.Setns(fd, flag) }))
	}
	for nr := range 11 { // PIDFD_GET_CGROUP_NAMESPACE, …
		add(fmt.Sprintf("open a namespace, ioctl %d", nr+1), never, byPidfd(func(fd int) error {
			ns, err := unix.IoctlRetInt(fd, uint(0xff01+nr))
			if err == nil {
				unix.Close(ns)
			}
			return err
		}))
	}
	// Of its mount namespace, which belongs to the workload's user namespace where it is
	// a token worker's, the kernel tells nobody but the host's root (from 6.12 on; those
	// without "nsfs: tighten permission checks for ns iteration ioctls" tell it).
	for name, nr := range map[string]uint{"next": 0x8010b70b, "previous": 0x8010b70c} {
		add("open the "+name+" mount namespace", never, func(int) error {
			own, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(own)
			ns, err := unix.IoctlRetInt(own, nr)
			if err == nil {
				unix.Close(ns)
			}
			return err
		})
	}
	add("signal 0", byRealUID, func(id int) error { return unix.Tgkill(pid, id, 0) })
	add("signal 0 by pidfd", byRealUID, byPidfd(func(fd int) error { return unix.PidfdSendSignal(fd, 0, nil, 0) }))
	add("priority", byRealUID, func(id int) error { return unix.Setpriority(unix.PRIO_PROCESS, id, 19) })
	add("processors", byRealUID, func(id int) error { return unix.SchedSetaffinity(id, &unix.CPUSet{1}) })
	add("read limits", sameIDs, func(id int) error { return unix.Prlimit(id, unix.RLIMIT_NOFILE, nil, &unix.Rlimit{}) })
	add("set limits", sameIDs, func(id int) error { return unix.Prlimit(id, unix.RLIMIT_CORE, &unix.Rlimit{}, nil) })
	return all
}

func init() {
	probes["access"] = okay(func() error {
		kind, busy := os.Args[1], os.Args[2] == "busy"
		runtime.LockOSThread()
		pid, _ := strconv.Atoi(ask("which"))
		allowed := func(a access) bool {
			switch a.may {
			case sameIDs:
				return kind == string(worker.Token)
			case byRealUID:
				return kind == string(worker.Token) || busy
			}
			return false
		}
		var loads atomic.Int64
		var stop atomic.Bool
		if busy {
			go func() {
				for !stop.Load() {
					fd, e := load(progTypeSocket, "access", slow(100000), 0, nil)
					if e != 0 {
						fail("prog_load: %v", e)
					}
					unix.Close(fd)
					loads.Add(1)
				}
			}()
		}
		worked := map[string]bool{}
		all := accesses(pid)
		for round := 0; round < 3 || busy && loads.Load() < 3; round++ {
			for _, a := range all {
				// Threads come and go.
				tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
				if err != nil || len(tasks) == 0 {
					return fmt.Errorf("the worker can't be seen: %v", err)
				}
				for _, task := range tasks {
					id, _ := strconv.Atoi(task.Name())
					if err := a.try(id); err != nil {
						continue
					}
					if worked[a.name] = true; !allowed(a) {
						return fmt.Errorf("%s of worker %d, thread %d: it worked", a.name, pid, id)
					}
				}
			}
		}
		stop.Store(true)
		if kind == string(worker.Token) {
			for _, a := range all {
				if allowed(a) && !worked[a.name] {
					return fmt.Errorf("%s of a worker with the same ids: it didn't work", a.name)
				}
			}
		}
		// Nothing of it came with us.
		fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
		for _, fd := range fds {
			if to, _ := os.Readlink(fd); strings.Contains(to, "seccomp") || strings.Contains(to, "bpf-token") {
				return fmt.Errorf("%s is %s", fd, to)
			}
		}
		if err := someMaps(5); err != nil {
			return err
		}
		// To end it is to make another one serve.
		err := unix.Kill(pid, unix.SIGKILL)
		switch {
		case kind == string(worker.Token) && err != nil:
			return fmt.Errorf("kill a worker with the same ids: %w", err)
		case kind == string(worker.Capability) && err == nil:
			return fmt.Errorf("kill worker %d: it worked", pid)
		case err == nil:
			ask("killed")
		}
		return someMaps(5)
	})
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
