package workload

import (
	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/notify"
	"github.com/bpfbroker/bpfbroker/perform"
)

// Target is the thread whose call is suspended, as one broker thread sees it:
// its memory, its fds, and its place (ids, namespaces, file system). It is
// pointed at one notification after another (At).
type Target struct {
	Files
	owner    Owner
	thread   *sys.Thread
	listener *notify.Listener
	n        *notify.Notification
	// Again waits for the call to be made again, where a signal has interrupted it, and
	// returns it as it is then; nil: it isn't. A nil function: signals don't.
	Again func() *notify.Notification

	tid    int // the thread that pidfd is open on; it may be gone
	pidfd  int
	netNS  uint64 // the network namespace that the broker thread is in
	back   bool   // the thread can return to the one that it began in
	astray bool   // it has left, and can't
	cgroup uint64 // the cgroup namespace that it is in, 0: ours
	opened bool   // pidfd is known to be n's thread
	creds  sys.Creds
	groups []uint32 // for Plain
	path   int      // what OpenPath opened, or -1
	pin    int      // and Pinned

	pathBase int    // from where
	pathOf   []byte // and by which path

	mem  *sys.Memory // what Write has opened of n's, or nil
	root bool        // entered
	as   bool        // entered
}

// NewTarget returns the Target of a broker thread.
func NewTarget(t *sys.Thread, l *notify.Listener, known *Known, owner Owner) (*Target, error) {
	netNS, back, err := t.NetNS()
	if err != nil {
		return nil, err
	}
	return &Target{Files: FilesOf(known), owner: owner, thread: t, listener: l, pidfd: -1, path: -1, pin: -1, netNS: netNS, back: back}, nil
}

// Astray says that the thread is in a network namespace of one target's for good,
// and can't serve others.
func (t *Target) Astray() bool { return t.astray }

// At points the target at a notification.
func (t *Target) At(n *notify.Notification) { t.n, t.opened = n, false }

// waits says whether the target still waits in its call. While it does, its thread id
// can't have gone to another.
func (t *Target) waits() bool {
	for !t.listener.Waits(t.n) {
		if t.Again == nil {
			return false
		}
		n := t.Again()
		if n == nil {
			return false
		}
		t.n = n
	}
	return true
}

// Done closes what was opened for the target but what Take took: see Drop.
func (t *Target) Done() {
	if t.path >= 0 {
		sys.Close(t.path)
		t.path = -1
	}
	if t.pin >= 0 {
		sys.Close(t.pin)
		t.pin = -1
	}
	if t.mem != nil {
		t.mem.Close()
		t.mem = nil
	}
}

// Read implements request.Target.
func (t *Target) Read(addr uint64, p []byte) (int, sys.Errno) {
	n, e := sys.ReadMemory(t.n.TID, addr, p)
	return n, gone(e)
}

// ReadAll implements request.Target.
func (t *Target) ReadAll(segs []sys.Segment) bool { return sys.ReadSegments(t.n.TID, segs) }

// Write implements reply.Memory.
func (t *Target) Write(addr uint64, p []byte) (int, sys.Errno) {
	if t.mem == nil {
		m, e := sys.OpenMemory(t.n.TID)
		if e != 0 {
			return 0, gone(e)
		}
		t.mem = &m
		// The call may have taken long, and the id may be another's by now.
		if !t.waits() {
			t.Done()
			return 0, sys.ESRCH
		}
	}
	return t.mem.Write(addr, p)
}

// gone makes one error of a target that isn't there any more; who gets it as an
// answer isn't there either.
func gone(e sys.Errno) sys.Errno {
	if e == sys.ENOENT {
		return sys.ESRCH
	}
	return e
}

// open makes sure that pidfd is the target's: one of an earlier call serves, as
// long as its thread lives, for then the id can't be another's.
func (t *Target) open() sys.Errno {
	if t.opened {
		return 0
	}
	if t.pidfd >= 0 {
		if t.tid == t.n.TID {
			if c, e := sys.PidfdCreds(t.pidfd, t.tid); e == 0 {
				t.creds, t.opened = c, true
				return 0
			}
		}
		sys.Close(t.pidfd)
		t.pidfd = -1
	}
	fd, e := sys.PidfdOpen(t.n.TID)
	if e != 0 {
		return gone(e)
	}
	if e := t.thread.NewFD(&t.pidfd, fd); e != 0 {
		return e
	}
	t.tid = t.n.TID
	c, e := sys.PidfdCreds(t.pidfd, t.tid)
	if e != 0 {
		return gone(e)
	}
	// Opened by number: whose it is, is known only if the target still waits.
	if !t.waits() {
		return sys.ESRCH
	}
	t.creds, t.opened = c, true
	return 0
}

// Take implements request.Target. A file of no kind that bpf() takes isn't kept:
// a stand-in is refused with the same errno, and can't stall whoever closes it.
func (t *Target) Take(n int) (abi.Object, sys.Errno) {
	if e := t.open(); e != 0 {
		return 0, e
	}
	if e := t.thread.Place(&t.pidfd, n); e != 0 {
		return 0, e
	}
	return KindAt(t.thread, n)
}

// KindAt says what a file of the target's is that was put at number n. One of no
// kind that bpf() takes gives way to a stand-in.
func KindAt(thread *sys.Thread, n int) (abi.Object, sys.Errno) {
	k, e := sys.KindOf(n)
	if e == 0 && k == sys.OtherFile {
		e = thread.StandIn(n)
	}
	if e != 0 {
		thread.Clear(n)
	}
	return perform.ObjectOf(k), e
}

