#!/bin/bash
# Installs the Debian packages that the build, the tests and the demo need, and
# nothing when all are there.
# Usage: deps.sh [tools|kernel]   for make tools or make kernel, too
set -euo pipefail

packages=(
	clang llvm         # the demo's BPF programs
	libbpf-dev bpftool # … their loaders; real tools for the tests
	gcc libc6-dev      # bench, cgo for the race detector
	runc crun podman   # container runtimes
	bpftrace           # tracepoints by name, symbols
	iproute2           # ip: veth, XDP
	strace             # tests compare traces
	util-linux uidmap  # unshare, nsenter, script; newuidmap
	procps             # ps: tests look at processes
	git make ca-certificates
)

# make tools
[ "${1:-}" != tools ] || packages+=(
	bpfcc-tools libbpf-tools xdp-tools linux-perf
	linux-headers-amd64 # which bcc compiles with
	systemtap-sdt-dev   # probes of a program's own
)
# make kernel
[ "${1:-}" != kernel ] || packages+=(qemu-system-x86 qemu-system-common busybox-static cpio)

missing=()
for p in "${packages[@]}"; do
	state=$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null || true)
	[ "$state" = installed ] || missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] && exit 0

echo "installing ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get -q update && apt-get -q install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
	cat "$log"
	exit 1
fi
