package loader

import (
	"math/bits"
)

// alu is what ALU and ALU64 instructions do: the new dst for the old one and the operand,
// which is src or imm. Of ALU the result is 32 bits, and the rest of dst becomes 0.
//
// Division by 0 is 0, and what remains of it is the dividend (the verifier's
// fixups say so); the most negative number divided by -1 is itself, as in Go.
func alu(in insn, dst, operand uint64) uint64 {
	if in.op() == aluEND {
		return end(in, dst)
	}
	if in.class() == classALU64 {
		return compute[uint64, int64](in, dst, operand, 63)
	}
	return uint64(compute[uint32, int32](in, uint32(dst), uint32(operand), 31))
}

// compute does it with numbers of one width. shifts are the bits of an operand that count
// when it says how far to shift.
func compute[U uint32 | uint64, S int32 | int64](in insn, d, s, shifts U) U {
	signed := in.off == 1
	switch in.op() {
	case aluADD:
		return d + s
	case aluSUB:
		return d - s
	case aluMUL:
		return d * s
	case aluDIV:
		switch {
		case s == 0:
			return 0
		case signed:
			return U(S(d) / S(s))
		}
		return d / s
	case aluMOD:
		switch {
		case s == 0:
			return d
		case signed:
			return U(S(d) % S(s))
		}
		return d % s
	case aluOR:
		return d | s
	case aluAND:
		return d & s
	case aluXOR:
		return d ^ s
	case aluLSH:
		return d << (s & shifts)
	case aluRSH:
		return d >> (s & shifts)
	case aluARSH:
		return U(S(d) >> (s & shifts))
	case aluNEG:
		return -d
	}
	return U(extend(in.off, uint64(s))) // aluMOV
}

// extend is v with the sign of its low bits; 0 bits: v itself.
func extend(width int16, v uint64) uint64 {
	switch width {
	case 8:
		return uint64(int8(v))
	case 16:
		return uint64(int16(v))
	case 32:
		return uint64(int32(v))
	}
	return v
}

// end is BPF_END: a swap of bytes to big endian, or always (ALU64); to little endian,
// which numbers are already, it only cuts.
func end(in insn, v uint64) uint64 {
	swap := in.x() || in.class() == classALU64
	switch in.imm {
	case 16:
		if swap {
			return uint64(bits.ReverseBytes16(uint16(v)))
		}
		return uint64(uint16(v))
	case 32:
		if swap {
			return uint64(bits.ReverseBytes32(uint32(v)))
		}
		return uint64(uint32(v))
	}
	if swap {
		return bits.ReverseBytes64(v)
	}
	return v
}

// taken says whether a conditional jump jumps; may_goto never does, as it is to be
// taken when a loop has lasted long, and a run ends with an error then (MaxSteps).
func taken(in insn, d, s uint64) bool {
	sd, ss := int64(d), int64(s)
	if in.class() == classJMP32 {
		d, s = uint64(uint32(d)), uint64(uint32(s))
		sd, ss = int64(int32(d)), int64(int32(s))
	}
	switch in.op() {
	case jmpJEQ:
		return d == s
	case jmpJNE:
		return d != s
	case jmpJGT:
		return d > s
	case jmpJGE:
		return d >= s
	case jmpJLT:
		return d < s
	case jmpJLE:
		return d <= s
	case jmpJSET:
		return d&s != 0
	case jmpJSGT:
		return sd > ss
	case jmpJSGE:
		return sd >= ss
	case jmpJSLT:
		return sd < ss
	case jmpJSLE:
		return sd <= ss
	}
	return false
}
