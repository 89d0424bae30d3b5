package inspect

import (
	"math"
	"testing"

	"github.com/bpfbroker/bpfbroker/abi"
)

func TestMapBytes(t *testing.T) {
	const head = 1024
	for _, c := range []struct {
		typ                              string
		key, value, entries, flags, want uint64
	}{
		{"array", 4, 4, 1024, 0, head + 8*1024},
		{"array", 4, 4, 1000, 0, head + 8*1024},
		{"array", 4, 4, 1, mmapable, 4096 + 4096},
		{"percpu_array", 4, 8, 16, 0, head + 16*(8+4*8)},
		{"hash", 4, 8, 100, 0, head + 16*128 + (100+4)*(48+8+8) + 4*8},
		{"hash", 4, 8, 100, noPrealloc, head + 16*128 + 100*(48+8+8+8) + 4*8},
		{"percpu_hash", 4, 8, 100, 0, head + 16*128 + (100+4)*(48+8+8+4*8) + 4*8},
		{"lru_hash", 4, 8, 100, 0, head + 16*128 + 100*(48+8+8) + 4*8},
		{"lru_percpu_hash", 4, 8, 101, noCommonLRU, head + 16*128 + 104*(48+8+8+4*8) + 4*8},
		{"lpm_trie", 8, 4, 10, noPrealloc, head + 20*(24+8+4)},
		{"queue", 0, 8, 10, 0, head + 88},
		{"ringbuf", 0, 0, 1 << 20, 0, head + (3+256)*4096 + (3+512)*8},
		{"stack_trace", 4, 1016, 100, 0, head + 8*128 + 100*(16+1016)},
		{"arena", 0, 0, 10, 0, head + 40960},
		{"task_storage", 4, 8, 0, 1, head + 16*4},
		{"hash", math.MaxUint32, math.MaxUint32, math.MaxUint32, 0, math.MaxInt64},
		{"percpu_array", 4, math.MaxUint32, math.MaxUint32, 0, math.MaxInt64},
	} {
		if got := mapBytes(value(abi.MapTypes, c.typ), c.key, c.value, c.entries, c.flags, 0, 4); got != int64(c.want) {
			t.Errorf("%s of %d entries, flags %#x: got %d, wanted %d", c.typ, c.entries, c.flags, got, c.want)
		}
	}
	for typ := range uint64(len(abi.MapTypes.Names) + 2) {
		if got := mapBytes(typ, 8, 8, 8, 0, 0, 2); got <= 0 {
			t.Errorf("%s: %d bytes", abi.MapTypes.Name(typ), got)
		}
	}
}
