// A tracepoint whose arguments are typed by BTF.
#include "hit.h"

long own;

SEC("tp_btf/sched_process_exec")
int BPF_PROG(exec, struct task_struct *task)
{
	hit();
	own = task->pid == (__u32)bpf_get_current_pid_tgid();
	return 0;
}
