package launch

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const (
	tracingView    = "-tracing=view"
	tracingSymbols = "-tracing=symbols"
)

// onHost runs a script as root in a mount namespace of its own where the host's tracefs
// is at /sys/kernel/tracing.
func onHost(t *testing.T, script string) string {
	t.Helper()
	return must(t, hostCommand(script))
}

func hostCommand(script string) *exec.Cmd {
	return exec.Command("unshare", "-m", "sh", "-c", "mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing; "+script)
}

// TestTracingView: what the workload reads is what the host's root reads.
func TestTracingView(t *testing.T) {
	needRoot(t)
	const read = `cd /sys/kernel/tracing && cat events/printk/console/id events/printk/console/format \
		events/sched/sched_switch/id events/syscalls/sys_enter_getpid/format events/header_page &&
		LC_ALL=C sort available_events`
	want := onHost(t, read)
	for _, pid := range bothPID {
		if got := output(t, read, pid, tracingView); got != want {
			t.Errorf("%s: got %.300q…, want %.300q…", pid, got, want)
		}
		got := output(t, strings.Replace(read, "/sys/kernel/tracing", "/sys/kernel/debug/tracing", 1), pid, tracingView)
		if got != want {
			t.Errorf("%s: in debugfs' place: got %.300q…, want %.300q…", pid, got, want)
		}
	}
	all := strings.Fields(onHost(t, "cd /sys/kernel/tracing; ls events/*/*/format | wc -l; ls events/*/*/id | wc -l"))
	have := strings.Fields(output(t, "cd /sys/kernel/tracing; ls events/*/*/format | wc -l; ls events/*/*/id | wc -l", tracingView))
	equal(t, "formats and ids", strings.Join(have, " "), strings.Join(all, " "))
	// Nothing else than what is known to be harmless.
	equal(t, "other files", output(t, `cd /sys/kernel/debug; find . -type f | grep -vE '^./tracing/events/[^/]+/[^/]+/(id|format)$' |
		grep -vE '^./(tracing/(available_events|available_filter_functions|events/header_(page|event))|kprobes/blacklist)$'; true`, tracingView), "")
	equal(t, "other modes", output(t, `cd /sys/kernel/debug; find . ! \( -type d -perm 755 \) ! \( -type f -perm 444 \); find . -user 0 -o -group 0`, tracingView), "")
	equal(t, "addresses", output(t, `grep -rlE 'ffff[0-9a-f]{12}' /sys/kernel/debug | head; true`, tracingView), "")
}

// TestNoTracingView: without it the workload sees what the host has there.
func TestNoTracingView(t *testing.T) {
	needRoot(t)
	const mounts = `grep -E ' /sys/kernel/(tracing|debug)| /proc/kallsyms' /proc/self/mountinfo | cut -d' ' -f4-; true`
	equal(t, "mounts", output(t, mounts), must(t, exec.Command("sh", "-c", mounts)))
}

// TestTracingViewIsOne: all workloads see the same inodes, and the host's mounts are as
// they were.
func TestTracingViewIsOne(t *testing.T) {
	needRoot(t)
	before, _ := os.ReadFile("/proc/self/mountinfo")
	const stat = `stat -c '%d %i' /sys/kernel/tracing/. /sys/kernel/tracing/events/printk/console/id`
	first := output(t, stat, tracingView)
	equal(t, "the second's", output(t, stat, tracingView, "-pid=private", "-user-map=0:300000:65536"), first)
	equal(t, "debugfs'", output(t, strings.ReplaceAll(stat, "/sys/kernel", "/sys/kernel/debug"), tracingView), first)
	after, _ := os.ReadFile("/proc/self/mountinfo")
	equal(t, "host's mounts", string(after), string(before))
}

// openTracefs lets all search the host's tracefs until the test's end, as its
// administrator may.
func openTracefs(t *testing.T) {
	t.Helper()
	mode := onHost(t, "stat -c %a /sys/kernel/tracing; chmod o+x /sys/kernel/tracing")
	t.Cleanup(func() { onHost(t, "chmod "+strings.TrimSpace(mode)+" /sys/kernel/tracing") })
}

