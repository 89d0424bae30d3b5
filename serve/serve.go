// Package serve is the daemon for containers: their runtimes send it the listeners of their
// seccomp filters, and each is served by a keeper of its own (package daemon).
package serve

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/bpfbroker/bpfbroker/control"
	"github.com/bpfbroker/bpfbroker/daemon"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/oci"
	"github.com/bpfbroker/bpfbroker/policy"
	"github.com/bpfbroker/bpfbroker/worker"
	"github.com/bpfbroker/bpfbroker/workload"
)

// Config says how to serve.
type Config struct {
	StateDir string // for the sockets; it is made, for root alone
	// Choose returns the policy for a container.
	Choose               func(*policy.Who) (policy.Policy, error)
	Kind                 worker.Kind // "": the best that the kernel has
	Audit, AuditPrograms string      // as in daemon.Workload
	Log                  *slog.Logger
}

// OCISocket is the socket for OCI runtimes in the state directory: listenerPath in their
// seccomp profiles.
const OCISocket = "oci.sock"

// maxConnections is how many runtimes may be heard at once; others wait.
const maxConnections = 64

// Server takes listeners.
type Server struct {
	cfg  Config
	l    *net.UnixListener
	room chan struct{}

	mu      sync.Mutex
	serving map[*container]struct{}
	first   map[string]int // process ids of containers that are served, by their ids
}

// Listen makes the socket, to which root alone may connect.
func Listen(cfg Config) (*Server, error) {
	if err := os.MkdirAll(filepath.Dir(cfg.StateDir), 0o755); err != nil {
		return nil, err
	}
	if err := os.Mkdir(cfg.StateDir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	path := filepath.Join(cfg.StateDir, OCISocket)
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("%q is in use: another bpfbroker serves there; give another --state-dir", path)
	}
	l, err := control.Listen(path)
	if err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, l: l, room: make(chan struct{}, maxConnections), serving: map[*container]struct{}{}, first: map[string]int{}}, nil
}

// Serve takes listeners until Close.
func (s *Server) Serve() error {
	for {
		c, err := s.l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			s.cfg.Log.Error("no connection is taken", "error", err)
			time.Sleep(time.Second / 10) // too many open files; perhaps not for long
			continue
		}
		s.room <- struct{}{}
		go func() {
			defer func() { <-s.room }()
			s.connection(c)
		}()
	}
}

// lastWords is how long Close waits for what is left of containers that have ended.
const lastWords = 5 * time.Second

// Close ends it. Containers that run by then are served no more when the process ends.
func (s *Server) Close() error {
	err := errors.Join(os.Remove(filepath.Join(s.cfg.StateDir, OCISocket)), s.l.Close())
	s.mu.Lock()
	var ending []*container
	for c := range s.serving {
		if !c.lives() {
			ending = append(ending, c)
		}
	}
	s.mu.Unlock()
	end := time.After(lastWords)
	for _, c := range ending {
		select {
		case <-c.ended:
		case <-end:
			return err
		}
	}
	return err
}

// connection takes one listener.
func (s *Server) connection(c *net.UnixConn) {
	f, err := c.File()
	c.Close()
	if err != nil {
		s.cfg.Log.Error("no listener is taken", "error", err)
		return
	}
	p, err := oci.Receive(int(f.Fd()))
	f.Close()
	if err != nil {
		s.cfg.Log.Error("no listener is taken", "error", err)
		return
	}
	defer p.Listener.Close() // whoever serves has one of its own
	forget := s.remember(p)
	log := s.cfg.Log.With("container", p.State.ID, "pid", p.Pid)
	if err := s.adopt(p, log, forget); err != nil {
		forget()
		// Without a listener that anybody has open, its calls fail with ENOSYS.
		log.Error("container isn't served: its bpf() calls fail with ENOSYS", "error", err)
	}
}

// remember keeps the process id of a container's first process, until forget, for those of
// which the runtime says none: crun 1.8, of what it executes in a container.
func (s *Server) remember(p *oci.Process) (forget func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := p.State.ID
	first, known := s.first[id]
	switch {
	case p.Pid <= 0:
		p.Pid = first
	case !known:
		s.first[id] = p.Pid
		return func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.first, id)
		}
	}
	return func() {}
}

// adopt serves a container's process, and what it starts; forget is called when that has
// ended.
func (s *Server) adopt(p *oci.Process, log *slog.Logger, forget func()) error {
	c, err := open(p)
	if err != nil {
		return err
	}
	pol, err := s.cfg.Choose(&c.who)
	if err != nil {
		c.close()
		return err
	}
	k, err := daemon.Keep(daemon.Workload{
		ID: c.facts.ID, Kind: s.cfg.Kind, Policy: pol, IDs: workload.IDsOf(p.Pid), Who: &c.facts, Memory: daemon.MemoryWorkload, Interrupted: true,
		Audit: s.cfg.Audit, AuditPrograms: s.cfg.AuditPrograms,
		Listener: p.Listener, UserNS: c.userNS, NetNS: c.netNS, Cgroup: c.worker, Own: c.own, Tasks: c.tasks,
	})
	if err != nil {
		c.close()
		return err
	}
	r := NewRunning(control.Status{ID: c.facts.ID, PID: os.Getpid(), Command: c.command, Began: time.Now()}, k, pol, c.kill)
	reach, err := control.Serve(control.Dir, c.facts.ID, r)
	if err != nil {
		log.Warn("workload can't be controlled while it runs", "error", err)
	}
	log.Info("serving", "workload", c.facts.ID, "policy", pol.Name())
	s.mu.Lock()
	s.serving[c] = struct{}{}
	s.mu.Unlock()
	go func() {
		err := <-k.Ended()
		forget()
		if reach != nil {
			_ = reach.Close()
		}
		c.clean()
		sum := k.Summary()
		for _, fault := range sum.Faults {
			log.Warn(fault)
		}
		if err != nil {
			log.Error("not served to its end", "error", err)
		}
		log.Info("ended", "workload", c.facts.ID, "served", sum.Served)
		s.mu.Lock()
		delete(s.serving, c)
		sys.Close(c.pidfd)
		s.mu.Unlock()
		close(c.ended)
	}()
	return nil
}

// suffix tells the processes of a container apart, each of which has a listener.
func suffix() string {
	var b [4]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
