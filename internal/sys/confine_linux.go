package sys

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Confine puts all threads of this process, which must have set no_new_privs, under
// a seccomp program without a listener. It can't be undone (seccomp(2)).
func Confine(prog []SockFilter) error {
	p := unix.SockFprog{Len: uint16(len(prog)), Filter: (*unix.SockFilter)(unsafe.Pointer(&prog[0]))}
	tid, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&p)))
	runtime.KeepAlive(prog)
	if e == 0 && tid != 0 {
		e = unix.ESRCH // a thread that can't be put under it
	}
	if e != 0 {
		return fmt.Errorf("install the worker's seccomp filter of %d instructions: %w", len(prog), e)
	}
	return nil
}

// LimitSelf bounds what this process may use for good: no core dumps, and so many
// bytes of memory that it may write to (RLIMIT_DATA).
func LimitSelf(data uint64) error {
	for what, limit := range map[int]uint64{unix.RLIMIT_CORE: 0, unix.RLIMIT_DATA: data} {
		if err := unix.Setrlimit(what, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
			return fmt.Errorf("limit resource %d to %d: %w", what, limit, err)
		}
	}
	return nil
}

// DropCapability takes a capability from all threads of this process for good, in its
// own user namespace. A process with cgo can't (syscall.AllThreadsSyscall, ENOTSUP).
func DropCapability(c Capability) error {
	var caps [2]unix.CapUserData
	if err := unix.Capget(&capHeader, &caps[0]); err != nil {
		return fmt.Errorf("own capabilities: %w", err)
	}
	word, bit := c/32, uint32(1)<<(c%32)
	caps[word].Effective &^= bit
	caps[word].Permitted &^= bit
	if _, _, e := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&capHeader)), uintptr(unsafe.Pointer(&caps[0])), 0); e != 0 {
		return fmt.Errorf("drop capability %d: %w", c, e)
	}
	runtime.KeepAlive(&caps)
	return nil
}
