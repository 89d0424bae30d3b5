// Package digest identifies a program by its instructions: the normalised SHA-256.
//
// The same object file gives the same digest on the same kernel, whatever numbers the
// fds have that a loader put into the instructions, and in whatever order it laid the
// functions out. A program of which any instruction differs has another digest.
//
// # Algorithm
//
// Instructions are struct bpf_insn (include/uapi/linux/bpf.h), 8 bytes each, numbers
// little-endian.
//
//  1. Functions. One begins at instruction 0, and one wherever a call
//     (BPF_PSEUDO_CALL) or an address of a function (BPF_PSEUDO_FUNC) leads, as the
//     kernel has it (kernel/bpf/verifier.c, add_subprog_and_kfunc). Each ends where the
//     next begins. (A function that nothing names is part of the one before it.)
//  2. Order. The first function comes first; then breadth first, in the order in which
//     the instructions of those before name them; then those that none of these names,
//     in the order in which they lie. The ordinal of a function is its place in this.
//  3. In this order, for each function: the number of its instructions (32 bits), then
//     the instructions, each as it is but for
//     - call of a function: imm is the function's ordinal;
//     - address of a function: imm is the function's ordinal;
//     - load of a map or of an address in its value: src_reg is BPF_PSEUDO_MAP_FD or
//     BPF_PSEUDO_MAP_VALUE, also where it is the index of an fd in fd_array; imm is the
//     ordinal of the fd among those of maps, in the order of their first appearance,
//     from 0. The offset in the value stays;
//     - load of a kernel variable (BPF_PSEUDO_BTF_ID): imm of the second half is the
//     ordinal of the BTF, the type's id stays;
//     - call of a kernel function (BPF_PSEUDO_KFUNC_CALL): off is the ordinal of the
//     BTF, the type's id stays.
//     The ordinal of a BTF is 0 for the kernel's own; others count from 1 in the order
//     of their first appearance. Two of one name are one; without a name, two of one fd.
//  4. Then the number of BTFs but the kernel's (32 bits), and for each the length of
//     its name (32 bits) and the name: a module's, empty where it isn't known.
//
// The digest is the SHA-256 of "bpfbroker program digest 1\n" and all this.
//
// What the kernel refuses anyway may not have such a form: a half of a 16-byte
// instruction, a call that leads nowhere, more functions, maps or BTFs than a program
// may have, an index that fd_array doesn't have. Then it is the SHA-256 of "bpfbroker
// raw digest 1\n" and the instructions as they are.
//
// # What it doesn't say
//
// Which maps a program uses, what its type is and where it is attached. And what the
// kernel makes of it, where the load has CO-RE relocations for the kernel to apply
// (core_relos): then the instructions aren't what is run.
package digest

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

const (
	domain    = "bpfbroker program digest 1\n"
	rawDomain = "bpfbroker raw digest 1\n"
)

// More of any can't be loaded: BPF_MAX_SUBPROGS, MAX_USED_MAPS, MAX_KFUNC_BTFS and
// MAX_USED_BTFS (include/linux/bpf_verifier.h, kernel/bpf/verifier.c).
const (
	maxFuncs = 256
	maxMaps  = 64
	maxBTFs  = 256 + 64
)

// struct bpf_insn: code u8, dst_reg:4 src_reg:4, off s16, imm s32.
const (
	size = 8

	ldImm64 = 0x18 // BPF_LD | BPF_IMM | BPF_DW
	call    = 0x85 // BPF_JMP | BPF_CALL

	pseudoCall  = 1 // BPF_PSEUDO_CALL
	pseudoKfunc = 2 // BPF_PSEUDO_KFUNC_CALL

	pseudoMapFD       = 1 // BPF_PSEUDO_MAP_FD
	pseudoMapValue    = 2 // BPF_PSEUDO_MAP_VALUE
	pseudoBTFID       = 3 // BPF_PSEUDO_BTF_ID
	pseudoFunc        = 4 // BPF_PSEUDO_FUNC
	pseudoMapIdx      = 5 // BPF_PSEUDO_MAP_IDX
	pseudoMapIdxValue = 6 // BPF_PSEUDO_MAP_IDX_VALUE
)

// Program is what a digest is made of.
type Program struct {
	Insns   []byte // struct bpf_insn
	FDArray []byte // of 32-bit fds, as far as instructions name them
	// BTFName says the name of a BTF by its fd: the module's, "vmlinux", "" if it isn't
	// known. It may be nil.
	BTFName func(fd int32) string
}

// Sum is a digest.
type Sum [sha256.Size]byte

// String is the digest in hexadecimal.
func (s Sum) String() string { return hex.EncodeToString(s[:]) }

// Of returns the digest of a program. It doesn't fail: see the package's text.
func Of(p *Program) (s Sum) {
	w := newWalk(p)
	if !w.functions() || !w.write() {
		return w.raw()
	}
	w.hash.Sum(s[:0])
	return s
}

// insn is one instruction in memory.
type insn []byte

func (i insn) code() byte { return i[0] }
func (i insn) src() byte  { return i[1] >> 4 }
func (i insn) off() int16 { return int16(binary.LittleEndian.Uint16(i[2:])) }
func (i insn) imm() int32 { return int32(binary.LittleEndian.Uint32(i[4:])) }

func (i insn) setSrc(n byte)  { i[1] = i[1]&0xf | n<<4 }
func (i insn) setOff(n int)   { binary.LittleEndian.PutUint16(i[2:], uint16(n)) }
func (i insn) setImm(n int32) { binary.LittleEndian.PutUint32(i[4:], uint32(n)) }

// at is instruction n.
func (p *Program) at(n int) insn { return p.Insns[n*size : n*size+size] }
