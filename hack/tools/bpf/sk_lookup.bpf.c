// Sees which socket is looked up for a packet.
#include "hit.h"

SEC("sk_lookup")
int lookup(struct bpf_sk_lookup *ctx)
{
	hit();
	return SK_PASS;
}
