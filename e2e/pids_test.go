package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// With `pids: workload` a program that asks who runs is told what the workload would be:
// the process ids of its pid namespace, the users of its user namespace.

// numbered is scoped, and has programs hear the workload's numbers.
var numbered = strings.ReplaceAll(scoped, "    scope: workload\n", "    scope: workload\n    pids: workload\n")

// keeps puts a number on the stack.
func keeps(at int16, n int32) asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R1, n), asm.StoreMem(asm.RFP, at, asm.R1, asm.DWord)}
}

// funcOf is a function, with its type.
func funcOf(name string, insns asm.Instructions) asm.Instructions {
	num := &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
	typ := &btf.Func{Name: name, Linkage: btf.StaticFunc, Type: &btf.FuncProto{Return: num, Params: []btf.FuncParam{{Name: "a", Type: &btf.Pointer{Target: &btf.Void{}}}}}}
	insns[0] = btf.WithFuncMetadata(insns[0], typ).WithSymbol(name)
	return insns
}

// asks are the parts of a program that ask, and put what they hear into r7 (processes) and
// r8 (users). Each is a way to do it.
var asks = map[string]struct {
	main, functions asm.Instructions
}{
	"plain": {main: asm.Instructions{
		asm.FnGetCurrentPidTgid.Call(), asm.Mov.Reg(asm.R7, asm.R0),
		asm.FnGetCurrentUidGid.Call(), asm.Mov.Reg(asm.R8, asm.R0),
	}},
	"stack": {main: func() (all asm.Instructions) { // nearly full, and what is there stays
		for at := int16(-504); at < 0; at += 8 {
			all = append(all, keeps(at, int32(at))...)
		}
		all = append(all, asm.FnGetCurrentPidTgid.Call(), asm.Mov.Reg(asm.R7, asm.R0), asm.FnGetCurrentUidGid.Call(), asm.Mov.Reg(asm.R8, asm.R0))
		for at := int16(-504); at < 0; at += 8 {
			all = append(all, asm.LoadMem(asm.R1, asm.RFP, at, asm.DWord), asm.JNE.Imm(asm.R1, int32(at), "out"))
		}
		return all
	}()},
	"function": {
		main: append(keeps(-8, 77),
			asm.Call.Label("who"), asm.Mov.Reg(asm.R7, asm.R0),
			asm.FnGetCurrentUidGid.Call(), asm.Mov.Reg(asm.R8, asm.R0),
			asm.LoadMem(asm.R1, asm.RFP, -8, asm.DWord), asm.JNE.Imm(asm.R1, 77, "out")),
		functions: append(funcOf("who", keeps(-16, 5)),
			asm.FnGetCurrentPidTgid.Call(),
			asm.LoadMem(asm.R1, asm.RFP, -16, asm.DWord), asm.JEq.Imm(asm.R1, 5, "same"),
			asm.Mov.Imm(asm.R0, 0),
			asm.Return().WithSymbol("same")),
	},
	"loop": { // forward and backward over the calls
		main: asm.Instructions{
			asm.Mov.Imm(asm.R9, 5),
			asm.FnGetCurrentUidGid.Call().WithSymbol("again"), asm.Mov.Reg(asm.R8, asm.R0),
			asm.JEq.Imm(asm.R9, 3, "skip"),
			asm.FnGetCurrentPidTgid.Call(), asm.Mov.Reg(asm.R7, asm.R0),
			asm.Sub.Imm(asm.R9, 1).WithSymbol("skip"),
			asm.JNE.Imm(asm.R9, 0, "again"),
		},
	},
	"callback": { // of bpf_loop, by reference
		main: append(keeps(-8, 0),
			asm.Mov.Imm(asm.R1, 3),
			asm.Instruction{OpCode: asm.LoadImmOp(asm.DWord), Dst: asm.R2, Src: asm.PseudoFunc, Constant: -1}.WithReference("each"),
			asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -8),
			asm.Mov.Imm(asm.R4, 0),
			asm.FnLoop.Call(),
			asm.LoadMem(asm.R7, asm.RFP, -8, asm.DWord),
			asm.FnGetCurrentUidGid.Call(), asm.Mov.Reg(asm.R8, asm.R0)),
		functions: funcOf("each", asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R2),
			asm.FnGetCurrentPidTgid.Call(),
			asm.StoreMem(asm.R6, 0, asm.R0, asm.DWord),
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
		}),
	},
}

// asking is a program that keeps in m what it heard at getppid().
func asking(how string, m *ebpf.Map) asm.Instructions {
	a := asks[how]
	all := asm.Instructions{asm.LoadMem(asm.R9, asm.R1, 8, asm.DWord), asm.JNE.Imm(asm.R9, unix.SYS_GETPPID, "out"), asm.Mov.Imm(asm.R7, 0), asm.Mov.Imm(asm.R8, 0)}
	all = append(all, a.main...)
	all = append(all,
		asm.LoadMapValue(asm.R1, m.FD(), 0),
		asm.StoreMem(asm.R1, 0, asm.R7, asm.DWord),
		asm.StoreMem(asm.R1, 8, asm.R8, asm.DWord),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
		asm.Return())
	return append(funcOf("main", all), a.functions...)
}

