package policy

import (
	"fmt"

	"github.com/bpfbroker/bpfbroker/abi"
)

// Ceiling is what a policy could ever allow, as the kernel can enforce it: four
// sets, and who has to help. It is the bound within which the policy decides. The
// zero value is nothing.
type Ceiling struct {
	Commands Set // commands that take a token: map_create, prog_load, btf_load
	Maps     Set // map types
	Progs    Set // program types
	Attachs  Set // expected attach types of programs

	// KernelMemory says that programs may read the kernel's memory, and see addresses
	// there: tracing programs, and by helpers like bpf_probe_read_kernel() all others,
	// which a token doesn't tell apart. The worker has CAP_PERFMON only then.
	KernelMemory bool

	// HostAdmin says what for a rule needs CAP_SYS_ADMIN on the host, which the
	// capability worker gets only then; "" for nothing.
	HostAdmin string
}

// Set is a set of names, as the kernel's bpffs options spell them.
type Set struct {
	Any   bool
	Names []string
}

// MapsOfMaps says whether maps of maps can be made.
func (c Ceiling) MapsOfMaps() bool { return c.Maps.Has("array_of_maps") || c.Maps.Has("hash_of_maps") }

// Empty says that the set has nothing in it.
func (s Set) Empty() bool { return !s.Any && len(s.Names) == 0 }

// Has says whether name is in the set.
func (s Set) Has(name string) bool {
	if s.Any {
		return true
	}
	for _, n := range s.Names {
		if n == name {
			return true
		}
	}
	return false
}

// Any is the set of everything.
var Any = Set{Any: true}

// Of is a set of these names.
func Of(names ...string) Set { return Set{Names: names} }

// Loaders says that programs may be loaded that make bpf() calls themselves.
func (c Ceiling) Loaders() bool { return c.Progs.Has("syscall") }

// Empty says that nothing is ever allowed that a token would be needed for.
func (c Ceiling) Empty() bool { return c.Commands.Empty() }

// Options are the mount options of a bpffs that delegates the ceiling
// (kernel/bpf/inode.c, bpf_parse_param). A name that the table doesn't know, which
// a test of the policy finds, delegates nothing.
func (c Ceiling) Options() map[string]string {
	return map[string]string{
		"delegate_cmds":    mask(c.Commands, command),
		"delegate_maps":    mask(c.Maps, abi.MapTypes.Value),
		"delegate_progs":   mask(c.Progs, abi.ProgTypes.Value),
		"delegate_attachs": mask(c.Attachs, abi.AttachTypes.Value),
	}
}

func mask(s Set, value func(string) (uint64, bool)) string {
	if s.Any {
		return "any"
	}
	var m uint64
	for _, name := range s.Names {
		if n, ok := value(name); ok && n < 64 {
			m |= 1 << n
		}
	}
	return fmt.Sprintf("%#x", m)
}

func command(name string) (uint64, bool) {
	for i := range abi.Table() {
		if r := &abi.Table()[i]; r.Name == name {
			return uint64(r.Command), true
		}
	}
	return 0, false
}
