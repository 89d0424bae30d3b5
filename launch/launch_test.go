package launch

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// bothPID are the flags for both kinds of pid namespace.
var bothPID = []string{"-pid=host", "-pid=private"}

func TestExitStatus(t *testing.T) {
	needRoot(t)
	for _, pid := range bothPID {
		for _, c := range []struct {
			script string
			code   int
			sig    syscall.Signal
		}{
			{"exit 0", 0, 0},
			{"exit 7", 7, 0},
			{"exit 255", 255, 0},
			{"kill -TERM $$", -1, syscall.SIGTERM},
			{"kill -KILL $$", -1, syscall.SIGKILL},
			{"kill -SEGV $$", -1, syscall.SIGSEGV},
			{"kill -PIPE $$", -1, syscall.SIGPIPE},
			{"kill -HUP $$", -1, syscall.SIGHUP},
		} {
			ws := waitStatus(t, run(pid, "sh", "-c", c.script).Run())
			if c.sig != 0 && (!ws.Signaled() || ws.Signal() != c.sig) || c.sig == 0 && ws.ExitStatus() != c.code {
				t.Errorf("%s, %q: status %#x", pid, c.script, uint32(ws))
			}
		}
	}
}

func TestExecErrors(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	os.Chmod(filepath.Dir(dir), 0o755)
	os.Chmod(dir, 0o755)
	closed := filepath.Join(dir, "closed")
	os.Mkdir(closed, 0o700)
	os.WriteFile(filepath.Join(closed, "cmd"), []byte("#!/bin/sh\n"), 0o755)
	os.WriteFile(filepath.Join(dir, "data"), nil, 0o644)
	os.WriteFile(filepath.Join(dir, "nohashbang"), []byte("exit 3\n"), 0o755)
	os.Chmod(filepath.Join(dir, "nohashbang"), 0o755)
	for _, pid := range bothPID {
		for _, c := range []struct {
			cmd, text string
			code      int
		}{
			{"no-such-command", "not found in PATH", 127},
			{"/no/such", "no such file", 127},
			{"/etc", "is a directory", 126},
			{filepath.Join(dir, "data"), "chmod o+rx", 126},
			{filepath.Join(closed, "cmd"), "may not search", 126},
			{filepath.Join(dir, "nohashbang"), "", 3},
		} {
			if strings.HasSuffix(c.text, "search") {
				c.text = fmt.Sprintf("no right to search %q", closed)
			}
			out, err := run(pid, c.cmd).CombinedOutput()
			if got := waitStatus(t, err).ExitStatus(); got != c.code || !strings.Contains(string(out), c.text) {
				t.Errorf("%s %s: exit status %d (want %d): %s", pid, c.cmd, got, c.code, out)
			}
		}
	}
}

