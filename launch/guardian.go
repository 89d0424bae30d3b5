package launch

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// guardian is `run`'s side of the process that cleans up if `run` can't: it
// holds the other end of a socket, in a session of its own, outside the
// workload's cgroups, and acts when the socket closes without a goodbye.
type guardian struct {
	*link
	pid int
}

// task is a message to the guardian.
type task struct {
	Cgroup string // with the fd of the caller's cgroup: remove this one below it
	Undo   *undo  // with a handle: restore this stream
	Done   bool   // nothing is left to do
}

const guardianName = "bpfbroker-guardian"

func startGuardian() (*guardian, error) {
	ours, theirs, err := newLink()
	if err != nil {
		return nil, err
	}
	defer theirs.close()
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		ours.close()
		return nil, err
	}
	defer null.Close()
	pid, _, err := syscall.StartProcess("/proc/self/exe", []string{guardianName}, &syscall.ProcAttr{
		Dir:   "/",
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), theirs.sock.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		ours.close()
		return nil, fmt.Errorf("start guardian: %w", err)
	}
	return &guardian{ours, pid}, nil
}

// removeLater makes the guardian remove the cgroup, which need not exist yet.
func (g *guardian) removeLater(c *cgroup) error {
	if err := g.send(task{Cgroup: c.name}, int(c.parent.Fd())); err != nil {
		return fmt.Errorf("tell guardian: %w", err)
	}
	return nil
}

// undoLater makes the guardian restore the stream.
func (g *guardian) undoLater(u undo, handle int) error {
	if err := g.send(task{Undo: &u}, handle); err != nil {
		return fmt.Errorf("tell guardian: %w", err)
	}
	return nil
}

// dismiss ends the guardian. With done it has nothing left to do; else it does
// all that it was told first.
func (g *guardian) dismiss(done bool) {
	if done {
		_ = g.send(task{Done: true}) // it was killed: nothing is lost, we have done its work
	}
	g.close()
	for {
		if _, err := syscall.Wait4(g.pid, nil, 0, nil); err != syscall.EINTR {
			return
		}
	}
}

// guardianMain is the guardian's process.
func guardianMain() {
	// It ends by its socket, by no signal but SIGKILL.
	signal.Ignore()
	if err := sys.CloseOnExec(3); err != nil {
		os.Exit(2)
	}
	l := &link{sock: os.NewFile(3, "control")}
	var cgroups []*cgroup
	var streams []stream
	for {
		var t task
		err := l.receive(&t)
		if err != nil {
			break // run is gone
		}
		if t.Done {
			os.Exit(0)
		}
		fd, err := l.take()
		if err != nil {
			continue
		}
		if t.Undo != nil {
			streams = append(streams, stream{*t.Undo, fd})
		} else {
			cgroups = append(cgroups, &cgroup{os.NewFile(uintptr(fd), "cgroup"), t.Cgroup})
		}
	}
	if cleanUp(cgroups, streams) != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// cleanUp kills the workload, and undoes what was done for it.
func cleanUp(cgroups []*cgroup, streams []stream) error {
	var errs []error
	for _, c := range cgroups {
		errs = append(errs, c.remove())
	}
	for _, s := range streams {
		errs = append(errs, s.restore())
	}
	return errors.Join(errs...)
}
