package tracing

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
)

// layout is part of a copy's key: it is another when a version of bpfbroker copies
// something else.
const layout = "1"

// snapshot is what a copy of tracefs is a copy of.
type snapshot struct {
	build  string
	events []event
}

func (h *host) snapshot() (s snapshot, err error) {
	if s.build, err = h.build(); err != nil {
		return s, err
	}
	s.events, err = h.fixedEvents()
	return s, err
}

func (s snapshot) key() string {
	return digest(s.build, fmt.Sprint(s.events))
}

func digest(parts ...string) string {
	h := sha256.New()
	fmt.Fprintf(h, "%q", append(parts, layout)) // quoted: parts can't run into each other
	return fmt.Sprintf("%x", h.Sum(nil)[:16])
}

// openEvents returns the directory of a copy of tracefs, made if there is none yet; nil:
// the kernel shows no events.
func (h *host) openEvents(where store) (*os.File, error) {
	for range 3 {
		s, err := h.snapshot()
		if err != nil || len(s.events) == 0 {
			return nil, err
		}
		f, err := where.open(s.key(), func(to *os.Root) error { return h.copyEvents(s, to) })
		if !errors.Is(err, errChanged) {
			return f, err
		}
	}
	return nil, errChanged
}

var errChanged = errors.New("modules were loaded or removed meanwhile, three times; try again")

// copyEvents copies what tools read, and nothing of which the host's root could mean
// that it isn't for all:
//
//   - no kernel addresses: printk_formats and available_filter_functions_addrs have them;
//   - nothing of what others trace: trace, trace_pipe, enabled_functions, dynamic_events,
//     filters and triggers of events;
//   - nothing that is written to: kprobe_events and uprobe_events. A tool that finds them
//     tries them, and says something else than that there are none.
func (h *host) copyEvents(s snapshot, to *os.Root) error {
	w := writer{to: to}
	w.mkdir(debugDir)
	w.mkdir(kprobesDir)
	w.mkdir(tracingDir)
	w.mkdir(tracingDir + "/events")
	var names bytes.Buffer
	for _, e := range s.events {
		fmt.Fprintln(&names, e)
	}
	w.write(tracingDir+"/available_events", names.Bytes())
	for _, name := range []string{"available_filter_functions", "events/header_page", "events/header_event"} {
		b, err := read(h.tracefs, name)
		w.fail(err)
		w.write(tracingDir+"/"+name, b)
	}
	internal, err := h.internalEvents()
	w.fail(err)
	made := make(map[string]bool)
	for _, e := range slices.Concat(s.events, internal) {
		if group := e.group(); !made[group] {
			made[group] = true
			w.mkdir(tracingDir + "/events/" + group)
		}
		dir := e.dir()
		w.mkdir(tracingDir + "/" + dir)
		for _, name := range []string{"id", "format"} {
			b, err := read(h.tracefs, dir+"/"+name)
			w.fail(err)
			w.write(tracingDir+"/"+dir+"/"+name, b)
		}
	}
	blacklist, err := read(h.debugfs, "kprobes/blacklist")
	w.fail(err)
	w.write(kprobesDir+"/blacklist", withoutAddresses(blacklist))
	if w.err != nil {
		return w.err
	}
	now, err := h.snapshot()
	if err == nil && now.key() != s.key() {
		err = errChanged
	}
	return err
}

// internalEvents are those of the group "ftrace", which available_events doesn't list;
// perf records their formats.
func (h *host) internalEvents() ([]event, error) {
	const group = "ftrace"
	d, err := h.tracefs.Open("events/" + group)
	if unavailable(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	entries, err := d.ReadDir(-1)
	var events []event
	for _, e := range entries {
		if e.IsDir() {
			events = append(events, event(group+":"+e.Name()))
		}
	}
	return events, err
}

var address = regexp.MustCompile(`0x[0-9a-f]+`)

// withoutAddresses shows what the kernel shows to all where it hides addresses.
func withoutAddresses(b []byte) []byte {
	if b == nil {
		return nil
	}
	return address.ReplaceAll(b, []byte("0x0000000000000000"))
}

// writer writes a copy; it does nothing after the first error.
type writer struct {
	to  *os.Root
	err error
}

func (w *writer) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

func (w *writer) mkdir(name string) {
	if w.err == nil {
		w.err = makeDir(w.to, name, 0o755)
	}
}

// write writes a file that all may read; nil: there is none.
func (w *writer) write(name string, content []byte) {
	if w.err != nil || content == nil {
		return
	}
	f, err := w.to.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		w.err = err
		return
	}
	_, err = f.Write(content)
	w.err = errors.Join(err, f.Chmod(0o444), f.Close()) // whatever the umask
}

func makeDir(in *os.Root, name string, mode os.FileMode) error {
	if err := in.Mkdir(name, mode); err != nil {
		return err
	}
	return in.Chmod(name, mode) // whatever the umask
}
