package guard

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func insn(code, dst, src uint8, off int16, imm int32) []byte {
	b := binary.NativeEndian.AppendUint16([]byte{code, src<<4 | dst}, uint16(off))
	return binary.NativeEndian.AppendUint32(b, uint32(imm))
}

func program(insns ...[]byte) []byte { return bytes.Join(insns, nil) }

func TestSubjectless(t *testing.T) {
	exit := program(insn(0xb7, 0, 0, 0, 0), insn(0x95, 0, 0, 0, 0))
	call := func(helper int32) []byte { return insn(0x85, 0, 0, 0, helper) }
	save := insn(0xbf, 6, 1, 0, 0) // r6 = r1
	// output sends 8 bytes of the stack with the context that reg holds.
	output := func(reg uint8) []byte {
		return program(insn(0x7a, 10, 0, -8, 7), insn(0xbf, 1, reg, 0, 0), insn(0x18, 2, 1, 0, 3), insn(0, 0, 0, 0, 0),
			insn(0x18, 3, 0, 0, -1), insn(0, 0, 0, 0, 0), insn(0xbf, 4, 10, 0, 0), insn(0x07, 4, 0, 0, -8), insn(0xb7, 5, 0, 0, 8), call(25))
	}
	lookup := program(insn(0x18, 1, 1, 0, 3), insn(0, 0, 0, 0, 0), insn(0xbf, 2, 10, 0, 0), insn(0x07, 2, 0, 0, -8), call(1))
	for what, c := range map[string]struct {
		want  bool
		insns []byte
	}{
		"nothing":                        {true, exit},
		"sends":                          {true, program(save, output(6), exit)},
		"looks up and sends":             {true, program(save, insn(0x7a, 10, 0, -8, 0), lookup, insn(0x15, 0, 0, 1, 0), insn(0x79, 3, 0, 0, 0), output(6), exit)},
		"by the stack":                   {true, program(insn(0x7b, 10, 1, -16, 0), insn(0x79, 7, 10, -16, 0), output(7), exit)},
		"in a loop":                      {true, program(save, insn(0xb7, 7, 0, 0, 4), output(6), insn(0x17, 7, 0, 0, 1), insn(0x55, 7, 0, -12, 0), exit)},
		"reads the context":              {false, program(insn(0x79, 3, 1, 8, 0), exit)},
		"reads it later":                 {false, program(save, output(6), insn(0x79, 3, 6, 8, 0), exit)},
		"reads it by a sum":              {false, program(save, insn(0xb7, 3, 0, 0, 8), insn(0x0f, 3, 6, 0, 0), insn(0x79, 3, 3, 0, 0), exit)},
		"reads it from the stack":        {false, program(insn(0x7b, 10, 1, -16, 0), insn(0x79, 7, 10, -16, 0), insn(0x79, 3, 7, 0, 0), exit)},
		"reads it on one way":            {false, program(save, insn(0xb7, 3, 0, 0, 0), lookup, insn(0xbf, 7, 10, 0, 0), insn(0x15, 0, 0, 1, 0), insn(0xbf, 7, 6, 0, 0), insn(0x79, 3, 7, -8, 0), exit)},
		"reads it the second time":       {false, program(save, insn(0xbf, 7, 10, 0, 0), insn(0x79, 3, 7, -8, 0), insn(0xbf, 7, 6, 0, 0), insn(0x55, 3, 0, -3, 0), exit)},
		"writes to it":                   {false, program(insn(0x7a, 1, 0, 8, 0), exit)},
		"keeps its address in a map":     {false, program(save, insn(0x7a, 10, 0, -8, 0), lookup, insn(0x15, 0, 0, 1, 0), insn(0x7b, 0, 6, 0, 0), exit)},
		"hands it to another helper":     {false, program(save, lookup, insn(0xbf, 1, 6, 0, 0), call(1), exit)},
		"sends it":                       {false, program(save, insn(0xbf, 1, 6, 0, 0), insn(0xbf, 4, 6, 0, 0), insn(0xb7, 5, 0, 0, 8), call(25), exit)},
		"calls a function of its own":    {false, program(insn(0x85, 0, 1, 0, 2), exit, exit)},
		"calls a kernel function":        {false, program(insn(0x85, 0, 2, 0, 2), exit)},
		"hands a function on":            {false, program(insn(0x18, 2, 4, 0, 2), insn(0, 0, 0, 0, 0), exit, exit)},
		"exchanges it with the stack":    {false, program(insn(0xdb, 10, 1, -8, 0xe1), exit)},
		"jumps out":                      {false, program(insn(0x05, 0, 0, 9, 0), exit)},
		"ends in the middle":             {false, program(save)},
		"a register that there isn't":    {false, program(insn(0xbf, 12, 1, 0, 0), exit)},
		"loads from a packet":            {false, program(insn(0x20, 0, 0, 0, 0), exit)},
		"no instruction at all":          {false, nil},
		"more than is looked at":         {false, bytes.Repeat(insn(0xb7, 0, 0, 0, 0), maxClocked+1)},
		"reads it in code never reached": {true, program(insn(0x05, 0, 0, 1, 0), insn(0x79, 3, 1, 8, 0), exit)},
	} {
		if got := Subjectless(c.insns, []string{"bpf_perf_event_output", "bpf_map_lookup_elem"}); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
	for _, helper := range []string{"bpf_get_current_pid_tgid", "bpf_get_current_comm", "bpf_get_stackid", "bpf_probe_read_user", "bpf_perf_prog_read_value", "bpf_get_func_ip", ""} {
		if Subjectless(exit, []string{helper}) {
			t.Errorf("%q tells of no task", helper)
		}
	}
}

// FuzzSubjectless: no instructions make it go astray.
func FuzzSubjectless(f *testing.F) {
	f.Add(program(insn(0xbf, 6, 1, 0, 0), insn(0x55, 7, 0, -2, 0), insn(0x95, 0, 0, 0, 0)))
	f.Fuzz(func(t *testing.T, insns []byte) { Subjectless(insns, nil) })
}
