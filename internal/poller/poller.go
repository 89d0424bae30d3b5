// Package poller keeps the Go runtime's poller out of the way of a workload's fds.
//
// The poller is two fds, an epoll and an eventfd, whose numbers the runtime keeps for
// good, and uses on whichever thread it happens to run: when a garbage collection ends,
// when a timer is set. A thread with an fd table of its own (sys.Isolate) must have the
// very same two under the very same numbers. Without them the runtime ends the process;
// and with a target's files there it would follow a target's pointers.
//
// So they have to be above the numbers that applications use before anything opens the
// poller, and packages do so when they are initialised (protobuf opens the executable).
// Go initialises, of the packages whose imports are ready, the one with the lowest path
// first. This package comes early because it imports next to nothing: keep it so. If it
// no longer does, daemons and workers refuse to begin.
package poller

import (
	"os"
	"syscall"
	"time"
)

// Top is above the numbers that the poller gets: a target's fd of one of these two
// can't be taken, so they are out of what applications use.
const Top = 4096

// Sub-commands of bpfbroker whose processes isolate threads.
const (
	Worker = "worker"
	Daemon = "daemon"
)

func init() {
	if len(os.Args) > 1 && (os.Args[1] == Worker || os.Args[1] == Daemon) {
		Place()
	}
}

// Placed is where the poller was put.
type Placed struct {
	Epoll, Event int
	Limit        int           // of open files, RLIMIT_NOFILE
	Err          syscall.Errno // why it couldn't be; EMFILE: too few are allowed
}

var (
	placed Placed
	done   bool
)

// Place makes the Go runtime open its poller now, if this process hasn't called it
// before. Where the poller was there already it isn't moved: look whether it is where
// it should be. Not safe for use by several goroutines.
func Place() Placed {
	if !done {
		placed, done = place(), true
	}
	return placed
}

func place() (p Placed) {
	p.Limit = MaxFiles()
	top := min(p.Limit, Top)
	if top < 10 {
		p.Err = syscall.EMFILE
		return p
	}
	p.Epoll, p.Event = top-2, top-1
	// The kernel gives out the lowest free number: leave none but the last two.
	const path = 0x200000 // O_PATH, which every process can
	first, err := syscall.Open("/", path|syscall.O_CLOEXEC, 0)
	if err != nil {
		p.Err = err.(syscall.Errno)
		return p
	}
	// The table grows in one step, if it has to (see sys.Spawn).
	if high, e := duplicate(first, top-1); e == 0 {
		_ = syscall.Close(high)
	}
	last := first
	var gaps [][2]int // what was filled
	for last < top-3 {
		if last, p.Err = duplicate(first, 0); p.Err != 0 {
			break
		}
		if n := len(gaps); n > 0 && gaps[n-1][1] == last-1 {
			gaps[n-1][1] = last
		} else {
			gaps = append(gaps, [2]int{last, last})
		}
	}
	if p.Err == 0 {
		time.Sleep(time.Nanosecond) // the first timer starts the poller
	}
	_ = syscall.Close(first)
	for _, g := range gaps {
		if _, _, e := syscall.Syscall(sysCloseRange, uintptr(g[0]), uintptr(g[1]), 0); e != 0 && p.Err == 0 {
			p.Err = e
		}
	}
	return p
}

// MaxFiles is how many fds this process may have (RLIMIT_NOFILE).
func MaxFiles() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return Top
	}
	return int(min(limit.Cur, 1<<30))
}

// sysCloseRange is close_range(2), of the same number everywhere.
const sysCloseRange = 436

// duplicate makes another number of fd's file, min or the lowest above that is free.
func duplicate(fd, min int) (int, syscall.Errno) {
	n, _, e := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, uintptr(min))
	return int(n), e
}
