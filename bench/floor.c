// The least that a seccomp supervisor of bpf() can do: what any broker costs at the
// least, to compare bpfbroker with.
//
//	floor supervise CMD…   CMD, unprivileged; its MAP_CREATE and PROG_LOAD are made
//	                       here, without any decision: one thread, no check but that
//	                       the call is still pending
//	floor allow CMD…       CMD under a filter that allows everything
//	floor look CMD…        CMD under a filter that looks at bpf()'s command, and
//	                       allows everything: the shortest that could tell any apart
//
// It copies only what callbench passes: no BTF, no log, no fds. Not an example of
// how to write a broker.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __x86_64__
#define NATIVE AUDIT_ARCH_X86_64
#else
#define NATIVE AUDIT_ARCH_AARCH64
#endif
#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS // Linux 6.6
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (1UL << 0)
#endif

static void die(const char *what)
{
	perror(what);
	_exit(125);
}

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define EQUAL(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, yes, no)
#define RETURN(action) BPF_STMT(BPF_RET | BPF_K, action)

static struct sock_filter allow[] = {
	RETURN(SECCOMP_RET_ALLOW),
};

static struct sock_filter look[] = {
	LOAD(nr),
	EQUAL(SYS_bpf, 0, 1),
	LOAD(args[0]),
	RETURN(SECCOMP_RET_ALLOW),
};

static struct sock_filter supervise[] = {
	LOAD(arch),
	EQUAL(NATIVE, 0, 5),
	LOAD(nr),
	EQUAL(SYS_bpf, 0, 3),
	LOAD(args[0]),
	EQUAL(BPF_MAP_CREATE, 2, 0),
	EQUAL(BPF_PROG_LOAD, 1, 0),
	RETURN(SECCOMP_RET_ALLOW),
	RETURN(SECCOMP_RET_USER_NOTIF),
};

static int install(struct sock_filter *filter, size_t size, unsigned int flags)
{
	struct sock_fprog prog = {.len = size / sizeof(*filter), .filter = filter};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		die("no_new_privs");
	int fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog);

	if (fd < 0)
		die("seccomp");
	return fd;
}

static void send_fd(int socket, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = {};
	struct iovec byte = {.iov_base = "", .iov_len = 1};
	struct msghdr m = {.msg_iov = &byte, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	if (sendmsg(socket, &m, 0) != 1)
		die("send listener");
}

static int receive_fd(int socket)
{
	char control[CMSG_SPACE(sizeof(int))], byte;
	struct iovec v = {.iov_base = &byte, .iov_len = 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	int fd;

	if (recvmsg(socket, &m, MSG_CMSG_CLOEXEC) != 1 || !CMSG_FIRSTHDR(&m))
		die("receive listener");
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(fd));
	return fd;
}

static int copy(pid_t pid, uint64_t from, void *to, size_t size)
{
	struct iovec local = {to, size}, remote = {(void *)(uintptr_t)from, size};

	return process_vm_readv(pid, &local, 1, &remote, 1, 0) == (ssize_t)size ? 0 : -EFAULT;
}

// perform makes the call of n; an fd, or -errno.
static int perform(const struct seccomp_notif *n)
{
	static struct bpf_insn insns[2048];
	static char license[4];
	union bpf_attr a;
	size_t size = n->data.args[2];

	memset(&a, 0, sizeof(a));
	if (size > sizeof(a))
		size = sizeof(a); // this header is older than the caller's; what is beyond is zero here
	if (copy(n->pid, n->data.args[1], &a, size))
		return -EFAULT;
	if (n->data.args[0] == BPF_PROG_LOAD) {
		if (a.insn_cnt > sizeof(insns) / sizeof(*insns))
			return -E2BIG;
		if (copy(n->pid, a.insns, insns, a.insn_cnt * sizeof(*insns)) || copy(n->pid, a.license, license, sizeof(license)))
			return -EFAULT;
		a.insns = (uintptr_t)insns;
		a.license = (uintptr_t)license;
	}
	int fd = syscall(SYS_bpf, (int)n->data.args[0], &a, size);

	return fd < 0 ? -errno : fd;
}

static void serve(int listener)
{
	for (;;) {
		struct seccomp_notif n;

		memset(&n, 0, sizeof(n));
		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &n)) {
			if (errno == EINTR || errno == ENOENT)
				continue;
			die("receive");
		}
		int fd = perform(&n);

		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &n.id) == 0) {
			// In one step, which is right only because signals are blocked: one that
			// interrupts it makes the target's call return 0.
			struct seccomp_notif_addfd add = {
				.id = n.id, .flags = SECCOMP_ADDFD_FLAG_SEND, .srcfd = fd, .newfd_flags = 02000000 /* O_CLOEXEC */};
			struct seccomp_notif_resp failed = {.id = n.id, .error = fd};

			if (fd >= 0 ? ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &add) < 0
				    : ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &failed) < 0)
				perror("answer");
		}
		if (fd >= 0)
			close(fd);
	}
}

static void run_supervised(char **cmd)
{
	int pair[2], status;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		die("socketpair");
	pid_t child = fork();

	if (child == 0) {
		if (unshare(CLONE_NEWUSER)) // without ids: no capability is left after exec
			die("unshare");
		int listener = install(supervise, sizeof(supervise),
				       SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);

		send_fd(pair[1], listener);
		close(listener);
		execvp(cmd[0], cmd);
		die(cmd[0]);
	}
	close(pair[1]);
	int listener = receive_fd(pair[0]);

	// A blocked receive doesn't return when the last target has ended; so another
	// process serves, and is killed then.
	pid_t server = fork();

	if (server == 0) {
		sigset_t all;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		sigfillset(&all);
		sigprocmask(SIG_SETMASK, &all, NULL);
		ioctl(listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP); // fails before 6.6
		serve(listener);
	}
	close(listener);
	waitpid(child, &status, 0);
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	exit(WIFEXITED(status) ? WEXITSTATUS(status) : 124);
}

int main(int argc, char **argv)
{
	if (argc < 3) {
		fprintf(stderr, "usage: floor supervise|allow|look CMD…\n");
		return 2;
	}
	char **cmd = argv + 2;

	if (!strcmp(argv[1], "supervise"))
		run_supervised(cmd);
	else if (!strcmp(argv[1], "allow"))
		install(allow, sizeof(allow), 0);
	else if (!strcmp(argv[1], "look"))
		install(look, sizeof(look), 0);
	else
		return 2;
	execvp(cmd[0], cmd);
	die(cmd[0]);
}
