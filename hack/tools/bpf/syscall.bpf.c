// A program that makes bpf() calls itself, as those of light skeletons do.
#include "hit.h"

SEC("syscall")
int make_map(void *ctx)
{
	union bpf_attr attr = { .map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1 };
	long fd = bpf_sys_bpf(0 /* BPF_MAP_CREATE */, &attr, sizeof(attr));

	hit();
	if (fd < 0)
		return fd;
	bpf_sys_close(fd);
	return 7;
}
