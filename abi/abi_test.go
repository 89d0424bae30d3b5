package abi_test

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/bpfbroker/bpfbroker/abi"
)

// layouts are all that the table describes.
func layouts() []*abi.Layout {
	var all []*abi.Layout
	for _, r := range abi.Rows() {
		all = append(all, &r.Layout)
	}
	return append(all, structures...)
}

func TestRows(t *testing.T) {
	for i, r := range abi.Table() {
		if int(r.Command) != i || abi.RowOf(r.Command) == nil || abi.RowOf(r.Command).Kernel != r.Kernel {
			t.Errorf("row %d: is for command %d", i, r.Command)
		}
		if want := strings.ToLower(strings.TrimPrefix(r.Kernel, "BPF_")); r.Name != want {
			t.Errorf("%s: named %q, wanted %q", r.Kernel, r.Name, want)
		}
		if r.Why == "" {
			t.Errorf("%s: doesn't say why it is intercepted or native", r.Kernel)
		}
		if r.Size > abi.AttrSize || r.LastEnd > r.Size {
			t.Errorf("%s: %d bytes up to %d, of %d", r.Kernel, r.Size, r.LastEnd, abi.AttrSize)
		}
		if last := r.Field(r.Last); last == nil || last.Offset+last.Size != r.LastEnd {
			t.Errorf("%s: LastEnd is %d, Last is %+v", r.Kernel, r.LastEnd, last)
		}
		for _, f := range r.Fields {
			if f.Since == r.Since {
				t.Errorf("%s.%s: says since %s, as the whole command does", r.Kernel, f.Name, f.Since)
			}
			if f.Class == abi.Pointer && !r.Native && f.Buffer.Len.Max == 0 {
				t.Errorf("%s.%s: an intercepted command's buffer has no limit", r.Kernel, f.Name)
			}
		}
		for _, c := range r.Net {
			for _, test := range c {
				checkTest(t, r.Kernel+" Net", &r.Layout, test)
			}
		}
		if r.Order == nil {
			continue
		}
		var outputs []string
		for _, f := range r.Fields {
			// A second name for the same bytes isn't written twice.
			if (f.Dir != abi.In || f.Buffer != nil && f.Buffer.Dir != abi.In) && f.Name != "prog_cnt" {
				outputs = append(outputs, f.Name)
			}
		}
		order := slices.Clone(r.Order)
		slices.Sort(order)
		slices.Sort(outputs)
		if !slices.Equal(order, outputs) {
			t.Errorf("%s: Order has %v, the outputs are %v", r.Kernel, order, outputs)
		}
	}
	if r := abi.RowOf(abi.Command(len(abi.Table()))); r != nil {
		t.Errorf("a row behind the last: %s", r.Kernel)
	}
}

// elemSize is what a Len.Elem must be for an Elem; 0: any.
var elemSize = map[abi.Elem]uint32{abi.ElemInsns: 8, abi.ElemFDs: 4, abi.ElemU32: 4, abi.ElemU64: 8, abi.ElemStrings: 8, abi.ElemStruct: 1}

func TestFields(t *testing.T) {
	for _, l := range layouts() {
		for _, f := range l.Fields {
			what := l.Name + "." + f.Name
			if f.Offset+f.Size > l.Size || f.Size == 0 {
				t.Errorf("%s: %d bytes at %d, in %d", what, f.Size, f.Offset, l.Size)
			}
			if f.Buffer != nil && f.Buffer.Path != abi.NoPath && f.Buffer.Elem != abi.ElemString {
				t.Errorf("%s: a path of %v", what, f.Buffer.Elem)
			}
			if f.Class == 0 {
				t.Errorf("%s: has no class", what)
			}
			if (f.Class == abi.Enum || f.Class == abi.Flags) != (f.Values != nil) {
				t.Errorf("%s: is %v, and its values are %v", what, f.Class, f.Values)
			}
			if f.Class == abi.Enum && len(f.Values.Bits) > 0 || f.Class == abi.Flags && len(f.Values.Names) > 0 {
				t.Errorf("%s: a bit set is no enum", what)
			}
			if (f.Class == abi.FD || f.Class == abi.ID) != (f.Object != 0) {
				t.Errorf("%s: is %v of %q", what, f.Class, f.Object)
			}
			if f.ZeroIsNone && f.Class != abi.FD && f.Class != abi.ID {
				t.Errorf("%s: only an fd or id can be none", what)
			}
			switch f.Class {
			case abi.FD, abi.ID, abi.Ifindex, abi.PID, abi.UID:
				if f.Size != 4 {
					t.Errorf("%s: %v of %d bytes", what, f.Class, f.Size)
				}
			case abi.Name:
				if f.Size != 16 {
					t.Errorf("%s: BPF_OBJ_NAME_LEN is 16, not %d", what, f.Size)
				}
			case abi.Pointer:
				checkBuffer(t, what, l, &f)
			case abi.Scalar, abi.Enum, abi.Flags:
				if f.Size != 4 && f.Size != 8 && (f.Size != 2 || l != &abi.PerfEventOpen.Layout) {
					t.Errorf("%s: %v of %d bytes", what, f.Class, f.Size)
				}
			}
			if (f.Class == abi.Pointer) != (f.Buffer != nil) {
				t.Errorf("%s: is %v, and points to %v", what, f.Class, f.Buffer)
			}
			for _, c := range f.When {
				if len(c) == 0 {
					t.Errorf("%s: an empty condition", what)
				}
				for _, test := range c {
					checkTest(t, what, l, test)
				}
			}
			overlaps := false
			for _, g := range l.Fields {
				overlaps = overlaps || f.Class != abi.Pointer && g.Class == abi.Pointer && f.Offset < g.Offset+g.Size && g.Offset < f.Offset+f.Size
			}
			if overlaps != f.Overlaps {
				t.Errorf("%s: Overlaps is %v", what, f.Overlaps)
			}
		}
	}
}