// writes are tried in a workload, and in a namespace below it; each must fail.
var writes = []string{
	`echo 1 >$D/available_events`, `echo 1 >>$D/available_events`, `echo 1 >$D/new`, `mkdir $D/new`,
	`rm $D/available_events`, `mv $D/events $D/e`, `ln $D/available_events $D/l`, `ln -s x $D/l`,
	`chmod 666 $D/available_events`, `chmod 777 $D/.`, `chown 0 $D/available_events`, `touch $D/available_events`,
	`truncate -s 0 $D/events/printk/console/id`, `rm -r $D/events/printk`,
	`echo 1 >$D/events/printk/console/enable`, `echo 'p:x /bin/sh:0' >>$D/uprobe_events`,
	`cat $D/trace`, `timeout 5 cat $D/trace_pipe`, `cat $D/printk_formats`, `cat $D/kprobe_events`,
	`umount $D`, `umount -l $D`, `umount -l /sys/kernel`, `umount -l /sys`, `umount -l /sys/kernel/debug`,
	`mount -o remount,rw $D && echo 1 >$D/new`, `mount -o remount,bind,rw $D && echo 1 >$D/new`,
	`mount -o remount,bind,exec $D`, `mount -o remount,bind,rw /sys/kernel/debug && echo 1 >/sys/kernel/debug/new`,
	`mount --bind $D $T && mount -o remount,bind,rw $T`, `mount --bind $D $T && echo 1 >$T/new`, `mount --bind $D $T && umount $D`,
	`mount --bind $D/events $T && echo 1 >$T/printk/console/id`,
	`mount --rbind /sys/kernel $T && umount -l $T/tracing`, `mount --rbind /sys $T && umount -l $T/kernel/tracing`,
	`mount --rbind /sys $T && umount -l $T/kernel/debug`, `mount --bind /sys $T`, `mount --bind /sys/kernel $T`,
	`mount --move $D $T`, `mount --make-shared $D && umount $D`,
	`mount -t tracefs x $T`, `mount -t debugfs x $T`, `mount -t tracefs x $D && cat $D/trace`,
	`echo 1 >/run/bpfbroker/new`, `ls /run/bpfbroker/tracing`, `ls /run/bpfbroker/symbols`,
	`flock -n /run/bpfbroker/tracing true`, `flock -n /run/bpfbroker/symbols true`, // who could lock them could stop every run
}

// TestTracingViewIsReadOnly tries to write by the view, and to get below it.
func TestTracingViewIsReadOnly(t *testing.T) {
	needRoot(t)
	const digest = `cd /run/bpfbroker/tracing && find . -printf '%p %m %U %s %l\n' | grep -v '^\./\.' | LC_ALL=C sort | sha256sum
		find . -type f -print0 | LC_ALL=C sort -z | xargs -0 cat | sha256sum`
	output(t, "true", tracingSymbols) // both copies are there
	before := must(t, exec.Command("sh", "-c", digest))
	scratch := t.TempDir()
	for d := scratch; d != "/tmp" && d != "/"; d = filepath.Dir(d) {
		os.Chmod(d, 0o777)
	}
	try := fmt.Sprintf("T=%s\n", scratch)
	for _, dir := range []string{"/sys/kernel/tracing", "/sys/kernel/debug/tracing"} {
		for i, w := range writes {
			// What succeeds must not help the next.
			try += fmt.Sprintf("D=%s; unshare -m sh -c 'D=$1; T=$2; %s' x $D $T >/dev/null 2>&1 && echo '%d in %s: %s'\n", dir, strings.ReplaceAll(w, "'", `'"'"'`), i, dir, strings.ReplaceAll(w, "'", `"`))
		}
	}
	script := filepath.Join(scratch, "try")
	os.WriteFile(script, []byte(try+"echo done\n"), 0o755)
	for _, view := range []string{tracingView, tracingSymbols} {
		for _, pid := range bothPID {
			equal(t, view+" "+pid, output(t, "sh "+script, view, pid), "done")
			equal(t, view+" "+pid+", nested", output(t, "unshare -Urm sh "+script, view, pid), "done")
		}
	}
	// The same opened by the administrator: then the kernel's own tracefs is in sight.
	openTracefs(t)
	equal(t, "opened", output(t, "sh "+script, tracingView), "done")
	equal(t, "opened, nested", output(t, "unshare -Urm sh "+script, tracingView), "done")
	equal(t, "the host's copy", must(t, exec.Command("sh", "-c", digest)), before)
}

// TestTracefsInSight: there is always a tracefs in the list of mounts; and where the
// administrator opened its root, it is one by statfs, too.
func TestTracefsInSight(t *testing.T) {
	needRoot(t)
	const listed = `awk '$5 == "/sys/kernel/tracing" && / - tracefs /' /proc/self/mountinfo | wc -l; `
	const magic = "74726163"
	look := listed + "stat -fc %t /sys/kernel/tracing; cat /sys/kernel/tracing/events/printk/console/id"
	id := strings.TrimSpace(onHost(t, "cat /sys/kernel/tracing/events/printk/console/id"))
	got := strings.Fields(output(t, look, tracingView))
	if len(got) != 3 || got[0] == "0" || got[1] == magic || got[2] != id {
		t.Errorf("got %q, want a tracefs in the list, another in sight, and id %s", got, id)
	}
	openTracefs(t)
	got = strings.Fields(output(t, look, tracingView))
	if len(got) != 3 || got[0] == "0" || got[1] != magic || got[2] != id {
		t.Errorf("opened: got %q, want a tracefs in the list and in sight, and id %s", got, id)
	}
}

