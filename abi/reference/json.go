package reference

import (
	"encoding/json"
	"io"

	"github.com/bpfbroker/bpfbroker/abi"
)

// Document is what WriteJSON writes. Members are only ever added.
type Document struct {
	Kernel     string      `json:"kernel"`    // the version of Linux that is described
	AttrSize   uint32      `json:"attr_size"` // sizeof(union bpf_attr), bytes
	Commands   []Command   `json:"commands"`
	Structures []Structure `json:"structures"` // what fields of the commands point to
	Enums      []Enum      `json:"enums"`
	Flags      []FlagSet   `json:"flags"`
}

// Command is one command of bpf(), or another system call.
type Command struct {
	Number     *uint32  `json:"number"`      // null: it isn't of bpf()
	Name       string   `json:"name"`        // prog_load, as policies have it
	KernelName string   `json:"kernel_name"` // BPF_PROG_LOAD
	Since      string   `json:"since"`       // the first kernel that has it
	Native     bool     `json:"native"`      // left to the kernel by the filter
	Host       string   `json:"host"`        // the host's capability with which the daemon performs it
	TokenFD    string   `json:"token_fd"`    // the field for a token
	Effect     bool     `json:"effect"`      // it does something beside making an fd
	Why        string   `json:"why"`         // it is native, or isn't
	ReturnsFD  []string `json:"returns_fd"`  // kinds of the new fd; empty: 0 is returned
	Member     string   `json:"member"`      // of union bpf_attr; "": an anonymous one
	Last       string   `json:"last"`        // nothing behind this field may be set
	Fields     []Field  `json:"fields"`
}

// Structure is a structure that a field points to.
type Structure struct {
	Name   string  `json:"name"`
	Size   uint32  `json:"size"` // bytes
	Fields []Field `json:"fields"`
}

// Field is a member of a command's attribute or of a structure.
type Field struct {
	Name       string   `json:"name"` // dotted for members of inner structures
	Offset     uint32   `json:"offset"`
	Size       uint32   `json:"size"`
	Class      string   `json:"class"`             // scalar, enum, flags, name, fd, id, ifindex, pid, uid, pointer, bytes
	Direction  string   `json:"direction"`         // in, out, inout; a pointer's: of what it points to
	Values     string   `json:"values,omitempty"`  // name in enums or flags
	Objects    []string `json:"objects,omitempty"` // an fd or id: of what
	ZeroIsNone bool     `json:"zero_is_none,omitempty"`
	When       []string `json:"when,omitempty"` // any of these conditions; none: always
	Since      string   `json:"since,omitempty"`
	Fact       string   `json:"fact,omitempty"` // the name under which policies see it
	Buffer     *Buffer  `json:"buffer,omitempty"`
	Need       string   `json:"need,omitempty"` // what the table can't say
}

// Buffer is what a pointer points to.
type Buffer struct {
	Elements  string `json:"elements"` // bytes, string, insns, fds, u32[], u64[], string[], struct
	Structure string `json:"structure,omitempty"`
	Count     string `json:"count,omitempty"`       // the field with the number of elements
	ElemSize  uint32 `json:"elem_size,omitempty"`   // bytes an element, or in all where there is no count
	ElemField string `json:"elem_field,omitempty"`  // the field with the bytes an element
	Max       uint64 `json:"max,omitempty"`         // bytes
	Rule      string `json:"length_rule,omitempty"` // a rule beyond count times size
	Written   string `json:"written,omitempty"`     // how it is known what the kernel wrote
	Path      string `json:"path,omitempty"`        // a path in the caller's file system: open, create, shown
}

// Enum is one of the kernel's enums.
type Enum struct {
	Name   string  `json:"name"`
	Values []Value `json:"values"`
}

// Value is a value of an enum.
type Value struct {
	Value      uint64 `json:"value"`
	Name       string `json:"name"` // as policies have it
	KernelName string `json:"kernel_name"`
}

// FlagSet is the bits that a field may have.
type FlagSet struct {
	Name string `json:"name"`
	Bits []Flag `json:"bits"`
}

// Flag is one bit.
type Flag struct {
	Bit        uint64 `json:"bit"`
	KernelName string `json:"kernel_name"`
}

func writeJSON(w io.Writer, rows []*abi.Row) error {
	d := Document{Kernel: abi.Kernel, AttrSize: abi.AttrSize, Structures: []Structure{}, Enums: []Enum{}, Flags: []FlagSet{}}
	for _, r := range rows {
		fds := objects(r.Returns.FD)
		if fds == nil {
			fds = []string{}
		}
		var n *uint32
		if r.Syscall == abi.SyscallBPF {
			c := uint32(r.Command)
			n = &c
		}
		d.Commands = append(d.Commands, Command{
			Number: n, Name: r.Name, KernelName: r.Kernel, Since: r.Since, Native: r.Native, Why: r.Why, Host: r.Host, TokenFD: r.TokenFD, Effect: r.Effect,
			ReturnsFD: fds, Member: r.Member, Last: r.Last, Fields: fields(&r.Layout),
		})
	}
	structs := structures(rows)
	for _, l := range structs {
		d.Structures = append(d.Structures, Structure{Name: l.Name, Size: l.Size, Fields: fields(l)})
	}
	enums, flags := valueSets(rows, structs)
	for _, v := range enums {
		e := Enum{Name: v.Kernel}
		for n, k := range v.Names {
			if k != "" {
				e.Values = append(e.Values, Value{uint64(n), v.Name(uint64(n)), k})
			}
		}
		d.Enums = append(d.Enums, e)
	}
	for _, v := range flags {
		s := FlagSet{Name: v.Kernel}
		for _, b := range v.Bits {
			s.Bits = append(s.Bits, Flag{b.Bit, b.Kernel})
		}
		d.Flags = append(d.Flags, s)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(d)
}

func fields(l *abi.Layout) []Field {
	out := make([]Field, 0, len(l.Fields))
	for i := range l.Fields {
		f := &l.Fields[i]
		j := Field{
			Name: f.Name, Offset: f.Offset, Size: f.Size, Class: f.Class.String(), Direction: dir(f), Objects: objects(f.Object),
			ZeroIsNone: f.ZeroIsNone, When: conditions(l, f.When), Since: f.Since, Fact: f.Fact, Need: f.Need,
		}
		if f.Values != nil {
			j.Values = f.Values.Kernel
		}
		if b := f.Buffer; b != nil {
			j.Buffer = &Buffer{
				Elements: b.Elem.String(), Count: b.Len.Count, ElemSize: b.Len.Elem, ElemField: b.Len.Rec, Max: b.Len.Max,
				Rule: b.Len.Clamp.String(), Written: b.Wrote.String(), Path: paths[b.Path],
			}
			if b.Struct != nil {
				j.Buffer.Structure = b.Struct.Name
			}
		}
		out = append(out, j)
	}
	return out
}
