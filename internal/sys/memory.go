package sys

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ReadMemory copies from the memory of the thread's process, at addr, to p
// (process_vm_readv(2)). It returns how many bytes came before the first page
// that can't be read, and EFAULT where that is none.
func ReadMemory(tid int, addr uint64, p []byte) (int, Errno) {
	if len(p) == 0 {
		return 0, 0
	}
	local := unix.Iovec{Base: unsafe.SliceData(p), Len: uint64(len(p))}
	remote := struct{ base, len uint64 }{addr, uint64(len(p))}
	r, _, e := unix.Syscall6(unix.SYS_PROCESS_VM_READV, uintptr(tid), uintptr(unsafe.Pointer(&local)), 1, uintptr(unsafe.Pointer(&remote)), 1, 0)
	runtime.KeepAlive(p)
	if e != 0 {
		return 0, e
	}
	return int(r), 0
}

// Segment is one piece of a scattered copy.
type Segment struct {
	Addr uint64 // in the target
	Data []byte // ours
}

// ReadSegments copies all segments in one call and says whether all of it came.
// Where it says no, what came is unknown: read them one by one.
func ReadSegments(tid int, segs []Segment) bool {
	const most = 16
	if len(segs) > most {
		return false
	}
	var local [most]unix.Iovec
	var remote [most]struct{ base, len uint64 }
	total := 0
	for i, s := range segs {
		local[i] = unix.Iovec{Base: unsafe.SliceData(s.Data), Len: uint64(len(s.Data))}
		remote[i].base, remote[i].len = s.Addr, uint64(len(s.Data))
		total += len(s.Data)
	}
	n := uintptr(len(segs))
	r, _, e := unix.Syscall6(unix.SYS_PROCESS_VM_READV, uintptr(tid), uintptr(unsafe.Pointer(&local)), n, uintptr(unsafe.Pointer(&remote)), n, 0)
	runtime.KeepAlive(segs)
	return e == 0 && int(r) == total
}

// MapGuarded returns n zero bytes that end right before a page that can't be
// touched, so that whoever runs past the end faults; the pages cost nothing
// until they are touched. Free it with Unmap.
func MapGuarded(n int) (Mapping, Errno) {
	page := unix.Getpagesize()
	size := (n + page - 1) / page * page
	b, err := unix.Mmap(-1, 0, size+page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return Mapping{}, unix.ENOMEM
	}
	if err := unix.Mprotect(b[size:], unix.PROT_NONE); err != nil {
		unix.Munmap(b)
		return Mapping{}, unix.ENOMEM
	}
	return Mapping{Bytes: b[size-n : size : size], whole: b}, 0
}

// Mapping is memory of its own, outside the Go heap.
type Mapping struct {
	Bytes []byte
	whole []byte
}

// Unmap gives the memory back; Bytes must not be touched afterwards.
func (m Mapping) Unmap() { unix.Munmap(m.whole) }

// FaultAddr is an address that faults whoever touches it: it stands for a
// pointer that could not be read, so that the kernel itself says EFAULT, in its
// own order of checks.
//
// So do the addresses around it, as far as the kernel goes from an address that
// an application gave: by 4 times an int, for an index into fd_array. They are
// only reserved, which costs nothing.
//
// 0: so many can't be reserved (RLIMIT_AS); then nothing may be performed.
var FaultAddr = func() uint64 {
	const reach = 4 << 31
	b, err := unix.Mmap(-1, 0, 2*reach, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return 0
	}
	return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) + reach
}()
