package filter

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/bpfbroker/bpfbroker/internal/brokertest"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// native is what package abi marks as Native for Linux 6.18, written out here so
// that a change there is seen here.
var native = []uint32{
	1, 2, 3, 4, // BPF_MAP_{LOOKUP,UPDATE,DELETE}_ELEM, BPF_MAP_GET_NEXT_KEY
	10,             // BPF_PROG_TEST_RUN
	21,             // BPF_MAP_LOOKUP_AND_DELETE_ELEM
	22,             // BPF_MAP_FREEZE
	24, 25, 26, 27, // BPF_MAP_{LOOKUP,LOOKUP_AND_DELETE,UPDATE,DELETE}_BATCH
	33, // BPF_ITER_CREATE
	35, // BPF_PROG_BIND_MAP
	37, // BPF_PROG_STREAM_READ_BY_FD
}

var arches = []string{"amd64", "arm64"}

func program(tb testing.TB, arch string, native []uint32) []Instruction {
	tb.Helper()
	p, err := ProgramFor(arch, native)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// reference says what a program for a kernel of architecture kernel has to answer.
// It is written from the kernel's system call tables and the requirement, not from
// the generator, and shares no constant with it.
func reference(kernel string, d brokertest.SeccompData) uint32 {
	const (
		allow  = 0x7fff0000
		notify = 0x7fc00000
		enosys = 0x00050026

		setBPF   = 0x40042408 // PERF_EVENT_IOC_SET_BPF
		queryBPF = 0xc008240a // PERF_EVENT_IOC_QUERY_BPF
	)
	request := d.Args[1] & 0xffffffff // of an ioctl
	ioctl := func(foreign bool) uint32 {
		switch {
		case foreign && request == setBPF:
			return enosys
		case !foreign && (request == setBPF || request == queryBPF):
			return notify
		}
		return allow
	}
	var isNative bool
	switch kernel {
	case "amd64":
		switch d.Arch {
		case 0xc000003e: // x86-64
			switch d.NR {
			case 321:
				isNative = true
			case 0x40000141: // x32
				return enosys
			case 298: // perf_event_open
				return notify
			case 16:
				return ioctl(false)
			case 0x40000202: // x32
				return ioctl(true)
			}
		case 0x40000003: // i386
			switch d.NR {
			case 357:
				return enosys
			case 54:
				return ioctl(true)
			}
		default:
			return enosys
		}
	case "arm64":
		switch d.Arch {
		case 0xc00000b7: // aarch64
			isNative = d.NR == 280
			switch d.NR {
			case 241: // perf_event_open
				return notify
			case 29:
				return ioctl(false)
			}
		case 0x40000028: // arm
			switch d.NR {
			case 386:
				return enosys
			case 54:
				return ioctl(true)
			}
		default:
			return enosys
		}
	default:
		panic(kernel)
	}
	if !isNative {
		return allow
	}
	for _, c := range native {
		if uint64(c) == d.Args[0]&0xffffffff {
			return allow
		}
	}
	return notify
}

func check(t *testing.T, kernel string, v brokertest.SeccompVM, p []Instruction, d brokertest.SeccompData) {
	want := reference(kernel, d)
	if got := v.Run(t, d); got != want {
		t.Fatalf("arch %#x nr %#x args[0] %#x: got %s, wanted %s", d.Arch, d.NR, d.Args[0], action(got), action(want))
	}
	if got, _, _ := brokertest.EmulateSeccomp(p, d); got != want {
		t.Fatalf("arch %#x nr %#x args[0] %#x: emulated got %s, wanted %s", d.Arch, d.NR, d.Args[0], action(got), action(want))
	}
}

func TestProgram(t *testing.T) {
	highs := []uint64{0, 1, 0x80000000, 0xffffffff}
	for _, kernel := range arches {
		t.Run(kernel, func(t *testing.T) {
			p := program(t, kernel, native)
			v := brokertest.NewSeccompVM(t, p)
			for _, arch := range brokertest.AuditArches {
				for nr := uint32(0); nr <= 600; nr++ {
					for _, bits := range []uint32{0, 1 << 30, 1 << 31, 1 << 16} {
						for cmd := uint64(0); cmd <= 64; cmd++ {
							d := brokertest.SeccompData{NR: nr | bits, Arch: arch, IP: 0xdeadbeef_00000141}
							d.Args[0], d.Args[1] = cmd|highs[cmd%4]<<32, 1
							check(t, kernel, v, p, d)
						}
					}
				}
				for _, nr := range []uint32{16, 29, 54, 16 | 1<<30, 514, 514 | 1<<30} {
					for _, request := range []uint64{0x2408, 0x40042408, 0xc008240a, 0xc004240a, 0x40042409, 0x80042408, 0x5401} {
						for _, high := range highs {
							d := brokertest.SeccompData{NR: nr, Arch: arch}
							d.Args[1] = high<<32 | request
							check(t, kernel, v, p, d)
						}
					}
				}
				for _, nr := range []uint32{280, 321, 357, 386, 321 | 1<<30, 280 | 1<<30, 0x7fffffff, 0xffffffff} {
					for cmd := uint64(0); cmd <= 64; cmd++ {
						for _, flags := range []uint64{0, 1 << 16, 1 << 17, 1 << 31, 0xffff0000, 1 << 8, 1 << 6} {
							for _, high := range highs {
								d := brokertest.SeccompData{NR: nr, Arch: arch}
								d.Args[0] = high<<32 | flags | cmd
								check(t, kernel, v, p, d)
							}
						}
					}
				}
			}
		})
	}
}

// TestProgramLists tries other lists than today's: the search must be right for
// all of them.
func TestProgramLists(t *testing.T) {
	all := make([]uint32, 0, 64)
	for c := range uint32(64) {
		all = append(all, c)
	}
	lists := map[string][]uint32{
		"empty": nil, "0": {0}, "1": {1}, "5": {5}, "0 and 1": {0, 1}, "0 and 2": {0, 2},
		"all": all, "unsorted, repeated": {37, 1, 24, 1, 3, 37, 2}, "last": {0xffff},
		"even": {0, 2, 4, 6, 8, 10, 12, 14, 16}, "odd": {1, 3, 5, 7, 9, 11, 13}, "pairs": {2, 3, 6, 7, 10, 11},
	}
	for i := range uint32(1 << 9) {
		var l []uint32
		for c := range uint32(9) {
			if i>>c&1 != 0 {
				l = append(l, c)
			}
		}
		lists[fmt.Sprintf("bits %09b", i)] = l
	}
	for name, list := range lists {
		for _, kernel := range arches {
			p := program(t, kernel, list)
			v := brokertest.NewSeccompVM(t, p)
			listed := make(map[uint32]bool)
			for _, c := range list {
				listed[c] = true
			}
			m := machines[kernel]
			for _, c := range append(all, 0xfffe, 0xffff, 0x10000, 0x10001, 0x1ffff, 0xffffffff) {
				want := uint32(_SECCOMP_RET_USER_NOTIF)
				if listed[c] {
					want = _SECCOMP_RET_ALLOW
				}
				if got := v.Run(t, brokertest.SeccompData{NR: m.bpf, Arch: m.native, Args: [6]uint64{uint64(c)}}); got != want {
					t.Errorf("%s: list %s: command %#x: got %s, wanted %s\n%s", kernel, name, c, action(got), action(want), Disassemble(p))
				}
			}
		}
	}
}

// TestCached holds the program to what the kernel's action cache needs: every
// call but bpf(), perf_event_open() and ioctl() is allowed without a look at its
// arguments, on the architectures that have a bitmap (native and compat).
func TestCached(t *testing.T) {
	// bpf(), ioctl(), and perf_event_open() where it is notified.
	looked := map[uint32][]uint32{0xc000003e: {321, 16, 298}, 0x40000003: {357, 54}, 0xc00000b7: {280, 29, 241}, 0x40000028: {386, 54}}
	for kernel, arches := range map[string][]uint32{"amd64": {0xc000003e, 0x40000003}, "arm64": {0xc00000b7, 0x40000028}} {
		p := program(t, kernel, native)
		for _, arch := range arches {
			for nr := range uint32(1024) {
				answer, _, constant := brokertest.EmulateSeccomp(p, brokertest.SeccompData{NR: nr, Arch: arch})
				if cached, want := constant && answer == _SECCOMP_RET_ALLOW, !slices.Contains(looked[arch], nr); cached != want {
					t.Errorf("%s: arch %#x nr %d: cached as allowed: got %t, wanted %t", kernel, arch, nr, cached, want)
				}
			}
		}
	}
}

// TestSteps pins the number of instructions executed. A larger number is a
// regression; a smaller one is to be written here.
func TestSteps(t *testing.T) {
	const (
		x8664, i386, aarch64, arm = 0xc000003e, 0x40000003, 0xc00000b7, 0x40000028

		mapLookup, mapUpdate, mapNextKey, mapCreate, progLoad, testRun, streamRead, future = 1, 2, 4, 0, 5, 10, 37, 1<<16 | 1
	)
	for _, c := range []struct {
		name          string
		kernel        string
		arch, nr, cmd uint32
		want          int
	}{
		{"getppid", "amd64", x8664, 110, 0, 9},
		{"perf_event_open", "amd64", x8664, 298, 0, 9},
		{"ioctl", "amd64", x8664, 16, 0, 9},
		{"getppid, i386", "amd64", i386, 64, 0, 7},
		{"getppid, x32", "amd64", x8664, 1<<30 | 110, 0, 9},
		{"map_lookup_elem", "amd64", x8664, 321, mapLookup, 7},
		{"map_update_elem", "amd64", x8664, 321, mapUpdate, 11},
		{"map_get_next_key", "amd64", x8664, 321, mapNextKey, 11},
		{"map_create", "amd64", x8664, 321, mapCreate, 10},
		{"prog_load", "amd64", x8664, 321, progLoad, 11},
		{"prog_test_run", "amd64", x8664, 321, testRun, 11},
		{"prog_stream_read_by_fd", "amd64", x8664, 321, streamRead, 11},
		{"with common attributes", "amd64", x8664, 321, future, 11},
		{"bpf, i386", "amd64", i386, 357, 0, 6},
		{"bpf, x32", "amd64", x8664, 1<<30 | 321, 0, 7},
		{"getppid", "arm64", aarch64, 173, 0, 7},
		{"perf_event_open", "arm64", aarch64, 241, 0, 7},
		{"ioctl", "arm64", aarch64, 29, 0, 9},
		{"getppid, arm", "arm64", arm, 64, 0, 7},
		{"map_lookup_elem", "arm64", aarch64, 280, mapLookup, 7},
		{"map_update_elem", "arm64", aarch64, 280, mapUpdate, 11},
		{"bpf, arm", "arm64", arm, 386, 0, 6},
	} {
		_, got, _ := brokertest.EmulateSeccomp(program(t, c.kernel, native), brokertest.SeccompData{NR: c.nr, Arch: c.arch, Args: [6]uint64{uint64(c.cmd)}})
		if got != c.want {
			t.Errorf("%s: %s: got %d instructions, wanted %d", c.kernel, c.name, got, c.want)
		}
	}
}

func TestGolden(t *testing.T) {
	for _, kernel := range arches {
		path := filepath.Join("testdata", kernel+".txt")
		got := Disassemble(program(t, kernel, native))
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(path)
		if err != nil || got != string(want) {
			t.Errorf("program for %s differs from %s (%v); if that is meant, run go test ./filter -run Golden -update\ngot:\n%s\nwanted:\n%s", kernel, path, err, got, want)
		}
	}
}

func TestRefused(t *testing.T) {
	var scattered []uint32 // every second command: more comparisons than a jump can skip
	for c := uint32(0); c < 2000; c += 2 {
		scattered = append(scattered, c)
	}
	for _, c := range []struct {
		name, arch string
		native     []uint32
		want       string
	}{
		{"unknown architecture", "riscv64", native, `architecture "riscv64"`},
		{"no architecture", "", native, `architecture ""`},
		{"flag in a command", "amd64", []uint32{1, 1<<16 | 1}, "native command 0x10001"},
		{"a jump too far", "amd64", scattered, "a conditional jump at most 255"},
	} {
		p, err := ProgramFor(c.arch, c.native)
		if err == nil || p != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %d instructions, error %v; wanted none and an error with %q", c.name, len(p), err, c.want)
		}
	}
}

