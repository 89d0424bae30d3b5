// Package filter makes the seccomp program that decides, for each system call of
// a workload, whether the broker hears of it.
//
// # What it does
//
// A bpf() call of the native ABI whose command acts on the workload's own fds
// alone (the caller says which: the Native rows of package abi) goes straight to
// the kernel. Every other bpf() command, known to us or not, is notified. bpf()
// through a foreign ABI gets ENOSYS. perf_event_open() of the native ABI, by which
// half of the BPF tools attach, is notified; through a foreign ABI the kernel
// decides on it, with the workload's own rights. Of ioctl() notified is what attaches a
// program to a perf event, or asks for those that are: PERF_EVENT_IOC_SET_BPF, which the
// kernel lets anybody do who has the two fds, gets ENOSYS through a foreign ABI. All
// other system calls are allowed.
//
// # Why it is as it is
//
// Allowed is what the list names, exactly. A command that a future kernel adds,
// a command with BPF_COMMON_ATTRS (1 << 16) or-ed in, which no exact match
// meets, and 0xffffffff all fall to the broker, which answers what it doesn't
// know as an older kernel does. Leaving a command to the kernel by mistake would
// open what a container's profile shields today; notifying one by mistake costs
// time.
//
// Only the low word of args[0] is looked at, because the kernel does the same:
// the command is an int, so bpf(0x1_0000_0001, …) is BPF_MAP_LOOKUP_ELEM. A test
// for a zero high word would notify calls that the kernel then takes for
// another command than the broker's; a 64-bit comparison would too.
//
// The architecture is looked at before the number, because a number means
// nothing without it: 321 is bpf() on x86-64 and signalfd() on i386, and
// int 0x80 works from any x86-64 process. x32 calls carry the x86-64
// architecture and bit 30 in the number. bpf() by these ways is refused and not
// notified: the broker copies attributes by the native layout only, and ENOSYS is
// what a kernel without that ABI says.
//
// An architecture that is neither native nor the kernel's own compat ABI gets
// ENOSYS for everything. No kernel of today reports one; if one does tomorrow,
// we don't know bpf()'s number there, so letting its calls pass would be a way
// around the policy. It isn't killed: ENOSYS says the same, and a program that
// tries an ABI and falls back lives on.
//
// Of an ioctl's request, too, only the low word counts: it is an unsigned int. Whether
// its fd is of a perf event can't be seen here; no other file takes these two requests.
//
// Nothing else is touched, and nothing else is slowed down: since 5.11 the kernel
// evaluates a new filter once for every number and architecture, and skips it
// for calls whose answer is a constant ALLOW (seccomp_cache_prepare in
// kernel/seccomp.c). That holds for all calls but those three, because on the way to
// their ALLOW the program loads nothing but nr and arch; a test asserts it. So
// the only calls that really run this program are bpf(), perf_event_open() and ioctl(),
// and the order of instructions favours bpf(): 7 are executed for BPF_MAP_LOOKUP_ELEM,
// 9 for an ordinary ioctl. An ordinary call that isn't cached (it is no longer, if an
// older filter on the task doesn't allow it unconditionally) executes 9, and 7 on arm64.
//
// # What it can't be talked out of
//
// A workload may add filters; of all answers the kernel takes the strictest,
// where ERRNO is stricter than USER_NOTIF, and USER_NOTIF stricter than TRACE and
// ALLOW (SECCOMP_RET_ACTION_FULL, lowest signed value first). So an own filter
// can refuse more and open nothing. One that says USER_NOTIF too is the newer of
// two equals, wins, has no listener (a chain has one), and gets ENOSYS. A tracer
// that changes a call at its entry does so before the filter runs.
package filter

import (
	"fmt"
	"runtime"
	"slices"
)

// Instruction is one classic BPF instruction: struct sock_filter of
// include/uapi/linux/filter.h, same layout, so that a []Instruction can be handed
// to the kernel as it is.
type Instruction struct {
	Code   uint16
	Jt, Jf uint8 // instructions to skip if the comparison holds, or doesn't
	K      uint32
}

// machine is what a kernel's architecture lets a process call bpf() by.
type machine struct {
	native   uint32     // AUDIT_ARCH_… of a native call
	bpf      uint32     // its number of bpf()
	perf     uint32     // its number of perf_event_open()
	ioctl    uint32     // its number of ioctl()
	foreign  foreignABI // another ABI under the same AUDIT_ARCH_…; zero: none
	compat   uint32     // AUDIT_ARCH_… of a 32-bit call
	compatNr foreignABI
}

// foreignABI has the numbers of bpf() and ioctl() in one.
type foreignABI struct{ bpf, ioctl uint32 }

// machines is keyed by GOARCH.
var machines = map[string]machine{
	"amd64": {
		native: _AUDIT_ARCH_X86_64, bpf: _X86_64_NR_bpf, perf: _X86_64_NR_perf_event_open, ioctl: _X86_64_NR_ioctl,
		foreign: foreignABI{_X32_SYSCALL_BIT | _X86_64_NR_bpf, _X32_NR_ioctl},
		compat:  _AUDIT_ARCH_I386, compatNr: foreignABI{_I386_NR_bpf, _I386_NR_ioctl},
	},
	"arm64": {
		native: _AUDIT_ARCH_AARCH64, bpf: _AARCH64_NR_bpf, perf: _AARCH64_NR_perf_event_open, ioctl: _AARCH64_NR_ioctl,
		compat: _AUDIT_ARCH_ARM, compatNr: foreignABI{_ARM_NR_bpf, _ARM_NR_ioctl},
	},
}

