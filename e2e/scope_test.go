package e2e

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/perform"
)

// scoped allows all, but programs and events for the workload's own tasks alone.
const scoped = `apiVersion: bpfbroker/v1alpha1
kind: Policy
metadata: {name: scoped}
spec:
  rules:
  - name: feature-probes
    commands: [prog_load]
    when: prog.type == "socket_filter"
    verdict: allow
  - name: own
    commands: [prog_load, perf_event_open]
    verdict: allow
    scope: workload
  - name: rest
    commands: any
    verdict: allow
`

// touches is how often busy does what is traced.
const touches = 10_000

// act does what is traced: it makes system calls, and calls touched.
func act() {
	for range touches {
		unix.Getppid()
		touched()
	}
}

// spin uses the CPU until events of its clock must have come.
func spin() {
	var from, now unix.Rusage
	unix.Getrusage(unix.RUSAGE_THREAD, &from)
	for now = from; unix.TimevalToNsec(now.Utime)+unix.TimevalToNsec(now.Stime)-unix.TimevalToNsec(from.Utime)-unix.TimevalToNsec(from.Stime) < 200e6; {
		unix.Getrusage(unix.RUSAGE_THREAD, &now)
	}
}

var calls int

// touched is what a uprobe is at.
//
//go:noinline
func touched() { calls++ }

// touchedAt is where touched is in the file that is executed.
func touchedAt() uint64 {
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		fail("%v", err)
	}
	defer f.Close()
	pc := uint64(reflect.ValueOf(touched).Pointer())
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && pc >= p.Vaddr && pc < p.Vaddr+p.Filesz {
			return pc - p.Vaddr + p.Off
		}
	}
	fail("no place of touched (%#x)", pc)
	return 0
}

// counter is a program that counts in m, after the instructions before.
func counter(typ ebpf.ProgramType, m *ebpf.Map, before ...asm.Instruction) *ebpf.ProgramSpec {
	return &ebpf.ProgramSpec{Name: "count", Type: typ, License: "GPL", Instructions: append(before,
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
		asm.Return())}
}

// ofGetppid goes on if the word of the context at offset is getppid's number.
func ofGetppid(offset int16) []asm.Instruction {
	return []asm.Instruction{asm.LoadMem(asm.R6, asm.R1, offset, asm.DWord), asm.JNE.Imm(asm.R6, unix.SYS_GETPPID, "out")}
}

// newCounter loads counter.
func newCounter(typ ebpf.ProgramType, m *ebpf.Map, before ...asm.Instruction) (*ebpf.Program, error) {
	return ebpf.NewProgram(counter(typ, m, before...))
}

// atSysEnter attaches a program of type raw_tracepoint, which was loaded without an error.
func atSysEnter(p *ebpf.Program, err error) error {
	if err != nil {
		return err
	}
	_, err = link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sys_enter", Program: p})
	return err
}

// atTouched loads a program, and attaches it to the own executable.
func atTouched(s *ebpf.ProgramSpec, attach func(*link.Executable, *ebpf.Program) error) error {
	p, err := ebpf.NewProgram(s)
	if err != nil {
		return err
	}
	exe, err := link.OpenExecutable("/proc/self/exe")
	if err != nil {
		return err
	}
	return attach(exe, p)
}

// sysGetppid is what the kernel calls the function of the system call.
var sysGetppid = map[string]string{"amd64": "__x64_sys_getppid", "arm64": "__arm64_sys_getppid"}[runtime.GOARCH]

// atFunction attaches a program of type tracing to it.
func atFunction(how ebpf.AttachType) func(m *ebpf.Map) error {
	return func(m *ebpf.Map) error {
		var p *ebpf.Program
		var err error
		for _, name := range []string{sysGetppid, "__do_sys_getppid"} { // of one function, of which BTF has one name
			s := counter(ebpf.Tracing, m)
			s.AttachType, s.AttachTo = how, name
			if p, err = ebpf.NewProgram(s); err == nil {
				break
			}
		}
		if err != nil {
			return err
		}
		_, err = link.AttachTracing(link.TracingOptions{Program: p})
		return err
	}
}