func TestAssemble(t *testing.T) {
	for name, c := range map[string]struct {
		build func(*assembler)
		want  string
	}{
		"nowhere":  {func(a *assembler) { a.jump(opJeq, 1, "x", next); a.ret(0) }, `"x", which is nowhere`},
		"backward": {func(a *assembler) { a.label("x"); a.load(0); a.jump(opJeq, 1, next, "x"); a.ret(0) }, `jumps to "x" at 0`},
		"past end": {func(a *assembler) { a.jump(opJeq, 1, "x", next); a.ret(0); a.label("x") }, `jumps to "x" at 2`},
		"too long": {func(a *assembler) {
			for range 4097 {
				a.ret(0)
			}
		}, "4097 instructions"},
		"256": {func(a *assembler) {
			a.jump(opJeq, 1, "x", next)
			for range 256 {
				a.ret(0)
			}
			a.label("x")
			a.ret(0)
		}, "skips 256"},
	} {
		var a assembler
		c.build(&a)
		if _, err := a.assemble(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got error %v, wanted one with %q", name, err, c.want)
		}
	}
}

// TestDisassembleAny: a debugging aid must not fail on what is to be debugged.
func TestDisassembleAny(t *testing.T) {
	if got := Disassemble(nil); got != "" {
		t.Errorf("empty program: got %q", got)
	}
	got := Disassemble([]Instruction{
		{Code: 0x54, K: 0xffff}, {Code: opLoad, K: offArg0High}, {Code: opJeq, Jt: 255, Jf: 255, K: 7},
		{Code: opLoad, K: offArch}, {Code: opJeq, K: 0x1234}, {Code: opRet, K: _SECCOMP_RET_ERRNO | 1}, {Code: opRet, K: 0x80000000},
	})
	want := `   0: 0x0054 jt 0 jf 0 k 0xffff /* ??? */
   1: ld   [20]
   2: if   ? == 7 goto 258 else 258
   3: ld   arch
   4: if   arch == 0x1234 goto 5 else 5
   5: ret  ERRNO(1)
   6: ret  0x80000000
`
	if got != want {
		t.Errorf("got:\n%s\nwanted:\n%s", got, want)
	}
}

