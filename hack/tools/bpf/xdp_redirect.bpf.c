// Sends packets out of another interface, by a device map.
#include "hit.h"

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} ports SEC(".maps");

SEC("xdp")
int redirect(struct xdp_md *ctx)
{
	hit();
	return bpf_redirect_map(&ports, 0, 0);
}
