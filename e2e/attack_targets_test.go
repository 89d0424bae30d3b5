package e2e

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// Targets of unusual kinds, and what may happen to one while it waits.

// says runs a probe in a workload and wants it to say "ok" and nothing else.
func says(t *testing.T, c *exec.Cmd) {
	t.Helper()
	s := start(t, c)
	s.expect("ok")
	s.end(true)
}

// okay is a probe that says so, if f has nothing to complain of.
func okay(f func() error) func() {
	return func() {
		if err := f(); err != nil {
			fail("%v", err)
		}
		fmt.Println("ok")
	}
}

// TestTargets makes calls from threads and processes of unusual kinds.
func TestTargets(t *testing.T) {
	needRoot(t)
	for _, name := range []string{"private-fds", "other-net", "chroot", "traced", "stopped", "no-room", "exec", "core"} {
		t.Run(name, func(t *testing.T) { says(t, brokered(probe("target-"+name), "--net=private")) })
	}
	for _, c := range []struct{ name, command string }{
		{"nested-user", "unshare --user --map-root-user"},
		{"nested-user-twice", "unshare --user --map-root-user unshare --user --map-root-user"},
		{"nested-pid", "unshare --pid --fork"},
		{"nested-all", "unshare --user --map-root-user --pid --fork --mount --net --ipc --cgroup --uts"},
		{"other-user", "setpriv --reuid 1000 --regid 1000 --clear-groups"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := probe("target-plain")
			p.Args = append(strings.Fields(c.command), p.Path)
			p.Path, _ = exec.LookPath(p.Args[0])
			says(t, brokered(p))
		})
	}
}

// TestNativeTargets are targets without a Go runtime.
func TestNativeTargets(t *testing.T) {
	needRoot(t)
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Fatal("no gcc; make deps installs it")
	}
	compile := func(source string) string {
		helper := filepath.Join(bin, strings.TrimSuffix(filepath.Base(source), ".c"))
		if out, err := exec.Command(gcc, "-O1", "-static", "-o", helper, source).CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", source, err, out)
		}
		return helper
	}
	helper := compile("testdata/target.c")
	t.Run("vfork", func(t *testing.T) { says(t, brokered(exec.Command(helper, "vfork"))) })
	t.Run("bomb", func(t *testing.T) { says(t, brokered(exec.Command(helper, "bomb", "200"))) })
	t.Run("foreign", func(t *testing.T) {
		if runtime.GOARCH != "amd64" {
			t.Skip("the foreign ABI of arm64 needs a 32-bit ARM program")
		}
		// filter's tests have more to say on these; here, that run installs it.
		foreign := exec.Command(compile("../filter/testdata/foreign.c"))
		got := output(t, brokered(foreign))
		for _, want := range []string{
			"i386-map_lookup_elem -38\n", "i386-map_create -38\n", "i386-99 -38\n", "i386-getppid 1\n",
			"x32-map_lookup_elem -38\n", "x32-map_create -38\n", "x86-64-map_create -22\n", "x86-64-nr-high-bits -22\n",
		} {
			if !strings.Contains(got, want) {
				t.Errorf("wanted %q in\n%s", want, got)
			}
		}
	})
}

// someMaps makes a few maps and checks them.
func someMaps(n int) error {
	for i := range n {
		h := variety(i)
		fd, e := h.create("some")
		if e != 0 {
			return fmt.Errorf("map_create: %w", e)
		}
		if err := h.check(fd); err != nil {
			return fmt.Errorf("%+v: %w", h, err)
		}
		b, e := info(fd)
		if e != 0 {
			return fmt.Errorf("info: %w", e)
		}
		if k := binary.NativeEndian.Uint32(b[8:]); int(k) != h.key {
			return fmt.Errorf("info of %+v says key size %d", h, k)
		}
		unix.Close(fd)
	}
	return nil
}

