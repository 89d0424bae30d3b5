// An iterator over TCP sockets.
#include "hit.h"

SEC("iter/tcp")
int sockets(struct bpf_iter__tcp *ctx)
{
	static const char format[] = "port %d\n";
	__u64 port;

	struct sock_common *sk = ctx->sk_common;

	if (!sk)
		return 0;
	port = sk->skc_num;
	bpf_seq_printf(ctx->meta->seq, format, sizeof(format), &port, sizeof(port));
	hit();
	return 0;
}
