package helper

import (
	"fmt"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/perform"
	"github.com/bpfbroker/bpfbroker/workload"
)

// target is a call that came over the channel, as what a request is read from
// (request.Target) and as the place where it is made (perform.Place): the host,
// but for the network namespace. Process ids are the host's already, and the
// worker translates those that come back.
type target struct {
	Call
	workload.Files
	*server
	fds  [maxFDs]int // what came with it, -1 for none
	path int         // index in fds, -1 for none
	ns   int         // likewise
	// first is the index of the first of the call's own files.
	first int
}

func (c *target) reset() { c.path, c.ns, c.first = -1, -1, 0 }

// take makes the fds that came the call's.
func (c *target) take(fds []int) error {
	if len(fds) > maxFDs {
		for _, fd := range fds {
			sys.Close(fd)
		}
		return fmt.Errorf("%d fds", len(fds))
	}
	var err error
	for i, fd := range fds {
		if e := c.own.NewFD(&c.fds[i], fd); e != 0 && err == nil {
			err = e
		}
	}
	if c.HasNetNS {
		c.ns = c.first
		c.first++
	}
	if c.HasPath {
		c.path = c.first
		c.first++
	}
	if c.first+len(c.Numbers) != len(fds) && err == nil {
		err = fmt.Errorf("%d fds, not %d", len(fds), c.first+len(c.Numbers))
	}
	return err
}

// drop closes them.
func (c *target) drop() {
	for i, fd := range c.fds {
		if fd >= 0 {
			sys.Close(fd)
			c.fds[i] = -1
		}
	}
}

// Read implements request.Target.
func (c *target) Read(addr uint64, p []byte) (int, sys.Errno) {
	for _, s := range c.Segments {
		if addr >= s.Addr && addr-s.Addr < uint64(len(s.Data)) {
			return copy(p, s.Data[addr-s.Addr:]), 0
		}
	}
	if len(p) == 0 {
		return 0, 0
	}
	return 0, sys.EFAULT
}

// ReadAll implements request.Target.
func (c *target) ReadAll(segs []sys.Segment) bool {
	for _, s := range segs {
		if n, _ := c.Read(s.Addr, s.Data); n < len(s.Data) {
			return false
		}
	}
	return true
}

// Take implements request.Target.
func (c *target) Take(n int) (abi.Object, sys.Errno) {
	for i, number := range c.Numbers {
		if int(number) != n {
			continue
		}
		if e := c.own.Put(&c.fds[c.first+i], n); e != 0 {
			return 0, e
		}
		kind, e := workload.KindAt(c.own, n)
		// Where programs mayn't know of the kernel's addresses, its info shows what the
		// worker may see.
		if e == 0 && kind == abi.Prog && c.cfg.Policy.Ceiling().KernelMemory {
			fd, e := perform.Reopen(n)
			if e != 0 {
				return 0, e
			}
			defer sys.Close(fd)
			return kind, c.own.Put(&fd, n)
		}
		return kind, e
	}
	if e := c.own.Vacate(n); e != 0 {
		return 0, e
	}
	return 0, sys.EBADF
}

// LinkInfo implements request.Target.
func (c *target) LinkInfo(n int, info []byte) sys.Errno { return perform.ObjectInfo(n, info) }

// Enter implements perform.Place.
func (c *target) Enter(n perform.Needs) sys.Errno {
	if n.Root || n.Creds || n.Plain || n.Cgroup {
		return sys.EPERM // no row with a Host needs it
	}
	if !n.Net {
		return 0
	}
	if c.ns < 0 {
		return sys.EPERM
	}
	ns := c.fds[c.ns]
	if k, e := sys.KindOf(ns); e != 0 || k != sys.NamespaceFile {
		return sys.EPERM
	}
	inode, e := sys.Inode(ns)
	if e != 0 {
		return e
	}
	if inode == c.netNS {
		return 0
	}
	if inode != c.cfg.NetNS && !sys.OwnedBelow(ns, c.cfg.Known.UserNS) {
		return sys.EPERM
	}
	if e := sys.SetNS(ns, sys.NetNamespace); e != 0 {
		return e
	}
	c.netNS = inode
	return 0
}

// Leave implements perform.Place.
func (c *target) Leave() {}

// PIDFrom implements perform.Place.
func (c *target) PIDFrom(pid uint32) (uint32, sys.Errno) { return pid, 0 }

// PIDIn implements perform.Place.
func (c *target) PIDIn(pid uint32) (uint32, sys.Errno) { return pid, 0 }

// TID implements perform.Place. The worker never says 0 for the caller.
func (c *target) TID() uint32 { return perform.NoSuchPID }

// UIDIn implements perform.Place: the worker's user namespace is the target's, or
// one above it.
func (c *target) UIDIn(uid uint32) (uint32, sys.Errno) { return sys.UIDInTarget(c.cfg.Worker, uid) }

// OpenPath implements perform.Place: the worker has looked the path up as the
// target.
func (c *target) OpenPath(int, []byte) (int, sys.Errno) {
	switch {
	case c.PathErr != 0:
		return -1, c.PathErr
	case c.path < 0:
		return -1, sys.ENOENT
	}
	return c.fds[c.path], 0
}

// NetNS implements perform.Place.
func (c *target) NetNS() (int, sys.Errno) { return -1, sys.EPERM }
