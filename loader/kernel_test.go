package loader

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// What generated programs have: numbers in r0 to r5, r7 and r8, the address of the context
// in r6, a loop's counter in r9, at the end of each stack frame slots of 8 bytes, and the
// value of a map.
const (
	ctxWords   = 8
	valueWords = 4
	stackSlots = 8
	stackStart = -8 * stackSlots
)

var numbers = []asm.Register{asm.R0, asm.R1, asm.R2, asm.R3, asm.R4, asm.R5, asm.R7, asm.R8}

// generator makes programs that the verifier accepts: it looks at memory at constant
// offsets only, divides by no constant 0, and has few branches, as the verifier follows
// all paths.
type generator struct {
	*rand.Rand
	out      asm.Instructions
	labels   int
	branches int // still allowed
	valueFD  int // of a map with a value of valueWords
	// callees are functions that the code may call; they come after it.
	callees []string
}

func (g *generator) emit(insns ...asm.Instruction) { g.out = append(g.out, insns...) }

func pick[T any](g *generator, of ...T) T { return of[g.IntN(len(of))] }

func (g *generator) number() asm.Register { return pick(g, numbers...) }

func (g *generator) size() asm.Size { return pick(g, asm.Byte, asm.Half, asm.Word, asm.DWord) }

// aligned is an offset among n words from start on, as the verifier wants it.
func (g *generator) aligned(start, n int, size asm.Size) int16 {
	return int16(start + size.Sizeof()*g.IntN(8*n/size.Sizeof()))
}

func (g *generator) label() string {
	g.labels++
	return fmt.Sprintf("l%d", g.labels)
}

// imm prefers numbers at which operations change their ways.
func (g *generator) imm() int32 {
	switch g.IntN(4) {
	case 0:
		return int32(g.IntN(9) - 4)
	case 1:
		return pick[int32](g, math.MinInt32, math.MaxInt32, math.MinInt32+1, 0xff, 0x80, 0x7f, 0x8000, 0xffff)
	}
	return int32(g.Uint32())
}

func (g *generator) imm64() int64 {
	if g.IntN(2) == 0 {
		return int64(g.imm())
	}
	return pick(g, int64(g.Uint64()), math.MinInt64, math.MaxInt64, 1<<32, 1<<31, int64(g.Uint32()))
}

// function emits a function: main (without a name), whose r1 is the context, or another
// with the same and numbers in r2 to r5.
func (g *generator) function(name string, callees ...string) {
	g.callees, g.branches = callees, 3
	g.emit(asm.Mov.Reg(asm.R6, asm.R1).WithSymbol(name))
	for _, r := range numbers {
		if name == "" || r < asm.R2 || r > asm.R5 {
			g.emit(asm.LoadImm(r, g.imm64(), asm.DWord))
		}
	}
	for n := range stackSlots {
		g.emit(asm.StoreMem(asm.R10, int16(stackStart+8*n), g.number(), asm.DWord))
	}
	if len(callees) > 0 { // the verifier refuses functions that nobody calls
		g.call(callees[0])
	}
	g.steps(10+g.IntN(20), true)
	if name == "" {
		// All that there is goes to the end of the context.
		for n, r := range numbers {
			g.emit(asm.StoreMem(asm.R6, int16(8*(ctxWords+n)), r, asm.DWord))
		}
		for n := range stackSlots {
			g.emit(
				asm.LoadMem(asm.R1, asm.R10, int16(stackStart+8*n), asm.DWord),
				asm.StoreMem(asm.R6, int16(8*(ctxWords+len(numbers)+n)), asm.R1, asm.DWord))
		}
	}
	g.emit(asm.Return())
}

// steps emits n steps; only where they aren't nested may they be loops or calls.
func (g *generator) steps(n int, outer bool) {
	for range n {
		switch k := g.IntN(17); {
		case k < 6:
			g.alu()
		case k < 8:
			g.load()
		case k < 10:
			g.store()
		case k < 12:
			g.atomic()
		case k < 14 && g.branches > 0:
			g.branch()
		case k == 16:
			g.value()
		case k == 14 && outer:
			g.loop()
		case k == 15 && outer && len(g.callees) > 0:
			g.call(pick(g, g.callees...))
		}
	}
}

