package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/worker"
)

// These tests look at a worker from outside: what it holds, where it is, what it
// costs.

func init() {
	// idle makes one call and waits.
	probes["idle"] = func() {
		fd, e := variety(1).create("idle")
		if e != 0 {
			fail("map_create: %v", e)
		}
		unix.Close(fd)
		ask("idle")
	}
}

// status reads a line of /proc/PID/status.
func status(t *testing.T, pid int, key string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// A token worker is in the workload's user and network namespaces, with no
// capability on the host, in a mount namespace of its own, under its filter.
func TestWorkerPlace(t *testing.T) {
	needRoot(t)
	for _, kind := range kinds(t) {
		t.Run(kind, func(t *testing.T) {
			s := start(t, brokered(probe("idle"), "--net=private", "--pid=private", "--worker="+kind))
			s.expect("idle")
			pid, run := s.process("worker"), s.cmd.Process.Pid
			var cmd int // a process of the workload
			eventually(t, "the workload", func() bool {
				cmd = childOf(run, "bpfbroker-init")
				return cmd != 0
			})
			ns := func(pid int, name string) string {
				l, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, name))
				if err != nil {
					t.Fatal(err)
				}
				return l
			}
			token := kind == string(worker.Token)
			for name, same := range map[string]bool{"user": token, "net": true, "pid": false, "mnt": false, "ipc": false, "cgroup": false} {
				if got := ns(pid, name) == ns(cmd, name); got != same {
					t.Errorf("in the workload's %s namespace: %v, wanted %v", name, got, same)
				}
			}
			if ns(pid, "mnt") == ns(run, "mnt") {
				t.Error("it is in the host's mount namespace")
			}
			// Whoever has CAP_SYS_ADMIN in the namespace's owner can enter it and mount there,
			// if it gets at it (NS_MNT_GET_NEXT before e6b899f08066, and file handles of nsfs).
			if got, want := owner(t, fmt.Sprintf("/proc/%d/ns/mnt", pid)), inode(t, "/proc/self/ns/user"); got != want {
				t.Errorf("its mount namespace belongs to user namespace %d, not to ours, %d", got, want)
			}
			root, err := os.ReadDir(fmt.Sprintf("/proc/%d/root/", pid))
			if err != nil || len(root) != 1 || root[0].Name() != "proc" {
				t.Errorf("its root has %v, %v", root, err)
			}
			for controllers, path := range cgroups(t, run) {
				if controllers == "" {
					continue // v2: see TestChaosWorkload
				}
				want := path
				if controllers == "memory" || controllers == "pids" {
					want = filepath.Join(path, "bpfbroker-"+strings.TrimPrefix(ours("worker")[pid][2], "--id="))
					if st, err := os.Stat(filepath.Join("/sys/fs/cgroup", controllers, want)); err != nil || st.Mode().Perm() != 0o700 {
						t.Errorf("its cgroup of %s, which the workload can mount, isn't hidden: %v, %v", controllers, st, err)
					}
				}
				if got := cgroups(t, pid)[controllers]; got != want {
					t.Errorf("its cgroup of %s is %s, not %s", controllers, got, want)
				}
				if got := cgroups(t, cmd)[controllers]; got != path {
					t.Errorf("the workload's cgroup of %s is %s, not run's, %s", controllers, got, path)
				}
			}
			if token {
				// Capabilities in the workload's user namespace; the uid that root has
				// there, which is nobody's here.
				if uid := status(t, pid, "Uid"); strings.Contains("\t"+uid+"\t", "\t0\t") {
					t.Errorf("uids %s", uid)
				}
			}
			if got := status(t, pid, "Seccomp"); got != "2" && !raceBuild() {
				t.Errorf("Seccomp %s", got)
			}
			if got := status(t, pid, "NoNewPrivs"); got != "1" {
				t.Errorf("NoNewPrivs %s", got)
			}
			if got := status(t, pid, "Groups"); got != "" {
				t.Errorf("groups %s", got)
			}
			if got, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err != nil || string(got) != "bpfbroker\n" {
				t.Errorf("it is called %q, %v", got, err)
			}
			args := ours("worker")[pid]
			if args[0] != "bpfbroker" || !strings.HasPrefix(args[2], "--id=run-") {
				t.Errorf("ps shows %q", args)
			}
			s.end(true)
		})
	}
}

// cgroups are a process's, by their controllers; "" is v2's.
func cgroups(t *testing.T, pid int) map[string]string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		all[f[1]] = f[2]
	}
	return all
}

