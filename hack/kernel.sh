#!/bin/bash
# Runs end-to-end tests under an older kernel: Debian's, in QEMU without KVM. The guest
# has this machine's root file system, with a tmpfs over it.
#
# Usage: hack/kernel.sh [TESTS]   a regular expression for go test -run
#
# It fails where another test fails than those that hack/kernel-differences.txt explains.
set -euo pipefail
cd "$(dirname "$0")/.."
tests=${1:-^Test(Differential|Targets|NativeTargets|Racing|Filters|Denied|Loader|WorkerKilled|DaemonKilled|Upgrade|LinksOf|NextIDShort|CreatedByUID|CgroupIterator|Scope$|ScopeTestdata|PIDs$|PIDsTransparent)}

bash hack/deps.sh kernel
mkdir -p build/kernel
image=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends:/ { print $2 }')
compgen -G "build/kernel/${image}_*.deb" >/dev/null || (cd build/kernel && apt-get download "$image")

dir=$(mktemp -d)
fs=
trap '[ -z "$fs" ] || kill "$fs" 2>/dev/null; rm -rf "$dir"' EXIT
dpkg-deb -x build/kernel/"${image}"_*.deb "$dir/kernel"
mkdir -p "$dir"/initrd/{bin,modules,lower,upper,root}
cp /bin/busybox "$dir/initrd/bin/"
# In the order in which they need each other.
modules=(virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci fuse virtiofs overlay)
for m in "${modules[@]}"; do
	find "$dir/kernel" -name "$m.ko" -exec cp {} "$dir/initrd/modules/" \;
done
cat >"$dir/initrd/init" <<EOF
#!/bin/busybox sh
set -e
b=/bin/busybox
for m in ${modules[*]}; do \$b insmod /modules/\$m.ko; done
EOF
cat >>"$dir/initrd/init" <<'EOF'
$b mount -t virtiofs root /lower -o ro
$b mount -t tmpfs -o mode=755 tmpfs /upper
$b mkdir /upper/files /upper/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work overlay /root
$b mount -t proc proc /root/proc
$b mount -t sysfs sysfs /root/sys
$b mount -t devtmpfs dev /root/dev
$b mkdir -p /root/dev/pts /root/dev/shm
$b mount -t devpts devpts /root/dev/pts
$b mount -t tmpfs tmpfs /root/dev/shm
$b mount -t tmpfs tmpfs /root/tmp
$b mount -t tmpfs -o mode=755 tmpfs /root/run
$b mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
# As systemd does. Until the root has passed on some controller, cgroups have no perf events.
echo "+pids +memory" >/root/sys/fs/cgroup/cgroup.subtree_control
$b mount -t bpf bpf /root/sys/fs/bpf
$b mount -t tracefs tracefs /root/sys/kernel/tracing
$b ip link set lo up
$b cp /command /root/kernel-command
exec $b switch_root /root /bin/bash /kernel-command
EOF
chmod +x "$dir/initrd/init"
cat >"$dir/initrd/command" <<EOF
export HOME=$HOME PATH=$PATH
cd $PWD
echo "kernel \$(uname -r)"
go test -count 1 -timeout 1h -v -run '$tests' ./e2e 2>&1
echo o >/proc/sysrq-trigger
sleep 60
EOF
(cd "$dir/initrd" && find . | cpio -o -H newc --quiet | gzip -1) >"$dir/initrd.gz"

/usr/lib/qemu/virtiofsd --socket-path="$dir/fs" -o source=/ -o cache=always -o no_posix_lock -o sandbox=chroot -f >"$dir/fs.log" 2>&1 &
fs=$!
for _ in $(seq 100); do
	[ -S "$dir/fs" ] && break
	sleep 0.1
done
# One processor: with two, QEMU 7.2 may hang where the kernel changes its own code.
qemu-system-x86_64 -nodefaults -no-reboot -display none -serial stdio -accel tcg -cpu max -smp 1 -m 6G \
	-object memory-backend-memfd,id=mem,size=6G,share=on -numa node,memdev=mem \
	-chardev socket,id=fs,path="$dir/fs" -device vhost-user-fs-pci,chardev=fs,tag=root \
	-kernel "$dir"/kernel/boot/vmlinuz-* -initrd "$dir/initrd.gz" -append "console=ttyS0 quiet loglevel=3 panic=-1" \
	</dev/null | tr -d '\r' | tee "$dir/out" | grep --line-buffered -E '^(kernel |=== RUN|ok|FAIL|panic)' || true

grep -E '^kernel ' "$dir/out" || { echo "kernel: the guest didn't start:"; tail -n 20 "$dir/out" "$dir/fs.log"; exit 1; }
cp "$dir/out" build/kernel/out.txt
passed=$(grep -cE '^ *--- PASS' "$dir/out" || true)
grep -oE '^ *--- FAIL: [^ ]+' "$dir/out" | awk '{ print $3 }' | sort -u >"$dir/failed" || true
grep -v '^#' hack/kernel-differences.txt | awk 'NF { print $1 }' | sort -u >"$dir/known"
echo "$passed passed, $(wc -l <"$dir/failed") failed; the output is in build/kernel/out.txt"
new=$(comm -23 "$dir/failed" "$dir/known")
[ -z "$new" ] || { echo "failed, and hack/kernel-differences.txt doesn't say why:"; echo "$new"; exit 1; }
grep -qE '^(ok|FAIL)' "$dir/out" || { echo "kernel: the tests came to no end"; exit 1; }
