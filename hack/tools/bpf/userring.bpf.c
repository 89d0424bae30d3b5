// A ring buffer that user space fills.
#include "hit.h"

struct {
	__uint(type, BPF_MAP_TYPE_USER_RINGBUF);
	__uint(max_entries, 4096);
} user_events SEC(".maps");

long sum;

static long on_sample(struct bpf_dynptr *sample, void *ctx)
{
	__u32 *n = bpf_dynptr_data(sample, 0, sizeof(*n));

	if (n) {
		hit();
		sum += *n;
	}
	return 0;
}

SEC("raw_tp/sched_process_exec")
int exec(void *ctx)
{
	bpf_user_ringbuf_drain(&user_events, on_sample, NULL, 0);
	return 0;
}