// owner is the inode of the user namespace to which the namespace at path belongs.
func owner(t *testing.T, path string) uint64 {
	t.Helper()
	ns, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	fd, err := unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_USERNS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	return inode(t, fmt.Sprintf("/proc/self/fd/%d", fd))
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// childOf finds a child of a process by the name that it calls itself.
func childOf(parent int, name string) int {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil || !strings.HasPrefix(string(b), name+"\x00") {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if statusField(pid, "PPid") == parent {
			return pid
		}
	}
	return 0
}

// A worker whose memory is the broker's is in the same cgroup as any other, once it
// serves.
func TestWorkerMemory(t *testing.T) {
	needRoot(t)
	for _, memory := range []string{"workload", "broker"} {
		s := start(t, brokered(probe("idle"), "--worker-memory="+memory))
		s.expect("idle")
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", s.process("worker")))
		if err != nil || !strings.Contains(string(b), "/bpfbroker.worker\n") {
			t.Errorf("%s: its cgroups are %q, %v", memory, b, err)
		}
		s.end(true)
	}
}

// An idle worker uses no processor, and little memory of its own.
func TestWorkerIdle(t *testing.T) {
	needRoot(t)
	s := start(t, brokered(probe("idle")))
	s.expect("idle")
	pid := s.process("worker")
	time.Sleep(500 * time.Millisecond) // the runtime ends what it began
	before := cpuTicks(pid)
	wakeups := contextSwitches(t, pid)
	time.Sleep(3 * time.Second)
	if used := cpuTicks(pid) - before; used > 1 {
		t.Errorf("used %d ticks of processor time in 3 s", used)
	}
	if n := contextSwitches(t, pid) - wakeups; n > 30 {
		t.Errorf("woke up %d times in 3 s", n)
	}
	anon := privateAnonymous(t, pid)
	fmt.Printf("idle worker: %d KiB private anonymous memory\n", anon)
	if !raceBuild() && anon > 8<<10 {
		t.Errorf("%d KiB of private anonymous memory", anon)
	}
	s.end(true)
}

// privateAnonymous is a process's private anonymous memory, in KiB.
func privateAnonymous(t *testing.T, pid int) (kib int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "Anonymous:"); ok {
			kib, _ = strconv.Atoi(strings.Fields(v)[0])
		}
	}
	return kib
}

// contextSwitches is how often all threads of a process have gone to sleep.
func contextSwitches(t *testing.T, pid int) (n int) {
	t.Helper()
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	for _, file := range files {
		b, _ := os.ReadFile(file)
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(line, "voluntary_ctxt_switches:"); ok {
				k, _ := strconv.Atoi(strings.TrimSpace(v))
				n += k
			}
		}
	}
	return n
}

