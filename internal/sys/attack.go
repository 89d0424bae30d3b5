//go:build attack

package sys

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Step is a system call that a test has a worker make which it has taken over.
type Step struct {
	Nr   uint64 // StepStore: see there
	Args [6]uint64
	// Bit i says what Args[i] is: an offset into the memory that comes with the steps,
	// or the number of an earlier step whose result is meant.
	Memory, Earlier uint64
	// If isn't 0: the step is left out (ECANCELED) unless the step of number If - 1 had
	// a result above 0.
	If     uint64
	Result int64 // as the kernel returns it: -errno
}

// StepStore isn't a system call: it stores the Args[2] low bytes of Args[1] at the
// address Args[0].
const StepStore = 1<<64 - 1

// RunSteps makes the steps on the calling thread, whatever their results are. A
// process that one of them makes ends at once.
func RunSteps(steps []Step, memory []byte) {
	base := Addr(memory)
	for i := range steps {
		s := &steps[i]
		if s.If != 0 && s.If <= uint64(i) && steps[s.If-1].Result <= 0 {
			s.Result = -int64(unix.ECANCELED)
			continue
		}
		var args [6]uintptr
		for j, a := range s.Args {
			switch {
			case s.Memory>>j&1 != 0:
				a += base
			case s.Earlier>>j&1 != 0 && a < uint64(i):
				a = uint64(steps[a].Result)
			}
			args[j] = uintptr(a)
		}
		if s.Nr == StepStore {
			store(args[0], args[1], args[2])
			continue
		}
		r, e := rawCall(uintptr(s.Nr), args)
		if s.Result = int64(r); e != 0 {
			s.Result = -int64(e)
		}
	}
	runtime.KeepAlive(memory)
}

func store(at, value, size uintptr) {
	src := unsafe.Slice((*byte)(unsafe.Pointer(&value)), min(size, unsafe.Sizeof(value)))
	copy(unsafe.Slice((*byte)(unsafe.Add(nil, at)), len(src)), src)
}

//go:noinline
func rawCall(nr uintptr, args [6]uintptr) (uintptr, Errno) {
	if nr != unix.SYS_CLONE && nr != unix.SYS_CLONE3 {
		r, _, e := syscall.Syscall6(nr, args[0], args[1], args[2], args[3], args[4], args[5])
		return r, e
	}
	r, _, e := syscall.RawSyscall6(nr, args[0], args[1], args[2], args[3], args[4], args[5])
	if r == 0 && e == 0 {
		for { // the child, which has no Go runtime
			syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	return r, e
}

// EOWNERDEAD is for a call over which a worker has ended.
const EOWNERDEAD = unix.EOWNERDEAD

// KillSelf ends this process by SIGKILL, as from outside.
func KillSelf() {
	unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGKILL)
	select {}
}
