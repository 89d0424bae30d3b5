// Package e2e tests bpfbroker as a whole: the built binary, the running kernel,
// real programs.
package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/launch"
	"github.com/bpfbroker/bpfbroker/worker"
)

// broker is the built bpfbroker; bin its directory, which everybody may read.
var broker, bin string

// probes are what this binary does instead of testing, if BPFBROKER_PROBE names
// one: the application of a test.
var probes = map[string]func(){}

const probeEnv = "BPFBROKER_PROBE"

func TestMain(m *testing.M) {
	launch.Main()
	if name := os.Getenv(probeEnv); name != "" {
		// The runtime's poller takes two fds when it is first needed, which its own timers
		// do at some time or other: now, so that numbers don't depend on it.
		if r, w, err := os.Pipe(); err == nil {
			r.Close()
			w.Close()
		}
		probes[name]()
		os.Exit(0)
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	var err error
	bin, err = os.MkdirTemp("", "bpfbroker-e2e-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(bin)
	if err := os.Chmod(bin, 0o755); err != nil {
		panic(err)
	}
	broker = filepath.Join(bin, "bpfbroker")
	build := exec.Command("go", "build", "-o", broker, "../cmd/bpfbroker")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if raceBuild() {
		// Static, as a worker must be.
		build = exec.Command("go", "build", "-race", "-tags", "netgo,osusergo", "-ldflags", "-linkmode external -extldflags -static", "-o", broker, "../cmd/bpfbroker")
		build.Env = append(os.Environ(), "CGO_ENABLED=1")
	}
	if out, err := build.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("build bpfbroker: %v\n%s", err, out))
	}
	// The test binary lies where only root may look.
	self, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(filepath.Join(bin, "probe"), self, 0o755)
	}
	if err != nil {
		panic(err)
	}
	return m.Run()
}

// takeFDs makes sure that new fds have numbers from n on, wherever the runtime's poller
// has its two.
func takeFDs(n int) {
	for fd := range n {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			unix.Dup3(0, fd, unix.O_CLOEXEC)
		}
	}
}

// raceBuild says that the binary is to have the race detector, which takes memory, and
// makes system calls that a worker's filter doesn't know.
func raceBuild() bool { return os.Getenv("BPFBROKER_RACE") != "" }

func needRoot(t *testing.T) {
	t.Helper()
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("needs root, not run with -short")
	}
}

// kinds are the kinds of worker that this kernel has. A test that goes through them is
// whole with those.
func kinds(t *testing.T) []string {
	t.Helper()
	best, err := worker.Supported()
	if err != nil {
		t.Fatal(err)
	}
	if best == worker.Capability {
		return []string{string(worker.Capability)}
	}
	return worker.Kinds()
}

// probe returns a command that runs a probe natively, as root.
func probe(name string, args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(bin, "probe"), args...)
	c.Env = append(os.Environ(), probeEnv+"="+name)
	c.Dir = "/"
	return c
}

// brokered makes of a command the same one under bpfbroker run, which allows all.
func brokered(c *exec.Cmd, flags ...string) *exec.Cmd { return brokeredBy("trusted", c, flags...) }

// brokeredBy is brokered under a policy: one that is built in, or a file.
func brokeredBy(policy string, c *exec.Cmd, flags ...string) *exec.Cmd {
	c.Args = append(append(append([]string{broker, "run", "--policy=" + policy}, flags...), "--", c.Path), c.Args[1:]...)
	c.Path = broker
	return c
}

// output runs the command and returns what it wrote to standard output.
func output(t *testing.T, c *exec.Cmd) string {
	t.Helper()
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		t.Fatalf("%v: %v\n%s%s", c.Args, err, out.String(), errs.String())
	}
	if errs.Len() > 0 {
		t.Errorf("%v: stderr: %s", c.Args, errs.String())
	}
	return out.String()
}
