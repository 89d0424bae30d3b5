// A target without the Go runtime: a child made by vfork, and many processes that
// call at once. Each makes hash maps by bpf(), and looks whether a map is the one
// that it asked for. Prints "ok", or what is wrong.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct create { unsigned type, key_size, value_size, max_entries, flags; };
struct elem { unsigned fd, pad; unsigned long key, value, flags; };

static int make(int key, int value)
{
	struct create a = { 1, key, value, 1, 1 };
	return syscall(SYS_bpf, 0, &a, sizeof(a));
}

// wrong returns 0 if fd is of a new map of these sizes.
static int wrong(int fd, int key, int value)
{
	unsigned char k[64], v[64];
	struct elem a = { fd, 0, (unsigned long)k, (unsigned long)v, 0 };
	if (fd <= 2)
		return 1;
	memset(k, 1, sizeof(k));
	memset(v, 2, sizeof(v));
	if (syscall(SYS_bpf, 2, &a, sizeof(a))) // BPF_MAP_UPDATE_ELEM
		return 2;
	memset(v, 3, sizeof(v));
	if (syscall(SYS_bpf, 1, &a, sizeof(a))) // BPF_MAP_LOOKUP_ELEM
		return 3;
	if (v[value - 1] != 2 || v[value] != 3)
		return 4;
	a.key = 0;
	a.value = (unsigned long)v;
	memset(v, 3, sizeof(v));
	if (syscall(SYS_bpf, 4, &a, sizeof(a))) // BPF_MAP_GET_NEXT_KEY
		return 5;
	if (v[key - 1] != 1 || v[key] != 3)
		return 6;
	return 0;
}

static int after_vfork(void)
{
	volatile int fd = -1, err = 0;
	pid_t child = vfork(); // the child has our memory, and a copy of our fds
	if (child == 0) {
		fd = make(12, 24);
		err = errno;
		_exit(wrong(fd, 12, 24));
	}
	int status;
	waitpid(child, &status, 0);
	if (status) {
		printf("the child got fd %d, errno %d, and ended with %#x\n", fd, err, status);
		return 1;
	}
	fd = make(16, 32);
	return wrong(fd, 16, 32);
}

static int bomb(int processes)
{
	int bad = 0;
	for (int i = 0; i < processes; i++) {
		pid_t child = fork();
		if (child < 0) {
			perror("fork");
			return 1;
		}
		if (child)
			continue;
		for (int j = 0; j < 20; j++) {
			int key = 4 + 4 * (i % 8), value = 8 + 8 * (j % 5), fd = make(key, value);
			int w = wrong(fd, key, value);
			if (w) {
				printf("process %d, call %d: fd %d is wrong (%d), errno %d\n", i, j, fd, w, errno);
				fflush(stdout);
				_exit(1);
			}
			close(fd);
		}
		_exit(0);
	}
	for (int status; wait(&status) > 0;)
		bad |= status;
	return bad != 0;
}

int main(int argc, char **argv)
{
	int bad = argc > 2 ? bomb(atoi(argv[2])) : after_vfork();
	if (!bad)
		puts("ok");
	return bad;
}
