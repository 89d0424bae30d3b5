package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"testing"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// theHosts are things of the host's that the attacker knows: fds that somebody has passed on
// to it, ids, and what else can be found out by looking around.
type theHosts struct {
	// Fds: a map; a map of maps with that in it; a sockmap; types; programs of type
	// sched_cls, raw_tracepoint, cgroup_device, cgroup_skb and cgroup_sock; two links that
	// attach the cgroup_skb to a cgroup; that, and another, at which the cgroup_device is;
	// the host's network namespace; the directory in which the map is pinned.
	Map, Outer, Sockmap, BTF, TC, Raw, Device, Skb, Sock, Link, Link2, Cgroup, Cgroup2, NetNS, Pins int
	// Ids of the map, of the programs of type raw_tracepoint and sched_cls, of the link, and
	// of a BTF.
	MapID, RawID, TCID, LinkID, BTFID int
	// The test's process, and a number at which it has a link to a raw tracepoint.
	PID, RawLink int
	PinsPath     string
	Types        map[string]int // ids of the kernel's types
	OpsSize      int            // of structOps
}

// given is how an attacker gets them: as its first fds, and in its environment.
type given struct {
	files []*os.File
	env   string
}

const (
	hostEnv    = "BPFBROKER_HOST"
	firstExtra = 3 // of ExtraFiles
	structOps  = "bpf_struct_ops_tcp_congestion_ops"
	hostFDs    = 15
)

// inherited are an attacker's first fds, for another.
func inherited() (files []*os.File) {
	for fd := range hostFDs {
		files = append(files, os.NewFile(firstExtra+uintptr(fd), "host"))
	}
	return files
}

