// Sends connect() to another port.
#include "hit.h"

SEC("cgroup/connect4")
int connect(struct bpf_sock_addr *ctx)
{
	if (ctx->user_port != bpf_htons(7))
		return 1;
	hit();
	ctx->user_port = bpf_htons(7777);
	return 1;
}