// Program is ProgramFor the architecture that this binary was built for.
func Program(native []uint32) ([]Instruction, error) {
	return ProgramFor(runtime.GOARCH, native)
}

// ProgramFor makes the program for a kernel of architecture arch (a GOARCH:
// amd64 or arm64), which leaves the bpf() commands in native to the kernel.
//
// It establishes that a bpf() call is allowed only if it is of the native ABI and
// its command is in native; order and repetitions there don't matter, an empty
// list notifies every command. A command above 0xffff is refused: that is where
// the kernel keeps flags, and a list with one is a mistake in the caller.
//
// The program must be installed with SECCOMP_FILTER_FLAG_NEW_LISTENER: without a
// listener the kernel answers what is to be notified with ENOSYS.
func ProgramFor(arch string, native []uint32) ([]Instruction, error) {
	m, ok := machines[arch]
	if !ok {
		return nil, fmt.Errorf("make seccomp program for architecture %q: known are amd64 and arm64", arch)
	}
	for _, c := range native {
		if c >= _BPF_COMMON_ATTRS {
			return nil, fmt.Errorf("make seccomp program: native command %#x: commands end below BPF_COMMON_ATTRS, %#x", c, uint32(_BPF_COMMON_ATTRS))
		}
	}

	var a assembler
	a.load(offArch)
	a.jump(opJeq, m.native, next, "compat")
	a.load(offNr)
	a.jump(opJeq, m.bpf, "bpf", next)
	a.jump(opJeq, m.ioctl, "ioctl", next)
	if m.foreign != (foreignABI{}) {
		a.jump(opJeq, m.foreign.bpf, "enosys", next)
		a.jump(opJeq, m.foreign.ioctl, "foreign ioctl", next)
	}
	a.jump(opJeq, m.perf, "notify", "allow")

	a.label("ioctl")
	a.load(offArg1Low)
	a.jump(opJeq, _PERF_EVENT_IOC_SET_BPF, "notify", next)
	a.jump(opJeq, _PERF_EVENT_IOC_QUERY_BPF, "notify", "allow")

	a.label("bpf")
	a.load(offArg0Low)
	if slices.Contains(native, _BPF_MAP_LOOKUP) {
		// By far the most frequent: it doesn't wait for the search.
		a.jump(opJeq, _BPF_MAP_LOOKUP, "allow", next)
	}
	a.search(runs(native))

	a.label("compat")
	a.jump(opJeq, m.compat, next, "enosys")
	a.load(offNr)
	a.jump(opJeq, m.compatNr.bpf, "enosys", next)
	a.jump(opJeq, m.compatNr.ioctl, "foreign ioctl", "allow")

	a.label("foreign ioctl")
	a.load(offArg1Low)
	a.jump(opJeq, _PERF_EVENT_IOC_SET_BPF, "enosys", "allow")

	a.label("allow")
	a.ret(_SECCOMP_RET_ALLOW)
	a.label("notify")
	a.ret(_SECCOMP_RET_USER_NOTIF)
	a.label("enosys")
	a.ret(_SECCOMP_RET_ERRNO | _ENOSYS)

	p, err := a.assemble()
	if err != nil {
		return nil, fmt.Errorf("make seccomp program for %s with %d native commands: %w", arch, len(native), err)
	}
	return p, nil
}

// run is a range of commands with the same answer: from this number up to the
// next run's.
type run struct {
	from   uint32
	answer string // a label
}

// runs divides all numbers from 0 to 2³²-1 into runs. Neighbours differ in their
// answer, and the last is "notify".
func runs(native []uint32) []run {
	native = slices.Clone(native)
	slices.Sort(native)
	native = slices.Compact(native)
	r := []run{{0, "notify"}}
	for _, c := range native {
		if last := &r[len(r)-1]; last.from == c {
			// c follows the last native command, or is 0: no gap before it.
			r = r[:len(r)-1]
		}
		if len(r) == 0 || r[len(r)-1].answer != "allow" {
			r = append(r, run{c, "allow"})
		}
		r = append(r, run{c + 1, "notify"})
	}
	return r
}

// search emits a balanced search for the run that holds the accumulator. For the
// commands of Linux 6.18, 7 native runs with gaps between them, that is at most
// 4 comparisons. (A bit mask, 1 << command & mask, would need 5 instructions for
// any command: compare with 32, move to X, load 1, shift, test.)
func (a *assembler) search(r []run) {
	switch {
	case len(r) == 1:
		// Only of an empty list is the whole a single run, and "notify".
		a.ret(_SECCOMP_RET_USER_NOTIF)
		return
	case len(r) == 3 && r[2].from == r[1].from+1:
		// One number between two runs with the other answer.
		a.jump(opJeq, r[1].from, r[1].answer, r[0].answer)
		return
	}
	mid := len(r) / 2
	low, high := r[:mid], r[mid:]
	switch {
	case len(low) == 1 && len(high) == 1:
		a.jump(opJge, high[0].from, high[0].answer, low[0].answer)
	case len(low) == 1:
		a.jump(opJge, high[0].from, next, low[0].answer)
		a.search(high)
	default: // high is never the shorter: it is no single run either
		above := fmt.Sprintf("from %d", high[0].from)
		a.jump(opJge, high[0].from, above, next)
		a.search(low)
		a.label(above)
		a.search(high)
	}
}
