package sys

import (
	"fmt"
	"sync"

	"github.com/bpfbroker/bpfbroker/internal/poller"
)

// placed is where the runtime's poller is.
var placed = struct {
	once sync.Once
	poller.Placed
	err error
}{}

// PlacePoller makes sure that the Go runtime's poller is out of the way: see package
// poller. A process that isolates threads calls it first of all.
func PlacePoller() error {
	placed.once.Do(func() {
		placed.Placed = poller.Place()
		placed.err = checkPoller(placed.Placed)
	})
	return placed.err
}

func checkPoller(p poller.Placed) error {
	switch {
	case p.Epoll < homeFD+100:
		return fmt.Errorf("only %d open files are allowed (RLIMIT_NOFILE); at least %d are needed", p.Limit, homeFD+102)
	case p.Err != 0:
		return fmt.Errorf("fill fd table: %w", p.Err)
	}
	for fd, want := range map[int]string{p.Epoll: "anon_inode:[eventpoll]", p.Event: "anon_inode:[eventfd]"} {
		if got := readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); got != want {
			return fmt.Errorf("the Go runtime's poller isn't where it should be: fd %d is %q, not %q", fd, got, want)
		}
	}
	return nil
}
