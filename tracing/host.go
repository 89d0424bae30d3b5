package tracing

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// host is where copies are made from; nil: the kernel has none, or lets nobody look.
type host struct {
	tracefs, debugfs, proc *os.Root
}

// openHost opens what of this host there is, without mounting anything that is seen.
func openHost() (*host, error) {
	h := &host{}
	var err error
	if h.tracefs, err = openFS("tracefs", tracefsMount, sys.IsTracefs); err == nil {
		if h.debugfs, err = openFS("debugfs", debugfsMount, sys.IsDebugfs); err == nil {
			h.proc, err = os.OpenRoot("/proc")
		}
	}
	if err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

func (h *host) close() {
	for _, r := range []*os.Root{h.tracefs, h.debugfs, h.proc} {
		if r != nil {
			r.Close()
		}
	}
}

// openFS opens a file system of which the kernel has one: where it is mounted, else by a
// mount that is attached nowhere.
func openFS(fsType, mounted string, is func(string) (bool, error)) (*os.Root, error) {
	if there, err := is(mounted); err == nil && there {
		return os.OpenRoot(mounted)
	}
	m, err := detached(fsType)
	if unavailable(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer sys.Close(m)
	return os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", m))
}

// detached makes a mount of a file system that is attached nowhere.
func detached(fsType string) (mount int, err error) {
	fd, err := sys.OpenFS(fsType, "")
	if err != nil {
		return -1, err
	}
	defer sys.Close(fd)
	if err := sys.CreateFS(fd); err != nil {
		return -1, err
	}
	return sys.MountOfFS(fd)
}

// unavailable says whether an error means that the kernel doesn't have a file or file
// system, or by its configuration or lockdown shows it to nobody: then natively root
// doesn't see it either.
func unavailable(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || // EPERM, EACCES
		errors.Is(err, syscall.ENODEV)
}

// read returns a file's content; nil: it is unavailable.
func read(root *os.Root, name string) ([]byte, error) {
	if root == nil {
		return nil, nil
	}
	b, err := root.ReadFile(name)
	if unavailable(err) {
		return nil, nil
	}
	if b == nil && err == nil {
		b = []byte{}
	}
	return b, err
}

// build tells one boot of a kernel, with certain modules, from all others.
func (h *host) build() (string, error) {
	boot, err := h.proc.ReadFile("sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	modules, err := read(h.proc, "modules")
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.Write(boot)
	for line := range bytes.Lines(modules) {
		// name size users by state address: who uses it doesn't matter.
		f := strings.Fields(string(line))
		if len(f) >= 6 && f[4] == "Live" {
			fmt.Fprintln(&b, f[0], f[1], f[5])
		}
	}
	return b.String(), nil
}

// event is a trace event's name, "group:name".
type event string

func (e event) dir() string { return "events/" + strings.Replace(string(e), ":", "/", 1) }

// fixedEvents are the events that the kernel and its modules come with, sorted. Those
// that tools define and remove at run time (kprobes, uprobes, synthetic ones) are theirs;
// and each would make a new copy necessary.
func (h *host) fixedEvents() ([]event, error) {
	all, err := read(h.tracefs, "available_events")
	if err != nil {
		return nil, err
	}
	dynamic, err := read(h.tracefs, "dynamic_events")
	if err != nil {
		return nil, err
	}
	skip := make(map[event]bool)
	for line := range strings.Lines(string(dynamic)) {
		// TYPE:GROUP/NAME …
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if _, name, ok := strings.Cut(name, ":"); ok {
			skip[event(strings.Replace(name, "/", ":", 1))] = true
		}
	}
	var events []event
	for line := range strings.Lines(string(all)) {
		e := event(strings.TrimSpace(line))
		if strings.Count(string(e), ":") == 1 && !skip[e] {
			events = append(events, e)
		}
	}
	slices.Sort(events)
	return events, nil
}

func (e event) group() string {
	group, _, _ := strings.Cut(string(e), ":")
	return group
}