// hostOf makes them.
func hostOf(t *testing.T) *given {
	t.Helper()
	defer undisturbed()()
	s := &script{ids: map[string]string{}}
	v := &theHosts{PID: os.Getpid()}
	check := func(what string, fd int) int {
		t.Helper()
		if fd < 0 {
			t.Fatalf("no %s: %s", what, s.log.String())
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	m := check("map", s.arrayMap("theirs"))
	outer := check("map of maps", s.do("outer", abi.MapCreate, f{"map_type": mapType("array_of_maps"), "key_size": 4, "value_size": 4, "max_entries": 1, "inner_map_fd": m}))
	if _, e := bpf(cmdMapUpdate, new(attr).u32(0, uint32(outer)).u64(8, sys.Addr(make([]byte, 4))).u64(16, sys.Addr(words(uint32(m)))), 32); e != 0 {
		t.Fatal(e)
	}
	raw := check("program", s.load("raw", "raw_tracepoint", ret0, nil))
	tc := check("program", s.withMain("tc", "sched_cls"))
	device := check("program", s.load("device", "cgroup_device", ret1, nil))
	skb := check("program", s.load("skb", "cgroup_skb", ret1, f{"expected_attach_type": attachType("cgroup_inet_egress")}))
	sock := check("program", s.load("sock", "cgroup_sock", ret1, f{"expected_attach_type": attachType("cgroup_inet_sock_create")}))
	cgroup, cgroup2 := newCgroup(t, "theirs"), newCgroup(t, "theirs-too")
	linked := func() int {
		return check("link", s.do("link", abi.LinkCreate, f{"prog_fd": skb, "target_fd": cgroup, "attach_type": attachType("cgroup_inet_egress")}))
	}
	link := linked()
	if s.do("attach", abi.ProgAttach, f{"target_fd": cgroup2, "attach_bpf_fd": device, "attach_type": attachType("cgroup_device")}) < 0 {
		t.Fatal(s.log.String())
	}
	types := check("btf", s.do("btf", abi.BTFLoad, f{"btf": simpleBTF, "btf_size": len(simpleBTF)}))
	v.RawLink = check("link", s.rawLink())
	v.PinsPath = filepath.Join(bin, "pins")
	if err := os.Mkdir(v.PinsPath, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("bpffs", v.PinsPath, "bpf", 0, "mode=0777"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(v.PinsPath, unix.MNT_DETACH); os.Remove(v.PinsPath) })
	if s.do("pin", abi.ObjPin, f{"bpf_fd": m, "pathname": v.PinsPath + "/theirs"}) < 0 {
		t.Fatal(s.log.String())
	}
	if err := os.Chmod(v.PinsPath+"/theirs", 0o666); err != nil {
		t.Fatal(err)
	}

	g := new(given)
	for name, fd := range map[string]int{
		"Map": m, "Outer": outer, "TC": tc, "Raw": raw, "Skb": skb, "Link": link, "Link2": linked(), "Cgroup": cgroup,
		"Sockmap": check("sockmap", s.do("sockmap", abi.MapCreate, f{"map_type": mapType("sockmap"), "key_size": 4, "value_size": 4, "max_entries": 1})),
		"Device":  device, "Sock": sock, "BTF": types, "Cgroup2": cgroup2,
		"NetNS": check("network namespace", s.openFile("/proc/self/ns/net", unix.O_RDONLY)),
		"Pins":  check("directory", s.openFile(v.PinsPath, unix.O_RDONLY|unix.O_DIRECTORY)),
	} {
		reflect.ValueOf(v).Elem().FieldByName(name).SetInt(int64(firstExtra + len(g.files)))
		file, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		g.files = append(g.files, os.NewFile(uintptr(file), name))
	}
	t.Cleanup(func() {
		for _, f := range g.files {
			f.Close()
		}
	})
	if len(g.files) != hostFDs {
		t.Fatalf("%d fds for the attacker", len(g.files))
	}
	v.MapID, v.RawID, v.TCID = int(s.idOf(m, abi.Map)), int(s.idOf(raw, abi.Prog)), int(s.idOf(tc, abi.Prog))
	v.LinkID, v.BTFID = int(s.idOf(link, abi.Link)), int(s.idOf(types, abi.BTF))
	v.kernelTypes(t, "bpf_rdonly_cast", "task_struct", structOps, "bpf_iter_bpf_map", "bpf_iter_bpf_prog", "bpf_iter_bpf_link")
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	g.env = hostEnv + "=" + string(b)
	return g
}

// undisturbed keeps signals from this goroutine, until end: one makes a load fail with
// EAGAIN, and the Go runtime sends some.
func undisturbed() (end func()) {
	runtime.LockOSThread()
	var all, before unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^uint64(0)
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &all, &before); err != nil {
		panic(err)
	}
	return func() {
		if err := unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil); err != nil {
			panic(err)
		}
		runtime.UnlockOSThread()
	}
}

// newCgroup makes one for the time of the test, and opens it.
func newCgroup(t *testing.T, name string) int {
	t.Helper()
	dir := filepath.Join(cgroupMount(t), fmt.Sprintf("bpfbroker-%s-%d", name, os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// kernelTypes finds ids of the kernel's functions and structures.
func (v *theHosts) kernelTypes(t *testing.T, names ...string) {
	t.Helper()
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	v.Types = map[string]int{}
	for _, name := range names {
		types, err := spec.AnyTypesByName(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, typ := range types {
			switch typ := typ.(type) {
			case *btf.Func:
			case *btf.Struct:
				if name == structOps {
					v.OpsSize = int(typ.Size)
				}
			default:
				continue
			}
			id, err := spec.TypeID(typ)
			if err != nil {
				t.Fatal(err)
			}
			v.Types[name] = int(id)
		}
		if v.Types[name] == 0 {
			t.Fatalf("%s is no function and no structure", name)
		}
	}
}

// cgroupMount is where the hierarchy of v2 is.
func cgroupMount(t *testing.T) string {
	t.Helper()
	mounts, err := sys.Mounts()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mounts {
		if m.Type == "cgroup2" {
			return m.Point
		}
	}
	t.Skip("no cgroup v2 is mounted")
	return ""
}
