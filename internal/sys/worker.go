package sys

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Capability is a capability's number (include/uapi/linux/capability.h).
type Capability int

// The capabilities that other packages speak of.
const (
	CAP_DAC_OVERRIDE    Capability = unix.CAP_DAC_OVERRIDE
	CAP_DAC_READ_SEARCH Capability = unix.CAP_DAC_READ_SEARCH
	CAP_KILL            Capability = unix.CAP_KILL
	CAP_SETPCAP         Capability = unix.CAP_SETPCAP
	CAP_SYS_RESOURCE    Capability = unix.CAP_SYS_RESOURCE
	CAP_SETGID          Capability = unix.CAP_SETGID
	CAP_SETUID          Capability = unix.CAP_SETUID
	CAP_NET_ADMIN       Capability = unix.CAP_NET_ADMIN
	CAP_SYS_CHROOT      Capability = unix.CAP_SYS_CHROOT
	CAP_SYS_PTRACE      Capability = unix.CAP_SYS_PTRACE
	CAP_SYS_ADMIN       Capability = unix.CAP_SYS_ADMIN
	CAP_SYSLOG          Capability = unix.CAP_SYSLOG
	CAP_PERFMON         Capability = unix.CAP_PERFMON
	CAP_BPF             Capability = unix.CAP_BPF
)

// BecomeWorkerParent locks the calling goroutine to its OS thread for good and
// makes the thread what a worker is forked from: in the network namespace that
// netNS is open at, and with a file system of its own that has nothing but a
// /proc, which shows the processes alone that who looks at it may trace
// (proc(5): subset, hidepid).
func BecomeWorkerParent(netNS int) error {
	runtime.LockOSThread()
	if err := unix.Setns(netNS, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	if err := ForkMountNS(); err != nil {
		return err
	}
	if err := barrenRoot(); err != nil {
		return fmt.Errorf("make the worker's file system: %w", err)
	}
	return nil
}

// barrenRoot makes the calling thread's mount namespace, which is its own, one of
// an empty root and /proc.
func barrenRoot() error {
	root, err := mountOf("tmpfs", "mode", "0555", "size", "4096", "nr_inodes", "3")
	if err != nil {
		return err
	}
	defer unix.Close(root)
	if err := unix.Mkdirat(root, "proc", 0o555); err != nil {
		return err
	}
	proc, err := mountOf("proc", "subset", "pid", "hidepid", "ptraceable")
	if err != nil {
		return err
	}
	defer unix.Close(proc)
	// Over the root, where it isn't found by name; then it becomes the root
	// (pivot_root(2), "pivot_root(".", ".")").
	if err := AttachMount(root, "/"); err != nil {
		return err
	}
	if err := unix.Fchdir(root); err != nil {
		return err
	}
	if err := unix.MoveMount(proc, "", unix.AT_FDCWD, "proc", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach proc: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the old root: %w", err)
	}
	if err := unix.MountSetattr(root, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return fmt.Errorf("make the root read-only: %w", err)
	}
	return unix.Chdir("/")
}

// mountOf makes a detached mount of a new file system with these options, names
// and values in turn.
func mountOf(fsType string, options ...string) (int, error) {
	fs, err := OpenFS(fsType, "")
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	for i := 0; i < len(options); i += 2 {
		if err := unix.FsconfigSetString(fs, options[i], options[i+1]); err != nil {
			return -1, fmt.Errorf("%s: option %s=%s: %w", fsType, options[i], options[i+1], err)
		}
	}
	if err := CreateFS(fs); err != nil {
		return -1, fmt.Errorf("%s: %w", fsType, err)
	}
	return MountOfFS(fs)
}

// Pause sleeps on the calling thread, without the Go runtime's timers.
func Pause(d time.Duration) {
	t := unix.NsecToTimespec(int64(d))
	unix.Nanosleep(&t, nil)
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

// SetThreadName names the calling thread (PR_SET_NAME); at most 15 bytes count.
func SetThreadName(name string) {
	b := append([]byte(name), 0)
	_ = unix.Prctl(unix.PR_SET_NAME, uintptr(Addr(b)), 0, 0, 0) // fails on a bad pointer alone
}

// Stopped says whether the process is stopped by a signal (proc_pid_stat(5)).
func Stopped(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	i := bytes.LastIndexByte(b, ')')
	return err == nil && i >= 0 && len(b) > i+2 && (b[i+2] == 'T' || b[i+2] == 't')
}

// CheckDumpable refuses where the kernel makes each process dumpable that changes its
// ids (fs.suid_dumpable, proc_sys_fs(5)): a worker does, and its workload could trace
// it then.
func CheckDumpable() error {
	b, err := os.ReadFile("/proc/sys/fs/suid_dumpable")
	if err != nil {
		return fmt.Errorf("fs.suid_dumpable: %w", err)
	}
	if string(bytes.TrimSpace(b)) == "1" {
		return errors.New("fs.suid_dumpable is 1, with which a workload could trace its worker: set it to 0 or 2 (sysctl fs.suid_dumpable=2)")
	}
	return nil
}

// SpareFromOOM makes the process the last that the kernel kills for want of memory.
// That takes CAP_SYS_RESOURCE (proc_pid_oom_score_adj(5)).
func SpareFromOOM(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("-900"), 0)
}

// OwnerOf is whose a file is.
func OwnerOf(fd int) (uid, gid uint32, e Errno) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, 0, err.(unix.Errno)
	}
	return st.Uid, st.Gid, 0
}

// Duplicate returns another fd of the same open file, O_CLOEXEC.
func Duplicate(fd int) (*os.File, error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(n), "duplicate"), nil
}
