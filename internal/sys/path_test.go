package sys

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// identity is which file an fd is open at.
func identity(t *testing.T, fd int) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(st.Dev, ":", st.Ino)
}

func open(t *testing.T, path string) string {
	t.Helper()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	return identity(t, fd)
}

// What a path leads to is what the kernel finds for the process that it is
// looked up for, which is another than ours: a child with its own directory and
// standard input.
func TestOpenPath(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"a/b", "cwd/inside"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "a/file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{
		"relative": "a/b", "absolute": dir + "/a", "dangling": "nothing", "loop": "loop", "up": "a/b/../../a/file",
		"cwd-of-self": "/proc/self/cwd", "stdin-of-self": "/proc/thread-self/fd/0", "proc": "/proc", "to-file": "a/file/",
	} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	child := exec.Command("sleep", "600")
	child.Dir = filepath.Join(dir, "cwd")
	stdin, err := os.Open(filepath.Join(dir, "a/file"))
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	child.Stdin = stdin
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		child.Process.Kill()
		child.Wait()
	}()
	as, e := CallerOf(child.Process.Pid)
	if e != 0 {
		t.Fatal(e)
	}
	base, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(base)

	file, inside, exe := open(t, dir+"/a/file"), open(t, dir+"/cwd/inside"), open(t, fmt.Sprintf("/proc/%d/exe", child.Process.Pid))
	for _, c := range []struct {
		path string
		want string // identity
		err  Errno
	}{
		{"a/file", file, 0},
		{dir + "/a/file", file, 0},
		{"absolute/file", file, 0},
		{"relative/../file", file, 0},
		{"up", file, 0},
		{"a//./file", file, 0},
		{"/../../../" + dir + "/a/file", file, 0},
		{"a/b/", open(t, dir+"/a/b"), 0},
		{"/", open(t, "/"), 0},
		{".", open(t, dir), 0},
		{"", "", unix.ENOENT},
		{"nothing", "", unix.ENOENT},
		{"dangling", "", unix.ENOENT},
		{"loop", "", unix.ELOOP},
		{"a/file/", "", unix.ENOTDIR},
		{"a/file/x", "", unix.ENOTDIR},
		{"to-file", "", unix.ENOTDIR},
		{strings.Repeat("x", 256), "", unix.ENAMETOOLONG},
		// What is a process's own is the child's.
		{"/proc/self/cwd/inside", inside, 0},
		{"/proc/thread-self/cwd/inside", inside, 0},
		{"/proc/self/root/" + dir + "/a/file", file, 0},
		{"/proc/self/fd/0", file, 0},
		{"/dev/stdin", file, 0},
		{"/dev/fd/0", file, 0},
		{"/proc/self/exe", exe, 0},
		{"/proc//self/./exe", exe, 0},
		{"proc/self/exe", exe, 0},
		{"cwd-of-self/inside", inside, 0},
		{"stdin-of-self", file, 0},
		{"/proc/self/task/../cwd/inside", inside, 0},
		{"/proc/self/status", open(t, fmt.Sprintf("/proc/%d/status", child.Process.Pid)), 0},
		{"/proc/mounts", open(t, fmt.Sprintf("/proc/%d/mounts", child.Process.Pid)), 0},
		{"/proc/self/fd/77", "", unix.ENOENT},
		{"/proc/self/fd/0/x", "", unix.ENOTDIR},
		{"/proc/self/cwd/nothing", "", unix.ENOENT},
		{fmt.Sprintf("/proc/%d/cwd/inside", child.Process.Pid), inside, 0},
	} {
		fd, e := OpenPath(base, []byte(c.path), as)
		if e != c.err {
			t.Errorf("%q: got %v, wanted %v", c.path, e, c.err)
		}
		if e != 0 {
			continue
		}
		if got := identity(t, fd); got != c.want {
			t.Errorf("%q: led to %s, wanted %s", c.path, got, c.want)
		}
		unix.Close(fd)
	}
}

// A link that ends in itself by way of proc ends, too.
func TestOpenPathLoopThroughProc(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/proc/self/cwd/../"+filepath.Base(dir)+"/loop", filepath.Join(dir, "loop")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	as, e := CallerOf(os.Getpid())
	if e != 0 {
		t.Fatal(e)
	}
	if fd, e := OpenPath(AtCWD, []byte("loop"), as); e != unix.ELOOP {
		t.Errorf("got fd %d, %v; wanted ELOOP", fd, e)
	}
}

func TestSplitPath(t *testing.T) {
	for path, want := range map[string][2]string{
		"/sys/fs/bpf/x": {"/sys/fs/bpf/", "x"}, "x": {".", "x"}, "/x": {"/", "x"}, "a/x/": {"a/", "x/"},
		"a//x//": {"a//", "x//"}, "/": {"/", "."}, "//": {"/", "."}, "..": {".", ".."}, "a/..": {"a/", ".."}, "": {"", ""},
	} {
		dir, name := SplitPath([]byte(path))
		if string(dir) != want[0] || string(name) != want[1] {
			t.Errorf("%q: got %q and %q, wanted %q and %q", path, dir, name, want[0], want[1])
		}
	}
}