// TestSymbols: the kernel's addresses are shown where they are asked for, and only there;
// and workloads can have a /proc of their own nevertheless.
func TestSymbols(t *testing.T) {
	needRoot(t)
	const read = `grep -vE '\[(bpf|__builtin__.*)\]' /proc/kallsyms | sha256sum`
	want := must(t, exec.Command("sh", "-c", read))
	for _, pid := range bothPID {
		equal(t, pid+" kallsyms", output(t, read, pid, tracingSymbols), want)
		equal(t, pid+" addresses without symbols", output(t, "grep -vcE '^0+ ' /proc/kallsyms; true", pid, tracingView), "0")
		equal(t, pid+" addresses below", output(t, "umount /proc/kallsyms; grep -vcE '^0+ ' /proc/kallsyms; true", pid, tracingSymbols), "0")
		for _, view := range []string{tracingView, tracingSymbols} {
			equal(t, pid+" "+view+" nested /proc", output(t, "unshare -Urpfm --mount-proc ps ax -o pid=", pid, view), "1")
		}
	}
	for _, w := range []string{"echo >/proc/kallsyms", "chmod 600 /proc/kallsyms", "mount -o remount,bind,rw /proc/kallsyms && echo >>/proc/kallsyms"} {
		equal(t, w, output(t, "("+w+") >/dev/null 2>&1 || echo refused", tracingSymbols), "refused")
	}
}

// TestFirstRuns has many first runs at once, with a /run that is empty.
func TestFirstRuns(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	script := "mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug; mount -t tmpfs -o mode=755 run /run\n"
	const n = 6
	for i := range n {
		script += fmt.Sprintf("%s -id %s -tracing symbols sh -c 'stat -c %%d:%%i /sys/kernel/tracing/events/printk/console/id /proc/kallsyms' >%s/%d 2>&1 &\n", runner, newID(), dir, i)
	}
	script += "wait; ls -A /run/bpfbroker/tracing | wc -l"
	equal(t, "copies", onHost(t, script), "1")
	first, _ := os.ReadFile(filepath.Join(dir, "0"))
	for i := range n {
		got, _ := os.ReadFile(filepath.Join(dir, fmt.Sprint(i)))
		equal(t, "inodes", string(got), string(first))
		if strings.Count(string(got), "\n") != 2 {
			t.Errorf("got %q, want two inodes", got)
		}
	}
}

// TestNoRoomForCopy: an error, with the way out, and nothing left.
func TestNoRoomForCopy(t *testing.T) {
	needRoot(t)
	for what, options := range map[string]string{"full": "size=1m", "read-only": "ro"} {
		out, err := hostCommand(fmt.Sprintf("mount -t tmpfs -o mode=755,%s run /run && cd / && %s -id %s -tracing view true; s=$?; ls -A /run/bpfbroker/tracing 2>/dev/null; exit $s",
			options, runner, newID())).CombinedOutput()
		if waitStatus(t, err).ExitStatus() != 125 || !strings.Contains(string(out), "--tracing=none") || strings.Count(string(out), "\n") != 1 {
			t.Errorf("%s /run: %v, output %q", what, err, out)
		}
	}
}

// TestModulesComeAndGo stands in for them: a run with another boot id shows a copy of its
// own, and the one before keeps what it has.
func TestModulesComeAndGo(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	fifo, boot := filepath.Join(dir, "fifo"), filepath.Join(dir, "boot")
	os.WriteFile(boot, []byte("another\n"), 0o644)
	const stat = "stat -c %d:%i /sys/kernel/tracing/events/printk/console/id"
	script := fmt.Sprintf(`mount -t tmpfs -o mode=755 run /run; mkfifo -m 666 %[1]s; cd /
		{ %[2]s -id %[3]s -tracing view sh -c '%[6]s; echo; read x; %[6]s' <%[1]s; } >%[7]s/1 &
		exec 3>%[1]s; until [ "$(wc -l <%[7]s/1)" = 2 ]; do sleep 0.01; done
		mount --bind %[4]s /proc/sys/kernel/random/boot_id
		%[2]s -id %[5]s -tracing view sh -c '%[6]s'
		echo >&3; wait; cat %[7]s/1`, fifo, runner, newID(), boot, newID(), stat, dir)
	got := strings.Fields(onHost(t, script))
	if len(got) != 3 || got[0] == got[1] || got[1] != got[2] {
		t.Errorf("inodes of the second, of the first before and after: %q", got)
	}
}

// TestViewsAtOnce: many workloads use one copy.
func TestViewsAtOnce(t *testing.T) {
	needRoot(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			equal(t, "files", output(t, "cat /sys/kernel/tracing/events/*/*/id | sort -u | wc -l; cat /sys/kernel/tracing/events/*/*/id | wc -l", tracingView),
				onHost(t, "cat /sys/kernel/tracing/events/*/*/id | sort -u | wc -l; cat /sys/kernel/tracing/events/*/*/id | wc -l"))
		})
	}
	wg.Wait()
}
