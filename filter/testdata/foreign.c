// Calls bpf() and a few others by the ABIs that an x86-64 process has, and prints
// "name result" lines: the result as the kernel returned it, negative for errors.
// Built static and run by TestKernelForeign, with and without the filter.
#include <stdio.h>

static long int80(long nr, long a, long b, long c)
{
	long ret;
	asm volatile("int $0x80" : "=a"(ret) : "a"(nr), "b"(a), "c"(b), "d"(c)
		     : "memory", "r8", "r9", "r10", "r11");
	return (int)ret;
}

static long syscall64(long nr, long a, long b, long c)
{
	long ret;
	asm volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(b), "d"(c)
		     : "memory", "rcx", "r11");
	return ret;
}

int main(void)
{
	printf("i386-map_lookup_elem %ld\n", int80(357, 1, 0, 0));
	printf("i386-map_create %ld\n", int80(357, 0, 0, 0));
	printf("i386-99 %ld\n", int80(357, 99, 0, 0));
	printf("i386-signalfd %ld\n", int80(321, -2, 0, 0)); // the number of bpf() on x86-64
	printf("i386-getppid %d\n", int80(64, 0, 0, 0) == syscall64(110, 0, 0, 0));
	printf("x32-map_lookup_elem %ld\n", syscall64(0x40000000 | 321, 1, 0, 0));
	printf("x32-map_create %ld\n", syscall64(0x40000000 | 321, 0, 0, 0));
	printf("x86-64-357 %ld\n", syscall64(357, 1, 0, 0)); // the number of bpf() on i386
	printf("x86-64-map_lookup_elem %ld\n", syscall64(321, 1, 0, 0));
	printf("x86-64-map_lookup_elem-high-bits %ld\n", syscall64(321, 0x700000001, 0, 0));
	// A number of which only the low 32 bits count, too.
	printf("x86-64-nr-high-bits %ld\n", syscall64(0x700000000 | 321, 99, 0, 0));
	printf("x86-64-map_create %ld\n", syscall64(321, 0, 0, 0));

	// ioctl(fd, PERF_EVENT_IOC_SET_BPF or _QUERY_BPF, …) of no file.
	printf("i386-set_bpf %ld\n", int80(54, -1, 0x40042408, 0));
	printf("i386-query_bpf %ld\n", int80(54, -1, 0xc004240a, 0)); // needs CAP_PERFMON, the kernel says
	printf("i386-tcgets %ld\n", int80(54, -1, 0x5401, 0));
	printf("x32-set_bpf %ld\n", syscall64(0x40000000 | 514, -1, 0x40042408, 0));
	printf("x86-64-set_bpf %ld\n", syscall64(16, 7, 0x40042408, 0));
	printf("x86-64-set_bpf-high-bits %ld\n", syscall64(16, 8, 0x940042408, 0));
	printf("x86-64-query_bpf %ld\n", syscall64(16, 9, 0xc008240a, 0));
	printf("x86-64-tcgets %ld\n", syscall64(16, -1, 0x5401, 0));
	printf("x86-64-54 %ld\n", syscall64(54, -1, 0x40042408, 0)); // the number of ioctl() on i386
	return 0;
}
