package sys

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func openPath(t *testing.T, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// What looks like the way up from a cgroup is one only within a mount.
func TestWalkCgroup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount")
	}
	err := InOwnMountNS(func() error {
		dir := t.TempDir()
		tree, other := filepath.Join(dir, "a"), filepath.Join(dir, "b")
		for _, d := range []string{tree, other} {
			if err := os.Mkdir(d, 0o755); err != nil {
				return err
			}
		}
		if err := unix.Mount("none", tree, "cgroup2", 0, ""); err != nil {
			return err
		}
		defer unix.Unmount(tree, unix.MNT_DETACH)
		top := filepath.Join(tree, "bpfbroker-test-walk")
		for _, d := range []string{"", "own", "own/x", "own/x/y", "foreign", "foreign/z"} {
			if err := os.Mkdir(filepath.Join(top, d), 0o755); err != nil {
				return err
			}
			defer os.Remove(filepath.Join(top, d))
		}
		own, e := IDOf(openPath(t, filepath.Join(top, "own")))
		if e != 0 {
			return e
		}
		// The foreign one, where it looks as if it were inside.
		disguised := filepath.Join(top, "own/x/y")
		if err := unix.Mount(filepath.Join(top, "foreign"), disguised, "", unix.MS_BIND, ""); err != nil {
			return err
		}
		defer unix.Unmount(disguised, unix.MNT_DETACH)
		// Its own, mounted by itself: who knows where from.
		if err := unix.Mount(filepath.Join(top, "own/x"), other, "", unix.MS_BIND, ""); err != nil {
			return err
		}
		defer unix.Unmount(other, unix.MNT_DETACH)
		for path, want := range map[string]Cgroup{
			filepath.Join(top, "own"):       {Inside: true},
			filepath.Join(top, "own/x"):     {Inside: true, Names: []string{"x"}},
			filepath.Join(top, "foreign/z"): {Names: []string{"z", "foreign", "bpfbroker-test-walk"}, Root: true},
			tree:                            {Root: true},
			disguised:                       {},
			filepath.Join(disguised, "z"):   {Names: []string{"z"}},
			other:                           {},
			filepath.Join(other, "y"):       {Names: []string{"y"}},
			filepath.Join(top, "own/x/../../foreign"): {Names: []string{"foreign", "bpfbroker-test-walk"}, Root: true},
		} {
			got, e := WalkCgroup(openPath(t, path), own)
			if e != 0 || got.Inside != want.Inside || got.Root != want.Root || !slices.Equal(got.Names, want.Names) {
				t.Errorf("%s: got %+v (%v), wanted %+v", path, got, e, want)
			}
		}
		if _, e := WalkCgroup(openPath(t, dir), own); e != unix.ENOTDIR {
			t.Errorf("a directory that is no cgroup: %v", e)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestProcess(t *testing.T) {
	cmd := exec.Command("sleep", strings.Repeat("0", 5000))
	cmd.Args = append(cmd.Args, "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	pid := cmd.Process.Pid
	if got, e := Comm(pid); e != 0 || got != "sleep" {
		t.Errorf("comm: got %q (%v)", got, e)
	}
	if got, e := Exe(pid); e != 0 || filepath.Base(got) != filepath.Base(evalled(t, cmd.Path)) {
		t.Errorf("exe: got %q (%v), wanted %q", got, e, cmd.Path)
	}
	args, e := Argv(pid)
	for range 1000 { // Start returns in the middle of execve(2), before there are any
		if e != 0 || len(args) > 0 {
			break
		}
		time.Sleep(time.Millisecond)
		args, e = Argv(pid)
	}
	if e != 0 || len(args) != 3 || args[0] != "sleep" || args[2] != cut || len(args[1]) != maxArgv-len("sleep\x00") {
		t.Errorf("argv: got %d (%v)", len(args), e)
	}
	if got, e := TGID(pid); e != 0 || got != pid {
		t.Errorf("tgid: got %d (%v)", got, e)
	}
	if got, e := UserNS(pid); e != 0 || got == 0 {
		t.Errorf("user namespace: got %d (%v)", got, e)
	}
	args, e = Argv(os.Getpid())
	if e != 0 || !slices.Equal(args, os.Args) {
		t.Errorf("own argv: got %q (%v)", args, e)
	}
}

func evalled(t *testing.T, path string) string {
	p, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestInterfaceName(t *testing.T) {
	if name, e := InterfaceName(1); e != 0 || name != "lo" {
		t.Errorf("interface 1: got %q (%v), wanted lo", name, e)
	}
	if name, e := InterfaceName(1 << 30); e != unix.ENODEV {
		t.Errorf("interface 1<<30: got %q (%v)", name, e)
	}
}

func TestFileName(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("x", 200))
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, e := FileName(openPath(t, path)); e != 0 || got != path {
		t.Errorf("got %q (%v), wanted %q", got, e, path)
	}
}

func TestPossibleCPUs(t *testing.T) {
	if PossibleCPUs() < 1 {
		t.Error("no CPU is possible")
	}
}

func TestMapReadOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := MapReadOnly(int(f.Fd()))
	if err != nil || !bytes.Equal(b, []byte("abc")) {
		t.Errorf("got %q (%v)", b, err)
	}
	unix.Munmap(b)
}
