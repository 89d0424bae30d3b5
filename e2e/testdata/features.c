// What libbpf's probes say of each map type, program type and helper.
#include <bpf/libbpf.h>
#include <stdio.h>

static int quiet(enum libbpf_print_level level, const char *format, va_list args)
{
	return 0;
}

int main(void)
{
	// Somewhat more than any kernel has.
	const int map_types = 40, prog_types = 40, helpers = 220;

	libbpf_set_print(quiet);
	for (int m = 0; m < map_types; m++)
		printf("map type %d: %d\n", m, libbpf_probe_bpf_map_type(m, NULL));
	for (int p = 0; p < prog_types; p++) {
		printf("program type %d: %d\n", p, libbpf_probe_bpf_prog_type(p, NULL));
		for (int h = 0; h < helpers; h++)
			printf("program type %d, helper %d: %d\n", p, h, libbpf_probe_bpf_helper(p, h, NULL));
	}
	return 0;
}
