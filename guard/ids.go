package guard

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// IDs are a workload's namespaces, by which a program that asks who runs gets the numbers
// that the workload knows.
//
//	call bpf_get_current_pid_tgid      w1 = dev
//	                                   w2 = ino
//	                                   r3 = r10
//	                                   r3 += slot
//	                                   w4 = 8
//	                                   call bpf_get_ns_current_pid_tgid
//	                                   r0 = *(u64 *)(r10 + slot)
//
// which is 0 for a task in a pid namespace below; slot is below what the function uses of
// its stack. After bpf_get_current_uid_gid there are comparisons with each range of the user
// namespace. The helpers clobber r1 to r5, so nobody misses what is in them.
type IDs struct {
	PIDDev, PIDIno uint32 // the pid namespace's device, as the kernel has it, and inode; 0: the initial one
	UIDs, GIDs     []Extent
	Unknown        string // why they aren't known
}

// Unusable says why programs can't be told these; "": they can.
func (ids *IDs) Unusable() string {
	if ids == nil {
		return "nobody has looked at the workload's namespaces"
	}
	return ids.Unknown
}

// Extent is a line of uid_map or gid_map, as the host reads it (user_namespaces(7)).
type Extent struct{ Inside, Host, Count uint32 }

// MaxExtents is how many lines a map may have: each is some instructions at each call.
const MaxExtents = 16

// overflowID is what a uid or gid is that a user namespace has no number for.
const overflowID = 65534

const (
	currentPIDTGID   = 14  // BPF_FUNC_get_current_pid_tgid
	currentUIDGID    = 15  // BPF_FUNC_get_current_uid_gid
	nsCurrentPIDTGID = 120 // BPF_FUNC_get_ns_current_pid_tgid

	maxStack = 512 // MAX_BPF_STACK
)

var errStack = errors.New("its stack has no room for what tells it the workload's process ids")

// pids says whether process ids are others than the kernel's.
func (ids *IDs) pids() bool { return ids != nil && ids.PIDIno != 0 }

// users says whether users and groups are.
func (ids *IDs) users() bool { return ids != nil && (len(ids.UIDs) > 0 || len(ids.GIDs) > 0) }

// NeedsDepths says whether the program can be guarded only by who knows what its functions
// use of their stacks.
func (ids *IDs) NeedsDepths(insns []byte) bool { return ids.pids() && calls(insns, currentPIDTGID) }

// spare is the instruction of the guard that shows by which number the kernel calls the
// helper of which there is no call any more.
func (ids *IDs) spare(insns []byte) []byte {
	if ids.NeedsDepths(insns) {
		return emit(nil, call, 0, 0, currentPIDTGID)
	}
	return noSpare
}

// calls says whether a program calls a helper.
func calls(insns []byte, helper uint32) bool {
	found := false
	each(insns, func(_ int, insn []byte) {
		found = found || isCall(insn) && binary.NativeEndian.Uint32(insn[4:]) == helper
	})
	return found
}

// each goes through the instructions.
func each(insns []byte, do func(i int, insn []byte)) {
	for i := 0; (i+1)*InsnSize <= len(insns); i++ {
		insn := insns[i*InsnSize:][:InsnSize]
		do(i, insn)
		if insn[0] == wide {
			i++
		}
	}
}

// pidTGID are the instructions in the place of a call of bpf_get_current_pid_tgid.
func (ids *IDs) pidTGID(slot int) []byte {
	const dst3src10, dst0src10, load = 10<<4 | 3, 10 << 4, 0x79
	b := emit(make([]byte, 0, 7*InsnSize), mov32Imm, 1, 0, ids.PIDDev)
	b = emit(b, mov32Imm, 2, 0, ids.PIDIno)
	b = emit(b, movReg, dst3src10, 0, 0)
	b = emit(b, addImm, 3, 0, uint32(slot))
	b = emit(b, mov32Imm, 4, 0, 8)
	b = emit(b, call, 0, 0, nsCurrentPIDTGID)
	return emit(b, load, dst0src10, int16(slot), 0) // struct bpf_pidns_info: pid, tgid
}

// uidGID are the instructions behind a call of bpf_get_current_uid_gid.
func (ids *IDs) uidGID() []byte {
	const (
		jump32Less, jump32More       = 0xa6, 0x26 // BPF_JMP32 | BPF_JLT | BPF_K, …JGT…
		shiftRight, shiftLeft, or    = 0x77, 0x67, 0x4f
		dst1src0, dst3src2, dst0src3 = 1, 2<<4 | 3, 3 << 4
	)
	var b []byte
	// in makes of the number in w1 that of the namespace, in reg.
	in := func(reg uint8, extents []Extent) {
		if len(extents) == 0 {
			b = emit(b, mov32Reg, 1<<4|reg, 0, 0)
			return
		}
		b = emit(b, mov32Imm, reg, 0, overflowID)
		for _, x := range extents {
			last := x.Host + x.Count - 1
			if x.Host > 0 {
				n := int16(2)
				if last < 1<<32-1 {
					n++
				}
				b = emit(b, jump32Less, 1, n, x.Host)
			}
			if last < 1<<32-1 {
				b = emit(b, jump32More, 1, 2, last)
			}
			b = emit(b, mov32Reg, 1<<4|reg, 0, 0)
			b = emit(b, add32Imm, reg, 0, x.Inside-x.Host)
		}
	}
	b = emit(b, mov32Reg, dst1src0, 0, 0) // the uid is the lower half
	in(2, ids.UIDs)
	b = emit(b, movReg, dst1src0, 0, 0)
	b = emit(b, shiftRight, 1, 0, 32)
	in(3, ids.GIDs)
	b = emit(b, shiftLeft, 3, 0, 32)
	b = emit(b, or, dst3src2, 0, 0)
	return emit(b, movReg, dst0src3, 0, 0)
}

