// Package object makes of an object file what a loader gives to the kernel, as far as it
// makes a digest: the instructions of each program, with the functions that it calls and
// the relocations for the running kernel. Nothing is loaded.
//
// The work is done by github.com/cilium/ebpf. libbpf does it likewise: of the same object
// file both make programs with the same digest, but where the file uses what they do
// differently (bpf_core_type_id_local; variables of the kernel by __ksym).
package object

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/bpfbroker/bpfbroker/digest"
)

// Program is a program of an object file.
type Program struct {
	Name string // of its function
	Sum  digest.Sum
}

// Digests returns the digests of a file's programs, by their names' order; of one alone,
// if name isn't "".
func Digests(file, name string) ([]Program, error) {
	spec, err := ebpf.LoadCollectionSpec(file)
	if err != nil {
		return nil, fmt.Errorf("read object %q: %w", file, err)
	}
	names := slices.Sorted(maps.Keys(spec.Programs))
	if name != "" {
		if spec.Programs[name] == nil {
			return nil, fmt.Errorf("object %q has no program %q; it has %q", file, name, names)
		}
		names = []string{name}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("object %q has no programs", file)
	}
	l := linker{kernel: btf.NewCache(), fds: map[string]int{}}
	var out []Program
	for _, name := range names {
		sum, err := l.digest(spec.Programs[name])
		if err != nil {
			return nil, fmt.Errorf("program %q of object %q: %w", name, file, err)
		}
		out = append(out, Program{name, sum})
	}
	return out, nil
}

// order is that of all machines that we build for.
var order = binary.LittleEndian

// linker gives what a program names the numbers that a loader would.
type linker struct {
	kernel *btf.Cache
	fds    map[string]int // of maps, made up
}

// mapFD is the fd of a map that isn't there.
type mapFD int

// FD implements asm.FDer.
func (n mapFD) FD() int { return int(n) }

// modules are the BTFs that a program's calls name, by their index in its fd_array; 0 is
// the kernel's own.
type modules []string

func (l *linker) digest(spec *ebpf.ProgramSpec) (digest.Sum, error) {
	if spec.ByteOrder != order {
		return digest.Sum{}, fmt.Errorf("it is for %v machines, and this one is %v", spec.ByteOrder, order)
	}
	insns := slices.Clone(spec.Instructions)
	if err := l.relocate(insns); err != nil {
		return digest.Sum{}, fmt.Errorf("apply CO-RE relocations: %w", err)
	}
	mods := modules{"vmlinux"}
	for i := range insns {
		if err := l.resolve(&insns[i], &mods); err != nil {
			return digest.Sum{}, fmt.Errorf("instruction %d: %w", i, err)
		}
	}
	var b bytes.Buffer
	if err := insns.Marshal(&b, order); err != nil {
		return digest.Sum{}, err
	}
	p := digest.Program{Insns: b.Bytes(), BTFName: func(fd int32) string { return mods[fd] }}
	for i := range mods { // each module's fd is its index
		p.FDArray = order.AppendUint32(p.FDArray, uint32(i))
	}
	return digest.Of(&p), nil
}

// relocate applies CO-RE relocations for the running kernel.
func (l *linker) relocate(insns asm.Instructions) error {
	var relos []*btf.CORERelocation
	var at []*asm.Instruction
	for i := range insns {
		if r := btf.CORERelocationMetadata(&insns[i]); r != nil {
			relos, at = append(relos, r), append(at, &insns[i])
		}
	}
	if len(relos) == 0 {
		return nil
	}
	kernel, err := l.kernel.Kernel()
	if err != nil {
		return err
	}
	targets := []*btf.Spec{kernel}
	names, err := l.modules()
	if err != nil {
		return err
	}
	for _, name := range names {
		spec, err := l.kernel.Module(name)
		if err != nil {
			return fmt.Errorf("types of module %q: %w", name, err)
		}
		targets = append(targets, spec)
	}
	var types btf.Builder
	fixups, err := btf.CORERelocate(relos, targets, order, types.Add)
	if err != nil {
		return err
	}
	for i, f := range fixups {
		if err := f.Apply(at[i]); err != nil {
			return fmt.Errorf("%v: %w", relos[i], err)
		}
	}
	return nil
}

// modules lists those that have BTF; none where the kernel has it for none.
func (l *linker) modules() ([]string, error) {
	names, err := l.kernel.Modules()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return names, err
}

// resolve puts a number in the place of a name.
func (l *linker) resolve(in *asm.Instruction, mods *modules) error {
	name := in.Reference()
	switch {
	case in.IsKfuncCall():
		return l.kfunc(in, name, mods)
	case in.IsFunctionReference():
		return nil
	case in.IsLoadFromMap() && name == "":
		return errors.New("it reads the kernel's configuration (__kconfig), which only a loader can look up")
	case in.IsLoadFromMap():
		fd, ok := l.fds[name]
		if !ok {
			fd = len(l.fds) + 1
			l.fds[name] = fd
		}
		return in.AssociateMap(mapFD(fd))
	case in.OpCode.IsDWordLoad() && name != "":
		return fmt.Errorf("it names %q of the kernel (__ksym), which only a loader can look up", name)
	}
	return nil
}

// kfunc finds a function of the kernel, or of a module.
func (l *linker) kfunc(in *asm.Instruction, name string, mods *modules) error {
	kernel, err := l.kernel.Kernel()
	if err != nil {
		return err
	}
	var f *btf.Func
	spec, module := kernel, 0
	if err := kernel.TypeByName(name, &f); errors.Is(err, btf.ErrNotFound) {
		if spec, module, err = l.inModule(name, &f, mods); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	id, err := spec.TypeID(f)
	if err != nil {
		return err
	}
	in.Constant, in.Offset = int64(id), int16(module)
	return nil
}

func (l *linker) inModule(name string, f **btf.Func, mods *modules) (*btf.Spec, int, error) {
	names, err := l.modules()
	if err != nil {
		return nil, 0, err
	}
	for _, module := range names {
		spec, err := l.kernel.Module(module)
		if err != nil {
			return nil, 0, fmt.Errorf("types of module %q: %w", module, err)
		}
		if spec.TypeByName(name, f) != nil {
			continue
		}
		at := slices.Index(*mods, module)
		if at < 0 {
			at = len(*mods)
			*mods = append(*mods, module)
		}
		return spec, at, nil
	}
	return nil, 0, fmt.Errorf("this kernel has no function %q", name)
}
