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
)

// What generated programs have: numbers in r0 to r5, r7 and r8, the address of the context
// in r6, a loop's counter in r9, and at the end of each stack frame slots of 8 bytes.
const (
	ctxWords   = 8
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
		switch k := g.IntN(16); {
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

// generate makes a program, and a context for it.
func generate(seed, n uint64) (asm.Instructions, []byte) {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, n))}
	g.function("", "f", "g")
	g.function("f", "g")
	g.function("g")
	ctx := make([]byte, 8*(ctxWords+len(numbers)+stackSlots))
	for n := 0; n < len(ctx); n += 8 {
		binary.LittleEndian.PutUint64(ctx[n:], uint64(g.imm64()))
	}
	return g.out, ctx
}

// A program does what it does in the kernel: it returns the same, and leaves the same in
// the context.
func TestDifferential(t *testing.T) {
	needRoot(t)
	const programs = 4000
	seed, accepted := rand.Uint64(), 0
	for n := range uint64(programs) {
		insns, ctx := generate(seed, n)
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
		ret, err := parse(t, insns).Run(ctx, nil, &fakeEnv{})
		if err != nil || ret != wantRet || !bytes.Equal(ctx, want) {
			t.Errorf("seed %d, program %d: got %#x, %v, context\n%x\nwanted %#x, context\n%x\n%v", seed, n, ret, err, ctx, wantRet, want, insns)
		}
	}
	t.Logf("the kernel accepted %d of %d", accepted, programs)
	if accepted < programs*9/10 {
		t.Errorf("the kernel accepted %d programs of %d: too few to say much", accepted, programs)
	}
}
