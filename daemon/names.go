package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/bpfbroker/bpfbroker/btfnames"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/tracing"
)

// What the kernel calls its types and tracepoints is listed by the first daemon whose
// policy needs it, and shared by all workers of the host. It is listed anew after a boot,
// and when modules have come or gone.
const (
	kernelBTF   = "/sys/kernel/btf/vmlinux"
	listsDir    = "/run/bpfbroker"
	namesPrefix = "btf-names-"
	pointPrefix = "tracepoints-"
)

// lists opens what the policy's facts take, and those of the audit log, where there is one:
// who learns from it, or replays it, asks for names. What can't be made is missing: facts
// are unknown then.
func (s *supervisor) lists() {
	build := sync.OnceValues(tracing.Build)
	open := func(prefix string, make func() ([]byte, error)) *os.File {
		build, err := build()
		if err != nil {
			s.ledger.Fault(err)
			return nil
		}
		f, err := openList(listsDir, prefix, build, make)
		if err != nil {
			s.ledger.Fault(err)
		}
		return f
	}
	logged := s.files[fdAudit] != nil
	if needs := s.policy.Needs("prog_load"); logged || needs.Has("prog.kfuncs") || needs.Any("prog.target") {
		s.names = open(namesPrefix, func() ([]byte, error) { return typeNames(kernelBTF) })
	}
	if logged || s.policy.Needs("perf_event_open").Has("perf_event.tracepoint") {
		s.tracepoints = open(pointPrefix, tracing.Tracepoints)
	}
	if s.tracepoints == nil {
		return
	}
	// The daemon decides on perf_event_open(), too.
	list, err := sys.MapReadOnly(int(s.tracepoints.Fd()))
	if err != nil {
		s.ledger.Fault(fmt.Errorf("map the list of tracepoints: %w", err))
	}
	s.known.Tracepoints = list
}

// openList opens a list in a directory; if there is none of this build of the kernel, it
// is made.
func openList(dir, prefix, build string, make func() ([]byte, error)) (*os.File, error) {
	path := filepath.Join(dir, prefix+build)
	f, err := os.Open(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	b, err := make()
	if err != nil {
		return nil, fmt.Errorf("make %q: %w", path, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	old, _ := filepath.Glob(filepath.Join(dir, prefix+"*")) // of other builds
	tmp, err := os.CreateTemp(dir, ".list-")                // mode 0600
	if err != nil {
		return nil, err
	}
	_, err = tmp.Write(b)
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(tmp.Name()))
	}
	for _, o := range old {
		if o != path {
			_ = os.Remove(o) // another daemon may have
		}
	}
	return os.Open(path)
}

// typeNames is the index of the kernel's BTF.
func typeNames(file string) ([]byte, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return btfnames.Index(raw)
}
