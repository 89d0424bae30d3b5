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
)

var anonKinds = map[string]FileKind{
	"anon_inode:bpf-map":  MapFile,
	"anon_inode:bpf-prog": ProgFile,
	"anon_inode:bpf_link": LinkFile, // bpf_link_prime
	"anon_inode:bpf-link": LinkFile, // bpf_link_new_fd: by id or from a pin
	"anon_inode:btf":      BTFFile,
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
	if k, ok := anonKinds[name]; ok {
		return k, 0
	}
	switch {
	case strings.HasPrefix(name, "pidfd:"), strings.HasPrefix(name, "anon_inode:[pidfd"):
		return PidfdFile, 0
	case strings.HasPrefix(name, "net:["):
		return NamespaceFile, 0
	case !strings.HasPrefix(name, "/"):
		return OtherFile, 0
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

const atFDCWD = ^uintptr(99) // AT_FDCWD, -100
