// Package guard puts instructions before a program by which its body runs for the tasks of
// one cgroup, and of those below it, alone. It is pure: no system call.
//
//	r6 = r1                                        the context, kept
//	r1 = level
//	call bpf_get_current_ancestor_cgroup_id
//	r1 = id ll
//	if r0 == r1 goto body
//	r1 = tag ll                                    nobody looks at these: what the kernel
//	w2 = verified                                  says of the program as it was
//	w3 = 0
//	r0 = foreign
//	exit
//	body:
//	r1 = r6
//
// And it has a program know processes and users as its workload knows them: see IDs.
//
// The verifier sees the whole: that the program was verified without its guard is no reason
// to trust it.
package guard

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

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
	Insns = 13
	Size  = Insns * InsnSize // bytes of it

	ancestorCgroupID = 123 // BPF_FUNC_get_current_ancestor_cgroup_id

	// Its instructions that aren't the same for all programs of a workload, or that the
	// kernel shows otherwise.
	callAt, tagAt, verifiedAt, spareAt, foreignAt = 2, 6, 8, 9, 10
)

// Original is what the kernel says of a program that nobody has put a guard before.
type Original struct {
	Tag      [8]byte // bpf_prog_info.tag
	Verified uint32  // bpf_prog_info.verified_insns
}

// emit appends an instruction.
func emit(b []byte, code, regs uint8, off int16, imm uint32) []byte {
	b = binary.NativeEndian.AppendUint16(append(b, code, regs), uint16(off))
	return binary.NativeEndian.AppendUint32(b, imm)
}

// Codes of instructions.
const (
	movImm, movReg, mov32Imm, mov32Reg = 0xb7, 0xbf, 0xb4, 0xbc
	addImm, add32Imm                   = 0x07, 0x04
	call, exit, wide                   = 0x85, 0x95, 0x18
)

// guard makes the instructions; spare is one that nobody needs, see IDs.
func (s Scope) guard(foreign int32, o Original, spare []byte) []byte {
	b := make([]byte, 0, Size)
	insn := func(code, regs uint8, off int16, imm uint32) { b = emit(b, code, regs, off, imm) }
	const (
		dst6src1, dst1src6, dst0src1 = 1<<4 | 6, 6<<4 | 1, 1 << 4
		jeqReg, body                 = 0x1d, 6
	)
	insn(movReg, dst6src1, 0, 0)
	insn(movImm, 1, 0, uint32(s.Level))
	insn(call, 0, 0, ancestorCgroupID)
	insn(wide, 1, 0, uint32(s.ID))
	insn(0, 0, 0, uint32(s.ID>>32)) // its second half
	insn(jeqReg, dst0src1, body, 0)
	insn(wide, 1, 0, binary.NativeEndian.Uint32(o.Tag[:]))
	insn(0, 0, 0, binary.NativeEndian.Uint32(o.Tag[4:]))
	insn(mov32Imm, 2, 0, o.Verified)
	b = append(b, spare...)
	insn(movImm, 0, 0, uint32(foreign))
	insn(exit, 0, 0, 0)
	insn(movReg, dst1src6, 0, 0)
	return b
}

// noSpare is there where nothing is needed.
var noSpare = emit(nil, mov32Imm, 3, 0, 0)

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
	errMemory  = errors.New("there is no memory for it")
)

// Guard is what a program gets.
type Guard struct {
	Scope    Scope
	Foreign  int32 // what it returns for other tasks, see Foreign
	Original Original
	IDs      *IDs  // nil: processes and users are those of the host
	Depths   []int // bytes of stack of each of its functions, as StackDepths has them; for IDs that need it
}

// Program returns the program with a guard before it. It is made in room, which returns so
// many bytes, or nil; and shares nothing with p.
func (g *Guard) Program(p *Program, room func(n int) []byte) (*Program, error) {
	n := len(p.Insns) / InsnSize
	var e edit
	e.add(0, 0, g.Scope.guard(g.Foreign, g.Original, g.IDs.spare(p.Insns)))
	if err := g.IDs.edit(&e, p, g.Depths); err != nil {
		return nil, err
	}
	if e.length(n) > abi.MaxInsns {
		return nil, errLong
	}
	b := room(e.length(n)*InsnSize + len(p.FuncInfo.Data) + len(p.LineInfo.Data) + len(p.CoreRelos.Data))
	if b == nil {
		return nil, errMemory
	}
	insns, err := e.apply(b, p.Insns, false)
	if err != nil {
		return nil, err
	}
	out := &Program{Insns: slices.Clip(insns)}
	b = b[len(insns):]
	for _, r := range []struct {
		from, to *Records
		unit     int
	}{{&p.FuncInfo, &out.FuncInfo, 1}, {&p.LineInfo, &out.LineInfo, 1}, {&p.CoreRelos, &out.CoreRelos, InsnSize}} {
		*r.to = Records{slices.Clip(append(b[:0], r.from.Data...)), r.from.Size}
		b = b[len(r.from.Data):]
		if !e.move(r.to, r.unit, r.unit == 1) {
			return nil, errRecords
		}
	}
	return out, nil
}

// Shown is a guarded program as the kernel shows it, and how to show it as it was.
type Shown struct {
	Original
	edit edit
}

// Begins finds in what the kernel shows of a program (bpf_prog_info.xlated_prog_insns), Size
// bytes of it at least, a guard of this scope; false: there is none. What number the helper
// has there, the kernel says as it likes.
func (s Scope) Begins(insns []byte) (o Original, is bool) {
	if !s.Known() || len(insns) < Size {
		return o, false
	}
	imm := func(at int) []byte { return insns[at*InsnSize+4:][:4] }
	copy(o.Tag[:], imm(tagAt))
	copy(o.Tag[4:], imm(tagAt+1))
	o.Verified = binary.NativeEndian.Uint32(imm(verifiedAt))
	spare := insns[spareAt*InsnSize:][:InsnSize]
	if !bytes.Equal(spare, noSpare) && !isCall(spare) {
		return o, false
	}
	g := s.guard(int32(binary.NativeEndian.Uint32(imm(foreignAt))), o, spare)
	copy(g[callAt*InsnSize+4:], imm(callAt))
	return o, bytes.Equal(g, insns[:Size])
}

// Undo is for a program of which the kernel shows these instructions, all that there are,
// the first of which are a guard; ids are those that it was guarded with.
func (s Scope) Undo(insns []byte, ids *IDs) (*Shown, bool) {
	o, is := s.Begins(insns)
	if !is {
		return nil, false
	}
	u := &Shown{Original: o}
	u.edit.add(0, Insns, nil)
	ids.undo(&u.edit, insns)
	return u, true
}

// Insns are the instructions without what was put there, in the place of those that the
// kernel has shown.
func (u *Shown) Insns(insns []byte) ([]byte, error) { return u.edit.apply(insns, insns, true) }

// Records puts right where functions and lines are in them.
func (u *Shown) Records(r *Records) { u.edit.move(r, 1, true) }

// isCall says whether an instruction calls a helper.
func isCall(insn []byte) bool {
	return insn[0] == call && insn[1] == 0 && insn[2] == 0 && insn[3] == 0
}
