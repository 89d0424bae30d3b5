// A socket filter that accepts nothing.
#include "hit.h"

SEC("socket")
int filter(struct __sk_buff *skb)
{
	return 0;
}
