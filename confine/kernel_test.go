package confine

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const childEnv = "BPFBROKER_CONFINE_TEST_CHILD"

// child runs the calling test again in a process of its own, in which childEnv is
// set: a filter can't be taken off again. It returns what the child wrote, and how
// it ended.
func child(t *testing.T, env ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, self, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(append(os.Environ(), childEnv+"=1"), env...)
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("the child didn't end within a minute:\n%s", out)
	}
	return string(out), err
}

func inChild() bool { return os.Getenv(childEnv) != "" }

// confine puts the process, all its threads, under the program.
func confine(t *testing.T) {
	t.Helper()
	p, err := Program(runtime.GOARCH, Params{TGID: os.Getpid(), Commands: commands})
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread() // both calls are of one thread
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	fprog := unix.SockFprog{Len: uint16(len(p)), Filter: (*unix.SockFilter)(unsafe.Pointer(&p[0]))}
	tid, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&fprog)))
	runtime.KeepAlive(p)
	if e != 0 || tid != 0 {
		t.Fatalf("install filter: %v, thread %d", e, tid)
	}
}

// call is a system call that must fail, and would do no harm if it didn't.
type call struct {
	name string
	nr   uintptr
	args [6]uintptr
}

func (c *call) do() unix.Errno {
	_, _, e := unix.Syscall6(c.nr, c.args[0], c.args[1], c.args[2], c.args[3], c.args[4], c.args[5])
	return e
}

const bad = ^uintptr(0) // an fd that isn't open, an address that faults

var text = [...]byte{'x', 0}

