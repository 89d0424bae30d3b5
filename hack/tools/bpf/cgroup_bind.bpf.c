// Refuses to bind one port.
#include "hit.h"

SEC("cgroup/bind4")
int bind(struct bpf_sock_addr *ctx)
{
	hit();
	return ctx->user_port != bpf_htons(7777);
}
