// Replaces a function of xdp_count.bpf.c.
#include "hit.h"

SEC("freplace/decide")
int decide(struct xdp_md *ctx)
{
	hit();
	return XDP_PASS;
}