// A program that only root may read is out of the token worker's reach: its calls
// are refused (docs/limits.md). The capability worker serves it.
func TestUnreadableTarget(t *testing.T) {
	needRoot(t)
	b, err := os.ReadFile(filepath.Join(bin, "probe"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(bin, "unreadable")
	if err := os.WriteFile(path, b, 0o711); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(path)
	for kind, want := range map[worker.Kind]string{worker.Token: "EPERM", worker.Capability: "fine"} {
		if !slices.Contains(kinds(t), string(kind)) {
			continue
		}
		c := probe("one map")
		c.Path = path
		if got := output(t, brokered(c, "--worker="+string(kind))); got != want+"\n" {
			t.Errorf("%s: %q, wanted %s", kind, got, want)
		}
	}
}

func init() {
	probes["one map"] = func() {
		fd, e := variety(1).create("unreadable")
		if e != 0 {
			fmt.Println(sys.ErrnoName(e))
			return
		}
		unix.Close(fd)
		fmt.Println("fine")
	}
}

// With the host's network namespace a worker can't return there, once one of its
// threads has gone to a target's own: that thread serves no other call.
func TestNetworkNamespaces(t *testing.T) {
	needRoot(t)
	for _, flags := range [][]string{{"--net=host"}, {"--net=private"}, {"--worker=capability"}} {
		says(t, brokered(probe("netns"), flags...))
	}
}

func init() {
	probes["netns"] = okay(func() error {
		query := func() error { // of lo, which there is in every one
			const xdp = 37
			ids := make([]byte, 64)
			a := new(attr).u32(0, 1).u32(4, xdp).u64(16, sys.Addr(ids)).u32(24, 16)
			_, e := bpf(16, a, 72, ids)
			if e != 0 && e != sys.EINVAL { // not all kernels know the query for XDP
				return fmt.Errorf("prog_query: %w", e)
			}
			return nil
		}
		link := func(prog int, ifindex uint32) (int, sys.Errno) {
			const tcxEgress = 47
			return bpf(cmdLinkCreate, new(attr).u32(0, uint32(prog)).u32(4, ifindex).u32(8, tcxEgress), 16)
		}
		errs := make(chan error)
		for i := range 8 {
			go func() {
				errs <- inNetns(i%2 == 1, func() error {
					prog, e := load(3, "netns", returns(0), 0, nil) // BPF_PROG_TYPE_SCHED_CLS
					if e != 0 {
						return fmt.Errorf("prog_load: %w", e)
					}
					for range 20 {
						fd, e := link(prog, 1)
						if e != 0 {
							return fmt.Errorf("link_create on lo: %w", e)
						}
						unix.Close(fd)
						if _, e := link(prog, 1000); e != sys.EINVAL && e != unix.ENODEV {
							return fmt.Errorf("link_create on nothing: %v", e)
						}
						if err := query(); err != nil {
							return err
						}
					}
					return nil
				})
			}()
		}
		for range 8 {
			if err := <-errs; err != nil {
				return err
			}
		}
		return nil
	})
}

// inNetns runs f on a thread of its own, in a network namespace of its own or not.
func inNetns(own bool, f func() error) error {
	errs := make(chan error, 1)
	go func() {
		lockForGood()
		if own {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				errs <- err
				return
			}
		}
		errs <- f()
	}()
	return <-errs
}

// TestDaemonKilled kills the daemon: calls go on, those too that it performs.
func TestDaemonKilled(t *testing.T) {
	needRoot(t)
	s := start(t, brokered(probe("ids")))
	s.expect("ready")
	for range 5 {
		daemon, worker := s.process("daemon"), s.process("worker")
		s.say("go")
		time.Sleep(5 * time.Millisecond)
		if err := syscall.Kill(daemon, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		s.expect("ready")
		eventually(t, "another daemon", func() bool { return len(ours("daemon")) > 0 && s.process("daemon") != daemon })
		if now := s.process("worker"); now != worker {
			t.Errorf("another worker, %d, for %d: %s", now, worker, s.stderr.String())
		}
	}
	s.end(false)
	if got := strings.Count(s.stderr.String(), "another takes over"); s.err != nil || got != 5 {
		t.Errorf("%v, told of %d: %s", s.err, got, s.stderr.String())
	}
}

// TestUpgrade replaces the binary under load: when the daemon is started anew, it is
// of the new version, and replaces the worker by one of its own.
func TestUpgrade(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "bpfbroker")
	install := func(version string) {
		t.Helper()
		build := exec.Command("go", "build", "-ldflags=-X main.version="+version, "-o", path+".new", "../cmd/bpfbroker")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", build.Args, err, out)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	install("old")
	c := brokered(probe("orphaned"))
	c.Path, c.Args[0] = path, path
	s := start(t, c)
	s.expect("calling")
	daemon, worker := s.process("daemon"), s.process("worker")
	install("new")
	if err := syscall.Kill(daemon, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another worker", func() bool { return syscall.Kill(worker, 0) != nil && s.process("worker") != worker })
	same := func(pid int) bool {
		a, err1 := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
		b, err2 := os.Stat(path)
		return err1 == nil && err2 == nil && os.SameFile(a, b)
	}
	if d := s.process("daemon"); d == daemon || !same(d) {
		t.Error("the daemon isn't of the new version")
	}
	s.say("enough")
	s.expect("ok")
	s.end(false)
	if s.err != nil {
		t.Errorf("%v\n%s", s.err, s.stderr.String())
	}
}

func init() {
	probes["ids"] = func() {
		fd, e := variety(1).create("ids")
		if e != 0 {
			fail("map_create: %v", e)
		}
		b, e := info(fd)
		if e != 0 {
			fail("info: %v", e)
		}
		id := le32(b[4:])
		for {
			ask("ready")
			for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); {
				again, e := bpf(cmdMapByID, new(attr).u32(0, id), 12)
				if e != 0 {
					fail("map_get_fd_by_id: %v", e)
				}
				unix.Close(again)
				if _, e := bpf(cmdMapByID, new(attr).u32(0, 1), 12); e != sys.ENOENT {
					fail("map_get_fd_by_id of another's: %v", e)
				}
			}
		}
	}
}

func le32(b []byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

// TestCrowd runs many workloads at once.
func TestCrowd(t *testing.T) {
	needRoot(t)
	n := count("BPFBROKER_CROWD", 20)
	began := time.Now()
	sessions := make([]*session, n)
	for i := range sessions {
		c := brokered(probe("idle"))
		sessions[i] = start(t, c)
	}
	for _, s := range sessions {
		s.expect("idle")
	}
	up := time.Since(began)
	anon := 0
	for pid := range ours("worker") {
		anon = max(anon, privateAnonymous(t, pid))
	}
	for _, s := range sessions {
		s.say("end")
	}
	for _, s := range sessions {
		s.end(true)
	}
	fmt.Printf("crowd: %d workloads at once, all up within %v; the largest worker has %d KiB private anonymous memory\n", n, up.Round(time.Millisecond), anon)
}
