// Package reference prints the table of the ABI, for people (a table, or a
// document in Markdown: docs/commands.md) and for programs (JSON).
package reference

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/bpfbroker/bpfbroker/abi"
)

// Formats are what Write can write.
var Formats = []string{"table", "json", "markdown"}

// Write writes the commands called names (prog_load, BPF_PROG_LOAD or 5), or all
// where there are none, in one of Formats. Other system calls are taken for commands.
func Write(w io.Writer, format string, names []string) error {
	rows, err := find(names)
	if err != nil {
		return err
	}
	switch format {
	case "table":
		return writeTable(w, rows)
	case "json":
		return writeJSON(w, rows)
	case "markdown":
		return writeMarkdown(w, rows)
	}
	return fmt.Errorf("format %q: not one of %s", format, strings.Join(Formats, ", "))
}

// WriteTable writes one line for each command.
func WriteTable(w io.Writer) error { return Write(w, "table", nil) }

// WriteJSON writes everything that the table has: see Document.
func WriteJSON(w io.Writer) error { return Write(w, "json", nil) }

// WriteMarkdown writes the reference document.
func WriteMarkdown(w io.Writer) error { return Write(w, "markdown", nil) }

func find(names []string) ([]*abi.Row, error) {
	all := abi.Rows()
	var rows []*abi.Row
	if len(names) == 0 {
		return all, nil
	}
	for _, n := range names {
		i := slices.IndexFunc(all, func(r *abi.Row) bool { return n == r.Name || n == r.Kernel || n == number(r) })
		if i < 0 {
			return nil, fmt.Errorf("no command %q in Linux %s", n, abi.Kernel)
		}
		rows = append(rows, all[i])
	}
	return rows, nil
}

// number is a command's, "" for another system call.
func number(r *abi.Row) string {
	if r.Syscall != abi.SyscallBPF {
		return ""
	}
	return strconv.Itoa(int(r.Command))
}

// handled says who performs a command.
func handled(r *abi.Row) string {
	switch {
	case r.NativeSince != "":
		return "native since " + r.NativeSince
	case r.Native:
		return "native"
	}
	return "intercepted"
}

// returns says what a successful call returns.
func returns(r *abi.Row) string {
	if o := r.Returns.FD; o != 0 {
		return "fd of " + strings.Join(objects(o), ", ")
	}
	return "0"
}

// objects lists the kinds in a set.
func objects(o abi.Object) []string {
	if o == 0 {
		return nil
	}
	return strings.Split(o.String(), "|")
}

// dir is the direction of a field; a pointer's is that of what it points to.
func dir(f *abi.Field) string {
	if f.Buffer != nil {
		return f.Buffer.Dir.String()
	}
	return f.Dir.String()
}

// paths are the names of what the kernel does with a path.
var paths = [...]string{abi.NoPath: "", abi.PathOpen: "open", abi.PathCreate: "create", abi.PathShown: "shown"}

// length is a buffer's length rule in words.
func length(b *abi.Buffer) string {
	var s string
	n := b.Len
	switch {
	case n.Count == "" && n.Elem == 0:
		return ""
	case n.Count == "":
		s = fmt.Sprintf("up to %d bytes", n.Elem)
	case n.Rec != "":
		s = n.Count + " × " + n.Rec
	case n.Elem == 1:
		s = n.Count
	default:
		s = fmt.Sprintf("%s × %d", n.Count, n.Elem)
	}
	if n.Count != "" && n.Max != 0 {
		s += fmt.Sprintf(", at most %d bytes", n.Max)
	}
	if n.Clamp != abi.ClampNone {
		s += " (rule " + n.Clamp.String() + ")"
	}
	return s
}

// conditions are the alternatives under which the kernel looks at a field.
func conditions(l *abi.Layout, conds []abi.Cond) []string {
	var out []string
	for _, c := range conds {
		var all []string
		for _, t := range c {
			all = append(all, condition(l.Field(t.Field), t))
		}
		out = append(out, strings.Join(all, " and "))
	}
	return out
}

func condition(f *abi.Field, t abi.Test) string {
	var values []string
	for _, v := range t.Values {
		switch {
		case f.Class == abi.Enum:
			values = append(values, f.Values.Name(v))
		case f.Class == abi.Flags:
			values = append(values, f.Values.FlagNames(v)...)
		default:
			values = append(values, strconv.FormatUint(v, 10))
		}
	}
	list := strings.Join(values, ", ")
	if len(values) > 1 {
		list = "one of " + list
	}
	switch t.Op {
	case abi.OpIn:
		return t.Field + " is " + list
	case abi.OpNotIn:
		return t.Field + " is not " + list
	case abi.OpHas:
		return t.Field + " has " + list
	case abi.OpHasNot:
		return t.Field + " has not " + list
	case abi.OpNonZero:
		return t.Field + " is not 0"
	}
	panic(fmt.Sprintf("reference: no words for comparison %d", t.Op))
}

// infoLayouts are what BPF_OBJ_GET_INFO_BY_FD may write, by the kind of the fd.
func infoLayouts() []*abi.Layout {
	var out []*abi.Layout
	for _, o := range []abi.Object{abi.Prog, abi.Map, abi.BTF, abi.Link, abi.Token} {
		out = append(out, abi.InfoLayout(o))
	}
	return out
}

// structures returns the layouts that the rows' fields point to, once each.
func structures(rows []*abi.Row) []*abi.Layout {
	var out []*abi.Layout
	for _, r := range rows {
		for i := range r.Fields {
			b := r.Fields[i].Buffer
			if b == nil || b.Elem != abi.ElemStruct {
				continue
			}
			found := []*abi.Layout{b.Struct}
			if b.Struct == nil {
				found = infoLayouts()
			}
			for _, l := range found {
				if !slices.Contains(out, l) {
					out = append(out, l)
				}
			}
		}
	}
	return out
}

// valueSets returns the enums and bit sets that fields of the rows and the
// structures have, once each: enums first.
func valueSets(rows []*abi.Row, structs []*abi.Layout) (enums, flags []*abi.Values) {
	add := func(l *abi.Layout) {
		for i := range l.Fields {
			v := l.Fields[i].Values
			switch {
			case v == nil:
			case len(v.Names) > 0 && !slices.Contains(enums, v):
				enums = append(enums, v)
			case len(v.Bits) > 0 && !slices.Contains(flags, v):
				flags = append(flags, v)
			}
		}
	}
	for _, r := range rows {
		add(&r.Layout)
	}
	for _, l := range structs {
		add(l)
	}
	return enums, flags
}