// Drop closes what Take took.
func (t *Target) Drop(n int) { t.thread.Clear(n) }

// LinkInfo implements request.Target.
func (t *Target) LinkInfo(n int, info []byte) sys.Errno { return perform.ObjectInfo(n, info) }

// Enter implements perform.Place.
func (t *Target) Enter(n perform.Needs) sys.Errno {
	if n == (perform.Needs{}) {
		return 0
	}
	if e := t.open(); e != 0 {
		return e
	}
	if n.Net {
		if e := t.enterNS(sys.NetNamespace, &t.netNS); e != 0 {
			return e
		}
	}
	if n.Cgroup {
		if e := t.enterNS(sys.CgroupNamespace, &t.cgroup); e != 0 {
			return e
		}
	}
	if n.Plain {
		g, err := sys.Groups(t.tid)
		if err != nil {
			return sys.ESRCH
		}
		t.groups = g
	}
	if n.Root {
		if e := t.thread.EnterRoot(t.tid, t.creds); e != 0 {
			return e
		}
		t.root, t.as = true, true
	}
	// What was opened and read by number is the target's only if it still waits.
	if (n.Root || n.Plain) && !t.waits() {
		t.Leave()
		return sys.ESRCH
	}
	e := sys.Errno(0)
	switch {
	case n.Plain:
		e = t.thread.ActPlain(t.creds, t.groups)
	case n.Creds:
		e = t.thread.ActAs(t.creds)
	default:
		return 0
	}
	if e != 0 {
		t.Leave()
		return e
	}
	t.as = true
	return 0
}

// OpenPath implements perform.Place. What it has opened it doesn't look up again.
func (t *Target) OpenPath(base int, path []byte) (int, sys.Errno) {
	if t.remembered(base, path) {
		return t.path, 0
	}
	given := base
	as, e := sys.CallerOf(t.n.TID)
	if e != 0 {
		return -1, e
	}
	if base == sys.AtCWD {
		if base, e = sys.OpenCWD(t.n.TID); e != 0 {
			return -1, gone(e)
		}
		defer sys.Close(base)
	}
	if e := t.Enter(perform.Needs{Root: true, Plain: true}); e != 0 {
		return -1, e
	}
	defer t.Leave()
	as.Lift = t.lift
	fd, e := sys.OpenPath(base, path, as)
	if e != 0 {
		return -1, e
	}
	if t.path >= 0 {
		sys.Close(t.path)
		t.path = -1
	}
	if e := t.thread.NewFD(&t.path, fd); e != 0 {
		return -1, e
	}
	t.pathBase, t.pathOf = given, append(t.pathOf[:0], path...)
	return t.path, 0
}

// lift runs f with our own capabilities, in the target's root.
func (t *Target) lift(f func()) sys.Errno {
	t.thread.Lift(t.creds)
	f()
	return t.thread.ActPlain(t.creds, t.groups)
}

// enterNS moves the thread into a namespace of the target's, where it stays until
// a target from another one comes: nothing else that it does looks at it. in is
// the one that it is in.
func (t *Target) enterNS(kind sys.Namespace, in *uint64) sys.Errno {
	ns, e := sys.OpenNS(t.pidfd, t.tid, kind)
	if e != 0 {
		return gone(e)
	}
	defer sys.Close(ns)
	// Before 6.11 it was opened by number.
	if !t.waits() {
		return sys.ESRCH
	}
	inode, e := sys.Inode(ns)
	if e != 0 || inode == *in {
		return e
	}
	if e := sys.SetNS(ns, kind); e != 0 {
		return e
	}
	*in = inode
	if kind == sys.NetNamespace && !t.back {
		t.astray = true
	}
	return 0
}

// Leave implements perform.Place.
func (t *Target) Leave() {
	if t.as {
		t.thread.BeSelf()
		t.as = false
	}
	if t.root {
		t.thread.LeaveRoot()
		t.root = false
	}
}

// NetNS implements perform.Place.
func (t *Target) NetNS() (int, sys.Errno) {
	if e := t.open(); e != 0 {
		return -1, e
	}
	ns, e := sys.OpenNS(t.pidfd, t.tid, sys.NetNamespace)
	if e != 0 {
		return -1, gone(e)
	}
	if !t.waits() { // before 6.11 it was opened by number
		sys.Close(ns)
		return -1, sys.ESRCH
	}
	return ns, 0
}

// TID implements perform.Place.
func (t *Target) TID() uint32 { return uint32(t.n.TID) }

// PIDFrom implements perform.Place.
func (t *Target) PIDFrom(pid uint32) (uint32, sys.Errno) {
	if e := t.open(); e != 0 {
		return 0, e
	}
	return sys.PIDFromTarget(t.pidfd, t.tid, pid)
}

// PIDIn implements perform.Place.
func (t *Target) PIDIn(pid uint32) (uint32, sys.Errno) {
	if e := t.open(); e != 0 {
		return 0, e
	}
	return sys.PIDInTarget(t.pidfd, t.tid, pid)
}

// UIDIn implements perform.Place.
func (t *Target) UIDIn(uid uint32) (uint32, sys.Errno) { return sys.UIDInTarget(t.n.TID, uid) }