func (g *generator) alu() {
	dst, src := g.number(), g.number()
	switch g.IntN(8) {
	case 0:
		g.emit(pick(g,
			asm.Neg.Imm(dst, 0), asm.Neg.Imm32(dst, 0),
			asm.HostTo(asm.LE, dst, pick(g, asm.Half, asm.Word, asm.DWord)),
			asm.HostTo(asm.BE, dst, pick(g, asm.Half, asm.Word, asm.DWord)),
			asm.BSwap(dst, pick(g, asm.Half, asm.Word, asm.DWord))))
		return
	case 1:
		g.emit(pick(g,
			asm.MovSX8.Reg(dst, src), asm.MovSX16.Reg(dst, src), asm.MovSX32.Reg(dst, src),
			asm.MovSX8.Reg32(dst, src), asm.MovSX16.Reg32(dst, src)))
		return
	}
	op := pick(g, asm.Add, asm.Sub, asm.Mul, asm.Div, asm.SDiv, asm.Mod, asm.SMod,
		asm.Or, asm.And, asm.Xor, asm.LSh, asm.RSh, asm.ArSh, asm.Mov)
	imm := g.imm()
	switch op {
	case asm.LSh, asm.RSh, asm.ArSh:
		imm &= 31
	case asm.Div, asm.SDiv, asm.Mod, asm.SMod:
		imm |= 1
	}
	g.emit(pick(g, op.Reg(dst, src), op.Reg32(dst, src), op.Imm(dst, imm), op.Imm32(dst, imm)))
}

func (g *generator) load() {
	size := g.size()
	stack := g.aligned(stackStart, stackSlots, size)
	switch dst := g.number(); g.IntN(4) {
	case 0:
		g.emit(asm.LoadMem(dst, asm.R6, g.aligned(0, ctxWords, size), size))
	case 1:
		g.emit(asm.LoadMem(dst, asm.R10, stack, size))
	case 2:
		g.emit(asm.LoadAcquire(dst, asm.R10, size, stack))
	default:
		if size == asm.DWord {
			size = asm.Word
		}
		g.emit(asm.LoadMemSX(dst, asm.R10, g.aligned(stackStart, stackSlots, size), size))
	}
}

func (g *generator) store() {
	size := g.size()
	ctx, stack := g.aligned(0, ctxWords, size), g.aligned(stackStart, stackSlots, size)
	g.emit(pick(g,
		asm.StoreMem(asm.R6, ctx, g.number(), size),
		asm.StoreMem(asm.R10, stack, g.number(), size),
		storeImm(asm.R6, ctx, g.imm(), size),
		storeImm(asm.R10, stack, g.imm(), size),
		asm.StoreRelease(asm.R10, g.number(), size, stack)))
}

func (g *generator) atomic() {
	size := pick(g, asm.Word, asm.DWord)
	op := pick(g, asm.AddAtomic, asm.AndAtomic, asm.OrAtomic, asm.XorAtomic,
		asm.FetchAdd, asm.FetchAnd, asm.FetchOr, asm.FetchXor, asm.Xchg, asm.CmpXchg)
	at := g.aligned(stackStart, stackSlots, size)
	// Linux 6.18 loses track of which earlier values matter where an operation fetches
	// one that the verifier knows, and then takes two states as the same that aren't. A
	// byte of its own makes the word unknown.
	g.emit(storeImm(asm.R10, at, g.imm()|1, asm.Byte))
	if op == asm.CmpXchg && g.IntN(2) == 0 { // that may succeed
		g.emit(asm.LoadMem(asm.R0, asm.R10, at, size))
	}
	g.emit(op.Mem(asm.R10, g.number(), size, at))
}

// value emits what is done with a map's value, through a register that has no number
// meanwhile.
func (g *generator) value() {
	at, with, size := g.number(), g.number(), pick(g, asm.Word, asm.DWord)
	for with == at {
		with = g.number()
	}
	off := g.aligned(0, valueWords, size)
	g.emit(
		asm.LoadMapValue(at, g.valueFD, 0),
		pick(g,
			asm.LoadMem(with, at, off, size),
			asm.LoadMemSX(with, at, off, asm.Half),
			asm.LoadAcquire(with, at, size, off),
			asm.StoreMem(at, off, with, size),
			asm.StoreRelease(at, with, size, off),
			asm.Xchg.Mem(at, with, size, off),
			asm.FetchAdd.Mem(at, with, size, off)),
		asm.LoadImm(at, g.imm64(), asm.DWord))
}

// branch emits a condition, what is done where it isn't met, and else something else.
func (g *generator) branch() {
	g.branches--
	met, end := g.label(), g.label()
	op := pick(g, asm.JEq, asm.JNE, asm.JGT, asm.JGE, asm.JLT, asm.JLE, asm.JSet, asm.JSGT, asm.JSGE, asm.JSLT, asm.JSLE)
	dst, src, imm := g.number(), g.number(), g.imm()
	g.emit(pick(g, op.Reg(dst, src, met), op.Reg32(dst, src, met), op.Imm(dst, imm, met), op.Imm32(dst, imm, met)))
	g.steps(1+g.IntN(4), false)
	g.emit(pick(g, asm.Ja.Label(end), asm.LongJump(end)))
	g.emit(asm.Xor.Imm(g.number(), g.imm()).WithSymbol(met))
	g.steps(1+g.IntN(4), false)
	g.emit(asm.Add.Imm(g.number(), g.imm()).WithSymbol(end))
}

