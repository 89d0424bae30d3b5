package reference

import (
	"fmt"
	"io"
	"strings"

	"github.com/bpfbroker/bpfbroker/abi"
)

const head = `# The commands of bpf()

<!-- Made from the table in package abi: edit that, then run "make docs". -->

What bpfbroker knows of the bpf() system call: the commands of Linux %s, and the
fields of union bpf_attr (%d bytes) that each uses. A command is either
*intercepted*, which means that a policy decides on it, or *native*: the seccomp
filter leaves it to the kernel. A command that isn't here is answered with EINVAL,
and a byte set behind what is here with E2BIG or EINVAL, as an older kernel does.
perf_event_open() and two requests of ioctl(), by which half of all tools attach their
programs, are treated as if they were commands.

How to read the tables:

- **at** is a field's offset, **size** its length, both in bytes. Members of inner
  structures have a dotted name; fields at the same offset are a union.
- **kind** says what a field is. Behind it stand the enum or flags that it is of
  (listed at the end), the objects that an fd or id may be of, or what a pointer
  points to. "0: none" marks an fd or id for which the kernel takes 0 as absent.
- **dir** is *in* (the kernel reads it), *out* (it writes it) or *inout*; for a
  pointer, that of what it points to.
- **when** is the condition under which the kernel looks at the field; empty:
  always.
- **since** is the first kernel that has the field; empty: that of the command.
- **fact** is the name of the field's value as a fact. Policies see only some yet.
`

func writeMarkdown(w io.Writer, rows []*abi.Row) error {
	var s strings.Builder
	fmt.Fprintf(&s, head, abi.Kernel, abi.AttrSize)

	s.WriteString("\n| number | command | since | handled | returns |\n|---|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&s, "| %s | [%s](#%s) | %s | %s | %s |\n", number(r), r.Name, anchor(r.Kernel), r.Since, handled(r), returns(r))
	}

	s.WriteString("\n## Commands\n")
	for _, r := range rows {
		fmt.Fprintf(&s, "\n### %s\n\n", r.Kernel)
		what := "`" + r.Name + "`, number " + number(r)
		if r.Syscall != abi.SyscallBPF {
			what = "No command of bpf(), `" + r.Name + "`"
		}
		fmt.Fprintf(&s, "%s, since Linux %s. %s%s: %s. Returns %s.", what, r.Since,
			strings.ToUpper(handled(r)[:1]), handled(r)[1:], r.Why, returns(r))
		if r.Host != "" {
			fmt.Fprintf(&s, " The daemon performs it (%s).", r.Host)
		}
		if r.TokenFD != "" {
			fmt.Fprintf(&s, " A token worker sets `%s`.", r.TokenFD)
		}
		if r.Effect {
			s.WriteString(" It has an effect beside its fd.")
		}
		if r.Member != "" {
			fmt.Fprintf(&s, " Member `%s` of the union.", r.Member)
		}
		fmt.Fprintf(&s, " The last field that may be set is `%s`.\n\n", r.Last)
		markdownFields(&s, &r.Layout)
	}

	structs := structures(rows)
	if len(structs) > 0 {
		s.WriteString("\n## Structures that fields point to\n")
	}
	for _, l := range structs {
		fmt.Fprintf(&s, "\n### %s\n\n%d bytes.\n\n", l.Name, l.Size)
		markdownFields(&s, l)
	}

	enums, flags := valueSets(rows, structs)
	if len(enums) > 0 {
		s.WriteString("\n## Enums\n")
	}
	for _, v := range enums {
		fmt.Fprintf(&s, "\n### %s\n\n| value | name | kernel |\n|---|---|---|\n", v.Kernel)
		for n, k := range v.Names {
			if k != "" {
				fmt.Fprintf(&s, "| %d | %s | %s |\n", n, v.Name(uint64(n)), k)
			}
		}
	}
	if len(flags) > 0 {
		s.WriteString("\n## Flags\n")
	}
	for _, v := range flags {
		fmt.Fprintf(&s, "\n### %s\n\n| bit | kernel |\n|---|---|\n", v.Kernel)
		for _, b := range v.Bits {
			fmt.Fprintf(&s, "| %#x | %s |\n", b.Bit, b.Kernel)
		}
	}
	_, err := io.WriteString(w, s.String())
	return err
}

// anchor is what the usual renderers make of a heading.
func anchor(heading string) string { return strings.ToLower(heading) }

func markdownFields(s *strings.Builder, l *abi.Layout) {
	s.WriteString("| field | at | size | kind | dir | when | since | fact |\n|---|---|---|---|---|---|---|---|\n")
	var needs []string
	for i := range l.Fields {
		f := &l.Fields[i]
		fmt.Fprintf(s, "| %s | %d | %d | %s | %s | %s | %s | %s |\n", f.Name, f.Offset, f.Size, kind(f), dir(f),
			strings.Join(conditions(l, f.When), "; or "), f.Since, f.Fact)
		if f.Need != "" {
			needs = append(needs, fmt.Sprintf("- `%s`: %s", f.Name, f.Need))
		}
	}
	if len(needs) > 0 {
		fmt.Fprintf(s, "\nNEED (what the table can't say):\n\n%s\n", strings.Join(needs, "\n"))
	}
}

var pathWords = [...]string{abi.PathOpen: "looked up", abi.PathCreate: "made", abi.PathShown: "as the caller sees it"}

// kind is what a field is, in a few words.
func kind(f *abi.Field) string {
	s := f.Class.String()
	switch f.Class {
	case abi.Enum:
		s += " " + f.Values.Kernel
	case abi.Flags:
		if len(f.Values.Bits) == 0 {
			return s + ", none defined"
		}
		s += " " + f.Values.Kernel
	case abi.FD, abi.ID:
		s += " of " + strings.Join(objects(f.Object), ", ")
		if f.ZeroIsNone {
			s += "; 0: none"
		}
	case abi.Pointer:
		b := f.Buffer
		to := b.Elem.String()
		switch {
		case b.Path != abi.NoPath:
			to = "path, " + pathWords[b.Path]
		case b.Elem == abi.ElemStruct && b.Struct != nil:
			to = b.Struct.Name
		case b.Elem == abi.ElemStruct:
			var names []string
			for _, l := range infoLayouts() {
				names = append(names, l.Name)
			}
			to = "by the kind of the fd: " + strings.Join(names, ", ")
		}
		s += " to " + to
		if n := length(b); n != "" {
			s += "; length: " + n
		}
	}
	return s
}
