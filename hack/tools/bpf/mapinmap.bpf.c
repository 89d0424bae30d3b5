// A map of maps.
#include "hit.h"

struct inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} one SEC(".maps"), two SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct inner);
} outer SEC(".maps") = { .values = { [0] = &one, [1] = &two } };

long in_two;

SEC("raw_tp/sched_process_exec")
int exec(void *ctx)
{
	__u32 zero = 0, key = 1;
	__u64 *value;
	void *map = bpf_map_lookup_elem(&outer, &key);

	if (!map)
		return 0;
	value = bpf_map_lookup_elem(map, &zero);
	if (!value)
		return 0;
	__sync_fetch_and_add(value, 1);
	in_two = *value;
	hit();
	return 0;
}
