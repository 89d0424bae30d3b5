// Package digest identifies a program by what it does: a SHA-256 of its instructions
// that doesn't depend on fd numbers, addresses or ids, nor on the order in which a loader
// has put its functions.
//
// What is hashed:
//
//   - The functions, each as the number of its instructions and they themselves: first
//     main, which begins at instruction 0, then the others in the order in which they are
//     first named (BPF_PSEUDO_CALL, BPF_PSEUDO_FUNC), going through the functions in that
//     same order; then those that nobody names, as they lie there. A function ends where
//     the next one begins.
//   - Where a function is named, its place in that order, from 0 on.
//   - Where a map is named, its place in the order in which maps are first named, from 0
//     on. BPF_PSEUDO_MAP_IDX counts as BPF_PSEUDO_MAP_FD, and BPF_PSEUDO_MAP_IDX_VALUE as
//     BPF_PSEUDO_MAP_VALUE; which of them is there depends on the loader.
//   - Where a BTF is named (BPF_PSEUDO_BTF_ID, BPF_PSEUDO_KFUNC_CALL), 0 for the kernel's,
//     else its place among the others from 1 on. Numbers of types are as they are: they
//     belong to one build of the kernel.
//   - All else as it is.
//
// Instructions that don't hang together like that (half of a ld_imm64, a function that
// begins nowhere, a jump from one function to another), which the verifier refuses, are
// hashed as they are, so that every sequence of bytes has a digest.
//
// See include/uapi/linux/bpf.h for the pseudo instructions, and kernel/bpf/verifier.c,
// resolve_pseudo_ldimm64 and add_subprog_and_kfunc, for what they refer to.
package digest

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"slices"
)

// Size is a digest's size in bytes.
const Size = sha256.Size

// Refs are what the numbers in instructions stand for.
type Refs struct {
	// FDs are the fds that fd_array holds.
	FDs []int32
	// Object says which map or BTF an fd is of: fds with the same number are one. nil: each
	// fd is an object of its own.
	Object func(fd int32) uint64
}

func (r *Refs) of(fd int32) uint64 {
	if r.Object == nil {
		return uint64(uint32(fd))
	}
	return r.Object(fd)
}

// at is the object of the fd at an index of fd_array; what isn't there is none.
func (r *Refs) at(index int32) uint64 {
	if index < 0 || int(index) >= len(r.FDs) {
		return 1<<63 | uint64(uint32(index))
	}
	return r.of(r.FDs[index])
}

// Codes and source registers of instructions that name something.
const (
	ldImm64 = 0x18
	call    = 0x85
	exit    = 0x95
	ja32    = 0x06 // BPF_JMP32 | BPF_JA, whose offset is its immediate

	classMask     = 0x07
	classJmp      = 0x05
	classJmp32    = 0x06
	pseudoMapFD   = 1
	pseudoMapVal  = 2
	pseudoBTFID   = 3
	pseudoFunc    = 4
	pseudoMapIdx  = 5
	pseudoIdxVal  = 6
	pseudoCall    = 1
	pseudoKfunc   = 2
	insnSize      = 8
	kindFunctions = "bpfbroker digest 1: functions\n"
	kindBytes     = "bpfbroker digest 1: bytes\n"
)

func source(insn []byte) uint8  { return insn[1] >> 4 }
func offset(insn []byte) int16  { return int16(binary.LittleEndian.Uint16(insn[2:])) }
func immed(insn []byte) int32   { return int32(binary.LittleEndian.Uint32(insn[4:])) }
func setImm(insn []byte, n int) { binary.LittleEndian.PutUint32(insn[4:], uint32(n)) }

// Sum is the digest of a program.
func Sum(insns []byte, refs Refs) [Size]byte {
	h := sha256.New()
	p := program{insns: insns, refs: &refs}
	if p.split() {
		h.Write([]byte(kindFunctions))
		p.write(h)
	} else {
		h.Write([]byte(kindBytes))
		h.Write(insns)
	}
	return [Size]byte(h.Sum(nil))
}

type program struct {
	insns []byte
	refs  *Refs

	begins []int  // of functions, ascending
	order  []int  // of functions, as they are hashed: indexes into begins
	place  []int  // of each function in order, -1: none yet
	maps   places // of maps
	btfs   places // of BTFs
}

// places numbers objects in the order in which they are first seen.
type places map[uint64]int

func (p *places) of(object uint64) int {
	if *p == nil {
		*p = places{}
	}
	n, seen := (*p)[object]
	if !seen {
		n = len(*p)
		(*p)[object] = n
	}
	return n
}