func refusedCalls() []call {
	x := uintptr(unsafe.Pointer(&text))
	page := uintptr(os.Getpagesize())
	const threadOnly = threadFlags | _CLONE_SETTLS
	return []call{
		{"execve", unix.SYS_EXECVE, [6]uintptr{bad}},
		{"execveat", unix.SYS_EXECVEAT, [6]uintptr{bad, bad}},
		{"clone, a process", unix.SYS_CLONE, [6]uintptr{uintptr(unix.SIGCHLD) | unix.CLONE_SIGHAND}}, // EINVAL: without CLONE_VM
		{"clone, a namespace", unix.SYS_CLONE, [6]uintptr{threadOnly | unix.CLONE_NEWUSER}},
		{"ptrace", unix.SYS_PTRACE, [6]uintptr{unix.PTRACE_PEEKDATA, 0}},
		{"process_vm_writev", unix.SYS_PROCESS_VM_WRITEV, [6]uintptr{uintptr(os.Getpid()), 0, 0, 0, 0, 1}},
		{"process_vm_readv, flags", unix.SYS_PROCESS_VM_READV, [6]uintptr{uintptr(os.Getpid()), 0, 0, 0, 0, 1}},
		{"timerfd_create", unix.SYS_TIMERFD_CREATE, [6]uintptr{unix.CLOCK_MONOTONIC, 1 << 20}},
		{"kill", unix.SYS_KILL, [6]uintptr{uintptr(os.Getpid()), 0}},
		{"tgkill, another process", unix.SYS_TGKILL, [6]uintptr{uintptr(os.Getppid()), uintptr(os.Getppid()), 0}},
		{"socket", unix.SYS_SOCKET, [6]uintptr{unix.AF_UNIX, unix.SOCK_STREAM | 1<<20}},
		{"connect", unix.SYS_CONNECT, [6]uintptr{bad}},
		{"bind", unix.SYS_BIND, [6]uintptr{bad}},
		{"mount", unix.SYS_MOUNT, [6]uintptr{bad, bad}},
		{"fsopen", unix.SYS_FSOPEN, [6]uintptr{bad}},
		{"fsmount", unix.SYS_FSMOUNT, [6]uintptr{bad}},
		{"move_mount", unix.SYS_MOVE_MOUNT, [6]uintptr{bad, bad, bad, bad}},
		{"open_tree", unix.SYS_OPEN_TREE, [6]uintptr{bad, bad}},
		{"open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT, [6]uintptr{bad, bad}},
		{"perf_event_open", unix.SYS_PERF_EVENT_OPEN, [6]uintptr{bad, 0, bad, bad}},
		{"bpf, map_lookup_elem", unix.SYS_BPF, [6]uintptr{1, bad, 0}},
		{"bpf, prog_test_run", unix.SYS_BPF, [6]uintptr{10, bad, 0}},
		{"bpf, map_create with a flag", unix.SYS_BPF, [6]uintptr{1 << 16, bad, 0}},
		{"io_uring_setup", unix.SYS_IO_URING_SETUP, [6]uintptr{1, bad}},
		{"userfaultfd", unix.SYS_USERFAULTFD, [6]uintptr{bad}},
		{"memfd_create", unix.SYS_MEMFD_CREATE, [6]uintptr{bad, bad}},
		{"keyctl", unix.SYS_KEYCTL, [6]uintptr{bad}},
		{"init_module", unix.SYS_INIT_MODULE, [6]uintptr{bad, 0, bad}},
		{"kexec_load", unix.SYS_KEXEC_LOAD, [6]uintptr{0, bad, bad, bad}},
		{"personality", unix.SYS_PERSONALITY, [6]uintptr{0xffffffff}},
		{"setns, user", unix.SYS_SETNS, [6]uintptr{bad, unix.CLONE_NEWUSER}},
		{"setns, mount", unix.SYS_SETNS, [6]uintptr{bad, unix.CLONE_NEWNS}},
		{"setns, any", unix.SYS_SETNS, [6]uintptr{bad, 0}},
		{"setns, two", unix.SYS_SETNS, [6]uintptr{bad, unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP}},
		{"unshare, user", unix.SYS_UNSHARE, [6]uintptr{unix.CLONE_NEWUSER}}, // EINVAL: several threads
		{"unshare, user and files", unix.SYS_UNSHARE, [6]uintptr{unix.CLONE_NEWUSER | unix.CLONE_FILES | unix.CLONE_FS}},
		{"openat, O_CREAT", unix.SYS_OPENAT, [6]uintptr{bad, x, unix.O_CREAT | unix.O_WRONLY | unix.O_CLOEXEC}},
		{"openat, O_TRUNC", unix.SYS_OPENAT, [6]uintptr{bad, x, unix.O_TRUNC | unix.O_WRONLY | unix.O_CLOEXEC}},
		{"openat, O_RDWR", unix.SYS_OPENAT, [6]uintptr{bad, x, unix.O_RDWR | unix.O_CLOEXEC}},
		{"openat, O_TMPFILE", unix.SYS_OPENAT, [6]uintptr{bad, x, unix.O_TMPFILE | unix.O_WRONLY | unix.O_CLOEXEC}},
		{"unlinkat", unix.SYS_UNLINKAT, [6]uintptr{bad, x, 0}},
		{"mkdirat", unix.SYS_MKDIRAT, [6]uintptr{bad, x, 0}},
		{"fchmod", unix.SYS_FCHMOD, [6]uintptr{bad}},
		{"ftruncate", unix.SYS_FTRUNCATE, [6]uintptr{bad}},
		{"mmap, PROT_EXEC", unix.SYS_MMAP, [6]uintptr{0, page, unix.PROT_READ | unix.PROT_EXEC, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, bad, 0}},
		{"mmap, a file", unix.SYS_MMAP, [6]uintptr{0, page, unix.PROT_READ, unix.MAP_PRIVATE, bad, 0}},
		{"mmap, shared", unix.SYS_MMAP, [6]uintptr{0, page, unix.PROT_READ, unix.MAP_SHARED | unix.MAP_ANONYMOUS, bad, 0}},
		{"mprotect, PROT_EXEC", unix.SYS_MPROTECT, [6]uintptr{0, 0, unix.PROT_READ | unix.PROT_EXEC}},
		{"mprotect, PROT_READ", unix.SYS_MPROTECT, [6]uintptr{0, 0, unix.PROT_READ}},
		{"ioctl, TCGETS", unix.SYS_IOCTL, [6]uintptr{bad, unix.TCGETS}},
		{"ioctl, PERF_EVENT_IOC_SET_FILTER", unix.SYS_IOCTL, [6]uintptr{bad, unix.PERF_EVENT_IOC_SET_FILTER}},
		{"fcntl, F_SETOWN", unix.SYS_FCNTL, [6]uintptr{bad, unix.F_SETOWN}},
		{"dup3 without O_CLOEXEC", unix.SYS_DUP3, [6]uintptr{bad, 0, 0}},
		{"kcmp, KCMP_VM", unix.SYS_KCMP, [6]uintptr{bad, bad, 1}},
		{"prctl, PR_SET_DUMPABLE", unix.SYS_PRCTL, [6]uintptr{unix.PR_SET_DUMPABLE, 2}},
		{"seccomp, a filter", unix.SYS_SECCOMP, [6]uintptr{unix.SECCOMP_SET_MODE_FILTER, 0, bad}},
		{"setresuid, the saved uid", unix.SYS_SETRESUID, [6]uintptr{bad, bad, uintptr(os.Getuid())}},
		{"timer_create", unix.SYS_TIMER_CREATE, [6]uintptr{bad, bad, bad}},
		{"prlimit64", unix.SYS_PRLIMIT64, [6]uintptr{0, bad}},
		{"pidfd_send_signal", unix.SYS_PIDFD_SEND_SIGNAL, [6]uintptr{bad}},
	}
}

// allowedCalls are what the worker makes beside the runtime: they must give under
// the program what they give without it.
func allowedCalls() []call {
	self, tid := uintptr(os.Getpid()), uintptr(unix.Gettid())
	x := uintptr(unsafe.Pointer(&text))
	return []call{
		{"bpf, map_create", unix.SYS_BPF, [6]uintptr{0, bad, 72}},
		{"bpf, prog_load, a high bit", unix.SYS_BPF, [6]uintptr{1<<32 | 5, bad, 72}},
		{"ioctl, SECCOMP_IOCTL_NOTIF_RECV", unix.SYS_IOCTL, [6]uintptr{bad, unix.SECCOMP_IOCTL_NOTIF_RECV}},
		{"ioctl, PIDFD_GET_INFO", unix.SYS_IOCTL, [6]uintptr{bad, _PIDFD_GET_INFO}},
		{"seccomp, SECCOMP_GET_NOTIF_SIZES", unix.SYS_SECCOMP, [6]uintptr{unix.SECCOMP_GET_NOTIF_SIZES, 0, bad}},
		{"process_vm_readv", unix.SYS_PROCESS_VM_READV, [6]uintptr{self, 0, 0, 0, 0, 0}},
		{"pidfd_open", unix.SYS_PIDFD_OPEN, [6]uintptr{bad, unix.PIDFD_THREAD}},
		{"pidfd_getfd", unix.SYS_PIDFD_GETFD, [6]uintptr{bad, 0, 0}},
		{"tgkill", unix.SYS_TGKILL, [6]uintptr{self, tid, 0}},
		{"kcmp", unix.SYS_KCMP, [6]uintptr{self, self, 2, 0, 0}},
		{"openat, O_WRONLY", unix.SYS_OPENAT, [6]uintptr{bad, x, unix.O_WRONLY | unix.O_CLOEXEC}},
		{"openat, O_PATH", unix.SYS_OPENAT, [6]uintptr{bad, x, unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC}},
		{"openat2", unix.SYS_OPENAT2, [6]uintptr{bad, x, 0, 0}},
		{"readlinkat", unix.SYS_READLINKAT, [6]uintptr{bad, x, 0, 0}},
		{"statx", unix.SYS_STATX, [6]uintptr{bad, x, unix.AT_EMPTY_PATH | unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, bad}},
		{"fstat", unix.SYS_FSTAT, [6]uintptr{bad}},
		{"fstatfs", unix.SYS_FSTATFS, [6]uintptr{bad}},
		{"getdents64", unix.SYS_GETDENTS64, [6]uintptr{bad}},
		{"lseek", unix.SYS_LSEEK, [6]uintptr{bad, 0, 0}},
		{"pread64", unix.SYS_PREAD64, [6]uintptr{bad, 0, 0, 0}},
		{"pwrite64", unix.SYS_PWRITE64, [6]uintptr{bad, 0, 0, 0}},
		{"close_range", unix.SYS_CLOSE_RANGE, [6]uintptr{0xfffffff0, 0xffffffff, 0}},
		{"dup3", unix.SYS_DUP3, [6]uintptr{bad, 0, unix.O_CLOEXEC}},
		{"fcntl, F_DUPFD_CLOEXEC", unix.SYS_FCNTL, [6]uintptr{bad, unix.F_DUPFD_CLOEXEC, 0}},
		{"sendmsg", unix.SYS_SENDMSG, [6]uintptr{bad, bad, unix.MSG_NOSIGNAL}},
		{"recvmsg", unix.SYS_RECVMSG, [6]uintptr{bad, bad, unix.MSG_CMSG_CLOEXEC}},
		{"setns, net", unix.SYS_SETNS, [6]uintptr{bad, unix.CLONE_NEWNET}},
		{"timerfd_settime", unix.SYS_TIMERFD_SETTIME, [6]uintptr{bad, 0, x, 0}},
		{"fchdir", unix.SYS_FCHDIR, [6]uintptr{bad}},
		{"chroot", unix.SYS_CHROOT, [6]uintptr{bad}},
		{"capget", unix.SYS_CAPGET, [6]uintptr{bad}},
		{"capset", unix.SYS_CAPSET, [6]uintptr{bad}},
		{"setresuid", unix.SYS_SETRESUID, [6]uintptr{bad, bad, bad}},
		{"setfsuid", unix.SYS_SETFSUID, [6]uintptr{bad}},
		{"setfsgid", unix.SYS_SETFSGID, [6]uintptr{bad}},
		{"setgroups", unix.SYS_SETGROUPS, [6]uintptr{bad, bad}},
		{"getuid", unix.SYS_GETUID, [6]uintptr{}},
		{"geteuid", unix.SYS_GETEUID, [6]uintptr{}},
		{"getgid", unix.SYS_GETGID, [6]uintptr{}},
		{"ppoll", unix.SYS_PPOLL, [6]uintptr{bad, 1, 0, 0, 0}},
		{"newfstatat", nrFstatat, [6]uintptr{bad, x, 0, 0}},
		{"sched_getaffinity", unix.SYS_SCHED_GETAFFINITY, [6]uintptr{0, 0, 0}},
		{"getrandom", unix.SYS_GETRANDOM, [6]uintptr{bad, 1, 0}},
		{"madvise", unix.SYS_MADVISE, [6]uintptr{1, 0, unix.MADV_DONTNEED}},
		{"prctl", unix.SYS_PRCTL, [6]uintptr{unix.PR_SET_VMA, unix.PR_SET_VMA_ANON_NAME, 1, 0, 0}},
		{"clock_gettime", unix.SYS_CLOCK_GETTIME, [6]uintptr{unix.CLOCK_MONOTONIC, bad}},
	}
}

func errnos(calls []call) []unix.Errno {
	out := make([]unix.Errno, len(calls))
	for i := range calls {
		out[i] = calls[i].do()
	}
	return out
}

// TestKernel: under the program the Go runtime does all that it does, and calls
// that aren't in the list fail.
func TestKernel(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector needs more calls than a worker has")
	}
	if !inChild() {
		for _, env := range [][]string{{"GOMAXPROCS=4", "GODEBUG=madvdontneed=1"}, {"GODEBUG=disablethp=1,madvdontneed=0"}} {
			out, err := child(t, env...)
			if err != nil || !strings.Contains(out, "--- PASS: "+t.Name()) {
				t.Fatalf("%v: %v\n%s", env, err, out)
			}
		}
		return
	}
	// As a worker, which has placed the poller: from here on it is there.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Nanosecond)
	refused, permitted := refusedCalls(), allowedCalls()
	before, natively := errnos(permitted), errnos(refused)
	shows := 0
	for _, e := range natively {
		if e != unix.EPERM { // who isn't root can't make some of them anyway
			shows++
		}
	}
	if shows < len(refused)/2 {
		t.Errorf("%d of %d calls fail with EPERM without the filter: %v", len(refused)-shows, len(refused), natively)
	}

	confine(t)

	for i, got := range errnos(refused) {
		if got != unix.EPERM {
			t.Errorf("%s: got %v, wanted %v (%v without the filter)", refused[i].name, got, unix.EPERM, natively[i])
		}
	}
	for i, got := range errnos(permitted) {
		if got != before[i] {
			t.Errorf("%s: got %v, wanted %v as without the filter", permitted[i].name, got, before[i])
		}
	}
	if _, _, e := unix.Syscall(unix.SYS_CLONE3, 0, 0, 0); e != unix.ENOSYS {
		t.Errorf("clone3: got %v, wanted %v", e, unix.ENOSYS)
	}
	t.Run("runtime", func(t *testing.T) { exercise(t, r, w) })
	// What is refused stays refused, on a thread that was made under the program too.
	var e unix.Errno
	done := make(chan bool)
	go func() {
		runtime.LockOSThread() // a thread that ends with the goroutine
		e = refused[0].do()
		close(done)
	}()
	<-done
	if e != unix.EPERM {
		t.Errorf("%s on a new thread: got %v", refused[0].name, e)
	}
}

