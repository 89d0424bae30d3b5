// Refuses /dev/zero.
#include "hit.h"

SEC("cgroup/dev")
int device(struct bpf_cgroup_dev_ctx *ctx)
{
	hit();
	return ctx->major != 1 || ctx->minor != 5;
}