// lacking are tracers that a kernel may not have.
var lacking = []string{"kprobe", "kretprobe", "kprobe_multi", "fentry", "fexit", "modify_return", "uprobe_multi"}

// tracers are the ways in which programs that have a subject are attached. Each attaches
// a program that counts in m, and says whether it counts exactly what act does.
var tracers = map[string]struct {
	exactly bool
	attach  func(m *ebpf.Map) error
}{
	"raw_tracepoint": {true, func(m *ebpf.Map) error {
		return atSysEnter(newCounter(ebpf.RawTracepoint, m, ofGetppid(8)...))
	}},
	"tp_btf": {true, func(m *ebpf.Map) error {
		s := counter(ebpf.Tracing, m, ofGetppid(8)...)
		s.AttachType, s.AttachTo = ebpf.AttachTraceRawTp, "sys_enter"
		p, err := ebpf.NewProgram(s)
		if err != nil {
			return err
		}
		_, err = link.AttachTracing(link.TracingOptions{Program: p})
		return err
	}},
	"tracepoint": {true, func(m *ebpf.Map) error {
		p, err := newCounter(ebpf.TracePoint, m)
		if err != nil {
			return err
		}
		_, err = link.Tracepoint("syscalls", "sys_enter_getppid", p, nil)
		return err
	}},
	"kprobe": {true, func(m *ebpf.Map) error {
		p, err := newCounter(ebpf.Kprobe, m)
		if err != nil {
			return err
		}
		_, err = link.Kprobe("sys_getppid", p, nil)
		return err
	}},
	"kretprobe": {true, func(m *ebpf.Map) error {
		p, err := newCounter(ebpf.Kprobe, m)
		if err != nil {
			return err
		}
		_, err = link.Kretprobe("sys_getppid", p, nil)
		return err
	}},
	"kprobe_multi": {true, func(m *ebpf.Map) error {
		s := counter(ebpf.Kprobe, m)
		s.AttachType = ebpf.AttachTraceKprobeMulti
		p, err := ebpf.NewProgram(s)
		if err != nil {
			return err
		}
		_, err = link.KprobeMulti(p, link.KprobeMultiOptions{Symbols: []string{sysGetppid}})
		return err
	}},
	"fentry":        {true, atFunction(ebpf.AttachTraceFEntry)},
	"fexit":         {true, atFunction(ebpf.AttachTraceFExit)},
	"modify_return": {true, atFunction(ebpf.AttachModifyReturn)},
	"tail_call": {true, func(m *ebpf.Map) error {
		called, err := newCounter(ebpf.RawTracepoint, m, ofGetppid(8)...)
		if err != nil {
			return err
		}
		array, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1})
		if err != nil {
			return err
		}
		if err := array.Put(uint32(0), called); err != nil {
			return err
		}
		return atSysEnter(ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.RawTracepoint, License: "GPL", Instructions: asm.Instructions{
			asm.LoadMapPtr(asm.R2, array.FD()), asm.Mov.Imm(asm.R3, 0), asm.FnTailCall.Call(), asm.Mov.Imm(asm.R0, 0), asm.Return()}}))
	}},
	"pin": {true, func(m *ebpf.Map) error {
		p, err := newCounter(ebpf.RawTracepoint, m, ofGetppid(8)...)
		if err != nil {
			return err
		}
		if err := p.Pin("/sys/fs/bpf/pinned"); err != nil {
			return err
		}
		p.Close()
		return atSysEnter(ebpf.LoadPinnedProgram("/sys/fs/bpf/pinned", nil))
	}},
	"id": {true, func(m *ebpf.Map) error {
		p, err := newCounter(ebpf.RawTracepoint, m, ofGetppid(8)...)
		if err != nil {
			return err
		}
		// All of the workload's programs that there are: were the one without its guard
		// among them, it would be attached.
		for id := ebpf.ProgramID(0); ; {
			if id, err = ebpf.ProgramGetNextID(id); err != nil {
				break
			}
			if p, err = ebpf.NewProgramFromID(id); err != nil {
				return err
			}
		}
		return atSysEnter(p, nil)
	}},
	"perf_event": {false, func(m *ebpf.Map) error {
		p, err := newCounter(ebpf.PerfEvent, m, asm.FnGetCurrentPidTgid.Call()) // without it, it would look at no task
		if err != nil {
			return err
		}
		return onEachCPU(unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK, Sample: 1e6}, func(event int) error {
			return unix.IoctlSetInt(event, unix.PERF_EVENT_IOC_SET_BPF, p.FD())
		})
	}},
	"uprobe": {true, func(m *ebpf.Map) error {
		return atTouched(counter(ebpf.Kprobe, m), func(exe *link.Executable, p *ebpf.Program) error {
			_, err := exe.Uprobe("touched", p, &link.UprobeOptions{Address: touchedAt()})
			return err
		})
	}},
	"uprobe_multi": {true, func(m *ebpf.Map) error {
		s := counter(ebpf.Kprobe, m)
		s.AttachType = ebpf.AttachTraceUprobeMulti
		return atTouched(s, func(exe *link.Executable, p *ebpf.Program) error {
			_, err := exe.UprobeMulti(nil, p, &link.UprobeMultiOptions{Addresses: []uint64{touchedAt()}})
			return err
		})
	}},
}

