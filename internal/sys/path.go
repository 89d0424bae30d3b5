package sys

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Caller is for whom a path is looked up: what /proc/self and /proc/thread-self
// mean to it.
type Caller struct {
	process, thread []uint32 // ids, in our pid namespace and in those below, to its own
	pidNS, userNS   string   // its own, as /proc/PID/ns shows them
	uid, gid        uint32   // of its file system accesses
	permitted       uint64   // its capabilities, in its user namespace
	effective       uint64
	// Lift runs f with our capabilities; nil: they are in effect anyhow.
	Lift func(f func()) Errno
}

// CallerOf returns what is to be known of thread tid.
func CallerOf(tid int) (c Caller, e Errno) {
	status, err := readFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return c, unix.ESRCH
	}
	c.pidNS = readlink(fmt.Sprintf("/proc/%d/ns/pid", tid))
	c.userNS = readlink(fmt.Sprintf("/proc/%d/ns/user", tid))
	c.process, _ = fieldOf(status, "NStgid:")
	c.thread, _ = fieldOf(status, "NSpid:")
	uids, _ := fieldOf(status, "Uid:")
	gids, _ := fieldOf(status, "Gid:")
	c.permitted, c.effective = capabilities(status, "CapPrm:"), capabilities(status, "CapEff:")
	if len(c.process) == 0 || len(c.process) != len(c.thread) || c.pidNS == "" || c.userNS == "" || len(uids) != 4 || len(gids) != 4 {
		return c, unix.ESRCH
	}
	c.uid, c.gid = uids[3], gids[3]
	return c, 0
}

// capabilities reads a set of a status file; none where there is no such line.
func capabilities(status []byte, key string) uint64 {
	for line := range bytes.Lines(status) {
		if v, ok := bytes.CutPrefix(line, []byte(key)); ok {
			n, err := strconv.ParseUint(string(bytes.TrimSpace(v)), 16, 64)
			if err == nil {
				return n
			}
		}
	}
	return 0
}

// lift runs f with our rights.
func (c *Caller) lift(f func()) Errno {
	if c.Lift != nil {
		return c.Lift(f)
	}
	f()
	return 0
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
	// own says that we are in the directory of a process in proc where the caller
	// may follow every link: its own, or one that it may trace. In another user
	// namespace than its we can't by its rights alone.
	own bool
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
		if name == "" || name == "." {
			if len(rest) > 0 {
				continue
			}
			name = "." // "x/" is x, if that is a directory
		}
		next, e := w.enter(at, name, &rest)
		unix.Close(at)
		if e != 0 {
			return -1, e
		}
		at = next
	}
	return at, 0
}

// enter is step, with an eye on proc.
func (w *walker) enter(at int, name string, rest *[][]byte) (next int, e Errno) {
	switch {
	case isProcRoot(at):
		w.own = false
		name, tid := w.self(at, name)
		if tid != "" {
			*rest = slices.Concat([][]byte{[]byte("task"), []byte(tid)}, *rest)
		}
		if next, e = w.step(at, name, rest); e == 0 {
			w.own = w.mayFollow(next)
		}
		return next, e
	case name == "..":
		w.own = false
	}
	if !w.own {
		return w.step(at, name, rest)
	}
	if lifted := w.as.lift(func() { next, e = w.step(at, name, rest) }); lifted != 0 {
		if e == 0 {
			unix.Close(next)
		}
		return -1, lifted
	}
	if e == unix.EXDEV { // something is mounted there, which isn't the process's own
		w.own = false
		return w.step(at, name, rest)
	}
	return next, e
}