func TestRights(t *testing.T) {
	needRoot(t)
	equal(t, "ids", output(t, "id -u; id -g; id -G"), "0\n0\n0")
	users, groups, err := idMaps(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, maps := range map[string][]IDMap{"uid_map": users, "gid_map": groups} {
		var want []string
		for _, m := range maps {
			want = append(want, fmt.Sprint(m.Inside), fmt.Sprint(m.Outside), fmt.Sprint(m.Size))
		}
		got := strings.Fields(output(t, "cat /proc/self/"+name))
		equal(t, name, strings.Join(got, " "), strings.Join(want, " "))
	}
	last, _ := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	var n int
	fmt.Sscan(string(last), &n)
	all := fmt.Sprintf("%016x", uint64(1)<<(n+1)-1)
	status := output(t, "grep -E '^(CapPrm|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status")
	for _, want := range []string{"CapPrm:\t" + all, "CapEff:\t" + all, "CapBnd:\t" + all, "NoNewPrivs:\t0", "Seccomp:\t2"} {
		if !strings.Contains(status, want+"\n") {
			t.Errorf("status lacks %q:\n%s", want, status)
		}
	}
	secret := filepath.Join(t.TempDir(), "secret")
	os.WriteFile(secret, nil, 0o600)
	if out := output(t, "cat "+secret+" 2>&1; true"); !strings.Contains(out, "denied") {
		t.Errorf("read the host root's file: %q", out)
	}
}

func TestNamespaces(t *testing.T) {
	needRoot(t)
	own := func(ns string) string { s, _ := os.Readlink("/proc/self/ns/" + ns); return s }
	inside := func(flags ...string) map[string]string {
		m := make(map[string]string)
		for _, l := range strings.Fields(output(t, "for n in user mnt cgroup ipc net pid uts; do echo $n=$(readlink /proc/self/ns/$n); done", flags...)) {
			k, v, _ := strings.Cut(l, "=")
			m[k] = v
		}
		return m
	}
	host, private := inside(), inside("-net=private", "-pid=private")
	for _, ns := range []string{"user", "mnt", "cgroup", "ipc"} {
		if host[ns] == own(ns) || private[ns] == own(ns) {
			t.Errorf("%s namespace is the caller's", ns)
		}
	}
	for _, ns := range []string{"net", "pid"} {
		if host[ns] != own(ns) || private[ns] == own(ns) {
			t.Errorf("%s namespace: ours %s, host mode %s, private %s", ns, own(ns), host[ns], private[ns])
		}
	}
	equal(t, "interfaces", output(t, "cat /proc/net/dev | tail -n +3 | cut -d: -f1", "-net=private"), "lo")
	if out := output(t, "ip -o link show lo", "-net=private"); !strings.Contains(out, "LOWER_UP") {
		t.Errorf("lo isn't up: %s", out)
	}
}

func TestCgroup(t *testing.T) {
	needRoot(t)
	equal(t, "own cgroup", output(t, "grep ^0: /proc/self/cgroup"), "0::/")
	equal(t, "move to a child", output(t, `
		set -e
		mkdir /sys/fs/cgroup/a /sys/fs/cgroup/a/b
		echo $$ > /sys/fs/cgroup/a/b/cgroup.procs
		grep ^0: /proc/self/cgroup
		echo > /sys/fs/cgroup/cgroup.subtree_control
		cat /sys/fs/cgroup/cgroup.procs`), "0::/a/b")
	equal(t, "what isn't delegated", output(t, "echo 1 2>&- > /sys/fs/cgroup/cgroup.kill || echo denied"), "denied")
	if out := output(t, "umount /sys/fs/cgroup; ls -A /sys/fs/cgroup"); out != "" {
		t.Errorf("below our cgroup mount is %q", out)
	}
}

func TestBPFFS(t *testing.T) {
	needRoot(t)
	// The kernel may put its own into a fresh one: maps.debug, progs.debug.
	fresh := must(t, exec.Command("unshare", "-m", "sh", "-c", "mount -t bpf bpf /sys/fs/bpf; ls -A /sys/fs/bpf"))
	equal(t, "content", output(t, "ls -A /sys/fs/bpf"), fresh)
	equal(t, "owner", output(t, "stat -c '%u %g %A' /sys/fs/bpf; stat -f -c %T /sys/fs/bpf; mkdir /sys/fs/bpf/x; ls -d /sys/fs/bpf/x"),
		"0 0 drwxr-xr-t\nbpf_fs\n/sys/fs/bpf/x")
	if out := output(t, "umount /sys/fs/bpf; ls -A /sys/fs/bpf; grep ' - bpf ' /proc/self/mountinfo; true"); out != "" {
		t.Errorf("below our bpffs is %q", out)
	}
}

func TestMountsStayInside(t *testing.T) {
	needRoot(t)
	before, _ := os.ReadFile("/proc/self/mountinfo")
	output(t, "mount -t tmpfs x /mnt && touch /mnt/here")
	after, _ := os.ReadFile("/proc/self/mountinfo")
	if !bytes.Equal(before, after) {
		t.Errorf("mounts before:\n%s\nafter:\n%s", before, after)
	}
}

func TestWorkingDirectory(t *testing.T) {
	needRoot(t)
	top := t.TempDir() // 0755, below a 0755 directory that go test makes 0777 &^ umask
	os.Chmod(filepath.Dir(top), 0o755)
	deep := filepath.Join(top, "closed", "a b", "deep")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(deep, "file"), []byte("content\n"), 0o600)
	os.WriteFile(filepath.Join(top, "closed", "secret"), nil, 0o644)
	os.Chmod(filepath.Join(top, "closed"), 0o700)
	script := `pwd -P; cat file "$PWD/file"; echo new > made; stat -c %u made; ls -A ` + top + "/closed"
	for _, c := range []struct {
		name, dir, below string
	}{
		{"an ancestor is closed", deep, "a b"},
		{"it is closed itself", filepath.Join(top, "closed"), ""},
	} {
		os.WriteFile(filepath.Join(c.dir, "file"), []byte("content\n"), 0o600)
		for _, pid := range bothPID {
			cmd := run(pid, "sh", "-c", script)
			cmd.Dir = c.dir
			out := must(t, cmd)
			want := c.dir + "\ncontent\ncontent\n0\n" + c.below
			if c.below == "" {
				want += "a b\nfile\nmade\nsecret"
			}
			equal(t, c.name, out, want)
			var st syscall.Stat_t
			if err := syscall.Stat(filepath.Join(c.dir, "made"), &st); err != nil || st.Uid != 0 {
				t.Errorf("%s: on disk it is owned by %d (%v)", c.name, st.Uid, err)
			}
			os.Remove(filepath.Join(c.dir, "made"))
		}
	}

	equal(t, "an open one", output(t, "pwd -P", "-dir", "/usr/bin"), "/usr/bin")

	gone := filepath.Join(top, "gone")
	os.Mkdir(gone, 0o755)
	cmd := exec.Command("sh", "-c", `cd "$1" && rmdir "$1" && exec "$2" -id "$3" readlink /proc/self/cwd`, "sh", gone, runner, newID())
	equal(t, "a deleted one", must(t, cmd), gone+" (deleted)")
}

