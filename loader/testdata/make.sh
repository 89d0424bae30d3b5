#!/bin/bash
# Makes the loaders that the tests run, of each what BPF_PROG_LOAD gets (.insns), the
# value of the loader's map (.data), the context (.ctx), and what of the user's memory the
# context points to (.user, from 0x10000 on). Needs clang, gcc, bpftool and libbpf.
set -euo pipefail

cd "$(dirname "$0")"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# The skeleton's own code fills the context, and hands the rest to what is here instead
# of skel_internal.h's.
cat >"$dir/dump.c" <<'C'
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <bpf/skel_internal.h>

static const char *name;
static FILE *user;

static FILE *file(const char *suffix)
{
	char path[100];
	snprintf(path, sizeof(path), "%s.%s", name, suffix);
	FILE *f = fopen(path, "w");
	if (!f)
		exit(1);
	return f;
}

static void *keep(const void *val, size_t size)
{
	long at = ftell(user);
	fwrite(val, 1, size, user);
	return (void *)(0x10000 + at);
}

static int dump(struct bpf_load_and_run_opts *opts)
{
	fwrite(opts->insns, 1, opts->insns_sz, file("insns"));
	fwrite(opts->data, 1, opts->data_sz, file("data"));
	fwrite(opts->ctx, 1, opts->ctx->sz, file("ctx"));
	exit(0);
}

#define skel_prep_map_data(val, mmap_sz, val_sz) keep(val, val_sz)
#define bpf_load_and_run dump
#include "loader.h"

int main(int argc, char **argv)
{
	name = argv[1];
	user = file("user");
	loader__open_and_load();
}
C

# loader NAME SOURCE makes one.
loader() {
	clang -O2 -g -Wall -target bpf -I"/usr/include/$(uname -m)-linux-gnu" -c "$2" -o "$dir/loader.bpf.o"
	bpftool gen skeleton -L "$dir/loader.bpf.o" name loader >"$dir/loader.h" 2>"$dir/log" || { cat "$dir/log"; exit 1; }
	gcc -I"$dir" "$dir/dump.c" -o "$dir/dump"
	"$dir/dump" "$1"
}
loader ringbuf ../../demo/ringbuf.bpf.c
loader ksyms ksyms.bpf.c