// pinIn pins a map and gets it back from inside of a root of its own, which it
// makes of the workload's bpffs.
func pinIn(root string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return err
	}
	if err := unix.Mount("/sys/fs/bpf", root, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if err := unix.Chroot(root); err != nil {
		return err
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	h := variety(11)
	fd, e := h.create("chroot")
	if e != 0 {
		return e
	}
	for _, path := range []string{"/in-chroot", "../relative"} {
		p := append([]byte(path), 0)
		if _, e := bpf(cmdObjPin, new(attr).u64(0, sys.Addr(p)).u32(8, uint32(fd)), 16, p); e != 0 {
			return fmt.Errorf("pin at %s: %w", path, e)
		}
		if _, err := os.Stat("/" + filepath.Base(path)); err != nil {
			return err
		}
		got, e := bpf(cmdObjGet, new(attr).u64(0, sys.Addr(p)), 16, p)
		if e != 0 {
			return fmt.Errorf("get %s: %w", path, e)
		}
		unix.Close(got)
		os.Remove("/" + filepath.Base(path))
	}
	return h.check(fd)
}

func init() {
	probes["target-plain"] = okay(func() error { return someMaps(20) })

	// A thread that isn't the leader, with an fd table of its own.
	probes["target-private-fds"] = okay(func() error {
		errs := make(chan error)
		go func() {
			runtime.LockOSThread()
			errs <- func() error {
				if err := unix.Unshare(unix.CLONE_FILES); err != nil {
					return err
				}
				if err := someMaps(20); err != nil {
					return err
				}
				// At a number that only this thread has.
				h := variety(7)
				fd, e := h.create("private")
				if e != 0 {
					return e
				}
				const n = 77
				if err := unix.Dup3(fd, n, unix.O_CLOEXEC); err != nil {
					return err
				}
				if _, e := info(n); e != 0 {
					return fmt.Errorf("info of the thread's own fd %d: %w", n, e)
				}
				return nil
			}()
			select {} // keep it: the table goes with the thread
		}()
		if err := <-errs; err != nil {
			return err
		}
		if _, e := info(77); e != unix.EBADFD {
			return fmt.Errorf("info of another thread's fd: %v, not EBADFD", e)
		}
		return someMaps(20)
	})

	// Threads in other network namespaces: ifindex 1 is another interface there.
	probes["target-other-net"] = okay(func() error {
		attach := func() (int, sys.Errno) {
			const xdp, attachXDP, generic = 6, 37, 2
			prog, e := load(xdp, "other_net", returns(2), 0, nil)
			if e != 0 {
				return prog, e
			}
			defer unix.Close(prog)
			return bpf(cmdLinkCreate, new(attr).u32(0, uint32(prog)).u32(4, 1).u32(8, attachXDP).u32(12, generic), 64)
		}
		here, e := attach()
		if e != 0 {
			return fmt.Errorf("attach to lo: %w", e)
		}
		defer unix.Close(here)
		errs := make(chan error)
		go func() {
			runtime.LockOSThread()
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				errs <- err
				return
			}
			there, e := attach()
			if e != 0 {
				errs <- fmt.Errorf("attach to the other lo: %w", e)
				return
			}
			if _, e := attach(); e != sys.EBUSY {
				errs <- fmt.Errorf("attach to the other lo again: %v, not EBUSY", e)
				return
			}
			unix.Close(there)
			errs <- nil
		}()
		if err := <-errs; err != nil {
			return err
		}
		if _, e := attach(); e != sys.EBUSY {
			return fmt.Errorf("attach to lo again: %v, not EBUSY", e)
		}
		return nil
	})

	// A path means what it means to the target.
	probes["target-chroot"] = okay(func() error {
		root, err := os.MkdirTemp("", "bpfbroker-chroot-")
		if err != nil {
			return err
		}
		defer os.Remove(root)
		errs := make(chan error)
		go func() {
			runtime.LockOSThread() // for good: its root is another
			errs <- pinIn(root)
		}()
		return <-errs
	})

	// Under a debugger that stops it at every system call.
	probes["target-traced"] = okay(func() error {
		runtime.LockOSThread()
		c := exec.Command("/proc/self/exe")
		c.Env = append(os.Environ(), probeEnv+"=target-plain")
		c.Stderr = os.Stderr
		c.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
		if err := c.Start(); err != nil {
			return err
		}
		pid := c.Process.Pid
		var ws unix.WaitStatus
		if _, err := unix.Wait4(pid, &ws, 0, nil); err != nil {
			return err
		}
		if err := unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_EXITKILL|unix.PTRACE_O_TRACESYSGOOD); err != nil {
			return err
		}
		next := pid
		deliver := 0
		stops := 0
		for {
			unix.PtraceSyscall(next, deliver) // ESRCH: it was killed meanwhile
			tid, err := unix.Wait4(-1, &ws, unix.WALL, nil)
			if err != nil {
				return err
			}
			if tid == pid && (ws.Exited() || ws.Signaled()) {
				if ws.ExitStatus() != 0 || stops < 100 {
					return fmt.Errorf("traced process: %#x after %d stops", ws, stops)
				}
				return nil
			}
			next, deliver = tid, 0
			if ws.Stopped() {
				stops++
				if s := ws.StopSignal(); s != unix.SIGTRAP && s != unix.SIGTRAP|0x80 && s != unix.SIGSTOP {
					deliver = int(s)
				}
			}
		}
	})

	// Stopped while it waits, and continued afterwards.
	probes["target-stopped"] = okay(func() error {
		c := exec.Command("/proc/self/exe")
		c.Env = append(os.Environ(), probeEnv+"=target-slow")
		c.Stderr = os.Stderr
		out, err := c.StdoutPipe()
		if err != nil {
			return err
		}
		if err := c.Start(); err != nil {
			return err
		}
		r := bufio.NewReader(out)
		if _, err := r.ReadString('\n'); err != nil {
			return err
		}
		for range 20 {
			time.Sleep(50 * time.Millisecond)
			c.Process.Signal(syscall.SIGSTOP)
			if err := someMaps(5); err != nil {
				return err
			}
			c.Process.Signal(syscall.SIGCONT)
		}
		if line, _ := r.ReadString('\n'); line != "ok\n" {
			return fmt.Errorf("the stopped target says %q", line)
		}
		return c.Wait()
	})
	probes["target-slow"] = okay(func() error {
		fmt.Println("loading")
		fd, e := load(progTypeSocket, "slow", slow(499990), 0, nil)
		if e != 0 {
			return e
		}
		b, e := info(fd)
		if e != 0 {
			return e
		}
		if n := binary.NativeEndian.Uint32(b[20:]); n == 0 {
			return fmt.Errorf("the program has no instructions")
		}
		return nil
	})

	// No room for another fd: the map is made, and can't be handed over.
	probes["target-no-room"] = okay(func() error {
		var limit unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			return err
		}
		none := limit
		none.Cur = 3
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
			return err
		}
		fds := len(sys.OpenFDs())
		for i := range 100 {
			if fd, e := variety(i).create("no_room"); e != sys.EMFILE {
				return fmt.Errorf("got %d, %v, not EMFILE", fd, e)
			}
			if fd, e := load(progTypeSocket, "no_room", returns(0), 0, nil); e != sys.EMFILE {
				return fmt.Errorf("got %d, %v, not EMFILE", fd, e)
			}
		}
		if now := len(sys.OpenFDs()); now != fds {
			return fmt.Errorf("%d fds, and then %d", fds, now)
		}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			return err
		}
		// Objects die some time after their last fd.
		for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			a := new(attr)
			_, m := bpf(cmdMapNextID, a, 8)
			_, p := bpf(cmdProgNextID, a, 8)
			if m == sys.ENOENT && p == sys.ENOENT {
				break // a workload sees its own only, and has none
			}
			if time.Now().After(end) {
				return fmt.Errorf("objects are left: %v, %v", m, p)
			}
		}
		return someMaps(5)
	})

	// Another thread of the process executes a program in the middle of a call.
	probes["target-exec"] = okay(func() error {
		for range 20 {
			c := exec.Command("/proc/self/exe")
			c.Env = append(os.Environ(), probeEnv+"=target-exec-self")
			c.Stderr = os.Stderr
			out, err := c.Output()
			if err != nil || string(out) != "ok\n" {
				return fmt.Errorf("%q, %v", out, err)
			}
		}
		return someMaps(5)
	})
	probes["target-exec-self"] = func() {
		busy()
		time.Sleep(time.Duration(os.Getpid()%10) * time.Millisecond)
		os.Setenv(probeEnv, "target-plain")
		fail("exec: %v", unix.Exec("/proc/self/exe", []string{"probe"}, os.Environ()))
	}
}

