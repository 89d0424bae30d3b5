package perform

import (
	"bytes"
	"strings"
	"testing"

	"github.com/bpfbroker/bpfbroker/abi"
)

func TestNameInPath(t *testing.T) {
	for _, name := range []string{"/bin/true", "x", "/", "../a//b/.", strings.Repeat("\xff", maxNamed), strings.Repeat("\x01", maxNamed)} {
		path := appendNamed(nil, 1<<30, []byte(name))
		if len(path) >= abi.MaxPath {
			t.Errorf("%d bytes: a path of %d", len(name), len(path))
		}
		if got, ok := nameIn(path); !ok || string(got) != name {
			t.Errorf("%q: comes back as %q, %v", name, got, ok)
		}
	}
	if got := string(appendNamed(nil, 7, bytes.Repeat([]byte("x"), maxNamed+1))); got != ownFDs+"7" {
		t.Errorf("one that is too long: %q", got)
	}
}

// Other paths say nothing: those of uprobes that weren't opened by us, too.
func FuzzNameIn(f *testing.F) {
	for _, s := range []string{"", "/", "/proc/thread-self/fd", "/proc/thread-self/fd/", "/proc/thread-self/fd/7", "/proc/thread-self/fd//7", "/proc/thread-self/fd//", string(appendNamed(nil, 7, []byte("/bin/true")))} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, path []byte) {
		name, ok := nameIn(path)
		if ok && (len(name) > len(path)/16 || !bytes.HasPrefix(path, []byte(ownFDs[:len(ownFDs)-1]))) {
			t.Errorf("%q says %q", path, name)
		}
		if i := bytes.LastIndexByte(path, '/'); ok && !bytes.Equal(path[:i], appendNamed(nil, 0, name)[:i]) && len(name) <= maxNamed {
			t.Errorf("%q says %q, which makes another path", path, name)
		}
	})
}