// edit adds what the program's calls of helpers become.
func (ids *IDs) edit(e *edit, p *Program, depths []int) (err error) {
	pids, users := ids.NeedsDepths(p.Insns), ids.users()
	if !pids && !users {
		return nil
	}
	var begins []int
	if pids {
		if begins = functions(p); len(begins) != len(depths) {
			return fmt.Errorf("it has %d functions, and the kernel finds %d", len(begins), len(depths))
		}
	}
	var of []byte // the same at each call
	if users {
		of = ids.uidGID()
	}
	each(p.Insns, func(i int, insn []byte) {
		if !isCall(insn) {
			return
		}
		switch helper := binary.NativeEndian.Uint32(insn[4:]); {
		case helper == currentPIDTGID && pids:
			k, found := slices.BinarySearch(begins, i)
			if !found {
				k--
			}
			depth := (depths[k] + 7) / 8 * 8
			if depth+8 > maxStack {
				err = errStack
				return
			}
			e.add(i, 1, ids.pidTGID(-depth-8))
		case helper == currentUIDGID && users:
			e.add(i, 1, append(bytes.Clone(insn), of...))
		}
	})
	return err
}

// undo adds what shows those calls as they were. An instruction that the program itself has
// made to look like ours is shown as its call, too: it fools itself.
func (ids *IDs) undo(e *edit, insns []byte) {
	var asked []byte // the helper's call, with the number that the kernel shows
	if s := insns[spareAt*InsnSize:][:InsnSize]; isCall(s) && ids.pids() {
		asked = bytes.Clone(s)
	}
	var of []byte
	if ids.users() {
		of = ids.uidGID()
	}
	for i := Insns; (i+1)*InsnSize <= len(insns); i++ {
		rest := insns[i*InsnSize:]
		switch {
		case rest[0] == wide:
			i++
		case asked != nil && ids.isPIDTGID(rest):
			e.add(i, 7, asked)
			i += 6
		case of != nil && isCall(rest) && bytes.HasPrefix(rest[InsnSize:], of):
			e.add(i+1, len(of)/InsnSize, nil)
			i += len(of) / InsnSize
		}
	}
}

// isPIDTGID says whether instructions begin with those of pidTGID, as the kernel shows them.
func (ids *IDs) isPIDTGID(insns []byte) bool {
	const slotAt, callAt, size = 3*InsnSize + 4, 5*InsnSize + 4, 7 * InsnSize
	if len(insns) < size || insns[0] != mov32Imm {
		return false
	}
	want := ids.pidTGID(int(int32(binary.NativeEndian.Uint32(insns[slotAt:]))))
	copy(want[callAt:callAt+4], insns[callAt:])
	return bytes.Equal(want, insns[:size])
}

// functions are where the program's functions begin, in order (kernel/bpf/verifier.c,
// add_subprog): those that are called or referred to, and those that it says it has.
func functions(p *Program) []int {
	begins := []int{0}
	each(p.Insns, func(i int, insn []byte) {
		const pseudoCall, pseudoFunc = 1, 4
		src := insn[1] >> 4
		if insn[0] == call && src == pseudoCall || insn[0] == wide && src == pseudoFunc {
			begins = append(begins, i+1+int(int32(binary.NativeEndian.Uint32(insn[4:]))))
		}
	})
	if r := &p.FuncInfo; r.Size >= 4 {
		for at := 0; at+r.Size <= len(r.Data); at += r.Size {
			begins = append(begins, int(binary.NativeEndian.Uint32(r.Data[at:])))
		}
	}
	slices.Sort(begins)
	return slices.Compact(begins)
}

// StackDepths reads from a verifier's log with BPF_LOG_STATS how many bytes of stack each
// function uses, in the order of where they begin (kernel/bpf/verifier.c,
// print_verification_stats).
func StackDepths(log string) (depths []int, err error) {
	const line = "stack depth "
	at := strings.LastIndex(log, line)
	if at < 0 {
		return nil, errors.New("the verifier doesn't say what its functions use of their stacks")
	}
	text, _, _ := strings.Cut(log[at+len(line):], "\n")
	for n := range strings.SplitSeq(text, "+") {
		depth, err := strconv.Atoi(n)
		if err != nil || depth < 0 || depth > maxStack {
			return nil, fmt.Errorf("the verifier says that its functions use %q of their stacks", text)
		}
		depths = append(depths, depth)
	}
	return depths, nil
}
