package workload

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/btfnames"
	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/guard"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/perform"
)

// Known is what is known of a workload for as long as it lives, for the facts of its
// operations. What isn't known is zero: facts that take it are unknown then.
type Known struct {
	Workload facts.Workload // but for the calling process
	UserNS   uint64         // inode of its user namespace
	Cgroup   sys.FileID     // the directory of its cgroup (v2)
	CPUs     int            // that there could be
	Guard    guard.Scope    // that cgroup, for programs that are to run for its tasks alone
	// IDs are its namespaces, for programs that ask who runs.
	IDs *guard.IDs
	// Interrupted says that signals interrupt its calls also when they were received: the
	// filter lacks SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV.
	Interrupted bool
	// ReadOnly are the ids of the maps that are shared with it to be read alone.
	ReadOnly []uint32
	// Names are those of the kernel's types, and Tracepoints the kernel's: a worker maps
	// them by itself.
	Names       *btfnames.Names `json:"-"`
	Tracepoints Tracepoints     `json:"-"`
}

// CgroupPath is the path of the cgroup whose directory is open at fd, below the root of
// the hierarchy.
func CgroupPath(fd int) (string, error) {
	id, e := sys.IDOf(fd)
	if e != 0 {
		return "", e
	}
	return FilesOf(&Known{Cgroup: sys.FileID{Dev: id.Dev}}).CgroupPath(fd)
}

// Owner knows what is the workload's.
type Owner interface {
	Owns(kind abi.Object, id uint32) (own, shared bool, err error)
	// Private says whether a file system, by its device, is mounted for the workload alone.
	Private(dev uint32) (bool, error)
}

// Files answers what is asked of files that the calling thread has: it is part of an
// inspect.Place.
type Files struct {
	known *Known
	// Count says what the workload holds; nil: nobody counts.
	Count func() (facts.Counts, error)
}

// FilesOf returns the Files of a workload.
func FilesOf(k *Known) Files { return Files{known: k} }

// ObjectInfo implements inspect.Place.
func (f Files) ObjectInfo(n int, info []byte) sys.Errno { return perform.ObjectInfo(n, info) }

// BTFName implements inspect.Place.
func (f Files) BTFName(n int) (string, error) {
	name, e := perform.BTFName(n)
	if e != 0 {
		return "", fmt.Errorf("look at the BTF at fd %d: %w", n, e)
	}
	return name, nil
}

var errNoNames = errors.New("the names of the kernel's types aren't loaded")

// TypeName implements inspect.Place.
func (f Files) TypeName(n int, id uint32) (string, error) {
	if f.known.Names == nil {
		return "", errNoNames
	}
	if n < 0 {
		return f.known.Names.Name(id)
	}
	name, err := f.BTFName(n)
	switch {
	case err != nil:
		return "", err
	case name == "":
		return "", fmt.Errorf("the BTF at fd %d isn't the kernel's", n)
	case name == "vmlinux":
		return f.known.Names.Name(id)
	}
	raw, e := perform.BTFData(n)
	if e != 0 {
		return "", fmt.Errorf("read the BTF of module %q: %w", name, e)
	}
	defer raw.Unmap()
	return f.known.Names.InModule(raw.Bytes, id)
}

// ProgTypeName implements inspect.Place.
func (f Files) ProgTypeName(n int, _ uint32) (string, error) {
	return "", fmt.Errorf("the types of the program at fd %d aren't looked at", n)
}

// way is the way up from the cgroup at fd n.
func (f Files) way(n int) (sys.Cgroup, error) {
	if f.known.Cgroup == (sys.FileID{}) {
		return sys.Cgroup{}, errors.New("the workload's own cgroup isn't known")
	}
	c, e := sys.WalkCgroup(n, f.known.Cgroup)
	if e != 0 {
		return c, fmt.Errorf("look at the cgroup at fd %d: %w", n, e)
	}
	return c, nil
}

// CgroupPath implements inspect.Place.
func (f Files) CgroupPath(n int) (string, error) {
	c, err := f.way(n)
	if err != nil {
		return "", err
	}
	above := "/"
	switch {
	case c.Inside:
		if above = f.known.Workload.Cgroup; above == "" {
			return "", errors.New("the path of the workload's cgroup isn't known")
		}
	case !c.Root:
		return "", errors.New("the cgroup is outside of the workload's, and where, its mount doesn't show")
	}
	slices.Reverse(c.Names)
	return path.Join(above, path.Join(c.Names...)), nil
}

// CgroupInside implements inspect.Place.
func (f Files) CgroupInside(n int) (bool, error) {
	c, err := f.way(n)
	return c.Inside, err
}

// Tracepoint implements inspect.Place.
func (f Files) Tracepoint(id uint64) (string, error) {
	if f.known.Tracepoints == nil {
		return "", errors.New("the list of tracepoints isn't loaded")
	}
	return f.known.Tracepoints.Name(id)
}

// Counts implements inspect.Place.
func (f Files) Counts() (facts.Counts, error) {
	if f.Count == nil {
		return facts.Counts{}, errors.New("what the workload holds isn't counted")
	}
	return f.Count()
}

