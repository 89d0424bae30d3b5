// Tail calls, through a program array that libbpf fills.
#include "hit.h"

int second(void *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__uint(key_size, sizeof(__u32));
	__array(values, int(void *));
} jumps SEC(".maps") = { .values = { [1] = (void *)&second } };

long entered;

SEC("raw_tp/sched_process_exec")
int first(void *ctx)
{
	__sync_fetch_and_add(&entered, 1);
	bpf_tail_call(ctx, &jumps, 1);
	return 0;
}

SEC("raw_tp")
int second(void *ctx)
{
	hit();
	return 0;
}
