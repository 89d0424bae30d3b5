package loader

import (
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf/asm"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

const mapFD = 5

// withMap has a program name a map, so that it has one.
func withMap(insns ...asm.Instruction) asm.Instructions {
	return append(asm.Instructions{asm.LoadMapPtr(asm.R0, mapFD)}, insns...)
}

func wantErr(t *testing.T, name string, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: got %v, wanted %q", name, err, want)
	}
}

// What is at the edges of each region, and what seems to be another's.
func TestAccess(t *testing.T) {
	const ctxSize, valueSize = 16, 24
	sizes := []asm.Size{asm.Byte, asm.Half, asm.Word, asm.DWord}
	for _, r := range []struct {
		name     string
		n        int
		size     int
		readOnly bool
	}{
		{"context", regionCtx, ctxSize, false},
		{"stack frame", regionStack, stackSize, false},
		{"frame of a function that isn't called", regionStack + 1, 0, false},
		{"last stack frame", regionStack + MaxFrames - 1, 0, false},
		{"map value", valueOf(0), valueSize, false},
		{"struct bpf_map", structOf(0), 32, true},
		{"behind the last", structOf(0) + 1, 0, false},
	} {
		for _, size := range sizes {
			n := size.Sizeof()
			for _, at := range []int{-1 << 31, -65536, -n, -1, 0, 1, r.size - n, r.size - n + 1, r.size - 1, r.size, r.size + 65536, 1<<31 - 1} {
				there := at >= 0 && at+n <= r.size
				for _, off := range []int16{0, 1, -1, -32768, 32767} {
					access := func(what string, may bool, insns ...asm.Instruction) {
						insns = append([]asm.Instruction{
							asm.LoadImm(asm.R1, int64(addrOf(r.n)+uint64(at)-uint64(off)), asm.DWord), asm.Mov.Imm(asm.R2, 1),
						}, insns...)
						_, err := parse(t, withMap(append(insns, asm.Return())...)).Run(make([]byte, ctxSize), []Map{{Value: make([]byte, valueSize)}}, &fakeEnv{})
						if may != (err == nil) {
							t.Errorf("%s of %d bytes at %d of %s, through an offset of %d: got %v", what, n, at, r.name, off, err)
						}
					}
					access("load", there, asm.LoadMem(asm.R2, asm.R1, off, size))
					access("load_acquire", there, asm.LoadAcquire(asm.R2, asm.R1, size, off))
					access("store", there && !r.readOnly, asm.StoreMem(asm.R1, off, asm.R2, size))
					access("store of imm", there && !r.readOnly, storeImm(asm.R1, off, 1, size))
					access("store_release", there && !r.readOnly, asm.StoreRelease(asm.R1, asm.R2, size, off))
					if n >= 4 {
						access("atomic operation", there && !r.readOnly, asm.AddAtomic.Mem(asm.R1, asm.R2, size, off))
						access("cmpxchg", there && !r.readOnly, asm.CmpXchg.Mem(asm.R1, asm.R2, size, off))
					}
					if n < 8 {
						access("load with sign", there, asm.LoadMemSX(asm.R2, asm.R1, off, size))
					}
				}
			}
		}
	}
}

// An offset may go round the end of all addresses; what counts is where it ends.
func TestAddressWraps(t *testing.T) {
	for _, c := range []struct {
		addr int64
		off  int16
	}{
		{-1, 1}, {0, -1}, {-32768, 32767}, {-1 << 63, 0}, {1<<63 - 1, 1},
	} {
		_, err := parse(t, asm.Instructions{
			asm.LoadImm(asm.R1, c.addr, asm.DWord),
			asm.LoadMem(asm.R0, asm.R1, c.off, asm.Byte),
			asm.Return(),
		}).Run(make([]byte, 8), nil, &fakeEnv{})
		wantErr(t, fmt.Sprintf("%#x%+d", c.addr, c.off), err, "insn 2 (code 0x71): load of 1 bytes")
	}
}

// A map that isn't an array of one element has no value to look at.
func TestAccessWithoutValue(t *testing.T) {
	_, err := parse(t, asm.Instructions{
		asm.LoadMapValue(asm.R1, mapFD, 0),
		asm.LoadMem(asm.R0, asm.R1, 0, asm.Byte),
		asm.Return(),
	}).Run(nil, []Map{{}}, &fakeEnv{})
	wantErr(t, "no value", err, "load of 1 bytes")
}

