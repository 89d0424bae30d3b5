package workload

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/btfnames"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

func needRoot(t *testing.T) {
	t.Helper()
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("needs root, not run with -short")
	}
}

// What the kernel says of files that are open.
func TestFiles(t *testing.T) {
	needRoot(t)
	raw, err := os.ReadFile("/sys/kernel/btf/vmlinux")
	if err != nil {
		t.Skip("needs the kernel's BTF: ", err)
	}
	index, err := btfnames.Index(raw)
	if err != nil {
		t.Fatal(err)
	}
	names, err := btfnames.Open(index)
	if err != nil {
		t.Fatal(err)
	}
	f := FilesOf(&Known{Names: names, Tracepoints: Tracepoints("7 a:b\n")})

	spec, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	var fn *btf.Func
	if err := spec.TypeByName("bpf_task_acquire", &fn); err != nil {
		t.Fatal(err)
	}
	id, err := spec.TypeID(fn)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := f.TypeName(-1, uint32(id)); got != "bpf_task_acquire" || err != nil {
		t.Errorf("function %d: got %q (%v)", id, got, err)
	}
	kernel, err := btf.NewHandleFromID(1) // the first that the kernel made is its own
	if err != nil {
		t.Fatal(err)
	}
	defer kernel.Close()
	if got, err := f.BTFName(kernel.FD()); got != "vmlinux" || err != nil {
		t.Errorf("the kernel's BTF: got %q (%v)", got, err)
	}
	if got, err := f.TypeName(kernel.FD(), uint32(id)); got != "bpf_task_acquire" || err != nil {
		t.Errorf("function %d by an fd: got %q (%v)", id, got, err)
	}

	var b btf.Builder
	if _, err := b.Add(&btf.Int{Name: "int", Size: 4}); err != nil {
		t.Fatal(err)
	}
	own, err := btf.NewHandle(&b)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if got, err := f.BTFName(own.FD()); got != "" || err != nil {
		t.Errorf("BTF that isn't the kernel's: got %q (%v)", got, err)
	}
	if got, err := f.TypeName(own.FD(), 1); err == nil {
		t.Errorf("a type of BTF that isn't the kernel's: got %q", got)
	}
	if _, err := FilesOf(&Known{}).TypeName(-1, 1); err == nil {
		t.Error("names that aren't there")
	}

	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SocketFilter, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	info := make([]byte, 8)
	if e := f.ObjectInfo(prog.FD(), info); e != 0 || abi.ProgInfo.Field("type").Uint(info) != uint64(ebpf.SocketFilter) {
		t.Errorf("info of a program: %x (%v)", info, e)
	}
	if got, err := f.Tracepoint(7); got != "a:b" || err != nil {
		t.Errorf("tracepoint 7: got %q (%v)", got, err)
	}
}

// Where a cgroup is, and whether it is inside of the workload's.
func TestCgroups(t *testing.T) {
	needRoot(t)
	err := sys.InOwnMountNS(func() error {
		tree := t.TempDir()
		if err := sys.Mount("cgroup2", tree, ""); err != nil {
			return err
		}
		defer func() { _ = sys.Detach(tree) }()
		open := func(path string) *os.File {
			f, err := os.Open(filepath.Join(tree, path))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			return f
		}
		const top = "bpfbroker-test-place"
		for _, d := range []string{top, top + "/own", top + "/own/x", top + "/other"} {
			if err := os.Mkdir(filepath.Join(tree, d), 0o755); err != nil {
				return err
			}
			defer os.Remove(filepath.Join(tree, d))
		}
		own := open(top + "/own")
		path, err := CgroupPath(int(own.Fd()))
		if want := "/" + top + "/own"; path != want || err != nil {
			t.Errorf("the workload's cgroup: got %q (%v), wanted %q", path, err, want)
		}
		k := &Known{}
		k.Cgroup, _ = sys.IDOf(int(own.Fd()))
		k.Workload.Cgroup = path
		f := FilesOf(k)
		for dir, inside := range map[string]bool{"": false, top: false, top + "/own": true, top + "/own/x": true, top + "/other": false} {
			fd := int(open(dir).Fd())
			if got, err := f.CgroupInside(fd); got != inside || err != nil {
				t.Errorf("/%s: inside is %v (%v), wanted %v", dir, got, err, inside)
			}
			if got, err := f.CgroupPath(fd); got != "/"+dir || err != nil {
				t.Errorf("/%s: path is %q (%v)", dir, got, err)
			}
		}
		if got, err := FilesOf(&Known{}).CgroupInside(int(own.Fd())); got || err == nil {
			t.Errorf("of an unknown workload: got %v (%v)", got, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
