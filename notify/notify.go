// Package notify is the seccomp listener: it receives suspended calls, says
// whether they still wait, and answers them.
package notify

import (
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// Listener is the fd of a seccomp filter with user notification. Its number may
// change (sys.Thread makes room for targets' fds), so it is held by address.
type Listener struct{ FD int }

// Notification is one suspended call.
type Notification struct {
	Cookie uint64 // the kernel's id of the suspended call
	TID    int    // the target: a thread's id in our pid namespace
	Data   sys.SeccompData
}

// Receive waits for the next suspended call. Once it returns one, only a fatal
// signal interrupts the target (SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV). An
// error means that the listener is of no use any more. The kernel writes the call
// to at, which is zero where none was received.
func (l *Listener) Receive(at *sys.Notif) (Notification, error) {
	for {
		switch e := sys.NotifRecv(l.FD, at); e {
		case 0:
			return Of(at), nil
		case sys.EINTR, sys.ENOENT: // a signal of ours; a target that was killed meanwhile
		default:
			return Notification{}, e
		}
	}
}

// Of is the call that was received at n.
func Of(n *sys.Notif) Notification {
	return Notification{Cookie: n.ID, TID: int(n.PID), Data: n.Data}
}

// Pending says whether Receive would return at once: a call waits, or the listener is of
// no use any more.
func (l *Listener) Pending() bool { return sys.NotifPending(l.FD) }

// Waits says whether the target still waits in the call. While it does, its
// thread id can't have gone to another: whatever was read or opened by that id
// before a true answer belongs to the target.
func (l *Listener) Waits(n *Notification) bool { return sys.NotifValid(l.FD, n.Cookie) == 0 }

// Install puts our fd into the target's table, with O_CLOEXEC if asked for, and
// returns its number there. ENOENT: the target is gone.
func (l *Listener) Install(n *Notification, fd int, cloexec bool) (int, sys.Errno) {
	return sys.NotifAddFD(l.FD, n.Cookie, fd, cloexec)
}

// InstallAndAnswer does both in one step, in which the target can't be interrupted: it has
// the fd's number, or there is no such fd.
func (l *Listener) InstallAndAnswer(n *Notification, fd int, cloexec bool) sys.Errno {
	_, e := sys.NotifAddFDSend(l.FD, n.Cookie, fd, cloexec)
	return e
}

// Answer ends the call with a value, or with an error where e isn't 0. False:
// the target is gone.
func (l *Listener) Answer(n *Notification, value int, e sys.Errno) bool {
	if e != 0 {
		value = 0
	}
	return sys.NotifSend(l.FD, n.Cookie, int64(value), e, false) == 0
}

// Continue leaves the call to the kernel, which decides with the workload's own
// rights and reads the arguments anew. It is never a grant: see the callers.
func (l *Listener) Continue(n *Notification) bool {
	return sys.NotifSend(l.FD, n.Cookie, 0, 0, true) == 0
}
