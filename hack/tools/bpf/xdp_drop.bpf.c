// Drops all packets.
#include "hit.h"

SEC("xdp")
int drop(struct xdp_md *ctx)
{
	return XDP_DROP;
}
