package inspect

import (
	"encoding/binary"
	"slices"
)

// struct bpf_insn: code u8, dst_reg:4 src_reg:4, off s16, imm s32.
const (
	insnSize    = 8
	call        = 0x85 // BPF_JMP | BPF_CALL
	pseudoKfunc = 2    // BPF_PSEUDO_KFUNC_CALL
)

const (
	// maxKfuncs is MAX_KFUNC_DESCS (kernel/bpf/verifier.c): with more a program isn't
	// loaded.
	maxKfuncs = 256
	// maxStrange is how many helpers that we don't know are told apart. The kernel
	// refuses programs with any that it doesn't know itself.
	maxStrange = 64
)

// kfunc is a function of the kernel as a call names it: the index of its BTF in fd_array,
// 0 for the kernel's own, and its type's id there.
type kfunc struct {
	index int16
	id    int32
}

func (k kfunc) compare(o kfunc) int {
	if k.index != o.index {
		return int(k.index) - int(o.index)
	}
	return int(k.id) - int(o.id)
}

// knownHelpers is more than a kernel has: 212 in Linux 6.18.
const knownHelpers = 256

// calls are what a program's instructions call, subprograms included.
type calls struct {
	helpers [knownHelpers]bool
	strange []int32 // helpers that have no name, ascending
	kfuncs  []kfunc // ascending
	// Too many of a kind: there are others.
	tooStrange, tooManyKfuncs bool
}

// scan looks at all instructions, also at those that can't be reached, and at the second
// half of long ones: nothing that the kernel takes for a call is missed.
func (c *calls) scan(insns []byte) {
	*c = calls{strange: c.strange[:0], kfuncs: c.kfuncs[:0]}
	for ; len(insns) >= insnSize; insns = insns[insnSize:] {
		if insns[0] != call {
			continue
		}
		imm := int32(binary.LittleEndian.Uint32(insns[4:]))
		switch insns[1] >> 4 {
		case 0:
			c.helper(imm)
		case pseudoKfunc:
			c.kfunc(kfunc{int16(binary.LittleEndian.Uint16(insns[2:])), imm})
		}
	}
}

func (c *calls) helper(id int32) {
	if id > 0 && int(id) < len(c.helpers) {
		c.helpers[id] = true
		return
	}
	at, found := slices.BinarySearch(c.strange, id)
	switch {
	case found:
	case len(c.strange) == maxStrange:
		c.tooStrange = true
	default:
		c.strange = slices.Insert(c.strange, at, id)
	}
}

func (c *calls) kfunc(k kfunc) {
	if k == (kfunc{}) {
		return // a weak one that the loader hasn't found: it isn't called (fetch_kfunc_meta)
	}
	at, found := slices.BinarySearchFunc(c.kfuncs, k, kfunc.compare)
	switch {
	case found:
	case len(c.kfuncs) == maxKfuncs:
		c.tooManyKfuncs = true
	default:
		c.kfuncs = slices.Insert(c.kfuncs, at, k)
	}
}
