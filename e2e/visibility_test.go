package e2e

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// What a workload sees of objects that aren't its own: nothing, in lists and in what the
// kernel says of objects, whatever its policy allows.

// TestOthersHidden attaches programs beside a workload's, and hands it fds of objects of
// the host's, of which it asks what they are made of.
func TestOthersHidden(t *testing.T) {
	needRoot(t)
	const event, egress, multi = 8, 1, 2
	tracefs := t.TempDir()
	if err := unix.Mount("tracefs", tracefs, "tracefs", unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(tracefs, 0); err != nil {
			t.Error(err)
		}
	})
	for _, kind := range kinds(t) {
		must := func(fd int, e sys.Errno) int {
			t.Helper()
			if e != 0 {
				t.Fatal(e)
			}
			return fd
		}
		// A program of the host's with a map, at a tracepoint.
		m := must(bpf(cmdMapCreate, new(attr).u32(0, 2).u32(4, 4).u32(8, 8).u32(12, 1), 20))
		traced := must(load(uint32(progType("tracepoint")), "hidden", prog(insn(0x18, 1, 1, 0, int32(m)), insn(0, 0, 0, 0, 0), movR0(0), exit), 0, nil))
		point, err := os.ReadFile(tracefs + "/events/syscalls/sys_enter_getpid/id")
		if err != nil {
			t.Fatal(err)
		}
		id, err := strconv.Atoi(strings.TrimSpace(string(point)))
		if err != nil {
			t.Fatal(err)
		}
		ev, err := unix.PerfEventOpen(&unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Size: unix.PERF_ATTR_SIZE_VER1, Config: uint64(id)}, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.IoctlSetInt(ev, unix.PERF_EVENT_IOC_SET_BPF, traced); err != nil {
			t.Fatal(err)
		}
		c := brokered(probe("others"), "--worker="+kind)
		c.Env = append(c.Env, fmt.Sprint("OTHERS_POINT=", id))
		c.ExtraFiles = []*os.File{os.NewFile(uintptr(traced), "program"), os.NewFile(uintptr(ev), "event")}
		s := start(t, c)
		s.expect("ready")

		// One of the host's at the workload's cgroup, before and after the workload's own.
		dir, err := unix.Open(filepath.Join(cgroupMount(t), workloadCgroup(t, s)), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		host := make([]int, 2)
		attach := func(i int) {
			host[i] = must(loadFor(event, egress, "hidden", returns(1)))
			must(bpf(cmdProgAttach, new(attr).u32(0, uint32(dir)).u32(4, uint32(host[i])).u32(8, egress).u32(12, multi), 16))
		}
		attach(0)
		s.say("attach yours")
		s.expect("attached")
		attach(1)
		s.say("what is there?")
		for {
			line := s.hear()
			if line == "end" {
				break
			}
			t.Errorf("%s: %s", kind, line)
		}
		s.say("")
		s.end(true)
		for _, fd := range append(host, dir, m) {
			unix.Close(fd)
		}
		c.ExtraFiles[0].Close()
		c.ExtraFiles[1].Close()
	}
}

// workloadCgroup is the path of the session's own cgroup, as the host has it.
func workloadCgroup(t *testing.T, s *session) string {
	t.Helper()
	s.process("worker")
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", child(t, s)))
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(l), "0::"); ok {
			return path
		}
	}
	t.Fatal("no cgroup of v2")
	return ""
}

// child is the probe's process: run's child that isn't the daemon.
func child(t *testing.T, s *session) int {
	t.Helper()
	tasks, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", s.cmd.Process.Pid, s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range strings.Fields(string(tasks)) {
		exe, _ := os.Readlink("/proc/" + f + "/exe")
		if filepath.Base(exe) == "probe" {
			pid, _ := strconv.Atoi(f)
			return pid
		}
	}
	all, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range all {
		b, _ := os.ReadFile(file)
		dir := filepath.Dir(file)
		exe, _ := os.Readlink(dir + "/exe")
		if strings.Contains(string(b), "=others\x00") && filepath.Base(exe) == "probe" {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			return pid
		}
	}
	t.Fatal("the probe isn't found")
	return 0
}

