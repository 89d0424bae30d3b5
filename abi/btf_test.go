package abi_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// remedy ends the message of every difference that a newer kernel may bring.
const remedy = "docs/howto-add-a-command.md says how the table follows a kernel"

// kernel is the running kernel's own description of the ABI.
type kernel struct {
	spec    *btf.Spec
	release string
}

// older says whether the kernel is older than the one that the table describes:
// then it may lack things, but have nothing that the table lacks.
func (k kernel) older() bool { return abi.Older(k.release, abi.Kernel) }

// lacks says whether it is right that the kernel doesn't have what came with
// since ("" where the table doesn't say).
func (k kernel) lacks(since string) bool {
	if since == "" {
		return k.older()
	}
	return abi.Older(k.release, since)
}

func runningKernel(t *testing.T) kernel {
	t.Helper()
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		t.Skip("needs the kernel's BTF (CONFIG_DEBUG_INFO_BTF): ", err)
	}
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	return kernel{spec, sys.KernelRelease()}
}

// leaf is a member that isn't itself a structure or union.
type leaf struct {
	name         string // "iter.map.map_id"; what has no name adds none
	offset, size uint32
}

// leaves flattens a structure or union.
func leaves(t *testing.T, typ btf.Type, prefix string, at uint32) []leaf {
	t.Helper()
	var members []btf.Member
	switch s := btf.UnderlyingType(typ).(type) {
	case *btf.Struct:
		members = s.Members
	case *btf.Union:
		members = s.Members
	default:
		t.Fatalf("%v is neither structure nor union", typ)
	}
	var out []leaf
	for _, m := range members {
		offset, name := at+m.Offset.Bytes(), prefix+m.Name
		size, err := btf.Sizeof(m.Type)
		if err != nil {
			t.Fatal(err)
		}
		switch btf.UnderlyingType(m.Type).(type) {
		case *btf.Struct, *btf.Union:
			if m.Name != "" {
				name += "."
			}
			out = append(out, leaves(t, m.Type, name, offset)...)
		default:
			if m.Name == "" {
				continue // padding
			}
			if m.BitfieldSize != 0 {
				offset = at + uint32(m.Offset)/8/uint32(size)*uint32(size)
			}
			out = append(out, leaf{name, offset, uint32(size)})
		}
	}
	return out
}

// attr returns union bpf_attr.
func (k kernel) attr(t *testing.T) *btf.Union {
	t.Helper()
	var u *btf.Union
	if err := k.spec.TypeByName("bpf_attr", &u); err != nil {
		t.Fatal(err)
	}
	return u
}

// member finds the part of union bpf_attr that is a row's: the member that it
// names, or the anonymous structure that has all its fields. nil: there is none.
func member(t *testing.T, attr *btf.Union, r *abi.Row) btf.Type {
	t.Helper()
	var best btf.Type
	most := 0
	for _, m := range attr.Members {
		if m.Name != r.Member {
			continue
		}
		if r.Member != "" {
			return m.Type
		}
		has := 0
		for _, l := range leaves(t, m.Type, "", 0) {
			if r.Field(l.name) != nil {
				has++
			}
		}
		if has > most {
			best, most = m.Type, has
		}
	}
	return best
}

func TestBTFCommands(t *testing.T) {
	k := runningKernel(t)
	var e *btf.Enum
	if err := k.spec.TypeByName("bpf_cmd", &e); err != nil {
		t.Fatal(err)
	}
	names := map[uint64][]string{}
	for _, v := range e.Values {
		if strings.HasPrefix(v.Name, "__MAX") {
			continue
		}
		names[v.Value] = append(names[v.Value], v.Name)
		if abi.RowOf(abi.Command(v.Value)) == nil {
			t.Errorf("the kernel has command %d, %s, and the table has no row for it: write one in abi/commands.go; %s", v.Value, v.Name, remedy)
		}
	}
	for _, r := range abi.Table() {
		got := names[uint64(r.Command)]
		if len(got) == 0 {
			if !k.lacks(r.Since) {
				t.Errorf("row %d, %s (since %s): the kernel has no such command", r.Command, r.Kernel, r.Since)
			}
			continue
		}
		// Some have a second name, such as BPF_PROG_RUN.
		if !slices.Contains(got, r.Kernel) {
			t.Errorf("row %d is %s, the kernel calls it %v", r.Command, r.Kernel, got)
		}
	}
}

