package loader

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// insnCase is a few instructions, and what they leave in r0. They begin with the first
// words of the context in r0 and r1 and its address in r9, so that the verifier can't
// compute the result. More are the functions that they call.
type insnCase struct {
	name    string
	r0, r1  uint64
	code    asm.Instructions
	more    asm.Instructions
	want    uint64
	refused bool // by the verifier, though it is defined
}

func (c *insnCase) program() asm.Instructions {
	insns := asm.Instructions{
		asm.Mov.Reg(asm.R9, asm.R1),
		asm.LoadMem(asm.R0, asm.R9, 0, asm.DWord),
		asm.LoadMem(asm.R1, asm.R9, 8, asm.DWord),
	}
	insns = append(insns, c.code...)
	insns = append(insns,
		asm.StoreMem(asm.R9, 0, asm.R0, asm.DWord).WithSymbol("out"),
		asm.Mov.Imm(asm.R0, 7),
		asm.Return(),
	)
	return append(insns, c.more...)
}

// context begins with the two words of the case; the rest is there to be overwritten.
func (c *insnCase) context() []byte {
	ctx := make([]byte, 64)
	for i := range ctx {
		ctx[i] = byte(0xff - i)
	}
	binary.LittleEndian.PutUint64(ctx, c.r0)
	binary.LittleEndian.PutUint64(ctx[8:], c.r1)
	return ctx
}

const (
	ones   = math.MaxUint64
	lowest = 1 << 63 // as a signed number
)

func neg(n uint64) uint64 { return -n }

// fits says whether an instruction can have v as its imm.
func fits(v uint64) bool { return v == uint64(int32(v)) }

