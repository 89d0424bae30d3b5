// Drops, counts: packets that leave a cgroup.
#include "hit.h"

long bytes;

SEC("cgroup_skb/egress")
int out(struct __sk_buff *skb)
{
	hit();
	__sync_fetch_and_add(&bytes, skb->len);
	return 1;
}