func TestBTFAttributes(t *testing.T) {
	k := runningKernel(t)
	attr := k.attr(t)
	if attr.Size != abi.AttrSize && !(k.older() && attr.Size < abi.AttrSize) {
		t.Errorf("union bpf_attr has %d bytes, the table describes %d; %s", attr.Size, abi.AttrSize, remedy)
	}
	// Several commands share a structure, and each describes the members that it
	// may set.
	rowsOf := map[btf.Type][]*abi.Row{}
	for i := range abi.Table() {
		r := &abi.Table()[i]
		m := member(t, attr, r)
		if m == nil {
			if !k.lacks(r.Since) {
				t.Errorf("%s: union bpf_attr has no member %q", r.Kernel, r.Member)
			}
			continue
		}
		rowsOf[m] = append(rowsOf[m], r)
		compare(t, k, r.Kernel, r.Since, &r.Layout, leaves(t, m, "", 0), r.LastEnd)
	}
	for _, m := range attr.Members {
		rows := rowsOf[m.Type]
		for _, l := range leaves(t, m.Type, "", 0) {
			known := false
			for _, r := range rows {
				known = known || r.Field(l.name) != nil
			}
			if !known {
				t.Errorf("union bpf_attr: no row describes %s, %d bytes at %d of member %q (rows: %s): give it a field in abi/commands.go; %s",
					l.name, l.size, l.offset, m.Name, kernelNames(rows), remedy)
			}
		}
	}
}

func kernelNames(rows []*abi.Row) string {
	var s []string
	for _, r := range rows {
		s = append(s, r.Kernel)
	}
	return strings.Join(s, ", ")
}

// compare checks that each field is in the kernel, at the same place, and that
// the bytes of each of the kernel's members before end are some field's.
func compare(t *testing.T, k kernel, what, since string, l *abi.Layout, members []leaf, end uint32) {
	t.Helper()
	byName := map[string]leaf{}
	for _, m := range members {
		if d, dup := byName[m.name]; dup && d != m {
			t.Errorf("%s: the kernel has two members %s", what, m.name)
		}
		byName[m.name] = m
	}
	for _, f := range l.Fields {
		s := f.Since
		if s == "" {
			s = since
		}
		m, ok := byName[f.Name]
		switch {
		case !ok && k.lacks(s):
		case !ok:
			t.Errorf("%s.%s (since %s): the kernel has no such member", what, f.Name, s)
		case m.offset != f.Offset || m.size != f.Size:
			t.Errorf("%s.%s: got %d bytes at %d in the table, the kernel has %d at %d; %s", what, f.Name, f.Size, f.Offset, m.size, m.offset, remedy)
		}
	}
	for _, m := range members {
		if m.offset+m.size > end {
			continue
		}
		covered := false
		for _, f := range l.Fields {
			covered = covered || f.Offset <= m.offset && m.offset+m.size <= f.Offset+f.Size
		}
		if !covered {
			t.Errorf("%s: the kernel's member %s, %d bytes at %d, is no field of the table: add it, with its class; %s", what, m.name, m.size, m.offset, remedy)
		}
	}
}

// structures are all that attributes point to.
var structures = []*abi.Layout{&abi.ProgInfo, &abi.MapInfo, &abi.BTFInfo, &abi.LinkInfo, &abi.TokenInfo, &abi.IterLinkInfo}

func TestBTFStructures(t *testing.T) {
	k := runningKernel(t)
	for _, l := range structures {
		t.Run(l.Name, func(t *testing.T) {
			typ, err := k.spec.AnyTypeByName(l.Name)
			if err != nil {
				if k.older() {
					t.Skip("the kernel is older than the table: ", err)
				}
				t.Fatal(err)
			}
			size, err := btf.Sizeof(typ)
			if err != nil {
				t.Fatal(err)
			}
			if uint32(size) != l.Size && !(k.older() && uint32(size) < l.Size) {
				t.Errorf("the kernel's has %d bytes, the table's %d; %s", size, l.Size, remedy)
			}
			members := leaves(t, typ, "", 0)
			compare(t, k, l.Name, "", l, members, uint32(size))
			for _, m := range members {
				if l.Field(m.name) == nil {
					t.Errorf("the kernel's member %s, %d bytes at %d, is no field of the table: add it to abi/structs.go; %s", m.name, m.size, m.offset, remedy)
				}
			}
		})
	}
}

// perf_event_open()'s attribute: the table names fields as the manual page does
// and takes all single bits for one, so only places are compared.
func TestBTFPerfEventAttr(t *testing.T) {
	k := runningKernel(t)
	var s *btf.Struct
	if err := k.spec.TypeByName("perf_event_attr", &s); err != nil {
		t.Fatal(err)
	}
	if s.Size != abi.PerfEventAttrSize && !(k.older() && s.Size < abi.PerfEventAttrSize) {
		t.Errorf("struct perf_event_attr has %d bytes, the table describes %d; %s", s.Size, abi.PerfEventAttrSize, remedy)
	}
	members := map[string]leaf{}
	for _, m := range leaves(t, s, "", 0) {
		members[m.name] = m
		if !slices.ContainsFunc(abi.PerfEventOpen.Fields, func(f abi.Field) bool { return f.Offset == m.offset && f.Size == m.size }) {
			t.Errorf("the kernel's member %s, %d bytes at %d, is no field of abi.PerfEventOpen; %s", m.name, m.size, m.offset, remedy)
		}
	}
	for _, f := range abi.PerfEventOpen.Fields {
		if m, ok := members[f.Name]; ok && (m.offset != f.Offset || m.size != f.Size) {
			t.Errorf("%s: got %d bytes at %d in the table, the kernel has %d at %d", f.Name, f.Size, f.Offset, m.size, m.offset)
		}
	}
}

