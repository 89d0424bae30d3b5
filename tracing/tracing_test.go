package tracing

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// fake is a host of files.
type fake struct {
	*host
	dir string
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{&host{}, t.TempDir()}
	f.put(t, "proc/sys/kernel/random/boot_id", "b1\n")
	f.put(t, "proc/sys/kernel/kptr_restrict", "1\n")
	f.put(t, "proc/modules", "kvm 100 2 - Live 0xffffffffc0000000\nxfs 7 0 - Loading 0xffffffffc1000000\n")
	f.put(t, "proc/kallsyms", "ffffffff81000000 T _stext\nffffffffc0000000 t kvm_x\t[kvm]\n"+
		"ffffffffc0026880 t bpf_prog_1234\t[bpf]\nffffffffc0201000 t ftrace_trampoline\t[__builtin__ftrace]\n")
	f.put(t, "tracefs/available_events", "sched:sched_switch\nprintk:console\nuprobes:secret\nmine:p1\n")
	f.put(t, "tracefs/dynamic_events", "p:uprobes/secret /bin/sh:0x10\nr12:mine/p1 vfs_read\n")
	f.put(t, "tracefs/available_filter_functions", "vfs_read\nvfs_write\n")
	f.put(t, "tracefs/available_filter_functions_addrs", "ffffffff81000000 vfs_read\n")
	f.put(t, "tracefs/printk_formats", "0xffffffff8281972f : \"x\"\n")
	f.put(t, "tracefs/trace", "secrets")
	f.put(t, "tracefs/events/header_page", "page")
	f.put(t, "tracefs/events/header_event", "event")
	f.put(t, "tracefs/events/enable", "0")
	f.put(t, "tracefs/events/ftrace/function/format", "f")
	for i, e := range []string{"sched/sched_switch", "printk/console", "uprobes/secret", "mine/p1"} {
		for _, name := range []string{"id", "format", "enable", "filter", "trigger"} {
			f.put(t, "tracefs/events/"+e+"/"+name, fmt.Sprintln(name, i))
		}
	}
	f.put(t, "debugfs/kprobes/blacklist", "0xffffffff81a0-0xffffffff81b0\tdo_int3\n")
	for name, root := range map[string]**os.Root{"tracefs": &f.tracefs, "debugfs": &f.debugfs, "proc": &f.proc} {
		r, err := os.OpenRoot(filepath.Join(f.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		*root = r
	}
	t.Cleanup(f.close)
	return f
}

func (f *fake) put(t *testing.T, name, content string) {
	t.Helper()
	name = filepath.Join(f.dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, f *fake, dir string, symbols bool) *View {
	t.Helper()
	v, err := f.view(dir, symbols)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

// tree shows all below a directory: modes, names, contents.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil || name == "." {
			return err
		}
		content := []byte("-")
		if !d.IsDir() {
			content, err = os.ReadFile(filepath.Join(dir, name))
		}
		fmt.Fprintf(&b, "%v %s %q\n", st.Mode(), name, content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestCopy shows all that is copied, whatever the umask.
func TestCopy(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	f, dir := newFake(t), t.TempDir()
	v := open(t, f, dir, true)
	want := `drwxr-xr-x debug "-"
drwxr-xr-x debug/kprobes "-"
-r--r--r-- debug/kprobes/blacklist "0x0000000000000000-0x0000000000000000\tdo_int3\n"
drwxr-xr-x debug/tracing "-"
-r--r--r-- debug/tracing/available_events "printk:console\nsched:sched_switch\n"
-r--r--r-- debug/tracing/available_filter_functions "vfs_read\nvfs_write\n"
drwxr-xr-x debug/tracing/events "-"
drwxr-xr-x debug/tracing/events/ftrace "-"
drwxr-xr-x debug/tracing/events/ftrace/function "-"
-r--r--r-- debug/tracing/events/ftrace/function/format "f"
-r--r--r-- debug/tracing/events/header_event "event"
-r--r--r-- debug/tracing/events/header_page "page"
drwxr-xr-x debug/tracing/events/printk "-"
drwxr-xr-x debug/tracing/events/printk/console "-"
-r--r--r-- debug/tracing/events/printk/console/format "format 1\n"
-r--r--r-- debug/tracing/events/printk/console/id "id 1\n"
drwxr-xr-x debug/tracing/events/sched "-"
drwxr-xr-x debug/tracing/events/sched/sched_switch "-"
-r--r--r-- debug/tracing/events/sched/sched_switch/format "format 0\n"
-r--r--r-- debug/tracing/events/sched/sched_switch/id "id 0\n"
`
	if got := tree(t, v.events.Name()); got != want {
		t.Errorf("copy of tracefs:\n%s\nwant:\n%s", got, want)
	}
	want = `-r--r--r-- kallsyms "ffffffff81000000 T _stext\nffffffffc0000000 t kvm_x\t[kvm]\n"` + "\n"
	if got := tree(t, v.symbols.Name()); got != want {
		t.Errorf("copy of kallsyms:\n%s\nwant:\n%s", got, want)
	}
	for name, mode := range map[string]fs.FileMode{"bpfbroker": 0o755, "bpfbroker/tracing": 0o700, "bpfbroker/symbols": 0o700} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want mode %v", name, st.Mode(), err, mode)
		}
	}
}

// TestMadeOnce: the same copy as long as the kernel is the same.
func TestMadeOnce(t *testing.T) {
	f, dir := newFake(t), t.TempDir()
	first := open(t, f, dir, true)
	same := func(what string, want bool) {
		t.Helper()
		v := open(t, f, dir, true)
		if got := v.events.Name() == first.events.Name(); got != want {
			t.Errorf("%s: the same copy of tracefs: %v, want %v", what, got, want)
		}
	}
	same("again", true)
	f.put(t, "proc/modules", "kvm 100 9 xfs Live 0xffffffffc0000000\n")
	same("a module's users", true)
	f.put(t, "tracefs/dynamic_events", "p:uprobes/secret /bin/sh:0x10\nr12:mine/p1 vfs_read\ns:synthetic/s u64 x\n")
	f.put(t, "tracefs/available_events", "sched:sched_switch\nprintk:console\nuprobes:secret\nmine:p1\nsynthetic:s\n")
	same("another's event", true)
	f.put(t, "proc/modules", "kvm 100 9 xfs Live 0xffffffffc0000000\nxfs 7 0 - Live 0xffffffffc1000000\n")
	same("a module", false)
	f.put(t, "proc/modules", "kvm 100 9 xfs Live 0xffffffffc0000000\n")
	same("no module", true)
	f.put(t, "tracefs/available_events", "sched:sched_switch\n")
	same("no event", false)
	f.put(t, "proc/sys/kernel/random/boot_id", "b2\n")
	same("another boot", false)
}

// TestPruned: what nobody uses goes when another copy is made, what someone uses stays.
func TestPruned(t *testing.T) {
	f, dir := newFake(t), t.TempDir()
	copies := func() []string {
		names, err := filepath.Glob(filepath.Join(dir, "bpfbroker/tracing/*"))
		if err != nil {
			t.Fatal(err)
		}
		hidden, _ := filepath.Glob(filepath.Join(dir, "bpfbroker/tracing/.*"))
		return slices.Concat(names, slices.DeleteFunc(hidden, func(s string) bool { return strings.HasSuffix(s, ".") }))
	}
	used := open(t, f, dir, false)
	f.put(t, "proc/sys/kernel/random/boot_id", "b2\n")
	unused := open(t, f, dir, false)
	unused.Close()
	// What a process left that was killed.
	if err := os.MkdirAll(filepath.Join(dir, "bpfbroker/tracing/.new/debug"), 0o755); err != nil {
		t.Fatal(err)
	}
	f.put(t, "proc/sys/kernel/random/boot_id", "b3\n")
	now := open(t, f, dir, false)
	want := []string{used.events.Name(), now.events.Name()}
	slices.Sort(want)
	if got := copies(); !slices.Equal(got, want) {
		t.Errorf("copies: %q, want %q", got, want)
	}
}

// TestTogether has many first users at once.
func TestTogether(t *testing.T) {
	f, dir := newFake(t), t.TempDir()
	var wg sync.WaitGroup
	views := make([]*View, 20)
	for i := range views {
		wg.Go(func() {
			v, err := f.view(dir, true)
			if err != nil {
				t.Error(err)
				return
			}
			views[i] = v
		})
	}
	wg.Wait()
	for _, v := range views {
		if v == nil || v.events.Name() != views[0].events.Name() {
			t.Fatalf("views of different copies: %v", views)
		}
		a, _ := os.Stat(v.path("debug"))
		b, _ := v.events.Stat()
		c, err := os.Stat(v.events.Name())
		if err != nil || !os.SameFile(b, c) || a == nil {
			t.Errorf("a user's copy isn't the one that has its name (%v)", err)
		}
		v.Close()
	}
}

// TestMadeAndPruned has users of two kernels by turns, so that each removes what the
// other has just left.
func TestMadeAndPruned(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for i := range 4 {
		f := newFake(t)
		f.put(t, "proc/sys/kernel/random/boot_id", fmt.Sprint(i%2))
		wg.Go(func() {
			for range 50 {
				v, err := f.view(dir, false)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := os.ReadFile(v.path(tracingDir + "/events/printk/console/id")); err != nil {
					t.Errorf("a copy in use isn't whole: %v", err)
				}
				v.Close()
			}
		})
	}
	wg.Wait()
}

// TestOthersDirectories: where someone else could have put what is found, nothing is used.
func TestOthersDirectories(t *testing.T) {
	f := newFake(t)
	for name, spoil := range map[string]func(dir string) error{
		"writable for all":     func(dir string) error { return os.Chmod(dir, 0o777) },
		"writable for a group": func(dir string) error { return os.Chmod(dir, 0o775) },
		"another's": func(dir string) error {
			if os.Geteuid() != 0 {
				t.Skip("only root can give a directory away")
			}
			return os.Chown(dir, 1, 1)
		},
	} {
		for _, which := range []string{".", "bpfbroker", "bpfbroker/tracing"} {
			dir := t.TempDir()
			open(t, f, dir, false).Close()
			if err := spoil(filepath.Join(dir, which)); err != nil {
				t.Fatal(err)
			}
			if v, err := f.view(dir, false); err == nil {
				v.Close()
				t.Errorf("%s is %s, and used", which, name)
			}
		}
	}
}

// TestNothingToShow: no tracefs, no events, lockdown.
func TestNothingToShow(t *testing.T) {
	f := newFake(t)
	f.tracefs, f.debugfs = nil, nil
	v := open(t, f, t.TempDir(), false)
	if v.events != nil || v.symbols != nil {
		t.Errorf("a view of nothing: %+v", v)
	}
	if err := v.Mount(); err != nil {
		t.Error(err)
	}
	v = nil
	if err := v.Mount(); err != nil {
		t.Error(err)
	}
	if err := v.MountSymbols(nil); err != nil {
		t.Error(err)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
}

// TestNoAddresses: what root doesn't see, a workload doesn't either; also if there is a
// copy from before.
func TestNoAddresses(t *testing.T) {
	f, dir := newFake(t), t.TempDir()
	open(t, f, dir, true)
	f.put(t, "proc/sys/kernel/kptr_restrict", "2\n")
	if v := open(t, f, dir, true); v.symbols != nil {
		t.Error("addresses with kptr_restrict=2")
	}
	f.put(t, "proc/sys/kernel/kptr_restrict", "0\n")
	f.put(t, "proc/kallsyms", "0000000000000000 T _stext\n0000000000000000 t kvm_x\t[kvm]\n")
	f.put(t, "proc/sys/kernel/random/boot_id", "b2\n")
	if v := open(t, f, dir, true); v.symbols != nil {
		t.Error("a copy without addresses")
	}
	f.put(t, "proc/kallsyms", "ffffffff81000000 T _stext\n")
	if v := open(t, f, dir, true); v.symbols == nil {
		t.Error("no addresses for one who sees them")
	}
}

// TestChangedMeanwhile: a copy of two kernels at once isn't kept.
func TestChangedMeanwhile(t *testing.T) {
	f, dir := newFake(t), t.TempDir()
	s, err := f.snapshot()
	if err != nil {
		t.Fatal(err)
	}
	f.put(t, "proc/modules", "")
	where := store{dir, "tracing"}
	if _, err := where.open(s.key(), func(to *os.Root) error { return f.copyEvents(s, to) }); !errors.Is(err, errChanged) {
		t.Errorf("error %v, want %v", err, errChanged)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "bpfbroker/tracing/*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestFailure: of what fails half-way nothing is kept open.
func TestFailure(t *testing.T) {
	f, dir := newFake(t), t.TempDir()
	open(t, f, dir, true).Close()
	if err := os.Chmod(filepath.Join(dir, "bpfbroker/symbols"), 0o777); err != nil {
		t.Fatal(err)
	}
	count := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	before := count()
	if _, err := f.view(dir, true); err == nil {
		t.Fatal("a store that all may write to is used")
	}
	if now := count(); now != before {
		t.Errorf("%d fds, %d before", now, before)
	}
}
