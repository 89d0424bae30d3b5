// load is a loader of libbpf for any of our programs: it loads and attaches them,
// runs a command, and prints the events that they sent, and their global variables.
//
// Usage: load FILE.bpf.o [CMD [ARG…]]
#include "load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

noreturn void fail(int err, const char *what, const char *name)
{
	fprintf(stderr, "load: %s %s: %s\n", what, name, strerror(err < 0 ? -err : err));
	exit(1);
}

static void run_command(char **argv)
{
	pid_t pid = fork();
	int status;

	if (pid < 0)
		fail(errno, "fork for", argv[0]);
	if (pid == 0) {
		execvp(argv[0], argv);
		fail(errno, "execute", argv[0]);
	}
	if (waitpid(pid, &status, 0) < 0)
		fail(errno, "wait for", argv[0]);
	printf("status = %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

int main(int argc, char **argv)
{
	struct bpf_object *obj;
	int err;

	if (argc < 2) {
		fprintf(stderr, "usage: load FILE.bpf.o [CMD [ARG…]]\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	obj = bpf_object__open_file(argv[1], NULL);
	if (!obj)
		fail(errno, "open", argv[1]);
	before_load(obj);
	err = bpf_object__load(obj);
	if (err)
		fail(err, "load", argv[1]);
	open_events(obj);
	attach_all(obj);
	feed_events(obj);
	if (argc > 2)
		run_command(argv + 2);
	show_events();
	show_globals(obj);
	detach_all();
	return 0;
}
