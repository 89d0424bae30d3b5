// A probe that a program has for tracers (USDT), and its argument.
#include "hit.h"
#include <bpf/usdt.bpf.h>

long argument;

SEC("usdt/./poke:poke:hit")
int BPF_USDT(probe, int n)
{
	hit();
	argument += n;
	return 0;
}
