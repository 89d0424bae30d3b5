package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// TestFileShared: a uprobe changes the code of everyone who executes the file. Under
// observe it is for files that nobody else can execute.
func TestFileShared(t *testing.T) {
	needRoot(t)
	// A file system in memory that the host has, too, as /dev/shm is.
	hosts := t.TempDir()
	if err := unix.Mount("tmpfs", hosts, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(hosts, 0); err != nil {
			t.Error(err)
		}
	})
	program, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(hosts, "program"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(hosts), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, kind := range kinds(t) {
		c := probe("file-shared")
		c.Env = append(c.Env, "HOSTS="+filepath.Join(hosts, "program"))
		denied, ok, out := under(t, "observe", kind, c)
		const want = "own: event 0, link 0; the host's: event EPERM, link EPERM; in the host's memory: event EPERM, link EPERM; a memfd: event EPERM, link EPERM; own, bound elsewhere: event 0, link 0\n"
		if !ok || out != want {
			t.Errorf("%s: got\n%s, wanted\n%s\ndenied %q", kind, out, want, denied)
		}
		if len(denied) != 6 || !strings.Contains(denied[0], "perf_event.file_shared is true") || !strings.Contains(denied[1], "attach.file_shared") {
			t.Errorf("%s: denied %q", kind, denied)
		}
	}
}

func init() {
	probes["file-shared"] = func() {
		const uprobeMulti = 48
		dir, err := os.MkdirTemp("", "own")
		if err != nil {
			fail("%v", err)
		}
		defer os.Remove(dir)
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			fail("mount: %v", err)
		}
		defer unix.Unmount(dir, unix.MNT_DETACH)
		b, err := os.ReadFile("/bin/true")
		if err != nil {
			fail("%v", err)
		}
		own := filepath.Join(dir, "program")
		if err := os.WriteFile(own, b, 0o755); err != nil {
			fail("%v", err)
		}
		memfd, err := unix.MemfdCreate("program", 0)
		if err != nil {
			fail("%v", err)
		}
		if _, err := unix.Write(memfd, b); err != nil {
			fail("%v", err)
		}
		elsewhere := filepath.Join(dir, "elsewhere")
		if err := os.WriteFile(elsewhere, nil, 0o755); err != nil {
			fail("%v", err)
		}
		if err := unix.Mount(own, elsewhere, "", unix.MS_BIND, ""); err != nil {
			fail("bind: %v", err)
		}
		prog, e := loadFor(uint32(progType("kprobe")), uprobeMulti, "u", returns(0))
		if e != 0 {
			fail("load: %v", e)
		}
		name := func(fd int, e sys.Errno) string {
			if e == 0 {
				unix.Close(fd)
				return "0"
			}
			return unix.ErrnoName(syscall.Errno(e))
		}
		var said []string
		for _, f := range []struct{ what, path string }{
			{"own", own}, {"the host's", "/bin/true"}, {"in the host's memory", os.Getenv("HOSTS")},
			{"a memfd", fmt.Sprint("/proc/self/fd/", memfd)}, {"own, bound elsewhere", elsewhere},
		} {
			path, offsets := append([]byte(f.path), 0), make([]byte, 8)
			a := new(attr).u32(0, uint32(prog)).u32(8, uprobeMulti).u64(16, sys.Addr(path)).u64(24, sys.Addr(offsets)).u32(48, 1)
			event := name(eventOfFile(f.path))
			said = append(said, fmt.Sprintf("%s: event %s, link %s", f.what, event, name(bpf(cmdLinkCreate, a, 64, path, offsets))))
		}
		fmt.Println(strings.Join(said, "; "))
	}
}

// eventOfFile opens an event of every process that executes a file.
func eventOfFile(path string) (int, sys.Errno) {
	typ, ok := sys.EventType("uprobe")
	if !ok {
		fail("no uprobes")
	}
	name, at := append([]byte(path), 0), make([]byte, 112)
	abi.PerfEventOpen.Field("type").Put(at, uint64(typ))
	abi.PerfEventOpen.Field("size").Put(at, uint64(len(at)))
	abi.PerfEventOpen.Field("uprobe_path").Put(at, sys.Addr(name))
	fd, e := sys.PerfEventOpen(at, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
	runtime.KeepAlive(name)
	return fd, e
}
