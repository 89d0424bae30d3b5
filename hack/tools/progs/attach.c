// How a program is attached, by its type.
#include "load.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *need_env(const char *name)
{
	const char *value = getenv(name);

	if (!value)
		fail(EINVAL, "needs in the environment", name);
	return value;
}

// is tells whether a program is in a section of ours, which libbpf doesn't know.
static bool is(const struct bpf_program *prog, const char *section)
{
	return !strcmp(bpf_program__section_name(prog), section);
}

void before_load(struct bpf_object *obj)
{
	struct bpf_program *prog, *target;

	bpf_object__for_each_program(prog, obj) {
		if (is(prog, "netfilter")) {
			bpf_program__set_type(prog, PROG_TYPE_NETFILTER);
			bpf_program__set_expected_attach_type(prog, ATTACH_NETFILTER);
		} else if (is(prog, "tcx")) {
			bpf_program__set_type(prog, BPF_PROG_TYPE_SCHED_CLS);
			bpf_program__set_expected_attach_type(prog, ATTACH_TCX_INGRESS);
		} else if (is(prog, "uprobe_multi")) {
			bpf_program__set_type(prog, BPF_PROG_TYPE_KPROBE);
			bpf_program__set_expected_attach_type(prog, ATTACH_UPROBE_MULTI);
		} else if (!strncmp(bpf_program__section_name(prog), "freplace/", 9)) {
			// It replaces a function of a program that is there already.
			struct bpf_object *other = bpf_object__open_file(need_env("TARGET"), NULL);

			if (!other || bpf_object__load(other))
				fail(errno, "load", need_env("TARGET"));
			target = bpf_object__next_program(other, NULL);
			bpf_program__set_attach_target(prog, bpf_program__fd(target), bpf_program__section_name(prog) + 9);
		}
	}
}

// The kernel's structure, longer than that of libbpf 1.1.
struct link_create {
	__u32 prog_fd, target, attach_type, flags;
	union {
		struct { __u32 pf, hooknum; __s32 priority; __u32 flags; } netfilter;
		struct { __u64 path, offsets, ref_ctr_offsets, cookies; __u32 cnt, flags, pid; } uprobe_multi;
		struct { __u32 relative; __u64 revision; } tcx;
	};
};

static void link_create(struct link_create *attr, const char *name)
{
	if (syscall(__NR_bpf, BPF_LINK_CREATE, attr, sizeof(*attr)) < 0)
		fail(errno, "make a link of", name);
}

static void attach_uprobe_multi(struct link_create *attr, const char *name)
{
	// Where the functions are in the file: hack/tools/build.sh writes it down.
	static __u64 offsets[2];
	FILE *f = fopen("poke.offsets", "r");

	if (!f || fscanf(f, "%llx %llx", &offsets[0], &offsets[1]) != 2)
		fail(EINVAL, "read", "poke.offsets");
	fclose(f);
	attr->attach_type = ATTACH_UPROBE_MULTI;
	attr->uprobe_multi.path = (unsigned long)"./poke";
	attr->uprobe_multi.offsets = (unsigned long)offsets;
	attr->uprobe_multi.cnt = 2;
	link_create(attr, name);
}

// attach_clock attaches a program to the software clock of each CPU.
static void attach_clock(struct bpf_program *prog)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE, .size = sizeof(attr), .config = PERF_COUNT_SW_CPU_CLOCK,
		.sample_period = 1000000,
	};

	for (int cpu = 0; cpu < libbpf_num_possible_cpus(); cpu++) {
		int fd = syscall(__NR_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC);

		if (fd < 0)
			fail(errno, "open the clock for", bpf_program__name(prog));
		if (!bpf_program__attach_perf_event(prog, fd))
			fail(errno, "attach", bpf_program__name(prog));
	}
}

// read_iterator prints what an iterator writes.
static void read_iterator(struct bpf_link *link)
{
	char buf[4096];
	ssize_t n;
	int fd = bpf_iter_create(bpf_link__fd(link));

	if (fd < 0)
		fail(errno, "make an iterator of", "a link");
	while ((n = read(fd, buf, sizeof(buf))) > 0)
		fwrite(buf, 1, n, stdout);
	if (n < 0)
		fail(errno, "read", "the iterator");
	close(fd);
}

