package inspect

import (
	"math"
	"math/bits"

	"github.com/bpfbroker/bpfbroker/abi"
)

// mapBytes estimates what the kernel charges for a map that is full. The rules are those
// of the types' map_mem_usage (Linux 6.18, 64 bits); sizes of the kernel's structures are
// about right. Where two cases differ by what the kernel finds out later, it is the
// larger one.
//
// What comes on top isn't known when a map is made: elements of the storage maps (a task,
// socket, inode or cgroup each), inner maps, programs and files in a map.
func mapBytes(typ, key, value, entries, flags, extra uint64, cpus uint64) int64 {
	const (
		head   = 1024 // struct bpf_map and what surrounds it
		page   = abi.PageSize
		bucket = 16 // struct bucket, hlist head with its lock
	)
	value8 := roundUp(value, 8)
	perCPU := func(n uint64) uint64 { return times(n, cpus) }
	preallocated := flags&noPrealloc == 0
	switch abi.MapTypes.Name(typ) {
	case "array", "array_of_maps", "prog_array", "perf_event_array", "cgroup_array":
		// kernel/bpf/arraymap.c, array_map_alloc: rounded up to a power of 2 against
		// speculation past the end, unless the maker has CAP_PERFMON.
		// One that can be mapped begins at a page, and has another before that.
		if flags&mmapable != 0 {
			return sum(page, roundUp(times(value8, powerOf2(entries)), page))
		}
		return sum(head, roundUp(times(value8, powerOf2(entries)), 8))
	case "percpu_array":
		return sum(head, times(powerOf2(entries), sum8(8, perCPU(value8))))
	case "hash", "hash_of_maps", "percpu_hash", "lru_hash", "lru_percpu_hash":
		// kernel/bpf/hashtab.c, htab_map_mem_usage.
		const elem = 48 // struct htab_elem
		lru := abi.MapTypes.Name(typ) == "lru_hash" || abi.MapTypes.Name(typ) == "lru_percpu_hash"
		each := sum8(elem, roundUp(key, 8), value8)
		if n := abi.MapTypes.Name(typ); n == "percpu_hash" || n == "lru_percpu_hash" {
			each = sum8(elem, roundUp(key, 8), 8, perCPU(value8))
		}
		n := entries
		switch {
		case lru && flags&noCommonLRU != 0:
			n = roundUp(entries, cpus)
		case !lru && preallocated: // one more for each CPU, for updates
			n = sum8(entries, cpus)
		case !preallocated:
			each = sum8(each, 8) // struct llist_node
		}
		return sum(head, times(bucket, powerOf2(entries)), times(n, each), perCPU(8))
	case "lpm_trie":
		// kernel/bpf/lpm_trie.c, trie_mem_usage; a node for each entry and, at worst, one
		// between each two.
		const node = 24
		return sum(head, times(times(2, entries), sum8(node, key, value)))
	case "queue", "stack":
		return sum(head, times(value, sum8(entries, 1))) // queue_stack_maps.c
	case "bloom_filter":
		// bloom_filter.c, bloom_map_alloc
		hashes := extra & 0xf
		if hashes == 0 {
			hashes = 5
		}
		return sum(head, max(8, powerOf2(times(entries, hashes)/5*7)/8))
	case "ringbuf", "user_ringbuf":
		// ringbuf.c, ringbuf_map_mem_usage: three pages for positions; each page of data
		// is mapped twice.
		const meta = 3
		pages := entries / page
		return sum(head, times(page, sum8(meta, pages)), times(8, sum8(meta, times(2, pages))))
	case "stack_trace":
		// stackmap.c, stack_map_mem_usage
		return sum(head, times(8, powerOf2(entries)), times(entries, sum8(16, value)))
	case "devmap", "xskmap", "sockmap", "reuseport_sockarray", "cpumap":
		return sum(head, times(8, entries))
	case "devmap_hash":
		return sum(head, times(8, powerOf2(entries)), times(entries, 256))
	case "sockhash":
		return sum(head, times(bucket, powerOf2(entries)), times(entries, sum8(56, key)))
	case "struct_ops":
		return sum(head, times(2, value8), page) // bpf_struct_ops.c: the value, twice, and trampolines
	case "arena":
		return sum(head, times(page, entries)) // arena.c: pages as they are used
	}
	// Storage maps: kernel/bpf/bpf_local_storage.c, two buckets at least. And what this
	// table doesn't know: what an element holds, for each.
	return sum(head, times(bucket, max(2, powerOf2(cpus))), times(entries, sum8(key, value)))
}

const (
	noPrealloc  = 1 << 0  // BPF_F_NO_PREALLOC
	noCommonLRU = 1 << 1  // BPF_F_NO_COMMON_LRU
	mmapable    = 1 << 10 // BPF_F_MMAPABLE
)

// Numbers that are too large stay the largest.

func times(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	if hi != 0 {
		return math.MaxUint64
	}
	return lo
}

func sum8(n ...uint64) (total uint64) {
	for _, x := range n {
		var carry uint64
		if total, carry = bits.Add64(total, x, 0); carry != 0 {
			return math.MaxUint64
		}
	}
	return total
}

func sum(n ...uint64) int64 { return clamped(sum8(n...)) }

func clamped(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

func roundUp(n, to uint64) uint64 {
	if rest := n % to; rest != 0 {
		return sum8(n, to-rest)
	}
	return n
}

func powerOf2(n uint64) uint64 {
	switch {
	case n <= 1:
		return 1
	case n > 1<<63:
		return math.MaxUint64
	}
	return 1 << bits.Len64(n-1)
}
