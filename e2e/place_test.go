package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf/btf"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/abi"
)

// These tests show that an operation is performed in the workload's place: with
// the caller's ids, and charged to the workload's memory cgroup.

func init() {
	probes["uid"] = func() {
		s := &script{ids: map[string]string{}}
		runtime.LockOSThread() // whose uid alone is changed
		for _, uid := range []uintptr{0, 7} {
			if e := rawSet(syscall.SYS_SETRESUID, uid); e != 0 {
				fmt.Println("setresuid:", e)
			}
			l := abi.InfoLayout(abi.Prog)
			info := make([]byte, l.Size)
			attr := make([]byte, abi.AttrSize)
			fd := s.filterProg("p")
			s.put(&abi.RowOf(abi.ObjGetInfoByFD).Layout, attr, f{"bpf_fd": fd, "info_len": len(info), "info": info})
			s.call("info", abi.ObjGetInfoByFD, nil, attr, 16)
			fmt.Println(l.Field("created_by_uid").Uint(info))
		}
	}
	probes["nextid"] = func() {
		s := &script{ids: map[string]string{}}
		m, p := s.hashMap("m"), s.filterProg("p")
		for size := range 4 {
			for c, id := range map[abi.Command]uint32{abi.MapGetNextID: s.idOf(m, abi.Map), abi.ProgGetNextID: s.idOf(p, abi.Prog)} {
				attr := make([]byte, abi.AttrSize)
				s.call("next", c, nil, attr, size)
				fmt.Println(uint32(abi.RowOf(c).Field("next_id").Uint(attr)) == id)
			}
		}
	}
	probes["cgroupiter"] = func() {
		s := &script{ids: map[string]string{}}
		id := s.kernelType("bpf_iter_cgroup", (*btf.Func)(nil))
		p := s.load("iter", "tracing", ret0, f{"expected_attach_type": attachType("trace_iter"), "attach_btf_id": id})
		link := func(info []byte) int {
			return s.do("link", abi.LinkCreate, f{"prog_fd": p, "attach_type": attachType("trace_iter"), "iter_info": info, "iter_info_len": len(info)})
		}
		fmt.Println(link(words(1, 0, 1, 0)) >= 0)
		l := &abi.LinkInfo
		info, attr := make([]byte, l.Size), make([]byte, abi.AttrSize)
		s.put(&abi.RowOf(abi.ObjGetInfoByFD).Layout, attr, f{"bpf_fd": link(words(1, 0, 0, 0)), "info_len": len(info), "info": info})
		s.call("info", abi.ObjGetInfoByFD, nil, attr, 16)
		var st syscall.Stat_t
		fmt.Println(syscall.Stat("/sys/fs/cgroup", &st), l.Field("iter.cgroup.cgroup_id").Uint(info) == st.Ino)
	}
	// charge makes an array map of so many bytes and keeps it until it has read a byte.
	probes["charge"] = func() {
		n, err := strconv.Atoi(os.Args[1])
		if err != nil {
			panic(err)
		}
		s := &script{ids: map[string]string{}}
		fd := s.do("map", abi.MapCreate, f{"map_type": mapType("array"), "key_size": 4, "value_size": 4096, "max_entries": n / 4096, "map_name": "charge"})
		fmt.Println("map", fd)
		os.Stdin.Read(make([]byte, 1))
	}
}

// An attribute that is too short to hold start_id begins at the first object.
func TestNextIDShort(t *testing.T) {
	needRoot(t)
	if got := output(t, brokered(probe("nextid"))); got != strings.Repeat("true\n", 8) {
		t.Errorf("got %q, wanted the own map and program each time", got)
	}
}

// A cgroup iterator begins at the workload's root, and goes no higher.
func TestCgroupIterator(t *testing.T) {
	needRoot(t)
	if got, want := output(t, brokered(probe("cgroupiter"))), "false\n<nil> true\n"; got != want {
		t.Errorf("got %q, wanted %q: no iterator of the host's root, and one of the own", got, want)
	}
}