func (p *program) len() int           { return len(p.insns) / insnSize }
func (p *program) insn(i int) []byte  { return p.insns[i*insnSize : (i+1)*insnSize] }
func (p *program) function(i int) int { n, _ := slices.BinarySearch(p.begins, i); return n }

// named is the instruction that the one at i names as a function's first.
func (p *program) named(i int) (target int, is bool) {
	insn := p.insn(i)
	if insn[0] == call && source(insn) == pseudoCall || insn[0] == ldImm64 && source(insn) == pseudoFunc {
		return i + 1 + int(immed(insn)), true
	}
	return 0, false
}

// split finds the functions. False: the instructions don't hang together.
func (p *program) split() bool {
	n := p.len()
	if n == 0 || len(p.insns)%insnSize != 0 {
		return false
	}
	second := make([]bool, n) // halves of ld_imm64
	p.begins = append(p.begins, 0)
	for i := 0; i < n; i++ {
		if target, is := p.named(i); is {
			if target < 0 || target >= n {
				return false
			}
			p.begins = append(p.begins, target)
		}
		if p.insn(i)[0] == ldImm64 {
			if i++; i == n {
				return false
			}
			second[i] = true
		}
	}
	slices.Sort(p.begins)
	p.begins = slices.Compact(p.begins)
	for f, begin := range p.begins {
		if second[begin] || !p.whole(begin, p.end(f)) {
			return false
		}
	}
	return true
}

func (p *program) end(f int) int {
	if f+1 < len(p.begins) {
		return p.begins[f+1]
	}
	return p.len()
}

// whole says whether all jumps of a function stay in it.
func (p *program) whole(begin, end int) bool {
	for i := begin; i < end; i++ {
		insn := p.insn(i)
		switch class := insn[0] & classMask; {
		case insn[0] == ldImm64:
			i++
		case insn[0] == call || insn[0] == exit || class != classJmp && class != classJmp32:
		default:
			to := i + 1 + int(offset(insn))
			if insn[0] == ja32 {
				to = i + 1 + int(immed(insn))
			}
			if to < begin || to >= end {
				return false
			}
		}
	}
	return true
}

// write hashes the functions.
func (p *program) write(h hash.Hash) {
	p.place = slices.Repeat([]int{-1}, len(p.begins))
	p.visit(0)
	for done := 0; ; done++ {
		if done == len(p.order) {
			f := slices.Index(p.place, -1) // that nobody names: none is left out
			if f < 0 {
				return
			}
			p.visit(f)
		}
		p.writeFunction(h, p.order[done])
	}
}

// visit puts a function into the order, and returns its place there.
func (p *program) visit(f int) int {
	if p.place[f] < 0 {
		p.place[f] = len(p.order)
		p.order = append(p.order, f)
	}
	return p.place[f]
}

func (p *program) writeFunction(h hash.Hash, f int) {
	var size [insnSize]byte
	binary.LittleEndian.PutUint64(size[:], uint64(p.end(f)-p.begins[f]))
	h.Write(size[:])
	var buf [512 * insnSize]byte
	b := buf[:0]
	for i := p.begins[f]; i < p.end(f); i++ {
		if len(b)+2*insnSize > len(buf) {
			h.Write(b)
			b = buf[:0]
		}
		at := len(b)
		b = append(b, p.insn(i)...)
		insn := b[at:]
		if target, is := p.named(i); is {
			setImm(insn, p.visit(p.function(target)))
		}
		switch {
		case insn[0] == call && source(insn) == pseudoKfunc && offset(insn) != 0:
			// An index of 0 is the kernel's own BTF.
			binary.LittleEndian.PutUint16(insn[2:], uint16(1+p.btfs.of(p.refs.at(int32(offset(insn))))))
		case insn[0] == ldImm64:
			i++
			b = append(b, p.insn(i)...)
			p.load(b[at:])
		}
	}
	h.Write(b)
}

// load takes the numbers out of a ld_imm64, both its halves.
func (p *program) load(insn []byte) {
	src, second := source(insn), insn[insnSize:]
	var object uint64
	switch src {
	case pseudoMapFD, pseudoMapVal:
		object = p.refs.of(immed(insn))
	case pseudoMapIdx, pseudoIdxVal:
		object = p.refs.at(immed(insn))
		insn[1] = insn[1]&0x0f | (src-pseudoMapIdx+pseudoMapFD)<<4
	case pseudoBTFID:
		if fd := immed(second); fd != 0 {
			setImm(second, 1+p.btfs.of(p.refs.of(fd)))
		}
		return
	default:
		return
	}
	setImm(insn, p.maps.of(object))
}