func checkBuffer(t *testing.T, what string, l *abi.Layout, f *abi.Field) {
	t.Helper()
	b := f.Buffer
	if f.Size != 8 {
		t.Errorf("%s: a pointer of %d bytes", what, f.Size)
	}
	if (b.Dir == abi.In) != (b.Wrote == abi.WroteNothing) && b.Len.Max != 0 {
		t.Errorf("%s: %v, but wrote %q", what, b.Dir, b.Wrote)
	}
	if want := elemSize[b.Elem]; want != 0 && b.Len.Elem != want {
		t.Errorf("%s: %v of %d bytes each", what, b.Elem, b.Len.Elem)
	}
	for _, n := range []string{b.Len.Count, b.Len.Rec} {
		if n == "" {
			continue
		}
		c := l.Field(n)
		if c == nil {
			t.Errorf("%s: its length is in %q, which isn't there", what, n)
		} else if c.Class != abi.Scalar || c.Size != 4 {
			t.Errorf("%s: its length is in %s, a %v of %d bytes", what, n, c.Class, c.Size)
		} else if len(f.When) > 0 && b.Len.Count == n && fmt.Sprint(c.When) != fmt.Sprint(f.When) {
			t.Errorf("%s: is live when %v, its length %s when %v", what, f.When, n, c.When)
		}
	}
	if b.Len.Count == "" && b.Len.Rec != "" {
		t.Errorf("%s: the size of a record, but no count", what)
	}
	if b.Len.Count == "" && b.Len.Elem == 0 && f.Need == "" {
		t.Errorf("%s: no length, and no word why", what)
	}
	if b.Struct != nil && (b.Elem != abi.ElemStruct || b.Struct.Size == 0) {
		t.Errorf("%s: a layout, and no structure", what)
	}
}

// checkTest checks that a condition speaks of a field and values that there are.
func checkTest(t *testing.T, what string, l *abi.Layout, test abi.Test) {
	t.Helper()
	f := l.Field(test.Field)
	if f == nil {
		t.Errorf("%s: depends on %q, which isn't there", what, test.Field)
		return
	}
	for _, v := range test.Values {
		switch {
		case f.Class == abi.Enum && f.Values.KernelName(v) == "":
			t.Errorf("%s: depends on %s being %d, which has no name", what, f.Name, v)
		case f.Class == abi.Flags && (test.Op == abi.OpHas || test.Op == abi.OpHasNot):
			if n := f.Values.FlagNames(v); len(n) != 1 || strings.HasPrefix(n[0], "0x") {
				t.Errorf("%s: depends on %s having %#x, which is %v", what, f.Name, v, n)
			}
		}
	}
	// The test looks at that field's bytes: all ones there, or zeros, decide it.
	b := make([]byte, l.Size)
	for i := range b {
		b[i] = 0xff
	}
	f.Put(b, 0)
	zero := abi.Holds([]abi.Cond{{test}}, b)
	clear(b)
	f.Put(b, ^uint64(0))
	ones := abi.Holds([]abi.Cond{{test}}, b)
	var wantZero, wantOnes bool
	switch test.Op {
	case abi.OpNonZero, abi.OpHas:
		wantZero, wantOnes = false, true
	case abi.OpHasNot:
		wantZero, wantOnes = true, false
	case abi.OpIn:
		wantZero, wantOnes = slices.Contains(test.Values, 0), false
	case abi.OpNotIn:
		wantZero, wantOnes = !slices.Contains(test.Values, 0), true
	default:
		t.Errorf("%s: no comparison %d", what, test.Op)
	}
	if zero != wantZero || ones != wantOnes {
		t.Errorf("%s: %+v holds for 0: %v, for ones: %v", what, test, zero, ones)
	}
}

// A number must never be taken for an address: what is live together with a
// pointer doesn't share bytes with it.
func TestLivePointersAreAlone(t *testing.T) {
	for _, l := range layouts() {
		for _, b := range selections(l) {
			for i := range l.Fields {
				p := &l.Fields[i]
				if p.Class != abi.Pointer || !p.Live(b) {
					continue
				}
				for j := range l.Fields {
					f := &l.Fields[j]
					if j != i && f.Live(b) && f.Offset < p.Offset+p.Size && p.Offset < f.Offset+f.Size {
						t.Errorf("%s: %s and the pointer %s are both live in %x", l.Name, f.Name, p.Name, b[:min(len(b), 32)])
					}
				}
			}
		}
	}
}

