// Classifier in direct-action mode: drops UDP packets to port 7777.
#include "hit.h"

SEC("tc")
int classify(struct __sk_buff *skb)
{
	__u16 port = 0;

	bpf_skb_load_bytes(skb, 14 + 20 + 2, &port, sizeof(port));
	return port == bpf_htons(7777) ? 2 /* TC_ACT_SHOT */ : 0;
}
