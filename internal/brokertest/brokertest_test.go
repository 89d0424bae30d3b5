package brokertest

import (
	"bytes"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

func TestMain(m *testing.M) { Main(m) }

func TestSpace(t *testing.T) {
	var s Space
	addr := s.AtEnd([]byte("hello"))
	if (addr+5)%PageSize != 0 {
		t.Errorf("AtEnd: %#x isn't at a page's end", addr)
	}
	b := make([]byte, 8)
	if n, e := s.Read(addr, b); n != 5 || e != 0 || !bytes.Equal(b[:5], []byte("hello")) {
		t.Errorf("read to the end: got %d, %v, %q", n, e, b)
	}
	if n, e := s.Read(addr+5, b); n != 0 || e != sys.EFAULT {
		t.Errorf("read behind the end: got %d, %v", n, e)
	}
	if n, e := s.Read(0, nil); n != 0 || e != 0 {
		t.Errorf("read of nothing at NULL: got %d, %v", n, e)
	}
	if s.ReadAll([]sys.Segment{{Addr: addr, Data: b[:2]}, {Addr: addr + 4, Data: b[2:4]}}) {
		t.Error("ReadAll: succeeded past the end")
	}
	if !s.ReadAll([]sys.Segment{{Addr: addr, Data: b[:2]}, {Addr: addr + 2, Data: b[2:4]}}) || string(b[:4]) != "hell" {
		t.Errorf("ReadAll: got %q", b)
	}
	// hello was read once, and hell once more.
	if got := s.TooOften([]Span{{addr, 5}, {addr + 1, 3}}); !slices.Equal(got, []uint64{addr}) {
		t.Errorf("read too often: got %#x, wanted %#x", got, addr)
	}
	if n, e := s.Write(addr+3, []byte("p!?")); n != 2 || e != 0 || string(s.Get(addr, 5)) != "help!" {
		t.Errorf("write: got %d, %v, %q", n, e, s.Get(addr, 5))
	}
	s.Protect(addr)
	if n, e := s.Write(addr, []byte("x")); n != 0 || e != sys.EFAULT {
		t.Errorf("write to what is read-only: got %d, %v", n, e)
	}
	if want := []Span{{addr + 3, 2}}; !slices.Equal(s.Written, want) {
		t.Errorf("written: got %v, wanted %v", s.Written, want)
	}
	s.Unmap(addr)
	if n, e := s.Read(addr, b); n != 0 || e != sys.EFAULT {
		t.Errorf("read of what was unmapped: got %d, %v", n, e)
	}
}

func TestLeaks(t *testing.T) {
	stderr := os.Stderr
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	os.Stderr = null
	defer func() { os.Stderr = stderr; null.Close() }()

	// A goroutine of the test before that is just ending would hide one that stays.
	for before := -1; before != runtime.NumGoroutine(); time.Sleep(50 * time.Millisecond) {
		before = runtime.NumGoroutine()
	}
	stop := make(chan bool)
	if run(func() int { go func() { <-stop }(); return 0 }) == 0 {
		t.Error("a goroutine was left behind, and not found")
	}
	close(stop)
	var f *os.File
	if run(func() int { f, _ = os.Open("/dev/zero"); return 0 }) == 0 {
		t.Error("an fd was left behind, and not found")
	}
	f.Close()
	if run(func() int { return 0 }) != 0 {
		t.Error("nothing was left behind, but found")
	}
}
