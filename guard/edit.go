package guard

import (
	"encoding/binary"
	"errors"
	"math"
	"sort"
)

// An edit puts instructions in the place of others. Jumps, calls of functions and
// references to them are relative to where they stand, and are put right; so is what says
// of a program where its functions and lines are.
type edit []patch

// patch replaces n instructions. Where n is 0, its own go before the one at its place, and
// who jumps to that doesn't meet them.
type patch struct {
	at, n int
	with  []byte
	shift int // by how much what comes behind it is moved, by this patch and those before it
}

// add appends a patch that begins behind those that there are.
func (e *edit) add(at, n int, with []byte) {
	shift := len(with)/InsnSize - n
	if l := len(*e); l > 0 {
		shift += (*e)[l-1].shift
	}
	*e = append(*e, patch{at, n, with, shift})
}

// to is where the instruction at i is then. What is in the place of several is where the
// first one was.
func (e edit) to(i int) int {
	k := sort.Search(len(e), func(k int) bool { return e[k].at+e[k].n > i }) // the first that doesn't end before
	shift := 0
	if k > 0 {
		shift = e[k-1].shift
	}
	if k < len(e) && e[k].at < i {
		i = e[k].at
	}
	return i + shift
}

// length is how many instructions there are then.
func (e edit) length(insns int) int {
	if len(e) == 0 {
		return insns
	}
	return insns + e[len(e)-1].shift
}

// target is where an instruction says to what it refers.
type target uint8

const (
	none  target = iota
	inOff        // in its 16 bit offset
	inImm        // in its 32 bit number
	inMap        // in a map
)

// targetOf is for instructions as they are loaded, or as the kernel shows them: it has
// the distance to a function that is called elsewhere then (kernel/bpf/verifier.c,
// jit_subprogs).
func targetOf(insn []byte, shown bool) target {
	const (
		ja, jaX, gotol, call, exit, wide = 0x05, 0x0d, 0x06, 0x80, 0x90, 0x18
		pseudoCall, pseudoFunc           = 1, 4
	)
	code, src := insn[0], insn[1]>>4
	switch class := code & 7; {
	case code == wide && src == pseudoFunc, code == gotol:
		return inImm
	case code == jaX:
		return inMap
	case class != 5 && class != 6 || code&0xf0 == exit:
		return none
	case code&0xf0 != call:
		return inOff // may_goto, too
	case src != pseudoCall:
		return none
	case shown:
		return inOff
	}
	return inImm
}

var (
	errFar  = errors.New("it would have jumps that are too far")
	errAway = errors.New("it has jumps to where it has no instructions, or that are in a map")
)

// apply writes the edited instructions to out, which has room for them, and may be insns
// itself where none of the patches makes them more.
func (e edit) apply(out, insns []byte, shown bool) ([]byte, error) {
	n := len(insns) / InsnSize
	out = out[:0]
	next := 0 // the next patch
	for i := 0; i < n; {
		if next < len(e) && e[next].at == i {
			p := &e[next]
			out = append(out, p.with...)
			next++
			i += p.n
			continue
		}
		var insn [InsnSize]byte
		copy(insn[:], insns[i*InsnSize:])
		where := targetOf(insn[:], shown)
		from := len(out)/InsnSize + 1
		var by int
		switch where {
		case inMap:
			return nil, errAway
		case inOff:
			by = int(int16(binary.NativeEndian.Uint16(insn[2:])))
		case inImm:
			by = int(int32(binary.NativeEndian.Uint32(insn[4:])))
		}
		if where != none {
			to := i + 1 + by
			if to < 0 || to > n {
				return nil, errAway
			}
			by = e.to(to) - from
		}
		switch {
		case where == inOff && by != int(int16(by)), where == inImm && (by > math.MaxInt32 || by < math.MinInt32):
			return nil, errFar
		case where == inOff:
			binary.NativeEndian.PutUint16(insn[2:], uint16(by))
		case where == inImm:
			binary.NativeEndian.PutUint32(insn[4:], uint32(by))
		}
		out = append(out, insn[:]...)
		const wide = 0x18
		if i++; insn[0] == wide && i < n { // the other half of its number
			out = append(out, insns[i*InsnSize:][:InsnSize]...)
			i++
		}
	}
	return out, nil
}

// Records are what a program says of its instructions, one after another, each Size bytes
// long (struct bpf_func_info, bpf_line_info, bpf_core_relo): the first four bytes of each
// are where it is.
type Records struct {
	Data []byte
	Size int
}

// move puts right where records are; unit is in what they count instructions. Of functions
// and lines (first) the kernel wants one where the program begins, whatever is put before
// what was there.
func (e edit) move(r *Records, unit int, first bool) bool {
	const at = 4
	if len(r.Data) == 0 {
		return true
	}
	if r.Size < at || len(r.Data)%r.Size != 0 {
		return false
	}
	for i := 0; i < len(r.Data); i += r.Size {
		n := binary.NativeEndian.Uint32(r.Data[i:])
		if n == 0 && first {
			continue
		}
		to := e.to(int(n)/unit)*unit + int(n)%unit
		if to > math.MaxInt32 {
			return false
		}
		binary.NativeEndian.PutUint32(r.Data[i:], uint32(to))
	}
	return true
}