func TestMapValueAndHash(t *testing.T) {
	m := Map{Value: make([]byte, 16)}
	m.Value[9], m.Hash[3] = 7, 9
	ret, err := parse(t, asm.Instructions{
		asm.LoadMapValue(asm.R1, mapFD, 8),
		asm.LoadMem(asm.R0, asm.R1, 1, asm.Byte),
		asm.LoadMapPtr(asm.R2, mapFD),
		asm.LoadMem(asm.R2, asm.R2, 3, asm.Byte),
		asm.LSh.Imm(asm.R2, 8),
		asm.Or.Reg(asm.R0, asm.R2),
		storeImm(asm.R1, 7, 0x55, asm.Byte),
		asm.Return(),
	}).Run(nil, []Map{m}, &fakeEnv{})
	if ret != 0x907 || err != nil {
		t.Errorf("got %#x, %v", ret, err)
	}
	if m.Value[15] != 0x55 {
		t.Errorf("the value is %x", m.Value)
	}
}

// What the verifier lets no program read is 0.
func TestUndefined(t *testing.T) {
	insns := asm.Instructions{asm.Mov.Imm(asm.R3, 0)}
	for r := asm.R2; r <= asm.R9; r++ {
		insns = append(insns, asm.Or.Reg(asm.R0, r))
	}
	insns = append(insns,
		asm.LoadMem(asm.R1, asm.R10, -512, asm.DWord), asm.Or.Reg(asm.R0, asm.R1),
		asm.Mov.Imm(asm.R6, 1), asm.Mov.Imm(asm.R9, 1),
		asm.Call.Label("f"),
		asm.Call.Label("f"),
		asm.Return(),
		// What the first call leaves in its frame the second doesn't find.
		asm.LoadMem(asm.R1, asm.R10, -8, asm.DWord).WithSymbol("f"), asm.Or.Reg(asm.R0, asm.R1),
		asm.Or.Reg(asm.R0, asm.R6), asm.Or.Reg(asm.R0, asm.R7), asm.Or.Reg(asm.R0, asm.R8), asm.Or.Reg(asm.R0, asm.R9),
		asm.Mov.Imm(asm.R7, 1),
		storeImm(asm.R10, -8, 1, asm.DWord),
		asm.Return())
	if ret, err := parse(t, insns).Run(nil, nil, &fakeEnv{}); ret != 0 || err != nil {
		t.Errorf("got %#x, %v", ret, err)
	}
}

func TestFrameIsGone(t *testing.T) {
	_, err := parse(t, asm.Instructions{
		asm.Call.Label("f"),
		asm.LoadMem(asm.R0, asm.R0, -8, asm.DWord),
		asm.Return(),
		asm.Mov.Reg(asm.R0, asm.R10).WithSymbol("f"),
		asm.Return(),
	}).Run(nil, nil, &fakeEnv{})
	wantErr(t, "a frame that is gone", err, "insn 1 (code 0x79): load of 8 bytes")
}

func TestMaxSteps(t *testing.T) {
	code := make([]insn, MaxSteps)
	for i := range code {
		code[i] = nop
	}
	code[MaxSteps-1] = exit
	p, err := Parse(encode(code...))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Run(nil, nil, &fakeEnv{}); err != nil {
		t.Errorf("%d instructions: %v", MaxSteps, err)
	}
	for _, c := range []struct {
		name string
		code []insn
	}{
		{"ja", []insn{{code: classJMP | jmpJA, off: -1}}},
		{"gotol", []insn{{code: classJMP32 | jmpJA, imm: -1}}},
		{"a jump that is taken", []insn{{code: classJMP | jmpJEQ, off: -1}, exit}},
		{"may_goto in a loop", []insn{{code: classJMP | jmpJCOND}, {code: classJMP | jmpJA, off: -2}}},
		{"one too many", append(code[:MaxSteps-1:MaxSteps-1], insn{code: classJMP | jmpJA, off: -1})},
	} {
		p, err := Parse(encode(c.code...))
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.Run(nil, nil, &fakeEnv{})
		wantErr(t, c.name, err, fmt.Sprintf("more than %d instructions", MaxSteps))
	}
}

func TestMaxFrames(t *testing.T) {
	// f calls itself as often as the context says, and counts.
	p := parse(t, asm.Instructions{
		asm.LoadMem(asm.R1, asm.R1, 0, asm.Byte),
		asm.Mov.Imm(asm.R0, 0),
		asm.Call.Label("f"),
		asm.Return(),
		asm.JEq.Imm(asm.R1, 1, "end").WithSymbol("f"),
		asm.Sub.Imm(asm.R1, 1),
		asm.Call.Label("f"),
		asm.Add.Imm(asm.R0, 1).WithSymbol("end"),
		asm.Return(),
	})
	for n := byte(1); n < MaxFrames; n++ {
		if ret, err := p.Run([]byte{n}, nil, &fakeEnv{}); ret != uint32(n) || err != nil {
			t.Errorf("%d frames: got %d, %v", n+1, ret, err)
		}
	}
	for _, n := range []byte{MaxFrames, 255, 0} {
		_, err := p.Run([]byte{n}, nil, &fakeEnv{})
		wantErr(t, fmt.Sprintf("%d calls", n), err, "called more than 8 deep")
	}
}

