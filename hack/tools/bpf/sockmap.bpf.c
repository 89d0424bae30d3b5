// A sock_ops program puts connections into a sockmap; a verdict program sees what
// they receive, a message program what they send.
#include "hit.h"

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} sock_map SEC(".maps");

__u32 next;
long verdicts, messages;

SEC("sockops")
int ops(struct bpf_sock_ops *ctx)
{
	__u32 key = __sync_fetch_and_add(&next, 1);

	if (ctx->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB || ctx->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		if (!bpf_sock_map_update(ctx, &sock_map, &key, BPF_ANY))
			hit();
	return 1;
}

SEC("sk_skb/stream_verdict")
int verdict(struct __sk_buff *skb)
{
	__sync_fetch_and_add(&verdicts, 1);
	return SK_PASS;
}

SEC("sk_msg")
int message(struct sk_msg_md *msg)
{
	__sync_fetch_and_add(&messages, 1);
	return SK_PASS;
}
