package launch

import (
	"bufio"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestKilled kills the runner at random moments from its start on, and looks for
// what is left.
func TestKilled(t *testing.T) {
	needRoot(t)
	name := filepath.Join(t.TempDir(), "out")
	for range 60 {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		cmd := run("-pid="+[]string{"host", "private"}[rand.IntN(2)], "sh", "-c",
			"mkdir -p /sys/fs/cgroup/a/b; echo $$ >/sys/fs/cgroup/a/cgroup.procs; setsid sleep 1000 & sleep 1000")
		cmd.Stdout = f
		id := cmd.Args[2]
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		f.Close()
		after := time.Duration(rand.IntN(50_000)) * time.Microsecond
		<-time.After(after)
		cmd.Process.Kill()
		cmd.Wait()
		eventually(t, "the guardian has cleaned up", func() bool {
			var st syscall.Stat_t
			return len(leftovers(idSuffix(id))) == 0 && syscall.Stat(name, &st) == nil && st.Uid == 0
		})
		checkOwner(t, name, 0, 0, 0o600)
	}
}

func idSuffix(id string) string { return id[len(prefix)-len(cgroupPrefix):] }

func TestKilledWithItsGroup(t *testing.T) {
	needRoot(t)
	cmd := run("sh", "-c", "echo ready; sleep 1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	bufio.NewReader(out).ReadString('\n')
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	cmd.Wait()
	eventually(t, "the guardian has cleaned up", func() bool { return len(leftovers(idSuffix(cmd.Args[2]))) == 0 })
}
