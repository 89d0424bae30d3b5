package loader

import "encoding/binary"

// insn is struct bpf_insn. The second half of an instruction of 16 bytes is one, too.
type insn struct {
	code     uint8
	dst, src uint8
	off      int16
	imm      int32
}

const insnSize = 8

func decode(b []byte) insn {
	return insn{
		code: b[0],
		dst:  b[1] & 0xf,
		src:  b[1] >> 4,
		off:  int16(binary.LittleEndian.Uint16(b[2:])),
		imm:  int32(binary.LittleEndian.Uint32(b[4:])),
	}
}

func (i insn) class() uint8 { return i.code & 0x07 }
func (i insn) op() uint8    { return i.code & 0xf0 } // of ALU, ALU64, JMP and JMP32
func (i insn) x() bool      { return i.code&srcX != 0 }
func (i insn) mode() uint8  { return i.code & 0xe0 } // of LD, LDX, ST and STX

// size is how many bytes a load or store moves.
func (i insn) size() int {
	switch i.code & 0x18 {
	case 0x00: // BPF_W
		return 4
	case 0x08: // BPF_H
		return 2
	case 0x10: // BPF_B
		return 1
	}
	return 8 // BPF_DW
}

// include/uapi/linux/bpf_common.h and bpf.h, without their prefix.
const (
	classLD    = 0x00
	classLDX   = 0x01
	classST    = 0x02
	classSTX   = 0x03
	classALU   = 0x04
	classJMP   = 0x05
	classJMP32 = 0x06
	classALU64 = 0x07

	srcX = 0x08 // BPF_X; for BPF_END BPF_TO_BE

	aluADD  = 0x00
	aluSUB  = 0x10
	aluMUL  = 0x20
	aluDIV  = 0x30
	aluOR   = 0x40
	aluAND  = 0x50
	aluLSH  = 0x60
	aluRSH  = 0x70
	aluNEG  = 0x80
	aluMOD  = 0x90
	aluXOR  = 0xa0
	aluMOV  = 0xb0
	aluARSH = 0xc0
	aluEND  = 0xd0

	jmpJA    = 0x00
	jmpJEQ   = 0x10
	jmpJGT   = 0x20
	jmpJGE   = 0x30
	jmpJSET  = 0x40
	jmpJNE   = 0x50
	jmpJSGT  = 0x60
	jmpJSGE  = 0x70
	jmpCALL  = 0x80
	jmpEXIT  = 0x90
	jmpJLT   = 0xa0
	jmpJLE   = 0xb0
	jmpJSLT  = 0xc0
	jmpJSLE  = 0xd0
	jmpJCOND = 0xe0 // may_goto

	modeIMM    = 0x00
	modeMEM    = 0x60
	modeMEMSX  = 0x80
	modeATOMIC = 0xc0

	ldImm64 = 0x18 // BPF_LD | BPF_IMM | BPF_DW

	// The imm of an atomic operation; the four beside those that aluADD and so on name.
	atomicFetch   = 0x01
	atomicXCHG    = 0xe0 | atomicFetch
	atomicCMPXCHG = 0xf0 | atomicFetch
	atomicLoadAcq = 0x100
	atomicStRel   = 0x110
)

// src of a 64-bit immediate, and of a call.
const (
	pseudoMapFD       = 1 // BPF_PSEUDO_MAP_FD
	pseudoMapValue    = 2 // BPF_PSEUDO_MAP_VALUE
	pseudoMapIdx      = 5 // BPF_PSEUDO_MAP_IDX
	pseudoMapIdxValue = 6 // BPF_PSEUDO_MAP_IDX_VALUE

	pseudoCall = 1 // BPF_PSEUDO_CALL
)

// fp is the register that holds the stack frame's end; no instruction writes to it.
const fp = 10
