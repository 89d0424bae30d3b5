package inspect

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// The estimate of a map's bytes is no less than what the kernel says that the full map
// takes, and not much more.
func TestMapBytesKernel(t *testing.T) {
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("needs root, not run with -short")
	}
	cpus := sys.PossibleCPUs()
	for _, spec := range []ebpf.MapSpec{
		{Type: ebpf.Array, KeySize: 4, ValueSize: 12, MaxEntries: 1000},
		{Type: ebpf.Array, KeySize: 4, ValueSize: 8192, MaxEntries: 100, Flags: mmapable},
		{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 100, MaxEntries: 1000},
		{Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 4096},
		{Type: ebpf.PerfEventArray, KeySize: 4, ValueSize: 4, MaxEntries: 64},
		{Type: ebpf.Hash, KeySize: 5, ValueSize: 12, MaxEntries: 10_000},
		{Type: ebpf.PerCPUHash, KeySize: 4, ValueSize: 64, MaxEntries: 1000},
		{Type: ebpf.LRUHash, KeySize: 16, ValueSize: 64, MaxEntries: 10_000},
		{Type: ebpf.LRUCPUHash, KeySize: 16, ValueSize: 64, MaxEntries: 1000},
		{Type: ebpf.LRUHash, KeySize: 16, ValueSize: 64, MaxEntries: 1001, Flags: noCommonLRU},
		{Type: ebpf.Queue, ValueSize: 64, MaxEntries: 1000},
		{Type: ebpf.RingBuf, MaxEntries: 1 << 20},
		{Type: ebpf.StackTrace, KeySize: 4, ValueSize: 127 * 8, MaxEntries: 1000},
		{Type: ebpf.SockMap, KeySize: 4, ValueSize: 4, MaxEntries: 1000},
		{Type: ebpf.DevMap, KeySize: 4, ValueSize: 4, MaxEntries: 1000},
		{Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: 1000},
		// Elements come later: an empty map says less.
		{Type: ebpf.LPMTrie, KeySize: 8, ValueSize: 8, MaxEntries: 1000, Flags: noPrealloc},
		{Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: 1000, Flags: noPrealloc},
	} {
		m, err := ebpf.NewMap(&spec)
		if err != nil {
			t.Errorf("%v: %v", spec.Type, err)
			continue
		}
		actual := memlock(t, m.FD())
		m.Close()
		got := mapBytes(uint64(spec.Type), uint64(spec.KeySize), uint64(spec.ValueSize), uint64(spec.MaxEntries), uint64(spec.Flags), 0, uint64(cpus))
		t.Logf("%v, %d entries, flags %#x: estimate %d, kernel %d", spec.Type, spec.MaxEntries, spec.Flags, got, actual)
		most := actual*5/4 + 4096
		switch {
		case spec.Flags&noPrealloc != 0:
			most = 1 << 40
		case spec.Type == ebpf.Array || spec.Type == ebpf.PerCPUArray: // perhaps not rounded up
			most += actual
		}
		if got < actual || got > most {
			t.Errorf("%v, %d entries, flags %#x: estimate %d bytes, the kernel says %d", spec.Type, spec.MaxEntries, spec.Flags, got, actual)
		}
	}
}

// memlock is what the kernel says that a map takes.
func memlock(t *testing.T, fd int) (n int64) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "memlock:")
	if _, err := fmt.Sscan(rest, &n); err != nil {
		t.Fatal(err)
	}
	return n
}
