#!/bin/bash
# Builds what hack/tools runs, and copies its cases, into an existing directory.
# Usage: build.sh DIRECTORY
set -euo pipefail

dir=$(realpath "$1")
cd "$(dirname "$0")"

bpftool btf dump file /sys/kernel/btf/vmlinux format c >"$dir/vmlinux.h"
case $(uname -m) in
x86_64) arch=x86 ;;
aarch64) arch=arm64 ;;
esac
for source in bpf/*.bpf.c; do
	clang -O2 -g -Wall -target bpf -mcpu=v3 -D__TARGET_ARCH_$arch -I"$dir" -Ibpf -I"/usr/include/$(uname -m)-linux-gnu" -c "$source" -o "$dir/$(basename "$source" .c).o"
done
gcc -O2 -Wall -Wextra progs/load.c progs/attach.c progs/show.c -o "$dir/load" -lbpf
gcc -O1 -Wall -Wextra -pthread progs/poke.c -o "$dir/poke"
for function in poke_me poke_too; do
	nm "$dir/poke" | sed -n "s/ T $function\$//p"
done >"$dir/poke.offsets" # addresses, which gcc lays out as in the file

cp -r cases "$dir"
cp lib ../../demo/way ../../demo/veth "$dir"

# bcc compiles with the kernel's headers. There are none for ours, but its tools take
# those of Debian's, which are in two directories.
for headers in /usr/src/linux-headers-6.1.0-*-"$(dpkg --print-architecture)"; do
	rm -rf "$dir/kheaders"; mkdir "$dir/kheaders"
	cp -rs "${headers%-*}-common/." "$dir/kheaders"
	cp -rsf "$headers"/{include,arch} "$dir/kheaders"
	break
done
chmod -R a+rX "$dir"
