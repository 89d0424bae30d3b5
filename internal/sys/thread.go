package sys

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/internal/poller"
)

// Thread is the calling OS thread made private: its own fd table, working
// directory and root, so that what one operation takes from a target can't be
// seen by, or collide with, anything else in this process.
//
// All methods must be called on the goroutine that called Isolate.
type Thread struct {
	home []*int // fds of ours in this table, which may have to make room
	root int    // our own root directory, to return to
	null int    // /dev/null, to stand in

	large    bool
	stderr   int // 2, for the runtime's last words, but while a target's fd 2 sits there
	uid, gid int
	caps     [2]unix.CapUserData
}

// homeFD is where our own fds sit in an isolated thread's table: above what
// most applications use (making room costs two calls), low enough that the
// table stays small (8 bytes a number).
const homeFD = 1000

// Isolate locks the calling goroutine to its OS thread for good, blocks all
// signals on it (a pending one makes a long BPF_PROG_LOAD fail with EAGAIN) and
// gives it an fd table, a root and a working directory of its own. In the table
// are, afterwards, fd 2, the Go runtime's poller (PlacePoller, which must have
// been called), and copies of keep, whose numbers are set to the copies'; all are
// O_CLOEXEC. When the goroutine ends, the thread ends with it.
func Isolate(keep ...*int) (*Thread, error) {
	if err := PlacePoller(); err != nil {
		return nil, err
	}
	runtime.LockOSThread()
	all := unix.Sigset_t{}
	for i := range all.Val {
		all.Val[i] = ^uint64(0)
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &all, nil); err != nil {
		return nil, fmt.Errorf("block signals: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_FILES | unix.CLONE_FS); err != nil {
		return nil, fmt.Errorf("unshare fd table: %w", err)
	}
	t := &Thread{}
	for i, k := range keep {
		if err := unix.Dup3(*k, homeFD+i, unix.O_CLOEXEC); err != nil {
			return nil, fmt.Errorf("keep fd %d: %w", *k, err)
		}
		*k = homeFD + i
		t.home = append(t.home, k)
	}
	next := homeFD + len(keep)
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open own root: %w", err)
	}
	if err := unix.Dup3(root, next, unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	t.root = next
	t.home = append(t.home, &t.root)
	null, err := openNull()
	if err != nil {
		return nil, fmt.Errorf("open /dev/null: %w", err)
	}
	next++
	if err := unix.Dup3(null, next, unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	t.null = next
	t.home = append(t.home, &t.null)
	if err := closeRange(0, 1); err != nil {
		return nil, err
	}
	if err := closeRange(3, homeFD-1); err != nil {
		return nil, err
	}
	if err := closeRange(next+1, placed.Epoll-1); err != nil {
		return nil, err
	}
	if err := closeRange(placed.Event+1, 1<<31-1); err != nil {
		return nil, err
	}
	t.uid, t.gid, t.stderr = unix.Getuid(), unix.Getgid(), 2
	t.home = append(t.home, &t.stderr)
	if err := unix.Capget(&capHeader, &t.caps[0]); err != nil {
		return nil, fmt.Errorf("own capabilities: %w", err)
	}
	return t, nil
}

// openNull opens /dev/null. A worker has none in its file system, but as its
// standard input.
func openNull() (int, error) {
	fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		return fd, nil
	}
	var st unix.Stat_t
	if unix.Fstat(0, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3) {
		return -1, err
	}
	return unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0)
}

func closeRange(lo, hi int) error {
	if _, _, e := unix.Syscall(unix.SYS_CLOSE_RANGE, uintptr(lo), uintptr(hi), 0); e != 0 {
		return fmt.Errorf("close fds %d to %d: %w", lo, hi, e)
	}
	return nil
}

// NewFD puts an fd that was just opened in this table out of the way, where
// Place can't collide with it unnoticed, and sets *fd to its number. What *fd
// was before is not closed.
func (t *Thread) NewFD(fd *int, got int) Errno {
	n, err := unix.FcntlInt(uintptr(got), unix.F_DUPFD_CLOEXEC, homeFD)
	unix.Close(got)
	if err != nil {
		return err.(unix.Errno)
	}
	*fd = n
	for _, h := range t.home {
		if h == fd {
			return 0
		}
	}
	t.home = append(t.home, fd)
	return 0
}