func TestStreamsByName(t *testing.T) {
	needRoot(t)
	equal(t, "pipe", output(t, "echo a >/dev/stdout; echo b >/proc/self/fd/1"), "a\nb")

	cmd := run("cat", "/dev/stdin")
	cmd.Stdin = strings.NewReader("through a pipe")
	equal(t, "stdin pipe", must(t, cmd), "through a pipe")

	name := filepath.Join(t.TempDir(), "out")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.Chown(0, 4)
	cmd = run("sh", "-c", "echo x >>/dev/stdout; stat -L -c %u /dev/stdout")
	cmd.Stdout = f
	if err := cmd.Run(); err != nil {
		t.Error(err)
	}
	b, _ := os.ReadFile(name)
	equal(t, "file", string(b), "x\n0")
	checkOwner(t, name, 0, 4, 0o640)

	cmd = run("sh", "-c", "chmod 4777 /dev/stdout")
	cmd.Stdout = f
	if err := cmd.Run(); err != nil {
		t.Error(err)
	}
	checkOwner(t, name, 0, 4, 0o640)

	// Read-only: not the workload's, who could write to it then.
	r, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd = run("stat", "-L", "-c", "%u", "/dev/stdin")
	cmd.Stdin = r
	equal(t, "owner of a file to read", must(t, cmd), "65534")
	var st syscall.Stat_t
	if syscall.Stat("/dev/null", &st); st.Uid != 0 {
		t.Errorf("/dev/null belongs to %d", st.Uid)
	}
}

func checkOwner(t *testing.T, name string, uid, gid, mode uint32) {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(name, &st); err != nil {
		t.Fatal(err)
	}
	if st.Uid != uid || st.Gid != gid || st.Mode&0o7777 != mode {
		t.Errorf("%s: owner %d:%d mode %#o, want %d:%d %#o", name, st.Uid, st.Gid, st.Mode&0o7777, uid, gid, mode)
	}
}

