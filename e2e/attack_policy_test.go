package e2e

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// What the built-in policies claim not to allow, as programs try it that know how. Each
// attempt works natively as root, so that it isn't refused for another reason.

// attempt is one of them.
type attempt struct {
	name string
	// private: natively and brokered it is made in a network namespace of its own.
	private bool
	// under says by which policies it is denied, and with which words.
	under map[string]string
	try   func(v *given) (int, sys.Errno)
}

// given is what an attempt gets from outside.
type given struct {
	// Fds of the host's: a program of type raw_tracepoint, one of cgroup_device, a map, a
	// cgroup that is none of the workload's, a directory in which a map is pinned, the
	// host's network namespace.
	Raw, Device, Map, Cgroup, Pins, NetNS int
	// Ids of the program and the map; of the kernel's function bpf_rdonly_cast, and its
	// struct task_struct.
	ProgID, MapID, Kfunc, Struct int
}

const (
	helperProbeRead      = 113 // bpf_probe_read_kernel
	helperSendSignal     = 109 // bpf_send_signal
	typeKprobe           = 2
	typeTracepoint       = 5
	typeXDP              = 6
	typeCgroupDevice     = 15
	typeRawTP            = 17
	typeRawTPWritable    = 24
	typeTracing          = 26
	typeStructOps        = 27
	typeExt              = 28
	attachCgroupDevice   = 6
	attachFlowDissector  = 17
	attachIter           = 28
	attachXDPLink        = 37
	attachCgroupSkb      = 0
	mapStructOps         = 26
	mapProgArray         = 3
	mapArrayOfMaps       = 12
	mapUserRingbuf       = 31
	mapArena             = 33
	flagPathFD           = 1 << 14
	flagTokenFD          = 1 << 16
	flagMulti            = 2
	flagSleepable        = 1 << 4
	liveFrames           = 1 << 1
	cmdTestRun           = 10
	pseudoCall, kfunc    = 1, 2
	opCall, opMov, opAdd = 0x85, 0xbf, 0x07
)

// reads calls bpf_probe_read_kernel(fp-8, 8, fp).
var reads = prog(insn(opMov, 1, 10, 0, 0), insn(opAdd, 1, 0, 0, -8), insn(0xb7, 2, 0, 0, 8), insn(opMov, 3, 10, 0, 0), insn(opCall, 0, 0, 0, helperProbeRead), movR0(0), exit)

// inSubprogram is a program that calls another function, which is that code.
func inSubprogram(code []byte) []byte {
	return prog(insn(opCall, 0, pseudoCall, 0, 2), movR0(0), exit, code)
}

