package sys

import (
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Timer is the number of a timerfd (timerfd_create(2)) in the calling thread's fd
// table.
type Timer int

// NewTimer makes a timer that isn't set, O_CLOEXEC.
func NewTimer() (Timer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("make timer: %w", err)
	}
	return Timer(fd), nil
}

// Set makes the timer expire once, d > 0 from now, and not when it was to before. It
// panics where t is no timer's number: somebody would wait for ever.
func (t Timer) Set(d time.Duration) {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}
	if _, _, e := unix.RawSyscall6(unix.SYS_TIMERFD_SETTIME, uintptr(t), 0, uintptr(unsafe.Pointer(&spec)), 0, 0, 0); e != 0 {
		panic(fmt.Sprintf("set timer: %v", e))
	}
}

// Wait waits until the timer has expired since it was last set, unless another Wait
// has returned for that.
func (t Timer) Wait() error {
	var times [8]byte
	for {
		if _, err := unix.Read(int(t), times[:]); err != unix.EINTR {
			return err
		}
	}
}
