package helper

import (
	"errors"
	"fmt"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/workload"
)

// The rest of what the daemon can find out of a call that came over the channel: see
// inspect.Place. It takes no worker's word for a fact.

// Owns implements inspect.Place.
func (c *target) Owns(kind abi.Object, id uint32) (own, shared bool, err error) {
	return c.is(c.cfg.Objects.Owns, kind, id), c.shares(kind, id), nil
}

// Pinned implements inspect.Place. Workers open pins themselves.
func (c *target) Pinned(int, []byte, uint32) (abi.Object, int, sys.Errno) { return 0, -1, sys.EPERM }

// Ifname implements inspect.Place.
func (c *target) Ifname(index uint32) (string, error) { return workload.Ifname(c, index) }

// NetNSOwn implements inspect.Place.
func (c *target) NetNSOwn(n int) (bool, error) {
	if n < 0 {
		if c.ns < 0 {
			return false, errors.New("the worker hasn't said in which network namespace")
		}
		n = c.fds[c.ns]
	}
	return sys.OwnedBelow(n, c.cfg.Known.UserNS), nil
}

// FileShared implements inspect.Place.
func (c *target) FileShared(path []byte) (bool, error) {
	return workload.FileShared(c, path, c.private)
}

// FileName implements inspect.Place.
func (c *target) FileName(path []byte) (string, error) { return workload.FileName(c, path) }

// PIDOwn implements inspect.Place. The worker says it by the host's number.
func (c *target) PIDOwn(pid uint32) (bool, error) {
	return sys.InUserNS(int(pid), c.cfg.Known.UserNS), nil
}

// caller is the calling thread. The worker says which it is; that it is the workload's,
// we see to.
func (c *target) caller() (int, error) {
	if !sys.InUserNS(int(c.Thread), c.cfg.Known.UserNS) {
		return 0, fmt.Errorf("thread %d isn't the workload's", c.Thread)
	}
	return int(c.Thread), nil
}

// ofCaller looks at the calling thread.
func ofCaller[T any](c *target, what string, look func(tid int) (T, sys.Errno)) (v T, err error) {
	tid, err := c.caller()
	if err != nil {
		return v, err
	}
	got, e := look(tid)
	if e != 0 {
		return v, fmt.Errorf("%s: %w", what, e)
	}
	if _, err := c.caller(); err != nil { // its number is another's now
		return v, err
	}
	return got, nil
}

// PID implements inspect.Place.
func (c *target) PID() (int64, error) {
	pid, err := ofCaller(c, "find the calling process", sys.TGID)
	return int64(pid), err
}

// Comm implements inspect.Place.
func (c *target) Comm() (string, error) { return ofCaller(c, "read the thread's name", sys.Comm) }

// Exe implements inspect.Place.
func (c *target) Exe() (string, error) {
	return ofCaller(c, "read what the process executes", sys.Exe)
}

// Argv implements inspect.Place.
func (c *target) Argv() ([]string, error) {
	return ofCaller(c, "read the process's arguments", sys.Argv)
}
