// Attaches xdp.bpf.o to an interface with a BPF link, runs a command that sends
// packets to it, and prints how many arrived.
//
//	xdp OBJECT INTERFACE PACKETS COMMAND [ARG…]
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc < 5)
		return 2;
	unsigned int ifindex = if_nametoindex(argv[2]);
	struct bpf_object *obj = bpf_object__open_file(argv[1], NULL);
	if (!ifindex || !obj || bpf_object__load(obj)) {
		perror("load");
		return 1;
	}
	struct bpf_program *prog = bpf_object__find_program_by_name(obj, "count_udp");
	int map = bpf_object__find_map_fd_by_name(obj, "udp_packets");
	struct bpf_link *link = bpf_program__attach_xdp(prog, ifindex);
	if (!link) {
		perror("attach");
		return 1;
	}

	pid_t child = fork();
	if (child == 0) {
		execvp(argv[4], argv + 4);
		_exit(127);
	}
	int status;
	waitpid(child, &status, 0);
	usleep(100 * 1000);

	unsigned int key = 0;
	unsigned long long count = 0;
	if (bpf_map_lookup_elem(map, &key, &count)) {
		perror("lookup");
		return 1;
	}
	printf("%llu UDP packets through %s\n", count, argv[2]);
	bpf_link__destroy(link);
	bpf_object__close(obj);
	return status || count != strtoull(argv[3], NULL, 10);
}
