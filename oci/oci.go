// Package oci receives seccomp listeners from container runtimes, as the OCI runtime
// specification has it (config-linux.md, "Container Process State"), and makes the seccomp
// profiles by which they send them.
package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

const (
	// MaxState bounds a message: annotations may be long.
	MaxState = 1 << 20
	// maxFDs bounds the fds that come with one; the specification knows of one.
	maxFDs = 16
	// patience is how long a runtime may take to send it.
	patience = 10 * time.Second
)

// Process is a process of a container, with the listener of its filter.
type Process struct {
	specs.ContainerProcessState
	Listener *os.File // the caller's to close
}

// Receive reads what a runtime sends on a connection (a stream socket): one message, with
// fds by SCM_RIGHTS. An error says what is wrong with it; all fds are closed then.
func Receive(sock int) (*Process, error) {
	var p Process
	b, fds, err := receive(sock, time.Now().Add(patience))
	taken := -1
	defer func() {
		for _, fd := range fds {
			if fd != taken {
				sys.Close(fd)
			}
		}
	}()
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &p.ContainerProcessState); err != nil {
		return nil, fmt.Errorf("a state that isn't JSON: %w", err)
	}
	i := slices.Index(p.Fds, specs.SeccompFdName)
	switch {
	case len(p.Fds) != len(fds):
		return nil, fmt.Errorf("a state that names %d fds, with %d", len(p.Fds), len(fds))
	case i < 0:
		return nil, fmt.Errorf("a state without an fd called %q: it has %q", specs.SeccompFdName, p.Fds)
	case p.Pid < 0:
		return nil, fmt.Errorf("a state of process %d", p.Pid)
	case p.State.ID == "":
		return nil, errors.New("a state of a container without an id")
	case !sys.IsListener(fds[i]):
		return nil, fmt.Errorf("the fd called %q is no seccomp listener", specs.SeccompFdName)
	}
	taken = fds[i]
	p.Listener = os.NewFile(uintptr(taken), specs.SeccompFdName)
	return &p, nil
}

// receive reads one JSON value, until it is whole or the other side has hung up.
func receive(sock int, end time.Time) (b []byte, fds []int, err error) {
	buf := make([]byte, 64<<10)
	for {
		if ok, err := sys.WaitReadable(sock, max(time.Until(end), 0)); err != nil || !ok {
			return nil, fds, fmt.Errorf("a state that doesn't come within %v (%v)", patience, err)
		}
		n, more, err := sys.RecvWithFDs(sock, buf)
		fds = append(fds, more...)
		switch {
		case err != nil:
			return nil, fds, fmt.Errorf("receive a state: %w", err)
		case len(fds) > maxFDs:
			return nil, fds, fmt.Errorf("a state with more than %d fds", maxFDs)
		case n == 0 && len(b) == 0:
			return nil, fds, io.EOF
		case n == 0:
			return nil, fds, io.ErrUnexpectedEOF
		}
		if b = append(b, buf[:n]...); len(b) > MaxState {
			return nil, fds, fmt.Errorf("a state of more than %d bytes", MaxState)
		}
		if json.Valid(b) {
			return b, fds, nil
		}
	}
}
