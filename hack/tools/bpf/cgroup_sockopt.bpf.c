// Answers getsockopt(SO_RCVBUF) itself.
#include "hit.h"

SEC("cgroup/getsockopt")
int get(struct bpf_sockopt *ctx)
{
	int *value = ctx->optval;

	if (ctx->level != 1 || ctx->optname != 8 || (void *)(value + 1) > ctx->optval_end)
		return 1;
	*value = 4242;
	ctx->retval = 0;
	hit();
	return 1;
}
