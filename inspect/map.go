package inspect

import (
	"math"
	"math/bits"
	"runtime"

	"github.com/bpfbroker/bpfbroker/facts"
)

// mapBytes estimates what the kernel charges for a full map, as its maps' mem_usage does
// (kernel/bpf/arraymap.c array_map_mem_usage, hashtab.c htab_map_mem_usage, ringbuf.c,
// queue_stack_maps.c, lpm_trie.c, local_storage.c, bloom_filter.c, stackmap.c). Memory that
// programs add later, such as the values of storages, isn't in it.
func mapBytes(m *facts.Map) int64 {
	const (
		pointer   = 8
		hashElem  = 48 // struct htab_elem
		hashHead  = 16 // struct bucket
		trieNode  = 40 // struct lpm_trie_node
		page      = 4096
		ringPages = 3 * page
	)
	key, value, n := uint64(m.KeySize), uint64(m.ValueSize), uint64(m.MaxEntries)
	cpus := uint64(runtime.NumCPU()) // possible ones are at least these
	switch m.Type {
	case "array", "prog_array", "perf_event_array", "cgroup_array", "array_of_maps", "reuseport_sockarray", "sockmap", "devmap", "cpumap", "xskmap":
		if m.Type != "array" {
			return sum(product(n, pointer))
		}
		return sum(product(n, round8(value)))
	case "percpu_array":
		return sum(product(n, pointer), product(n, round8(value), cpus))
	case "hash", "lru_hash", "hash_of_maps", "sockhash", "devmap_hash":
		return sum(product(n, hashElem+round8(key)+round8(value)), product(power2(n), hashHead))
	case "percpu_hash", "lru_percpu_hash":
		return sum(product(n, hashElem+round8(key)+pointer), product(n, round8(value), cpus), product(power2(n), hashHead))
	case "ringbuf", "user_ringbuf":
		return sum(n, ringPages)
	case "queue", "stack":
		return sum(product(n+1, value))
	case "lpm_trie":
		return sum(product(n, trieNode+key+value))
	case "stack_trace":
		return sum(product(power2(n), pointer+24+value))
	case "bloom_filter":
		return sum(product(n, 4))
	case "arena":
		return sum(product(n, page))
	case "struct_ops":
		return sum(product(2, value))
	}
	return sum(product(max(n, 1), round8(key)+round8(value)))
}

func round8(n uint64) uint64 { return (n + 7) &^ 7 }

func power2(n uint64) uint64 {
	if n <= 1 || n > 1<<62 {
		return n
	}
	return 1 << bits.Len64(n-1)
}

// product and sum stop at the largest number.
func product(factors ...uint64) uint64 {
	p := uint64(1)
	for _, f := range factors {
		hi, lo := bits.Mul64(p, f)
		if hi != 0 {
			return math.MaxInt64
		}
		p = lo
	}
	return min(p, math.MaxInt64)
}

func sum(terms ...uint64) int64 {
	s := uint64(0)
	for _, t := range terms {
		s = min(s+t, math.MaxInt64)
	}
	return int64(s)
}
