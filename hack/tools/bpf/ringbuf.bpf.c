// A ring buffer, filled by a tracepoint program.
#include "hit.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

SEC("tp/sched/sched_process_exec")
int exec(void *ctx)
{
	__u32 *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e)
		return 0;
	*e = 42;
	bpf_ringbuf_submit(e, 0);
	hit();
	return 0;
}
