package tracing

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// Build tells one boot of a kernel, with certain modules, from all others: what a list
// of its names is of.
func Build() (string, error) {
	proc, err := os.OpenRoot("/proc")
	if err != nil {
		return "", err
	}
	defer proc.Close()
	b, err := (&host{proc: proc}).build()
	return digest(b), err
}

// Tracepoints lists the kernel's tracepoints by their ids, a line for each, as
// "316 sched:sched_switch". Events that tools define aren't in it: when one is removed,
// its id goes to another.
func Tracepoints() ([]byte, error) {
	root, err := openFS("tracefs", tracefsMount, sys.IsTracefs)
	if err != nil {
		return nil, err
	}
	if root == nil {
		return nil, errors.New("the kernel has no tracefs")
	}
	defer root.Close()
	return (&host{tracefs: root}).tracepoints()
}

func (h *host) tracepoints() ([]byte, error) {
	events, err := h.fixedEvents()
	if err != nil {
		return nil, err
	}
	if len(events) == 0 {
		return nil, errors.New("tracefs has no events")
	}
	var b bytes.Buffer
	for _, e := range events {
		id, err := h.tracefs.ReadFile(path.Join(e.dir(), "id"))
		if err != nil {
			continue // of a module that is gone, or an event of ftrace's own
		}
		fmt.Fprintf(&b, "%s %s\n", bytes.TrimSpace(id), e)
	}
	return b.Bytes(), nil
}
