package brokertest

import (
	"encoding/binary"
	"fmt"
	"testing"

	"golang.org/x/net/bpf"
)

// SeccompData is struct seccomp_data (include/uapi/linux/seccomp.h), which a
// seccomp filter decides on.
type SeccompData struct {
	NR, Arch uint32
	IP       uint64
	Args     [6]uint64
}

// SeccompDataSize is its size in bytes.
const SeccompDataSize = 64

// words returns d as the kernel lays it out, little-endian.
func (d SeccompData) words() (w [SeccompDataSize / 4]uint32) {
	w[0], w[1] = d.NR, d.Arch
	w[2], w[3] = uint32(d.IP), uint32(d.IP>>32)
	for i, a := range d.Args {
		w[4+2*i], w[5+2*i] = uint32(a), uint32(a>>32)
	}
	return w
}

// Bytes returns d as a seed for a fuzz target that calls SeccompDataOf.
func (d SeccompData) Bytes() []byte {
	b := make([]byte, 0, SeccompDataSize)
	for _, w := range d.words() {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

// SeccompDataOf makes data of any bytes; those that lack are zero.
func SeccompDataOf(b []byte) (d SeccompData) {
	var raw [SeccompDataSize]byte
	copy(raw[:], b)
	le := binary.LittleEndian
	d.NR, d.Arch, d.IP = le.Uint32(raw[0:]), le.Uint32(raw[4:]), le.Uint64(raw[8:])
	for i := range d.Args {
		d.Args[i] = le.Uint64(raw[16+8*i:])
	}
	return d
}

// sockFilter is struct sock_filter (include/uapi/linux/filter.h).
type sockFilter = struct {
	Code   uint16
	Jt, Jf uint8
	K      uint32
}

// Instruction is a type like filter.Instruction, which can't be named here: its
// package is tested with this one.
type Instruction interface{ ~sockFilter }

// SeccompVM runs a program as a packet filter: golang.org/x/net/bpf. A packet's words
// are big-endian, those of seccomp_data the machine's own: so each word is handed over
// in the other order. (A load at a multiple of 4 then sees the same value; others don't
// exist, the kernel refuses them.)
type SeccompVM struct{ vm *bpf.VM }

// NewSeccompVM fails the test where the program isn't valid.
func NewSeccompVM[I Instruction](tb testing.TB, p []I) SeccompVM {
	tb.Helper()
	ins := make([]bpf.Instruction, len(p))
	for i := range p {
		in := sockFilter(p[i])
		ins[i] = bpf.RawInstruction{Op: in.Code, Jt: in.Jt, Jf: in.Jf, K: in.K}.Disassemble()
		if _, raw := ins[i].(bpf.RawInstruction); raw {
			tb.Fatalf("instruction %d %+v is unknown to x/net/bpf", i, in)
		}
	}
	v, err := bpf.NewVM(ins)
	if err != nil {
		tb.Fatal(err)
	}
	return SeccompVM{v}
}

// Run returns the program's answer to d.
func (v SeccompVM) Run(tb testing.TB, d SeccompData) uint32 {
	var packet [SeccompDataSize]byte
	for i, w := range d.words() {
		binary.BigEndian.PutUint32(packet[4*i:], w)
	}
	r, err := v.vm.Run(packet[:])
	if err != nil {
		tb.Fatalf("run on %+v: %v", d, err)
	}
	return uint32(r)
}

// EmulateSeccomp runs p as seccomp_is_const_allow of kernel/seccomp.c does. It returns
// the answer, how many instructions were executed for it, and whether the answer was
// found with nr and arch alone. It panics on an instruction that function doesn't know.
func EmulateSeccomp[I Instruction](p []I, d SeccompData) (answer uint32, steps int, constant bool) {
	constant = true
	words := d.words()
	var a uint32
	for pc := 0; pc < len(p); pc++ {
		steps++
		switch in := sockFilter(p[pc]); in.Code {
		case 0x20: // BPF_LD | BPF_W | BPF_ABS
			constant = constant && (in.K == 0 || in.K == 4)
			a = words[in.K/4]
		case 0x54: // BPF_ALU | BPF_AND | BPF_K
			a &= in.K
		case 0x05: // BPF_JMP | BPF_JA
			pc += int(in.K)
		case 0x15, 0x35: // BPF_JMP | BPF_JEQ, BPF_JGE | BPF_K
			if in.Code == 0x15 && a == in.K || in.Code == 0x35 && a >= in.K {
				pc += int(in.Jt)
			} else {
				pc += int(in.Jf)
			}
		case 0x06: // BPF_RET | BPF_K
			return in.K, steps, constant
		default:
			panic(fmt.Sprintf("instruction %d: code %#x isn't one that the kernel's action cache knows", pc, in.Code))
		}
	}
	panic("ran off the end")
}

// AuditArches is every AUDIT_ARCH_… that an x86-64 or an arm64 kernel reports, and some
// that neither does.
var AuditArches = []uint32{
	0xc000003e, 0x40000003, // x86-64, i386
	0xc00000b7, 0x40000028, // aarch64, arm
	0x000000b7, 0x00000028, // big-endian arm64 without its flags, armeb
	0x8000003e, 0x4000003e, // x86-64 with a flag missing
	0xc00000f3, 0, 0xffffffff, // riscv64
}