func init() {
	// Says what programs hear of this thread.
	probes["pids"] = func() {
		for _, how := range os.Args[1:] {
			m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: 1})
			if err != nil {
				fail("%v", err)
			}
			p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "asks", Type: ebpf.RawTracepoint, License: "GPL", Instructions: asking(how, m)})
			if err := atSysEnter(p, err); err != nil {
				fail("%s: %+v", how, err)
			}
			unix.Getppid()
			var heard struct{ PID, TGID, UID, GID uint32 }
			if err := m.Lookup(uint32(0), &heard); err != nil {
				fail("%v", err)
			}
			fmt.Printf("%s: thread %v, process %v, uid %d, gid %d\n", how, heard.PID == uint32(unix.Gettid()), heard.TGID == uint32(os.Getpid()), heard.UID, heard.GID)
			p.Close()
			m.Close()
		}
	}
}

func TestPIDs(t *testing.T) {
	needRoot(t)
	ways := []string{"plain", "stack", "function", "loop", "callback"}
	file := policyFile(t, numbered)
	for _, kind := range kinds(t) {
		for _, flags := range [][]string{nil, {"--pid=private"}} {
			want := ""
			for _, how := range ways {
				want += how + ": thread true, process true, uid 0, gid 0\n"
			}
			flags := append(flags, "--quiet", "--worker="+kind)
			if got := output(t, brokeredBy(file, probe("pids", ways...), flags...)); got != want {
				t.Errorf("%s, %v: got\n%s, wanted\n%s", kind, flags, got, want)
			}
			// What it is for: without, they are the host's.
			if got := output(t, brokeredBy("trusted", probe("pids", ways...), flags...)); strings.Contains(got, "uid 0,") || strings.Contains(got, "process true") == (len(flags) == 3) {
				t.Errorf("%s, %v: without\n%s", kind, flags, got)
			}
		}
	}
}

// TestPIDsTransparent: such a program looks as it would otherwise.
func TestPIDsTransparent(t *testing.T) {
	needRoot(t)
	file := policyFile(t, numbered)
	for _, how := range []string{"plain", "stack", "function", "loop", "callback"} {
		want := output(t, probe("pids-info", how))
		if !strings.Contains(want, "calls") {
			t.Fatalf("natively: %s", want)
		}
		for _, kind := range kinds(t) {
			if got := output(t, brokeredBy(file, probe("pids-info", how), "--quiet", "--pid=private", "--worker="+kind)); got != want {
				t.Errorf("%s, %s: with the workload's ids\n%s\nwithout\n%s", kind, how, got, want)
			}
		}
	}
}

func init() {
	// Says what the kernel shows of such a program.
	probes["pids-info"] = func() {
		m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: 1})
		if err != nil {
			fail("%v", err)
		}
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "asks", Type: ebpf.RawTracepoint, License: "GPL", Instructions: asking(os.Args[1], m)})
		if err != nil {
			fail("%+v", err)
		}
		info, err := p.Info()
		if err != nil {
			fail("%v", err)
		}
		insns, err := info.Instructions()
		if err != nil {
			fail("%v", err)
		}
		verified, _ := info.VerifiedInstructions()
		fmt.Println("calls", info.Tag, verified)
		for i := range insns {
			if insns[i].IsLoadFromMap() {
				insns[i].Constant = 0
			}
		}
		fmt.Printf("%v", insns)
	}
}

// TestPIDsBpftrace: under the default policy bpftrace tells the numbers that the shell and ps
// tell.
func TestPIDsBpftrace(t *testing.T) {
	needRoot(t)
	for _, kind := range kinds(t) {
		for _, mode := range []string{"host", "private"} {
			c := installed(t, "bpftrace", "-e", `tracepoint:syscalls:sys_enter_execve /str(args->filename) == "/bin/true"/ { printf("traced %d %d %d\n", pid, uid, gid); }`, "-c", "/bin/sh")
			c.Stdin = strings.NewReader("echo shell $$ $(id -u) $(id -g); exec /bin/true\n")
			denied, _, out := under(t, "observe", kind, c, "--pid="+mode)
			var shell, traced string
			for line := range strings.Lines(out) {
				if rest, ok := strings.CutPrefix(line, "shell "); ok {
					shell = rest
				}
				if rest, ok := strings.CutPrefix(line, "traced "); ok {
					traced = rest
				}
			}
			if shell == "" || traced != shell || !strings.HasSuffix(shell, " 0 0\n") {
				t.Errorf("%s, --pid=%s: the shell is %q, traced is %q (denied %q):\n%s", kind, mode, shell, traced, denied, out)
			}
		}
	}
}