// selections returns bytes for each value of each enum that conditions of the
// layout depend on.
func selections(l *abi.Layout) [][]byte {
	out := [][]byte{make([]byte, l.Size)}
	seen := map[string]bool{}
	for _, f := range l.Fields {
		for _, c := range f.When {
			for _, test := range c {
				g := l.Field(test.Field)
				if g.Class != abi.Enum || seen[g.Name] {
					continue
				}
				seen[g.Name] = true
				for _, b := range out {
					for v := 1; v < len(g.Values.Names)+2; v++ {
						b := slices.Clone(b)
						g.Put(b, uint64(v))
						out = append(out, b)
					}
				}
			}
		}
	}
	return out
}

// shared are the names in syscall.c that stand for several commands.
var shared = map[string][]abi.Command{
	"BPF_OBJ":             {abi.ObjPin, abi.ObjGet},
	"BPF_OBJ_GET_NEXT_ID": {abi.ProgGetNextID, abi.MapGetNextID, abi.BTFGetNextID, abi.LinkGetNextID},
	"BPF_MAP_BATCH":       {24, 25, 26, 27},
}

// The fixture is the kernel's own text: a new kernel's is put beside it and
// compared by eye.
func TestLastFields(t *testing.T) {
	f, err := os.Open("testdata/last_fields.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	byName := map[string]abi.Command{}
	for _, r := range abi.Table() {
		byName[r.Kernel] = r.Command
	}
	seen := map[abi.Command]bool{}
	for s := bufio.NewScanner(f); s.Scan(); {
		line := s.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		name, last, ok := strings.Cut(line, "_LAST_FIELD ")
		if !ok {
			t.Fatalf("testdata/last_fields.txt: %q is no LAST_FIELD line", line)
		}
		commands := shared[name]
		if c, ok := byName[name]; ok {
			commands = []abi.Command{c}
		}
		if len(commands) == 0 {
			t.Errorf("%s: no such row", name)
		}
		for _, c := range commands {
			r := abi.RowOf(c)
			want := last
			if r.Member != "" {
				want = strings.TrimPrefix(last, r.Member+".")
			}
			if r.Last != want || seen[c] {
				t.Errorf("%s: Last is %q, the kernel's is %q", r.Kernel, r.Last, want)
			}
			seen[c] = true
		}
	}
	for _, r := range abi.Table() {
		if !seen[r.Command] {
			t.Errorf("%s: not in testdata/last_fields.txt", r.Kernel)
		}
	}
}

func TestNativeCommands(t *testing.T) {
	want := []uint32{1, 2, 3, 4, 10, 21, 22, 24, 25, 26, 27, 33, 35, 37}
	if got := abi.NativeCommands("6.18.44", false); !slices.Equal(got, want) {
		t.Errorf("got %v, wanted %v: leaving a command to the kernel is a decision about safety", got, want)
	}
	want = slices.DeleteFunc(want, func(n uint32) bool { return n == 22 })
	if got := abi.NativeCommands("6.4.0-rc1", false); !slices.Equal(got, want) {
		t.Errorf("before Linux 6.5: got %v, wanted %v", got, want)
	}
}

func TestOlder(t *testing.T) {
	for _, c := range []struct {
		release, version string
		older            bool
	}{
		{"6.1.0-56-cloud-amd64", "6.5", true}, {"6.18.44-fc", "6.5", false}, {"6.5", "6.5", false}, {"5.19", "6.5", true}, {"7.0-rc1", "6.19", false}, {"6", "6.1", true}, {"", "6.5", true}, {"6.1", "", false}, {"6.9x", "6.10", true},
	} {
		if got := abi.Older(c.release, c.version); got != c.older {
			t.Errorf("%q before %q: %v", c.release, c.version, got)
		}
	}
}

func TestUintPut(t *testing.T) {
	b := make([]byte, 12)
	abi.Put(b, 3, 8, 0x1122334455667788)
	for _, c := range []struct {
		offset, size uint32
		want         uint64
	}{{3, 8, 0x1122334455667788}, {3, 4, 0x55667788}, {3, 1, 0x88}, {10, 2, 0x0011}, {11, 2, 0}, {5, 8, 0}, {1<<32 - 1, 8, 0}} {
		if got := abi.Uint(b, c.offset, c.size); got != c.want {
			t.Errorf("Uint at %d of %d: got %#x, wanted %#x", c.offset, c.size, got, c.want)
		}
	}
}

func TestObjectNames(t *testing.T) {
	if got := (abi.Map | abi.Iter).String(); got != "map|iter" {
		t.Errorf("got %q", got)
	}
	for o := abi.Map; o <= abi.Iter; o <<= 1 {
		if o.String() == "" {
			t.Errorf("object %#x has no name", uint32(o))
		}
	}
}