func TestFDs(t *testing.T) {
	needRoot(t)
	for _, pid := range bothPID {
		list := `for i in 0 1 2 3 4 5 6 7 8 9; do if [ -e /proc/self/fd/$i ]; then printf "$i "; fi; done` // no fd of its own, as ls has
		equal(t, "fds", output(t, list, pid), "0 1 2")
		r, w, _ := os.Pipe()
		cmd := run(pid, "sh", "-c", list+"; echo passed >&4")
		cmd.ExtraFiles = []*os.File{nil, w}
		equal(t, "fds with an inherited one", must(t, cmd), "0 1 2 4")
		w.Close()
		b, _ := io.ReadAll(r)
		equal(t, "inherited fd", string(b), "passed")
		r.Close()
	}
}

func TestPipeEndsWhenCommandClosesIt(t *testing.T) {
	needRoot(t)
	for _, pid := range bothPID {
		r, w, _ := os.Pipe()
		cmd := run(pid, "sh", "-c", "exec >&-; read x")
		hold, _ := cmd.StdinPipe()
		cmd.Stdout = w
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		w.Close()
		io.ReadAll(r) // hangs if one of us holds the pipe open
		r.Close()
		hold.Close()
		cmd.Wait()
	}
}

func TestInheritedState(t *testing.T) {
	needRoot(t)
	for _, pid := range bothPID {
		script := `ulimit -Sn 321; umask 027; nice -n 5 "$0" -id "$1" ` + pid + ` sh -c 'ulimit -Sn; umask; nice; cat /proc/self/oom_score_adj'`
		adj, _ := os.ReadFile("/proc/self/oom_score_adj")
		cmd := exec.Command("sh", "-c", script, runner, newID())
		equal(t, "limits", must(t, cmd), "321\n0027\n5\n"+string(adj))

		// Natively it isn't nothing everywhere: make's children ignore signal 32.
		const show = ` grep SigIgn /proc/self/status`
		for _, before := range []string{"", `trap "" HUP INT QUIT PIPE TERM USR1 TSTP; `} {
			native := must(t, exec.Command("sh", "-c", before+show))
			cmd = exec.Command("sh", "-c", before+`"$0" -id "$1" `+pid+show, runner, newID())
			equal(t, "ignored signals after "+before, must(t, cmd), native)
		}
	}
	equal(t, "SIGPIPE", output(t, "(while echo y; do :; done; echo $? >&2) | head -1"), "y")
	equal(t, "closed stdin", must(t, exec.Command("sh", "-c", `exec "$0" -id "$1" cat <&-`, runner, newID())), "")
	os.Setenv("LAUNCH_TEST", "a\xffb\nc")
	defer os.Unsetenv("LAUNCH_TEST")
	equal(t, "environment", output(t, `printf %s "$LAUNCH_TEST"`), "a\xffb\nc")
}

func TestInit(t *testing.T) {
	needRoot(t)
	out := output(t, `
		(sh -c 'sleep 0.05 & ' &)
		while [ "$(ps -e -o comm= | grep -c sleep)" != 0 ]; do :; done
		ps -e -o pid=,stat=,comm= | grep Z
		cat /proc/1/comm; [ $$ != 1 ] && echo not-1; exit 0`, "-pid=private")
	if strings.Contains(out, "Z") || !strings.Contains(out, "not-1") {
		t.Errorf("zombies, or CMD is process 1:\n%s", out)
	}
}

// TestForwardedSignals sends each signal to the runner alone, many times, and
// counts what CMD gets of it.
func TestForwardedSignals(t *testing.T) {
	needRoot(t)
	for _, pid := range bothPID {
		for _, sig := range []syscall.Signal{
			syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT,
			syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGALRM, 64,
		} {
			cmd := run(pid, probe, "count", fmt.Sprint(int(sig)))
			out, _ := cmd.StdoutPipe()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			expect := func(want string) {
				t.Helper()
				if !lines.Scan() || lines.Text() != want {
					t.Errorf("%s %v: got %q, want %q", pid, sig, lines.Text(), want)
				}
			}
			expect("ready")
			for range 5 {
				cmd.Process.Signal(sig)
				expect("got")
			}
			cmd.Process.Signal(syscall.Signal(40))
			expect("end") // and not "got"
			if err := cmd.Wait(); err != nil {
				t.Errorf("%v: %v", sig, err)
			}
		}
	}
}

