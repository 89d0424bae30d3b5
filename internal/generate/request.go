package generate

import (
	"slices"

	"github.com/bpfbroker/bpfbroker/abi"
)

// Request is one call and what must be there before it.
type Request struct {
	Seed  uint64   // it was made from; 0 for one that was made otherwise
	Call  string   // the row's name
	Args  []uint64 // of bpf(), address and size of the attribute; of others, see Slots
	Steps []string // what is made before the call, beside the world: see Steps in world.go

	Fill   byte    // what the arena holds where no piece is
	Pieces []Piece // are written in this order
	Refs   []Ref   // are written then
}

// Piece is memory at a fixed address.
type Piece struct {
	Addr uint64
	Data []byte
}

// Ref is a number that only the process knows that makes the call: an object's id, its
// own process id, a number of the running kernel's.
type Ref struct {
	At   uint64 // an address; or AtArg and an argument's number
	Size uint32 // bytes, 4 or 8
	Name string // "id 100", "pid", or the name of a Value
	Add  int32
}

// AtArg and the number of an argument is where a Ref is that isn't in memory.
const AtArg = 1 << 62

// Row is the request's row of the table.
func (r *Request) Row() *abi.Row { return RowOf(r.Call) }

// RowOf finds a row by its name.
func RowOf(name string) *abi.Row {
	for _, row := range abi.Rows() {
		if row.Name == name {
			return row
		}
	}
	return nil
}

// Slots are the names of a call's arguments, as Args has them.
func Slots(row *abi.Row) []string {
	switch row.Syscall {
	case abi.SyscallBPF:
		return []string{"attr", "size"}
	case abi.SyscallPerfEventOpen:
		return []string{"attr", "pid", "cpu", "group_fd", "flags"}
	case abi.SyscallPerfSetBPF:
		return []string{"fd", "prog_fd"}
	}
	return []string{"fd", "attr"}
}

// Attr is the address of the call's attribute and how many bytes of it the table
// describes; 0, 0 where the call has none.
func (r *Request) Attr() (addr uint64, size uint32) {
	row := r.Row()
	switch row.Syscall {
	case abi.SyscallBPF:
		return r.Args[0], min(uint32(r.Args[1]), row.Size)
	case abi.SyscallPerfEventOpen:
		return r.Args[0], abi.PerfEventAttrSize
	case abi.SyscallPerfQueryBPF:
		return r.Args[1], abi.PerfQuerySize
	}
	return 0, 0
}

// Field is what the attribute says of a field.
func (r *Request) Field(name string) uint64 {
	at, size := r.Attr()
	row := r.Row()
	return row.Field(name).Uint(pad(r.Image().bytes(at, uint64(size)), row.Size))
}

// Clone is a copy that shares nothing.
func (r *Request) Clone() *Request {
	c := *r
	c.Args, c.Steps, c.Refs = slices.Clone(r.Args), slices.Clone(r.Steps), slices.Clone(r.Refs)
	c.Pieces = slices.Clone(r.Pieces)
	for i := range c.Pieces {
		c.Pieces[i].Data = slices.Clone(c.Pieces[i].Data)
	}
	return &c
}

// Calls are the names of the rows that requests are made of: all that the filter
// doesn't leave to the kernel.
func Calls() []string {
	var names []string
	for _, row := range abi.Rows() {
		if !row.Native {
			names = append(names, row.Name)
		}
	}
	return names
}