// aluCases are those of an operation: 64 and 32 bits wide, with a register and, where it
// fits, with an imm.
func aluCases() []insnCase {
	var all []insnCase
	for _, c := range []struct {
		op             asm.ALUOp
		d, s           uint64
		want64, want32 uint64
	}{
		{asm.Add, 0x80000000_ffffffff, 1, 0x80000001_00000000, 0},
		{asm.Add, 5, neg(7), neg(2), 0xfffffffe},
		{asm.Add, ones, 0x1_00000001, 0x1_00000000, 0},
		{asm.Sub, 0, 1, ones, 0xffffffff},
		{asm.Sub, 0x1_00000000, neg(1), 0x1_00000001, 1},
		{asm.Mul, 0xffffffff, 0xffffffff, 0xfffffffe_00000001, 1},
		{asm.Mul, 3, neg(2), neg(6), 0xfffffffa},

		{asm.Div, neg(8), 2, 0x7fffffff_fffffffc, 0x7ffffffc},
		{asm.Div, neg(8), neg(2), 0, 0},
		{asm.Div, 100, 0x1_00000007, 0, 14},
		{asm.Div, 0x100_00000009, 0x1_00000000, 0x100, 0}, // 0 in 32 bits
		{asm.Div, 7, 0, 0, 0},
		{asm.SDiv, neg(8), 2, neg(4), 0xfffffffc},
		{asm.SDiv, neg(7), 2, neg(3), 0xfffffffd}, // towards 0
		{asm.SDiv, 7, neg(2), neg(3), 0xfffffffd},
		{asm.SDiv, neg(7), neg(2), 3, 3},
		{asm.SDiv, lowest, neg(1), lowest, 0},
		{asm.SDiv, 0x80000000, neg(1), 0xffffffff_80000000, 0x80000000},
		{asm.SDiv, neg(7), 0, 0, 0},

		{asm.Mod, neg(7), 4, 1, 1},
		{asm.Mod, 0x1_00000007, 5, 3, 2},
		{asm.Mod, 0x1_00000007, 0, 0x1_00000007, 7},
		{asm.Mod, 0x100_00000009, 0x1_00000000, 9, 9},
		{asm.SMod, neg(7), 4, neg(3), 0xfffffffd}, // the dividend's sign
		{asm.SMod, 7, neg(4), 3, 3},
		{asm.SMod, lowest, neg(1), 0, 0},
		{asm.SMod, 0x80000000, neg(1), 0, 0},
		{asm.SMod, 0xffffffff_00000007, 0, 0xffffffff_00000007, 7},

		{asm.Or, 0xf0_00000000, neg(16), neg(16), 0xfffffff0},
		{asm.Or, 0xf0_0000000f, 0x70, 0xf0_0000007f, 0x7f},
		{asm.And, 0xffffffff_000000ff, neg(16), 0xffffffff_000000f0, 0xf0},
		{asm.And, ones, 0x7fffffff, 0x7fffffff, 0x7fffffff},
		{asm.Xor, 0xf0f0, neg(1), 0xffffffff_ffff0f0f, 0xffff0f0f},

		{asm.LSh, 1, 63, lowest, 0x80000000},
		{asm.LSh, 1, 64, 1, 1},
		{asm.LSh, 3, 33, 0x6_00000000, 6},
		{asm.LSh, 1, neg(1), lowest, 0x80000000},
		{asm.LSh, 0xffffffff, 4, 0xf_fffffff0, 0xfffffff0},
		{asm.RSh, ones, 4, 0x0fffffff_ffffffff, 0x0fffffff},
		{asm.RSh, lowest, 64 + 63, 1, 0},
		{asm.RSh, 0x80000000, 32, 0, 0x80000000},
		{asm.ArSh, lowest, 63, ones, 0},
		{asm.ArSh, 0x80000000, 31, 1, 0xffffffff},
		{asm.ArSh, 0x80000000, 36, 0, 0xf8000000},
		{asm.ArSh, 0x7fffffff_80000000, 4, 0x07ffffff_f8000000, 0xf8000000},

		{asm.Mov, 1, neg(1), ones, 0xffffffff},
		{asm.Mov, ones, 0x1_23456789, 0x1_23456789, 0x23456789},
		{asm.MovSX8, 0, 0x80, 0xffffffff_ffffff80, 0xffffff80},
		{asm.MovSX8, ones, 0x17f, 0x7f, 0x7f},
		{asm.MovSX16, 0, 0x8000, 0xffffffff_ffff8000, 0xffff8000},
		{asm.MovSX16, ones, 0x17fff, 0x7fff, 0x7fff},
		{asm.MovSX32, 0, 0x80000000, 0xffffffff_80000000, 0},
		{asm.MovSX32, ones, 0x1_7fffffff, 0x7fffffff, 0},
	} {
		add := func(how string, in asm.Instruction, want uint64, refused bool) {
			name := fmt.Sprintf("%v %s of %#x, %#x", c.op, how, c.d, c.s)
			all = append(all, insnCase{name: name, r0: c.d, r1: c.s, code: asm.Instructions{in}, want: want, refused: refused})
		}
		add("reg", c.op.Reg(asm.R0, asm.R1), c.want64, false)
		if c.op == asm.MovSX32 {
			continue
		}
		add("reg32", c.op.Reg32(asm.R0, asm.R1), c.want32, false)
		if !fits(c.s) || c.op == asm.MovSX8 || c.op == asm.MovSX16 {
			continue
		}
		shift := c.op == asm.LSh || c.op == asm.RSh || c.op == asm.ArSh
		divides := c.op == asm.Div || c.op == asm.SDiv || c.op == asm.Mod || c.op == asm.SMod
		add("imm", c.op.Imm(asm.R0, int32(c.s)), c.want64, shift && c.s > 63 || divides && c.s == 0)
		add("imm32", c.op.Imm32(asm.R0, int32(c.s)), c.want32, shift && c.s > 31 || divides && c.s == 0)
	}

	const v = 0x01020304_85868788
	for _, c := range []struct {
		in   asm.Instruction
		want uint64
	}{
		{asm.Neg.Imm(asm.R0, 0), neg(v)},
		{asm.Neg.Imm32(asm.R0, 0), 0x7a797878},
		{asm.HostTo(asm.LE, asm.R0, asm.Half), 0x8788},
		{asm.HostTo(asm.LE, asm.R0, asm.Word), 0x85868788},
		{asm.HostTo(asm.LE, asm.R0, asm.DWord), v},
		{asm.HostTo(asm.BE, asm.R0, asm.Half), 0x8887},
		{asm.HostTo(asm.BE, asm.R0, asm.Word), 0x88878685},
		{asm.HostTo(asm.BE, asm.R0, asm.DWord), 0x88878685_04030201},
		{asm.BSwap(asm.R0, asm.Half), 0x8887},
		{asm.BSwap(asm.R0, asm.Word), 0x88878685},
		{asm.BSwap(asm.R0, asm.DWord), 0x88878685_04030201},
	} {
		all = append(all, insnCase{name: fmt.Sprint(c.in), r0: v, code: asm.Instructions{c.in}, want: c.want})
	}
	return all
}