// The uid that a program shows is its loader's, in its own user namespace.
func TestCreatedByUID(t *testing.T) {
	needRoot(t)
	if got := output(t, brokered(probe("uid"))); got != "0\n7\n" {
		t.Errorf("programs show the uids %q, wanted 0 and 7", got)
	}
}

// memoryCgroups is where a machine has its memory controller, and the file that
// says how much is used.
func memoryCgroups() (dir, usage string) {
	const v1, v2 = "/sys/fs/cgroup/memory", "/sys/fs/cgroup"
	if _, err := os.Stat(v1 + "/memory.usage_in_bytes"); err == nil {
		return v1, "memory.usage_in_bytes"
	}
	if b, err := os.ReadFile(v2 + "/cgroup.subtree_control"); err == nil && strings.Contains(string(b), "memory") {
		return v2, "memory.current"
	}
	return "", ""
}

// memoryCgroup makes a memory cgroup for a test, with a limit in bytes where it
// isn't 0. used says how much memory is charged to it.
func memoryCgroup(t *testing.T, limit int) (dir string, used func() int64) {
	t.Helper()
	root, usage := memoryCgroups()
	if root == "" {
		t.Skip("no memory controller is mounted at /sys/fs/cgroup or /sys/fs/cgroup/memory")
	}
	dir, err := os.MkdirTemp(root, "e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		eventually(t, "the memory cgroup can be removed", func() bool { return os.Remove(dir) == nil })
	})
	if limit != 0 {
		file := "memory.max"
		if usage == "memory.usage_in_bytes" {
			file = "memory.limit_in_bytes"
		}
		if err := os.WriteFile(filepath.Join(dir, file), []byte(strconv.Itoa(limit)), 0); err != nil {
			t.Fatal(err)
		}
	}
	return dir, func() int64 { return numberIn(t, filepath.Join(dir, usage)) }
}

// oomKilled says whether the OOM killer killed somebody in a memory cgroup.
func oomKilled(t *testing.T, dir string) bool {
	t.Helper()
	for _, file := range []string{"memory.events", "memory.oom_control"} { // of v2, v1
		b, err := os.ReadFile(filepath.Join(dir, file))
		for line := range strings.Lines(string(b)) {
			if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
				return strings.TrimSpace(n) != "0"
			}
		}
		if err == nil {
			break
		}
	}
	t.Fatalf("%s doesn't say whether the OOM killer was there", dir)
	return false
}

