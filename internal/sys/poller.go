package sys

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The Go runtime's poller is two fds, an epoll and an eventfd, whose numbers the
// runtime keeps for good, and uses on whichever thread it happens to run: when a
// garbage collection ends, when a timer is set. An isolated thread must have the
// very same two under the very same numbers. Without them the runtime ends the
// process; and with a target's files there it would follow a target's pointers.

// pollerTop is above the numbers that the poller gets: a target's fd of one of
// these two can't be taken, so they are out of what applications use.
const pollerTop = 4096

// poller is where the runtime's epoll and eventfd are, and how many fds there may be.
var poller = struct {
	once  sync.Once
	fds   [2]int
	limit int
	err   error
}{}

// PlacePoller makes the Go runtime open its poller now, out of the way. A process
// that isolates threads calls it first of all: later the poller is there already,
// among the numbers that targets use.
func PlacePoller() error {
	poller.once.Do(func() { poller.fds, poller.err = placePoller() })
	return poller.err
}

// maxFiles is how many fds this process may have (RLIMIT_NOFILE).
func maxFiles() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return pollerTop
	}
	return int(min(limit.Cur, 1<<30))
}

func placePoller() ([2]int, error) {
	poller.limit = maxFiles()
	top := min(poller.limit, pollerTop)
	if top < homeFD+100 {
		return [2]int{}, fmt.Errorf("only %d open files are allowed (RLIMIT_NOFILE); at least %d are needed", top, homeFD+100)
	}
	// The kernel gives out the lowest free number: leave none but the last two.
	first, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0) // which every process can
	if err != nil {
		return [2]int{}, err
	}
	// The table grows in one step, if it has to (see Spawn).
	if high, err := unix.FcntlInt(uintptr(first), unix.F_DUPFD_CLOEXEC, top-1); err == nil {
		unix.Close(high)
	}
	last := first
	var gaps [][2]int // what was filled
	for err == nil && last < top-3 {
		if last, err = unix.FcntlInt(uintptr(first), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			break
		}
		if n := len(gaps); n > 0 && gaps[n-1][1] == last-1 {
			gaps[n-1][1] = last
		} else {
			gaps = append(gaps, [2]int{last, last})
		}
	}
	if err == nil {
		time.Sleep(time.Nanosecond) // the first timer starts the poller
	}
	unix.Close(first)
	for _, g := range gaps {
		err = errors.Join(err, closeRange(g[0], g[1]))
	}
	if err != nil {
		return [2]int{}, fmt.Errorf("fill fd table: %w", err)
	}
	fds := [2]int{top - 2, top - 1}
	for i, want := range []string{"anon_inode:[eventpoll]", "anon_inode:[eventfd]"} {
		if got := readlink(fmt.Sprintf("/proc/self/fd/%d", fds[i])); got != want {
			return [2]int{}, fmt.Errorf("the Go runtime's poller isn't where it should be: fd %d is %q, not %q", fds[i], got, want)
		}
	}
	return fds, nil
}
