// poke does what tracing tools look for: it opens and syncs a file, sends itself a
// signal, makes a thread, looks up a host, and talks to itself over TCP on lo.
//
// poke_me is for uprobes, poke:hit for USDT.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sdt.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

__attribute__((noinline)) int poke_me(int n)
{
	DTRACE_PROBE1(poke, hit, n);
	__asm__ volatile("");
	return n + 1;
}

__attribute__((noinline)) int poke_too(int n)
{
	__asm__ volatile("");
	return poke_me(n);
}

static void *thread(void *arg)
{
	return arg;
}

static void file(void)
{
	char name[] = "/tmp/poke-XXXXXX";
	struct stat st;
	int fd = mkstemp(name);

	if (fd < 0)
		return;
	if (write(fd, "poke", 4) == 4)
		fsync(fd);
	stat(name, &st);
	close(fd);
	unlink(name);
}

// talk returns whether what was sent over TCP was received.
static int talk(void)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(addr);
	char buf[8];
	int ok, a, c, s = socket(AF_INET, SOCK_STREAM, 0);

	if (bind(s, (struct sockaddr *)&addr, len) || listen(s, 1) || getsockname(s, (struct sockaddr *)&addr, &len))
		return 0;
	c = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(c, (struct sockaddr *)&addr, len))
		return 0;
	a = accept(s, NULL, NULL);
	ok = write(c, "hello", 5) == 5 && read(a, buf, sizeof(buf)) == 5;
	close(c);
	close(a);
	close(s);
	return ok;
}

int main(int argc, char **argv)
{
	struct addrinfo *hosts;
	pthread_t t;
	int n = argc > 1 ? atoi(argv[1]) : 1;

	for (int i = 0; i < n; i++)
		poke_too(i);
	if (argc > 2) // poke_me alone
		return 0;
	signal(SIGUSR1, SIG_IGN);
	kill(getpid(), SIGUSR1);
	if (!pthread_create(&t, NULL, thread, NULL))
		pthread_join(t, NULL);
	if (!getaddrinfo("localhost", NULL, NULL, &hosts))
		freeaddrinfo(hosts);
	file();
	if (!talk()) {
		perror("poke: TCP on lo");
		return 1;
	}
	return 0;
}