// Place copies fd n of the pidfd's thread into this table, at the same number n.
// If the target has no such fd (EBADF), nothing sits at n afterwards either.
// Fds of our own that are in the way move, but for the poller's: EMFILE.
func (t *Thread) Place(pidfd *int, n int) Errno {
	if e := t.admit(n); e != 0 {
		return e
	}
	got, e := PidfdGetFD(*pidfd, n)
	if e != 0 {
		if e == unix.EBADF {
			if e := t.makeRoom(n); e != 0 {
				return e
			}
		}
		return e
	}
	if got == n {
		return 0
	}
	e = t.put(&got, n)
	unix.Close(got)
	return e
}

// Vacate makes sure that nothing of ours sits at number n, where the target has nothing.
func (t *Thread) Vacate(n int) Errno {
	if e := t.admit(n); e != 0 {
		return e
	}
	return t.makeRoom(n)
}

// Put copies *fd, an fd of ours in this table, to number n, as Place does.
func (t *Thread) Put(fd *int, n int) Errno {
	if e := t.admit(n); e != 0 {
		return e
	}
	return t.put(fd, n)
}

// admit says whether a target's fd may come to number n.
func (t *Thread) admit(n int) Errno {
	if n < 0 {
		return unix.EBADF
	}
	if n == placed.Epoll || n == placed.Event {
		return unix.EMFILE
	}
	if n >= largeFD {
		t.large = true
	}
	return 0
}

// put copies *fd to n, where making room may give *fd another number.
func (t *Thread) put(fd *int, n int) Errno {
	if e := t.makeRoom(n); e != 0 {
		return e
	}
	if err := unix.Dup3(*fd, n, unix.O_CLOEXEC); err != nil {
		return err.(unix.Errno)
	}
	return 0
}

// largeFD is a number for which the table takes more memory than a thread should
// keep (8 bytes a number): a table never gets smaller.
const largeFD = 1 << 16

// Shelf returns the first of n numbers for fds of ours, numbers that hardly any target
// has. The table becomes large by them.
func (t *Thread) Shelf(n int) int {
	t.large = true
	top := min(placed.Limit, largeFD)
	if top <= poller.Top {
		top = placed.Epoll // which may be the last that are allowed
	}
	return top - n
}

// Large says that the thread's fd table has become too large to be kept.
func (t *Thread) Large() bool { return t.large }

// makeRoom moves a fd of ours that sits at n.
func (t *Thread) makeRoom(n int) Errno {
	if n < homeFD && n != 2 {
		return 0
	}
	for _, h := range t.home {
		if *h != n {
			continue
		}
		now, err := unix.FcntlInt(uintptr(n), unix.F_DUPFD_CLOEXEC, homeFD)
		if err != nil {
			return err.(unix.Errno)
		}
		unix.Close(n)
		*h = now
		return 0
	}
	return 0
}

// Clear closes fd n, which Place or StandIn put there.
func (t *Thread) Clear(n int) {
	for _, h := range t.home {
		if *h == n {
			return // nothing of the target's: EBADF, then NewFD took the number
		}
	}
	unix.Close(n)
	if t.stderr != 2 {
		if unix.Dup3(t.stderr, 2, unix.O_CLOEXEC) == nil {
			unix.Close(t.stderr)
			t.stderr = 2
		}
	}
}

// StandIn puts an fd at n that is of no kind that bpf() takes (/dev/null), in
// place of a target's file of an unexpected kind: the kernel then refuses it as
// it refuses the original, and nothing happens to the original.
func (t *Thread) StandIn(n int) Errno {
	if err := unix.Dup3(t.null, n, unix.O_CLOEXEC); err != nil {
		return err.(unix.Errno)
	}
	return 0
}

// Close closes an fd of this table.
func Close(fd int) { unix.Close(fd) }

// ActAs gives the calling thread the caller's real uid (which is what a
// program's created_by_uid shows) and file system ids. The effective ids and the
// capabilities stay. Return with BeSelf.
func (t *Thread) ActAs(c Creds) Errno {
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(c.RUID), keepID, keepID); e != 0 {
		return e
	}
	unix.RawSyscall(unix.SYS_SETFSGID, uintptr(c.FSGID), 0, 0)
	unix.RawSyscall(unix.SYS_SETFSUID, uintptr(c.FSUID), 0, 0)
	return 0
}

// ActPlain makes the calling thread open what the caller may open, and nothing
// more: with its file system ids, its supplementary groups, and no capability.
// Its effective uid is the caller's, too: to the kernel the effective uid that
// made a user namespace owns it, and has all capabilities there. The real and the
// saved uid stay ours: they are what kill(2) goes by, and the way back. Return
// with BeSelf.
func (t *Thread) ActPlain(c Creds, groups []uint32) Errno {
	if e := setGroups(groups); e != 0 {
		return e
	}
	unix.RawSyscall(unix.SYS_SETFSGID, uintptr(c.FSGID), 0, 0)
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, keepID, uintptr(c.FSUID), keepID); e != 0 {
		t.BeSelf()
		return e
	}
	none := t.caps
	none[0].Effective, none[1].Effective = 0, 0
	if err := unix.Capset(&capHeader, &none[0]); err != nil {
		t.BeSelf()
		return err.(unix.Errno)
	}
	return 0
}

