// A kprobe.
#include "hit.h"

SEC("kprobe/do_unlinkat")
int unlink(void *ctx)
{
	hit();
	return 0;
}
