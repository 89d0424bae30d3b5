package sys

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SockFilter is one instruction of a seccomp program: struct sock_filter of
// include/uapi/linux/filter.h.
type SockFilter struct {
	Code   uint16
	Jt, Jf uint8
	K      uint32
}

const listenerFlags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER |
	unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV |
	unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH

func installFilter(prog unsafe.Pointer) (int, Errno) {
	fd, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, listenerFlags, uintptr(prog))
	return int(fd), e
}

// FilterSupported returns nil where the kernel has a seccomp listener whose
// received calls only a fatal signal interrupts
// (SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, Linux 5.19).
func FilterSupported() error {
	// The flags are looked at before the program: EFAULT means that all are known.
	if _, e := installFilter(nil); e != unix.EFAULT {
		return fmt.Errorf("seccomp listener with WAIT_KILLABLE_RECV needs Linux 5.19 with CONFIG_SECCOMP_FILTER: %w", e)
	}
	return nil
}

// InstallFilter puts all threads of this process under the seccomp program, and
// returns its listener (O_CLOEXEC). The caller needs CAP_SYS_ADMIN in its user
// namespace; no_new_privs is not set (seccomp(2)).
func InstallFilter(prog []SockFilter) (listener int, err error) {
	if len(prog) == 0 || len(prog) > 4096 {
		return -1, fmt.Errorf("a seccomp program has 1 to 4096 instructions, this one %d: %w", len(prog), unix.EINVAL)
	}
	p := unix.SockFprog{Len: uint16(len(prog)), Filter: (*unix.SockFilter)(unsafe.Pointer(&prog[0]))}
	fd, e := installFilter(unsafe.Pointer(&p))
	runtime.KeepAlive(prog)
	if e != 0 {
		return -1, fmt.Errorf("install seccomp filter of %d instructions: %w", len(prog), e)
	}
	return fd, nil
}

// TakeInheritedFDs lists the fds from 3 on that an exec would pass on, and sets
// O_CLOEXEC on them, so that they go only where they are meant to.
func TakeInheritedFDs() ([]int, error) {
	names, err := readDir("/proc/self/fd")
	if err != nil {
		return nil, fmt.Errorf("list own fds: %w", err)
	}
	var out []int
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil || fd < 3 {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			continue // the fd of the listing itself; one of the Go runtime's
		}
		unix.CloseOnExec(fd)
		out = append(out, fd)
	}
	return out, nil
}

// KeepOnExec clears O_CLOEXEC on fds.
func KeepOnExec(fds ...int) {
	for _, fd := range fds {
		unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0)
	}
}

// ReplaceByNull puts /dev/null in the place of open fds, with the same
// O_CLOEXEC: what was there is given up without the number becoming free.
func ReplaceByNull(fds ...int) error {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/null: %w", err)
	}
	defer unix.Close(null)
	for _, fd := range fds {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil {
			continue // not open
		}
		dup := 0
		if flags&unix.FD_CLOEXEC != 0 {
			dup = unix.O_CLOEXEC
		}
		if err := unix.Dup3(null, fd, dup); err != nil {
			return fmt.Errorf("replace fd %d: %w", fd, err)
		}
	}
	return nil
}

// ExecutableForAll returns a path under which any user may execute this
// process's binary, for as long as the file it returns (nil: none is needed)
// stays open. Where the binary's mode allows that to its owner alone, it is a
// copy in memory (memfd_create(2)), which others may execute and not read; its
// fd is min or above, so that a child's fd table of fewer leaves it in place.
func ExecutableForAll(min int) (path string, copy *os.File, err error) {
	const self = "/proc/self/exe"
	var st unix.Stat_t
	if err := unix.Stat(self, &st); err != nil {
		return "", nil, fmt.Errorf("own binary: %w", err)
	}
	if st.Mode&0o001 != 0 {
		return self, nil, nil
	}
	m, err := memoryCopy(self)
	if err != nil {
		return "", nil, fmt.Errorf("copy own binary, which only its owner may execute: %w", err)
	}
	ro, err := unix.FcntlInt(m.Fd(), unix.F_DUPFD_CLOEXEC, min)
	m.Close()
	if err != nil {
		return "", nil, fmt.Errorf("copy own binary, which only its owner may execute: %w", err)
	}
	return fmt.Sprintf("/proc/self/fd/%d", ro), os.NewFile(uintptr(ro), "bpfbroker"), nil
}

// NewSessionKeyring gives the calling thread, and what it executes, an empty
// session keyring: who inherits one possesses its keys, whatever its ids are
// (keyrings(7)).
func NewSessionKeyring() error {
	_, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0) // no name
	if err != nil && err != unix.ENOSYS {                                  // no CONFIG_KEYS, no keys
		return fmt.Errorf("new session keyring: %w", err)
	}
	return nil
}

// InInitialUserNS says whether this process's capabilities are the host's.
func InInitialUserNS() (bool, error) {
	const init = 0xEFFFFFFD // PROC_USER_INIT_INO
	return inFirstNS("user", init)
}

// inFirstNS says whether this process is in the namespace of a type that was there first,
// whose inode number the kernel has fixed (include/linux/proc_ns.h).
func inFirstNS(typ string, inode uint64) (bool, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/"+typ, &st); err != nil {
		return false, fmt.Errorf("own %s namespace: %w", typ, err)
	}
	return st.Ino == inode, nil
}

// LoopbackUp brings up lo in the calling thread's network namespace.
func LoopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	defer unix.Close(s)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	return nil
}
