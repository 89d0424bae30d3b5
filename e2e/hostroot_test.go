package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHostAlone is the experiment behind the exceptions of docs/results/parity.md: what
// those tests of cilium/ebpf do beside bpf() is the host's root's alone. Here nobody is
// brokered: root does it, and then the root of a user namespace can't. No system call of it
// is one that bpfbroker intercepts.
func TestHostAlone(t *testing.T) {
	needRoot(t)
	c := probe("host alone")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	const want = "begin a bpffs: OK\ndelegate: OK\nmount tracefs: OK\nuprobe_events: OK\n" +
		"begin a bpffs: OK\ndelegate: EPERM\nmount tracefs: EPERM\nuprobe_events: EACCES\n"
	if got := output(t, c); got != want {
		t.Errorf("got\n%s, wanted\n%s", got, want)
	}
}

func init() {
	probes["host alone"] = func() {
		say := func(what string, err error) {
			var b strings.Builder
			fmt.Fprintf(&b, "%s: ", what)
			switch e, is := err.(syscall.Errno); {
			case err == nil:
				b.WriteString("OK")
			case is:
				b.WriteString(unix.ErrnoName(e))
			default:
				b.WriteString(err.Error())
			}
			fmt.Println(b.String())
		}
		// As TestMapWithToken and its like: a bpffs that delegates.
		fs, err := unix.Fsopen("bpf", unix.FSOPEN_CLOEXEC)
		say("begin a bpffs", err)
		say("delegate", unix.FsconfigSetString(fs, "delegate_cmds", "any"))
		unix.Close(fs)
		// As TestUprobeTraceFS: a line in uprobe_events.
		const tracing = "/sys/kernel/tracing"
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			fail("%v", err)
		}
		say("mount tracefs", unix.Mount("tracefs", tracing, "tracefs", 0, ""))
		fd, err := unix.Open(filepath.Join(tracing, "uprobe_events"), unix.O_WRONLY|unix.O_APPEND|unix.O_CLOEXEC, 0)
		say("uprobe_events", err)
		unix.Close(fd)
		if len(os.Args) > 1 {
			return
		}
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}
		c := exec.Command("/proc/self/exe", "again")
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, UidMappings: ids, GidMappings: ids,
			Credential: &syscall.Credential{Uid: 0, Gid: 0}}
		if err := c.Run(); err != nil {
			fail("%v", err)
		}
	}
}
