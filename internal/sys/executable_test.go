package sys

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// The copy can be executed by all and read by root alone, is made once, and another
// one when the binary has changed.
func TestCachedCopy(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := filepath.Join(t.TempDir(), "cache")
	self := filepath.Join(t.TempDir(), "self")
	write := func(text string) *unix.Stat_t {
		t.Helper()
		if err := os.WriteFile(self, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(self, &st); err != nil {
			t.Fatal(err)
		}
		return &st
	}
	open := func(st *unix.Stat_t, want string) uint64 {
		t.Helper()
		f, err := cachedCopy(dir, self, st)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var have unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &have); err != nil || !unreadable(&have) {
			t.Errorf("mode %o, uid %d, %v", have.Mode, have.Uid, err)
		}
		if b, err := os.ReadFile(f.Name()); err != nil || string(b) != want {
			t.Errorf("it holds %q, %v", b, err)
		}
		return have.Ino
	}
	st := write("one")
	first := open(st, "one")
	if again := open(st, "one"); again != first {
		t.Error("it was made anew")
	}
	open(write("other"), "other")
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("%d files are left, %v", len(left), err)
	}
	// Where others may write, nothing is trusted.
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if f, err := cachedCopy(dir, self, st); err == nil {
		f.Close()
		t.Error("a directory that everybody may write to is trusted")
	}
}

func TestMemoryCopy(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	f, err := memoryCopy("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var have unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &have); err != nil || !unreadable(&have) {
		t.Errorf("mode %o, uid %d, %v", have.Mode, have.Uid, err)
	}
}
