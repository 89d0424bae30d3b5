package sys

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Device is the device of a file, as a number of 12 bits for the major one and 20 for the
// minor. A file system that answers when it likes (FUSE) isn't asked.
func Device(fd int) (uint32, Errno) {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &st)
	if err != nil {
		return 0, err.(unix.Errno)
	}
	return st.Dev_major<<20 | st.Dev_minor, 0
}

// view is what a thread sees of mounts: its mount namespace, from its root directory.
type view struct{ ns, major, minor, root uint64 }

// InMemoryBelow says whether a device is a file system in memory (tmpfs, ramfs) that is
// mounted in a mount namespace of the user namespace's (an inode number), or of one below,
// and in no other one, as far as any thread sees. Who doesn't see all of the host's can't
// say so.
func InMemoryBelow(dev uint32, userNS uint64) (bool, error) {
	if all, err := seesAll(); !all || err != nil {
		return false, err
	}
	want := fmt.Sprintf("%d:%d", dev>>20, dev&(1<<20-1))
	looked := map[view]bool{}
	found := false
	tasks, err := os.ReadDir("/proc")
	if err != nil {
		return false, fmt.Errorf("list processes: %w", err)
	}
	for _, t := range tasks {
		if name := t.Name(); name[0] < '1' || name[0] > '9' {
			continue
		}
		threads, err := os.ReadDir("/proc/" + t.Name() + "/task") // a thread may have a mount namespace of its own
		if err != nil && !ended(err) {
			return false, err
		}
		for _, thread := range threads {
			is, below, err := mountedFor("/proc/"+t.Name()+"/task/"+thread.Name(), want, userNS, looked)
			switch {
			case ended(err):
			case err != nil:
				return false, err
			case is && !below:
				return false, nil
			case is:
				found = true
			}
		}
	}
	return found, nil
}

// ended says whether an error comes of a task having ended.
func ended(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL)
}

// seesAll says whether /proc has the processes of the whole host.
func seesAll() (bool, error) {
	const init = 0xEFFFFFFC // PROC_PID_INIT_INO
	return inFirstNS("pid", init)
}

// mountedFor says whether the device is mounted in what a thread sees, if that wasn't
// looked at before, and whether that is in memory and belongs to the user namespace.
func mountedFor(dir, dev string, userNS uint64, looked map[view]bool) (is, below bool, err error) {
	var v view
	ns, err := os.Open(dir + "/ns/mnt")
	switch {
	case err == nil:
		defer ns.Close()
		var root unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, dir+"/root", unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_INO, &root); err != nil {
			return false, false, err
		}
		inode, e := Inode(int(ns.Fd()))
		if e != 0 {
			return false, false, e
		}
		if v = (view{inode, uint64(root.Dev_major), uint64(root.Dev_minor), root.Ino}); looked[v] {
			return false, false, nil
		}
	case !errors.Is(err, fs.ErrPermission):
		return false, false, err
	} // else it is of somebody who has more rights than we have, and not the workload's
	mounts, err := os.Open(dir + "/mountinfo")
	if err != nil {
		return false, false, err
	}
	defer mounts.Close()
	memory := false
	lines := bufio.NewScanner(mounts)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() { // proc_pid_mountinfo(5)
		if f := strings.Fields(lines.Text()); len(f) > 2 && f[2] == dev {
			_, of, _ := strings.Cut(lines.Text(), " - ")
			is, memory = true, strings.HasPrefix(of, "tmpfs ") || strings.HasPrefix(of, "ramfs ")
			break
		}
	}
	if err := lines.Err(); err != nil {
		return false, false, err
	}
	if v == (view{}) {
		return is, false, nil
	}
	looked[v] = true // read to its end, while the process was there
	return is, memory && OwnedBelow(int(ns.Fd()), userNS), nil
}
