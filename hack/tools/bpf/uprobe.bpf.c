// A function of a program, its argument, and what it returns.
#include "hit.h"

long argument, result;

SEC("uprobe/./poke:poke_me")
int BPF_KPROBE(enter, int n)
{
	hit();
	argument += n;
	return 0;
}

SEC("uretprobe/./poke:poke_me")
int BPF_KRETPROBE(leave, int n)
{
	result += n;
	return 0;
}
