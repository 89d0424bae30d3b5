package sys

import (
	"fmt"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	pidfdThread      = unix.O_EXCL // PIDFD_THREAD, kernel 6.9
	iocPidfdGetInfo  = 0xc040ff0b  // PIDFD_GET_INFO with struct pidfd_info of 64 bytes (PIDFD_INFO_SIZE_VER0), 6.13
	iocPidfdCgroupNS = 0xff01      // PIDFD_GET_CGROUP_NAMESPACE, 6.11
	iocPidfdNetNS    = 0xff04      // PIDFD_GET_NET_NAMESPACE, 6.11
	iocPidfdPIDNS    = 0xff05      // PIDFD_GET_PID_NAMESPACE, 6.11
	iocNSPIDFromHere = 0x8004b706  // NS_GET_PID_FROM_PIDNS, 6.11
	iocNSPIDInThere  = 0x8004b708  // NS_GET_PID_IN_PIDNS, 6.11
	pidfdInfoPID     = 1 << 0
	pidfdInfoCreds   = 1 << 1
	kcmpFiles        = 2 // KCMP_FILES
)

// pidfdInfo is struct pidfd_info of include/uapi/linux/pidfd.h.
type pidfdInfo struct {
	mask, cgroupid         uint64
	pid, tgid, ppid        uint32
	ruid, rgid             uint32
	euid, egid, suid, sgid uint32
	fsuid, fsgid           uint32
	exitCode               int32
}

// Creds are the ids of a thread, in our user namespace.
type Creds struct{ RUID, EUID, SUID, FSUID, RGID, EGID, SGID, FSGID uint32 }

// PidfdOpen opens a pidfd of a thread, whichever of its process (PIDFD_THREAD).
// Before kernel 6.9, which can't, it opens the process's if the thread uses the
// process's fd table, and fails with EINVAL otherwise.
func PidfdOpen(tid int) (int, Errno) {
	r, _, e := unix.RawSyscall(unix.SYS_PIDFD_OPEN, uintptr(tid), pidfdThread, 0)
	if e != unix.EINVAL {
		return int(r), e
	}
	tgid, err := statusField(tid, "Tgid:")
	if err != nil {
		return -1, unix.ESRCH
	}
	if int(tgid[0]) != tid {
		if r, _, e := unix.RawSyscall6(unix.SYS_KCMP, uintptr(tid), uintptr(tgid[0]), kcmpFiles, 0, 0, 0); e != 0 || r != 0 {
			return -1, unix.EINVAL
		}
	}
	r, _, e = unix.RawSyscall(unix.SYS_PIDFD_OPEN, uintptr(tgid[0]), 0, 0)
	return int(r), e
}

// PidfdCreds returns the thread's id and credentials; ESRCH once it is gone.
// tid is needed on kernels before 6.13, where they come from /proc.
func PidfdCreds(pidfd, tid int) (Creds, Errno) {
	i := pidfdInfo{mask: pidfdInfoPID | pidfdInfoCreds}
	_, _, e := unix.RawSyscall(unix.SYS_IOCTL, uintptr(pidfd), iocPidfdGetInfo, uintptr(unsafe.Pointer(&i)))
	if e == 0 && i.mask&(pidfdInfoPID|pidfdInfoCreds) == pidfdInfoPID|pidfdInfoCreds {
		if int(i.pid) != tid {
			return Creds{}, unix.ESRCH
		}
		return Creds{i.ruid, i.euid, i.suid, i.fsuid, i.rgid, i.egid, i.sgid, i.fsgid}, 0
	}
	if e == unix.ESRCH {
		return Creds{}, e
	}
	uid, err := statusField(tid, "Uid:")
	if err != nil || len(uid) != 4 {
		return Creds{}, unix.ESRCH
	}
	gid, err := statusField(tid, "Gid:")
	if err != nil || len(gid) != 4 {
		return Creds{}, unix.ESRCH
	}
	return Creds{uid[0], uid[1], uid[2], uid[3], gid[0], gid[1], gid[2], gid[3]}, 0
}

// Groups returns the thread's supplementary groups, from /proc/TID/status.
func Groups(tid int) ([]uint32, error) { return statusField(tid, "Groups:") }