// attempts are in the order of the issue that asks for them.
var attempts = []attempt{
	{name: "a helper in a subprogram", under: map[string]string{"observe": `prog.helpers has "bpf_probe_read_kernel"`, "container-devices": "prog.type", "network": "prog.type"},
		try: func(*given) (int, sys.Errno) { return load(typeTracepoint, "a", inSubprogram(reads), 0, nil) }},
	{name: "a helper where no instruction comes", under: map[string]string{"observe": `prog.helpers has "bpf_probe_read_kernel"`},
		try: func(*given) (int, sys.Errno) {
			// if r1 == 0 goto over it, which the verifier knows never to be: dead code is
			// code that may call what it likes only as long as nobody is fooled by it.
			return load(typeTracepoint, "a", prog(movR0(0), insn(0x55, 1, 0, 6, 0), reads), 0, nil)
		}},
	{name: "a helper that does something to others", under: map[string]string{"observe": `prog.helpers has "bpf_send_signal"`},
		try: func(*given) (int, sys.Errno) {
			return load(typeTracepoint, "a", prog(insn(0xb7, 1, 0, 0, 10), insn(opCall, 0, 0, 0, helperSendSignal), movR0(0), exit), 0, nil)
		}},
	{name: "a kernel function", under: map[string]string{"observe": `prog.kfuncs has "bpf_rdonly_cast"`},
		try: func(v *given) (int, sys.Errno) { return load(typeTracepoint, "a", casts(v, 0), 0, nil) }},
	{name: "a kernel function in a subprogram", under: map[string]string{"observe": `prog.kfuncs has "bpf_rdonly_cast"`},
		try: func(v *given) (int, sys.Errno) { return load(typeTracepoint, "a", inSubprogram(casts(v, 0)), 0, nil) }},
	{name: "a map by its id", under: map[string]string{"observe": "object.own is false", "network": "object.own is false", "container-devices": "map_get_fd_by_id"},
		try: func(v *given) (int, sys.Errno) { return bpf(cmdMapByID, new(attr).u32(0, uint32(v.MapID)), 12) }},
	{name: "a program by its id", under: map[string]string{"observe": "object.own is false", "network": "object.own is false", "container-devices": "object.own is false"},
		try: func(v *given) (int, sys.Errno) { return bpf(cmdProgByID, new(attr).u32(0, uint32(v.ProgID)), 12) }},
	{name: "a pin", under: map[string]string{"observe": "object.own is false", "network": "object.own is false", "container-devices": "object.own is false"},
		try: func(v *given) (int, sys.Errno) {
			path := []byte("theirs\x00")
			return bpf(cmdObjGet, new(attr).u64(0, sys.Addr(path)).u32(12, flagPathFD).u32(16, uint32(v.Pins)), 20, path)
		}},
	{name: "an inner map", under: map[string]string{"observe": `map.type is "array_of_maps"`, "container-devices": "no rule is for \"map_create\""},
		try: func(v *given) (int, sys.Errno) {
			return bpf(cmdMapCreate, new(attr).u32(0, mapArrayOfMaps).u32(4, 4).u32(8, 4).u32(12, 1).u32(20, uint32(v.Map)), 48)
		}},
	{name: "a map in a prog_array", under: map[string]string{"observe": `map.type is "prog_array"`, "container-devices": "no rule is for \"map_create\""},
		try: func(v *given) (int, sys.Errno) {
			return bpf(cmdMapCreate, new(attr).u32(0, mapProgArray).u32(4, 4).u32(8, 4).u32(12, 1), 48)
		}},
	{name: "another's program at a tracepoint", under: map[string]string{"observe": "attach.prog_own is false", "network": "raw_tracepoint_open", "container-devices": "raw_tracepoint_open"},
		try: func(v *given) (int, sys.Errno) {
			point := []byte("sys_enter\x00")
			return bpf(cmdRawTracepoint, new(attr).u64(0, sys.Addr(point)).u32(8, uint32(v.Raw)), 16, point)
		}},
	{name: "another's device filter at its own cgroup", under: map[string]string{"container-devices": "attach.prog_own is false", "network": "attach.type", "observe": "no rule is for \"prog_attach\""},
		try: func(v *given) (int, sys.Errno) {
			own, err := unix.Open("/sys/fs/cgroup", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				fail("open cgroup: %v", err)
			}
			if os.Getenv("ATTEMPT_NATIVE") != "" {
				own = v.Cgroup
			}
			return attachOnce(own, v.Device, flagMulti)
		}},
	{name: "a device filter at a cgroup by a passed fd", under: map[string]string{"container-devices": "attach.cgroup_inside is false"},
		try: func(v *given) (int, sys.Errno) {
			fd, e := loadFor(typeCgroupDevice, attachCgroupDevice, "d", returns(1))
			if e != 0 {
				fail("load: %v", e)
			}
			return attachOnce(v.Cgroup, fd, flagMulti)
		}},
	{name: "a packet filter at a cgroup by a passed fd", under: map[string]string{"network": "attach.cgroup_inside is false"},
		try: func(v *given) (int, sys.Errno) {
			fd, e := loadFor(8, attachCgroupSkb, "s", returns(1))
			if e != 0 {
				fail("load: %v", e)
			}
			return bpf(cmdLinkCreate, new(attr).u32(0, uint32(fd)).u32(4, uint32(v.Cgroup)).u32(8, attachCgroupSkb), 64)
		}},
	{name: "a device filter in the place of those that are there", under: map[string]string{"container-devices": `attach.flags`},
		try: func(v *given) (int, sys.Errno) {
			fd, e := loadFor(typeCgroupDevice, attachCgroupDevice, "d", returns(1))
			if e != 0 {
				fail("load: %v", e)
			}
			own, err := unix.Open("/sys/fs/cgroup", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				fail("open cgroup: %v", err)
			}
			if os.Getenv("ATTEMPT_NATIVE") != "" {
				own = v.Cgroup
			}
			return attachOnce(own, fd, 0)
		}},
	{name: "XDP in the host's network", under: map[string]string{"network": "programs that send packets are for a network namespace of the command's own", "observe": `prog.type is "xdp"`, "container-devices": "prog.type"},
		try: func(v *given) (int, sys.Errno) { return loadFor(typeXDP, attachXDPLink, "x", returns(2)) }},
	{name: "live frames in the host's network", under: map[string]string{"network": "programs that send packets are for a network namespace of the command's own"},
		try: func(v *given) (int, sys.Errno) {
			fd, e := load(typeXDP, "x", returns(3), 0, nil) // XDP_TX
			if e != 0 {
				return fd, e
			}
			frame := make([]byte, 64)
			return bpf(cmdTestRun, new(attr).u32(0, uint32(fd)).u32(8, uint32(len(frame))).u64(16, sys.Addr(frame)).u32(32, 1).u32(64, liveFrames), 80, frame)
		}},
	{name: "a flow dissector of the host's network", private: true, under: map[string]string{"network": "attach.netns_own is false"},
		try: func(v *given) (int, sys.Errno) {
			fd, e := loadFor(22, attachFlowDissector, "f", returns(0))
			if e != 0 {
				fail("load: %v", e)
			}
			return bpf(cmdLinkCreate, new(attr).u32(0, uint32(fd)).u32(4, uint32(v.NetNS)).u32(8, attachFlowDissector), 64)
		}},
	{name: "an iterator over maps", under: map[string]string{"observe": `prog.type is "tracing"`, "network": "prog.type", "container-devices": "prog.type"},
		try: func(v *given) (int, sys.Errno) {
			return loadIter(v, "bpf_iter_bpf_map")
		}},
	{name: "an iterator over programs", under: map[string]string{"observe": `prog.type is "tracing"`, "network": "prog.type", "container-devices": "prog.type"},
		try: func(v *given) (int, sys.Errno) { return loadIter(v, "bpf_iter_bpf_prog") }},
	{name: "an iterator over links", under: map[string]string{"observe": `prog.type is "tracing"`, "network": "prog.type", "container-devices": "prog.type"},
		try: func(v *given) (int, sys.Errno) { return loadIter(v, "bpf_iter_bpf_link") }},
	{name: "a program of type syscall", under: map[string]string{"observe": `prog.type is "syscall"`, "network": "prog.type", "container-devices": "prog.type"},
		try: func(v *given) (int, sys.Errno) {
			a := new(attr).u32(0, progTypeSyscall).u32(4, uint32(len(ret0)/8)).u64(8, sys.Addr(ret0)).u64(16, sys.Addr(gpl)).u32(44, flagSleepable)
			return bpf(cmdProgLoad, a, 72, ret0)
		}},
	{name: "a sleepable program", under: map[string]string{"observe": "prog.sleepable is true"},
		try: func(v *given) (int, sys.Errno) {
			a := new(attr).u32(0, typeKprobe).u32(4, uint32(len(ret0)/8)).u64(8, sys.Addr(ret0)).u64(16, sys.Addr(gpl)).u32(44, flagSleepable)
			return bpf(cmdProgLoad, a, 72, ret0)
		}},
	{name: "a program that writes at tracepoints", under: map[string]string{"observe": `prog.type is "raw_tracepoint_writable"`},
		try: func(v *given) (int, sys.Errno) { return load(typeRawTPWritable, "w", returns(0), 0, nil) }},
	{name: "an arena", under: map[string]string{"observe": `map.type is "arena"`, "network": `map.type is "arena"`},
		try: func(v *given) (int, sys.Errno) {
			return bpf(cmdMapCreate, new(attr).u32(0, mapArena).u32(12, 1).u32(16, 1<<10), 72)
		}},
	{name: "a user_ringbuf", under: map[string]string{"observe": `map.type is "user_ringbuf"`, "network": `map.type is "user_ringbuf"`},
		try: func(v *given) (int, sys.Errno) {
			return bpf(cmdMapCreate, new(attr).u32(0, mapUserRingbuf).u32(12, 4096), 72)
		}},
	{name: "events of a shared file, of all processes", under: map[string]string{"observe": "perf_event.file_shared is true"},
		try: func(v *given) (int, sys.Errno) { return openUprobe("/proc/self/exe") }},
}

