// Loads ringbuf.bpf.c through its skeleton (libbpf), makes some system calls, and
// expects each in the ring buffer, in the hash map and in global data.
#include "ringbuf.h"
#include "ringbuf.skel.h"
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CALLS = 100 };

static unsigned int received, last;

static int on_event(void *ctx, void *data, size_t size)
{
	struct event *e = data;

	(void)ctx;
	if (size < sizeof(*e) || strcmp(e->comm, WANTED_COMM))
		return -1;
	received++;
	last = e->number;
	return 0;
}

int main(void)
{
	char comm[COMM_LEN] = WANTED_COMM;
	unsigned long long count = 0;

	prctl(PR_SET_NAME, comm);
	struct ringbuf_bpf *skel = ringbuf_bpf__open();
	if (!skel) {
		perror("open");
		return 1;
	}
	skel->rodata->wanted_syscall = SYS_getppid;
	skel->data->next_number = 5000;
	if (ringbuf_bpf__load(skel)) {
		perror("load");
		return 1;
	}
	if (bpf_map__update_elem(skel->maps.wanted, comm, sizeof(comm), &count, sizeof(count), BPF_ANY)) {
		perror("update");
		return 1;
	}
	struct ring_buffer *rb = ring_buffer__new(bpf_map__fd(skel->maps.events), on_event, NULL, NULL);
	if (!rb) {
		perror("ring buffer");
		return 1;
	}
	if (ringbuf_bpf__attach(skel)) {
		perror("attach");
		return 1;
	}

	for (int i = 0; i < CALLS; i++)
		syscall(SYS_getppid);
	while (ring_buffer__poll(rb, 200) > 0)
		;
	bpf_map__lookup_elem(skel->maps.wanted, comm, sizeof(comm), &count, sizeof(count), 0);

	printf("%d calls: %u events, the last is %u; map: %llu; global data: %llu\n", CALLS, received, last, count,
	       (unsigned long long)skel->bss->calls);
	int ok = received == CALLS && count == CALLS && skel->bss->calls == CALLS && last == 5000 + CALLS - 1;
	ring_buffer__free(rb);
	ringbuf_bpf__destroy(skel);
	return !ok;
}
