package launch

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
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

	"github.com/bpfbroker/bpfbroker/cgroups"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// id is a runner command's.
func id(cmd *exec.Cmd) string { return cmd.Args[2] }

// start starts a runner, and waits for the first line of its output.
func start(t *testing.T, cmd *exec.Cmd) (in io.WriteCloser, out *bufio.Reader) {
	t.Helper()
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out = bufio.NewReader(r)
	if line, err := out.ReadString('\n'); line != "ready\n" {
		t.Fatalf("%v: got %q (%v), want ready", cmd.Args, line, err)
	}
	return in, out
}

// gone waits until nothing is left of a runner's workload.
func gone(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	eventually(t, "nothing is left of "+id(cmd), func() bool { return len(leftovers(idSuffix(id(cmd)))) == 0 })
}

// TestUnrulyWorkloads has workloads that don't want to end, and ends them: by
// the end of CMD, and by the end of the runner.
func TestUnrulyWorkloads(t *testing.T) {
	needRoot(t)
	deaf := `trap "" TERM HUP INT QUIT; `
	// Its processes are never the same: each starts the next one and ends.
	chain := deaf + `c='sh -c "$0" "$0" & exit'; for i in 1 2 3 4 5 6 7 8; do setsid sh -c "$c" "$c" & done; `
	end := `echo ready; read x`
	for name, args := range map[string][]string{
		"daemon":    {"sh", "-c", deaf + `(setsid sh -c 'sleep 1000 & sleep 1000' &) & ` + end},
		"chain":     {"sh", "-c", chain + end},
		"cgroups":   {"sh", "-c", `cd /sys/fs/cgroup && mkdir -p a/b c/d/e && echo 0 >a/b/cgroup.procs && (echo 0 >/sys/fs/cgroup/c/d/e/cgroup.procs; exec sleep 1000) & ` + end},
		"threaded":  {"sh", "-c", `cd /sys/fs/cgroup && mkdir a a/b && echo threaded >a/cgroup.type && echo threaded >a/b/cgroup.type && echo 0 >a/b/cgroup.threads; ` + end},
		"frozen":    {"sh", "-c", `cd /sys/fs/cgroup && mkdir a && (echo 0 >a/cgroup.procs; exec sleep 1000) & until grep -q . /sys/fs/cgroup/a/cgroup.procs; do :; done 2>/dev/null; echo 1 >/sys/fs/cgroup/a/cgroup.freeze; ` + end},
		"stopped":   {"sh", "-c", `sleep 1000 & kill -STOP $!; ` + end},
		"deep":      {"sh", "-c", probe + ` nest 40 & ` + `read x`},
		"namespace": {"sh", "-c", `unshare -Urmpf --mount-proc sleep 1000 & ` + end},
		"wide":      {"sh", "-c", `cd /sys/fs/cgroup; for i in 1 2 3 4 5 6 7 8 9; do mkdir $i $i/1 $i/2 $i/3; done; ` + end},
	} {
		for _, pid := range bothPID {
			for _, kill := range []bool{false, true} {
				cmd := run(append([]string{pid}, args...)...)
				in, _ := start(t, cmd)
				if kill {
					cmd.Process.Kill()
					cmd.Wait()
					gone(t, cmd)
					continue
				}
				in.Close()
				if err := cmd.Wait(); err != nil && name != "daemon" { // read's status is 1
					if ws := waitStatus(t, err); ws.ExitStatus() != 1 {
						t.Errorf("%s %s: %v", name, pid, err)
					}
				}
				if left := leftovers(idSuffix(id(cmd))); len(left) > 0 {
					t.Errorf("%s %s: left behind: %v", name, pid, left)
				}
			}
		}
	}
}

