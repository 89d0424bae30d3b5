package inspect

import "encoding/binary"

// Helpers that record a stack, and which argument has their flags.
var stackHelpers = map[int32]uint8{
	27:  3, // bpf_get_stackid(ctx, map, flags)
	67:  4, // bpf_get_stack(ctx, buf, size, flags)
	141: 4, // bpf_get_task_stack(task, buf, size, flags)
}

// fUserStack is BPF_F_USER_STACK: the user's stack, and not the kernel's.
const fUserStack = 1 << 8

// kernelStacks says whether a program may record the kernel's stacks: whether it calls one
// of stackHelpers with flags that aren't known to be those of a user's stack. They are
// known where they are a constant since the last place that something jumps to.
func kernelStacks(insns []byte) bool {
	const (
		regs                                     = 16
		ld, ldx, st, stx, alu, jmp, jmp32, alu64 = 0, 1, 2, 3, 4, 5, 6, 7
		wide, mov, register                      = 0x18, 0xb0, 8
		always, called, exit                     = 0x00, 0x80, 0x90
	)
	n := len(insns) / insnSize
	met := targets(insns, n)
	var known [regs]bool
	var value [regs]int32
	for i := 0; i < n; i++ {
		insn := insns[i*insnSize:][:insnSize]
		code, dst, src, imm := insn[0], insn[1]&15, insn[1]>>4, int32(binary.LittleEndian.Uint32(insn[4:]))
		if met[i/64]>>(i%64)&1 != 0 {
			known = [regs]bool{}
		}
		switch class, op := code&7, code&0xf0; class {
		case ld:
			if code != wide { // into r0
				dst = 0
			}
			known[dst], value[dst] = code == wide && src == 0, imm
			if code == wide {
				i++
			}
		case ldx:
			known[dst] = false
		case stx: // an atomic operation may put into r0, or its source, what was there
			known[0], known[src] = false, false
		case st:
		case alu, alu64:
			switch {
			case op != mov:
				known[dst] = false
			case code&register == 0:
				known[dst], value[dst] = true, imm
			default:
				known[dst], value[dst] = known[src] && binary.LittleEndian.Uint16(insn[2:]) == 0, value[src]
			}
		case jmp, jmp32:
			switch op {
			case called:
				if arg, is := stackHelpers[imm]; is && src == 0 && (!known[arg] || value[arg]&fUserStack == 0) {
					return true
				}
				for r := range 6 {
					known[r] = false
				}
			case exit, always:
				known = [regs]bool{}
			}
		}
	}
	return false
}

// targets are the instructions that others jump to, call or refer to, a bit each.
func targets(insns []byte, n int) []uint64 {
	const (
		wide, gotol, called, exit = 0x18, 0x06, 0x80, 0x90
		pseudoCall, pseudoFunc    = 1, 4
	)
	met := make([]uint64, n/64+1)
	for i := range n {
		insn := insns[i*insnSize:][:insnSize]
		code, src := insn[0], insn[1]>>4
		to := i + 1
		switch class := code & 7; {
		case code == gotol, code == call && src == pseudoCall, code == wide && src == pseudoFunc:
			to += int(int32(binary.LittleEndian.Uint32(insn[4:])))
		case (class == 5 || class == 6) && code&0xf0 != called && code&0xf0 != exit:
			to += int(int16(binary.LittleEndian.Uint16(insn[2:])))
		default:
			continue
		}
		if to >= 0 && to < n {
			met[to/64] |= 1 << (to % 64)
		}
	}
	return met
}
