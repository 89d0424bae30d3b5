package loader

import (
	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// Map is one that a program names.
type Map struct {
	// Value is the map's only element (an array of one), which the program reads and
	// writes in place; nil: it has no such value. A program's access to it, and Memory's,
	// is all there may be until Run returns: nothing else may write there meanwhile.
	Value []byte
	// Hash is the SHA-256 of the value that the program may read, at the beginning of
	// struct bpf_map: what the kernel has there since BPF_OBJ_GET_INFO_BY_FD last asked
	// for the map's hash, else zeros. Loaders that are signed compare it.
	Hash [32]byte
}

// Env is what a program's helpers reach. Its methods are called on Run's goroutine, one
// at a time.
type Env interface {
	// SysBPF is bpf_sys_bpf, bpf() from within the kernel: attr and size are those of the
	// call, and mem has the memory that they and all that they point to are in. cmd is
	// one of those that the helper takes. It returns the fd, or the error as a negative
	// number. An err ends the run.
	SysBPF(cmd abi.Command, attr uint64, size uint32, mem *Memory) (ret int, err error)
	// SysClose is bpf_sys_close.
	SysClose(fd int32) sys.Errno
	// BTFFind is bpf_btf_find_by_name_kind: the id of the type, and an fd of the module's
	// BTF that it is in, 0 for the kernel's own.
	BTFFind(name string, kind uint32) (id uint32, fd int32, e sys.Errno)
	// KallsymsLookup is bpf_kallsyms_lookup_name. ENOENT: there is no such symbol; EPERM:
	// its address must not be known.
	KallsymsLookup(name string) (addr uint64, e sys.Errno)
	// ReadUser reads the memory of whoever runs the program, as request.Target's Read.
	ReadUser(addr uint64, p []byte) (int, sys.Errno)
}
