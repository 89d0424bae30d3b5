package launch

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/bpfbroker/bpfbroker/cgroups"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// A workload has three cgroups of v2 below the caller's (for v1 see cgroup_v1.go):
//
//	bpfbroker-ID                   the host's: limits for all of it go here
//	bpfbroker-ID/workload          delegated: the root of the workload's view
//	bpfbroker-ID/bpfbroker.worker  the host's: where its worker runs
//
// The worker is beside the delegated cgroup, not in it: the workload can neither
// see, move, nor freeze it, and it is no process in the workload's root that
// would stop controllers from being enabled there.
const (
	cgroupPrefix = "bpfbroker-"
	workloadLeaf = "workload"
	workerLeaf   = "bpfbroker.worker"
)

// cgroup is a workload's top cgroup, or a cgroup of v1 for its worker.
type cgroup struct {
	parent *os.File // the caller's cgroup directory
	name   string
	v1     bool
}

// path is reached through the open parent, so that it is the same one however
// file systems are mounted later.
func (c *cgroup) path(elem ...string) string {
	return filepath.Join(append([]string{fmt.Sprintf("/proc/self/fd/%d", c.parent.Fd()), c.name}, elem...)...)
}

// make makes the top cgroup.
func (c *cgroup) make() error {
	mode := os.FileMode(0o755)
	if c.v1 { // the workload can mount the hierarchy: what is below the caller's is no business of its
		mode = 0o700
	}
	err := os.Mkdir(c.path(), mode)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("cgroup %q exists: its id is in use", c.name)
	}
	if err != nil {
		return fmt.Errorf("make cgroup %q: %w", c.name, errors.Unwrap(err))
	}
	return nil
}

// fill makes the two below, and delegates the workload's to the ids.
func (c *cgroup) fill(uid, gid int) error {
	if b, err := os.ReadFile(c.path("cgroup.controllers")); err == nil {
		for name := range strings.FieldsSeq(string(b)) {
			// One that can't be enabled is one the workload doesn't have.
			_ = os.WriteFile(c.path("cgroup.subtree_control"), []byte("+"+name), 0)
		}
	}
	for _, leaf := range []string{workloadLeaf, workerLeaf} {
		if err := os.Mkdir(c.path(leaf), 0o755); err != nil {
			return fmt.Errorf("make cgroup: %w", err)
		}
	}
	delegate := "cgroup.procs\ncgroup.threads\ncgroup.subtree_control\n"
	if b, err := os.ReadFile("/sys/kernel/cgroup/delegate"); err == nil {
		delegate = string(b)
	}
	for name := range strings.FieldsSeq(delegate + " .") {
		err := os.Chown(c.path(workloadLeaf, name), uid, gid)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // a controller's that isn't enabled
			return fmt.Errorf("delegate cgroup: %w", err)
		}
	}
	return nil
}

// kill kills every process in a cgroup and below, and waits until they are gone
// (cgroup.kill, Linux 5.14).
func (c *cgroup) kill(leaf string) error {
	if c.v1 { // who is there is also in one of v2
		return nil
	}
	err := os.WriteFile(c.path(leaf, "cgroup.kill"), []byte("1"), 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) { // it was removed
		return nil
	}
	if err != nil {
		return fmt.Errorf("kill the workload's processes: %w", err)
	}
	return c.waitEmpty(leaf)
}

// patience is how long a killed process may take to go; one that hangs in the
// kernel takes longer.
const patience = 20 * time.Second

func (c *cgroup) waitEmpty(leaf string) error {
	f, err := os.Open(c.path(leaf, "cgroup.events"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // another has waited, and removed it
	}
	if err != nil {
		return fmt.Errorf("wait for the workload's processes: %w", err)
	}
	defer f.Close()
	for end := time.Now().Add(patience); ; {
		b := make([]byte, 256)
		n, err := f.ReadAt(b, 0)
		if errors.Is(err, syscall.ENODEV) {
			return nil // likewise
		}
		if err != nil && err != io.EOF {
			return fmt.Errorf("wait for the workload's processes: %w", err)
		}
		if strings.Contains(string(b[:n]), "populated 0") {
			return nil
		}
		left := time.Until(end)
		if left <= 0 {
			return fmt.Errorf("processes in cgroup %q still live %v after being killed", c.name, patience)
		}
		if _, err := sys.WaitPriority(int(f.Fd()), left); err != nil {
			return fmt.Errorf("wait for the workload's processes: %w", err)
		}
	}
}

// remove removes the cgroups, which have no processes any more, those too that the
// workload made. It is no error if there are none.
func (c *cgroup) remove() error {
	err := c.removeTree()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove cgroup %q: %w", c.name, err)
	}
	return nil
}

// removeTree walks with one directory open at a time: the workload may have
// nested cgroups deeper than a path is long or files may be open.
func (c *cgroup) removeTree() error {
	type level struct {
		name string
		todo []string // cgroups below, still to be removed
	}
	var way []level
	at, err := os.Open(below(c.parent, "."))
	if err != nil {
		return err
	}
	defer func() { at.Close() }()
	move := func(name string) error {
		next, err := os.Open(below(at, name))
		if err == nil {
			at.Close()
			at = next
		}
		return err
	}
	for down := c.name; ; {
		if down != "" {
			if err := move(down); err != nil {
				return err
			}
			todo, err := subdirectories(at)
			if err != nil {
				return err
			}
			way = append(way, level{down, todo})
		}
		l := &way[len(way)-1]
		if n := len(l.todo); n > 0 {
			down, l.todo = l.todo[n-1], l.todo[:n-1]
			continue
		}
		down = ""
		if err := move(".."); err != nil {
			return err
		}
		if err := cgroups.Remove(below(at, l.name)); err != nil {
			return err
		}
		if way = way[:len(way)-1]; len(way) == 0 {
			return nil
		}
	}
}

func below(dir *os.File, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)
}

func subdirectories(dir *os.File) (names []string, err error) {
	entries, err := dir.ReadDir(-1)
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, err
}
