// An iterator over tasks.
#include "hit.h"

SEC("iter/task")
int tasks(struct bpf_iter__task *ctx)
{
	static const char format[] = "task %d %s\n";
	struct task_struct *task = ctx->task;
	__u64 args[2];

	if (!task)
		return 0;
	args[0] = task->tgid;
	args[1] = (unsigned long)task->comm;
	bpf_seq_printf(ctx->meta->seq, format, sizeof(format), args, sizeof(args));
	hit();
	return 0;
}