// onEachCPU opens an event of all tasks on each CPU, and does something with it.
func onEachCPU(a unix.PerfEventAttr, do func(event int) error) error {
	a.Size = unix.PERF_ATTR_SIZE_VER5
	for cpu := range runtime.NumCPU() {
		fd, err := unix.PerfEventOpen(&a, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if err != nil {
			return fmt.Errorf("open event: %w", err)
		}
		if err := do(fd); err != nil {
			return err
		}
	}
	return nil
}

func init() {
	// Attaches a tracer, and says what it has counted.
	probes["scope"] = func() {
		m := countMap()
		tracer := tracers[os.Args[1]]
		if err := tracer.attach(m); err != nil {
			var v *ebpf.VerifierError
			if errors.As(err, &v) {
				fail("%+v", v)
			}
			fail("%v", err)
		}
		for said := ask("attached"); ; said = ask(strconv.FormatUint(seen(m), 10)) {
			if said == "busy" {
				act()
				if !tracer.exactly {
					spin()
				}
			}
		}
	}
	// Is busy as somebody who isn't the workload.
	probes["busy"] = func() {
		for ask("ready") == "busy" {
			act()
			spin()
		}
	}
}

// TestScope: with `scope: workload` a program counts each event of its workload's own
// tasks, and none of others'. Without, it counts those.
func TestScope(t *testing.T) {
	needRoot(t)
	policies := map[string]string{"scoped": policyFile(t, scoped), "trusted": "trusted"}
	for name, tracer := range tracers {
		t.Run(name, func(t *testing.T) {
			if slices.Contains(lacking, name) {
				natively := probe("scope", name)
				natively.Stdin = strings.NewReader("enough\n")
				if out, err := natively.CombinedOutput(); !bytes.HasPrefix(out, []byte("attached")) {
					t.Skipf("this kernel doesn't have it: %v: %s", err, out)
				}
			}
			foreign := start(t, probe("busy"))
			foreign.expect("ready")
			for policy, flag := range policies {
				for _, kind := range kinds(t) {
					s := withPolicy(t, flag, kind, "scope", name)
					s.expect("attached")
					s.say("count")
					before := number(t, s.hear())
					foreign.say("busy")
					foreign.expect("ready")
					s.say("count")
					others := number(t, s.hear()) - before
					s.say("busy")
					own := number(t, s.hear()) - before - others
					switch {
					case policy == "scoped" && (tracer.exactly && others != 0 || others > 5): // a clock may see it answer
						t.Errorf("%s: of others it saw %d", kind, others)
					case policy == "trusted" && (others == 0 || tracer.exactly && others < touches):
						t.Errorf("%s: without a scope it saw %d of others, so this tells nothing", kind, others)
					case own == 0, tracer.exactly && own != touches:
						t.Errorf("%s, %s: of its own it saw %d", kind, policy, own)
					}
					s.end(true)
				}
			}
			foreign.end(true)
		})
	}
}

func init() {
	// Says what there is to see of a program: its log, and what the kernel shows of it.
	probes["scope-info"] = func() {
		num := &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
		function := func(name string) *btf.Func {
			return &btf.Func{Name: name, Linkage: btf.StaticFunc, Type: &btf.FuncProto{Return: num, Params: []btf.FuncParam{{Name: "ctx", Type: &btf.Pointer{Target: &btf.Void{}}}}}}
		}
		at := func(i asm.Instruction, line string) asm.Instruction { return i.WithSource(asm.Comment(line)) }
		insns := asm.Instructions{
			at(btf.WithFuncMetadata(asm.Mov.Reg(asm.R6, asm.R1), function("main")), "first").WithSymbol("main"),
			at(asm.Mov.Imm(asm.R7, 3), "loop begins"),
			at(asm.Mov.Reg(asm.R1, asm.R6).WithSymbol("again"), "again"),
			asm.Call.Label("other"),
			at(asm.Sub.Imm(asm.R7, 1), "count"),
			asm.JNE.Imm(asm.R7, 0, "again"),
			at(asm.Mov.Imm(asm.R0, 0), "last"),
			asm.Return(),
			at(btf.WithFuncMetadata(asm.FnGetCurrentPidTgid.Call(), function("other")), "other's first").WithSymbol("other"),
			at(asm.Return(), "other's last"),
		}
		p, err := ebpf.NewProgramWithOptions(&ebpf.ProgramSpec{Name: "info", Type: ebpf.RawTracepoint, License: "GPL", Instructions: insns},
			ebpf.ProgramOptions{LogLevel: ebpf.LogLevelInstruction | ebpf.LogLevelStats})
		if err != nil {
			fail("%+v", err)
		}
		fmt.Print(regexp.MustCompile(`verification time \d+|stack depth .*`).ReplaceAllString(p.VerifierLog, ""))
		info, err := p.Info()
		if err != nil {
			fail("%v", err)
		}
		shown, err := info.Instructions()
		if err != nil {
			fail("%v", err)
		}
		calls := regexp.MustCompile(`(?m)^(\s*\d+: Call) .*$`) // by numbers of the kernel's
		fmt.Print(calls.ReplaceAllString(fmt.Sprintf("%+v", shown), "$1"))
		size, err := info.TranslatedSize()
		if err != nil {
			fail("%v", err)
		}
		verified, _ := info.VerifiedInstructions()
		fmt.Println(size, info.Name, info.Type, info.Tag, verified)
		// With less room than there is.
		raw := make([]byte, 32)
		i := make([]byte, abi.ProgInfo.Size)
		abi.ProgInfo.Field("xlated_prog_len").Put(i, uint64(len(raw)))
		abi.ProgInfo.Field("xlated_prog_insns").Put(i, sys.Addr(raw))
		if e := perform.ObjectInfo(p.FD(), i); e != 0 {
			fail("%v", e)
		}
		fmt.Printf("%x %d\n", raw, abi.ProgInfo.Field("xlated_prog_len").Uint(i))
		// And it runs as it does.
		ret, err := p.Run(&ebpf.RunOptions{Context: make([]byte, 16)})
		fmt.Println(ret, err)
	}
}

// TestScopeTransparent: a program that is loaded with a guard looks as it would without.
func TestScopeTransparent(t *testing.T) {
	needRoot(t)
	file := policyFile(t, scoped)
	want := output(t, probe("scope-info"))
	for _, line := range []string{"loop begins", "other's last", "processed"} {
		if !strings.Contains(want, line) {
			t.Fatalf("natively there is no %q:\n%s", line, want)
		}
	}
	for _, kind := range kinds(t) {
		if got := output(t, brokeredBy(file, probe("scope-info"), "--quiet", "--worker="+kind)); got != want {
			t.Errorf("%s: with a scope\n%s\nwithout\n%s", kind, got, want)
		}
	}
}
