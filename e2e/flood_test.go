package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// TestFlood lets a workload do its worst, and looks at another one's calls
// meanwhile: they go on, and what worker and daemon of the flood hold is bounded.
// How much longer they take is measured, and compared with what as many busy
// threads that make no calls at all do to them. BPFBROKER_FLOOD is the number of
// calls that are timed for each.
func TestFlood(t *testing.T) {
	needRoot(t)
	n := count("BPFBROKER_FLOOD", 100)
	steady := start(t, inSession(brokered(probe("steady"))))
	steady.expect("ready")
	measure := func() time.Duration {
		steady.say(strconv.Itoa(n))
		ns, err := strconv.ParseInt(steady.hear(), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		steady.expect("ready")
		return time.Duration(ns)
	}
	report := []string{}
	for _, kind := range []string{"maps", "large programs", "slow programs", "logs", "ids", "spinning"} {
		alone := measure()
		c := probe("flood", kind)
		if kind != "spinning" {
			c = brokered(c)
		}
		f := start(t, inSession(c))
		f.expect("flooding")
		time.Sleep(300 * time.Millisecond)
		flooded := measure()
		line := fmt.Sprintf("%s: %v alone, %v beside it: %.1f times", kind, alone, flooded, float64(flooded)/float64(alone))
		if kind != "spinning" {
			w, d := f.process("worker"), f.process("daemon")
			state := look(w)
			line += fmt.Sprintf("; its worker has %d threads, %d MiB, its daemon %d threads, %d MiB", state.threads,
				statusField(w, "VmRSS")>>10, statusField(d, "Threads"), statusField(d, "VmRSS")>>10)
			if state.threads > maxServing+runtimeThreads {
				t.Errorf("%s: %d threads", kind, state.threads)
			}
			if mem := statusField(w, "VmRSS") >> 10; mem > 1500 {
				t.Errorf("%s: %d MiB", kind, mem)
			}
			if mem, threads := statusField(d, "VmRSS")>>10, statusField(d, "Threads"); mem > 300 || threads > 2*runtimeThreads {
				t.Errorf("%s: the daemon has %d MiB, %d threads", kind, mem, threads)
			}
		}
		report = append(report, line)
		began := time.Now()
		f.cmd.Process.Signal(syscall.SIGTERM)
		f.end(false)
		t.Logf("%s ended within %v: %s", kind, time.Since(began), f.stderr.String())
	}
	fmt.Println("flood:\n  " + strings.Join(report, "\n  "))
	steady.in.Close()
}

// inSession makes of a command one in a session of its own, as of another user's:
// the kernel shares processors out between sessions (sched(7), autogroup).
func inSession(c *exec.Cmd) *exec.Cmd {
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return c
}

func init() {
	// steady times calls, with pauses, and says the median.
	probes["steady"] = func() {
		runtime.LockOSThread()
		for {
			n, err := strconv.Atoi(ask("ready"))
			if err != nil {
				fail("%v", err)
			}
			times := make([]time.Duration, n)
			for i := range times {
				time.Sleep(2 * time.Millisecond)
				began := time.Now()
				fd, e := variety(1).create("steady")
				times[i] = time.Since(began)
				if e != 0 {
					fail("map_create: %v", e)
				}
				unix.Close(fd)
			}
			slices.Sort(times)
			fmt.Println(times[n/2].Nanoseconds())
		}
	}
	probes["flood"] = func() {
		large := make([]byte, 0, 8*900000)
		for range 900000 - 1 {
			large = append(large, movR0(0)...)
		}
		large = append(large, exit...)
		log := make([]byte, 1<<20)
		step := map[string]func() (int, sys.Errno){
			"maps":           func() (int, sys.Errno) { return variety(7).create("flood") },
			"large programs": func() (int, sys.Errno) { return load(progTypeSocket, "flood", large, 0, nil) },
			"slow programs":  func() (int, sys.Errno) { return load(progTypeSocket, "flood", slow(60000), 0, nil) },
			"logs":           func() (int, sys.Errno) { return load(progTypeSocket, "flood", slow(200), 2, log) },
			"ids":            func() (int, sys.Errno) { v, e := bpf(cmdMapNextID, new(attr), 8); return v - 1, e },
			"spinning": func() (int, sys.Errno) {
				for end := time.Now().Add(10 * time.Millisecond); time.Now().Before(end); {
				}
				return -1, 0
			},
		}[os.Args[1]]
		for range 64 {
			go func() {
				runtime.LockOSThread()
				for {
					if fd, e := step(); e == 0 && fd >= 0 {
						unix.Close(fd)
					}
				}
			}()
		}
		fmt.Println("flooding")
		select {}
	}
}
