package sys

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Stream is what a standard stream is, as far as opening it by name goes.
type Stream struct {
	Dev, Ino       uint64
	UID, GID       uint32
	Mode           uint32 // permission bits
	Read, Write    bool   // how the fd is open
	Links          uint64 // names; 0: deleted
	Pipe, TTY, Reg bool   // an anonymous pipe; a terminal; a file or named pipe
}

// StatStream describes an open fd.
func StatStream(fd int) (Stream, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Stream{}, err
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return Stream{}, err
	}
	s := Stream{Dev: uint64(st.Dev), Ino: st.Ino, UID: st.Uid, GID: st.Gid, Mode: st.Mode & 0o7777, Links: uint64(st.Nlink)}
	if flags&unix.O_PATH == 0 {
		s.Read = flags&unix.O_ACCMODE != unix.O_WRONLY
		s.Write = flags&unix.O_ACCMODE != unix.O_RDONLY
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFIFO:
		var fs unix.Statfs_t
		s.Pipe = unix.Fstatfs(fd, &fs) == nil && fs.Type == unix.PIPEFS_MAGIC
		s.Reg = !s.Pipe
	case unix.S_IFREG:
		s.Reg = true
	case unix.S_IFCHR:
		_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		s.TTY = err == nil
	}
	return s, nil
}

// Handle opens fd's file anew with O_PATH: it can be told its owner and mode,
// and keeps neither end of a pipe open.
func Handle(fd int) (int, error) {
	return unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_PATH|unix.O_CLOEXEC, 0)
}

// ChownHandle changes the owner (-1: not) of the file a handle is open at.
func ChownHandle(h, uid, gid int) error {
	return unix.Fchownat(h, "", uid, gid, unix.AT_EMPTY_PATH)
}

// ChmodHandle changes the mode of the file a handle is open at.
func ChmodHandle(h int, mode uint32) error {
	// fchmodat2 can do it by fd from 6.6 on only.
	return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", h), mode)
}

// accessACL is the extended attribute of a file's POSIX ACL (acl(5)).
const accessACL = "system.posix_acl_access"

// ACL returns the access ACL of the file a handle is open at, as the kernel
// encodes it; nil where it has none or its file system knows none.
func ACL(h int) []byte {
	b := make([]byte, 64<<10) // XATTR_SIZE_MAX
	n, err := unix.Getxattr(fmt.Sprintf("/proc/self/fd/%d", h), accessACL, b)
	if err != nil {
		return nil
	}
	return b[:n]
}

// SetACL sets what ACL returned.
func SetACL(h int, acl []byte) error {
	path := fmt.Sprintf("/proc/self/fd/%d", h)
	if acl != nil {
		return unix.Setxattr(path, accessACL, acl, 0)
	}
	// ENODATA: it has none now, as then.
	if err := unix.Removexattr(path, accessACL); err != nil && err != unix.ENODATA && err != unix.EOPNOTSUPP {
		return err
	}
	return nil
}

// Terminal opens this process's controlling terminal; an error: it has none.
func Terminal() (int, error) {
	return unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
}

// Foreground returns a terminal's foreground process group, and ours.
func Foreground(tty int) (group, own int, err error) {
	group, err = unix.IoctlGetInt(tty, unix.TIOCGPGRP)
	return group, unix.Getpgrp(), err
}

// SetForeground makes a process group of this session a terminal's foreground
// one. The caller is in the foreground: in the background it would be stopped.
func SetForeground(tty, group int) error {
	return unix.IoctlSetPointerInt(tty, unix.TIOCSPGRP, group)
}
