package sys

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestInMemoryBelow: of file systems in memory, the one that a user namespace has made
// for itself is its alone, until somebody else has it, too.
func TestInMemoryBelow(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	in := func(script string) (pid int, line string, end func()) {
		c := exec.Command("unshare", "-Urm", "sh", "-c", script+"; read x")
		stdin, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		c.Stderr = os.Stderr
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		s := bufio.NewScanner(out)
		s.Scan()
		return c.Process.Pid, strings.TrimSpace(s.Text()), func() {
			stdin.Close()
			_ = c.Wait()
		}
	}
	dir := t.TempDir()
	pid, _, end := in("mount -t tmpfs t " + dir + " && echo mounted")
	defer end()
	other, _, endOther := in("echo there")
	defer endOther()
	userNS := func(pid int) uint64 {
		n, e := UserNS(pid)
		if e != 0 {
			t.Fatal(e)
		}
		return n
	}
	root, err := os.Open(fmt.Sprintf("/proc/%d/root%s", pid, dir))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	dev, e := Device(int(root.Fd()))
	if e != 0 {
		t.Fatal(e)
	}
	check := func(what string, userNS uint64, want bool) {
		t.Helper()
		if got, err := InMemoryBelow(dev, userNS); got != want || err != nil {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
	check("whose it is", userNS(pid), true)
	check("another", userNS(other), false)
	// A thread outside, of a process that is elsewhere, goes where it is mounted.
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	has, leave := make(chan error), make(chan bool)
	go func() {
		runtime.LockOSThread() // and ends with it
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS)
		}
		if err == nil {
			err = unix.Unshare(unix.CLONE_NEWNS) // a copy, which is the host's
		}
		has <- err
		<-leave
	}()
	if err := <-has; err != nil {
		t.Fatal(err)
	}
	check("while a thread of the host's has it", userNS(pid), false)
	close(leave)
	// Somebody outside gets a mount of it.
	mount, err := CloneMount(int(root.Fd()))
	if err == nil { // not every kernel clones a mount of another namespace
		defer mount.Close()
		there := t.TempDir()
		if err := unix.MoveMount(int(mount.Fd()), "", unix.AT_FDCWD, there, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			t.Skipf("move the mount: %v", err)
		}
		check("after the host has it", userNS(pid), false)
		if err := unix.Unmount(there, 0); err != nil {
			t.Error(err)
		}
		check("after the host had it", userNS(pid), true)
	}
}
