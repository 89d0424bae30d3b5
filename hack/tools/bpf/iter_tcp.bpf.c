// An iterator over TCP sockets.
#include "hit.h"

SEC("iter/tcp")
int sockets(struct bpf_iter__tcp *ctx)
{
	static const char format[] = "port %d\n";
	__u64 port;

	if (!ctx->sk_common)
		return 0;
	port = ctx->sk_common->skc_num;
	bpf_seq_printf(ctx->meta->seq, format, sizeof(format), &port, sizeof(port));
	hit();
	return 0;
}