// loop emits a loop that ends.
func (g *generator) loop() {
	again := g.label()
	g.emit(
		asm.Mov.Imm(asm.R9, int32(1+g.IntN(4))),
		asm.Add.Imm(g.number(), g.imm()).WithSymbol(again))
	branches := g.branches
	g.branches = min(branches, 1) // it counts once per turn
	g.steps(1+g.IntN(4), false)
	g.branches = max(0, branches-3)
	g.emit(
		asm.Sub.Imm(asm.R9, 1),
		asm.JNE.Imm(asm.R9, 0, again))
}

func (g *generator) call(name string) {
	g.emit(
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Call.Label(name))
	for r := asm.R1; r <= asm.R5; r++ { // lost
		g.emit(asm.Mov.Reg(r, pick(g, asm.R0, asm.R7, asm.R8)))
	}
}

// generate makes a program, a context for it, and what the map's value is before.
func generate(seed, n uint64, valueFD int) (insns asm.Instructions, ctx, value []byte) {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, n)), valueFD: valueFD}
	g.function("", "f", "g")
	g.function("f", "g")
	g.function("g")
	// Some do without the value. So that all have the map:
	g.out = append(asm.Instructions{asm.LoadMapValue(asm.R0, valueFD, 0)}, g.out...)
	words := func(n int) []byte {
		var b []byte
		for range n {
			b = binary.LittleEndian.AppendUint64(b, uint64(g.imm64()))
		}
		return b
	}
	return g.out, words(ctxWords + len(numbers) + stackSlots), words(valueWords)
}

