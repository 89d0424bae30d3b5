// The exit of a kernel function.
#include "hit.h"

SEC("fexit/do_unlinkat")
int BPF_PROG(unlink)
{
	hit();
	return 0;
}