// Lift gives the calling thread, after ActPlain, its own capabilities beside the
// caller's file system ids: it may follow links of processes, but opens no file
// that the caller may not open. Return with ActPlain.
func (t *Thread) Lift(c Creds) {
	t.BeSelf()
	unix.RawSyscall(unix.SYS_SETFSGID, uintptr(c.FSGID), 0, 0)
	unix.RawSyscall(unix.SYS_SETFSUID, uintptr(c.FSUID), 0, 0)
}

// BeSelf takes ActAs or ActPlain back, but for the groups, which nothing looks
// at otherwise.
func (t *Thread) BeSelf() {
	// The saved uid is ours, so this needs no capability.
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(t.uid), uintptr(t.uid), keepID); e != 0 {
		panic("sys: return to own uid: " + e.Error())
	}
	if err := unix.Capset(&capHeader, &t.caps[0]); err != nil {
		panic("sys: return to own capabilities: " + err.Error())
	}
	unix.RawSyscall(unix.SYS_SETFSGID, uintptr(t.gid), 0, 0)
}

// Yielding makes the calling thread one that doesn't interrupt another when it is
// woken (SCHED_BATCH, sched(7)).
func (t *Thread) Yielding() {
	var p struct{ priority int32 }
	// It fails where a container's filter forbids it, and is then as before.
	unix.RawSyscall(unix.SYS_SCHED_SETSCHEDULER, 0, schedBatch, uintptr(unsafe.Pointer(&p)))
}

const schedBatch = 3 // SCHED_BATCH

const keepID = ^uintptr(0)

func setGroups(g []uint32) Errno {
	_, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(g)), uintptr(unsafe.Pointer(unsafe.SliceData(g))), 0)
	runtime.KeepAlive(g)
	return e
}

// NetNS returns the inode number of the calling thread's network namespace, and
// whether the thread could return there: it needs CAP_SYS_ADMIN in the user
// namespace to which that belongs (setns(2)).
func (t *Thread) NetNS() (inode uint64, back bool, err error) {
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, false, fmt.Errorf("own network namespace: %w", err)
	}
	defer unix.Close(fd)
	inode, e := Inode(fd)
	if e != 0 {
		return 0, false, fmt.Errorf("own network namespace: %w", e)
	}
	return inode, SetNS(fd, NetNamespace) == 0, nil
}

// Inode returns the inode number of an open file: a namespace's identity.
func Inode(fd int) (uint64, Errno) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err.(unix.Errno)
	}
	return st.Ino, 0
}

// EnterRoot makes the calling thread see the file system from the root that
// thread tid has, whose creds are c. We stay in our mount namespace: a path is
// looked up in the tree of mounts in which it begins. The file system ids are the
// caller's afterwards, as we ourselves may search less than it may. Return with
// LeaveRoot and BeSelf.
func (t *Thread) EnterRoot(tid int, c Creds) Errno {
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", tid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err.(unix.Errno)
	}
	defer unix.Close(root)
	unix.RawSyscall(unix.SYS_SETFSGID, uintptr(c.FSGID), 0, 0)
	unix.RawSyscall(unix.SYS_SETFSUID, uintptr(c.FSUID), 0, 0)
	e := chroot(root)
	if e != 0 {
		t.BeSelf()
	}
	return e
}

// OpenCWD opens the working directory of thread tid with O_PATH: to name what is
// below it takes no right to search it.
func OpenCWD(tid int) (int, Errno) {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/cwd", tid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err.(unix.Errno)
	}
	return fd, 0
}

// LeaveRoot returns to our own root.
func (t *Thread) LeaveRoot() {
	if e := chroot(t.root); e != 0 {
		// A thread that can't return may not serve another call.
		panic("sys: return to own root: " + e.Error())
	}
}

func chroot(dir int) Errno {
	if err := unix.Fchdir(dir); err != nil {
		return err.(unix.Errno)
	}
	if err := unix.Chroot("."); err != nil {
		return err.(unix.Errno)
	}
	return 0
}

// capHeader means the calling thread.
var capHeader = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}

// OpenFDs lists the numbers in the calling thread's fd table; for tests.
func OpenFDs() []int {
	var out []int
	for n := 0; n < 1<<16; n++ {
		if _, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0); err == nil {
			out = append(out, n)
		}
	}
	return out
}
