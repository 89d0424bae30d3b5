package notify

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// TestInstallUnderSignals hands over fds while signals hit the thread that does
// it. In the kernel's one step (SECCOMP_ADDFD_FLAG_SEND) a call now and then
// returns 0, as if the new fd were standard input: that is shown, for it is why
// Install and Answer are two. In two steps it never happens.
func TestInstallUnderSignals(t *testing.T) {
	const env = "BPFBROKER_NOTIFY_TEST_CHILD"
	if os.Getenv(env) == "" {
		// In a process of its own: a filter can't be taken off again.
		c := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
		c.Env = append(os.Environ(), env+"=1")
		out, err := c.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS") && !strings.Contains(string(out), "--- SKIP") {
			t.Fatalf("%v\n%s", err, out)
		}
		t.Logf("\n%s", out)
		return
	}

	const calls = 20000
	l := &Listener{FD: <-target(t)}
	for _, way := range []struct {
		name string
		give func(*Notification, int) bool
	}{
		{"one step", l.oneStep},
		{"two steps", func(n *Notification, fd int) bool {
			got, e := l.Install(n, fd, true)
			return e == 0 && l.Answer(n, got, 0)
		}},
	} {
		wrong, failed, sent := hand(t, l, calls, way.give)
		t.Logf("%s: %d of %d calls returned 0, %d times the supervisor got an error; %d signals", way.name, wrong, calls, failed, sent)
		if way.name == "two steps" && wrong+failed != 0 {
			t.Errorf("two steps went wrong")
		}
	}
}

// order makes the target call so many times, and returned has how often the call
// returned something else than an fd of its own.
var order, returned = make(chan int), make(chan int)

// target starts a thread under a filter that notifies of getppid(), which
// stands for any call that returns an fd.
func target(t *testing.T) <-chan int {
	listener := make(chan int)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the test
		// A = nr; if A == getppid return USER_NOTIF; return ALLOW
		prog := []unix.SockFilter{
			{Code: 0x20, K: 0},
			{Code: 0x15, K: unix.SYS_GETPPID, Jt: 0, Jf: 1},
			{Code: 0x06, K: unix.SECCOMP_RET_USER_NOTIF},
			{Code: 0x06, K: unix.SECCOMP_RET_ALLOW},
		}
		fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			panic(err)
		}
		fd, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
			unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, uintptr(unsafe.Pointer(&fprog)))
		if e != 0 {
			panic(e)
		}
		listener <- int(fd)
		for n := range order {
			wrong := 0
			for range n {
				r, _, e := unix.Syscall(unix.SYS_GETPPID, 0, 0, 0)
				if e != 0 || r <= 2 {
					wrong++
					continue
				}
				unix.Close(int(r))
			}
			returned <- wrong
		}
	}()
	return listener
}

// hand answers calls with give while signals hit its thread.
func hand(t *testing.T, l *Listener, calls int, give func(*Notification, int) bool) (wrong, failed, sent int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()

	var stop atomic.Bool
	showered := make(chan int)
	go func(pid, tid int) {
		n := 0
		for ; !stop.Load(); n++ {
			if err := unix.Tgkill(pid, tid, unix.SIGURG); err != nil && err != unix.EAGAIN {
				panic(err)
			}
		}
		showered <- n
	}(unix.Getpid(), unix.Gettid())

	order <- calls
	for range calls {
		var at sys.Notif
		n, err := l.Receive(&at)
		if err != nil {
			t.Fatal(err)
		}
		if !give(&n, int(file.Fd())) {
			failed++
			l.Answer(&n, 0, sys.EPERM) // if it still waits for an answer
		}
	}
	wrong = <-returned
	stop.Store(true)
	return wrong, failed, <-showered
}

// oneStep is what must not be done.
func (l *Listener) oneStep(n *Notification, fd int) bool {
	a := struct {
		id                              uint64
		flags, srcfd, newfd, newfdFlags uint32
	}{id: n.Cookie, flags: unix.SECCOMP_ADDFD_FLAG_SEND, srcfd: uint32(fd), newfdFlags: unix.O_CLOEXEC}
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(l.FD), unix.SECCOMP_IOCTL_NOTIF_ADDFD, uintptr(unsafe.Pointer(&a)))
	return e == 0
}
