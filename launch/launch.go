// Package launch creates the workload of `bpfbroker run -- CMD`, and takes all
// of it away again. It knows nothing of bpf(): the seccomp filter is a value
// that it installs, the listener one that it hands out.
//
// A workload is a process in new user, mount, cgroup and IPC namespaces (network
// and pid too if asked for), root there and without any right on the host, in a
// cgroup of its own. It stays in the caller's session and process group: what
// the terminal sends reaches it without us.
//
// Four processes take part, all this binary (see Main):
//
//	run       the caller: makes cgroups, does what needs the host's root, forwards
//	          signals, waits
//	stage     born inside the workload's namespaces: completes them, installs the
//	          filter, waits for Release, and becomes CMD; or, with a pid namespace
//	          of its own, its init, with CMD as a child
//	guardian  outside: cleans up if run is killed
//	CMD
//
// What it doesn't keep from a workload: another's processes and files, where both
// have the same user map; a private pid namespace's /proc can be unmounted, and
// the host's shows its processes then; and the terminal is the caller's, into
// which a workload can type (TIOCSTI) where sysctl dev.tty.legacy_tiocsti is 1.
package launch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/bpfbroker/bpfbroker/cgroups"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/tracing"
)

// Mode says whose namespace of a kind a workload is in.
type Mode int

const (
	Host    Mode = iota // the caller's
	Private             // a new one
)

// Config describes a workload.
type Config struct {
	ID   string   // names its cgroup, "bpfbroker-"+ID; unique on the host
	Args []string // CMD and its arguments; CMD is looked up in Env's PATH, inside
	Env  []string // CMD's environment; nil: the caller's
	Dir  string   // CMD's working directory; "": the caller's

	// UserMap and GroupMap are the ids of the user namespace. Without a UserMap
	// they come from root's lines in /etc/subuid and /etc/subgid, else
	// 0:100000:65536; without a GroupMap it is as the UserMap.
	UserMap, GroupMap []IDMap
	Net, PID          Mode

	// Tracing shows the workload what tracing tools read (package tracing), and
	// Symbols the addresses of the kernel's symbols as well, if the kernel shows them
	// to root. They tell how to get round KASLR: it is for who may read the kernel's
	// memory.
	Tracing, Symbols bool

	Filter []sys.SockFilter // the seccomp program, which must notify a listener or not at all

	// The standard streams; nil: the caller's. One that the caller was started
	// without is /dev/null, which the Go runtime opens in its place.
	Stdin, Stdout, Stderr *os.File
}

// Workload is a workload that Start created. Its methods, but for Release and
// Close, may be called at any time and at once.
type Workload struct {
	uids, gids []IDMap
	private    bool // its pid namespace

	view     *tracing.View
	guardian *guardian
	cgroup   *cgroup
	worker   *os.File
	own      *os.File
	bpffs    *os.File
	v1       []*cgroup // the worker's
	tasks    []*os.File
	loans    []*loan
	link     *link
	listener *os.File

	user, mnt, net, pidns *os.File

	pid     int // of the stage, then of CMD or its init; 0: there is none
	pidfd   int
	init    *os.File // a socket: wait statuses of CMD from its init, signals for CMD to it
	signals *forwarder
	giveUp  []int // fds that only CMD should hold

	ended  chan struct{} // closed once status is set
	status syscall.WaitStatus

	closing sync.Once
	closed  error
}

// Start creates a workload. It is complete afterwards, under its filter, and
// executes CMD at Release. The caller is root, has called Main first, and calls
// Close in any case but an error. Errors name what could not be done and, where
// there is one, the remedy.
//
// A process has one workload at a time, to which its signals go until Close. If
// one ends the workload before it is complete, Start undoes all and sends it to
// the process anew, which dies of it unless it handles it.
func Start(cfg Config) (*Workload, error) {
	w := &Workload{private: cfg.PID == Private, ended: make(chan struct{})}
	if err := w.start(cfg); err != nil {
		err = errors.Join(err, w.Close())
		if w.signals != nil {
			w.signals.giveBack()
		}
		return nil, fmt.Errorf("start workload %q: %w", cfg.ID, err)
	}
	return w, nil
}

