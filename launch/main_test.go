package launch

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bpfbroker/bpfbroker/cgroups"
)

// runner is `run` without a broker (testdata/runner). It is built, as go test
// strips the symbols of its own binary, which keeping ignored signals needs.
// probe is a CMD (testdata/probe).
var runner, probe string

func TestMain(m *testing.M) {
	Main()
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	// What is ignored here (SIGHUP, under nohup) is ignored by all that is started.
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
	dir, err := os.MkdirTemp("", "launch")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0o755)
	runner, probe = filepath.Join(dir, "runner"), filepath.Join(dir, "probe")
	build := exec.Command("go", "build", "-o", dir+"/", "./testdata/runner", "./testdata/probe")
	if out, err := build.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("%v: %v\n%s", build.Args, err, out))
	}
	code := m.Run()
	if left := leftovers(""); len(left) > 0 {
		fmt.Fprintln(os.Stderr, "cgroups left behind:", left)
		return 1
	}
	if _, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err != syscall.ECHILD {
		fmt.Fprintln(os.Stderr, "child processes left behind")
		return 1
	}
	return code
}

var prefix = fmt.Sprintf("bpfbroker-t%d-", os.Getpid())

// leftovers are the cgroups of workloads that these tests made.
func leftovers(id string) []string {
	parent, err := cgroups.Open(cgroups.Self)
	if err != nil {
		panic(err)
	}
	defer parent.Close()
	found, _ := filepath.Glob(filepath.Join(parent.Name(), prefix+id+"*"))
	return found
}

var lastID atomic.Int64

func newID() string {
	return fmt.Sprintf("%s%d", strings.TrimPrefix(prefix, cgroupPrefix), lastID.Add(1))
}

func needRoot(t *testing.T) {
	t.Helper()
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// run returns a command that runs args under the runner.
func run(args ...string) *exec.Cmd {
	c := exec.Command(runner, append([]string{"-id", newID()}, args...)...)
	c.Dir = "/"
	return c
}

// output runs a shell script in a workload, and returns its output.
func output(t *testing.T, script string, flags ...string) string {
	t.Helper()
	return must(t, run(append(flags, "sh", "-c", script)...))
}

func must(t *testing.T, c *exec.Cmd) string {
	t.Helper()
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		t.Fatalf("%v: %v\n%s%s", c.Args, err, out.String(), errs.String())
	}
	if errs.Len() > 0 {
		t.Errorf("%v: stderr %q", c.Args, errs.String())
	}
	return out.String()
}

func equal(t *testing.T, what, got, want string) {
	t.Helper()
	if strings.TrimSpace(got) != strings.TrimSpace(want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// eventually waits for what no file descriptor tells.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func waitStatus(t *testing.T, err error) syscall.WaitStatus {
	t.Helper()
	if err == nil {
		return 0
	}
	var e *exec.ExitError
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	return e.Sys().(syscall.WaitStatus)
}
