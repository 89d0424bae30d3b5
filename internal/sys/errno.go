package sys

import "golang.org/x/sys/unix"

// Errno is the kernel's error number; 0 is success.
type Errno = unix.Errno

// The error numbers that other packages speak of.
const (
	EPERM      = unix.EPERM
	ENOENT     = unix.ENOENT
	ESRCH      = unix.ESRCH
	EINTR      = unix.EINTR
	E2BIG      = unix.E2BIG
	EBADF      = unix.EBADF
	EAGAIN     = unix.EAGAIN
	ENOMEM     = unix.ENOMEM
	EACCES     = unix.EACCES
	EFAULT     = unix.EFAULT
	EBUSY      = unix.EBUSY
	EEXIST     = unix.EEXIST
	EINVAL     = unix.EINVAL
	EMFILE     = unix.EMFILE
	ENOSPC     = unix.ENOSPC
	ENOTTY     = unix.ENOTTY
	ERANGE     = unix.ERANGE
	ENOSYS     = unix.ENOSYS
	EOPNOTSUPP = unix.EOPNOTSUPP
	EPIPE      = unix.EPIPE
	ECONNRESET = unix.ECONNRESET

	ETOOMANYREFS = unix.ETOOMANYREFS
)

// ErrnoName returns the kernel's name of an error number, such as "EPERM".
func ErrnoName(e Errno) string {
	if n := unix.ErrnoName(e); n != "" {
		return n
	}
	return e.Error()
}

// SIGKILL, for packages that have no other use for signals.
const SIGKILL = unix.SIGKILL