// attachOnce attaches a device filter to a cgroup, and where that works detaches it: the
// cgroup is there for others, too.
func attachOnce(cgroup, prog int, flags uint32) (int, sys.Errno) {
	a := new(attr).u32(0, uint32(cgroup)).u32(4, uint32(prog)).u32(8, attachCgroupDevice).u32(12, flags)
	n, e := bpf(cmdProgAttach, a, 16)
	if e == 0 {
		bpf(cmdProgDetach, new(attr).u32(0, uint32(cgroup)).u32(4, uint32(prog)).u32(8, attachCgroupDevice), 16)
	}
	return n, e
}

// casts calls bpf_rdonly_cast(r1, 0), by the offset off in fd_array.
func casts(v *given, off int16) []byte {
	return prog(insn(0xb7, 2, 0, 0, int32(v.Struct)), insn(opCall, 0, kfunc, off, int32(v.Kfunc)), movR0(0), exit)
}

// loadIter loads an iterator's program: by the id of the function's type.
func loadIter(v *given, function string) (int, sys.Errno) {
	id, err := strconv.Atoi(os.Getenv("ATTEMPT_" + function))
	if err != nil {
		fail("%s: %v", function, err)
	}
	a := new(attr).u32(0, typeTracing).u32(4, uint32(len(ret0)/8)).u64(8, sys.Addr(ret0)).u64(16, sys.Addr(gpl)).u32(68, attachIter).u32(108, uint32(id))
	return bpf(cmdProgLoad, a, 128, ret0)
}

