package filter

import (
	"fmt"
	"strings"
)

// word is what the accumulator holds at some place of a program.
type word int

const (
	unreached word = iota
	unknown
	nr
	arch
	command
	ioctlRequest
)

func (w word) String() string {
	return [...]string{"unreached", "?", "nr", "arch", "(u32)args[0]", "(u32)args[1]"}[w]
}

// Disassemble returns p as text, an instruction a line, jumps with the index that
// they go to, numbers with the kernel's names. It takes any program, also one
// that isn't ours or isn't valid, and shows what it doesn't know as it is.
func Disassemble(p []Instruction) string {
	var b strings.Builder
	held := accumulator(p)
	for i, ins := range p {
		fmt.Fprintf(&b, "%4d: %s\n", i, show(i, ins, held[i]))
	}
	return b.String()
}

// accumulator follows the loads through the program. Jumps only go forward, so
// one pass meets every way to an instruction before the instruction.
func accumulator(p []Instruction) []word {
	held := make([]word, len(p)+1)
	reach := func(i int, w word) {
		switch {
		case i >= len(p):
		case held[i] == unreached:
			held[i] = w
		case held[i] != w:
			held[i] = unknown
		}
	}
	if len(p) > 0 {
		held[0] = unknown
	}
	for i, ins := range p {
		switch ins.Code {
		case opRet:
		case opJeq, opJge:
			reach(i+1+int(ins.Jt), held[i])
			reach(i+1+int(ins.Jf), held[i])
		case opLoad:
			reach(i+1, loaded(ins.K))
		default:
			reach(i+1, unknown)
		}
	}
	return held
}

func loaded(off uint32) word {
	switch off {
	case offNr:
		return nr
	case offArch:
		return arch
	case offArg0Low:
		return command
	case offArg1Low:
		return ioctlRequest
	}
	return unknown
}

func show(i int, ins Instruction, a word) string {
	switch ins.Code {
	case opLoad:
		if w := loaded(ins.K); w != unknown {
			return fmt.Sprintf("ld   %s", w)
		}
		return fmt.Sprintf("ld   [%d]", ins.K)
	case opJeq:
		return fmt.Sprintf("if   %s == %s goto %d else %d", a, constant(ins.K, a), i+1+int(ins.Jt), i+1+int(ins.Jf))
	case opJge:
		return fmt.Sprintf("if   %s >= %s goto %d else %d", a, constant(ins.K, a), i+1+int(ins.Jt), i+1+int(ins.Jf))
	case opRet:
		return "ret  " + action(ins.K)
	}
	return fmt.Sprintf("%#04x jt %d jf %d k %#x /* ??? */", ins.Code, ins.Jt, ins.Jf, ins.K)
}

// constant shows k as a value of the word a.
func constant(k uint32, a word) string {
	switch {
	case a == arch:
		for v, name := range map[uint32]string{
			_AUDIT_ARCH_X86_64:  "AUDIT_ARCH_X86_64",
			_AUDIT_ARCH_I386:    "AUDIT_ARCH_I386",
			_AUDIT_ARCH_AARCH64: "AUDIT_ARCH_AARCH64",
			_AUDIT_ARCH_ARM:     "AUDIT_ARCH_ARM",
		} {
			if v == k {
				return name
			}
		}
		return fmt.Sprintf("%#x", k)
	case a == ioctlRequest:
		switch k {
		case _PERF_EVENT_IOC_SET_BPF:
			return "PERF_EVENT_IOC_SET_BPF"
		case _PERF_EVENT_IOC_QUERY_BPF:
			return "PERF_EVENT_IOC_QUERY_BPF"
		}
		return fmt.Sprintf("%#x", k)
	case a == nr && k&_X32_SYSCALL_BIT != 0:
		return fmt.Sprintf("__X32_SYSCALL_BIT+%d", k&^_X32_SYSCALL_BIT)
	}
	return fmt.Sprintf("%d", k)
}

func action(k uint32) string {
	data := k & _SECCOMP_RET_DATA
	switch k & _SECCOMP_RET_ACTION_FULL {
	case _SECCOMP_RET_ALLOW:
		if data == 0 {
			return "ALLOW"
		}
	case _SECCOMP_RET_USER_NOTIF:
		if data == 0 {
			return "USER_NOTIF"
		}
	case _SECCOMP_RET_ERRNO:
		if data == _ENOSYS {
			return "ERRNO(ENOSYS)"
		}
		return fmt.Sprintf("ERRNO(%d)", data)
	}
	return fmt.Sprintf("%#x", k)
}