func (w *Workload) start(cfg Config) error {
	if len(cfg.Args) == 0 {
		return errors.New("no command")
	}
	if cfg.ID == "" || strings.ContainsAny(cfg.ID, "/\n") {
		return fmt.Errorf("id %q can't be part of a cgroup's name", cfg.ID)
	}
	if host, err := sys.InInitialUserNS(); err != nil {
		return err
	} else if !host {
		return errors.New("in a user namespace, such as a workload's, no workload can be created: start it on the host")
	}
	if os.Geteuid() != 0 {
		return errors.New("only root can create a workload")
	}
	if err := sys.FilterSupported(); err != nil {
		return err
	}
	var err error
	if w.uids, w.gids, err = idMaps(cfg.UserMap, cfg.GroupMap); err != nil {
		return err
	}
	dir, err := physicalDir(cfg.Dir)
	if err != nil {
		return err
	}
	std := [3]*os.File{cfg.Stdin, cfg.Stdout, cfg.Stderr}
	for i, f := range []*os.File{os.Stdin, os.Stdout, os.Stderr} {
		if std[i] == nil {
			std[i] = f
			if f != os.Stderr { // which we keep, for messages
				w.giveUp = append(w.giveUp, int(f.Fd()))
			}
		}
	}
	w.giveUp = append(w.giveUp, inherited...)

	if cfg.Tracing {
		if w.view, err = tracing.Open(cfg.Symbols); err != nil {
			return fmt.Errorf("%w (--tracing=none does without it)", err)
		}
	}
	if w.guardian, err = startGuardian(); err != nil {
		return err
	}
	if err := w.makeCgroup(cfg.ID); err != nil {
		return err
	}
	ignored := sys.InheritedIgnored()
	if w.signals, err = forwardTo(w); err != nil {
		return err
	}
	theirs, err := w.spawn(cfg, std)
	if err != nil {
		return err
	}
	err = w.hand(cfg, std, theirs, dir, ignored)
	theirs.Close() // watch waits for the last one to close it
	if err != nil {
		return w.lost(err)
	}
	return w.serve(dir)
}

// hand gives the stage what it needs.
func (w *Workload) hand(cfg Config, std [3]*os.File, init *os.File, dir string, ignored sys.SignalSet) error {
	if err := w.openNamespaces(); err != nil {
		return err
	}
	if err := w.openStreams(std[:]); err != nil {
		return err
	}
	env := cfg.Env
	if env == nil {
		env = os.Environ()
	}
	return w.link.send(setup{
		Args: cfg.Args, Env: env, Dir: dir,
		PrivateNet: cfg.Net == Private, PrivatePID: w.private,
		Symbols: cfg.Tracing && cfg.Symbols,
		Ignored: ignored, Filter: cfg.Filter,
	}, int(init.Fd()))
}

// physicalDir is the absolute path, without symbolic links, of CMD's working
// directory; "" for ours if it has none.
func physicalDir(dir string) (string, error) {
	if dir == "" {
		dir, err := sys.CurrentDir()
		if err == nil {
			return dir, nil
		}
		// Deleted: CMD inherits it as it is. But such a directory leads to its
		// parent still, which may be what hideHostMounts hides.
		if hidden, err := sys.InHiddenFS("."); err != nil || hidden {
			return "", errors.Join(errors.New("the working directory is a deleted one of the host's cgroups or BPF objects; run from another"), err)
		}
		return "", nil
	}
	abs, err := filepath.Abs(dir)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return "", fmt.Errorf("working directory: %w", err)
	}
	return abs, nil
}

