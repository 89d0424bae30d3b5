package sys

import (
	"bytes"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Caller is what /proc/self and /proc/thread-self mean to a target: its process
// and thread ids in its own pid namespace.
type Caller struct{ TGID, TID uint32 }

// CallerOf returns the ids of thread tid. tid is of our pid namespace.
func CallerOf(tid int) (Caller, Errno) {
	tgid, err := statusField(tid, "NStgid:")
	if err != nil || len(tgid) == 0 {
		return Caller{}, unix.ESRCH
	}
	own, err := statusField(tid, "NSpid:")
	if err != nil || len(own) == 0 {
		return Caller{}, unix.ESRCH
	}
	return Caller{tgid[len(tgid)-1], own[len(own)-1]}, 0
}

// OpenPath looks a path up as the caller would, from the directory fd base (or
// AtCWD), and opens what it leads to with O_PATH: the file can be named, neither
// read nor written. The calling thread has the caller's root, working directory,
// ids and no capability.
//
// The kernel alone can't do it: /proc/self would be us, and what lies behind it
// ours (root, cwd, fds). So a path that comes through a magic link or ends in
// proc is walked step by step.
func OpenPath(base int, path []byte, as Caller) (int, Errno) {
	fd, err := unix.Openat2(base, string(path), &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS})
	if err == nil && !onProc(fd) {
		return fd, 0
	}
	if err == nil {
		unix.Close(fd)
	}
	w := walker{as: as}
	return w.walk(base, path)
}

// AtCWD is the working directory for OpenPath.
const AtCWD = unix.AT_FDCWD

// SplitPath divides the path of a file to be made into its directory and its
// name, which has the slashes that follow it.
func SplitPath(path []byte) (dir, name []byte) {
	end := len(bytes.TrimRight(path, "/"))
	i := bytes.LastIndexByte(path[:end], '/')
	switch {
	case len(path) == 0:
		return nil, nil
	case end == 0: // "/"
		return []byte("/"), []byte(".")
	case i < 0:
		return []byte("."), path
	}
	return path[:i+1], path[i+1:]
}

func onProc(fd int) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(fd, &fs) == nil && fs.Type == unix.PROC_SUPER_MAGIC
}

const procRootInode = 1 // PROC_ROOT_INO, fs/proc/internal.h

// maxLinks is MAXSYMLINKS, include/linux/namei.h.
const maxLinks = 40

type walker struct {
	as    Caller
	links int
}

func (w *walker) walk(base int, path []byte) (int, Errno) {
	if len(path) == 0 {
		return -1, unix.ENOENT
	}
	const flags = unix.O_PATH | unix.O_CLOEXEC
	start := "."
	if path[0] == '/' {
		base, start = unix.AT_FDCWD, "/"
	}
	at, err := unix.Openat(base, start, flags, 0)
	if err != nil {
		return -1, err.(unix.Errno)
	}
	rest := bytes.Split(path, []byte("/"))
	for len(rest) > 0 {
		name := string(rest[0])
		rest = rest[1:]
		switch {
		case name == "" || name == ".":
			if len(rest) == 0 { // "x/" is x, if that is a directory
				name = "."
				break
			}
			continue
		case name == "self" && isProcRoot(at):
			name = fmt.Sprint(w.as.TGID)
		case name == "thread-self" && isProcRoot(at):
			rest = slices.Concat([][]byte{[]byte("task"), fmt.Append(nil, w.as.TID)}, rest)
			name = fmt.Sprint(w.as.TGID)
		}
		next, e := w.step(at, name, &rest)
		unix.Close(at)
		if e != 0 {
			return -1, e
		}
		at = next
	}
	return at, 0
}

// step goes from a directory to what name is there. A symbolic link that is text
// becomes part of rest.
func (w *walker) step(at int, name string, rest *[][]byte) (int, Errno) {
	const flags = unix.O_PATH | unix.O_CLOEXEC
	next, err := unix.Openat(at, name, flags|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, err.(unix.Errno)
	}
	var st unix.Stat_t
	if err := unix.Fstat(next, &st); err != nil {
		unix.Close(next)
		return -1, err.(unix.Errno)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return next, 0
	}
	defer unix.Close(next)
	if w.links++; w.links > maxLinks {
		return -1, unix.ELOOP
	}
	// A magic link (/proc/PID/fd/N) leads where its text doesn't say; the kernel
	// asks whether the caller may trace the process.
	probe, err := unix.Openat2(at, name, &unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_NO_MAGICLINKS})
	if err == nil {
		unix.Close(probe)
	}
	if err == unix.ELOOP && onProc(at) {
		magic, err := unix.Openat(at, name, flags, 0)
		if err != nil {
			return -1, err.(unix.Errno)
		}
		return magic, 0
	}
	text := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(next, "", text)
	if err != nil {
		return -1, err.(unix.Errno)
	}
	if n == 0 {
		return -1, unix.ENOENT
	}
	*rest = slices.Concat(bytes.Split(text[:n], []byte("/")), *rest)
	start, dir := ".", at
	if text[0] == '/' {
		start, dir = "/", unix.AT_FDCWD
	}
	from, err := unix.Openat(dir, start, flags, 0)
	if err != nil {
		return -1, err.(unix.Errno)
	}
	return from, 0
}

func isProcRoot(fd int) bool {
	var st unix.Stat_t
	return onProc(fd) && unix.Fstat(fd, &st) == nil && st.Ino == procRootInode
}
