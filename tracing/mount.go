package tracing

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// Mount mounts the view in the calling thread's mount namespace, which isn't a
// workload's yet: in one that is made from it together with a user namespace these
// mounts are locked (mount_namespaces(7)): nobody there can unmount them, make them
// writable, or look below.
func (v *View) Mount() error {
	if v == nil || v.events == nil {
		return nil
	}
	if isDir(tracefsMount) {
		if err := v.overTracefs(); err != nil {
			return err
		}
	}
	if isDir(debugfsMount) {
		// Not over its directory "tracing": nobody could search the way there.
		return v.show(debugDir, debugfsMount)
	}
	return nil
}

// overTracefs mounts the copy over a tracefs. There has to be one: tools search the list
// of mounts for it, and go where they find it.
func (v *View) overTracefs() error {
	if err := mountTracefs(); err != nil {
		return err
	}
	st, err := os.Stat(tracefsMount)
	if err != nil {
		return err
	}
	tree, err := sys.CloneTreeReadOnly(tracefsMount)
	if err != nil {
		return err
	}
	defer sys.Close(tree)
	if v.symbols != nil {
		if err := v.keepProc(); err != nil {
			return err
		}
	}
	const searchable = 0o001
	if st.Mode()&searchable == 0 {
		return v.show(tracingDir, tracefsMount)
	}
	// The host's administrator has opened its root to all, but not the files there. So it
	// can stay in sight, which matters to tools that ask which file system it is.
	if err := sys.AttachMount(tree, tracefsMount); err != nil {
		return err
	}
	entries, err := os.ReadDir(v.path(tracingDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := v.show(filepath.Join(tracingDir, e.Name()), filepath.Join(tracefsMount, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// mountTracefs mounts a tracefs where none is mounted.
func mountTracefs() error {
	if is, err := sys.IsTracefs(tracefsMount); err != nil || is {
		return err
	}
	m, err := detached("tracefs")
	if err != nil {
		return err
	}
	defer sys.Close(m)
	if err := sys.AttachMount(m, tracefsMount); err != nil {
		return err
	}
	return sys.MountReadOnly(tracefsMount)
}

// path is that of a directory or file of the copy.
func (v *View) path(name string) string { return filepath.Join(v.events.Name(), name) }

// show mounts a part of the copy, read-only.
func (v *View) show(name, at string) error {
	tree, err := sys.CloneTreeReadOnly(v.path(name))
	if err != nil {
		return err
	}
	defer sys.Close(tree)
	return sys.AttachMount(tree, at)
}

// keepProc keeps a /proc in the namespace on which nothing is mounted, in a place that
// nobody can reach, as another mount follows on top. Without one the kernel lets nobody
// mount a /proc for a pid namespace of their own once MountSymbols has mounted something
// on the other (mnt_already_visible): it can't know that nothing is hidden by that.
func (v *View) keepProc() error {
	if err := v.show(tracingDir, tracefsMount); err != nil {
		return err
	}
	proc, err := sys.CloneTree("/proc")
	if err != nil {
		return fmt.Errorf("clone mount of /proc: %w", err)
	}
	defer sys.Close(proc)
	return sys.AttachMount(proc, filepath.Join(tracefsMount, "events"))
}

// MountSymbols mounts the copy of /proc/kallsyms over that of a mount namespace, in
// which Mount's mounts and the workload's /proc are.
func (v *View) MountSymbols(mountNS *os.File) error {
	if v == nil || v.symbols == nil {
		return nil
	}
	tree, err := sys.CloneTreeReadOnly(filepath.Join(v.symbols.Name(), symbolsCopy))
	if err != nil {
		return err
	}
	defer sys.Close(tree)
	return sys.InMountNS(int(mountNS.Fd()), func() error { return sys.AttachMount(tree, symbolsFile) })
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}
