// Package guard puts instructions before a program by which its body runs for the tasks of
// one cgroup, and of those below it, alone. It is pure: no system call.
//
//	r6 = r1                                        the context, kept
//	r1 = level
//	call bpf_get_current_ancestor_cgroup_id
//	r1 = id ll
//	if r0 == r1 goto +2
//	r0 = foreign
//	exit
//	r1 = r6
//
// All jumps, calls and references to functions of a program are relative to where they
// stand, so the program itself stays as it is; what speaks of its instructions by their
// number (func_info, line_info, CO-RE relocations) is moved. The verifier sees the whole:
// that the program was verified without its guard is no reason to trust it.
package guard

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/bpfbroker/bpfbroker/abi"
)

// Scope is a cgroup of v2: for whose tasks a program runs.
type Scope struct {
	ID    uint64 // of the cgroup: its directory's inode number
	Level int    // how far it is below the root of the hierarchy, from 1 on
}

// Known says whether it is a cgroup: the zero value isn't, and the root, where all tasks
// are, is none to be guarded.
func (s Scope) Known() bool { return s.ID != 0 && s.Level > 0 }

const (
	InsnSize = 8 // bytes of an instruction
	// Insns is how many instructions a guard has, as the kernel counts them.
	Insns = 9
	Size  = Insns * InsnSize // bytes of it

	ancestorCgroupID = 123 // BPF_FUNC_get_current_ancestor_cgroup_id
	callAt           = 2   // instruction that calls it
	foreignAt        = 6   // instruction with the value for other tasks
)

// guard makes the instructions.
func (s Scope) guard(foreign int32) []byte {
	b := make([]byte, 0, Size)
	insn := func(code, regs uint8, off int16, imm uint32) {
		b = binary.NativeEndian.AppendUint16(append(b, code, regs), uint16(off))
		b = binary.NativeEndian.AppendUint32(b, imm)
	}
	const dst6src1, dst1src6, dst0src1 = 1<<4 | 6, 6<<4 | 1, 1 << 4
	insn(0xbf, dst6src1, 0, 0)         // BPF_ALU64 | BPF_MOV | BPF_X
	insn(0xb7, 1, 0, uint32(s.Level))  // BPF_ALU64 | BPF_MOV | BPF_K
	insn(0x85, 0, 0, ancestorCgroupID) // BPF_JMP | BPF_CALL
	insn(0x18, 1, 0, uint32(s.ID))     // BPF_LD | BPF_IMM | BPF_DW
	insn(0, 0, 0, uint32(s.ID>>32))    // its second half
	insn(0x1d, dst0src1, 2, 0)         // BPF_JMP | BPF_JEQ | BPF_X
	insn(0xb7, 0, 0, uint32(foreign))  // BPF_ALU64 | BPF_MOV | BPF_K
	insn(0x95, 0, 0, 0)                // BPF_JMP | BPF_EXIT
	insn(0xbf, dst1src6, 0, 0)         // BPF_ALU64 | BPF_MOV | BPF_X
	return b
}

// Records are what a program says of its instructions, one after another, each Size bytes
// long (struct bpf_func_info, bpf_line_info, bpf_core_relo): the first four bytes of each
// are where it is.
type Records struct {
	Data []byte
	Size int
}

// Program is what BPF_PROG_LOAD is given.
type Program struct {
	Insns     []byte
	FuncInfo  Records
	LineInfo  Records
	CoreRelos Records // at offsets in bytes; the others count instructions
}

var (
	errLong    = fmt.Errorf("with its guard it would have more than %d instructions", abi.MaxInsns)
	errRecords = errors.New("its func_info, line_info or core_relos are cut")
)

// Guard returns the program with a guard before it, for whose tasks s says; to others it
// returns foreign. It is made in room, which has room for the program, its records and a
// guard, and shares nothing with p.
func (s Scope) Guard(p *Program, foreign int32, room []byte) (*Program, error) {
	if len(p.Insns)/InsnSize > abi.MaxInsns-Insns {
		return nil, errLong
	}
	put := func(parts ...[]byte) []byte {
		b := room[:0]
		for _, part := range parts {
			b = append(b, part...)
		}
		room = room[len(b):]
		return b[:len(b):len(b)]
	}
	g := &Program{Insns: put(s.guard(foreign), p.Insns)}
	for _, r := range []struct {
		from, to *Records
		by       uint32
	}{{&p.FuncInfo, &g.FuncInfo, Insns}, {&p.LineInfo, &g.LineInfo, Insns}, {&p.CoreRelos, &g.CoreRelos, Size}} {
		*r.to = Records{put(r.from.Data), r.from.Size}
		if !r.to.move(r.by, r.to != &g.CoreRelos) {
			return nil, errRecords
		}
	}
	return g, nil
}

// move adds to where records are. Of functions and lines the kernel wants the first one
// where the program begins, which is now the guard.
func (r *Records) move(by uint32, keepFirst bool) bool {
	const at = 4
	if len(r.Data) == 0 {
		return true
	}
	if r.Size < at || len(r.Data)%r.Size != 0 {
		return false
	}
	for i := 0; i < len(r.Data); i += r.Size {
		if n := binary.NativeEndian.Uint32(r.Data[i:]); n > 0 || !keepFirst {
			binary.NativeEndian.PutUint32(r.Data[i:], n+by)
		}
	}
	return true
}

// Begins says whether a program, as the kernel shows its instructions
// (bpf_prog_info.xlated_prog_insns), begins with a guard of this scope. What number the
// helper has there, the kernel says as it likes.
func (s Scope) Begins(insns []byte) bool {
	if !s.Known() || len(insns) < Size {
		return false
	}
	foreign := binary.NativeEndian.Uint32(insns[foreignAt*InsnSize+4:])
	g := s.guard(int32(foreign))
	const imm = callAt*InsnSize + 4
	return bytes.Equal(g[:imm], insns[:imm]) && bytes.Equal(g[imm+4:], insns[imm+4:Size])
}

// Without takes the guard away from what the kernel shows of a program that Begins with
// it: of its instructions, and of records of functions and lines, in place.
func Without(insns []byte) []byte { return insns[min(Size, len(insns)):] }

// Back is where records of functions and lines are in the program without its guard.
func (r *Records) Back() { r.move(^uint32(Insns)+1, true) }
