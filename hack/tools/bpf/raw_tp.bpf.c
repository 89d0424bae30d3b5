// A raw tracepoint, and its arguments.
#include "hit.h"

long own;

SEC("raw_tp/sched_process_exec")
int exec(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (void *)ctx->args[0];

	hit();
	own = BPF_CORE_READ(task, pid) == (__u32)bpf_get_current_pid_tgid();
	return 0;
}
