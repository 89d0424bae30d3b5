package sys

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// AttrRoom is what the kernel may write to of our attribute, bytes: its own union
// bpf_attr, which may be larger than that of Linux 6.18.
const AttrRoom = 1024

// BPF makes the bpf() system call (bpf(2)) with the attribute in attr, whose
// first size bytes the kernel takes as the attribute; the kernel may write
// anywhere in its own union bpf_attr, so attr must be AttrRoom large whatever size
// is. Addresses in attr must stay valid until BPF returns.
func BPF(cmd uint32, attr []byte, size uint32) (int, Errno) {
	r, _, e := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(unsafe.Pointer(unsafe.SliceData(attr))), uintptr(size))
	runtime.KeepAlive(attr)
	return int(r), e
}

// KernelRelease is what uname -r shows.
func KernelRelease() string {
	var u unix.Utsname
	_ = unix.Uname(&u) // fails for a bad address alone
	return unix.ByteSliceToString(u.Release[:])
}

// Addr is the address of b's first byte, for an attribute's pointer field; 0
// for an empty b. The caller keeps b alive.
func Addr(b []byte) uint64 {
	if len(b) == 0 {
		return 0
	}
	return onHeap(uintptr(unsafe.Pointer(unsafe.SliceData(b))))
}

// onHeap makes what the address is of escape to the heap: a goroutine's stack may move
// before the call, and the kernel would write to where it was.
//
//go:uintptrescapes
func onHeap(addr uintptr) uint64 { return uint64(addr) }
