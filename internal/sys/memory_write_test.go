package sys

import (
	"bytes"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMemoryWrite writes where a process may, and nowhere else.
func TestMemoryWrite(t *testing.T) {
	page := os.Getpagesize()
	whole, err := unix.Mmap(-1, 0, 4*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(whole)
	// Two pages to write to (two mappings: one isn't copied on fork), one to read, one for nothing.
	if err := unix.Madvise(whole[:page], unix.MADV_DONTFORK); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mprotect(whole[2*page:3*page], unix.PROT_READ); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mprotect(whole[3*page:], unix.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	m, e := OpenMemory(os.Getpid())
	if e != 0 {
		t.Fatal(e)
	}
	defer m.Close()
	for _, c := range []struct{ at, n, want int }{
		{0, 1, 1},
		{0, 2 * page, 2 * page},
		{page - 1, 2, 2},
		{2*page - 3, 4, 3},
		{2 * page, 4, 0},
		{3 * page, 4, 0},
	} {
		data := bytes.Repeat([]byte{byte(c.n)}, c.n)
		n, e := m.Write(Addr(whole[c.at:]), data)
		if n != c.want || (e != 0) != (c.want == 0) {
			t.Errorf("write of %d bytes at %d: %d, %v; want %d", c.n, c.at, n, e, c.want)
		}
		if !bytes.Equal(whole[c.at:c.at+n], data[:n]) {
			t.Errorf("write of %d bytes at %d: they aren't there", c.n, c.at)
		}
	}
	if n, e := m.Write(0, []byte{1}); n != 0 || e != EFAULT {
		t.Errorf("write to NULL: %d, %v", n, e)
	}

	// Kernels before 6.11 are asked in another way.
	for _, at := range []int{0, page, page + 5, 2 * page, 3 * page} {
		addr := Addr(whole[at:])
		ask, e1 := m.writable(addr)
		read, e2 := m.writableByText(addr)
		if ask != read || e1 != e2 {
			t.Errorf("writable at %d: by query %#x, %v; by text %#x, %v", at, ask, e1, read, e2)
		}
	}
}
