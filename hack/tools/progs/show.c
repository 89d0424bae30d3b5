// What a program tells: by ring buffer, perf buffer and global variables; and
// what it is told by a user ring buffer.
#include "load.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static struct ring_buffer *ring;
static struct perf_buffer *perf;

static int on_ring(void *ctx, void *data, size_t size)
{
	(void)ctx;
	printf("event of %zu bytes: %u\n", size, *(__u32 *)data);
	return 0;
}

static void on_perf(void *ctx, int cpu, void *data, __u32 size)
{
	(void)cpu;
	on_ring(ctx, data, size);
}

void open_events(struct bpf_object *obj)
{
	struct bpf_map *map = bpf_object__find_map_by_name(obj, "events");

	if (!map)
		return;
	if (bpf_map__type(map) == BPF_MAP_TYPE_RINGBUF)
		ring = ring_buffer__new(bpf_map__fd(map), on_ring, NULL, NULL);
	else
		perf = perf_buffer__new(bpf_map__fd(map), 8, on_perf, NULL, NULL, NULL);
	if (!ring && !perf)
		fail(errno, "open", bpf_map__name(map));
}

void show_events(void)
{
	if (ring)
		ring_buffer__poll(ring, 500);
	if (perf)
		perf_buffer__poll(perf, 500);
}

void feed_events(struct bpf_object *obj)
{
	int fd = bpf_object__find_map_fd_by_name(obj, "user_events");
	struct user_ring_buffer *rb;

	if (fd < 0)
		return;
	rb = user_ring_buffer__new(fd, NULL);
	if (!rb)
		fail(errno, "open", "user_events");
	for (__u32 i = 1; i <= 3; i++) {
		__u32 *sample = user_ring_buffer__reserve(rb, sizeof(*sample));

		if (!sample)
			fail(errno, "reserve in", "user_events");
		*sample = i;
		user_ring_buffer__submit(rb, sample);
	}
	user_ring_buffer__free(rb);
}

void show_globals(struct bpf_object *obj)
{
	const struct btf *btf = bpf_object__btf(obj);
	int id = btf__find_by_name_kind(btf, ".bss", BTF_KIND_DATASEC);
	const struct btf_var_secinfo *var;
	const struct btf_type *sec;
	struct bpf_map *map;

	if (id < 0)
		return;
	sec = btf__type_by_id(btf, id);
	bpf_object__for_each_map(map, obj) {
		size_t size;
		static char data[65536]; // which libbpf has mapped for skeletons alone
		__u32 zero = 0;

		if (!bpf_map__initial_value(map, &size) || !strstr(bpf_map__name(map), ".bss") || size > sizeof(data) ||
		    bpf_map_lookup_elem(bpf_map__fd(map), &zero, data))
			continue;
		var = btf_var_secinfos(sec);
		for (int i = 0; i < btf_vlen(sec); i++, var++) {
			const char *name = btf__name_by_offset(btf, btf__type_by_id(btf, var->type)->name_off);

			if (var->size == 8)
				printf("%s = %lld\n", name, *(long long *)(data + var->offset));
		}
	}
}
