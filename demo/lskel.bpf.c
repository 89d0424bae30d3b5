// Counts the system calls of one number that one process makes: in a map that the
// loader puts into another, and in global data. The tracepoint is one of the kernel's
// BTF, which the loader has to find.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "GPL";

const volatile long wanted_syscall = -1; // .rodata, set before loading
const volatile __u32 wanted_tid = 0;
__u64 calls = 1000; // .data

struct inner {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct inner);
} outer SEC(".maps") = { .values = { (void *)&counts } };

SEC("tp_btf/sys_enter")
int BPF_PROG(on_syscall, void *regs, long id)
{
	__u32 first = 0, tid = bpf_get_current_pid_tgid();

	if (id != wanted_syscall || tid != wanted_tid)
		return 0;
	void *map = bpf_map_lookup_elem(&outer, &first);
	__u64 *count = map ? bpf_map_lookup_elem(map, &first) : 0;
	if (!count)
		return 0;
	__sync_fetch_and_add(count, 1);
	__sync_fetch_and_add(&calls, 1);
	return 0;
}
