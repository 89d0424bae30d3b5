#!/bin/bash
# Runs unmodified BPF programs three ways, and shows what becomes of each:
#
#   root     as root, natively
#   without  in a user namespace, with mount, IPC, cgroup and network namespaces
#            of its own, without bpfbroker: what a rootless container gets
#   broker   in such namespaces, under bpfbroker run
#
# Fails when a run under bpfbroker fails, or when one without it doesn't.
# Usage: demo/run.sh [CASE…]
set -euo pipefail

cd "$(dirname "$0")"
broker=$(realpath ../bin/bpfbroker)
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
[ "$(id -u)" = 0 ] || { echo "demo: needs root, which starts bpfbroker" >&2; exit 1; }

# The programs lie where everybody may read them: this checkout may be below /root.
dir=$(mktemp -d /tmp/bpfbroker-demo-XXXXXX)
trap 'rm -rf "$dir"' EXIT
chmod 755 "$dir"

echo "Building the programs: libbpf and C, cilium/ebpf and Go, BPF with clang"
arch=$(uname -m)
bpf_cc() { clang -O2 -g -Wall -target bpf -I"/usr/include/$arch-linux-gnu" -c "$1.bpf.c" -o "$dir/$1.bpf.o"; }
bpf_cc ringbuf
bpf_cc xdp
bpf_cc lskel
bpftool gen skeleton "$dir/ringbuf.bpf.o" name ringbuf_bpf >"$dir/ringbuf.skel.h"
gcc -O2 -Wall -Wextra -I"$dir" -I. ringbuf.c -o "$dir/ringbuf" -lbpf
bpftool gen skeleton -L "$dir/lskel.bpf.o" name lskel_bpf >"$dir/lskel.skel.h"
gcc -O2 -Wall -I"$dir" lskel.c -o "$dir/lskel" -lbpf
gcc -O2 -Wall -Wextra xdp.c -o "$dir/xdp" -lbpf
CGO_ENABLED=0 go build -o "$dir/cilium" ./cilium
cp -r cases veth "$dir"
chmod -R a+rX "$dir"
cd "$dir"

# A mount namespace with a fresh bpffs: nothing is pinned on the host.
root() {
	unshare --mount --net bash -c 'mount -t bpf bpffs /sys/fs/bpf && exec "$@"' - "$@"
}
without() {
	setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all \
		unshare --user --map-root-user --mount --ipc --cgroup --net "$@"
}
broker() {
	"$broker" run --policy trusted --net private -- "$@"
}

# A refusal proves something only where the surroundings themselves work.
for how in root without broker; do
	$how true || { echo "demo: can't run anything the way \"$how\"" >&2; exit 1; }
done

# attempt HOW CASE sets $outcome.
attempt() {
	local status=0
	timeout 60 bash -c "$(declare -f "$1"); broker=$broker; $1 cases/$2" >"out.$1" 2>&1 </dev/null || status=$?
	if [ "$status" = 0 ]; then
		outcome=works
	elif grep -qiE 'operation not permitted|permission denied|EPERM' "out.$1"; then
		outcome=EPERM
	elif [ "$status" = 124 ]; then
		outcome=hangs
	else
		outcome="fails ($status)"
	fi
}

show() { # first lines that say something, indented
	sed -e 's/^/      /' -e '12q' "out.$1"
}

bold='' plain=''
[ -t 1 ] && bold=$'\033[1m' plain=$'\033[0m'
failed=0
rows=()
for path in ${*:-cases/*}; do
	case=$(basename "$path")
	title=$(sed -n '2s/^# //p' "cases/$case")
	printf '\n%s%s%s  (%s)\n' "$bold" "$title" "$plain" "$case"

	attempt root "$case";    as_root=$outcome
	attempt without "$case"; alone=$outcome
	attempt broker "$case";  brokered=$outcome

	echo "   as root: $as_root"
	[ "$as_root" = works ] || show root
	echo "   in a user namespace, without bpfbroker: $alone"
	grep -iE 'not permitted|denied|EPERM' out.without | head -2 | sed 's/^/      /' || true
	echo "   in a user namespace, under bpfbroker: $brokered"
	show broker

	verdict=ok
	[ "$brokered" = works ] && [ "$alone" = EPERM ] || { verdict=WRONG; failed=1; }
	[ "$alone" = EPERM ] || show without
	rows+=("$title|$as_root|$alone|$brokered|$verdict")
done

printf '\n%-66s %-12s %-12s %-12s\n' "" "as root" "without" "bpfbroker"
for row in "${rows[@]}"; do
	IFS='|' read -r title as_root alone brokered verdict <<<"$row"
	printf '%-66s %-12s %-12s %-12s %s\n' "$title" "$as_root" "$alone" "$brokered" "$verdict"
done
exit $failed