// jumpCases are those of a conditional jump, in all its forms.
func jumpCases() []insnCase {
	var all []insnCase
	for _, c := range []struct {
		op             asm.JumpOp
		d, s           uint64
		jump64, jump32 bool
	}{
		{asm.JEq, 5, 5, true, true},
		{asm.JEq, 0x1_00000005, 5, false, true},
		{asm.JEq, neg(1), neg(1), true, true},
		{asm.JEq, 0xffffffff, neg(1), false, true},
		{asm.JNE, 5, 5, false, false},
		{asm.JNE, 0x1_00000005, 5, true, false},
		{asm.JNE, 4, 5, true, true},
		{asm.JGT, 5, 5, false, false},
		{asm.JGT, 6, 5, true, true},
		{asm.JGT, neg(1), 5, true, true},
		{asm.JGT, 0x1_00000000, 5, true, false},
		{asm.JGT, 5, neg(1), false, false},
		{asm.JGE, 5, 5, true, true},
		{asm.JGE, 4, 5, false, false},
		{asm.JGE, 0x1_00000004, 5, true, false},
		{asm.JLT, 4, 5, true, true},
		{asm.JLT, 5, 5, false, false},
		{asm.JLT, 4, neg(1), true, true},
		{asm.JLT, 0x1_00000004, 5, false, true},
		{asm.JLE, 5, 5, true, true},
		{asm.JLE, 6, 5, false, false},
		{asm.JLE, 0x1_00000005, 5, false, true},
		{asm.JSet, 6, 2, true, true},
		{asm.JSet, 5, 2, false, false},
		{asm.JSet, 0x1_00000000, neg(1), true, false},
		{asm.JSGT, 5, neg(1), true, true},
		{asm.JSGT, neg(1), 5, false, false},
		{asm.JSGT, 5, 5, false, false},
		{asm.JSGT, 0x80000000, 5, true, false},
		{asm.JSGE, neg(5), neg(5), true, true},
		{asm.JSGE, neg(6), neg(5), false, false},
		{asm.JSGE, lowest, 0, false, true},
		{asm.JSLT, neg(6), neg(5), true, true},
		{asm.JSLT, 5, neg(5), false, false},
		{asm.JSLT, 0x80000000, 0, false, true},
		{asm.JSLE, neg(5), neg(5), true, true},
		{asm.JSLE, 5, neg(5), false, false},
		{asm.JSLE, lowest, neg(1), true, false},
	} {
		add := func(how string, jump asm.Instruction, jumps bool) {
			want := uint64(1)
			if jumps {
				want = 2
			}
			all = append(all, insnCase{
				name: fmt.Sprintf("%v %s of %#x, %#x", c.op, how, c.d, c.s), r0: c.d, r1: c.s, want: want,
				code: asm.Instructions{
					asm.Mov.Imm(asm.R3, 2),
					jump,
					asm.Mov.Imm(asm.R3, 1),
					asm.Mov.Reg(asm.R0, asm.R3).WithSymbol("there"),
				},
			})
		}
		add("reg", c.op.Reg(asm.R0, asm.R1, "there"), c.jump64)
		add("reg32", c.op.Reg32(asm.R0, asm.R1, "there"), c.jump32)
		if fits(c.s) {
			add("imm", c.op.Imm(asm.R0, int32(c.s), "there"), c.jump64)
			add("imm32", c.op.Imm32(asm.R0, int32(c.s), "there"), c.jump32)
		}
	}
	return all
}

