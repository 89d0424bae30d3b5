package loader

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf/btf"
)

const (
	kindStruct  = 4  // BTF_KIND_STRUCT
	kindTypedef = 8  // BTF_KIND_TYPEDEF
	kindFunc    = 12 // BTF_KIND_FUNC
)

// kernelBTF is the running kernel's, and what cilium/ebpf reads from it.
func kernelBTF(t testing.TB) (*BTF, *btf.Spec) {
	t.Helper()
	data, err := os.ReadFile("/sys/kernel/btf/vmlinux")
	if err != nil {
		t.Skip("needs the kernel's BTF (CONFIG_DEBUG_INFO_BTF): ", err)
	}
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	b, err := ParseBTF(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b, spec
}

func TestBTF(t *testing.T) {
	b, spec := kernelBTF(t)
	if b.OfModule() {
		t.Error("the kernel's own BTF is a module's")
	}
	n := 0
	for typ, err := range spec.All() {
		if err != nil {
			t.Fatal(err)
		}
		id, err := spec.TypeID(typ)
		if err != nil {
			t.Fatal(err)
		}
		if id%997 != 0 { // each look goes through all before
			continue
		}
		kind := uint32(0)
		switch typ.(type) {
		case *btf.Struct:
			kind = kindStruct
		case *btf.Typedef:
			kind = kindTypedef
		case *btf.Func:
			kind = kindFunc
		default:
			continue
		}
		if typ.TypeName() == "" {
			continue
		}
		n++
		got, found := b.Find(typ.TypeName(), kind)
		if !found || got > uint32(id) { // an earlier one may have the same name
			t.Errorf("%v: got id %d, wanted %d", typ, got, id)
			continue
		}
		if same, err := spec.TypeByID(btf.TypeID(got)); err != nil || same.TypeName() != typ.TypeName() {
			t.Errorf("%v: got id %d, which is %v, %v", typ, got, same, err)
		}
	}
	if n < 20 {
		t.Errorf("only %d types were looked for", n)
	}
	for _, name := range []string{"", "no_such_type", "task_struc", "task_structs"} {
		if id, found := b.Find(name, kindStruct); found && name != "" {
			t.Errorf("%q is %d", name, id)
		}
	}
}

// A module's types come behind the kernel's.
func TestModuleBTF(t *testing.T) {
	base, _ := kernelBTF(t)
	modules, _ := filepath.Glob("/sys/kernel/btf/*")
	if len(modules) < 2 {
		t.Log("no module is loaded: a made-up one")
	}
	// One struct "mod", and one that has a name of the kernel's strings.
	kernels := uint32(1)
	strings := []byte("\x00mod\x00")
	first := base.offset + uint32(len(base.strings))
	data := header(24, strings)
	data = append(data, structure(first+1)...)
	data = append(data, structure(kernels)...)
	data = append(data, strings...)
	m, err := ParseBTF(data, base)
	if err != nil {
		t.Fatal(err)
	}
	if id, found := m.Find("mod", kindStruct); !found || id != base.first+base.count || !m.OfModule() {
		t.Errorf("got %d, %v, wanted %d", id, found, base.first+base.count)
	}
	end := kernels
	for base.strings[end] != 0 {
		end++
	}
	if id, found := m.Find(string(base.strings[kernels:end]), kindStruct); !found || id != base.first+base.count+1 {
		t.Errorf("got %d, %v, wanted %d", id, found, base.first+base.count+1)
	}
	for n := range data {
		if b, err := ParseBTF(data[:n], base); err == nil {
			b.Find("mod", kindStruct) // what is cut within the strings is all right
		}
	}
}

func header(types uint32, strings []byte) []byte {
	b := make([]byte, btfHeader)
	put(b[0:2], btfMagic)
	b[2] = 1
	put(b[4:8], btfHeader)
	put(b[12:16], uint64(types))
	put(b[16:20], uint64(types))
	put(b[20:24], uint64(len(strings)))
	return b
}

func structure(name uint32) []byte {
	b := make([]byte, btfType)
	put(b[0:4], uint64(name))
	b[7] = kindStruct
	return b
}