func newArray(t *testing.T, size uint32) *ebpf.Map {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: size, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// A program does what it does in the kernel: it returns the same, and leaves the same in
// the context and in a map's value.
func TestDifferential(t *testing.T) {
	needRoot(t)
	const programs = 4000
	m := newArray(t, 8*valueWords)
	seed, accepted := rand.Uint64(), 0
	for n := range uint64(programs) {
		insns, ctx, value := generate(seed, n, m.FD())
		if err := m.Put(uint32(0), value); err != nil {
			t.Fatal(err)
		}
		wantRet, want, err := native(insns, ctx)
		var refused *ebpf.VerifierError
		if errors.As(err, &refused) {
			t.Logf("refused: %v", err)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		accepted++
		wantValue, err := m.LookupBytes(uint32(0))
		if err != nil {
			t.Fatal(err)
		}
		ret, err := parse(t, insns).Run(ctx, []Map{{Value: value}}, &fakeEnv{})
		if err != nil || ret != wantRet || !bytes.Equal(ctx, want) || !bytes.Equal(value, wantValue) {
			t.Errorf("seed %d, program %d: got %#x, %v, context and value\n%x\n%x\nwanted %#x\n%x\n%x\n%v",
				seed, n, ret, err, ctx, value, wantRet, want, wantValue, insns)
		}
	}
	t.Logf("the kernel accepted %d of %d", accepted, programs)
	if accepted < programs*9/10 {
		t.Errorf("the kernel accepted %d programs of %d: too few to say much", accepted, programs)
	}
}

// Helpers answer as the kernel's do, as far as that doesn't depend on the kernel.
func TestHelpersOfKernel(t *testing.T) {
	needRoot(t)
	m := newArray(t, 8)
	const name = 0x657965_6d616e // "name", 0: "ey"
	for _, c := range []struct {
		name string
		id   asm.BuiltinFunc
		args []argument
		want sys.Errno
	}{
		{"sys_bpf, a test run", asm.FnSysBpf, []argument{imm(10), stack(-8), imm(8)}, sys.EINVAL},
		{"sys_bpf, a lookup", asm.FnSysBpf, []argument{imm(1), stack(-8), imm(8)}, sys.EINVAL},
		{"sys_bpf, -1", asm.FnSysBpf, []argument{imm(-1), stack(-8), imm(8)}, sys.EINVAL},
		{"sys_close", asm.FnSysClose, []argument{imm(-1)}, sys.EBADF},
		{"btf_find, no NUL", asm.FnBtfFindByNameKind, []argument{stack(-8), imm(4), imm(12), imm(0)}, sys.EINVAL},
		{"btf_find, 1 byte", asm.FnBtfFindByNameKind, []argument{stack(-8), imm(1), imm(12), imm(0)}, sys.EINVAL},
		{"btf_find, flags", asm.FnBtfFindByNameKind, []argument{stack(-8), imm(8), imm(12), imm(1)}, sys.EINVAL},
		{"btf_find", asm.FnBtfFindByNameKind, []argument{stack(-8), imm(8), imm(12), imm(0)}, sys.ENOENT},
		{"kallsyms", asm.FnKallsymsLookupName, []argument{stack(-8), imm(8), imm(0), stack(-16)}, sys.ENOENT},
		{"kallsyms, flags", asm.FnKallsymsLookupName, []argument{stack(-8), imm(8), imm(1), stack(-16)}, sys.EINVAL},
		{"kallsyms, no NUL", asm.FnKallsymsLookupName, []argument{stack(-8), imm(4), imm(0), stack(-16)}, sys.EINVAL},
		{"kallsyms, nothing", asm.FnKallsymsLookupName, []argument{stack(-8), imm(0), imm(0), stack(-16)}, sys.EINVAL},
		{"probe_read", asm.FnProbeReadKernel, []argument{stack(-16), imm(7), stack(-8)}, 0},
		{"probe_read of 0", asm.FnProbeReadKernel, []argument{stack(-16), imm(7), imm(0)}, sys.ERANGE},
		{"probe_read of kernel memory", asm.FnProbeReadKernel, []argument{stack(-16), imm(7), imm(-1 << 20)}, sys.EFAULT},
		{"probe_read of nothing at 0", asm.FnProbeReadKernel, []argument{stack(-16), imm(0), imm(0)}, sys.ERANGE},
		{"probe_read of nothing", asm.FnProbeReadKernel, []argument{stack(-16), imm(0), stack(-8)}, 0},
		{"copy_from_user of 0", asm.FnCopyFromUser, []argument{stack(-16), imm(7), imm(0)}, sys.EFAULT},
		{"copy_from_user of nothing", asm.FnCopyFromUser, []argument{stack(-16), imm(0), imm(0)}, 0},
		{"lookup of element 1", asm.FnMapLookupElem, []argument{mapPtr(m.FD()), stack(-8)}, 0},
	} {
		// The context is what r0 and the stack are in the end.
		insns := asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1),
			asm.LoadImm(asm.R0, name, asm.DWord),
			asm.StoreMem(asm.R10, -8, asm.R0, asm.DWord),
			storeImm(asm.R10, -16, -1, asm.DWord),
		}
		for i, put := range c.args {
			insns = append(insns, put(asm.R1+asm.Register(i))...)
		}
		insns = append(insns,
			c.id.Call(),
			asm.StoreMem(asm.R6, 0, asm.R0, asm.DWord),
			asm.LoadMem(asm.R0, asm.R10, -8, asm.DWord),
			asm.StoreMem(asm.R6, 8, asm.R0, asm.DWord),
			asm.LoadMem(asm.R0, asm.R10, -16, asm.DWord),
			asm.StoreMem(asm.R6, 16, asm.R0, asm.DWord),
			asm.Mov.Imm(asm.R0, 0),
			asm.Return())
		_, want, err := native(insns, make([]byte, 24))
		if err != nil {
			t.Errorf("%s: %+v", c.name, err)
			continue
		}
		p := parse(t, insns)
		maps := make([]Map, len(p.Maps()))
		for i := range maps {
			maps[i].Value = make([]byte, 8)
		}
		got := make([]byte, 24)
		_, err = p.Run(got, maps, &fakeEnv{
			sysClose: func(int32) sys.Errno { return sys.EBADF },
			btfFind:  func(string, uint32) (uint32, int32, sys.Errno) { return 0, 0, sys.ENOENT },
			kallsyms: func(string) (uint64, sys.Errno) { return 0, sys.ENOENT },
			readUser: func(uint64, []byte) (int, sys.Errno) { return 0, sys.EFAULT },
		})
		if ret := int64(binary.LittleEndian.Uint64(got)); err != nil || !bytes.Equal(got, want) || ret != -int64(c.want) {
			t.Errorf("%s: got %x, %v, wanted %x and %v", c.name, got, err, want, c.want)
		}
	}
}

// argument puts an argument of a helper into its register.
type argument func(asm.Register) asm.Instructions

func imm(v int32) argument {
	return func(r asm.Register) asm.Instructions { return asm.Instructions{asm.Mov.Imm(r, v)} }
}

func stack(off int32) argument {
	return func(r asm.Register) asm.Instructions {
		return asm.Instructions{asm.Mov.Reg(r, asm.R10), asm.Add.Imm(r, off)}
	}
}

func mapPtr(fd int) argument {
	return func(r asm.Register) asm.Instructions { return asm.Instructions{asm.LoadMapPtr(r, fd)} }
}
