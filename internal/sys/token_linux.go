package sys

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

const cmdTokenCreate = 36 // BPF_TOKEN_CREATE

// TokenSupported says whether the kernel has BPF tokens (Linux 6.9).
func TokenSupported() (bool, error) {
	attr := make([]byte, AttrRoom)
	switch _, e := BPF(cmdTokenCreate, tokenAttr(attr, -1), 8); e {
	case unix.EBADF: // it has looked at the fd
		return true, nil
	case unix.EINVAL: // it doesn't know the command
		return false, nil
	default:
		return false, fmt.Errorf("ask for BPF tokens: %w", e)
	}
}

// tokenAttr is the part of union bpf_attr called token_create: flags, bpffs_fd.
func tokenAttr(attr []byte, bpffs int32) []byte {
	for i := range 4 {
		attr[4+i] = byte(uint32(bpffs) >> (8 * i))
	}
	return attr
}

// CreateDelegation creates the bpffs that fs has begun (OpenFS), with these options
// (delegate_cmds, …; numbers in hexadecimal). The caller has CAP_SYS_ADMIN in the
// initial user namespace.
func CreateDelegation(fs int, options map[string]string) Errno {
	errno := func(err error) Errno {
		var e Errno
		if err != nil && !errors.As(err, &e) {
			e = unix.EIO
		}
		return e
	}
	// A bpffs of before 6.9 takes any option, and does nothing with it.
	if err := unix.FsconfigSetString(fs, "delegate_cmds", "?"); err == nil {
		return unix.EOPNOTSUPP
	}
	for _, name := range slices.Sorted(maps.Keys(options)) {
		if err := unix.FsconfigSetString(fs, name, options[name]); err != nil {
			return errno(err)
		}
	}
	return errno(unix.FsconfigCreate(fs))
}

// TokenOf makes a token from a bpffs that was created from fs and is mounted
// nowhere. The caller is in the bpffs's user namespace, and has CAP_BPF there.
func TokenOf(fs int) (int, error) {
	m, err := MountOfFS(fs)
	if err != nil {
		return -1, err
	}
	defer unix.Close(m)
	// The mount's own fd is O_PATH, of which no token is made.
	root, err := unix.Openat(m, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open root of bpffs: %w", err)
	}
	defer unix.Close(root)
	attr := make([]byte, AttrRoom)
	token, e := BPF(cmdTokenCreate, tokenAttr(attr, int32(root)), 8)
	if e != 0 {
		return -1, fmt.Errorf("BPF_TOKEN_CREATE: %w", e)
	}
	return token, nil
}

// InUserNS says whether process pid is in the user namespace whose inode is given, or
// in one below it.
func InUserNS(pid int, userNS uint64) bool {
	at, err := unix.Open(fmt.Sprintf("/proc/%d/ns/user", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	return err == nil && atOrAbove(at, userNS)
}

// NamespaceOwner is the uid of who made a user namespace, in the caller's.
func NamespaceOwner(ns int) (uint32, Errno) {
	uid, err := unix.IoctlGetUint32(ns, unix.NS_GET_OWNER_UID)
	if err != nil {
		return 0, err.(unix.Errno)
	}
	return uid, 0
}

// OwnedBelow says whether the namespace at ns belongs to the user namespace whose
// inode is given, or to one below it.
func OwnedBelow(ns int, userNS uint64) bool {
	at, err := unix.IoctlRetInt(ns, unix.NS_GET_USERNS)
	return err == nil && atOrAbove(at, userNS)
}

// atOrAbove says whether a user namespace, or one above it, has this inode. It closes
// the fd.
func atOrAbove(at int, userNS uint64) bool {
	var err error
	for err == nil {
		inode, e := Inode(at)
		if e == 0 && inode == userNS {
			unix.Close(at)
			return true
		}
		parent, up := unix.IoctlRetInt(at, unix.NS_GET_PARENT)
		unix.Close(at)
		at, err = parent, up
	}
	return false
}
