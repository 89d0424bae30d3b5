package inspect

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

func TestKernelStacks(t *testing.T) {
	insn := func(code, dst, src uint8, off int16, imm int32) []byte {
		b := binary.LittleEndian.AppendUint16([]byte{code, dst | src<<4}, uint16(off))
		return binary.LittleEndian.AppendUint32(b, uint32(imm))
	}
	mov := func(dst uint8, imm int32) []byte { return insn(0xb7, dst, 0, 0, imm) }
	helper := func(id int32) []byte { return insn(0x85, 0, 0, 0, id) }
	const stackid, stack, user = 27, 67, 0x100
	for what, c := range map[string]struct {
		insns [][]byte
		want  bool
	}{
		"none":                      {[][]byte{mov(3, 0), helper(1)}, false},
		"user":                      {[][]byte{mov(3, user), helper(stackid)}, false},
		"user, with more flags":     {[][]byte{mov(3, user|0x200), helper(stackid)}, false},
		"kernel":                    {[][]byte{mov(3, 0x200), helper(stackid)}, true},
		"32 bits":                   {[][]byte{insn(0xb4, 3, 0, 0, user), helper(stackid)}, false},
		"wide":                      {[][]byte{insn(0x18, 3, 0, 0, user), insn(0, 0, 0, 0, 0), helper(stackid)}, false},
		"an address":                {[][]byte{insn(0x18, 3, 1, 0, user), insn(0, 0, 0, 0, 0), helper(stackid)}, true},
		"by another register":       {[][]byte{mov(8, user), helper(1), insn(0xbf, 3, 8, 0, 0), helper(stackid)}, false},
		"a sign extension":          {[][]byte{mov(8, user), insn(0xbf, 3, 8, 8, 0), helper(stackid)}, true},
		"the other's argument":      {[][]byte{mov(3, user), helper(stack)}, true},
		"bpf_get_stack":             {[][]byte{mov(4, user), helper(stack)}, false},
		"bpf_get_task_stack":        {[][]byte{mov(3, user), helper(141)}, true},
		"changed":                   {[][]byte{mov(3, user), insn(0x57, 3, 0, 0, 0xff), helper(stackid)}, true},
		"loaded":                    {[][]byte{mov(3, user), insn(0x79, 3, 10, -8, 0), helper(stackid)}, true},
		"fetched":                   {[][]byte{mov(3, user), insn(0xdb, 10, 3, -8, 1), helper(stackid)}, true},
		"clobbered":                 {[][]byte{mov(3, user), helper(1), helper(stackid)}, true},
		"jumped over":               {[][]byte{mov(3, 0), insn(0x15, 1, 0, 1, 0), mov(3, user), helper(stackid)}, true},
		"jumped to":                 {[][]byte{mov(3, user), insn(0x15, 1, 0, 1, 0), mov(2, 0), helper(stackid)}, true},
		"from behind":               {[][]byte{mov(3, user), helper(stackid), mov(3, 0), insn(0x05, 0, 0, -3, 0)}, true},
		"a far jump":                {[][]byte{mov(3, user), helper(stackid), mov(3, 0), insn(0x06, 0, 0, 0, -3)}, true},
		"a function":                {[][]byte{mov(3, 0), insn(0x85, 0, 1, 0, 2), insn(0x95, 0, 0, 0, 0), mov(3, user), helper(stackid)}, true},
		"behind an exit":            {[][]byte{mov(3, user), insn(0x95, 0, 0, 0, 0), helper(stackid)}, true},
		"both":                      {[][]byte{mov(3, user), helper(stackid), mov(3, 0), helper(stackid)}, true},
		"behind a condition":        {[][]byte{mov(3, user), insn(0x15, 1, 0, 1, 0), helper(stackid), insn(0x95, 0, 0, 0, 0)}, false},
		"a kernel function of that": {[][]byte{insn(0x85, 0, 2, 0, stackid)}, false},
	} {
		if got := kernelStacks(bytes.Join(c.insns, nil)); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
}

// TestKernelStacksSound: a program whose runs ever come to such a call without the flag is
// found. The runs are random walks through random programs.
func TestKernelStacksSound(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	found := 0
	for range 50_000 {
		n := 2 + r.IntN(12)
		var b []byte
		insn := func(code, dst, src uint8, off int16, imm int32) {
			b = append(b, code, dst|src<<4)
			b = binary.LittleEndian.AppendUint16(b, uint16(off))
			b = binary.LittleEndian.AppendUint32(b, uint32(imm))
		}
		reg := func() uint8 { return []uint8{3, 4, 8}[r.IntN(3)] }
		for i := range n {
			by := r.IntN(n) - i - 1
			switch r.IntN(6) {
			case 0, 1:
				insn(0xb7, reg(), 0, 0, []int32{0, fUserStack}[r.IntN(2)])
			case 2:
				insn(0xbf, reg(), reg(), 0, 0)
			case 3:
				insn(0x85, 0, 0, 0, []int32{27, 67, 1}[r.IntN(3)])
			case 4:
				insn([]uint8{0x05, 0x15}[r.IntN(2)], 0, 0, int16(by), 0)
			case 5:
				insn(0x06, 0, 0, 0, int32(by))
			}
		}
		if kernelStacks(b) {
			continue
		}
		found++
		for range 8 {
			var regs [16]int32
			for i, steps := 0, 0; i >= 0 && i < n && steps < 40; steps++ {
				x := b[8*i:]
				dst, src, imm := x[1]&15, x[1]>>4, int32(binary.LittleEndian.Uint32(x[4:]))
				i++
				switch x[0] {
				case 0xb7:
					regs[dst] = imm
				case 0xbf:
					regs[dst] = regs[src]
				case 0x85:
					if arg := stackHelpers[imm]; arg != 0 && regs[arg]&fUserStack == 0 {
						t.Fatalf("it records a kernel stack at %d:\n% x", i-1, b)
					}
					clear(regs[:6])
				case 0x05:
					i += int(int16(binary.LittleEndian.Uint16(x[2:])))
				case 0x15:
					if r.IntN(2) == 0 {
						i += int(int16(binary.LittleEndian.Uint16(x[2:])))
					}
				case 0x06:
					i += int(imm)
				}
			}
		}
	}
	if found < 1000 {
		t.Errorf("%d programs are said to have none: this tells little", found)
	}
}
