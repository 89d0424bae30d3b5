package sys

import (
	"fmt"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// Capability is a capability's number (include/uapi/linux/capability.h).
type Capability int

// The capabilities that other packages speak of.
const (
	CAP_SETGID     Capability = unix.CAP_SETGID
	CAP_SETUID     Capability = unix.CAP_SETUID
	CAP_NET_ADMIN  Capability = unix.CAP_NET_ADMIN
	CAP_SYS_CHROOT Capability = unix.CAP_SYS_CHROOT
	CAP_SYS_PTRACE Capability = unix.CAP_SYS_PTRACE
	CAP_SYS_ADMIN  Capability = unix.CAP_SYS_ADMIN
	CAP_SYSLOG     Capability = unix.CAP_SYSLOG
	CAP_PERFMON    Capability = unix.CAP_PERFMON
	CAP_BPF        Capability = unix.CAP_BPF
)

// BecomeWorkerParent locks the calling goroutine to its OS thread for good and
// makes the thread what a worker is forked from: in the network namespace that
// netNS is open at, with a bounding set of keep alone, and no_new_privs.
func BecomeWorkerParent(netNS int, keep []Capability) error {
	runtime.LockOSThread()
	if err := unix.Setns(netNS, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	for c := Capability(0); c < 64; c++ {
		if slices.Contains(keep, c) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err == unix.EINVAL {
			break // past the last one of this kernel
		} else if err != nil {
			return fmt.Errorf("drop capability %d from the bounding set: %w", c, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	return nil
}

// SocketPair returns two connected stream sockets, O_CLOEXEC.
func SocketPair() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control"), nil
}

// CloseOnExec sets O_CLOEXEC on fds that were inherited.
func CloseOnExec(fds ...int) error {
	for _, fd := range fds {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return fmt.Errorf("fd %d, which the parent should have left open: %w", fd, err)
		}
	}
	return nil
}

// SetNotDumpable forbids core dumps and reading this process's memory without
// capabilities.
func SetNotDumpable() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("set not dumpable: %w", err)
	}
	return nil
}

// WaitHangUp waits until the last task under the listener's filter is gone
// (POLLHUP; kernel/seccomp.c, seccomp_notify_poll, which says POLLERR when a
// signal interrupts it).
func WaitHangUp(listener int) error {
	for {
		p := []unix.PollFd{{Fd: int32(listener)}}
		if _, err := unix.Poll(p, -1); err != nil && err != unix.EINTR {
			return err
		}
		if p[0].Revents&(unix.POLLHUP|unix.POLLNVAL) != 0 {
			return nil
		}
	}
}