func (w *Workload) makeCgroup(id string) error {
	parent, err := cgroups.Open(cgroups.Self)
	if err != nil {
		return err
	}
	c := &cgroup{parent: parent, name: cgroupPrefix + id}
	if err := w.guardian.makeCgroup(c); err != nil {
		parent.Close()
		return err
	}
	w.cgroup = c
	if err := c.fill(rootOf(w.uids), rootOf(w.gids)); err != nil {
		return err
	}
	if w.worker, err = os.Open(c.path(workerLeaf)); err != nil {
		return err
	}
	if w.own, err = os.Open(c.path(workloadLeaf)); err != nil {
		return err
	}
	return w.workerCgroupsV1(c.name)
}

// spawn starts the stage in its namespaces and cgroup. It returns the init's end
// of the socket.
func (w *Workload) spawn(cfg Config, std [3]*os.File) (*os.File, error) {
	leaf, err := os.Open(w.cgroup.path(workloadLeaf))
	if err != nil {
		return nil, err
	}
	defer leaf.Close()
	ours, theirs, err := newLink()
	if err != nil {
		return nil, err
	}
	defer theirs.close()
	w.link = ours
	var init *os.File
	if w.init, init, err = sys.SocketPair(); err != nil {
		return nil, fmt.Errorf("make socket of init: %w", err)
	}

	files, control := fdTable([3]uintptr{std[0].Fd(), std[1].Fd(), std[2].Fd()}, inherited, theirs.sock.Fd())
	binary, copied, err := sys.ExecutableForAll(len(files))
	if err != nil {
		return nil, errors.Join(err, init.Close())
	}
	if copied != nil {
		defer copied.Close()
	}
	flags := uintptr(syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWIPC)
	if cfg.Net == Private {
		flags |= syscall.CLONE_NEWNET
	}
	if cfg.PID == Private {
		flags |= syscall.CLONE_NEWPID
	}
	attr := &syscall.ProcAttr{
		Env:   []string{"GOTRACEBACK=single"},
		Files: files,
		Sys: &syscall.SysProcAttr{
			Cloneflags:                 flags,
			UidMappings:                sysMap(w.uids),
			GidMappings:                sysMap(w.gids),
			GidMappingsEnableSetgroups: true,
			Credential:                 &syscall.Credential{}, // root, no supplementary groups
			UseCgroupFD:                true,
			CgroupFD:                   int(leaf.Fd()),
			PidFD:                      &w.pidfd,
		},
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: its mount namespace is another
		err := hideHostMounts()
		if err == nil {
			err = w.view.Mount()
		}
		if err == nil {
			w.pid, _, err = syscall.StartProcess(binary, []string{stageName, fmt.Sprint(control)}, attr)
		}
		done <- err
	}()
	if err := <-done; err != nil {
		w.pid = 0
		init.Close()
		return nil, fmt.Errorf("start stage in new namespaces: %w", err)
	}
	go w.watch()
	return init, nil
}

// hideHostMounts gives the thread a mount namespace without the host's bpffs and
// cgroup trees, and its message queues, to which a mount leads from any IPC
// namespace. The workload's is a copy: it can't have them by unmounting what is
// mounted in their place.
func hideHostMounts() error {
	if err := sys.ForkMountNS(); err != nil {
		return err
	}
	mounts, err := sys.Mounts()
	if err != nil {
		return err
	}
	hidden := []string{"bpf", "cgroup", "cgroup2", "mqueue"}
	for _, m := range slices.Backward(mounts) {
		if slices.Contains(hidden, m.Type) || m.Point == cgroupMount {
			// EINVAL: gone with its parent, or locked, where we are in a container
			// ourselves; then another mount covers it.
			if err := sys.Detach(m.Point); err != nil && err != error(syscall.EINVAL) && err != error(syscall.ENOENT) {
				return fmt.Errorf("unmount the host's %s at %q: %w", m.Type, m.Point, err)
			}
		}
	}
	return nil
}

