// Has a loader do what that of demo/ringbuf.bpf.c doesn't: look for types, functions and
// symbols of the kernel, and fill a map of maps.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "GPL";

extern const int bpf_prog_active __ksym;           // a variable, by its type
extern const void bpf_prog_put __ksym;            // a symbol, by its address
extern const void no_such_symbol __ksym __weak;    // one that may be missing
extern void bpf_rcu_read_lock(void) __ksym;        // kfuncs
extern void bpf_rcu_read_unlock(void) __ksym;

__u64 result;

struct inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} first SEC(".maps"), second SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 4);
	__type(key, __u32);
	__array(values, struct inner);
} outer SEC(".maps") = {
	.values = { [1] = &first, [3] = &second },
};

SEC("fentry/bpf_fentry_test1")
int BPF_PROG(on_entry, int a)
{
	__u32 key = a;

	bpf_rcu_read_lock();
	result = (__u64)&bpf_prog_put;
	if (&no_such_symbol)
		result++;
	int *active = bpf_this_cpu_ptr(&bpf_prog_active);
	result += *active;
	if (bpf_map_lookup_elem(&outer, &key))
		result++;
	bpf_rcu_read_unlock();
	return 0;
}
