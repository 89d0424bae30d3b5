// CO-RE: fields by the running kernel's BTF, also in a type that lacks some.
#include "hit.h"

struct task_struct___other {
	int no_such_field;
} __attribute__((preserve_access_index));

long pid_read, comm_size, exists, other_exists;

SEC("raw_tp/sched_process_exec")
int exec(void *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	hit();
	pid_read = BPF_CORE_READ(task, group_leader, tgid) == bpf_get_current_pid_tgid() >> 32;
	comm_size = bpf_core_field_size(task->comm);
	exists = bpf_core_field_exists(task->mm);
	other_exists = bpf_core_field_exists(((struct task_struct___other *)0)->no_such_field);
	return 0;
}