// openUprobe opens an event of a file, of every process that executes it.
func openUprobe(path string) (int, sys.Errno) {
	b, err := os.ReadFile("/sys/bus/event_source/devices/uprobe/type")
	if err != nil {
		fail("%v", err)
	}
	pmu, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		fail("%v", err)
	}
	name := append([]byte(path), 0)
	a := unix.PerfEventAttr{Type: uint32(pmu), Size: unix.PERF_ATTR_SIZE_VER1, Ext1: sys.Addr(name)}
	fd, err := unix.PerfEventOpen(&a, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
	runtime.KeepAlive(name)
	if err != nil {
		return -1, err.(syscall.Errno)
	}
	return fd, 0
}

// TestBuiltinClaims makes each attempt natively, under trusted, and under the policies that
// deny it.
func TestBuiltinClaims(t *testing.T) {
	needRoot(t)
	files, env := victimsOfPolicies(t)
	run := func(a *attempt, c *exec.Cmd) *exec.Cmd {
		c.Env = append(append(c.Env, env...), "ATTEMPT="+a.name)
		c.ExtraFiles = files
		return c
	}
	for i := range attempts {
		a := &attempts[i]
		native := run(a, probe("attempt"))
		native.Env = append(native.Env, "ATTEMPT_NATIVE=yes")
		if a.private {
			native.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
		}
		if out := output(t, native); out != "0\n" {
			t.Errorf("%s: natively it doesn't work, so this tells nothing: %s", a.name, out)
			continue
		}
		var flags []string
		if a.private {
			flags = append(flags, "--net=private")
		}
		for policy, reason := range a.under {
			for _, kind := range kinds(t) {
				denied, _, out := under(t, policy, kind, run(a, probe("attempt")), flags...)
				if out != "EPERM\n" || len(denied) == 0 || !strings.Contains(denied[len(denied)-1], reason) {
					t.Errorf("%s, under %s, %s: %q, denied %q, wanted %q", a.name, policy, kind, out, denied, reason)
				}
			}
		}
	}
}

