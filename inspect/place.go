package inspect

import (
	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// Place is who can find out what the request's own copy doesn't show: from the kernel,
// and from the target's surroundings. What it can't, it says: nothing is guessed. An fd
// is one that the request has taken, so what is looked at is what the call will act on.
//
// An error is one short clause, for the operator.
type Place interface {
	// ObjectInfo asks the kernel about the object at fd n: the first bytes of the
	// structure that BPF_OBJ_GET_INFO_BY_FD has for it. info is zero.
	ObjectInfo(n int, info []byte) sys.Errno
	// BTFName is what the BTF at fd n is of: "vmlinux", a module's name, or "" for types
	// of the workload's own.
	BTFName(n int) (string, error)
	// TypeName is the name of a type by its id, in the kernel's own BTF (KernelBTF) or
	// that of a module, at fd n.
	TypeName(n int, id uint32) (string, error)
	// ProgTypeName is the same in the BTF of the program at fd n.
	ProgTypeName(n int, id uint32) (string, error)
	// Owns says whether an object was made for the workload, or else is one that its policy
	// shares. A link is its program's, or of type struct_ops its map's; it may be shared
	// itself, too.
	Owns(kind abi.Object, id uint32) (own, shared bool, err error)
	// Pinned opens what is pinned at a path from base (an fd, or the working directory),
	// with the flags of BPF_OBJ_GET. The fd n is good until the call is over, and the call
	// will be on that very object. An errno is the call's, too.
	Pinned(base int, path []byte, flags uint32) (kind abi.Object, n int, e sys.Errno)

	// CgroupPath is the path, below the root of the hierarchy, of the cgroup whose
	// directory is open at fd n; CgroupInside says whether it is the workload's or below.
	CgroupPath(n int) (string, error)
	CgroupInside(n int) (bool, error)
	// Ifname is the name of an interface of the target's network namespace.
	Ifname(index uint32) (string, error)
	// NetNSOwn says whether the target's network namespace (CallersNetNS), or the one
	// that is open at fd n, is the workload's own.
	NetNSOwn(n int) (bool, error)
	// FileName is what the workload calls the file that a path leads to; FileShared says
	// whether others than the workload may execute it. The call will act on that file,
	// whatever the path leads to by then.
	FileName(path []byte) (string, error)
	FileShared(path []byte) (bool, error)
	// PIDOwn says whether a process, by its id in the target's pid namespace, is the
	// workload's.
	PIDOwn(pid uint32) (bool, error)
	// Tracepoint is the name of a tracepoint by its id in tracefs: "sched:sched_switch".
	Tracepoint(id uint64) (string, error)

	// Of the calling process, and thread (Comm).
	PID() (int64, error)
	Comm() (string, error)
	Exe() (string, error)
	Argv() ([]string, error)
	// Counts are what the workload holds.
	Counts() (facts.Counts, error)
}

const (
	KernelBTF    = -1 // for TypeName
	CallersNetNS = -1 // for NetNSOwn
)
