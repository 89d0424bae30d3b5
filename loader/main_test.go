package loader

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"github.com/cilium/ebpf/asm"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/brokertest"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

func TestMain(m *testing.M) { brokertest.Main(m) }

func needRoot(t *testing.T) {
	t.Helper()
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("needs root, not run with -short")
	}
}

// assemble returns the instructions as BPF_PROG_LOAD takes them. The assembler is
// another one's, so that the tests don't share the package's idea of the encoding.
func assemble(t testing.TB, insns asm.Instructions) []byte {
	t.Helper()
	var b bytes.Buffer
	withAtomics(insns)
	if err := insns.Marshal(&b, binary.LittleEndian); err != nil {
		t.Fatalf("%v\n%v", err, insns)
	}
	return b.Bytes()
}

// withAtomics says again which operation an atomic instruction is: cilium/ebpf v0.22
// marshals what it read as an imm, and leaves out what only the opcode says.
func withAtomics(insns asm.Instructions) {
	for i := range insns {
		if op := insns[i].OpCode.AtomicOp(); op != asm.InvalidAtomic {
			insns[i].Constant = int64(op >> 8)
		}
	}
}

// storeImm is asm.StoreImm, which refuses words of 8 bytes.
func storeImm(dst asm.Register, off int16, v int32, size asm.Size) asm.Instruction {
	return asm.Instruction{OpCode: asm.StoreImmOp(size), Dst: dst, Offset: off, Constant: int64(v)}
}

func parse(t testing.TB, insns asm.Instructions) *Program {
	t.Helper()
	p, err := Parse(assemble(t, insns))
	if err != nil {
		t.Fatalf("%v\n%v", err, insns)
	}
	return p
}

var errNotExpected = errors.New("not expected")

// fakeEnv is an Env of functions; what is nil isn't expected to be called.
type fakeEnv struct {
	sysBPF   func(cmd abi.Command, attr uint64, size uint32, mem *Memory) (int, error)
	sysClose func(fd int32) sys.Errno
	btfFind  func(name string, kind uint32) (uint32, int32, sys.Errno)
	kallsyms func(name string) (uint64, sys.Errno)
	readUser func(addr uint64, p []byte) (int, sys.Errno)

	calls int
}

func (e *fakeEnv) SysBPF(cmd abi.Command, attr uint64, size uint32, mem *Memory) (int, error) {
	if e.calls++; e.sysBPF == nil {
		return 0, errNotExpected
	}
	return e.sysBPF(cmd, attr, size, mem)
}

func (e *fakeEnv) SysClose(fd int32) sys.Errno {
	if e.calls++; e.sysClose == nil {
		return sys.ENOSYS
	}
	return e.sysClose(fd)
}

func (e *fakeEnv) BTFFind(name string, kind uint32) (uint32, int32, sys.Errno) {
	if e.calls++; e.btfFind == nil {
		return 0, 0, sys.ENOSYS
	}
	return e.btfFind(name, kind)
}

func (e *fakeEnv) KallsymsLookup(name string) (uint64, sys.Errno) {
	if e.calls++; e.kallsyms == nil {
		return 0, sys.ENOSYS
	}
	return e.kallsyms(name)
}

func (e *fakeEnv) ReadUser(addr uint64, p []byte) (int, sys.Errno) {
	if e.calls++; e.readUser == nil {
		return 0, sys.ENOSYS
	}
	return e.readUser(addr, p)
}