// run runs a program that is attached to nothing.
static void run(struct bpf_program *prog)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts);
	int err = bpf_prog_test_run_opts(bpf_program__fd(prog), &opts);

	if (err)
		fail(err, "run", bpf_program__name(prog));
	printf("returned %d\n", opts.retval);
}

static void attach(struct bpf_object *obj, struct bpf_program *prog)
{
	const char *name = bpf_program__name(prog);
	struct link_create attr = { .prog_fd = bpf_program__fd(prog) };
	struct bpf_link *link = NULL;
	int err;

	if (!bpf_program__autoattach(prog) || is(prog, "raw_tp")) // the latter is for tail calls
		return;
	switch ((int)bpf_program__type(prog)) {
	case BPF_PROG_TYPE_CGROUP_SKB:
	case BPF_PROG_TYPE_CGROUP_SOCK:
	case BPF_PROG_TYPE_CGROUP_SOCK_ADDR:
	case BPF_PROG_TYPE_CGROUP_SOCKOPT:
	case BPF_PROG_TYPE_CGROUP_SYSCTL:
	case BPF_PROG_TYPE_CGROUP_DEVICE:
	case BPF_PROG_TYPE_SOCK_OPS:
		link = bpf_program__attach_cgroup(prog, open(need_env("CGROUP"), O_RDONLY | O_CLOEXEC));
		break;
	case BPF_PROG_TYPE_XDP:
		link = bpf_program__attach_xdp(prog, if_nametoindex(need_env("IFACE")));
		break;
	case BPF_PROG_TYPE_SK_LOOKUP:
	case BPF_PROG_TYPE_FLOW_DISSECTOR:
		link = bpf_program__attach_netns(prog, open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
		break;
	case BPF_PROG_TYPE_SK_MSG:
	case BPF_PROG_TYPE_SK_SKB:
		err = bpf_prog_attach(bpf_program__fd(prog), bpf_object__find_map_fd_by_name(obj, "sock_map"),
				      bpf_program__expected_attach_type(prog), 0);
		if (err)
			fail(err, "attach", name);
		return;
	case BPF_PROG_TYPE_PERF_EVENT:
		attach_clock(prog);
		return;
	case BPF_PROG_TYPE_SYSCALL:
		run(prog);
		return;
	case PROG_TYPE_NETFILTER:
		attr.attach_type = ATTACH_NETFILTER;
		attr.netfilter.pf = 2; // IPv4, on its way in
		attr.netfilter.hooknum = 1;
		attr.netfilter.priority = -128;
		link_create(&attr, name);
		return;
	case BPF_PROG_TYPE_SCHED_CLS:
		attr.attach_type = ATTACH_TCX_INGRESS;
		attr.target = if_nametoindex(need_env("IFACE"));
		link_create(&attr, name);
		return;
	case BPF_PROG_TYPE_KPROBE:
		if (is(prog, "uprobe_multi")) {
			attach_uprobe_multi(&attr, name);
			return;
		}
		link = bpf_program__attach(prog);
		break;
	default:
		link = bpf_program__attach(prog);
	}
	if (!link)
		fail(errno, "attach", name);
	if (!strncmp(bpf_program__section_name(prog), "iter", 4))
		read_iterator(link);
}

static struct bpf_link *registered; // which would outlive us

void attach_all(struct bpf_object *obj)
{
	struct bpf_program *prog;
	struct bpf_map *map;

	bpf_object__for_each_program(prog, obj)
		if (bpf_program__type(prog) != BPF_PROG_TYPE_STRUCT_OPS)
			attach(obj, prog);
	bpf_object__for_each_map(map, obj)
		if (bpf_map__type(map) == BPF_MAP_TYPE_STRUCT_OPS) {
			registered = bpf_map__attach_struct_ops(map);
			if (!registered)
				fail(errno, "register", bpf_map__name(map));
		}
}

void detach_all(void)
{
	bpf_link__destroy(registered);
}
