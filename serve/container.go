package serve

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/bpfbroker/bpfbroker/cgroups"
	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/oci"
	"github.com/bpfbroker/bpfbroker/policy"
)

// container is a process of a container's that has a listener, and what it starts.
type container struct {
	facts         facts.Workload
	who           policy.Who
	command       []string // that it executes when it is taken; mostly the runtime's own
	userNS, netNS *os.File
	own           *os.File      // its cgroup of v2; nil: it is in the hierarchy's root
	worker        *os.File      // the worker's, below that
	tasks         []*os.File    // likewise, of v1
	made          []string      // cgroups, to be removed
	pidfd         int           // of the process; -1: none
	ended         chan struct{} // closed when it isn't served any more, and nothing is left of it
}

// initialUserNS is the inode of the host's user namespace (PROC_USER_INIT_INO,
// include/linux/proc_ns.h).
const initialUserNS = 0xeffffffd

// open finds out who it is, and makes room for its worker.
func open(p *oci.Process) (c *container, err error) {
	c = &container{pidfd: -1, ended: make(chan struct{})}
	if p.Pid <= 0 {
		return c, errors.New("its runtime doesn't say which process it is, nor is the container known")
	}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	pidfd, e := sys.PidfdOpen(p.Pid)
	if e != 0 {
		return c, fmt.Errorf("process %d: %w", p.Pid, e)
	}
	c.pidfd = pidfd
	proc := strconv.Itoa(p.Pid)
	for _, ns := range []struct {
		to   **os.File
		name string
	}{{&c.userNS, "user"}, {&c.netNS, "net"}} {
		if *ns.to, err = os.Open(filepath.Join("/proc", proc, "ns", ns.name)); err != nil {
			return c, err
		}
	}
	if inode, e := sys.Inode(int(c.userNS.Fd())); e != 0 || inode == initialUserNS {
		return c, errors.New("it has no user namespace of its own, and such containers aren't served yet: give it one (userns, linux.uidMappings)")
	}
	if err := c.cgroups(proc); err != nil {
		return c, err
	}
	c.identify(p)
	b, _ := os.ReadFile(filepath.Join("/proc", proc, "cmdline"))
	c.command = strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
	// All that was looked at by its number is its own if it lives still.
	if !c.lives() {
		return c, fmt.Errorf("process %d ended meanwhile", p.Pid)
	}
	return c, nil
}

// cgroups makes those of the worker below the container's, so that its limits bind it.
func (c *container) cgroups(proc string) error {
	own, err := cgroups.Open(proc)
	if err != nil {
		return err
	}
	paths, err := cgroups.Paths(proc)
	if err != nil {
		return err
	}
	name := "bpfbroker.worker-" + suffix()
	c.facts.Cgroup, c.who.Cgroup = paths[""], paths[""]
	if paths[""] != "/" { // as where a runtime uses v1 alone
		c.own = own
	} else {
		defer own.Close()
	}
	dir, err := c.mkdir(own, name)
	if err != nil {
		return err
	}
	if c.worker, err = os.Open(dir); err != nil {
		return err
	}
	counted, err := cgroups.OpenCounted(proc)
	if err != nil {
		return err
	}
	for _, parent := range counted {
		err = errors.Join(err, c.counted(parent, name))
		parent.Close()
	}
	return err
}

// counted makes the worker's cgroup of v1 below one of the container's.
func (c *container) counted(parent *os.File, name string) error {
	if sys.CheckWritable(int(parent.Fd())) != nil {
		return nil
	}
	dir, err := c.mkdir(parent, name)
	if err != nil {
		return err
	}
	tasks, err := cgroups.OpenTasks(dir)
	if err == nil {
		c.tasks = append(c.tasks, tasks)
	}
	return err
}

// mkdir makes a cgroup, and returns its path.
func (c *container) mkdir(parent *os.File, name string) (string, error) {
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", parent.Fd()))
	if err != nil {
		return "", err
	}
	path = filepath.Join(path, name)
	if err := os.Mkdir(path, 0o755); err != nil {
		return "", fmt.Errorf("make the worker's cgroup: %w", err)
	}
	c.made = append(c.made, path)
	return path, nil
}

// close is clean, and the end of it.
func (c *container) close() {
	c.clean()
	if c.pidfd >= 0 {
		sys.Close(c.pidfd)
	}
}

// clean removes what was made. A runtime that removes a container removes its cgroups, too.
func (c *container) clean() {
	for _, f := range append(c.tasks, c.userNS, c.netNS, c.own, c.worker) {
		f.Close() // nil has nothing to close
	}
	for _, dir := range c.made {
		_ = cgroups.Remove(dir)
		// The runtime may have given up meanwhile to remove the container's, as ours was in it.
		cgroups.RemoveEmpty(filepath.Dir(dir))
	}
}

// lives says whether the process hasn't ended.
func (c *container) lives() bool {
	ended, err := sys.WaitReadable(c.pidfd, 0)
	return err == nil && !ended
}

// kill ends the container's processes.
func (c *container) kill() error {
	if c.own == nil {
		return errors.New("it has no cgroup of v2 of its own: its runtime can kill it")
	}
	return os.WriteFile(fmt.Sprintf("/proc/self/fd/%d/cgroup.kill", c.own.Fd()), []byte("1"), 0)
}

// Annotations by which runtimes say what a container is; they set them themselves,
// whatever its user says.
var (
	nameKeys  = []string{"io.kubernetes.cri.container-name", "io.kubernetes.container.name", "io.kubernetes.cri-o.ContainerName"}
	imageKeys = []string{"io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName"}
)

// maxAnnotations bounds what of them is kept, bytes.
const maxAnnotations = 32 << 10

// identify takes from the runtime's state who it is. What it doesn't say isn't known.
func (c *container) identify(p *oci.Process) {
	f := &c.facts
	f.ID = workloadID(p.State.ID)
	f.Container.ID = p.State.ID
	size := 0
	for k, v := range p.State.Annotations {
		if size += len(k) + len(v); size > maxAnnotations {
			break
		}
		if f.Annotations == nil {
			f.Annotations = map[string]string{}
		}
		f.Annotations[k] = v
	}
	first := func(keys []string) string {
		for _, k := range keys {
			if v := p.State.Annotations[k]; v != "" {
				return v
			}
		}
		return ""
	}
	f.Container.Name, f.Container.Image = first(nameKeys), first(imageKeys)
	c.who.Image = f.Container.Image
	// Its owner is who made its user namespace: root, or the user of a rootless runtime.
	if uid, e := sys.NamespaceOwner(int(c.userNS.Fd())); e == 0 {
		f.UID = int64(uid)
		f.GID = Owner(int(uid), &c.who)
	}
}

// Owner says who owns a workload, as selectors know it, and returns the user's group; what
// isn't known stays as it is, and 0.
func Owner(uid int, who *policy.Who) (gid int64) {
	who.UID = uid
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return 0 // it has no name
	}
	who.User = u.Username
	ids, _ := u.GroupIds() // or it is in none
	for _, id := range ids {
		if g, err := user.LookupGroupId(id); err == nil {
			who.Groups = append(who.Groups, g.Name)
		}
	}
	gid, _ = strconv.ParseInt(u.Gid, 10, 64)
	return gid
}

// plain are ids that can be the name of a file.
var plain = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}$`)

// workloadID makes of a container's id that of a workload, of which it has one for each
// process that its runtime starts.
func workloadID(id string) string {
	if !plain.MatchString(id) {
		id = "container"
	}
	return id + "-" + suffix()
}
