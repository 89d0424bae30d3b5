package loader

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

var update = flag.Bool("update", false, "rewrite testdata")

// loaders are made by bpftool; see testdata/make.sh.
var loaders = []string{"ringbuf", "ksyms"}

// userStart is where a loader's context has the user's memory.
const userStart = 0x10000

type realLoader struct {
	program         *Program
	ctx, data, user []byte
}

func readLoader(t testing.TB, name string) *realLoader {
	t.Helper()
	read := func(suffix string) []byte {
		b, err := os.ReadFile(filepath.Join("testdata", name+"."+suffix))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	p, err := Parse(read("insns"))
	if err != nil {
		t.Fatal(err)
	}
	return &realLoader{p, read("ctx"), read("data"), read("user")}
}

// kernel is an Env that does nothing, and writes down what it is asked for. The fds that
// it gives out count from 10.
type kernel struct {
	t    *testing.T
	user []byte
	out  strings.Builder

	calls, failAt int // the call of bpf() which fails
	next          int32
	open          map[int32]mapSizes // fds
}

// mapSizes are what BPF_MAP_UPDATE_ELEM doesn't say.
type mapSizes struct{ key, value uint64 }

func newKernel(t *testing.T, user []byte, failAt int) *kernel {
	return &kernel{t: t, user: user, failAt: failAt, next: 10, open: map[int32]mapSizes{}}
}

func (k *kernel) openFD(of mapSizes) int32 {
	k.next++
	k.open[k.next-1] = of
	return k.next - 1
}

func (k *kernel) SysBPF(cmd abi.Command, attr uint64, size uint32, mem *Memory) (int, error) {
	row := abi.RowOf(cmd)
	a := make([]byte, max(size, row.Size))
	if n, _ := mem.Read(attr, a[:size]); n < int(size) {
		k.t.Fatalf("%s: %d bytes of an attribute of %d", row.Kernel, n, size)
	}
	fmt.Fprintf(&k.out, "%s, %d bytes\n", row.Kernel, size)
	sizes := mapSizes{a64(row, a, "key_size"), a64(row, a, "value_size")}
	if row.Field("map_fd") != nil {
		sizes = k.open[int32(a64(row, a, "map_fd"))]
	}
	for i := range row.Fields {
		f := &row.Fields[i]
		if f.Offset >= size || !f.Live(a) || bytes.Trim(a[f.Offset:f.Offset+f.Size], "\x00") == nil {
			continue
		}
		fmt.Fprintf(&k.out, "\t%s %s\n", f.Name, k.value(row, f, a, sizes, mem))
	}
	if k.calls++; k.calls == k.failAt {
		return -int(sys.EACCES), nil
	}
	ret := 0
	if row.Returns.FD != 0 {
		ret = int(k.openFD(sizes))
		fmt.Fprintf(&k.out, "\treturns fd %d\n", ret)
	}
	return ret, nil
}

// a64 is a field, 0 where the row has none of the name.
func a64(row *abi.Row, attr []byte, name string) uint64 {
	f := row.Field(name)
	if f == nil || !f.Live(attr) {
		return 0
	}
	return f.Uint(attr)
}

// value is a field as text.
func (k *kernel) value(row *abi.Row, f *abi.Field, attr []byte, sizes mapSizes, mem *Memory) string {
	switch f.Class {
	case abi.Name:
		return fmt.Sprintf("%q", bytes.TrimRight(attr[f.Offset:f.Offset+f.Size], "\x00"))
	case abi.Enum:
		return f.Values.KernelName(f.Uint(attr))
	case abi.Pointer:
	default:
		return fmt.Sprint(f.Uint(attr))
	}
	addr := f.Uint(attr)
	if f.Name == "log_buf" || f.Name == "btf_log_buf" {
		return fmt.Sprintf("%#x", addr) // the user's, as the context says
	}
	if !mem.Has(addr) {
		k.t.Errorf("%s.%s is %#x, which isn't the loader's", row.Kernel, f.Name, addr)
	}
	rule := f.Buffer.Len
	n := uint64(rule.Elem)
	if rule.Rec != "" {
		n = a64(row, attr, rule.Rec)
	}
	if rule.Count != "" {
		n *= a64(row, attr, rule.Count)
	}
	switch f.Name {
	case "key":
		n = sizes.key
	case "value":
		n = sizes.value
	case "license":
		n = 4
	case "fd_array":
		n = 4 * (64 + 256) // MAX_USED_MAPS and MAX_KFUNC_DESCS of gen_loader.c
	}
	p := make([]byte, n)
	if got, _ := mem.Read(addr, p); got < len(p) {
		k.t.Fatalf("%s.%s: %d bytes of %d at %#x", row.Kernel, f.Name, got, n, addr)
	}
	switch f.Name {
	case "key", "value":
		return fmt.Sprintf("%x", p)
	case "fd_array":
		var fds []string
		for i := 0; i < len(p); i += 4 {
			if fd := binary.LittleEndian.Uint32(p[i:]); fd != 0 {
				fds = append(fds, fmt.Sprintf("%d: %d", i/4, fd))
			}
		}
		return strings.Join(fds, ", ")
	case "license":
		return fmt.Sprintf("%q", p)
	case "insns":
		return fmt.Sprintf("%d bytes, crc32 %08x%s", n, crc32.ChecksumIEEE(p), references(p))
	}
	return fmt.Sprintf("%d bytes, crc32 %08x", n, crc32.ChecksumIEEE(p))
}

// references lists what the loader has put into instructions: fds, ids and addresses.
func references(code []byte) string {
	s := ""
	for i := 0; i < len(code); i += insnSize {
		in := decode(code[i:])
		switch {
		case in.code == ldImm64:
			next := decode(code[i+insnSize:])
			s += fmt.Sprintf("\n\t\t%d: ld_imm64 of kind %d, %d, %d", i/insnSize, in.src, in.imm, next.imm)
			i += insnSize
		case in.code == classJMP|jmpCALL && in.src != 0:
			s += fmt.Sprintf("\n\t\t%d: call of kind %d, %d, off %d", i/insnSize, in.src, in.imm, in.off)
		}
	}
	return s
}

// SysClose may be asked to close what is closed: a loader that fails closes the template
// of inner maps again.
func (k *kernel) SysClose(fd int32) sys.Errno {
	fmt.Fprintf(&k.out, "close %d\n", fd)
	if _, open := k.open[fd]; !open {
		return sys.EBADF
	}
	delete(k.open, fd)
	return 0
}

// BTFFind finds kfuncs in a module, and the rest in the kernel.
func (k *kernel) BTFFind(name string, kind uint32) (uint32, int32, sys.Errno) {
	id, fd := uint32(1000+len(name)), int32(0)
	if strings.Contains(name, "rcu") {
		fd = k.openFD(mapSizes{})
	}
	fmt.Fprintf(&k.out, "find %s, kind %d\n\treturns id %d, fd %d\n", name, kind, id, fd)
	return id, fd, 0
}

func (k *kernel) KallsymsLookup(name string) (uint64, sys.Errno) {
	fmt.Fprintf(&k.out, "symbol %s\n", name)
	if name == "no_such_symbol" {
		return 0, sys.ENOENT
	}
	return 0xffffffff_81234567, 0
}

func (k *kernel) ReadUser(addr uint64, p []byte) (int, sys.Errno) {
	fmt.Fprintf(&k.out, "read %d bytes at %#x\n", len(p), addr)
	if addr < userStart || addr-userStart > uint64(len(k.user)) {
		return 0, sys.EFAULT
	}
	return copy(p, k.user[addr-userStart:]), 0
}

// run runs the loader, which is to have the kernel write a log, and returns what its
// context is then.
func (l *realLoader) run(k *kernel) (ret int32, ctx []byte, err error) {
	ctx = bytes.Clone(l.ctx)
	binary.LittleEndian.PutUint32(ctx[8:], 1)          // log_level
	binary.LittleEndian.PutUint32(ctx[12:], 4096)      // log_size
	binary.LittleEndian.PutUint64(ctx[16:], 0x5000000) // log_buf
	n, err := l.program.Run(ctx, []Map{{Value: bytes.Clone(l.data)}}, k)
	return int32(n), ctx, err
}

// What loaders ask for, in order, is as testdata has it.
func TestLoaders(t *testing.T) {
	for _, name := range loaders {
		l := readLoader(t, name)
		if maps := l.program.Maps(); !slices.Equal(maps, []MapRef{{Index: true, N: 0}}) {
			t.Fatalf("%s names the maps %v", name, maps)
		}
		k := newKernel(t, l.user, 0)
		ret, ctx, err := l.run(k)
		fmt.Fprintf(&k.out, "loader returns %d, %v\n", ret, err)
		const descs = 24 // behind struct bpf_loader_ctx
		for i := descs; i < len(ctx); i += 4 {
			if v := binary.LittleEndian.Uint32(ctx[i:]); v != binary.LittleEndian.Uint32(l.ctx[i:]) {
				fmt.Fprintf(&k.out, "\tin its context at %d: %d\n", i, v)
			}
		}
		golden := filepath.Join("testdata", name+".calls")
		if *update {
			if err := os.WriteFile(golden, []byte(k.out.String()), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if k.out.String() != string(want) {
			t.Errorf("%s: other calls than in %s (-update rewrites it):\n%s", name, golden, k.out.String())
		}
	}
}

// Where a call fails, the loader closes what it has opened and returns the error.
func TestLoadersFail(t *testing.T) {
	for _, name := range loaders {
		l := readLoader(t, name)
		all := newKernel(t, l.user, 0)
		if _, _, err := l.run(all); err != nil {
			t.Fatal(err)
		}
		for n := 1; n <= all.calls; n++ {
			k := newKernel(t, l.user, n)
			ret, _, err := l.run(k)
			if ret != -int32(sys.EACCES) || err != nil || k.calls != n || len(k.open) > 0 {
				t.Errorf("%s, call %d fails: returns %d, %v, after %d calls, and leaves open %v\n%s", name, n, ret, err, k.calls, k.open, k.out.String())
			}
		}
	}
}