func numberIn(t *testing.T, path string) int64 {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// within makes of a command one that runs in a cgroup.
func within(dir string, c *exec.Cmd) *exec.Cmd {
	c.Args = append([]string{"sh", "-c", `echo $$ >"$0"/cgroup.procs && exec "$@"`, dir, c.Path}, c.Args[1:]...)
	c.Path, _ = exec.LookPath("sh")
	return c
}

// A map's memory is charged to the cgroup that the workload is in.
func TestMemoryCharged(t *testing.T) {
	needRoot(t)
	for _, kind := range kinds(t) {
		dir, used := memoryCgroup(t, 0)
		// With 64 MiB more, all that the two runs differ in.
		measure := func(size int) int64 {
			w := start(t, within(dir, brokered(probe("charge", strconv.Itoa(size)), "--worker="+kind)))
			if line := w.hear(); !strings.HasPrefix(line, "map ") || strings.HasPrefix(line, "map -") {
				t.Errorf("the workload said %q", line)
			}
			got := used()
			w.end(true)
			return got
		}
		const size = 64 << 20
		small, large := measure(4096), measure(size)
		if diff := large - small; diff < size*3/4 {
			t.Errorf("%s: a map of %d MiB was charged with %d KiB", kind, size>>20, diff>>10)
		}
	}
}

// A workload that may use 32 MiB gets no map of 64 MiB, and nobody else's memory is
// used for it.
func TestMemoryLimit(t *testing.T) {
	needRoot(t)
	if raceBuild() {
		t.Skip("the race detector takes more memory than the workload has")
	}
	for _, kind := range kinds(t) {
		// Who touches memory at the instant at which the map's has filled the cgroup has
		// the kernel kill somebody there. Such an attempt shows nothing of the map.
		attempts := 0
		for memoryLimit(t, kind) {
			if attempts++; attempts == 20 {
				t.Fatalf("%s: the OOM killer came each time", kind)
			}
		}
	}
}

// memoryLimit tries it once, and says whether the OOM killer came in between.
func memoryLimit(t *testing.T, kind string) (killed bool) {
	t.Helper()
	dir, used := memoryCgroup(t, 32<<20)
	root, usage := memoryCgroups()
	host := func() int64 {
		if usage == "memory.usage_in_bytes" {
			return numberIn(t, filepath.Join(root, usage))
		}
		return 0 // the root of v2 doesn't say
	}
	before := host()
	w := start(t, within(dir, brokered(probe("charge", strconv.Itoa(64<<20)), "--worker="+kind)))
	line := ""
	select {
	case line = <-w.lines: // "": it has ended
	case <-time.After(patience):
		t.Fatalf("%s: the workload says nothing", kind)
	}
	if got := used(); got > 32<<20 {
		t.Errorf("%s: %d KiB are used", kind, got>>10)
	}
	if grown := host() - before; grown > 48<<20 {
		t.Errorf("%s: the host's own usage grew by %d KiB", kind, grown>>10)
	}
	if oomKilled(t, dir) {
		w.end(false)
		return true
	}
	if line != "map -1" {
		t.Errorf("%s: the workload said %q, wanted no map", kind, line)
	}
	w.end(true)
	return false
}

// Where the workload has used up its memory, and its worker is killed for that,
// another takes over. (It would be spared where its oom_score_adj may be lowered.)
func TestOutOfMemory(t *testing.T) {
	needRoot(t)
	if raceBuild() {
		t.Skip("the race detector takes more memory than the workload has")
	}
	dir, _ := memoryCgroup(t, 64<<20)
	w := start(t, within(dir, brokered(probe("hog"))))
	w.expect("ready")
	killed := 0
	for range 3 {
		pid := w.process("worker")
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("1000"), 0); err != nil {
			t.Fatal(err)
		}
		// The kernel kills whoever has most, when there is no more: here the worker, and
		// then the eater. While that gives its memory back, it may kill others, for which
		// there are some.
		for range 4 {
			other := within(dir, exec.Command("sleep", "1000"))
			if err := other.Start(); err != nil {
				t.Fatal(err)
			}
			defer other.Wait()
			defer other.Process.Kill()
			if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", other.Process.Pid), []byte("600"), 0); err != nil {
				t.Fatal(err)
			}
		}
		w.say("eat")
		w.expect("ready")
		if syscall.Kill(pid, 0) != nil {
			killed++
		}
	}
	if killed == 0 {
		t.Error("no worker was killed: nothing was tested")
	}
	w.end(false)
	if w.err != nil {
		t.Errorf("%v\n%s", w.err, w.stderr.String())
	}
}

func init() {
	// hog has a child that takes all memory, until it is killed, and then makes calls.
	probes["hog"] = func() {
		for {
			ask("ready")
			c := exec.Command("/proc/self/exe")
			c.Env = append(os.Environ(), probeEnv+"=eat")
			if err := c.Start(); err != nil {
				fail("%v", err)
			}
			c.Wait()
			if err := someMaps(10); err != nil {
				fail("%v", err)
			}
		}
	}
	probes["eat"] = func() {
		// In one call: a program that goes on needs its own pages, which the kernel takes
		// away for what it eats, and there may be no end to that.
		if _, err := unix.Mmap(-1, 0, 256<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE); err != nil {
			fail("%v", err)
		}
		time.Sleep(time.Hour)
	}
}

