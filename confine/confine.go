// Package confine makes the seccomp program that a worker puts itself under: a list
// of the system calls that it makes once it is set up, each with who needs it.
//
// # What it does
//
// What the list names is allowed; where an argument tells harmless uses of a call
// from others, only with the arguments that are used. Everything else is EPERM.
// clone3() is ENOSYS, so that whoever tries it falls back to clone(). A call by a
// foreign ABI (int 0x80, x32, 32-bit ARM) ends the process: nothing of ours makes
// one, so someone else has taken the worker over. Its calls are then as those of any
// worker that dies.
//
// So whoever takes a worker over executes no program, makes no process, socket,
// mount or perf event, enters no user, mount or pid namespace, traces nothing,
// writes no other process's memory by process_vm_writev(), makes no memory
// executable by asking for it, and gives bpf() no command that the broker doesn't
// perform.
//
// # What it doesn't do
//
// A seccomp program sees numbers, not what pointers lead to. So it doesn't say which
// file is opened, which process an fd is taken from, to whom a packet goes, which
// ids and capabilities are taken. Other things bound these: the worker's file
// system, its user namespace, its capabilities. In particular:
//
//   - openat2() has its flags in memory. What openat() is refused (to create, to
//     truncate, to append), openat2() does, as far as the file system lets it.
//   - /proc/self/mem is a file, and whoever writes to it doesn't ask for the
//     protection of pages. That no memory becomes executable holds against mistakes,
//     not against someone who makes the worker open that file and write to it.
//   - What a bpf() command contains isn't looked at.
//
// # Why it is as it is
//
// The list holds for a binary without cgo, as bpfbroker is built. The C library and
// the race detector make threads in their own way and need more: such a binary
// can't make a thread under this program. Nor is there, for the Go runtime, what it
// calls before main, or once: the poller must have been started (sys.PlacePoller
// does), and a CPU profile can't be taken.
//
// An argument is compared as the kernel takes it. An int or unsigned int is the low
// word of its register, and the kernel doesn't look at the other; so neither does
// the program, or else a call that is the same to the kernel would be another to us.
// Of an unsigned long all 64 bits are compared. Each rule has the kernel's type.
//
// Numbers are searched by halves. What has no rule is answered from the number and
// architecture alone, which the kernel does once for each number and remembers
// (seccomp_cache_prepare in kernel/seccomp.c): it costs nothing. What has rules, as
// most calls on the way of an operation, executes 15 instructions or so.
package confine

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/bpfbroker/bpfbroker/filter"
)

// Params is what differs from worker to worker.
type Params struct {
	TGID     int      // the worker's own process id, as it sees it: getpid(2)
	Commands []uint32 // of bpf(): those that the broker performs
}

// Entry is a system call that a worker may make.
type Entry struct {
	Name         string // the kernel's: __NR_…
	AMD64, ARM64 uint32 // its numbers
	Rules        []Rule // all must hold; none: with any arguments
	Who          []string
	Why          string
}

// Rule is what an argument must be: one of Any.
type Rule struct {
	Arg        int    // 0 is the first
	Type, Name string // as the kernel declares it (SYSCALL_DEFINE…)
	Any        []Value
	ARM64      []Value // what it must be there, if the numbers are others
	From       Source  // Any is nil, and it must be what Params says
}

// Value matches an argument a if a & Mask == Want.
type Value struct {
	Name       string // in the words of the kernel's headers
	Mask, Want uint64
}

// Source says where the values of a rule come from.
type Source int

const (
	FromTable Source = iota
	FromTGID
	FromCommands
)

// Wide says whether the kernel looks at all 64 bits of the argument, not at the low
// 32 alone.
func (r *Rule) Wide() bool {
	switch r.Type {
	case "int", "unsigned int", "pid_t", "uid_t":
		return false
	}
	return true // unsigned long
}

// values are those of a rule on an architecture.
func (r *Rule) values(arch string, p Params) []Value {
	switch {
	case r.From == FromTGID:
		return []Value{is("", uint64(p.TGID))}
	case r.From == FromCommands:
		v := make([]Value, len(p.Commands))
		for i, c := range p.Commands {
			v[i] = is("", uint64(c))
		}
		return v
	case r.ARM64 != nil && arch == "arm64":
		return r.ARM64
	}
	return r.Any
}

// Entries returns the list, in the order of names. The caller doesn't change what is
// in it.
func Entries() []Entry { return slices.Clone(entries) }

// machine is how a kernel's architecture numbers its system calls.
type machine struct {
	audit  uint32 // AUDIT_ARCH_… of a native call
	number func(*Entry) uint32
	x32    uint32 // from here on numbers are of another ABI; 0: none are
}

