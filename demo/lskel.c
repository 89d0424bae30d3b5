// Loads lskel.bpf.c through its light skeleton: a BPF program, the loader, makes the maps
// and loads the program, from inside the kernel.
#include <bpf/bpf.h>
#include <errno.h> // which skel_internal.h uses
#include "lskel.skel.h"
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CALLS = 100 };

int main(void)
{
	unsigned int first = 0;
	unsigned long long count = 0;
	struct lskel_bpf *skel = lskel_bpf__open();

	if (!skel) {
		perror("open");
		return 1;
	}
	skel->rodata->wanted_syscall = SYS_getppid;
	skel->rodata->wanted_tid = gettid();
	int err = lskel_bpf__load(skel);
	if (!err)
		err = skel_map_update_elem(skel->maps.counts.map_fd, &first, &count, 0);
	if (!err)
		err = lskel_bpf__attach(skel);
	if (err < 0) {
		fprintf(stderr, "load, fill or attach: %s\n", strerror(-err));
		return 1;
	}
	for (int i = 0; i < CALLS; i++)
		syscall(SYS_getppid);
	bpf_map_lookup_elem(skel->maps.counts.map_fd, &first, &count);
	printf("%d calls; map: %llu; global data: %llu\n", CALLS, count, (unsigned long long)skel->data->calls);
	int ok = count == CALLS && skel->data->calls == 1000 + CALLS;
	lskel_bpf__destroy(skel);
	return !ok;
}