func statusField(tid int, key string) ([]uint32, error) {
	b, err := readFile("/proc/" + strconv.Itoa(tid) + "/status")
	if err != nil {
		return nil, err
	}
	return fieldOf(b, key)
}

// fieldOf reads the numbers of a line of a status file (proc_pid_status(5)).
func fieldOf(status []byte, key string) ([]uint32, error) {
	for line := range strings.Lines(string(status)) {
		rest, ok := strings.CutPrefix(line, key)
		if !ok {
			continue
		}
		var out []uint32
		for _, w := range strings.Fields(rest) {
			n, err := strconv.ParseUint(w, 10, 32)
			if err != nil {
				return nil, err
			}
			out = append(out, uint32(n))
		}
		return out, nil
	}
	return nil, fmt.Errorf("no %q in status", key)
}

// PidfdGetFD copies fd n of the pidfd's thread into our fd table (pidfd_getfd(2)).
func PidfdGetFD(pidfd, n int) (int, Errno) {
	r, _, e := unix.RawSyscall(unix.SYS_PIDFD_GETFD, uintptr(pidfd), uintptr(n), 0)
	return int(r), e
}

// openNS opens a namespace of the thread: by its pidfd where the kernel can,
// otherwise through /proc.
func openNS(pidfd, tid int, ioc uintptr, name string) (int, Errno) {
	r, _, e := unix.RawSyscall(unix.SYS_IOCTL, uintptr(pidfd), ioc, 0)
	if e == 0 {
		return int(r), 0
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/%s", tid, name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err.(unix.Errno)
	}
	return fd, 0
}

// Namespace is a kind of namespace that a thread may move to.
type Namespace int

const (
	NetNamespace Namespace = iota
	CgroupNamespace
)

var namespaces = [...]struct {
	ioc   uintptr
	name  string
	clone int
}{
	NetNamespace:    {iocPidfdNetNS, "net", unix.CLONE_NEWNET},
	CgroupNamespace: {iocPidfdCgroupNS, "cgroup", unix.CLONE_NEWCGROUP},
}

// OpenNS opens the thread's namespace of a kind.
func OpenNS(pidfd, tid int, kind Namespace) (int, Errno) {
	return openNS(pidfd, tid, namespaces[kind].ioc, namespaces[kind].name)
}

// SetNS moves the calling thread into the namespace that ns is open at.
func SetNS(ns int, kind Namespace) Errno {
	if err := unix.Setns(ns, namespaces[kind].clone); err != nil {
		return err.(unix.Errno)
	}
	return 0
}

// PIDFromTarget translates a pid from the thread's pid namespace to ours. ESRCH:
// there is none such.
func PIDFromTarget(pidfd, tid int, pid uint32) (uint32, Errno) {
	id, e := translatePID(pidfd, tid, iocNSPIDFromHere, pid)
	if e == unix.ENOTTY { // before 6.11
		return pidByScan(tid, pid)
	}
	return id, e
}

// translatePID asks the thread's pid namespace, by an ioctl of kernel 6.11; ENOTTY
// before.
func translatePID(pidfd, tid int, ioc uintptr, pid uint32) (uint32, Errno) {
	ns, e := openNS(pidfd, tid, iocPidfdPIDNS, "pid")
	if e != 0 {
		return 0, e
	}
	defer unix.Close(ns)
	r, _, e := unix.RawSyscall(unix.SYS_IOCTL, uintptr(ns), ioc, uintptr(pid))
	return uint32(r), e
}

// PIDInTarget translates the id that a process or thread has in our pid namespace
// to the one that it has in thread tid's: ESRCH where it has none there.
func PIDInTarget(pidfd, tid int, pid uint32) (uint32, Errno) {
	id, e := translatePID(pidfd, tid, iocNSPIDInThere, pid)
	if e != unix.ENOTTY {
		return id, e
	}
	// Before 6.11: NSpid lists its ids from our namespace inwards, and the
	// thread's own tell how deep its namespace is.
	theirs, err := statusField(tid, "NSpid:")
	if err != nil {
		return 0, unix.ESRCH
	}
	ids, err := statusField(int(pid), "NSpid:")
	if err != nil || len(ids) < len(theirs) {
		return 0, unix.ESRCH
	}
	return ids[len(theirs)-1], 0
}