// atomicCases do an operation with r1 on a word of the stack that is r0; the result is the
// word after it plus what the operation left in r1 (or in r0, of cmpxchg).
func atomicCases() []insnCase {
	var all []insnCase
	for _, c := range []struct {
		op     asm.AtomicOp
		size   asm.Size
		d, s   uint64
		memory uint64 // after it
		reg    uint64
	}{
		{asm.AddAtomic, asm.DWord, 0xffffffff, 1, 0x1_00000000, 1},
		{asm.AddAtomic, asm.Word, 0x5_ffffffff, 0x7_00000001, 0x5_00000000, 0x7_00000001},
		{asm.FetchAdd, asm.DWord, 0xffffffff, 1, 0x1_00000000, 0xffffffff},
		{asm.FetchAdd, asm.Word, 0x5_ffffffff, 0x7_00000001, 0x5_00000000, 0xffffffff},
		{asm.OrAtomic, asm.DWord, 0xf0_00000000, 0x0f, 0xf0_0000000f, 0x0f},
		{asm.FetchOr, asm.Word, 0xf0_000000f0, 0xff_0000000f, 0xf0_000000ff, 0xf0},
		{asm.AndAtomic, asm.DWord, 0xff_000000ff, 0x0f_00000003, 0x0f_00000003, 0x0f_00000003},
		{asm.FetchAnd, asm.Word, 0xff_000000ff, 3, 0xff_00000003, 0xff},
		{asm.XorAtomic, asm.Word, 0xff_000000ff, 0xff_00000003, 0xff_000000fc, 0xff_00000003},
		{asm.FetchXor, asm.DWord, 0xff_000000ff, 0xff_00000003, 0xfc, 0xff_000000ff},
		{asm.Xchg, asm.DWord, 0x1_00000002, 0x3_00000004, 0x3_00000004, 0x1_00000002},
		{asm.Xchg, asm.Word, 0x1_00000002, 0x3_00000004, 0x1_00000004, 2},
	} {
		all = append(all, insnCase{
			name: fmt.Sprintf("%v%v of %#x, %#x", c.op, c.size, c.d, c.s), r0: c.d, r1: c.s, want: c.memory + c.reg,
			code: asm.Instructions{
				asm.StoreMem(asm.R10, -16, asm.R0, asm.DWord),
				c.op.Mem(asm.R10, asm.R1, c.size, -16),
				asm.LoadMem(asm.R0, asm.R10, -16, asm.DWord),
				asm.Add.Reg(asm.R0, asm.R1),
			},
		})
	}
	for _, c := range []struct {
		size             asm.Size
		memory, expected uint64
		after, r0        uint64
	}{
		{asm.DWord, 0x1_00000002, 0x1_00000002, 0x9_00000009, 0x1_00000002},
		{asm.DWord, 0x1_00000002, 2, 0x1_00000002, 0x1_00000002},
		{asm.Word, 0x1_00000002, 0x5_00000002, 0x1_00000009, 2},
		{asm.Word, 0x1_00000002, 3, 0x1_00000002, 2},
	} {
		all = append(all, insnCase{
			name: fmt.Sprintf("cmpxchg%v of %#x, %#x", c.size, c.memory, c.expected), r0: c.expected, r1: c.memory, want: c.after + c.r0,
			code: asm.Instructions{
				asm.StoreMem(asm.R10, -8, asm.R1, asm.DWord),
				asm.LoadImm(asm.R2, 0x9_00000009, asm.DWord),
				asm.CmpXchg.Mem(asm.R10, asm.R2, c.size, -8),
				asm.LoadMem(asm.R1, asm.R10, -8, asm.DWord),
				asm.Add.Reg(asm.R0, asm.R1),
			},
		})
	}
	return all
}

func memoryCases() []insnCase {
	// r0 and r1 as the context has them.
	const r0, r1 = 0xf1f2f3f4_85868788, 0x01020304_05060708
	cases := []insnCase{
		{name: "ld_imm64", code: asm.Instructions{asm.LoadImm(asm.R0, math.MinInt64+5, asm.DWord)}, want: lowest + 5},
		{name: "ld_imm64, negative low half", code: asm.Instructions{asm.LoadImm(asm.R0, 0x1_ffffffff, asm.DWord)}, want: 0x1_ffffffff},
	}
	for size, want := range map[asm.Size][2]uint64{
		asm.Byte:  {0x88, 0xffffffff_ffffff88},
		asm.Half:  {0x8788, 0xffffffff_ffff8788},
		asm.Word:  {0x85868788, 0xffffffff_85868788},
		asm.DWord: {r0, 0},
	} {
		cases = append(cases,
			insnCase{name: "ldx" + size.String(), code: asm.Instructions{asm.LoadMem(asm.R0, asm.R9, 0, size)}, want: want[0]},
			insnCase{name: "load_acquire" + size.String(), want: want[0], code: asm.Instructions{
				asm.StoreMem(asm.R10, -24, asm.R0, asm.DWord),
				asm.LoadAcquire(asm.R0, asm.R10, size, -24),
			}},
			insnCase{name: "store_release" + size.String(), want: want[0], code: asm.Instructions{
				storeImm(asm.R10, -24, 0, asm.DWord),
				asm.StoreRelease(asm.R10, asm.R0, size, -24),
				asm.LoadMem(asm.R0, asm.R10, -24, asm.DWord),
			}},
			insnCase{name: "stx" + size.String(), want: ones&^(1<<(8*size.Sizeof())-1) | want[0], code: asm.Instructions{
				storeImm(asm.R10, -8, -1, asm.DWord),
				asm.StoreMem(asm.R10, -8, asm.R0, size),
				asm.LoadMem(asm.R0, asm.R10, -8, asm.DWord),
			}},
			insnCase{name: "st" + size.String(), want: 1<<(8*size.Sizeof()) - 2, code: asm.Instructions{
				storeImm(asm.R10, -512, 0, asm.DWord),
				storeImm(asm.R10, -512, -2, size), // all of a DWord: the sign is extended
				asm.LoadMem(asm.R0, asm.R10, -512, asm.DWord),
			}},
		)
		if size != asm.DWord {
			cases = append(cases, insnCase{name: "ldsx" + size.String(), want: want[1], code: asm.Instructions{
				asm.StoreMem(asm.R10, -8, asm.R0, asm.DWord),
				asm.LoadMemSX(asm.R0, asm.R10, -8, size),
			}})
		}
	}
	for i := range cases {
		cases[i].r0, cases[i].r1 = r0, r1
	}
	return cases
}

