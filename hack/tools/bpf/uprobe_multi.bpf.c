// Two functions, one link.
#include "hit.h"

SEC("uprobe_multi")
int functions(void *ctx)
{
	hit();
	return 0;
}
