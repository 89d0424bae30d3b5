// Counts packets; a function of it can be replaced.
#include "hit.h"

__attribute__((noinline)) int decide(struct xdp_md *ctx)
{
	volatile int verdict = ctx->data < ctx->data_end ? XDP_PASS : XDP_DROP;

	return verdict;
}

SEC("xdp")
int count(struct xdp_md *ctx)
{
	hit();
	return decide(ctx);
}