func init() {
	// Processes that dump core while several of their threads make calls.
	probes["target-core"] = okay(func() error {
		dir, err := os.MkdirTemp("", "bpfbroker-core-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		for range 20 {
			c := exec.Command("/proc/self/exe")
			c.Env = append(os.Environ(), probeEnv+"=target-core-self")
			c.Dir = dir
			out, err := c.Output()
			if len(out) != 0 {
				return fmt.Errorf("%q, %v", out, err)
			}
			if ws, is := c.ProcessState.Sys().(syscall.WaitStatus); !is || !ws.Signaled() || ws.Signal() != unix.SIGABRT {
				return fmt.Errorf("ended otherwise than by a signal that dumps core: %v", c.ProcessState)
			}
		}
		return someMaps(5)
	})
	probes["target-core-self"] = func() {
		unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
		if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}); err != nil {
			fmt.Println(err)
		}
		// Not the Go runtime, the kernel is to end the process.
		var def [32]byte // struct sigaction, SIG_DFL
		if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGABRT), uintptr(unsafe.Pointer(&def)), 0, 8, 0, 0); e != 0 {
			fmt.Println(e)
		}
		busy()
		time.Sleep(time.Duration(os.Getpid()%10) * time.Millisecond)
		unix.Kill(os.Getpid(), unix.SIGABRT)
		select {}
	}
}

// busy makes calls on four threads, for ever.
func busy() {
	for i := range 4 {
		go func() {
			for {
				if i == 0 {
					load(progTypeSocket, "busy", slow(50000), 0, nil)
				} else if fd, e := variety(i).create("busy"); e == 0 {
					unix.Close(fd)
				}
			}
		}()
	}
}