// machines is keyed by GOARCH.
var machines = map[string]machine{
	"amd64": {_AUDIT_ARCH_X86_64, func(e *Entry) uint32 { return e.AMD64 }, _X32_SYSCALL_BIT},
	"arm64": {_AUDIT_ARCH_AARCH64, func(e *Entry) uint32 { return e.ARM64 }, 0},
}

// Program makes the program for a kernel of architecture arch (a GOARCH: amd64 or
// arm64). It has at most BPF_MAXINSNS instructions.
//
// It is installed on all threads at once (SECCOMP_FILTER_FLAG_TSYNC), with
// no_new_privs set, after the last call that isn't in the list: the token is there,
// what is shared with the daemon is mapped, and the Go runtime's poller is started.
func Program(arch string, p Params) ([]filter.Instruction, error) {
	m, ok := machines[arch]
	switch {
	case !ok:
		return nil, fmt.Errorf("make seccomp program for architecture %q: known are amd64 and arm64", arch)
	case p.TGID <= 0 || p.TGID > maxPID:
		return nil, fmt.Errorf("make seccomp program: process id %d: without the right one the Go runtime can't interrupt its threads", p.TGID)
	case len(p.Commands) == 0:
		return nil, fmt.Errorf("make seccomp program: no bpf() command is to be allowed")
	}
	for _, c := range p.Commands {
		if c >= _BPF_COMMON_ATTRS {
			return nil, fmt.Errorf("make seccomp program: command %#x: commands end below BPF_COMMON_ATTRS, %#x", c, uint32(_BPF_COMMON_ATTRS))
		}
	}
	runs, err := m.runs(arch, p)
	if err != nil {
		return nil, fmt.Errorf("make seccomp program for %s: %w", arch, err)
	}
	prog := slices.Concat(
		code{load(offArch), jump(opJeq, m.audit, 1, 0)}, ret(_SECCOMP_RET_KILL_PROCESS),
		code{load(offNr)}, search(runs))
	if len(prog) > _BPF_MAXINSNS {
		return nil, fmt.Errorf("make seccomp program for %s: %d instructions, the kernel takes %d", arch, len(prog), _BPF_MAXINSNS)
	}
	return prog, nil
}

// run is a range of numbers with the same answer: from this number up to the next
// run's.
type run struct {
	from   uint32
	answer code
}

// runs divides all numbers from 0 to 2³²-1 into runs.
func (m machine) runs(arch string, p Params) ([]run, error) {
	answers := map[uint32]code{_NR_clone3: ret(_SECCOMP_RET_ERRNO | _ENOSYS)}
	for i := range entries {
		e := &entries[i]
		answer, err := e.answer(arch, p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name, err)
		}
		answers[m.number(e)] = answer
	}
	eperm := ret(_SECCOMP_RET_ERRNO | _EPERM)
	var listed []run
	for nr, answer := range answers {
		listed = append(listed, run{nr, answer})
	}
	slices.SortFunc(listed, func(a, b run) int { return cmp.Compare(a.from, b.from) })
	if m.x32 != 0 {
		listed = append(listed, run{m.x32, ret(_SECCOMP_RET_KILL_PROCESS)})
	}
	var all []run
	add := func(r run) {
		if n := len(all); n == 0 || !slices.Equal(all[n-1].answer, r.answer) {
			all = append(all, r)
		}
	}
	next := uint32(0)
	for _, r := range listed {
		if r.from > next {
			add(run{next, eperm})
		}
		add(r)
		next = r.from + 1
	}
	if m.x32 == 0 {
		add(run{next, eperm})
	}
	return all, nil
}

// answer is the code that answers a call of the entry, whatever is in the
// accumulator.
func (e *Entry) answer(arch string, p Params) (code, error) {
	out := ret(_SECCOMP_RET_ALLOW)
	for _, r := range slices.Backward(e.Rules) {
		c, err := require(&r, r.values(arch, p))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.Name, err)
		}
		out = append(c, out...)
	}
	return out, nil
}

// String says what the argument must be, as text.
func (r *Rule) String() string {
	var must string
	switch r.From {
	case FromTGID:
		must = "the worker's own"
	case FromCommands:
		must = "one that the broker performs"
	default:
		for i, v := range r.Any {
			switch {
			case i > 0 && i == len(r.Any)-1:
				must += " or "
			case i > 0:
				must += ", "
			}
			must += v.Name
		}
	}
	return fmt.Sprintf("%s %s: %s", r.Type, r.Name, must)
}
