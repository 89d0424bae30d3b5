// Package tracing shows unprivileged workloads what tracing tools read of the kernel,
// and the host's root alone may: which events there are, with their ids and formats, and
// which functions can be traced.
//
// It is a copy, made once on a host in /run/bpfbroker, and mounted read-only over
// /sys/kernel/tracing and /sys/kernel/debug. So no file of the kernel's that could be
// written to is within a workload's reach, a workload costs two mounts, and all
// workloads see the same inodes. docs/architecture.md says what else was considered.
//
// The copy has what doesn't tell kernel addresses or what others trace; for the
// addresses of symbols there is a copy of /proc/kallsyms, apart (Symbols).
package tracing

import (
	"errors"
	"fmt"
	"os"
)

// View is what one workload is shown. A nil View shows nothing. While it is open, no
// other removes what it is a copy of.
type View struct {
	events, symbols *os.File // directories of copies, locked (store.go); nil: there is none
}

const (
	tracefsMount = "/sys/kernel/tracing"
	debugfsMount = "/sys/kernel/debug"
	symbolsFile  = "/proc/kallsyms"
)

// What is in the directory of a copy.
const (
	debugDir    = "debug"         // is shown at debugfsMount
	tracingDir  = "debug/tracing" // is shown at tracefsMount
	kprobesDir  = "debug/kprobes"
	symbolsCopy = "kallsyms"
)

// Open finds the copy of what the running kernel has, or makes it, which takes some
// tenths of a second; with symbols, that of /proc/kallsyms, too. The caller is root in
// the initial user namespace, and closes the View when its workload has ended.
func Open(symbols bool) (*View, error) {
	h, err := openHost()
	if err != nil {
		return nil, err
	}
	defer h.close()
	return h.view(runDir, symbols)
}

// view is Open, of a host and with copies below dir.
func (h *host) view(dir string, symbols bool) (*View, error) {
	events, err := h.openEvents(store{dir, "tracing"})
	if err != nil {
		return nil, fmt.Errorf("copy tracefs: %w", err)
	}
	v := &View{events: events}
	if !symbols {
		return v, nil
	}
	if v.symbols, err = h.openSymbols(store{dir, "symbols"}); err != nil {
		v.Close()
		return nil, fmt.Errorf("copy %s: %w", symbolsFile, err)
	}
	return v, nil
}

// Close ends the use of the copies.
func (v *View) Close() error {
	if v == nil {
		return nil
	}
	var errs []error
	for _, f := range []*os.File{v.events, v.symbols} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
