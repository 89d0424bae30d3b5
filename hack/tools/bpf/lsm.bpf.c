// A Linux security module's hook.
#include "hit.h"

SEC("lsm/file_open")
int BPF_PROG(file_open, struct file *file)
{
	hit();
	return 0;
}