// TestSharedStream has several workloads with one file as standard output.
func TestSharedStream(t *testing.T) {
	needRoot(t)
	name := filepath.Join(t.TempDir(), "out")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.Chown(1, 4)
	begin := func(flags ...string) (cmd *exec.Cmd, end func() string) {
		r, w, _ := os.Pipe()
		ready, tell, _ := os.Pipe()
		cmd = run(append(flags, "sh", "-c", `echo >&4; read x; echo x >>/dev/stdout && echo fine >&2`)...)
		var errs bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = r, f, &errs
		cmd.ExtraFiles = []*os.File{nil, tell}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		r.Close()
		tell.Close()
		ready.Read(make([]byte, 1))
		ready.Close()
		return cmd, func() string {
			w.Close()
			cmd.Wait()
			return strings.TrimSpace(errs.String())
		}
	}
	for _, second := range []string{"0:100000:65536", "0:300000:65536"} {
		_, endA := begin("-user-map", "0:100000:65536")
		_, endB := begin("-user-map", second)
		_, endC := begin("-user-map", "0:100000:65536")
		equal(t, "the first", endA(), "fine")
		if got := endB(); (got == "fine") != (second == "0:100000:65536") {
			t.Errorf("with %s: %q", second, got)
		}
		equal(t, "the last", endC(), "fine")
		checkOwner(t, name, 1, 4, 0o640)

		a, _ := begin("-user-map", "0:100000:65536")
		_, endB = begin("-user-map", "0:100000:65536")
		a.Process.Kill()
		a.Wait()
		gone(t, a)
		equal(t, "the other", endB(), "fine")
		checkOwner(t, name, 1, 4, 0o640)
		if s, err := sys.StatStream(int(f.Fd())); err != nil || exists(loanPath(s)) {
			t.Errorf("the record of a loan is left behind (%v)", err)
		}
	}

	// A run and its guardian die at once: the next run knows the owner still.
	a, _ := begin()
	children := threadsChildren(a.Process.Pid)
	guardian := 0
	for _, c := range strings.Fields(children) {
		if b, _ := os.ReadFile("/proc/" + c + "/cmdline"); strings.HasPrefix(string(b), guardianName) {
			fmt.Sscan(c, &guardian)
		}
	}
	if guardian == 0 {
		t.Fatalf("no guardian among the children %s", children)
	}
	syscall.Kill(guardian, syscall.SIGKILL)
	a.Process.Kill()
	parent, err := cgroups.Open(cgroups.Self)
	if err != nil {
		t.Fatal(err)
	}
	legacy, err := cgroups.OpenCounted(cgroups.Self)
	if err != nil {
		t.Fatal(err)
	}
	var cgroups []*cgroup
	for i, dir := range append([]*os.File{parent}, legacy...) {
		defer dir.Close()
		cgroups = append(cgroups, &cgroup{dir, cgroupPrefix + id(a), i > 0})
	}
	if err := cleanUp(cgroups, nil); err != nil {
		t.Error(err)
	}
	a.Wait()
	_, endB := begin()
	endB()
	checkOwner(t, name, 1, 4, 0o640)
}

// threadsChildren lists the children of all threads of a process.
func threadsChildren(pid int) string {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var all []byte
	for _, f := range files {
		b, _ := os.ReadFile(f)
		all = append(all, b...)
	}
	return string(all)
}

// TestStreamIsNoGift has workloads that abuse owning the file that is their
// standard output.
func TestStreamIsNoGift(t *testing.T) {
	needRoot(t)
	name := filepath.Join(t.TempDir(), "out")
	open := func(mode os.FileMode) *os.File {
		os.Remove(name)
		f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, mode)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Chmod(name, uint32(mode)); err != nil {
			t.Fatal(err)
		}
		return f
	}
	stdout := func(f *os.File, args ...string) {
		cmd := run(args...)
		cmd.Stdout, cmd.Stderr = f, os.Stderr
		if err := cmd.Run(); err != nil {
			t.Error(err)
		}
		f.Close()
	}
	stdout(open(0o660), probe, "acl", "/dev/stdout")
	checkOwner(t, name, 0, 0, 0o660)
	if _, err := syscall.Getxattr(name, "system.posix_acl_access", make([]byte, 100)); err != syscall.ENODATA {
		t.Error("the workload's ACL is left on the file")
	}
	// It would be the workload's content that executes as root.
	stdout(open(0o4755), "sh", "-c", "echo x; echo x 2>/dev/null >>/dev/stdout; true")
	var st syscall.Stat_t
	if syscall.Stat(name, &st); st.Mode&0o7000 != 0 || st.Uid != 0 {
		t.Errorf("a set-user-ID file has mode %#o and owner %d after a workload wrote to it", st.Mode, st.Uid)
	}
}

func TestClosedStreams(t *testing.T) {
	needRoot(t)
	for _, pid := range bothPID {
		for _, closed := range []string{"<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"} {
			cmd := exec.Command("sh", "-c", `exec "$0" -id "$1" `+pid+` sh -c 'echo a; echo b >&2; cat; exit 5' `+closed, runner, newID())
			if ws := waitStatus(t, cmd.Run()); ws.ExitStatus() != 5 {
				t.Errorf("%s %s: status %#x", pid, closed, uint32(ws))
			}
		}
	}
}