// Ifname is the name of an interface of a place's network namespace.
func Ifname(at perform.Place, index uint32) (string, error) {
	if e := at.Enter(perform.Needs{Net: true}); e != 0 {
		return "", fmt.Errorf("enter the network namespace: %w", e)
	}
	defer at.Leave()
	name, e := sys.InterfaceName(index)
	if e != 0 {
		return "", fmt.Errorf("interface %d: %w", index, e)
	}
	return name, nil
}

// FileName is the path, in a place's tree of mounts, of the file that a path leads to.
func FileName(at perform.Place, path []byte) (string, error) {
	fd, e := at.OpenPath(sys.AtCWD, path)
	if e != 0 {
		return "", fmt.Errorf("open %q: %w", path, e)
	}
	name, e := sys.FileName(fd)
	if e != 0 {
		return "", fmt.Errorf("name of %q: %w", path, e)
	}
	return name, nil
}

// FileShared says whether others than the workload may execute the file that a path leads
// to. They can't if it is on a file system in memory that is mounted nowhere but in the
// workload's own mount namespaces, which private says of a device. All else is shared: ids,
// which are often those of other workloads, and modes don't tell, and other file systems may
// stand for files elsewhere (overlayfs).
func FileShared(at perform.Place, path []byte, private func(dev uint32) (bool, error)) (bool, error) {
	fd, e := at.OpenPath(sys.AtCWD, path)
	if e != 0 {
		return true, fmt.Errorf("open %q: %w", path, e)
	}
	dev, e := sys.Device(fd)
	if e != 0 {
		return true, fmt.Errorf("look at %q: %w", path, e)
	}
	alone, err := private(dev)
	return !alone, err
}

// Ifname implements inspect.Place.
func (t *Target) Ifname(index uint32) (string, error) { return Ifname(t, index) }

// NetNSOwn implements inspect.Place: it is one of the workload's user namespace, or of
// one below. A network namespace of the host's own that only this workload is in isn't
// told from others.
func (t *Target) NetNSOwn(n int) (bool, error) {
	if n < 0 {
		ns, e := t.NetNS()
		if e != 0 {
			return false, fmt.Errorf("open the network namespace: %w", e)
		}
		defer sys.Close(ns)
		n = ns
	}
	return sys.OwnedBelow(n, t.known.UserNS), nil
}

// FileName implements inspect.Place.
func (t *Target) FileName(path []byte) (string, error) { return FileName(t, path) }

// FileShared implements inspect.Place.
func (t *Target) FileShared(path []byte) (bool, error) { return FileShared(t, path, t.owner.Private) }

// PIDOwn implements inspect.Place: the process is in the workload's user namespace. One
// in a namespace below isn't told from others.
func (t *Target) PIDOwn(pid uint32) (bool, error) {
	ours, e := t.PIDFrom(pid)
	if e != 0 {
		return false, nil // nobody's: the call will say so
	}
	ns, e := sys.UserNS(int(ours))
	return e == 0 && ns == t.known.UserNS, nil
}

// Owns implements inspect.Place.
func (t *Target) Owns(kind abi.Object, id uint32) (own, shared bool, err error) {
	return t.owner.Owns(kind, id)
}

// Pinned implements inspect.Place.
func (t *Target) Pinned(base int, path []byte, flags uint32) (abi.Object, int, sys.Errno) {
	at, e := t.OpenPath(base, path)
	if e != 0 {
		return 0, -1, e
	}
	if e := t.Enter(perform.Needs{Plain: true}); e != 0 {
		return 0, -1, e
	}
	fd, e := perform.OpenPinned(at, flags)
	t.Leave()
	if e != 0 {
		return 0, -1, e
	}
	if t.pin >= 0 {
		sys.Close(t.pin)
		t.pin = -1
	}
	if e := t.thread.NewFD(&t.pin, fd); e != 0 {
		return 0, -1, e
	}
	return perform.ObjectAt(t.pin), t.pin, 0
}

// ofThread makes sure that what was read by the thread's number is the target's.
func ofThread[T any](t *Target, what string, v T, e sys.Errno) (T, error) {
	if e == 0 && !t.waits() {
		e = sys.ESRCH
	}
	if e != 0 {
		var none T
		return none, fmt.Errorf("%s: %w", what, e)
	}
	return v, nil
}

// PID implements inspect.Place.
func (t *Target) PID() (int64, error) {
	pid, e := sys.TGID(t.n.TID)
	return ofThread(t, "find the calling process", int64(pid), e)
}

// Comm implements inspect.Place.
func (t *Target) Comm() (string, error) {
	s, e := sys.Comm(t.n.TID)
	return ofThread(t, "read the thread's name", s, e)
}

// Exe implements inspect.Place.
func (t *Target) Exe() (string, error) {
	s, e := sys.Exe(t.n.TID)
	return ofThread(t, "read what the process executes", s, e)
}

// Argv implements inspect.Place.
func (t *Target) Argv() ([]string, error) {
	a, e := sys.Argv(t.n.TID)
	return ofThread(t, "read the process's arguments", a, e)
}

// remembered says whether the path was opened already, for this call: it must act on the
// file that was decided on.
func (t *Target) remembered(base int, path []byte) bool {
	return t.path >= 0 && t.pathBase == base && bytes.Equal(t.pathOf, path)
}
