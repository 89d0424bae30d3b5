package sys

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// WaitPriority waits until a cgroup's event file (cgroup.events), of which the
// caller has read, changes: kernfs reports that as POLLPRI
// (Documentation/admin-guide/cgroup-v2.rst). False: it did not within d.
func WaitPriority(fd int, d time.Duration) (bool, error) {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}
	n, err := unix.Poll(p, int(d.Milliseconds()))
	if err == unix.EINTR {
		return true, nil // the caller looks again anyway
	}
	return n > 0, err
}

// MountCgroup2 makes a detached mount of the cgroup v2 hierarchy. Only for where
// none is mounted: a new mount without options takes nsdelegate and the like
// away from all others (kernel/cgroup/cgroup.c, apply_cgroup_root_flags).
func MountCgroup2() (int, error) {
	fs, err := OpenFS("cgroup2", "")
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	if err := CreateFS(fs); err != nil {
		return -1, fmt.Errorf("cgroup2: %w", err)
	}
	return MountOfFS(fs)
}