// TestLayout: callers hand a []Instruction to the kernel as struct sock_filter.
func TestLayout(t *testing.T) {
	var i Instruction
	got := [...]uintptr{unsafe.Sizeof(i), unsafe.Offsetof(i.Code), unsafe.Offsetof(i.Jt), unsafe.Offsetof(i.Jf), unsafe.Offsetof(i.K)}
	if want := [...]uintptr{8, 0, 2, 3, 4}; got != want {
		t.Errorf("size and offsets: got %v, wanted %v", got, want)
	}
}

// FuzzProgram compares the program with the reference on any seccomp_data.
func FuzzProgram(f *testing.F) {
	programs := make(map[string]brokertest.SeccompVM)
	emulated := make(map[string][]Instruction)
	for _, kernel := range arches {
		emulated[kernel] = program(f, kernel, native)
		programs[kernel] = brokertest.NewSeccompVM(f, emulated[kernel])
	}
	seed := func(d brokertest.SeccompData) {
		f.Add(d.Bytes())
	}
	for _, arch := range brokertest.AuditArches {
		for _, nr := range []uint32{0, 280, 321, 357, 386, 1<<30 | 321, 16, 29, 54, 1<<30 | 514} {
			for _, cmd := range []uint64{0, 1, 37, 38, 1<<16 | 1, 1<<32 | 1, 0x40042408, 0xc008240a} {
				seed(brokertest.SeccompData{NR: nr, Arch: arch, Args: [6]uint64{cmd, cmd}})
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d := brokertest.SeccompDataOf(b)
		for _, kernel := range arches {
			check(t, kernel, programs[kernel], emulated[kernel], d)
		}
	})
}
