package sys

import (
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SharedMemory makes memory for a T, zero, that several processes can map; T has
// no pointers. It can't be made smaller: who has it mapped doesn't fault
// (memfd_create(2), F_SEAL_SHRINK).
func SharedMemory[T any](name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, err
	}
	var t *T // of a T the compiler would make one, megabytes of zeros
	if err := unix.Ftruncate(fd, int64(unsafe.Sizeof(*t))); err != nil {
		unix.Close(fd)
		return nil, err
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// MapShared maps what SharedMemory made.
func MapShared[T any](fd int) (t *T, unmap func(), err error) {
	size := int(unsafe.Sizeof(*t))
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return nil, nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, nil, err
	}
	if seals&unix.F_SEAL_SHRINK == 0 || st.Size < int64(size) {
		return nil, nil, fmt.Errorf("shared memory of %d bytes, not of %d, or not sealed", st.Size, size)
	}
	b, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, err
	}
	return (*T)(unsafe.Pointer(unsafe.SliceData(b))), func() { unix.Munmap(b) }, nil
}

// WaitOn waits until somebody calls Wake for the word, which may be shared memory, or
// d has passed; not at all if it isn't v any more (futex(2)).
func WaitOn(word *uint32, v uint32, d time.Duration) {
	t := unix.NsecToTimespec(int64(d))
	unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWait, uintptr(v), uintptr(unsafe.Pointer(&t)), 0, 0)
}

// Wake wakes one that waits on the word.
func Wake(word *uint32) {
	unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWake, 1, 0, 0, 0)
}

// Park is WaitOn, and Unpark Wake, for a word of this process alone.
func Park(word *uint32, v uint32, d time.Duration) {
	t := unix.NsecToTimespec(int64(d))
	unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWait|futexPrivate, uintptr(v), uintptr(unsafe.Pointer(&t)), 0, 0)
}

// Unpark wakes one that has parked on the word.
func Unpark(word *uint32) {
	unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWake|futexPrivate, 1, 0, 0, 0)
}

const (
	futexWait    = 0 // FUTEX_WAIT, FUTEX_WAKE: between processes
	futexWake    = 1
	futexPrivate = 128 // FUTEX_PRIVATE_FLAG
)

// Monotonic is the time of CLOCK_MONOTONIC, in ns: the same for all processes. (It is
// the runtime's, which asks the vDSO; x/sys makes a system call.)
func Monotonic() int64 { return nanotime() }

//go:linkname nanotime runtime.nanotime
func nanotime() int64

// Since is how long ago a time of Monotonic is.
func Since(t int64) time.Duration { return time.Duration(Monotonic() - t) }

// maxMemoryFile is more than ReadMemoryFile has to read of anybody.
const maxMemoryFile = 16 << 20

// MemoryFile makes a file in memory that holds data, which nobody can change any more
// (memfd_create(2), F_SEAL_WRITE).
func MemoryFile(name string, data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL { // before Linux 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("make file in memory %q: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err = f.Write(data); err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("write file in memory %q: %w", name, err)
	}
	return f, nil
}

// ReadMemoryFile reads all of such a file; its fd stays open.
func ReadMemoryFile(fd int) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("look at file in memory: %w", err)
	}
	if st.Size > maxMemoryFile {
		return nil, fmt.Errorf("file in memory of %d bytes: at most %d", st.Size, maxMemoryFile)
	}
	b := make([]byte, st.Size)
	if n, err := unix.Pread(fd, b, 0); err != nil || n < len(b) {
		return nil, fmt.Errorf("read file in memory: %d of %d bytes: %w", n, len(b), err)
	}
	return b, nil
}
