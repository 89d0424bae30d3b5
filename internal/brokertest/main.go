package brokertest

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Main is a TestMain: it runs the tests, and fails if they leave fds or
// goroutines behind.
func Main(m *testing.M) { os.Exit(run(m.Run)) }

func run(tests func() int) int {
	fds, goroutines := openFDs(), runtime.NumGoroutine()
	code := tests()
	if code != 0 || fuzzing() {
		return code // what a failed test leaves is no news, and fuzzing leaves its own
	}
	// A goroutine that has been told to end needs a moment.
	for range 100 {
		if runtime.NumGoroutine() <= goroutines {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		fmt.Fprintf(os.Stderr, "tests leave %d goroutines behind:\n", n-goroutines)
		pprof.Lookup("goroutine").WriteTo(os.Stderr, 2)
		code = 1
	}
	for fd, what := range openFDs() {
		if _, before := fds[fd]; !before && !ofRuntime(what) {
			fmt.Fprintf(os.Stderr, "tests leave fd %d behind: %s\n", fd, what)
			code = 1
		}
	}
	return code
}

func fuzzing() bool {
	f := flag.Lookup("test.fuzz")
	return f != nil && f.Value.String() != ""
}

// ofRuntime says whether the Go runtime itself keeps such fds: its poller's.
func ofRuntime(what string) bool {
	return what == "anon_inode:[eventpoll]" || what == "anon_inode:[eventfd]"
}

// openFDs returns the process's open fds and what they are.
func openFDs() map[int]string {
	out := map[int]string{}
	links, _ := filepath.Glob("/proc/self/fd/*")
	for _, l := range links {
		what, err := os.Readlink(l)
		if err != nil || strings.HasPrefix(what, "/proc/") && strings.HasSuffix(what, "/fd") {
			continue // the fd by which the list was read
		}
		n, _ := strconv.Atoi(filepath.Base(l))
		out[n] = what
	}
	return out
}