// fdTable is a child's fd table for syscall.ProcAttr: the standard streams, the
// inherited fds at their own numbers, and one more at the first free number.
func fdTable(std [3]uintptr, inherited []int, extra ...uintptr) (files []uintptr, at int) {
	const none = ^uintptr(0)
	files = std[:]
	for _, fd := range inherited {
		for len(files) <= fd {
			files = append(files, none)
		}
		files[fd] = uintptr(fd)
	}
	for _, fd := range extra {
		for at = 3; at < len(files) && files[at] != none; {
			at++
		}
		if at == len(files) {
			files = append(files, none)
		}
		files[at] = fd
	}
	return files, at
}

func (w *Workload) openNamespaces() error {
	for _, ns := range []struct {
		f    **os.File
		name string
	}{{&w.user, "user"}, {&w.mnt, "mnt"}, {&w.net, "net"}, {&w.pidns, "pid"}} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", w.pid, ns.name))
		if err != nil {
			return fmt.Errorf("open the workload's %s namespace: %w", ns.name, err)
		}
		*ns.f = f
	}
	return nil
}

// serve does what the stage asks for until it is ready.
func (w *Workload) serve(dir string) error {
	for {
		var r request
		if err := w.link.receive(&r); err != nil {
			return w.lost(err)
		}
		var err error
		switch r.Step {
		case failed:
			return errors.New(r.Error)
		case ready:
			fd, err := w.link.take()
			if err != nil {
				return err
			}
			w.listener = os.NewFile(uintptr(fd), "listener")
			return nil
		case makeBPFFS:
			err = w.mountBPFFS()
		case showSymbols:
			err = w.view.MountSymbols(w.mnt)
		case blockedDir:
			err = openDir(w.mnt, w.user, r.Path, dir)
		}
		var a answer
		if err != nil {
			a.Error = err.Error()
		}
		if err := w.link.send(a); err != nil {
			return w.lost(err)
		}
	}
}

// mountBPFFS mounts the bpffs that the stage has begun. Before Linux 6.9 a bpffs belongs
// to the host: there the workload gets one of those, which no other has, with a root
// directory of its own.
func (w *Workload) mountBPFFS() error {
	fd, err := w.link.take()
	if err != nil {
		return err
	}
	defer sys.Close(fd)
	err = sys.CreateFS(fd)
	if errors.Is(err, syscall.EPERM) {
		if fd, err = sys.OpenFS(bpffsType, bpffsMode); err != nil {
			return err
		}
		defer sys.Close(fd)
		err = sys.CreateFS(fd)
	}
	if err != nil {
		return err
	}
	mount, err := sys.MountOfFS(fd)
	if err != nil {
		return err
	}
	defer sys.Close(mount)
	if err := sys.ChownHandle(mount, rootOf(w.uids), rootOf(w.gids)); err != nil {
		return err
	}
	w.bpffs.Close() // nil, but for a stage that asks twice
	return sys.InMountNS(int(w.mnt.Fd()), func() (err error) {
		if err := sys.AttachMount(mount, bpffsMount); err != nil {
			return err
		}
		// Of another mount, which doesn't keep the workload's busy.
		w.bpffs, err = sys.CloneMount(mount)
		return err
	})
}

// lost ends the stage, if it hasn't ended already, and says so in the error.
func (w *Workload) lost(err error) error {
	w.link.close()
	<-w.ended
	w.signals.deadly()
	return fmt.Errorf("%w; the stage ended (%v)", err, w.exitStatus())
}

// Listener is the seccomp listener of all the workload's processes.
func (w *Workload) Listener() *os.File { return w.listener }

// UserNS is the workload's user namespace. Close closes it, as all files here.
func (w *Workload) UserNS() *os.File { return w.user }

// MountNS is the workload's mount namespace.
func (w *Workload) MountNS() *os.File { return w.mnt }

// NetNS is the workload's network namespace: the caller's unless private.
func (w *Workload) NetNS() *os.File { return w.net }