func TestBackgroundProcessesEndWithCommand(t *testing.T) {
	needRoot(t)
	for _, pid := range bothPID {
		// The daemon holds stdout: output returns once it is dead.
		equal(t, "output", output(t, "setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 100; done' & echo started", pid), "started")
	}
}

func TestAPI(t *testing.T) {
	needRoot(t)
	id := newID()
	r, out, _ := os.Pipe()
	defer r.Close()
	w, err := Start(Config{
		ID: id, Args: []string{"sh", "-c", "echo $0 $X; exit 4"}, Env: []string{"PATH=/usr/bin:/bin", "X=y"},
		UserMap: []IDMap{{0, 300000, 1000}}, Net: Private, PID: Private, Dir: "/tmp",
		Filter: []sys.SockFilter{{Code: 6, K: 0x7fff0000}},
		Stdin:  os.Stdin, Stdout: out, Stderr: os.Stderr,
	})
	out.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for name, f := range map[string]*os.File{"user": w.UserNS(), "mnt": w.MountNS(), "net": w.NetNS(), "pid": w.PIDNS()} {
		got, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
		ours, _ := os.Readlink("/proc/self/ns/" + name)
		if !strings.HasPrefix(got, name+":[") || got == ours {
			t.Errorf("%s namespace: %q, ours %q", name, got, ours)
		}
	}
	if l, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", w.Listener().Fd())); !strings.Contains(l, "seccomp notify") {
		t.Errorf("listener is %q", l)
	}
	checkOwner(t, w.cgroup.path(workerLeaf), 0, 0, 0o755)
	checkOwner(t, w.cgroup.path(workloadLeaf), 300000, 300000, 0o755)

	sleeper := exec.Command("sleep", "1000")
	sleeper.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(w.WorkerCgroup().Fd())}
	if err := sleeper.Start(); err != nil {
		t.Fatalf("start in the worker's cgroup: %v", err)
	}
	if _, err := Start(Config{ID: id, Args: []string{"true"}, Filter: []sys.SockFilter{{Code: 6, K: 0x7fff0000}}}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("second workload of the same id: %v", err)
	}
	if err := w.Release(); err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(r)
	equal(t, "output", string(b), "sh y")
	s, err := w.Wait()
	if err != nil || s != (ExitStatus{Code: 4}) {
		t.Errorf("Wait: %v, %v", s, err)
	}
	// A worker learns of the end by its listener, and has until Close for its report.
	if err := sys.WaitHangUp(int(w.Listener().Fd())); err != nil {
		t.Error(err)
	}
	if sleeper.Process.Signal(syscall.Signal(0)) != nil {
		t.Error("the worker's process ended with CMD; it is Close that ends it")
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if ws := waitStatus(t, sleeper.Wait()); ws.Signal() != syscall.SIGKILL {
		t.Errorf("a process in the worker's cgroup ended with %v", ws)
	}
}

func TestStartFailsCleanly(t *testing.T) {
	needRoot(t)
	base := Config{Args: []string{"true"}, Filter: []sys.SockFilter{{Code: 6, K: 0x7fff0000}}, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	for name, spoil := range map[string]func(*Config){
		"filter": func(c *Config) { c.Filter = []sys.SockFilter{{Code: 0xffff}} },
		"dir":    func(c *Config) { c.Dir = "/no/such" },
		"map":    func(c *Config) { c.UserMap = []IDMap{{0, 0, 10}} },
		"id":     func(c *Config) { c.ID = "a/b" },
	} {
		c := base
		c.ID = newID()
		spoil(&c)
		if w, err := Start(c); err == nil {
			t.Errorf("%s: Start succeeded", name)
			w.Close()
		} else if errors.Is(err, syscall.EBUSY) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
