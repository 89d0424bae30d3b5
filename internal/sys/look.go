package sys

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// FileID tells files apart: the inode number, and which file system it is of.
type FileID struct{ Dev, Ino uint64 }

// IDOf returns a file's, by what the kernel has cached: no file system is asked, which
// may never answer.
func IDOf(fd int) (FileID, Errno) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &st); err != nil {
		return FileID{}, err.(unix.Errno)
	}
	return FileID{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino}, 0
}

const (
	// cgroupRoot is the inode number of the root of a hierarchy (kernel/cgroup/cgroup.c,
	// cgroup_setup_root: its id is 1).
	cgroupRoot = 1
	// maxDepth is more than cgroups can be nested by their names' length.
	maxDepth = 1024
)

// Cgroup is the way from a cgroup up.
type Cgroup struct {
	// Inside says that it is below, or at, the one that was asked for.
	Inside bool
	// Names are those of the directories, the last first: below that one if it is inside,
	// and else below the root if Root says that the way has come there.
	Names []string
	Root  bool
}

// WalkCgroup goes from the directory at fd up to the cgroup that own is, or as far as
// there is a way. It stays in the mount: what is mounted elsewhere shows the parents of
// where it is mounted, which are whoever mounted it likes. (So a cgroup that is mounted
// by itself isn't found to be inside any.) Directories of cgroup v2 are never renamed.
func WalkCgroup(fd int, own FileID) (c Cgroup, e Errno) {
	at := fd
	defer func() {
		if at != fd {
			Close(at)
		}
	}()
	for range maxDepth {
		id, e := IDOf(at)
		switch {
		case e != 0:
			return c, e
		case id.Dev != own.Dev:
			return c, unix.ENOTDIR // no cgroup of v2
		case id == own:
			c.Inside = true
			return c, 0
		case id.Ino == cgroupRoot:
			c.Root = true
			return c, 0
		}
		name, e := FileName(at)
		if e != 0 {
			return c, e
		}
		up, err := unix.Openat2(at, "..", &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS})
		if err == unix.EXDEV {
			return c, 0 // the mount's root
		}
		if err != nil {
			return c, err.(unix.Errno)
		}
		if at != fd {
			Close(at)
		}
		at = up
		c.Names = append(c.Names, path.Base(name))
	}
	return c, unix.ELOOP
}

// FileName is how the kernel shows the path of the file at fd: as seen from the calling
// thread's root, and for one in a mount namespace that can't be reached from there, from
// that one's root (fs/d_path.c, d_path).
func FileName(fd int) (string, Errno) {
	b := make([]byte, 4096)
	n, err := unix.Readlink("/proc/thread-self/fd/"+strconv.Itoa(fd), b)
	if err != nil {
		return "", err.(unix.Errno)
	}
	if n == len(b) {
		return "", unix.ENAMETOOLONG
	}
	return string(b[:n]), 0
}

// InterfaceName is the name of an interface of the calling thread's network namespace
// (netdevice(7), SIOCGIFNAME).
func InterfaceName(index uint32) (string, Errno) {
	// Any socket will do, and this one reaches nothing before it is connected.
	r, _, e := unix.RawSyscall(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if e != 0 {
		return "", e
	}
	defer Close(int(r))
	var ifreq struct { // struct ifreq, include/uapi/linux/if.h
		name  [unix.IFNAMSIZ]byte
		index uint32
		_     [20]byte
	}
	ifreq.index = index
	if _, e := ioctl(int(r), unix.SIOCGIFNAME, unsafe.Pointer(&ifreq)); e != 0 {
		return "", e
	}
	name, _, _ := bytes.Cut(ifreq.name[:], []byte{0})
	return string(name), 0
}

// UserNS is the inode number of a process's user namespace.
func UserNS(pid int) (uint64, Errno) {
	link := readlink(fmt.Sprintf("/proc/%d/ns/user", pid))
	digits, ok := strings.CutPrefix(link, "user:[")
	n, err := strconv.ParseUint(strings.TrimSuffix(digits, "]"), 10, 64)
	if !ok || err != nil {
		return 0, unix.ESRCH
	}
	return n, 0
}

// TGID is the id of the process that thread tid is of.
func TGID(tid int) (int, Errno) {
	ids, err := statusField(tid, "Tgid:")
	if err != nil || len(ids) != 1 {
		return 0, unix.ESRCH
	}
	return int(ids[0]), 0
}

// Comm is a thread's name.
func Comm(tid int) (string, Errno) {
	b, e := readStart(fmt.Sprintf("/proc/%d/comm", tid), 64)
	return string(bytes.TrimSuffix(b, []byte("\n"))), e
}

// Exe is the path of what a process executes, as FileName has paths.
func Exe(tid int) (string, Errno) {
	b := make([]byte, 4096)
	n, err := unix.Readlink(fmt.Sprintf("/proc/%d/exe", tid), b)
	if err != nil {
		return "", unix.ESRCH
	}
	if n == len(b) {
		return "", unix.ENAMETOOLONG
	}
	return string(b[:n]), 0
}

const (
	// maxArgv bounds what Argv reads, in bytes, and maxArgs in strings.
	maxArgv = 4096
	maxArgs = 256
	// cut is what stands for the rest of arguments that are longer.
	cut = "…"
)

// Argv is a process's arguments, as its memory has them now; too long, with "…" at the
// end.
func Argv(tid int) ([]string, Errno) {
	b, e := readStart(fmt.Sprintf("/proc/%d/cmdline", tid), maxArgv+1)
	if e != 0 || len(b) == 0 {
		return nil, e
	}
	more := len(b) > maxArgv
	args := strings.Split(string(bytes.TrimSuffix(b[:min(len(b), maxArgv)], []byte{0})), "\x00")
	if len(args) > maxArgs {
		args, more = args[:maxArgs:maxArgs], true
	}
	if more {
		args = append(args, cut)
	}
	return slices.Clip(args), 0
}

// readStart reads a file, at most n bytes.
func readStart(path string, n int) ([]byte, Errno) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, unix.ESRCH
	}
	defer unix.Close(fd)
	b := make([]byte, n)
	for at := 0; ; {
		got, err := unix.Read(fd, b[at:])
		if err != nil {
			return nil, err.(unix.Errno)
		}
		if at += got; got == 0 || at == n {
			return b[:at], 0
		}
	}
}

// PossibleCPUs is the number of CPUs that there could be, for which maps have elements
// (/sys/devices/system/cpu/possible: "0-7"); 0: it isn't known.
func PossibleCPUs() int {
	b, e := readStart("/sys/devices/system/cpu/possible", 256)
	if e != 0 {
		return 0
	}
	n := 0
	for part := range strings.SplitSeq(strings.TrimSpace(string(b)), ",") {
		first, last, isRange := strings.Cut(part, "-")
		from, err := strconv.Atoi(first)
		to := from
		if err == nil && isRange {
			to, err = strconv.Atoi(last)
		}
		if err != nil || to < from {
			return 0
		}
		n += to - from + 1
	}
	return n
}

// MapReadOnly maps a file that doesn't change, to be read.
func MapReadOnly(fd int) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	return unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ, unix.MAP_SHARED)
}
