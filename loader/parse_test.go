package loader

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// encode is the opposite of decode. What asm can't say, or wouldn't, is said with it.
func encode(insns ...insn) []byte {
	var b []byte
	for _, in := range insns {
		b = append(b, in.code, in.src<<4|in.dst)
		b = binary.LittleEndian.AppendUint16(b, uint16(in.off))
		b = binary.LittleEndian.AppendUint32(b, uint32(in.imm))
	}
	return b
}

var (
	exit = insn{code: classJMP | jmpEXIT}
	nop  = insn{code: classALU64 | aluMOV}
	half = insn{} // the second half of ldImm64
)

func TestParseRefuses(t *testing.T) {
	const (
		alu64  = classALU64
		alu64x = classALU64 | srcX
		jmp    = classJMP
		jmp32  = classJMP32
		word   = 0x00
		byte1  = 0x10
		dword  = 0x18
	)
	for _, c := range []struct {
		name string
		want string
		code []insn
	}{
		{"the last isn't exit", "the last is neither", []insn{exit, nop}},
		{"the last is a conditional jump", "the last is neither", []insn{exit, {code: jmp | jmpJEQ, off: -1}}},
		{"the last is a call", "the last is neither", []insn{exit, {code: jmp | jmpCALL, imm: 6}}},
		{"the last is half", "the last is neither", []insn{{code: ldImm64}, half}},
		{"no second half", "no second half", []insn{exit, {code: ldImm64}}},
		{"another second half", "no second half", []insn{{code: ldImm64}, exit}},
		{"a half alone", "no instruction that", []insn{half, exit}},

		{"jump before the beginning", "jumps to -1", []insn{{code: jmp | jmpJA, off: -2}, exit}},
		{"jump to the end", "jumps to 2", []insn{{code: jmp | jmpJA, off: 1}, exit}},
		{"jump far", "jumps to 32768", []insn{{code: jmp | jmpJEQ, off: 32767}, exit}},
		{"jump far back", "jumps to -32767", []insn{{code: jmp32 | jmpJSET, off: -32768}, exit}},
		{"gotol far", "jumps to 2147483648", []insn{{code: jmp32 | jmpJA, imm: 1<<31 - 1}, exit}},
		{"gotol far back", "jumps to -2147483647", []insn{{code: jmp32 | jmpJA, imm: -1 << 31}, exit}},
		{"may_goto out", "jumps to 9", []insn{{code: jmp | jmpJCOND, off: 8}, exit}},
		{"call out", "jumps to 2", []insn{{code: jmp | jmpCALL, src: pseudoCall, imm: 1}, exit}},
		{"call far", "jumps to 2147483648", []insn{{code: jmp | jmpCALL, src: pseudoCall, imm: 1<<31 - 1}, exit}},
		{"jump into ld_imm64", "jumps to 2,", []insn{{code: jmp | jmpJA, off: 1}, {code: ldImm64}, half, exit}},
		{"jump back into ld_imm64", "jumps to 1,", []insn{{code: ldImm64}, half, {code: jmp | jmpJNE, off: -2}, exit}},
		{"call into ld_imm64", "jumps to 1,", []insn{{code: ldImm64}, half, {code: jmp | jmpCALL, src: pseudoCall, imm: -2}, exit}},
		{"gotol into ld_imm64", "jumps to 1,", []insn{{code: ldImm64}, half, {code: jmp32 | jmpJA, imm: -2}, exit}},

		{"dst 11", "no register r11", []insn{{code: alu64 | aluADD, dst: 11}, exit}},
		{"src 15", "no register r15", []insn{{code: alu64x | aluADD, src: 15}, exit}},
		{"src 11 that nothing looks at", "no register r11", []insn{{code: classST | modeMEM, src: 11}, exit}},
		{"alu writes r10", "writes to r10", []insn{{code: alu64 | aluADD, dst: fp}, exit}},
		{"alu32 writes r10", "writes to r10", []insn{{code: classALU | aluMOV, dst: fp}, exit}},
		{"bswap writes r10", "writes to r10", []insn{{code: alu64 | aluEND, dst: fp, imm: 16}, exit}},
		{"ld_imm64 writes r10", "writes to r10", []insn{{code: ldImm64, dst: fp}, half, exit}},
		{"load writes r10", "writes to r10", []insn{{code: classLDX | modeMEM, dst: fp}, exit}},
		{"ldsx writes r10", "writes to r10", []insn{{code: classLDX | modeMEMSX, dst: fp}, exit}},
		{"load_acquire writes r10", "writes to r10", []insn{{code: classSTX | modeATOMIC, dst: fp, imm: atomicLoadAcq}, exit}},
		{"fetch writes r10", "no instruction that", []insn{{code: classSTX | modeATOMIC, src: fp, imm: atomicFetch}, exit}},
		{"xchg writes r10", "no instruction that", []insn{{code: classSTX | modeATOMIC | dword, src: fp, imm: atomicXCHG}, exit}},

		{"alu 0xe0", "no instruction that", []insn{{code: alu64 | 0xe0}, exit}},
		{"alu 0xf0", "no instruction that", []insn{{code: classALU | 0xf0}, exit}},
		{"add with off", "no instruction that", []insn{{code: alu64 | aluADD, off: 1}, exit}},
		{"div with off 2", "no instruction that", []insn{{code: alu64 | aluDIV, off: 2}, exit}},
		{"neg of src", "no instruction that", []insn{{code: alu64x | aluNEG}, exit}},
		{"movsx of imm", "no instruction that", []insn{{code: alu64 | aluMOV, off: 8}, exit}},
		{"movsx of 24 bits", "no instruction that", []insn{{code: alu64x | aluMOV, off: 24}, exit}},
		{"movsx32 in 32 bits", "no instruction that", []insn{{code: classALU | srcX | aluMOV, off: 32}, exit}},
		{"addr_space_cast", "no instruction that", []insn{{code: alu64x | aluMOV, off: 1, imm: 1}, exit}},
		{"swap of 8 bits", "no instruction that", []insn{{code: classALU | aluEND, imm: 8}, exit}},
		{"bswap to big endian", "no instruction that", []insn{{code: alu64x | aluEND, imm: 16}, exit}},

		{"gotox", "no instruction that", []insn{{code: jmp | srcX | jmpJA}, exit}},
		{"jump 0xf0", "no instruction that", []insn{{code: jmp | 0xf0}, exit}},
		{"may_goto with src", "no instruction that", []insn{{code: jmp | jmpJCOND, src: 1}, exit}},
		{"may_goto in 32 bits", "no instruction that", []insn{{code: jmp32 | jmpJCOND}, exit}},
		{"exit in 32 bits", "no instruction that", []insn{{code: jmp32 | jmpEXIT}, exit}},
		{"call in 32 bits", "no instruction that", []insn{{code: jmp32 | jmpCALL, imm: 6}, exit}},
		{"call of a register", "no instruction that", []insn{{code: jmp | srcX | jmpCALL}, exit}},
		{"call of kind 3", "no instruction that", []insn{{code: jmp | jmpCALL, src: 3}, exit}},
		{"tail call", "helper 12", []insn{{code: jmp | jmpCALL, imm: 12}, exit}},
		{"helper 0", "helper 0", []insn{{code: jmp | jmpCALL}, exit}},
		{"helper -1", "helper -1", []insn{{code: jmp | jmpCALL, imm: -1}, exit}},
		{"kfunc", "kfunc 77", []insn{{code: jmp | jmpCALL, src: 2, imm: 77}, exit}},

		{"ld_abs", "no instruction that", []insn{{code: classLD | 0x20}, exit}},
		{"ld_ind", "no instruction that", []insn{{code: classLD | 0x40}, exit}},
		{"ld_imm of 4 bytes", "no instruction that", []insn{{code: classLD | modeIMM | byte1}, half, exit}},
		{"btf_id", "kind 3", []insn{{code: ldImm64, src: 3}, half, exit}},
		{"a function's address", "kind 4", []insn{{code: ldImm64, src: 4}, half, exit}},
		{"kind 7", "kind 7", []insn{{code: ldImm64, src: 7}, half, exit}},

		{"ldsx of 8 bytes", "no instruction that", []insn{{code: classLDX | modeMEMSX | dword}, exit}},
		{"stsx", "no instruction that", []insn{{code: classSTX | modeMEMSX}, exit}},
		{"ldx imm", "no instruction that", []insn{{code: classLDX | modeIMM}, exit}},
		{"atomic st", "no instruction that", []insn{{code: classST | modeATOMIC}, exit}},
		{"atomic of 1 byte", "no instruction that", []insn{{code: classSTX | modeATOMIC | byte1}, exit}},
		{"atomic sub", "no instruction that", []insn{{code: classSTX | modeATOMIC | word, imm: aluSUB}, exit}},
		{"atomic xchg without fetch", "no instruction that", []insn{{code: classSTX | modeATOMIC | word, imm: 0xe0}, exit}},
		{"atomic 0x120", "no instruction that", []insn{{code: classSTX | modeATOMIC | word, imm: 0x120}, exit}},
		{"atomic -1", "no instruction that", []insn{{code: classSTX | modeATOMIC | word, imm: -1}, exit}},
	} {
		_, err := Parse(encode(c.code...))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, wanted %q", c.name, err, c.want)
		}
	}
}

