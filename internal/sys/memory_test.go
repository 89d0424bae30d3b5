package sys

import (
	"os"
	"testing"
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