func flowCases() []insnCase {
	function := func(name string, insns ...asm.Instruction) asm.Instructions {
		insns[0] = insns[0].WithSymbol(name)
		return append(insns, asm.Return())
	}
	return []insnCase{
		{name: "ja", want: 3, code: asm.Instructions{
			asm.Mov.Imm(asm.R0, 3),
			asm.JEq.Imm(asm.R1, 5, "not there"),
			asm.Ja.Label("out"),
			asm.Mov.Imm(asm.R0, 4).WithSymbol("not there"),
		}},
		{name: "gotol", want: 3, code: asm.Instructions{
			asm.Mov.Imm(asm.R0, 3),
			asm.JEq.Imm(asm.R1, 5, "not there"),
			asm.LongJump("out"),
			asm.Mov.Imm(asm.R0, 4).WithSymbol("not there"),
		}},
		{name: "back and forth", want: 4, code: asm.Instructions{
			asm.Mov.Imm(asm.R0, 1),
			asm.LongJump("forth"),
			asm.Add.Imm(asm.R0, 3).WithSymbol("back"),
			asm.Ja.Label("out"),
			asm.Ja.Label("back").WithSymbol("forth"),
		}},
		{name: "a loop", want: 45, code: asm.Instructions{
			asm.Mov.Imm(asm.R0, 0),
			asm.Mov.Imm(asm.R2, 9),
			asm.Add.Reg(asm.R0, asm.R2).WithSymbol("again"),
			asm.Sub.Imm(asm.R2, 1),
			asm.JNE.Imm32(asm.R2, 0, "again"),
		}},
		{name: "may_goto", r1: 10, want: 10, code: asm.Instructions{
			asm.Mov.Imm(asm.R0, 0),
			asm.JCOND.Label("out").WithSymbol("again"),
			asm.JGE.Reg(asm.R0, asm.R1, "out"),
			asm.Add.Imm(asm.R0, 1),
			asm.Ja.Label("again"),
		}},
		{name: "a function's arguments and result", r0: 100, r1: 1, want: 115,
			code: asm.Instructions{
				asm.Mov.Imm(asm.R2, 2), asm.Mov.Imm(asm.R3, 3), asm.Mov.Imm(asm.R4, 4), asm.Mov.Imm(asm.R5, 5),
				asm.Mov.Reg(asm.R6, asm.R0),
				asm.Call.Label("sum"),
				asm.Add.Reg(asm.R0, asm.R6),
			},
			more: function("sum",
				asm.Mov.Reg(asm.R0, asm.R1), asm.Add.Reg(asm.R0, asm.R2), asm.Add.Reg(asm.R0, asm.R3),
				asm.Add.Reg(asm.R0, asm.R4), asm.Add.Reg(asm.R0, asm.R5))},
		{name: "a function called from two places, one of them before it", r1: 5, want: 7,
			code: asm.Instructions{
				asm.Call.Label("one"), asm.Mov.Reg(asm.R1, asm.R0),
				asm.Call.Label("one"),
			},
			more: function("one", asm.Mov.Reg(asm.R0, asm.R1), asm.Add.Imm(asm.R0, 1))},
		{name: "a function saves r6 to r9", r0: 1000, want: 1000 + 6 + 7 + 8,
			code: asm.Instructions{
				asm.Mov.Imm(asm.R6, 6), asm.Mov.Imm(asm.R7, 7), asm.Mov.Imm(asm.R8, 8),
				asm.Call.Label("clobber"),
				asm.LoadMem(asm.R0, asm.R9, 0, asm.DWord), // r9 is still the context
				asm.Add.Reg(asm.R0, asm.R6), asm.Add.Reg(asm.R0, asm.R7), asm.Add.Reg(asm.R0, asm.R8),
			},
			more: function("clobber",
				asm.Mov.Imm(asm.R6, 0), asm.Mov.Imm(asm.R7, 0), asm.Mov.Imm(asm.R8, 0), asm.Mov.Imm(asm.R9, 0),
				asm.Mov.Imm(asm.R0, 0))},
		{name: "each function has a stack frame", r0: 1000, want: 1005,
			code: asm.Instructions{
				asm.StoreMem(asm.R10, -8, asm.R0, asm.DWord),
				asm.Mov.Reg(asm.R1, asm.R10),
				asm.Call.Label("frame"),
				asm.LoadMem(asm.R1, asm.R10, -8, asm.DWord),
				asm.Add.Reg(asm.R0, asm.R1),
			},
			more: function("frame", storeImm(asm.R10, -8, 5, asm.DWord), asm.LoadMem(asm.R0, asm.R10, -8, asm.DWord))},
		{name: "a function writes to its caller's frame", want: 9,
			code: asm.Instructions{
				storeImm(asm.R10, -16, 1, asm.DWord),
				asm.Mov.Reg(asm.R1, asm.R10),
				asm.Add.Imm(asm.R1, -16),
				asm.Call.Label("fill"),
				asm.LoadMem(asm.R0, asm.R10, -16, asm.DWord),
			},
			more: function("fill", storeImm(asm.R1, 0, 9, asm.DWord), asm.Mov.Imm(asm.R0, 0))},
		{name: "functions call functions", r1: 3, want: 3 + 2 + 1,
			code: asm.Instructions{asm.Call.Label("f")},
			more: append(
				function("f", asm.Mov.Reg(asm.R6, asm.R1), asm.Sub.Imm(asm.R1, 1), asm.Call.Label("g"), asm.Add.Reg(asm.R0, asm.R6)),
				function("g", asm.Mov.Reg(asm.R6, asm.R1), asm.Mov.Imm(asm.R0, 1), asm.Add.Reg(asm.R0, asm.R6))...)},
	}
}

