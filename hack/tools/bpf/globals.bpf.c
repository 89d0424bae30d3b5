// Global data: constants that the verifier knows, variables, a string.
#include "hit.h"

const volatile long limit = 3;
long start = 40;
long sum, letters;
const char word[] = "global";

SEC("raw_tp/sched_process_exec")
int exec(void *ctx)
{
	hit();
	if (hits > limit)
		return 0;
	sum = start + 2;
	letters = sizeof(word) - 1;
	return 0;
}
