// TCX: packets that come in by an interface.
#include "hit.h"

SEC("tcx")
int in(struct __sk_buff *skb)
{
	hit();
	return -1 /* TCX_NEXT */;
}
