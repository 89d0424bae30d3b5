package confine

import (
	"fmt"

	"github.com/bpfbroker/bpfbroker/filter"
)

// code is a piece of a program that jumps to places in itself, and to its own end.
// Pieces are put together from their ends backwards, so that it is known how far a
// jump goes; there are no labels.
type code []filter.Instruction

func load(off uint32) filter.Instruction { return filter.Instruction{Code: opLoad, K: off} }

func and(mask uint32) filter.Instruction { return filter.Instruction{Code: opAnd, K: mask} }

// jump skips jt instructions if the comparison with k holds, and jf if not.
func jump(op uint16, k uint32, jt, jf int) filter.Instruction {
	return filter.Instruction{Code: op, Jt: uint8(jt), Jf: uint8(jf), K: k}
}

func ret(action uint32) code { return code{{Code: opRet, K: action}} }

// search is a balanced search for the run that the number in the accumulator is in.
func search(r []run) code {
	if len(r) == 1 {
		return r[0].answer
	}
	mid := len(r) / 2
	low, high := search(r[:mid]), search(r[mid:])
	out := code{jump(opJge, r[mid].from, len(low), 0)}
	if len(low) > maxConditionalJump {
		out = code{jump(opJge, r[mid].from, 0, 1), {Code: opJa, K: uint32(len(low))}}
	}
	out = append(out, low...)
	return append(out, high...)
}

// require goes on at its end if the argument is one of the values, and answers EPERM
// if not.
func require(r *Rule, values []Value) (code, error) {
	out := ret(_SECCOMP_RET_ERRNO | _EPERM)
	for i := len(values) - 1; i >= 0; i-- {
		if len(out) > maxConditionalJump {
			return nil, fmt.Errorf("%d values are too many for a conditional jump, which skips at most %d instructions", len(values), maxConditionalJump)
		}
		// If the value before was compared as it is, it is still loaded.
		loaded := i > 0 && !r.Wide() && uint32(values[i-1].Mask) == allBits
		out = append(match(r, values[i], loaded, len(out)), out...)
	}
	return out, nil
}

// match skips, beyond its end, what follows it if the argument is the value. loaded
// says that the accumulator has the argument's low word.
func match(r *Rule, v Value, loaded bool, skip int) code {
	low := word(offArgs+8*uint32(r.Arg), uint32(v.Mask), loaded)
	low = append(low, jump(opJeq, uint32(v.Want), skip, 0))
	if !r.Wide() {
		return low
	}
	high := word(offArgs+8*uint32(r.Arg)+4, uint32(v.Mask>>32), false)
	high = append(high, jump(opJeq, uint32(v.Want>>32), 0, len(low)))
	return append(high, low...)
}

// word loads the bits of a word that a mask says.
func word(off, mask uint32, loaded bool) code {
	var out code
	if !loaded {
		out = append(out, load(off))
	}
	if mask != allBits {
		out = append(out, and(mask))
	}
	return out
}

const allBits = 1<<32 - 1
