// Says which flow a packet belongs to.
#include "hit.h"

SEC("flow_dissector")
int dissect(struct __sk_buff *skb)
{
	hit();
	return 129 /* BPF_FLOW_DISSECTOR_CONTINUE */;
}
