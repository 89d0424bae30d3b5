package btfnames

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf/btf"
)

// raw makes BTF data of types and strings.
func raw(types, strings []byte) []byte {
	le := binary.LittleEndian
	b := le.AppendUint16(nil, magic)
	b = append(b, 1, 0)
	for _, n := range []int{minHeader, 0, len(types), len(types), len(strings)} {
		b = le.AppendUint32(b, uint32(n))
	}
	return append(append(b, types...), strings...)
}

// typ is one type, without what follows it.
func typ(name uint32, kind byte, members uint16) []byte {
	b := binary.LittleEndian.AppendUint32(nil, name)
	b = binary.LittleEndian.AppendUint16(b, members)
	return append(b, 0, kind, 0, 0, 0, 0)
}

func TestNames(t *testing.T) {
	base := raw(bytes.Join([][]byte{
		typ(1, 1, 0), {0, 0, 0, 0}, // int
		typ(0, 13, 2), make([]byte, 16), // no name
		typ(5, 12, 0),                   // function
		typ(12, 4, 1), make([]byte, 12), // structure
		typ(1<<30, 12, 0), typ(3, 12, 0)}, // a name outside, the end of one
		nil), []byte("\x00int\x00tcp_fn\x00st\x00"))
	index, err := Index(base)
	if err != nil {
		t.Fatal(err)
	}
	n, err := Open(index)
	if err != nil {
		t.Fatal(err)
	}
	module := raw(bytes.Join([][]byte{typ(15, 12, 0), typ(16, 12, 0), typ(5, 8, 0)}, nil), []byte("\x00xfs\x00"))
	for id, want := range map[uint32]string{0: "", 1: "int", 2: "", 3: "tcp_fn", 4: "st", 5: "", 6: "t", 7: "", 1 << 31: ""} {
		if got, err := n.Name(id); got != want || (err == nil) != (want != "") {
			t.Errorf("type %d: got %q (%v), wanted %q", id, got, err, want)
		}
	}
	for id, want := range map[uint32]string{0: "", 3: "tcp_fn", 7: "", 8: "xfs", 9: "tcp_fn", 10: ""} {
		if got, err := n.InModule(module, id); got != want || (err == nil) != (want != "") {
			t.Errorf("type %d of the module: got %q (%v), wanted %q", id, got, err, want)
		}
	}
	for id, want := range map[uint32]string{0: "", 3: "tcp_fn", 7: ""} {
		if got, err := Of(base, id); got != want || (err == nil) != (want != "") {
			t.Errorf("type %d of a program: got %q (%v), wanted %q", id, got, err, want)
		}
	}
	for _, bad := range [][]byte{nil, base[:10], base[:len(base)-1], raw(typ(1, 31, 0), nil), raw(typ(1, 4, 9), nil), raw([]byte{1}, nil)} {
		if _, err := Index(bad); err == nil {
			t.Errorf("an index of %x", bad)
		}
	}
	for _, bad := range [][]byte{nil, index[:10], index[:len(index)-1], append(bytes.Clone(index), 0)} {
		if _, err := Open(bad); err == nil {
			t.Errorf("opened %d bytes, of %d", len(bad), len(index))
		}
	}
}

const kernelBTF = "/sys/kernel/btf/vmlinux"

// Every type of the running kernel, and of its modules, has the name that another reader
// of BTF finds.
func TestKernel(t *testing.T) {
	data, err := os.ReadFile(kernelBTF)
	if err != nil {
		t.Skip("needs the kernel's BTF: ", err)
	}
	index, err := Index(data)
	if err != nil {
		t.Fatal(err)
	}
	n, err := Open(index)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[btf.TypeID]bool{}
	for typ, err := range spec.All() {
		if err != nil {
			t.Fatal(err)
		}
		id, err := spec.TypeID(typ)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := n.Name(uint32(id)); got != typ.TypeName() && !isTag(typ) {
			t.Fatalf("type %d is %q, wanted %q", id, got, typ.TypeName())
		}
		seen[id] = true
	}
	if len(seen) < len(n.offsets)/4*9/10 {
		t.Errorf("%d of %d types were compared", len(seen), len(n.offsets)/4)
	}
	t.Logf("%d types, an index of %d bytes for %d of BTF", len(seen), len(index), len(data))
	files, _ := filepath.Glob("/sys/kernel/btf/*")
	for _, f := range files {
		if f == kernelBTF {
			continue
		}
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		module, err := btf.LoadSplitSpec(f, spec)
		if err != nil {
			t.Fatal(err)
		}
		for typ, err := range module.All() {
			if err != nil {
				t.Fatal(err)
			}
			id, err := module.TypeID(typ)
			if err != nil {
				continue
			}
			if got, _ := n.InModule(data, uint32(id)); got != typ.TypeName() && !isTag(typ) {
				t.Fatalf("%s: type %d is %q, wanted %q", f, id, got, typ.TypeName())
			}
		}
	}
}

// isTag says whether a type is a tag, whose text that reader doesn't call its name.
func isTag(typ btf.Type) bool {
	_, is := typ.(*btf.TypeTag)
	return is
}

func FuzzNames(f *testing.F) {
	base := raw(bytes.Join([][]byte{typ(1, 1, 0), {0, 0, 0, 0}, typ(5, 12, 0)}, nil), []byte("\x00int\x00tcp\x00"))
	f.Add(base, raw(typ(9, 12, 0), []byte("\x00xfs\x00")), uint32(3))
	f.Fuzz(func(t *testing.T, base, module []byte, id uint32) {
		_, _ = Of(base, id)
		index, err := Index(base)
		if err != nil {
			return
		}
		n, err := Open(index)
		if err != nil {
			t.Fatal(err)
		}
		a, _ := n.Name(id)
		if b, _ := Of(base, id); id > 0 && a != b {
			t.Errorf("type %d is %q by the index, %q without", id, a, b)
		}
		_, _ = n.InModule(module, id)
		// An index that somebody else has made.
		if n, err := Open(module); err == nil {
			_, _ = n.Name(id)
		}
	})
}

func BenchmarkIndex(b *testing.B) {
	data, err := os.ReadFile(kernelBTF)
	if err != nil {
		b.Skip(err)
	}
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := Index(data); err != nil {
			b.Fatal(err)
		}
	}
}
