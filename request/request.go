// Package request makes the one copy of a call that everything later works on:
// the attribute, all memory that it points to, and the files that it names.
//
// The target's memory is read here once and nowhere else, and its fds are taken
// here once. What Read returns doesn't change any more.
package request

import (
	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// Call is a suspended call as the target made it.
type Call struct {
	Syscall abi.Syscall
	Command abi.Command // bpf()'s first argument, its low 32 bits; else abi.NoCommand
	Addr    uint64      // of the attribute; 0 where there is none in memory
	Size    uint32      // of bpf()'s attribute, the low 32 bits
	Args    [6]uint64
}

// CallOf picks a call from the target's registers; false: it is none that the
// broker serves. Of bpf()'s command and size, and of ioctl()'s request, the kernel looks
// at the low 32 bits.
func CallOf(d *sys.SeccompData) (Call, bool) {
	switch d.Nr {
	case sys.NrBPF:
		return Call{Command: abi.Command(uint32(d.Args[0])), Addr: d.Args[1], Size: uint32(d.Args[2]), Args: d.Args}, true
	case sys.NrPerfEventOpen:
		return Call{Syscall: abi.SyscallPerfEventOpen, Command: abi.NoCommand, Addr: d.Args[0], Args: d.Args}, true
	case sys.NrIoctl:
		switch uint32(d.Args[1]) {
		case abi.PerfIOCSetBPF:
			return Call{Syscall: abi.SyscallPerfSetBPF, Command: abi.NoCommand, Args: d.Args}, true
		case abi.PerfIOCQueryBPF:
			return Call{Syscall: abi.SyscallPerfQueryBPF, Command: abi.NoCommand, Addr: d.Args[2], Args: d.Args}, true
		}
	}
	return Call{}, false
}

// Row is the call's row in the table, nil for a command that it doesn't know.
func (c *Call) Row() *abi.Row {
	if c.Syscall != abi.SyscallBPF {
		return abi.RowOfSyscall(c.Syscall)
	}
	return abi.RowOf(c.Command)
}

// Target is what a request is read from: the suspended thread.
type Target interface {
	// Read copies the target's memory at addr to p. It returns how many bytes
	// came before the first that can't be read, and an error only where that is
	// none.
	Read(addr uint64, p []byte) (int, sys.Errno)
	// ReadAll does the same for several pieces, all or (false) perhaps nothing.
	ReadAll(segs []sys.Segment) bool
	// Take takes the target's fd n, so that it sits at the same number n in the
	// performing thread's fd table, and says what it is. EBADF: there is none.
	Take(n int) (abi.Object, sys.Errno)
	// LinkInfo asks the kernel for the first bytes of struct bpf_link_info of the
	// link at fd n, which Take has taken.
	LinkInfo(n int, info []byte) sys.Errno
}

// Request is one call, copied. It is immutable, and valid until the Reader that
// made it is Reset.
type Request struct {
	Call
	Row *abi.Row // of the call, never nil

	// Size is how much of Attr the application gave in memory, at most len(Attr); for
	// perf_event_open(), what the attribute that is performed says of its size.
	Size uint32
	// Attr is the attribute, zero behind what the application gave; always
	// abi.AttrSize bytes.
	Attr []byte

	Buffers []Buffer
	Files   []File

	// Info is the layout of the structure that BPF_OBJ_GET_INFO_BY_FD asks for;
	// nil for other commands, and where the fd is of no object.
	Info *abi.Layout
	// Selector is what tells which of Info's fields are live, as long as Info.
	Selector []byte
}

// NoParent is the Parent of a buffer that the attribute itself points to.
const NoParent = -1

// Buffer is memory that the attribute, or a structure in another buffer, points to.
type Buffer struct {
	Field  *abi.Field
	Parent int    // index of the buffer that holds the pointer, or NoParent
	Offset uint32 // of the pointer in the attribute or in the parent
	Addr   uint64 // in the target
	Len    uint64 // bytes that the application says are there

	// Data is the copy (In, InOut), or nil for an Out buffer. It may be shorter than
	// Len by a rule of abi (Clamp), and longer, with zeros, for a structure.
	Data []byte
	// Fault says that the memory could not be read, or that Len is more than the
	// kernel takes: it is performed as an address that faults.
	Fault bool
}

// File is an fd of the target's, taken. It sits at the same number N in the
// performing thread's fd table, so that no number in the request ever has to be
// rewritten, and a number that the table doesn't describe can't reach anything
// that isn't the target's own.
type File struct {
	N    int
	Kind abi.Object // 0: open, but of no kind that bpf() knows
	Err  sys.Errno  // EBADF: not open
}

// Field returns the value of the attribute's field called name, 0 if the
// command has none.
func (r *Request) Field(name string) uint64 {
	if f := r.Row.Field(name); f != nil {
		return f.Uint(r.Attr)
	}
	return 0
}

// Buffer returns the buffer that the attribute's field called name points to,
// or nil.
func (r *Request) Buffer(name string) *Buffer {
	for i := range r.Buffers {
		if b := &r.Buffers[i]; b.Parent == NoParent && b.Field.Name == name {
			return b
		}
	}
	return nil
}

// File returns the taken file of number n, or nil.
func (r *Request) File(n int) *File {
	for i := range r.Files {
		if r.Files[i].N == n {
			return &r.Files[i]
		}
	}
	return nil
}
