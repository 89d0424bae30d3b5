package guard

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// bpf makes a bpf() call with these fields.
func bpf(tb testing.TB, c abi.Command, fields map[string]uint64) int {
	tb.Helper()
	row := abi.RowOf(c)
	attr := make([]byte, sys.AttrRoom)
	for name, v := range fields {
		row.Field(name).Put(attr, v)
	}
	fd, e := sys.BPF(uint32(c), attr, row.LastEnd)
	if e != 0 {
		tb.Fatalf("%v: %v", c, e)
	}
	return fd
}

// ownCgroup is the cgroup (v2) that the test is in.
func ownCgroup(tb testing.TB) Scope {
	tb.Helper()
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		mounts, err := sys.Mounts()
		if err != nil {
			tb.Fatal(err)
		}
		for _, m := range mounts {
			var st unix.Stat_t
			if m.Type == "cgroup2" && unix.Stat(filepath.Join(m.Point, path), &st) == nil {
				return Scope{ID: st.Ino, Level: strings.Count(strings.TrimSuffix(path, "/"), "/")}
			}
		}
	}
	tb.Skip("no cgroup v2 is mounted")
	return Scope{}
}

// BenchmarkGuard is what a system call takes, with a program at sys_enter that counts in an
// array: without one, with it as it is, guarded for a task of its own, guarded for others,
// and with one that does nothing. What counts are the differences in one run.
func BenchmarkGuard(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root")
	}
	own := ownCgroup(b)
	foreign := Scope{ID: own.ID + 1, Level: own.Level}
	m := bpf(b, abi.MapCreate, map[string]uint64{"map_type": 2, "key_size": 4, "value_size": 8, "max_entries": 1})
	defer sys.Close(m)
	nothing := program(insn(0xb7, 0, 0, 0, 0), insn(0x95, 0, 0, 0, 0))
	counts := program(insn(0x62, 10, 0, -4, 0), insn(0xbf, 2, 10, 0, 0), insn(0x07, 2, 0, 0, -4), insn(0x18, 1, 1, 0, int32(m)), insn(0, 0, 0, 0, 0),
		insn(0x85, 0, 0, 0, 1), insn(0x15, 0, 0, 2, 0), insn(0xb7, 1, 0, 0, 1), insn(0xdb, 0, 1, 0, 0), nothing)
	// What tools do: count by process, in a hash map.
	h := bpf(b, abi.MapCreate, map[string]uint64{"map_type": 1, "key_size": 4, "value_size": 8, "max_entries": 1024})
	defer sys.Close(h)
	byPID := program(insn(0x85, 0, 0, 0, 14), insn(0x63, 10, 0, -4, 0), insn(0x7a, 10, 0, -16, 1),
		insn(0xbf, 2, 10, 0, 0), insn(0x07, 2, 0, 0, -4), insn(0x18, 1, 1, 0, int32(h)), insn(0, 0, 0, 0, 0), insn(0x85, 0, 0, 0, 1), insn(0x15, 0, 0, 3, 0),
		insn(0xb7, 1, 0, 0, 1), insn(0xdb, 0, 1, 0, 0), insn(0x05, 0, 0, 8, 0),
		insn(0xbf, 2, 10, 0, 0), insn(0x07, 2, 0, 0, -4), insn(0xbf, 3, 10, 0, 0), insn(0x07, 3, 0, 0, -16), insn(0xb7, 4, 0, 0, 0),
		insn(0x18, 1, 1, 0, int32(h)), insn(0, 0, 0, 0, 0), insn(0x85, 0, 0, 0, 2), nothing)
	guarded := func(s Scope, insns []byte) []byte {
		g, err := of(s, &Program{Insns: insns}, 0)
		if err != nil {
			b.Fatal(err)
		}
		return g.Insns
	}
	for _, c := range []struct {
		name  string
		insns []byte
	}{{"none", nil}, {"nothing", nothing}, {"unguarded", counts}, {"own", guarded(own, counts)}, {"foreign", guarded(foreign, counts)},
		{"tool/unguarded", byPID}, {"tool/own", guarded(own, byPID)}, {"tool/foreign", guarded(foreign, byPID)}} {
		b.Run(c.name, func(b *testing.B) {
			if c.insns != nil {
				license, point := []byte("GPL\x00"), []byte("sys_enter\x00")
				prog := bpf(b, abi.ProgLoad, map[string]uint64{"prog_type": 17, "insns": sys.Addr(c.insns), "insn_cnt": uint64(len(c.insns) / InsnSize), "license": sys.Addr(license)})
				defer sys.Close(prog)
				defer sys.Close(bpf(b, abi.RawTPOpen, map[string]uint64{"name": sys.Addr(point), "prog_fd": uint64(prog)}))
			}
			for b.Loop() {
				unix.Getppid()
			}
		})
	}
}
