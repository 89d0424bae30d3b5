// Reports the getppid calls of the processes called WANTED_COMM through a ring
// buffer, with a number from global data.
#include "ringbuf.h"
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

const volatile long wanted_syscall = -1; // .rodata, set before loading
__u32 next_number = 1000;                // .data
__u64 calls;                             // .bss

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} events SEC(".maps");

// A map beside the ring buffer, to have one that the loader fills.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__type(key, char[COMM_LEN]);
	__type(value, __u64);
} wanted SEC(".maps");

SEC("raw_tracepoint/sys_enter")
int on_syscall(struct bpf_raw_tracepoint_args *ctx)
{
	if (ctx->args[1] != wanted_syscall)
		return 0;
	char comm[COMM_LEN] = {};
	bpf_get_current_comm(comm, sizeof(comm));
	__u64 *count = bpf_map_lookup_elem(&wanted, comm);
	if (!count)
		return 0;
	__sync_fetch_and_add(count, 1);
	__sync_fetch_and_add(&calls, 1);

	struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e)
		return 0;
	e->number = next_number++;
	__builtin_memcpy(e->comm, comm, sizeof(e->comm));
	bpf_ringbuf_submit(e, 0);
	return 0;
}