// exercise has the runtime do what it can.
func exercise(t *testing.T, r, w *os.File) {
	// The poller: deadlines, data.
	buf := make([]byte, 16)
	for range 20 {
		r.SetReadDeadline(time.Now().Add(2 * time.Millisecond))
		if _, err := r.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("read with a deadline: %v", err)
		}
		r.SetReadDeadline(time.Time{})
		go func() {
			time.Sleep(time.Millisecond)
			w.Write([]byte("hello"))
		}()
		if n, err := r.Read(buf); err != nil || string(buf[:n]) != "hello" {
			t.Fatalf("read %q: %v", buf[:n], err)
		}
	}
	// Goroutines that the collector must interrupt (SIGURG), while others allocate.
	var stop atomic.Bool
	var busy sync.WaitGroup
	for range 2 {
		busy.Go(func() {
			for n := 0; !stop.Load(); n++ { // Load is inlined: no call
				sink.Store(int64(n))
			}
		})
	}
	for range 4 {
		var g sync.WaitGroup
		for range 50 {
			g.Go(func() {
				keep := make([][]byte, 0, 64)
				for range 64 {
					keep = append(keep, bytes.Repeat([]byte{1}, 4<<10))
				}
				time.Sleep(time.Duration(len(keep)) * time.Microsecond)
			})
		}
		g.Wait()
		runtime.GC()
		debug.FreeOSMemory()
	}
	stop.Store(true)
	busy.Wait()
	// Large allocations, stacks that grow.
	if n := deep(10_000); n != 10_000 {
		t.Errorf("deep: %d", n)
	}
	big := make([]byte, 256<<20)
	big[len(big)-1] = 1
	runtime.KeepAlive(big)
	big = nil
	debug.FreeOSMemory()
	// Threads: many that block in the kernel at once, and that end.
	var g sync.WaitGroup
	for range 32 {
		g.Go(func() {
			runtime.LockOSThread() // not unlocked: the thread ends
			ts := unix.NsecToTimespec(int64(5 * time.Millisecond))
			if _, err := unix.Ppoll(nil, &ts, nil); err != nil && err != unix.EINTR {
				t.Errorf("ppoll: %v", err)
			}
			if err := unix.Unshare(unix.CLONE_FILES | unix.CLONE_FS); err != nil {
				t.Errorf("unshare: %v", err)
			}
			var all unix.Sigset_t
			if err := unix.PthreadSigmask(unix.SIG_BLOCK, &all, nil); err != nil {
				t.Errorf("mask signals: %v", err)
			}
		})
	}
	g.Wait()
	// Timers of all kinds.
	tick := time.NewTicker(time.Millisecond)
	for range 10 {
		<-tick.C
	}
	tick.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Millisecond)
	<-ctx.Done()
	cancel()
	// Faults and panics are recovered from.
	for range 3 {
		if got := recovered(func() { *(*int)(nil) = 1 }); !strings.Contains(got, "nil pointer") {
			t.Errorf("nil pointer: %q", got)
		}
	}
	debug.SetPanicOnFault(true)
	if got := recovered(func() { sink.Store(int64(*(*byte)(faults()))) }); !strings.Contains(got, "unexpected fault address") && !strings.Contains(got, "invalid memory address") {
		t.Errorf("fault: %q", got)
	}
	// Files, random numbers, the time.
	b, err := os.ReadFile("/proc/self/status")
	if err != nil || !bytes.Contains(b, []byte("Seccomp:\t2")) {
		t.Errorf("/proc/self/status: %v\n%s", err, b)
	}
	if _, err := os.ReadDir("/proc/self/fd"); err != nil {
		t.Error(err)
	}
	if _, err := os.Readlink("/proc/self/exe"); err != nil {
		t.Error(err)
	}
	g = sync.WaitGroup{}
	for range 8 {
		g.Go(func() { crand.Read(make([]byte, 1000)) })
	}
	g.Wait()
	if s := fmt.Sprint(time.Now(), runtime.NumCPU(), len(debug.Stack())); s == "" {
		t.Error("nothing")
	}
	if _, err := os.OpenFile("/dev/null", os.O_RDWR|os.O_CREATE, 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("open to create: got %v, wanted %v", err, unix.EPERM)
	}
	if _, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{}); err == nil {
		t.Error("a process was started")
	}
}