// repeat has a program call a helper so many times, with what the instructions put into
// registers before each.
func repeat(times int32, id asm.BuiltinFunc, before ...asm.Instruction) asm.Instructions {
	insns := withMap(asm.Mov.Imm(asm.R6, times), asm.Mov.Imm(asm.R7, 0).WithSymbol("again"))
	return append(append(insns, before...),
		id.Call(),
		asm.Sub.Imm(asm.R6, 1),
		asm.JNE.Imm(asm.R6, 0, "again"),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return())
}

func TestBoundsOfHelpers(t *testing.T) {
	const chunk = 16 << 20
	value, ctx := int64(addrOf(valueOf(0))), int64(addrOf(regionCtx))
	copying := func(id asm.BuiltinFunc, times int32) asm.Instructions {
		return repeat(times, id, asm.LoadImm(asm.R1, value, asm.DWord), asm.Mov.Imm(asm.R2, chunk), asm.LoadImm(asm.R3, value, asm.DWord))
	}
	sysBPF := func(cmd int32, times int32) asm.Instructions {
		return repeat(times, asm.FnSysBpf, asm.Mov.Imm(asm.R1, cmd), asm.LoadImm(asm.R2, ctx, asm.DWord), asm.Mov.Imm(asm.R3, 8))
	}
	for _, c := range []struct {
		name    string
		program asm.Instructions
		want    string // the error
		calls   int    // of env
	}{
		{"MaxCalls", repeat(MaxCalls, asm.FnTracePrintk), "", 0},
		{"more than MaxCalls", repeat(MaxCalls+1, asm.FnTracePrintk), "more than 65536 calls of helpers", 0},
		{"more than MaxCalls of env", repeat(MaxCalls+1, asm.FnSysClose), "more than 65536 calls of helpers", MaxCalls},
		{"MaxSysBPF", sysBPF(0, MaxSysBPF), "", MaxSysBPF},
		{"more than MaxSysBPF", sysBPF(0, MaxSysBPF+1), "more than 289 calls of bpf()", MaxSysBPF},
		{"more than MaxSysBPF that are refused", sysBPF(10, MaxSysBPF+1), "more than 289 calls of bpf()", 0},
		{"MaxCopied", copying(asm.FnProbeReadKernel, MaxCopied/chunk), "", 0},
		{"more than MaxCopied", copying(asm.FnProbeReadKernel, MaxCopied/chunk+1), "more than 268435456 bytes copied", 0},
		{"more than MaxCopied from the user", copying(asm.FnCopyFromUser, MaxCopied/chunk+1), "more than 268435456 bytes copied", MaxCopied / chunk},
	} {
		env := &fakeEnv{
			sysBPF:   func(abi.Command, uint64, uint32, *Memory) (int, error) { return 0, nil },
			readUser: func(_ uint64, p []byte) (int, sys.Errno) { return len(p), 0 },
		}
		_, err := parse(t, c.program).Run(make([]byte, 8), []Map{{Value: make([]byte, chunk)}}, env)
		if c.want != "" {
			wantErr(t, c.name, err, c.want)
		} else if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if env.calls != c.calls {
			t.Errorf("%s: %d calls, wanted %d", c.name, env.calls, c.calls)
		}
	}
}

func TestContextLength(t *testing.T) {
	p := parse(t, asm.Instructions{asm.LoadMem(asm.R0, asm.R1, 32760, asm.DWord), asm.Return()})
	if _, err := p.Run(make([]byte, 65535), nil, &fakeEnv{}); err != nil {
		t.Error(err)
	}
	_, err := p.Run(make([]byte, 65536), nil, &fakeEnv{})
	wantErr(t, "65536 bytes", err, "context of 65536 bytes")
	_, err = p.Run(make([]byte, 32767), nil, &fakeEnv{})
	wantErr(t, "too short", err, "context is too short")
}

// Several goroutines run one program.
func TestConcurrently(t *testing.T) {
	p := parse(t, withMap(
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R7, asm.R1, 0, asm.DWord),
		asm.Call.Label("double"),
		asm.StoreMem(asm.R6, 0, asm.R0, asm.DWord),
		asm.Return(),
		asm.LoadMem(asm.R0, asm.R1, 0, asm.DWord).WithSymbol("double"),
		asm.Add.Reg(asm.R0, asm.R0),
		asm.Return()))
	var all sync.WaitGroup
	for n := range uint64(8) {
		all.Go(func() {
			for range 100 {
				ctx := binary.LittleEndian.AppendUint64(nil, n)
				ret, err := p.Run(ctx, []Map{{Value: make([]byte, 8)}}, &fakeEnv{})
				if ret != uint32(2*n) || err != nil || binary.LittleEndian.Uint64(ctx) != 2*n {
					t.Errorf("got %d, %v, %x, wanted %d", ret, err, ctx, 2*n)
				}
			}
		})
	}
	all.Wait()
}
