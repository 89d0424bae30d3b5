// An arena: pages that a program takes, and writes to.
#include "hit.h"

struct {
	__uint(type, 33 /* BPF_MAP_TYPE_ARENA */);
	__uint(map_flags, 1 << 10 /* BPF_F_MMAPABLE */);
	__uint(max_entries, 4);
	__ulong(map_extra, 1ull << 44); // where it is in user space
} arena SEC(".maps");

extern void *bpf_arena_alloc_pages(void *map, void *addr, __u32 pages, int node, __u64 flags) __ksym;

long address, value;

SEC("tc")
int take(struct __sk_buff *skb)
{
	long *page = bpf_arena_alloc_pages(&arena, NULL, 1, -1, 0);

	if (!page)
		return 1;
	hit();
	address = (long)page;
	return 0;
}