// PIDOf returns the id, in our pid namespace, of the process or thread that a
// pidfd is open on (PIDFD_GET_INFO; else proc_pid_fdinfo(5)). ESRCH: it is gone.
func PIDOf(pidfd int) (uint32, Errno) {
	i := pidfdInfo{mask: pidfdInfoPID}
	_, _, e := unix.RawSyscall(unix.SYS_IOCTL, uintptr(pidfd), iocPidfdGetInfo, uintptr(unsafe.Pointer(&i)))
	if e != unix.ENOTTY && e != unix.EINVAL {
		return i.pid, e
	}
	b, err := readFile(fmt.Sprintf("/proc/thread-self/fdinfo/%d", pidfd))
	if err != nil {
		return 0, unix.ESRCH
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "Pid:"); ok {
			if n, err := strconv.ParseUint(strings.TrimSpace(v), 10, 32); err == nil && n > 0 {
				return uint32(n), 0
			}
		}
	}
	return 0, unix.ESRCH
}

// overflowUID is what the kernel shows for a user that a namespace doesn't map
// (the default of /proc/sys/kernel/overflowuid).
const overflowUID = 65534

// UIDInTarget translates a user id of our user namespace to the thread's, as
// from_kuid_munged does (user_namespaces(7), uid_map).
func UIDInTarget(tid int, uid uint32) (uint32, Errno) {
	// The map of our own namespace shows what its parent has.
	theirs := readlink(fmt.Sprintf("/proc/%d/ns/user", tid))
	if theirs == "" {
		return 0, unix.ESRCH
	}
	if theirs == readlink("/proc/thread-self/ns/user") {
		return uid, 0
	}
	b, err := readFile(fmt.Sprintf("/proc/%d/uid_map", tid))
	if err != nil {
		return 0, unix.ESRCH
	}
	for line := range strings.Lines(string(b)) {
		var inside, outside, size uint32
		if _, err := fmt.Sscan(line, &inside, &outside, &size); err != nil {
			return 0, unix.ESRCH
		}
		if uid >= outside && uid-outside < size {
			return inside + uid - outside, 0
		}
	}
	return overflowUID, 0
}

// pidByScan looks for the process that has this pid in the pid namespace of
// thread tid.
func pidByScan(tid int, pid uint32) (uint32, Errno) {
	want := readlink(fmt.Sprintf("/proc/%d/ns/pid", tid))
	procs, err := readDir("/proc")
	if err != nil || want == "" {
		return 0, unix.ESRCH
	}
	for _, p := range procs {
		n, err := strconv.Atoi(p)
		if err != nil {
			continue
		}
		ids, err := statusField(n, "NSpid:")
		if err != nil || ids[len(ids)-1] != pid {
			continue
		}
		if readlink("/proc/"+p+"/ns/pid") == want {
			return uint32(n), 0
		}
	}
	return 0, unix.ESRCH
}

// readFile, readlink and readDir are what package os has, without its poller,
// which lives in an fd table that isolated threads don't share.

func readFile(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return readAll(fd)
}

func readAll(fd int) ([]byte, error) {
	b := make([]byte, 0, 4096)
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := unix.Read(fd, b[len(b):cap(b)])
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return b, nil
		}
		b = b[:len(b)+n]
	}
}

// PathExists says whether there is a file called path, which ends in NUL; a symbolic
// link counts.
func PathExists(path []byte) bool {
	var st unix.Stat_t
	return unix.Lstat(string(path[:len(path)-1]), &st) == nil
}

func readlink(path string) string {
	var b [64]byte
	n, err := unix.Readlink(path, b[:])
	if err != nil {
		return ""
	}
	return string(b[:n])
}

func readDir(path string) ([]string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var names []string
	b := make([]byte, 8192)
	for {
		n, err := unix.ReadDirent(fd, b)
		if err != nil || n <= 0 {
			return names, err
		}
		_, _, names = unix.ParseDirent(b[:n], -1, names)
	}
}
