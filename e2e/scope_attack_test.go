package e2e

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// Ways round a scope, and what has none.

// seen reads the only value of a map.
func seen(m *ebpf.Map) uint64 {
	var n uint64
	if err := m.Lookup(uint32(0), &n); err != nil {
		fail("%v", err)
	}
	return n
}

func countMap() *ebpf.Map {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		fail("%v", err)
	}
	return m
}

func init() {
	// Runs a program on a CPU where no task of the workload's runs.
	probes["scope-cpu"] = func() {
		m := countMap()
		p, err := ebpf.NewProgram(counter(ebpf.RawTracepoint, m))
		if err != nil {
			fail("%v", err)
		}
		for range 100 {
			if _, err := p.Run(&ebpf.RunOptions{Context: make([]byte, 16), CPU: 1, Flags: 1}); err != nil { // BPF_F_TEST_RUN_ON_CPU
				fail("%v", err)
			}
		}
		fmt.Println(seen(m))
	}
	// Opens events of all tasks, without any program, and says what they have counted.
	probes["scope-events"] = func() {
		id, err := strconv.ParseUint(os.Args[1], 10, 64)
		if err != nil {
			fail("%v", err)
		}
		var events []int
		err = onEachCPU(unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: id, Sample: 1, Sample_type: unix.PERF_SAMPLE_RAW | unix.PERF_SAMPLE_TID}, func(event int) error {
			events = append(events, event)
			return nil
		})
		if err != nil {
			fail("%v", err)
		}
		for said := ask("open"); ; {
			if said == "busy" {
				act()
			}
			sum := uint64(0)
			for _, fd := range events {
				b := make([]byte, 8)
				if _, err := unix.Read(fd, b); err != nil {
					fail("%v", err)
				}
				sum += binary.NativeEndian.Uint64(b)
			}
			said = ask(strconv.FormatUint(sum, 10))
		}
	}
	// Tries to load a program of a type, and says what the log says.
	probes["scope-refused"] = func() {
		typ, _ := strconv.Atoi(os.Args[1])
		attach, _ := strconv.Atoi(os.Args[2])
		_, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.ProgramType(typ), AttachType: ebpf.AttachType(attach), License: "GPL",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
		fmt.Printf("%+v\n", err)
	}
	// Opens an event of a cgroup that it names.
	probes["scope-cgroup"] = func() {
		fd, err := unix.Open("/sys/fs/cgroup", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			fail("%v", err)
		}
		const byCgroup = 1 << 2 // PERF_FLAG_PID_CGROUP
		_, err = unix.PerfEventOpen(&unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Size: unix.PERF_ATTR_SIZE_VER5}, fd, 0, -1, byCgroup)
		fmt.Println(err)
	}
	// Counts its own system calls, and is moved meanwhile.
	probes["scope-moves"] = func() {
		m := countMap()
		if err := tracers["raw_tracepoint"].attach(m); err != nil {
			fail("%v", err)
		}
		for said := ask("attached " + strconv.Itoa(os.Getpid())); ; {
			before := seen(m)
			if said == "down" {
				dir := "/sys/fs/cgroup/below"
				if err := os.MkdirAll(dir, 0o755); err != nil {
					fail("%v", err)
				}
				if err := os.WriteFile(dir+"/cgroup.procs", []byte("0"), 0); err != nil {
					fail("%v", err)
				}
			}
			act()
			said = ask(strconv.FormatUint(seen(m)-before, 10))
		}
	}
}

// withPolicy starts a probe under a policy.
func withPolicy(t *testing.T, policy, kind, name string, args ...string) *session {
	t.Helper()
	return start(t, brokeredBy(policy, probe(name, args...), "--quiet", "--worker="+kind))
}

func TestScopeAttacks(t *testing.T) {
	needRoot(t)
	file := policyFile(t, scoped)
	for _, kind := range kinds(t) {
		run := func(policy, name string, args ...string) string {
			return strings.TrimSpace(output(t, brokeredBy(policy, probe(name, args...), "--quiet", "--worker="+kind)))
		}
		// A test run on a CPU with another's task, or none.
		onCPU0 := func(policy string) string {
			c := brokeredBy(policy, probe("scope-cpu"), "--quiet", "--worker="+kind)
			at := slices.Index(c.Args, "--")
			c.Args = slices.Insert(c.Args, at+1, "taskset", "1")
			return strings.TrimSpace(output(t, c))
		}
		if want, got := onCPU0("trusted"), onCPU0(file); want != "100" || got != "0" {
			t.Errorf("%s: run on another CPU: it ran %s times, and %s with a scope", kind, want, got)
		}
		// Events that nobody has attached a program to.
		id := strconv.FormatUint(tracepointID(t, "syscalls/sys_enter_getppid"), 10)
		foreign := start(t, probe("busy"))
		foreign.expect("ready")
		s := withPolicy(t, file, kind, "scope-events", id)
		s.expect("open")
		foreign.say("busy")
		foreign.expect("ready")
		s.say("count")
		if got := s.hear(); got != "0" {
			t.Errorf("%s: an event has counted %s of others", kind, got)
		}
		s.say("busy")
		if got := s.hear(); got != strconv.Itoa(touches) {
			t.Errorf("%s: an event has counted %s of its own", kind, got)
		}
		s.end(true)
		foreign.end(true)
		if got := run(file, "scope-cgroup"); got != "operation not permitted" {
			t.Errorf("%s: an event of a cgroup: %s", kind, got)
		}
		// Programs that no guard fits.
		for what, c := range map[string]struct {
			typ    ebpf.ProgramType
			attach ebpf.AttachType
			why    string
		}{
			"tc":         {ebpf.SchedCLS, 0, "don't run for a task"},
			"XDP":        {ebpf.XDP, ebpf.AttachXDP, "don't run for a task"},
			"a cgroup's": {ebpf.CGroupSKB, 0, "don't run for a task"},
			"syscall":    {ebpf.Syscall, 0, "act for whoever runs them"},
			"writes":     {ebpf.RawTracepointWritable, 0, "change what others pass"},
		} {
			if got := run(file, "scope-refused", strconv.Itoa(int(c.typ)), strconv.Itoa(int(c.attach))); !strings.Contains(got, "scope: workload, which isn't possible") || !strings.Contains(got, c.why) {
				t.Errorf("%s: a program of type %s: %s", kind, what, got)
			}
		}
	}
}

// TestScopeMoves: tasks in cgroups below the workload's are its own; one that the host
// moves out isn't any more.
func TestScopeMoves(t *testing.T) {
	needRoot(t)
	file := policyFile(t, scoped)
	for _, kind := range kinds(t) {
		s := withPolicy(t, file, kind, "scope-moves")
		line := s.hear()
		pid, ok := strings.CutPrefix(line, "attached ")
		if !ok {
			t.Fatal(line)
		}
		for _, do := range []string{"stay", "down"} {
			s.say(do)
			if got := s.hear(); got != strconv.Itoa(touches) {
				t.Errorf("%s, %s: it saw %s of its own", kind, do, got)
			}
		}
		if err := os.WriteFile(filepath.Join(cgroupMount(t), "cgroup.procs"), []byte(pid), 0); err != nil {
			t.Fatal(err)
		}
		s.say("stay")
		if got := s.hear(); got != "0" {
			t.Errorf("%s: moved out, it saw %s", kind, got)
		}
		s.end(true)
	}
}
