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

	"github.com/cilium/ebpf/btf"

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

// A map's memory is charged to the cgroup that the workload is in.
func TestMemoryCharged(t *testing.T) {
	needRoot(t)
	root, usage := memoryCgroups()
	if root == "" {
		t.Skip("no memory controller is mounted at /sys/fs/cgroup or /sys/fs/cgroup/memory")
	}
	dir := filepath.Join(root, fmt.Sprintf("e2e-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	defer eventually(t, "the memory cgroup can be removed", func() bool { return os.Remove(dir) == nil })
	used := func() int64 {
		b, err := os.ReadFile(filepath.Join(dir, usage))
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	// With 64 MiB more, all that the two runs differ in.
	measure := func(size int) int64 {
		c := brokered(probe("charge", strconv.Itoa(size)))
		c.Args = append([]string{"sh", "-c", `echo $$ >"$0"/cgroup.procs && exec "$@"`, dir, c.Path}, c.Args[1:]...)
		c.Path, _ = exec.LookPath("sh")
		w := start(t, c)
		if line := w.hear(); !strings.HasPrefix(line, "map ") || strings.HasPrefix(line, "map -") {
			t.Errorf("the workload said %q", line)
		}
		got := used()
		w.end(true)
		return got
	}
	const size = 64 << 20
	small, large := measure(4096), measure(size)
	if diff := large - small; diff < size*9/10 {
		t.Errorf("a map of %d MiB was charged with %d KiB", size>>20, diff>>10)
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
