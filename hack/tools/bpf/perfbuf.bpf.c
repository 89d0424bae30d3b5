// A perf buffer, filled by a tracepoint program.
#include "hit.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
} events SEC(".maps");

SEC("tp/sched/sched_process_exec")
int exec(void *ctx)
{
	__u32 e = 43;

	bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, &e, sizeof(e));
	hit();
	return 0;
}
