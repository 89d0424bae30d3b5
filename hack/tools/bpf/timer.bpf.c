// A timer.
#include "hit.h"

struct slot {
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct slot);
} timers SEC(".maps");

long started;

static int on_time(void *map, __u32 *key, struct slot *slot)
{
	hit();
	return 0;
}

SEC("tc")
int start(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct slot *slot = bpf_map_lookup_elem(&timers, &zero);

	if (!slot)
		return 1;
	bpf_timer_init(&slot->timer, &timers, 1 /* CLOCK_MONOTONIC */);
	bpf_timer_set_callback(&slot->timer, on_time);
	if (!bpf_timer_start(&slot->timer, 1000000, 0))
		started++;
	return 0;
}