func init() {
	// objget opens pins, each by its path.
	probes["objget"] = func() {
		s := &script{ids: map[string]string{}}
		for _, path := range os.Args[1:] {
			fd := s.do("get", abi.ObjGet, f{"pathname": path})
			fmt.Println(fd >= 0)
		}
	}
}

// What others have pinned can't be reached through the links that proc has of
// their processes, although we, who look the path up, could follow them; nor by
// mounting one process's directory over another's. The pins are open to all.
func TestLinksOfOthers(t *testing.T) {
	needRoot(t)
	const pin = `bpftool map create "$0"/m type array key 4 value 4 entries 1 name others && chmod 0777 "$0" && chmod 0666 "$0"/m && echo $$ && exec cat`
	victims := map[string]*exec.Cmd{
		"host": exec.Command("unshare", "--mount", "sh", "-c", `mount -t bpf -o mode=0777 bpf /mnt && set -- && `+strings.ReplaceAll(pin, `"$0"`, "/mnt")),
		"workload with the same ids": exec.Command(broker, "run", "--policy=trusted", "--",
			"sh", "-c", strings.ReplaceAll(pin, `"$0"`, "/sys/fs/bpf")),
		"workload with other ids": exec.Command(broker, "run", "--policy=trusted", "--user-map=0:300000:65536", "--",
			"sh", "-c", strings.ReplaceAll(pin, `"$0"`, "/sys/fs/bpf")),
	}
	for name, victim := range victims {
		t.Run(name, func(t *testing.T) {
			victim.Dir = "/"
			v := start(t, victim)
			defer v.end(true)
			pid, err := strconv.Atoi(v.hear())
			if err != nil {
				t.Fatal(err)
			}
			where := "/sys/fs/bpf/m"
			if name == "host" {
				where = "/mnt/m"
			}
			// $0 is the probe, $1 the victim.
			const attack = `
"$0" /proc/$1/root` + "WHERE" + ` /proc/$1/cwd/../` + "WHERE" + ` /proc/$1/task/$1/root` + "WHERE" + `
sleep 60 & own=$!
mount --bind /proc/$1 /proc/$own || echo no mount
"$0" /proc/$own/root` + "WHERE" + `
umount /proc/$own
mount --bind /proc/$own/status /proc/$1/status || echo no mount
mount --bind /proc/$own/ns /proc/$1/ns 2>/dev/null || true
"$0" /proc/$1/root` + "WHERE" + ` /proc/self/../$1/root` + "WHERE" + `
kill $own`
			c := probe("objget")
			self := c.Path
			c.Path, _ = exec.LookPath("sh")
			c.Args = []string{"sh", "-c", strings.ReplaceAll(attack, "WHERE", where), self, strconv.Itoa(pid)}
			if got, want := output(t, brokered(c)), strings.Repeat("false\n", 6); got != want {
				t.Errorf("opened:\n%s", got)
			}
		})
	}
}

// Through links of its own processes a workload comes to what is its own.
func TestLinksOfOwn(t *testing.T) {
	needRoot(t)
	const ways = `
bpftool map create /sys/fs/bpf/m type array key 4 value 4 entries 1 name own
sleep 60 & child=$!
"$0" /proc/self/root/sys/fs/bpf/m /proc/$$/root/sys/fs/bpf/m /proc/$child/root/sys/fs/bpf/m /proc/1/root/sys/fs/bpf/m
kill $child`
	c := probe("objget")
	self := c.Path
	c.Path, _ = exec.LookPath("sh")
	c.Args = []string{"sh", "-c", ways, self}
	if got, want := output(t, brokered(c, "--pid=private")), "true\ntrue\ntrue\ntrue\n"; got != want {
		t.Errorf("opened:\n%s", got)
	}
}
