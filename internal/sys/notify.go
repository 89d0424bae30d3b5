package sys

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// struct seccomp_notif, seccomp_notif_resp, seccomp_notif_addfd of
// include/uapi/linux/seccomp.h.

// SeccompData is struct seccomp_data: the suspended system call.
type SeccompData struct {
	Nr                 int32
	Arch               uint32
	InstructionPointer uint64
	Args               [6]uint64
}

// Notif is struct seccomp_notif.
type Notif struct {
	ID    uint64
	PID   uint32 // a thread's id in the receiver's pid namespace; 0: not visible there
	Flags uint32
	Data  SeccompData
}

type notifResp struct {
	id    uint64
	val   int64
	error int32
	flags uint32
}

type notifAddFD struct {
	id         uint64
	flags      uint32
	srcfd      uint32
	newfd      uint32
	newfdFlags uint32
}

type notifSizes struct{ notif, resp, data uint16 }

// The ioctl numbers: SECCOMP_IOW(…) and friends; magic '!'.
const (
	iocNotifRecv     = 0xc0502100
	iocNotifSend     = 0xc0182101
	iocNotifIDValid  = 0x40082102
	iocNotifAddFD    = 0x40182103
	iocNotifSetFlags = 0x40082104

	respContinue = 1 // SECCOMP_USER_NOTIF_FLAG_CONTINUE
	syncWakeUp   = 1 // SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP
)

// CheckNotifSizes compares the kernel's structure sizes
// (SECCOMP_GET_NOTIF_SIZES) with ours. A kernel with larger ones would write
// past our structures.
func CheckNotifSizes() error {
	var s notifSizes
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_NOTIF_SIZES, 0, uintptr(unsafe.Pointer(&s))); e != 0 {
		return fmt.Errorf("ask for seccomp notification sizes: %w", e)
	}
	if int(s.notif) != int(unsafe.Sizeof(Notif{})) || int(s.resp) != int(unsafe.Sizeof(notifResp{})) || int(s.data) != int(unsafe.Sizeof(SeccompData{})) {
		return fmt.Errorf("seccomp notification sizes: kernel has %d/%d/%d bytes, bpfbroker %d/%d/%d", s.notif, s.resp, s.data,
			unsafe.Sizeof(Notif{}), unsafe.Sizeof(notifResp{}), unsafe.Sizeof(SeccompData{}))
	}
	return nil
}

func ioctl(fd int, req uintptr, p unsafe.Pointer) (int, Errno) {
	r, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(p))
	return int(r), e
}

// NotifRecv waits for a notification (SECCOMP_IOCTL_NOTIF_RECV). ENOENT: the
// target went away meanwhile; EINTR: a signal.
func NotifRecv(listener int, n *Notif) Errno {
	*n = Notif{}
	_, e := ioctl(listener, iocNotifRecv, unsafe.Pointer(n))
	return e
}

// NotifValid returns 0 while the target still waits in the call that id names,
// ENOENT otherwise (SECCOMP_IOCTL_NOTIF_ID_VALID).
func NotifValid(listener int, id uint64) Errno {
	_, _, e := unix.RawSyscall(unix.SYS_IOCTL, uintptr(listener), iocNotifIDValid, uintptr(unsafe.Pointer(&id)))
	return e
}

// NotifSend answers a call: with the value val, or if err isn't 0 with that
// error, or if cont lets the kernel go on with the call as the target made it.
func NotifSend(listener int, id uint64, val int64, err Errno, cont bool) Errno {
	r := notifResp{id: id, val: val, error: -int32(err)}
	if cont {
		r.flags = respContinue
	}
	_, _, e := unix.RawSyscall(unix.SYS_IOCTL, uintptr(listener), iocNotifSend, uintptr(unsafe.Pointer(&r)))
	return e
}

// NotifAddFD installs our fd src, with O_CLOEXEC if asked for, in the fd table of
// the target that waits in the call id, and returns its number there. It doesn't
// answer the call: see docs/architecture.md, "Handing over an fd". Signals don't
// disturb it: the wait is repeated, and the kernel gives the number only once.
func NotifAddFD(listener int, id uint64, src int, cloexec bool) (int, Errno) {
	return addFD(listener, notifAddFD{id: id, srcfd: uint32(src)}, cloexec)
}

// NotifAddFDSend does the same, and answers the call with the number, in one step
// (SECCOMP_ADDFD_FLAG_SEND, Linux 5.14).
func NotifAddFDSend(listener int, id uint64, src int, cloexec bool) (int, Errno) {
	return addFD(listener, notifAddFD{id: id, srcfd: uint32(src), flags: unix.SECCOMP_ADDFD_FLAG_SEND}, cloexec)
}

func addFD(listener int, a notifAddFD, cloexec bool) (int, Errno) {
	if cloexec {
		a.newfdFlags = unix.O_CLOEXEC
	}
	for {
		n, e := ioctl(listener, iocNotifAddFD, unsafe.Pointer(&a))
		if e != unix.EINTR {
			return n, e
		}
	}
}

// NotifSyncWakeUp asks for synchronous wake-ups (kernel 6.6); EINVAL before.
func NotifSyncWakeUp(listener int) Errno {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), iocNotifSetFlags, syncWakeUp)
	return e
}

// WaitHangUp waits until the last task under the listener's filter is gone
// (POLLHUP; kernel/seccomp.c, seccomp_notify_poll, which says POLLERR when a
// signal interrupts it).
func WaitHangUp(listener int) error {
	for {
		p := []unix.PollFd{{Fd: int32(listener)}}
		if _, err := unix.Poll(p, -1); err != nil && err != unix.EINTR {
			return err
		}
		if p[0].Revents&(unix.POLLHUP|unix.POLLNVAL) != 0 {
			return nil
		}
	}
}

// HungUp is WaitHangUp without waiting.
func HungUp(listener int) bool {
	return poll(listener, 0)&(unix.POLLHUP|unix.POLLNVAL) != 0
}

// NotifPending says whether NotifRecv has something to return now.
func NotifPending(listener int) bool { return poll(listener, unix.POLLIN) != 0 }

// poll looks what of events is the case at fd.
func poll(fd int, events int16) int16 {
	p := []unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		if _, err := unix.Poll(p, 0); err != unix.EINTR {
			return p[0].Revents
		}
	}
}
