package sys

import (
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// FileKind says what an open file is, without asking the file itself anything
// (a FUSE file may never answer).
type FileKind uint8

const (
	OtherFile FileKind = iota
	MapFile
	ProgFile
	LinkFile
	BTFFile
	TokenFile
	PerfEventFile
	PidfdFile
	NamespaceFile
	DirectoryFile
	CharDeviceFile
	StatsFile
)

var anonKinds = map[string]FileKind{
	"anon_inode:bpf-map":   MapFile,
	"anon_inode:bpf-prog":  ProgFile,
	"anon_inode:bpf_link":  LinkFile, // bpf_link_prime
	"anon_inode:bpf-link":  LinkFile, // bpf_link_new_fd: by id or from a pin
	"anon_inode:btf":       BTFFile,
	"anon_inode:bpf-stats": StatsFile,
	// A token is a nameless file of its bpffs. Others can be made to look like it,
	// but not like another kind: the kernel refuses them.
	"/bpf-token (deleted)":    TokenFile,
	"anon_inode:[perf_event]": PerfEventFile,
	"anon_inode:[pidfd]":      PidfdFile,
}

// KindOf classifies the file at fd of the calling thread's table. The names are
// those that the kernel gives its anonymous inodes (kernel/bpf/syscall.c,
// token.c, btf.c, kernel/events/core.c).
func KindOf(fd int) (FileKind, Errno) {
	var path [64]byte
	p := append(path[:0], "/proc/thread-self/fd/"...)
	p = strconv.AppendInt(p, int64(fd), 10)
	p = append(p, 0)
	var buf [32]byte
	r, _, e := unix.RawSyscall6(unix.SYS_READLINKAT, atFDCWD, uintptr(unsafe.Pointer(&p[0])), uintptr(unsafe.Pointer(&buf)), uintptr(len(buf)), 0, 0)
	if e != 0 {
		return OtherFile, e
	}
	name := string(buf[:r])
	k, sure := kindByName(name)
	if sure {
		return k, 0
	}
	// AT_STATX_DONT_SYNC: what the kernel has cached, no request to the file system.
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st); err != nil {
		return OtherFile, 0
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return DirectoryFile, 0
	case unix.S_IFCHR:
		return CharDeviceFile, 0
	}
	return OtherFile, 0
}

// kindByName classifies a file by what its link in /proc/PID/fd says; false: by
// that alone it can't be told.
func kindByName(name string) (k FileKind, sure bool) {
	if k, ok := anonKinds[name]; ok {
		return k, true
	}
	switch {
	case strings.HasPrefix(name, "pidfd:"), strings.HasPrefix(name, "anon_inode:[pidfd"):
		return PidfdFile, true
	case strings.HasPrefix(name, "net:["):
		return NamespaceFile, true
	}
	return OtherFile, !strings.HasPrefix(name, "/")
}

// objectIDs are the lines of /proc/PID/fdinfo/N that have an object's id
// (kernel/bpf/syscall.c, bpf_map_show_fdinfo and others; btf.c).
var objectIDs = map[FileKind]string{MapFile: "map_id:", ProgFile: "prog_id:", LinkFile: "link_id:", BTFFile: "btf_id:"}

// FindFDs lists the fds of thread tid that are open on the object of this kind and
// id (of any, where proc shows no id for the kind), and of which same says so, too.
func FindFDs(tid int, kind FileKind, id uint64, same func(fd int) bool) ([]int, Errno) {
	dir := "/proc/" + strconv.Itoa(tid)
	// Only its owner may list it: see OpenMemory.
	var st unix.Stat_t
	if err := unix.Stat(dir+"/fd", &st); err != nil {
		return nil, unix.ESRCH
	}
	unix.RawSyscall(unix.SYS_SETFSUID, uintptr(st.Uid), 0, 0)
	defer unix.RawSyscall(unix.SYS_SETFSUID, uintptr(unix.Geteuid()), 0, 0)
	names, err := readDir(dir + "/fd")
	if err != nil {
		return nil, unix.ESRCH
	}
	var out []int
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if k, sure := kindByName(readlink(dir + "/fd/" + name)); !sure || k != kind {
			continue
		}
		if key, ok := objectIDs[kind]; ok {
			b, err := readFile(dir + "/fdinfo/" + name)
			if err != nil {
				continue // it was closed meanwhile
			}
			if n, err := fieldOf(b, key); err != nil || len(n) != 1 || uint64(n[0]) != id {
				continue
			}
		}
		if same(fd) {
			out = append(out, fd)
		}
	}
	return out, 0
}

// Marks is how many marks of open files there are, beside 0: the signal that would
// be sent when a file is ready, which nobody asks for that of (fcntl(2), F_SETSIG).
const Marks = 64

// Mark marks the file that is open at fd, whatever fd it is open at elsewhere.
func Mark(fd, mark int) Errno {
	_, _, e := unix.RawSyscall(unix.SYS_FCNTL, uintptr(fd), unix.F_SETSIG, uintptr(mark))
	return e
}

// MarkOf is a file's mark, 0 for none.
func MarkOf(fd int) int {
	n, _, e := unix.RawSyscall(unix.SYS_FCNTL, uintptr(fd), unix.F_GETSIG, 0)
	if e != 0 {
		return 0
	}
	return int(n)
}

// iocPerfEventID is PERF_EVENT_IOC_ID of include/uapi/linux/perf_event.h.
const iocPerfEventID = 0x80082407

// PerfEventID is the kernel's number of the event that is open at fd, 0 for none.
func PerfEventID(fd int) uint64 {
	var id uint64
	if _, e := ioctl(fd, iocPerfEventID, unsafe.Pointer(&id)); e != 0 {
		return 0
	}
	return id
}

const atFDCWD = ^uintptr(99) // AT_FDCWD, -100

// IsListener says whether the file at fd is a listener of a seccomp filter
// (kernel/seccomp.c, init_listener).
func IsListener(fd int) bool {
	var buf [64]byte
	path := "/proc/thread-self/fd/" + strconv.Itoa(fd)
	n, err := unix.Readlink(path, buf[:])
	return err == nil && strings.HasPrefix(string(buf[:n]), "anon_inode:seccomp notify")
}
