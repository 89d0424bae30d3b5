// Refuses sockets that aren't TCP.
#include "hit.h"

SEC("cgroup/sock_create")
int create(struct bpf_sock *sk)
{
	hit();
	return sk->type == SOCK_STREAM;
}
