package sys

import (
	"fmt"
	"os"
	"testing"
	"unsafe"
)

// The kernel may go from FaultAddr as far as 4 times an int, to either side.
func TestFaultAddr(t *testing.T) {
	p := make([]byte, 4)
	m, e := OpenMemory(os.Getpid())
	if e != 0 {
		t.Fatal(e)
	}
	defer m.Close()
	for _, index := range []int64{0, 1, -1, 4096, 1<<15 - 1, -1 << 15, 1<<31 - 1, -1 << 31, 1 << 24, -1 << 24} {
		addr := FaultAddr + uint64(4*index)
		if n, e := ReadMemory(os.Getpid(), addr, p); n != 0 || e != EFAULT {
			t.Errorf("read at index %d: got %d bytes, %v, wanted EFAULT", index, n, e)
		}
		if n, e := m.Write(addr, p); n != 0 || e != EFAULT {
			t.Errorf("write at index %d: got %d bytes, %v, wanted EFAULT", index, n, e)
		}
	}
}

func TestMapGuarded(t *testing.T) {
	for _, n := range []int{1, 4095, 4096, 4097, 1 << 20} {
		m, e := MapGuarded(n)
		if e != 0 {
			t.Fatal(e)
		}
		if len(m.Bytes) != n || cap(m.Bytes) != n {
			t.Errorf("%d bytes: got %d, capacity %d", n, len(m.Bytes), cap(m.Bytes))
		}
		m.Bytes[0], m.Bytes[n-1] = 1, 2
		end := Addr(m.Bytes) + uint64(n)
		if got, e := ReadMemory(os.Getpid(), end, make([]byte, 1)); e != EFAULT {
			t.Errorf("%d bytes: read %d behind the end, %v", n, got, e)
		}
		m.Unmap()
	}
}

func TestReadSegments(t *testing.T) {
	src := []byte("hello")
	a, b := make([]byte, 2), make([]byte, 3)
	at := Addr(src)
	if !ReadSegments(os.Getpid(), []Segment{{at, a}, {at + 2, b}}) || string(a)+string(b) != "hello" {
		t.Errorf("got %q, %q", a, b)
	}
	if ReadSegments(os.Getpid(), []Segment{{at, a}, {FaultAddr, b}}) {
		t.Error("read what faults")
	}
	if ReadSegments(os.Getpid(), make([]Segment, 17)) {
		t.Error("read more segments than it has room for")
	}
}

// Addr's memory doesn't move, though a goroutine's stack does when it grows.
func TestAddrStays(t *testing.T) {
	var grow func(n int) byte
	grow = func(n int) byte {
		var frame [1024]byte
		if n > 0 {
			frame[n] = grow(n - 1)
		}
		return frame[n/2]
	}
	for range 10 {
		done := make(chan error)
		go func() { // with a small stack
			var b [64]byte
			before := Addr(b[:])
			grow(1000)
			var err error
			if after := uint64(uintptr(unsafe.Pointer(&b[0]))); after != before {
				err = fmt.Errorf("the memory was at %#x, and is at %#x", before, after)
			}
			done <- err
		}()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}
