// Changes what a kernel function returns.
#include "hit.h"

SEC("fmod_ret/security_file_open")
int BPF_PROG(open, struct file *file, int ret)
{
	hit();
	return ret;
}