// TestFewFiles has ever lower limits of open files: it works, or it doesn't and
// leaves nothing behind.
func TestFewFiles(t *testing.T) {
	needRoot(t)
	for n := 8; n < 60; n += 2 { // with fewer, no Go program starts
		cmd := exec.Command("sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$0" -id "$1" sh -c 'exit 5'`, n), runner, newID())
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		ws := waitStatus(t, cmd.Run())
		if code := ws.ExitStatus(); code != 5 && (code != 125 || n > 50) { // it takes two more for each hierarchy of cgroup v1
			t.Errorf("limit of %d files: status %#x\n%s", n, uint32(ws), out.String())
		}
		eventually(t, "nothing is left", func() bool { return len(leftovers(idSuffix(cmd.Args[4]))) == 0 })
	}
}

func TestHugeArguments(t *testing.T) {
	needRoot(t)
	args := []string{probe, "args"}
	for range 400 {
		args = append(args, strings.Repeat("a", 2000))
	}
	for _, pid := range bothPID {
		cmd := run(append([]string{pid}, args...)...)
		cmd.Env = []string{"X=" + strings.Repeat("x", 100_000), "Y=" + strings.Repeat("y", 100_000)}
		equal(t, "sizes", must(t, cmd), "400 800000 200004")
	}
}

// TestOddWorkingDirectories has those that aren't on a file system with mapped
// owners, or not in the workload's view at all.
func TestOddWorkingDirectories(t *testing.T) {
	needRoot(t)
	equal(t, "/", output(t, "pwd -P"), "/")
	for name, c := range map[string]struct{ setup, want string }{
		"tmpfs":          {`mount -t tmpfs -o mode=700 x /mnt; cd /mnt; echo text >file`, "0\n/mnt\ntext"},
		"below tmpfs":    {`mount -t tmpfs -o mode=700 x /mnt; mkdir -p /mnt/a/b; cd /mnt/a/b; echo text >file`, "0\n/mnt/a/b\ntext"},
		"below overlay":  {overlay + `mkdir -p /mnt/o/a; chmod 700 /mnt/o; cd /mnt/o/a; echo text >file`, "0\n/mnt/o/a\ntext"},
		"overlay":        {overlay + `chmod 700 /mnt/o; cd /mnt/o`, "125\nmay not search \"/mnt/o\""},
		"cgroup":         {cgroupfs + `mkdir /mnt/$2; trap "rmdir /mnt/$2" EXIT; cd /mnt/$2`, "125\nno such file"},
		"deleted cgroup": {cgroupfs + `mkdir /mnt/$2; cd /mnt/$2; rmdir /mnt/$2`, "125\nworking directory"},
		"bpffs":          {`mount -t bpf x /mnt; mkdir /mnt/x; cd /mnt/x`, "125\nno such file"},
	} {
		cmd := exec.Command("unshare", "-m", "sh", "-c", "exec 2>&1; set -e; "+c.setup+`; set +e; out=$("$1" -id "$2" sh -c 'pwd -P; cat file'); echo $?; echo "$out"`, "sh", runner, newID())
		out, _ := cmd.CombinedOutput()
		got := strings.TrimSpace(string(out))
		if code, text, _ := strings.Cut(c.want, "\n"); code == "125" {
			if !strings.Contains(got, text) || !strings.Contains(got+"\n", "\n125\n") {
				t.Errorf("%s: got %q, want %q", name, got, c.want)
			}
			continue
		}
		equal(t, name, got, c.want)
	}
}

const (
	overlay  = `mount -t tmpfs x /mnt; cd /mnt; mkdir l u w o; mount -t overlay -o lowerdir=l,upperdir=u,workdir=w x o; `
	cgroupfs = `mount -t cgroup2 x /mnt; `
)

func TestUserMapOfSeveralRanges(t *testing.T) {
	needRoot(t)
	maps := "0:200000:1000,1000:400000:1,5000:300000:10"
	out := output(t, `cat /proc/self/uid_map /proc/self/gid_map; cd /sys/fs/bpf && mkdir x && chown 5009:1000 x && stat -c %u:%g x`, "-user-map", maps)
	table := "0 200000 1000 1000 400000 1 5000 300000 10 "
	equal(t, "maps", strings.Join(strings.Fields(out), " "), table+table+"5009:1000")
}

// TestNested has a run inside a workload, which has no right to.
func TestNested(t *testing.T) {
	needRoot(t)
	out, err := run(runner, "-id", newID(), "true").CombinedOutput()
	if ws := waitStatus(t, err); ws.ExitStatus() != 125 || !strings.Contains(string(out), "user namespace") {
		t.Errorf("status %#x, %q", uint32(ws), out)
	}
}

// TestHostIsOutOfReach looks for ways from a workload to what is the host's.
func TestHostIsOutOfReach(t *testing.T) {
	needRoot(t)
	script := `
		for p in /sys/fs/bpf /sys/fs/cgroup /proc; do umount -l $p 2>/dev/null; umount -l $p 2>/dev/null; done
		grep -E ' - (bpf|cgroup2?|mqueue) ' /proc/self/mountinfo
		for f in root cwd exe fd/0 fd/3 ns/mnt ns/cgroup; do
			readlink /proc/$1/$f && echo "read $f of $1"
		done
		ls /proc/$1/root/ /proc/$1/cwd/ /proc/$1/fd 2>/dev/null
		for p in /proc/[0-9]*; do
			l=; read -r l 2>/dev/null <$p/cmdline
			case "$l" in ` + guardianName + `*)
				kill -0 ${p#/proc/} 2>/dev/null && echo "may kill the guardian"
			esac
		done
		nsenter -t $1 -m true 2>/dev/null && echo entered
		echo 1 2>/dev/null >/proc/$1/oom_score_adj && echo written
		true`
	for _, pid := range bothPID {
		cmd := exec.Command("unshare", "-m", "sh", "-c", `mount -t mqueue x /mnt; exec "$@"`, "sh",
			runner, "-id", newID(), pid, "sh", "-c", script, "sh", fmt.Sprint(os.Getpid()))
		if got := must(t, cmd); got != "" {
			t.Errorf("%s: %s", pid, got)
		}
	}
}

// TestSessionKeyring has a key in the caller's session keyring: possessing it is
// a right that doesn't ask for the user.
func TestSessionKeyring(t *testing.T) {
	needRoot(t)
	for _, pid := range bothPID {
		cmd := run(pid, probe, "keys")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // for good: its keyring is another
			kt, _ := syscall.BytePtrFromString("user")
			name, _ := syscall.BytePtrFromString("launch-test")
			ring, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)
			if err != nil {
				done <- err
				return
			}
			_, _, e := syscall.Syscall6(syscall.SYS_ADD_KEY, uintptr(unsafe.Pointer(kt)), uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(name)), 1, uintptr(ring), 0)
			if e != 0 {
				done <- e
				return
			}
			done <- cmd.Run()
		}()
		if err := <-done; err != nil {
			t.Fatalf("%v: %s", err, out.String())
		}
		equal(t, "key is out of reach", out.String(), "true")
	}
}

// TestOneID starts two runs of the same id at once: one of them works.
func TestOneID(t *testing.T) {
	needRoot(t)
	for range 10 {
		a := run("sleep", "1000")
		b := exec.Command(a.Args[0], a.Args[1:]...)
		ended := make(chan *exec.Cmd, 2)
		for _, cmd := range []*exec.Cmd{a, b} {
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			go func() { cmd.Wait(); ended <- cmd }()
		}
		loser := <-ended
		winner := map[*exec.Cmd]*exec.Cmd{a: b, b: a}[loser]
		if code := loser.ProcessState.ExitCode(); code != 125 {
			t.Errorf("one run: status %d", code)
		}
		if len(leftovers(idSuffix(id(a)))) != 1 {
			t.Error("the other's cgroup is gone")
		}
		winner.Process.Signal(syscall.SIGTERM)
		<-ended
		if ws := winner.ProcessState.Sys().(syscall.WaitStatus); ws.Signal() != syscall.SIGTERM {
			t.Errorf("the other run: status %#x", uint32(ws))
		}
	}
}

// TestSignalAtAnyMoment signals the runner alone from its start on: it ends by
// that signal, as CMD would.
func TestSignalAtAnyMoment(t *testing.T) {
	needRoot(t)
	for i := range 60 {
		sig := []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP}[i%3]
		cmd := run(bothPID[i/3%2], "sleep", "1000")
		var errs bytes.Buffer
		cmd.Stderr = &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(30_000)) * time.Microsecond)
		cmd.Process.Signal(sig)
		if ws := waitStatus(t, cmd.Wait()); ws.Signal() != sig {
			t.Errorf("status %#x, not %v: %s", uint32(ws), sig, errs.String())
		}
		gone(t, cmd)
	}
}

// TestStoppedAndContinued stops the runner alone, by a signal that it passes on
// and by one that nobody can.
func TestStoppedAndContinued(t *testing.T) {
	needRoot(t)
	for _, pid := range bothPID {
		// A process group that isn't orphaned, or SIGTSTP does nothing.
		cmd := run(pid, probe, "count", fmt.Sprint(int(syscall.SIGUSR1)))
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		_, out := start(t, cmd)
		for _, sig := range []syscall.Signal{syscall.SIGTSTP, syscall.SIGSTOP} {
			cmd.Process.Signal(sig)
			eventually(t, fmt.Sprintf("%s: the runner is stopped by %v", pid, sig), func() bool { return stopped(cmd.Process.Pid) })
			cmd.Process.Signal(syscall.SIGUSR1)
			cmd.Process.Signal(syscall.SIGCONT)
			if line, _ := out.ReadString('\n'); line != "got\n" {
				t.Errorf("%s %v: %q", pid, sig, line)
			}
		}
		cmd.Process.Signal(syscall.Signal(40))
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}
