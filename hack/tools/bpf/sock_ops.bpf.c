// Sees connections of a cgroup being made.
#include "hit.h"

long active, passive;

SEC("sockops")
int ops(struct bpf_sock_ops *ctx)
{
	hit();
	if (ctx->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		active++;
	if (ctx->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		passive++;
	return 1;
}
