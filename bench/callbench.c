// Makes many calls of one kind, and prints what one takes.
//
//	callbench KIND [BATCHES CALLS]
//
// prints "KIND NANOSECONDS": the median over BATCHES batches of a batch's mean over
// CALLS calls. Only the call itself is timed; closing what it made is not.
#define _GNU_SOURCE
#include <linux/bpf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

// What current loaders pass as the attribute's size: in MAP_CREATE up to
// map_extra, in PROG_LOAD up to core_relo_rec_size.
#define MAP_CREATE_SIZE 72
#define PROG_LOAD_SIZE 144
#define ELEM_SIZE 32

static int bpf(int cmd, void *attr, unsigned int size)
{
	return syscall(SYS_bpf, cmd, attr, size);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int map_create(void)
{
	union bpf_attr a;

	memset(&a, 0, sizeof(a));
	a.map_type = BPF_MAP_TYPE_ARRAY;
	a.key_size = 4;
	a.value_size = 8;
	a.max_entries = 4;
	return bpf(BPF_MAP_CREATE, &a, MAP_CREATE_SIZE);
}

#define MAX_INSNS 2000
static struct bpf_insn insns[MAX_INSNS];

// A socket filter of n instructions: r0 = 0, n - 1 times, and exit.
static int prog_load(int n)
{
	union bpf_attr a;

	for (int i = 0; i < n; i++)
		insns[i] = (struct bpf_insn){.code = BPF_ALU64 | BPF_MOV | BPF_K};
	insns[n - 1].code = BPF_JMP | BPF_EXIT;

	memset(&a, 0, sizeof(a));
	a.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
	a.insns = (uintptr_t)insns;
	a.insn_cnt = n;
	a.license = (uintptr_t) "GPL";
	return bpf(BPF_PROG_LOAD, &a, PROG_LOAD_SIZE);
}

static int load_2(void) { return prog_load(2); }
static int load_2000(void) { return prog_load(MAX_INSNS); }

// Calls that make an fd: each timed on its own, as it is closed before the next.
static double make(int (*call)(void), int calls)
{
	double sum = 0;

	for (int i = 0; i < calls; i++) {
		double t = now();
		int fd = call();

		sum += now() - t;
		if (fd < 0)
			die("call");
		close(fd);
	}
	return sum / calls;
}

static double lookup(int calls)
{
	static int map = -1;
	uint32_t key = 1;
	uint64_t value;
	union bpf_attr a;

	if (map < 0 && (map = map_create()) < 0)
		die("map_create");
	memset(&a, 0, sizeof(a));
	a.map_fd = map;
	a.key = (uintptr_t)&key;
	a.value = (uintptr_t)&value;

	double t = now();

	for (int i = 0; i < calls; i++)
		if (bpf(BPF_MAP_LOOKUP_ELEM, &a, ELEM_SIZE))
			die("map_lookup_elem");
	return (now() - t) / calls;
}

static double getppid_calls(int calls)
{
	double t = now();

	for (int i = 0; i < calls; i++)
		syscall(SYS_getppid);
	return (now() - t) / calls;
}

static double batch(const char *kind, int calls)
{
	if (!strcmp(kind, "map_create"))
		return make(map_create, calls);
	if (!strcmp(kind, "prog_load"))
		return make(load_2, calls);
	if (!strcmp(kind, "prog_load_2000"))
		return make(load_2000, calls);
	if (!strcmp(kind, "map_lookup"))
		return lookup(calls);
	if (!strcmp(kind, "getppid"))
		return getppid_calls(calls);
	fprintf(stderr, "callbench: unknown kind %s\n", kind);
	exit(2);
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	if (argc != 2 && argc != 4) {
		fprintf(stderr, "usage: callbench KIND [BATCHES CALLS]\n");
		return 2;
	}
	int batches = argc > 2 ? atoi(argv[2]) : 11;
	int calls = argc > 2 ? atoi(argv[3]) : 100;

	if (batches < 1 || calls < 1)
		return 2;
	double *means = calloc(batches, sizeof(*means));

	if (!means)
		die("calloc");
	batch(argv[1], calls); // the first is slow: page faults, caches, idle CPUs
	for (int i = 0; i < batches; i++)
		means[i] = batch(argv[1], calls);
	qsort(means, batches, sizeof(*means), ascending);
	printf("%s %.1f\n", argv[1], means[batches / 2]);
	return 0;
}