func TestParseLength(t *testing.T) {
	one := encode(exit)
	for n := range 24 {
		_, err := Parse(bytes.Repeat(one, 3)[:n])
		if want := n > 0 && n%insnSize == 0; (err == nil) != want {
			t.Errorf("%d bytes: got %v", n, err)
		}
	}
	if _, err := Parse(bytes.Repeat(one, MaxInsns)); err != nil {
		t.Error(err)
	}
	if _, err := Parse(bytes.Repeat(one, MaxInsns+1)); err == nil {
		t.Error("took too many instructions")
	}
}

func TestMaps(t *testing.T) {
	name := func(kind uint8, n int32) []insn { return []insn{{code: ldImm64, src: kind, imm: n}, half} }
	code := slices.Concat(
		name(pseudoMapIdxValue, 0), name(pseudoMapFD, 7), name(0, 9), name(pseudoMapIdx, 0),
		name(pseudoMapValue, 7), name(pseudoMapFD, 0), name(pseudoMapFD, -1), []insn{exit})
	p, err := Parse(encode(code...))
	if err != nil {
		t.Fatal(err)
	}
	if want := []MapRef{{true, 0}, {false, 7}, {false, 0}, {false, -1}}; !slices.Equal(p.Maps(), want) {
		t.Errorf("got %v, wanted %v", p.Maps(), want)
	}
	for _, n := range []int{0, 3, 5} {
		if _, err := p.Run(nil, make([]Map, n), &fakeEnv{}); err == nil {
			t.Errorf("ran with %d maps", n)
		}
	}

	code = nil
	for n := range MaxMaps {
		code = append(code, name(pseudoMapFD, int32(n))...)
		code = append(code, name(pseudoMapValue, int32(n))...)
	}
	if p, err = Parse(encode(append(code, exit)...)); err != nil {
		t.Fatal(err)
	}
	if got := len(p.Maps()); got != MaxMaps {
		t.Errorf("%d maps, wanted %d", got, MaxMaps)
	}
	_, err = Parse(encode(append(append(code, name(pseudoMapIdx, 0)...), exit)...))
	if want := fmt.Sprintf("insn %d (code 0x18): names more than %d maps", 4*MaxMaps, MaxMaps); err == nil || err.Error() != want {
		t.Errorf("got %v, wanted %q", err, want)
	}
}
