// Two programs that share functions and maps. make.sh compiles it.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");

__u64 total;

__attribute__((noinline)) static int last(__u32 key)
{
	__u64 *v = bpf_map_lookup_elem(&seen, &key);

	return v ? *v : 7;
}

__attribute__((noinline)) static int middle(__u32 key)
{
	__u64 *v = bpf_map_lookup_elem(&counts, &key);

	if (v)
		__sync_fetch_and_add(v, 1);
	return last(key) + 1;
}

static long each(__u32 i, void *ctx)
{
	total += last(i);
	return 0;
}

SEC("xdp")
int count(struct xdp_md *ctx)
{
	return middle(ctx->ingress_ifindex & 3) + last(1) ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int loop(struct xdp_md *ctx)
{
	bpf_loop(4, each, 0, 0);
	return middle(2) ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "GPL";
