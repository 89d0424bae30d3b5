// A hook of netfilter: drops UDP packets.
#include "hit.h"

SEC("netfilter")
int in(struct bpf_nf_ctx *ctx)
{
	struct sk_buff *skb = ctx->skb;

	hit();
	return 1 /* NF_ACCEPT */;
}