// victimsOfPolicies makes what the attempts are about: fds for the probe, and what it has to
// know.
func victimsOfPolicies(t *testing.T) (files []*os.File, env []string) {
	t.Helper()
	const first = 3 // fd of the first of ExtraFiles
	must := func(fd int, e sys.Errno) int {
		if e != 0 {
			t.Fatal(e)
		}
		return fd
	}
	give := func(name string, fd int) {
		files = append(files, os.NewFile(uintptr(fd), name))
		env = append(env, fmt.Sprintf("ATTEMPT_%s=%d", name, first+len(files)-1))
	}
	raw := must(load(typeRawTP, "theirs", returns(0), 0, nil))
	give("Raw", raw)
	give("Device", must(loadFor(typeCgroupDevice, attachCgroupDevice, "theirs", returns(1))))
	m := must(bpf(cmdMapCreate, new(attr).u32(0, 2).u32(4, 4).u32(8, 4).u32(12, 1).name(28, "theirs"), 48))
	give("Map", m)
	cgroup := filepath.Join(cgroupMount(t), "bpfbroker-test-theirs")
	if err := os.Mkdir(cgroup, 0o755); err != nil {
		t.Fatal(err)
	}
	open := func(path string) int {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	give("Cgroup", open(cgroup))
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, "mode=0777"); err != nil {
		t.Fatal(err)
	}
	pin := append([]byte(dir), "/theirs\x00"...)
	must(bpf(cmdObjPin, new(attr).u64(0, sys.Addr(pin)).u32(8, uint32(m)), 16, pin))
	if err := os.Chmod(filepath.Join(dir, "theirs"), 0o666); err != nil {
		t.Fatal(err)
	}
	give("Pins", open(dir))
	give("NetNS", open("/proc/self/ns/net"))
	t.Cleanup(func() {
		for _, f := range files {
			f.Close()
		}
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
		if err := os.Remove(cgroup); err != nil {
			t.Error(err)
		}
	})
	id := func(fd int, what string) {
		b, e := info(fd)
		if e != 0 {
			t.Fatal(e)
		}
		env = append(env, fmt.Sprintf("ATTEMPT_%s=%d", what, binary.NativeEndian.Uint32(b[4:])))
	}
	id(raw, "ProgID")
	id(m, "MapID")
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	var task *btf.Struct
	if err := spec.TypeByName("task_struct", &task); err != nil {
		t.Fatal(err)
	}
	n, err := spec.TypeID(task)
	if err != nil {
		t.Fatal(err)
	}
	env = append(env, fmt.Sprintf("ATTEMPT_Struct=%d", n))
	for name, as := range map[string]string{"bpf_rdonly_cast": "Kfunc", "bpf_iter_bpf_map": "bpf_iter_bpf_map", "bpf_iter_bpf_prog": "bpf_iter_bpf_prog", "bpf_iter_bpf_link": "bpf_iter_bpf_link"} {
		var f *btf.Func
		if err := spec.TypeByName(name, &f); err != nil {
			t.Fatal(err)
		}
		n, err := spec.TypeID(f)
		if err != nil {
			t.Fatal(err)
		}
		env = append(env, fmt.Sprintf("ATTEMPT_%s=%d", as, n))
	}
	return files, env
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

func init() {
	probes["attempt"] = func() {
		number := func(name string) int {
			n, err := strconv.Atoi(os.Getenv("ATTEMPT_" + name))
			if err != nil {
				fail("%s: %v", name, err)
			}
			return n
		}
		v := given{Raw: number("Raw"), Device: number("Device"), Map: number("Map"), Cgroup: number("Cgroup"), Pins: number("Pins"), NetNS: number("NetNS"),
			ProgID: number("ProgID"), MapID: number("MapID"), Kfunc: number("Kfunc"), Struct: number("Struct")}
		i := slices.IndexFunc(attempts, func(a attempt) bool { return a.name == os.Getenv("ATTEMPT") })
		if i < 0 {
			fail("no such attempt")
		}
		_, e := attempts[i].try(&v)
		if e == 0 {
			fmt.Println(0)
			return
		}
		fmt.Println(unix.ErrnoName(syscall.Errno(e)))
	}
}
