// Refuses reads of one sysctl.
#include "hit.h"

SEC("cgroup/sysctl")
int sysctl(struct bpf_sysctl *ctx)
{
	char name[16] = {};

	bpf_sysctl_get_name(ctx, name, sizeof(name), BPF_F_SYSCTL_BASE_NAME);
	hit();
	return name[0] != 's' || name[1] != 'o' || name[2] != 'm'; // somaxconn
}