func insnCases() []insnCase {
	var all []insnCase
	for _, c := range [][]insnCase{aluCases(), jumpCases(), atomicCases(), memoryCases(), flowCases()} {
		all = append(all, c...)
	}
	return all
}

func TestInstructions(t *testing.T) {
	for _, c := range insnCases() {
		ctx := c.context()
		ret, err := parse(t, c.program()).Run(ctx, nil, &fakeEnv{})
		if got := binary.LittleEndian.Uint64(ctx); got != c.want || ret != 7 || err != nil {
			t.Errorf("%s: got %#x, returns %d, %v, wanted %#x", c.name, got, ret, err, c.want)
		}
	}
}

// The kernel is asked whether the table is right.
func TestInstructionsOfKernel(t *testing.T) {
	needRoot(t)
	for _, c := range insnCases() {
		if c.refused {
			continue
		}
		ret, ctx, err := native(c.program(), c.context())
		if err != nil {
			t.Errorf("%s: %+v", c.name, err)
			continue
		}
		if got := binary.LittleEndian.Uint64(ctx); got != c.want || ret != 7 {
			t.Errorf("%s: got %#x, returns %d, wanted %#x", c.name, got, ret, c.want)
		}
	}
}

// native has the kernel verify and run a program, and returns what the context is then.
func native(insns asm.Instructions, ctx []byte) (uint32, []byte, error) {
	withAtomics(insns)
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.Syscall,
		Flags:        1 << 4, // BPF_F_SLEEPABLE, which the type must be
		License:      "GPL",
		Instructions: insns,
	})
	if err != nil {
		return 0, nil, err
	}
	defer p.Close()
	out := make([]byte, len(ctx))
	ret, err := p.Run(&ebpf.RunOptions{Context: ctx, ContextOut: out})
	return ret, out, err
}