// self says what a name in the root of a proc means: "self" is the directory of
// the caller's process, and "thread-self" that of its thread tid there. Each proc
// shows the ids of a pid namespace of its own.
func (w *walker) self(proc int, name string) (dir, tid string) {
	if name != "self" && name != "thread-self" {
		return name, ""
	}
	for i, pid := range w.as.process {
		dir := fmt.Sprint(pid)
		fd, err := unix.Openat(proc, dir, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		p, ok := w.inspect(fd)
		unix.Close(fd)
		switch {
		case !ok || !w.isCaller(p):
		case name == "thread-self":
			return dir, fmt.Sprint(w.as.thread[i])
		default:
			return dir, ""
		}
	}
	return "no-self", "" // the caller isn't in that namespace: ENOENT
}

// mayFollow says whether dir is the directory of a process whose links the caller
// may follow: its own; of another one in its user namespace that has its ids, can
// be dumped and has no capability that it hasn't; or of any there if it has
// CAP_SYS_PTRACE (kernel/ptrace.c, __ptrace_may_access; security/commoncap.c).
//
// dir is of one process for good, whoever gets its id.
func (w *walker) mayFollow(dir int) bool {
	p, ok := w.inspect(dir)
	if !ok {
		return false
	}
	if w.isCaller(p) {
		return true
	}
	if p.userNS != w.as.userNS {
		return false
	}
	if w.as.effective&(1<<unix.CAP_SYS_PTRACE) != 0 {
		return true
	}
	uids, err1 := fieldOf(p.status, "Uid:")
	gids, err2 := fieldOf(p.status, "Gid:")
	if err1 != nil || err2 != nil || len(uids) < 3 || len(gids) < 3 {
		return false
	}
	for i := range 3 { // real, effective, saved
		if uids[i] != w.as.uid || gids[i] != w.as.gid {
			return false
		}
	}
	// What can't be dumped is root's in proc.
	return p.owner == w.as.uid && capabilities(p.status, "CapPrm:")&^w.as.permitted == 0
}

// isCaller says whether p is the caller's process: a pid namespace and an id in
// it belong to one process only.
func (w *walker) isCaller(p process) bool {
	ids, err := fieldOf(p.status, "NStgid:")
	return err == nil && len(ids) > 0 && p.pidNS == w.as.pidNS && ids[len(ids)-1] == w.as.process[len(w.as.process)-1]
}

// process is what a directory of proc says.
type process struct {
	status        []byte
	pidNS, userNS string
	owner         uint32 // of the directory
}

// inspect reads what the directory dir of proc says of its process; false: it is
// none, or something else is mounted over what there is to be read.
func (w *walker) inspect(dir int) (p process, ok bool) {
	if !onProc(dir) {
		return p, false
	}
	e := w.as.lift(func() {
		var st unix.Stat_t
		if err := unix.Fstat(dir, &st); err != nil {
			return
		}
		p.owner = st.Uid
		file, err := unix.Openat2(dir, "status", &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC, Resolve: below})
		if err != nil {
			return
		}
		p.status, err = readAll(file)
		unix.Close(file)
		p.pidNS, p.userNS = linkBelow(dir, "ns/pid"), linkBelow(dir, "ns/user")
		ok = err == nil && p.pidNS != "" && p.userNS != ""
	})
	return p, ok && e == 0
}

// below keeps a lookup in one mount, and off links.
const below = unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS

// linkBelow reads a symbolic link, "" where there is none.
func linkBelow(dir int, path string) string {
	link, err := unix.Openat2(dir, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: below})
	if err != nil {
		return ""
	}
	defer unix.Close(link)
	b := make([]byte, 64)
	n, err := unix.Readlinkat(link, "", b)
	if err != nil {
		return ""
	}
	return string(b[:n])
}

// step goes from a directory to what name is there. A symbolic link that is text
// becomes part of rest.
func (w *walker) step(at int, name string, rest *[][]byte) (int, Errno) {
	const flags = unix.O_PATH | unix.O_CLOEXEC
	how := unix.OpenHow{Flags: flags | unix.O_NOFOLLOW}
	if w.own {
		how.Resolve = unix.RESOLVE_NO_XDEV
	}
	next, err := unix.Openat2(at, name, &how)
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
		w.own = false
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
	w.own = false
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