var enums = []*abi.Values{abi.MapTypes, abi.ProgTypes, abi.AttachTypes, abi.LinkTypes, abi.StatsTypes, abi.TaskFDTypes, abi.CgroupIterOrders, abi.PerfEventTypes, abi.EventTypes, abi.Helpers}

func TestBTFEnums(t *testing.T) {
	k := runningKernel(t)
	for _, v := range enums {
		t.Run(v.Kernel, func(t *testing.T) {
			var e *btf.Enum
			if err := k.spec.TypeByName(v.Kernel, &e); err != nil {
				if k.older() {
					t.Skip("the kernel is older than the table: ", err)
				}
				t.Fatal(err)
			}
			names := map[uint64][]string{}
			for _, n := range e.Values {
				if strings.HasPrefix(n.Name, "__MAX") || n.Name == "PERF_TYPE_MAX" || n.Name == "__BPF_FUNC_MAX_ID" {
					continue
				}
				names[n.Value] = append(names[n.Value], n.Name)
				if v.KernelName(n.Value) == "" {
					t.Errorf("the kernel has %s = %d, the table has not: add it to abi/enums.go; %s", n.Name, n.Value, remedy)
				}
			}
			for n, name := range v.Names {
				got := names[uint64(n)]
				// Some have a second name, such as …_DEPRECATED.
				if name != "" && !slices.Contains(got, name) && !(k.older() && len(got) == 0) {
					t.Errorf("%d is %s in the table, the kernel has %v", n, name, got)
				}
			}
		})
	}
}

// flagSets are the bit sets that the kernel has as an enum of their own; the
// others are macros, which BTF doesn't have.
var flagSets = []*abi.Values{abi.MapFlags, abi.ElemFlags, abi.KprobeMultiFlags, abi.UprobeMultiFlags}

var allFlags = []*abi.Values{abi.MapFlags, abi.ProgFlags, abi.AttachFlags, abi.ElemFlags, abi.TestFlags, abi.ObjectFlags, abi.OpenFlags,
	abi.QueryFlags, abi.BTFFlags, abi.XDPFlags, abi.UpdateFlags, abi.KprobeMultiFlags, abi.UprobeMultiFlags, abi.NetfilterFlags, abi.LogLevels, abi.PerfEventFlags, abi.PerfSampleFlags}

func TestBTFFlags(t *testing.T) {
	k := runningKernel(t)
	values := map[string]uint64{}
	var anonymous []*btf.Enum
	for typ, err := range k.spec.All() {
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := typ.(*btf.Enum); ok && e.Name == "" {
			anonymous = append(anonymous, e)
			for _, v := range e.Values {
				if strings.HasPrefix(v.Name, "BPF_") || strings.HasPrefix(v.Name, "PERF_SAMPLE_") {
					values[v.Name] = v.Value
				}
			}
		}
	}
	for _, f := range allFlags {
		for _, b := range f.Bits {
			if v, ok := values[b.Kernel]; ok && v != b.Bit {
				t.Errorf("%s: %s is %#x in the table, the kernel has %#x", f.Kernel, b.Kernel, b.Bit, v)
			}
		}
	}
	for _, f := range flagSets {
		known := map[string]bool{}
		for _, b := range f.Bits {
			known[b.Kernel] = true
		}
		found := false
		for _, e := range anonymous {
			if !has(e, f.Bits[0].Kernel) {
				continue
			}
			found = true
			for _, v := range e.Values {
				if v.Value != 0 && !known[v.Name] {
					t.Errorf("%s: the kernel has %s = %#x, the table has not: add it to abi/flags.go; %s", f.Kernel, v.Name, v.Value, remedy)
				}
			}
		}
		if !found && !k.older() {
			t.Errorf("%s: the kernel has no enum with %s", f.Kernel, f.Bits[0].Kernel)
		}
	}
}

func has(e *btf.Enum, name string) bool {
	for _, v := range e.Values {
		if v.Name == name {
			return true
		}
	}
	return false
}

func TestVersions(t *testing.T) {
	for _, r := range abi.Table() {
		for _, s := range append([]string{r.Since}, sinces(&r.Layout)...) {
			if s != "" && abi.Older(abi.Kernel, s) {
				t.Errorf("%s: something came with %s, after the table's kernel", r.Kernel, s)
			}
		}
	}
}

func sinces(l *abi.Layout) (s []string) {
	for _, f := range l.Fields {
		s = append(s, f.Since)
	}
	return s
}

// The names in messages are as the kernel spells them.
func ExampleValues_Name() {
	fmt.Println(abi.MapTypes.Name(1), abi.MapTypes.Name(99))
	fmt.Println(abi.MapFlags.FlagNames(1 | 1<<40))
	// Output:
	// hash 99 /* bpf_map_type? */
	// [BPF_F_NO_PREALLOC 0x10000000000]
}
