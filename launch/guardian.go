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

// order is a message to the guardian.
type order struct {
	Cgroup string // with the fd of the caller's cgroup: make this one below it, and remove it
	V1     bool   // it is a cgroup of v1
	Undo   *undo  // with a loan's handle and record: end it
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

// makeCgroup makes the guardian make the cgroup, and remove it later. It is its
// maker so that it neither misses ours nor ever removes another's.
func (g *guardian) makeCgroup(c *cgroup) error {
	return g.ask(order{Cgroup: c.name, V1: c.v1}, int(c.parent.Fd()))
}

// undoLater makes the guardian end the loan.
func (g *guardian) undoLater(l *loan) error {
	if err := g.send(order{Undo: &l.undo}, l.handle, int(l.record.Fd())); err != nil {
		return fmt.Errorf("tell guardian: %w", err)
	}
	return nil
}

// dismiss ends the guardian. With done it has nothing left to do; else it does
// all that it was told first.
func (g *guardian) dismiss(done bool) {
	if done {
		_ = g.send(order{Done: true}) // it was killed: nothing is lost, we have done its work
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
	nameProcess()
	if err := sys.CloseOnExec(3); err != nil {
		os.Exit(2)
	}
	l := &link{sock: os.NewFile(3, "control")}
	var cgroups []*cgroup
	var loans []*loan
	for {
		var t order
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
			if record, err := l.take(); err == nil {
				loans = append(loans, &loan{*t.Undo, fd, os.NewFile(uintptr(record), "record")})
			}
			continue
		}
		c := &cgroup{os.NewFile(uintptr(fd), "cgroup"), t.Cgroup, t.V1}
		var a answer
		if err := c.make(); err != nil {
			a.Error = err.Error()
		} else {
			cgroups = append(cgroups, c)
		}
		_ = l.send(a) // if run is gone, the next receive says so
	}
	if cleanUp(cgroups, loans) != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// cleanUp kills the workload, and undoes what was done for it.
func cleanUp(cgroups []*cgroup, loans []*loan) error {
	var errs []error
	var empty []*cgroup
	for _, c := range cgroups {
		if err := c.kill("."); err != nil {
			errs = append(errs, err)
		} else {
			empty = append(empty, c)
		}
	}
	for _, l := range loans {
		errs = append(errs, l.end())
	}
	for _, c := range empty {
		errs = append(errs, c.remove())
	}
	return errors.Join(errs...)
}
