// Samples by the software clock.
#include "hit.h"

SEC("perf_event")
int sample(void *ctx)
{
	hit();
	return 0;
}
