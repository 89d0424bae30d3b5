// The entry of a kernel function.
#include "hit.h"

SEC("fentry/do_unlinkat")
int BPF_PROG(unlink)
{
	hit();
	return 0;
}
