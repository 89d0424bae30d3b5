package launch

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// stageName is argument 0 of a workload's stage; argument 1 is the number of its
// control socket.
const stageName = "bpfbroker-init"

// inherited are the fds, from 3 on, that this process was given to pass on.
var inherited []int

// Main is called first in main. In a process that Start started it does that
// process's work and doesn't return. Else it takes stock of what CMD is to
// inherit: open files, and ignored signals before os/signal changes them.
func Main() {
	if os.Args[0] == stageName {
		if fd, err := strconv.Atoi(os.Args[1]); err == nil && len(os.Args) == 2 {
			stageMain(fd)
		}
		os.Exit(2)
	}
	if os.Args[0] == guardianName {
		guardianMain()
	}
	inherited, _ = sys.TakeInheritedFDs() // without /proc, Start fails
}

// nameProcess gives this process its name in ps: executed as /proc/self/exe, it
// would be called "exe". Without it all else works.
func nameProcess() { _ = os.WriteFile("/proc/self/comm", []byte("bpfbroker"), 0) }

const (
	cgroupMount = "/sys/fs/cgroup"
	bpffsMount  = "/sys/fs/bpf"
	bpffsType   = "bpf"
	bpffsMode   = "0755"
)

// stageMain is the first process inside a workload's namespaces.
func stageMain(fd int) {
	runtime.LockOSThread() // its cgroup namespace becomes another
	l := &link{sock: os.NewFile(uintptr(fd), "control")}
	// The terminal's signals come to us, too, and are CMD's: they wait for it. What
	// comes before this line may end us: see forwarder.deadly.
	infos, err := sys.CatchSigInfo(forwarded...)
	nameProcess()
	if err == nil {
		err = sys.CloseOnExec(fd)
	}
	if err == nil {
		inherited, err = sys.TakeInheritedFDs()
	}
	var s setup
	if err == nil {
		err = l.receive(&s)
	}
	if err == nil {
		err = s.prepare(l)
	}
	if err == nil {
		s.ignoreSignals()
		if s.PrivatePID {
			err = s.beInit(l, infos)
		} else {
			err = s.beCommand(infos)
		}
	}
	r := request{Step: failed, Error: err.Error()}
	errors.As(err, &r.Errno)
	_ = l.send(r) // nobody is left to tell of an error
	os.Exit(127)
}

// prepare completes the namespaces, puts this process under the filter, and
// returns once CMD is to be executed.
func (s *setup) prepare(l *link) error {
	if err := sys.NewSessionKeyring(); err != nil {
		return err
	}
	if s.PrivateNet {
		if err := sys.LoopbackUp(); err != nil {
			return err
		}
	}
	// Only now, in the workload's cgroup, as cgroup namespaces have the cgroup of
	// their creation as root: clone's would be that of `run`.
	if err := sys.ForkCgroupNS(); err != nil {
		return err
	}
	if s.PrivatePID {
		if err := sys.Mount("proc", "/proc", ""); err != nil {
			return fmt.Errorf("%w (a new /proc can be mounted only where the old one is fully visible; or use --pid=host)", err)
		}
	}
	if s.Symbols {
		if err := l.ask(request{Step: showSymbols}); err != nil {
			return err
		}
	}
	if err := isDir(cgroupMount, "is /sys mounted?"); err != nil {
		return err
	}
	if err := sys.Mount("cgroup2", cgroupMount, ""); err != nil {
		return err
	}
	if err := mountBPFFS(l); err != nil {
		return err
	}
	if s.Dir != "" {
		if err := enterDir(l, s.Dir); err != nil {
			return err
		}
	}
	listener, err := sys.InstallFilter(s.Filter)
	if err != nil {
		return err
	}
	err = l.send(request{Step: ready}, listener)
	sys.Close(listener)
	if err != nil {
		return err
	}
	var a answer
	return l.receive(&a)
}

func isDir(path, hint string) error {
	if st, err := os.Stat(path); err != nil || !st.IsDir() {
		return fmt.Errorf("%q is no directory to mount at: %s", path, hint)
	}
	return nil
}

// mountBPFFS has `run` mount a bpffs that belongs to the workload's user namespace. The
// kernel lets only the namespace's root begin one, and only the host's root create it.
func mountBPFFS(l *link) error {
	if err := isDir(bpffsMount, "is /sys mounted, and has the kernel CONFIG_BPF_SYSCALL?"); err != nil {
		return err
	}
	fd, err := sys.OpenFS(bpffsType, bpffsMode)
	if err != nil {
		return err
	}
	defer sys.Close(fd)
	if err := l.ask(request{Step: makeBPFFS}, fd); err != nil {
		return fmt.Errorf("make bpffs: %w", err)
	}
	return nil
}

// enterDir goes to the working directory by its path, so that it is the one in
// this mount namespace.
func enterDir(l *link, dir string) error {
	err := syscall.Chdir(dir)
	if err == syscall.EACCES {
		if err := l.ask(request{Step: blockedDir, Path: blockedPrefix(dir)}); err != nil {
			return err
		}
		err = syscall.Chdir(dir)
	}
	if err != nil {
		return fmt.Errorf("enter working directory %q inside: %w", dir, err)
	}
	return nil
}

// beCommand makes this process CMD. It returns if it can't.
func (s *setup) beCommand(infos *sys.SigInfos) error {
	sys.KeepOnExec(inherited...)
	// From here on a signal does to us what it does to a program that has just
	// been executed; and so do those that came before.
	infos.SetDefault()
	for _, sig := range infos.Pending() {
		if !s.Ignored.Has(sig.Signal) {
			_ = syscall.Kill(os.Getpid(), sig.Signal) // we exist
		}
	}
	return s.execute(func(path string, args []string) error {
		return syscall.Exec(path, args, s.Env)
	})
}

// ignoreSignals ignores what `run` was started with ignored, for CMD to inherit.
func (s *setup) ignoreSignals() {
	for sig := syscall.Signal(1); sig <= 64; sig++ {
		// As init we need to hear of our children.
		if s.Ignored.Has(sig) && !(s.PrivatePID && sig == syscall.SIGCHLD) {
			signal.Ignore(sig)
		}
	}
}
