// Package tracing shows unprivileged workloads what tracing tools read of the kernel,
// and the host's root alone may: which events there are, with their ids and formats, and
// which functions can be traced.
//
// It is a copy, made once on a host in /run/bpfbroker, and mounted read-only over
// /sys/kernel/tracing and /sys/kernel/debug. So no file of the kernel's that could be
// written to is within a workload's reach, a workload costs two mounts, and all
// workloads see the same inodes. docs/architecture.md says what else was considered.
//
// The copy has what doesn't tell kernel addresses or what others trace; for the
// addresses of symbols there is a copy of /proc/kallsyms, apart (Symbols).
package tracing

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// View is what one workload is shown. A nil View shows nothing. While it is open, no
// other removes what it is a copy of.
type View struct {
	events, symbols *os.File // directories of copies, locked (store.go); nil: there is none
}

const (
	tracefsMount = "/sys/kernel/tracing"
	debugfsMount = "/sys/kernel/debug"
	symbolsFile  = "/proc/kallsyms"
)

// What is in the directory of a copy.
const (
	debugDir    = "debug"         // is shown at debugfsMount
	tracingDir  = "debug/tracing" // is shown at tracefsMount
	kprobesDir  = "debug/kprobes"
	symbolsCopy = "kallsyms"
)

// Open finds the copy of what the running kernel has, or makes it, which takes some
// tenths of a second; with symbols, that of /proc/kallsyms, too. The caller is root in
// the initial user namespace, and closes the View when its workload has ended.
func Open(symbols bool) (*View, error) {
	h, err := openHost()
	if err != nil {
		return nil, err
	}
	defer h.close()
	return h.view(runDir, symbols)
}

// view is Open, of a host and with copies below dir.
func (h *host) view(dir string, symbols bool) (v *View, err error) {
	v = &View{}
	defer func() {
		if err != nil {
			v.Close()
		}
	}()
	if v.events, err = h.openEvents(store{dir, "tracing", 0o755}); err != nil {
		return nil, fmt.Errorf("copy tracefs: %w", err)
	}
	if !symbols {
		return v, nil
	}
	// Nobody but the host's root may come to it by its path.
	if v.symbols, err = h.openSymbols(store{dir, "symbols", 0o700}); err != nil {
		return nil, fmt.Errorf("copy %s: %w", symbolsFile, err)
	}
	return v, nil
}

// Close ends the use of the copies.
func (v *View) Close() error {
	if v == nil {
		return nil
	}
	var errs []error
	for _, f := range []*os.File{v.events, v.symbols} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// Mount mounts the view in the calling thread's mount namespace, which isn't a
// workload's yet: in one that is made from it together with a user namespace these
// mounts are locked (mount_namespaces(7)): nobody there can unmount them, make them
// writable, or look below.
func (v *View) Mount() error {
	if v == nil || v.events == nil {
		return nil
	}
	if isDir(tracefsMount) {
		// Tools search the list of mounts for a tracefs, and go where they find it:
		// so there has to be one, below the copy.
		if err := v.mountTracefs(); err != nil {
			return err
		}
		if err := v.show(tracingDir, tracefsMount); err != nil {
			return err
		}
	}
	if !isDir(debugfsMount) {
		return nil
	}
	// Not at debugfs' directory "tracing": debugfs' root can't be searched.
	if v.symbols != nil {
		if err := v.keepProc(); err != nil {
			return err
		}
	}
	return v.show(debugDir, debugfsMount)
}

// show mounts a directory of the copy, read-only.
func (v *View) show(dir, at string) error {
	tree, err := sys.CloneTreeReadOnly(filepath.Join(v.events.Name(), dir))
	if err != nil {
		return err
	}
	defer sys.Close(tree)
	return sys.AttachMount(tree, at)
}

func (v *View) mountTracefs() error {
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

// keepProc keeps a /proc in the namespace on which nothing is mounted, where nobody can
// reach it: below what is shown at debugfsMount. Without one the kernel lets nobody mount
// a /proc for a pid namespace of their own once MountSymbols has mounted something on
// the other (mnt_already_visible), as it can't know that nothing is hidden by that.
func (v *View) keepProc() error {
	if err := v.show(debugDir, debugfsMount); err != nil {
		return err
	}
	proc, err := sys.CloneTree("/proc")
	if err != nil {
		return fmt.Errorf("clone /proc: %w", err)
	}
	defer sys.Close(proc)
	return sys.AttachMount(proc, filepath.Join(debugfsMount, filepath.Base(kprobesDir)))
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