var sink atomic.Int64

//go:noinline
func deep(n int) int {
	var pad [256]byte
	if n == 0 {
		return int(pad[0])
	}
	return 1 + deep(n-1) + int(pad[n%256])
}

// faults is an address that nothing is at.
func faults() unsafe.Pointer {
	b, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		panic(err)
	}
	return unsafe.Pointer(unsafe.SliceData(b))
}

func recovered(f func()) (what string) {
	defer func() { what = fmt.Sprint(recover()) }()
	f()
	return ""
}

// TestKernelKill: a call by x32 ends the process.
func TestKernelKill(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the foreign ABI of arm64 needs a 32-bit ARM program")
	}
	if raceEnabled {
		t.Skip("the race detector needs more calls than a worker has")
	}
	if inChild() {
		if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
			t.Fatal(err)
		}
		confine(t)
		unix.RawSyscall(_X32_SYSCALL_BIT|unix.SYS_GETPID, 0, 0, 0)
		t.Fatal("it goes on")
	}
	out, err := child(t)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !exit.Sys().(syscall.WaitStatus).Signaled() || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGSYS {
		t.Errorf("got %v, wanted an end by %v\n%s", err, unix.SIGSYS, out)
	}
}

// TestKernelDie: a fatal error ends the process as it does without the program.
func TestKernelDie(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector needs more calls than a worker has")
	}
	if inChild() {
		time.Sleep(time.Nanosecond) // the poller is there
		confine(t)
		go func() { panic("the end") }()
		time.Sleep(time.Minute)
	}
	out, err := child(t, "GOTRACEBACK=single")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(out, "panic: the end") {
		t.Errorf("got %v, wanted exit code 2 and the panic\n%s", err, out)
	}
}