// PIDNS is the workload's pid namespace: the caller's unless private.
func (w *Workload) PIDNS() *os.File { return w.pidns }

// PID is the process id, in the caller's pid namespace, of CMD, or of its init
// where the pid namespace is private.
func (w *Workload) PID() int { return w.pid }

// WorkerCgroup is the directory of a cgroup (v2) beside the workload's own, below
// the one that limits both, which the workload can't see.
func (w *Workload) WorkerCgroup() *os.File { return w.worker }

// OwnCgroup is the directory of the workload's own cgroup (v2), the root of its view.
func (w *Workload) OwnCgroup() *os.File { return w.own }

// BPFFS is the root directory of the workload's bpffs, by O_PATH.
func (w *Workload) BPFFS() *os.File { return w.bpffs }

// WorkerTasks are the files "tasks" of the worker's cgroups of v1, one for each hierarchy
// where it has one; they are below the caller's cgroups, in which the workload is.
func (w *Workload) WorkerTasks() []*os.File { return w.tasks }

// Release lets CMD be executed, and returns once it is: the error is an
// *ExecError where it can't be. The caller's standard input and output and the
// fds that it inherited are CMD's from then on: in the caller /dev/null takes
// their place, so that it holds no end of a pipe open that CMD has closed.
func (w *Workload) Release() error {
	if err := w.link.send(answer{}); err != nil {
		return w.lost(err)
	}
	var r request
	if err := w.link.receive(&r); err == nil {
		return &ExecError{Errno: r.Errno, Text: r.Error}
	} // else the connection ended, as it does when CMD is executed
	w.link.close()
	w.link = nil
	w.signals.release()
	return sys.ReplaceByNull(w.giveUp...)
}

// Wait waits for CMD's end, and then kills what is left of the workload: a
// process that CMD left running in the background doesn't outlive it, as it would
// natively. While CMD is stopped, so is the caller.
func (w *Workload) Wait() (ExitStatus, error) {
	<-w.ended
	return w.exitStatus(), w.cgroup.kill(workloadLeaf)
}

// Kill kills all of the workload's processes; Wait tells of it.
func (w *Workload) Kill() error { return w.cgroup.kill(workloadLeaf) }

// Signal sends a signal to CMD. An error: it has ended.
func (w *Workload) Signal(sig syscall.Signal) error {
	if w.private {
		return w.tellInit(sig, false)
	}
	return sys.SignalProcess(w.pidfd, sig)
}

// tellInit makes the init send a signal to CMD; one that was for the process
// group only if CMD has missed it.
func (w *Workload) tellInit(sig syscall.Signal, toGroup bool) error {
	m := []byte{byte(sig), 0}
	if toGroup {
		m[1] = 1
	}
	return sys.SendWithFDs(int(w.init.Fd()), m)
}

// Close kills all processes in the workload's cgroups, and in the worker's, and
// undoes all that Start did. If it returns nil, nothing is left.
func (w *Workload) Close() error {
	w.closing.Do(func() { w.closed = w.close() })
	return w.closed
}

func (w *Workload) close() error {
	if w.link != nil {
		w.link.close()
	}
	var cgroups []*cgroup
	if w.cgroup != nil {
		cgroups = append(cgroups, w.cgroup)
	}
	cgroups = append(cgroups, w.v1...)
	err := cleanUp(cgroups, w.loans)
	if w.pid != 0 && err == nil {
		<-w.ended
	}
	if w.signals != nil {
		w.signals.stop()
	}
	if w.guardian != nil {
		w.guardian.dismiss(err == nil)
	}
	for _, f := range append(w.tasks, w.listener, w.user, w.mnt, w.net, w.pidns, w.worker, w.own, w.bpffs, w.init) {
		f.Close() // nil is fine: it returns an error
	}
	for _, c := range cgroups {
		c.parent.Close()
	}
	w.view.Close()
	if w.pid != 0 {
		sys.Close(w.pidfd)
	}
	return err
}
