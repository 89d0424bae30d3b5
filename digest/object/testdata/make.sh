#!/bin/bash
# Compiles the object of the tests; its digests are in object_test.go and in the script
# of the command, cmd/bpfbroker/testdata/digest.txtar.
set -euo pipefail
cd "$(dirname "$0")"
clang -O2 -g -Wall -target bpf -mcpu=v3 -I"/usr/include/$(uname -m)-linux-gnu" -c calls.bpf.c -o calls.elf
llvm-strip -g calls.elf