func init() {
	probes["others"] = func() {
		const (
			event, egress, multi = 8, 1, 2
			program, perfEvent   = 3, 4 // the fds that it was given
			cmdTaskFDQuery       = 20
			effective            = 1
		)
		ask("ready")
		must := func(fd int, e sys.Errno) int {
			if e != 0 {
				fail("set up: %v", e)
			}
			return fd
		}
		cgroup, err := unix.Open("/sys/fs/cgroup", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			fail("%v", err)
		}
		idOf := func(fd int) uint32 {
			b, e := info(fd)
			if e != 0 {
				fail("info: %v", e)
			}
			return binary.NativeEndian.Uint32(b[4:])
		}
		own := must(loadFor(event, egress, "own", returns(1)))
		must(bpf(cmdProgAttach, new(attr).u32(0, uint32(cgroup)).u32(4, uint32(own)).u32(8, egress).u32(12, multi), 16))
		ask("attached")

		// Of three programs the workload sees its own, by what room ever it asks.
		for _, flags := range []uint32{0, effective} {
			for _, room := range []uint32{0, 1, 2, 8} {
				ids := make([]byte, 4*8)
				a := new(attr).u32(0, uint32(cgroup)).u32(4, egress).u32(8, flags).u32(24, room)
				if room > 0 {
					a.u64(16, sys.Addr(ids))
				}
				_, e := bpf(cmdProgQuery, a, 32, ids)
				n := binary.NativeEndian.Uint32(a[24:])
				want := make([]byte, len(ids))
				if room > 0 {
					binary.NativeEndian.PutUint32(want, idOf(own))
				}
				if e != 0 || n != 1 || !slices.Equal(ids, want) {
					fmt.Printf("query, flags %d, room for %d: %v, %d programs, % x\n", flags, room, e, n, ids)
				}
			}
		}
		second := must(loadFor(event, egress, "own2", returns(1)))
		must(bpf(cmdProgAttach, new(attr).u32(0, uint32(cgroup)).u32(4, uint32(second)).u32(8, egress).u32(12, multi), 16))
		ids := make([]byte, 4)
		a := new(attr).u32(0, uint32(cgroup)).u32(4, egress).u64(16, sys.Addr(ids)).u32(24, 1)
		if _, e := bpf(cmdProgQuery, a, 32, ids); e != sys.ENOSPC || binary.NativeEndian.Uint32(a[24:]) != 2 || binary.NativeEndian.Uint32(ids) != idOf(own) {
			fmt.Printf("query, two and room for one: %v, %d, % x\n", e, a[24], ids)
		}

		// The event's program, by the event, and by those of the tracepoint.
		q := new(attr).u32(0, uint32(os.Getpid())).u32(4, perfEvent)
		if _, e := bpf(cmdTaskFDQuery, q, 48); e != sys.ENOENT || slices.Max(q[8:]) != 0 {
			fmt.Printf("query of the host's event: %v, % x\n", e, q[:48])
		}
		query := make([]byte, 8+4*8)
		binary.NativeEndian.PutUint32(query, 8)
		_, _, e := unix.Syscall(unix.SYS_IOCTL, perfEvent, unix.PERF_EVENT_IOC_QUERY_BPF, uintptr(sys.Addr(query)))
		if e != 0 || binary.NativeEndian.Uint32(query[4:]) != 0 || slices.Max(query[8:]) != 0 {
			fmt.Printf("query of the tracepoint: %v, % x\n", syscall.Errno(e), query)
		}
		// What the host's program is made of.
		b := make([]byte, 232)
		maps := make([]byte, 4)
		binary.NativeEndian.PutUint32(b[52:], 1)
		binary.NativeEndian.PutUint64(b[56:], sys.Addr(maps))
		if _, e := bpf(cmdObjInfo, new(attr).u32(0, program).u32(4, uint32(len(b))).u64(8, sys.Addr(b)), 16, b, maps); e != 0 ||
			binary.NativeEndian.Uint32(b[52:]) != 1 || slices.Max(maps) != 0 {
			fmt.Printf("info of the host's program: %v, %d maps, % x\n", e, binary.NativeEndian.Uint32(b[52:]), maps)
		}
		// And of its own, all.
		m := must(bpf(cmdMapCreate, new(attr).u32(0, 2).u32(4, 4).u32(8, 8).u32(12, 1), 20))
		p := must(load(progTypeSocket, "own", prog(insn(0x18, 1, 1, 0, int32(m)), insn(0, 0, 0, 0, 0), movR0(0), exit), 0, nil))
		clear(b)
		binary.NativeEndian.PutUint32(b[52:], 1)
		binary.NativeEndian.PutUint64(b[56:], sys.Addr(maps))
		if _, e := bpf(cmdObjInfo, new(attr).u32(0, uint32(p)).u32(4, uint32(len(b))).u64(8, sys.Addr(b)), 16, b, maps); e != 0 || binary.NativeEndian.Uint32(maps) != idOf(m) {
			fmt.Printf("info of its own program: %v, % x\n", e, maps)
		}
		ask("end")
	}
}

// TestPinsOpened: a tool finds what it has pinned, under a policy that speaks of what is
// its own; and what isn't there it hears of as from the kernel.
func TestPinsOpened(t *testing.T) {
	needRoot(t)
	for _, kind := range kinds(t) {
		denied, ok, out := under(t, "observe", kind, probe("pins-opened"))
		if !ok || out != "ok\n" || len(denied) != 1 || !strings.Contains(denied[0], "no such file or directory") {
			t.Errorf("%s: %v, denied %q: %s", kind, ok, denied, out)
		}
	}
}

func init() {
	probes["pins-opened"] = okay(func() error {
		m, e := bpf(cmdMapCreate, new(attr).u32(0, 2).u32(4, 4).u32(8, 8).u32(12, 1), 20)
		if e != 0 {
			return e
		}
		path := []byte("/sys/fs/bpf/mine\x00")
		if _, e := bpf(cmdObjPin, new(attr).u64(0, sys.Addr(path)).u32(8, uint32(m)), 16, path); e != 0 {
			return fmt.Errorf("pin: %w", e)
		}
		if _, e := bpf(cmdObjGet, new(attr).u64(0, sys.Addr(path)), 16, path); e != 0 {
			return fmt.Errorf("open: %w", e)
		}
		none := []byte("/sys/fs/bpf/none\x00")
		if _, e := bpf(cmdObjGet, new(attr).u64(0, sys.Addr(none)), 16, none); e != sys.ENOENT {
			return fmt.Errorf("open what isn't there: %v", e)
		}
		return nil
	})
}
