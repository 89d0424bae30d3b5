// Package control is how running workloads are reached: whoever keeps one listens on a
// socket of its own in Dir, which root alone may connect to. A connection is for one
// request and its reply, JSON each.
package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/policy"
)

// Dir has a socket for each workload, by its id.
const Dir = "/run/bpfbroker/workloads"

const (
	maxMessage = 4 << 20
	// patience is how long either side waits for the other's message.
	patience = 10 * time.Second
	// maxWork is how long a request may take.
	maxWork = 2 * time.Minute
)

// Status is what a workload says of itself.
type Status struct {
	ID      string    `json:"id"`
	PID     int       `json:"pid"` // of whoever keeps it
	Command []string  `json:"command"`
	Policy  string    `json:"policy"`
	Began   time.Time `json:"began"`
	Served  uint64    `json:"served"` // operations
	Denied  uint64    `json:"denied"`
}

// Revoked is what a revocation has done.
type Revoked struct {
	Links    int      `json:"links"`    // that were detached
	Attached int      `json:"attached"` // what was attached without one, likewise
	Left     []string `json:"left,omitempty"`
	Killed   bool     `json:"killed"`
}

// Workload is what a server answers for. Its methods are called by one goroutine at a
// time.
type Workload interface {
	Status() Status
	// Apply has another policy decide.
	Apply(policy.Policy) error
	// Revoke denies all from now on; it detaches what was attached, and kills the
	// workload's processes, if it shall.
	Revoke(detach, kill bool) (Revoked, error)
}

type request struct {
	Do     string          `json:"do"` // "status", "apply", "revoke"
	Policy string          `json:"policy,omitempty"`
	Rules  json.RawMessage `json:"rules,omitempty"` // as policy.Encode has them; none: Policy is built in
	Detach bool            `json:"detach,omitempty"`
	Kill   bool            `json:"kill,omitempty"`
}

type reply struct {
	Error   string   `json:"error,omitempty"`
	Status  *Status  `json:"status,omitempty"`
	Revoked *Revoked `json:"revoked,omitempty"`
}

// Server listens for one workload.
type Server struct {
	l    *net.UnixListener
	path string
	w    Workload
}

// Serve listens in dir until Close.
func Serve(dir, id string, w Workload) (*Server, error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	path := filepath.Join(dir, id)
	l, err := Listen(path)
	if err != nil {
		return nil, err
	}
	s := &Server{l, path, w}
	go s.serve()
	return s, nil
}

// Listen makes a socket that root alone may connect to, in the place of one that there may
// be. A socket that refuses is one whose server was killed: see All. So this one gets its
// name when it doesn't refuse any more. Who closes it removes it.
func Listen(path string) (*net.UnixListener, error) {
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	_ = os.Remove(tmp)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(tmp, 0o600)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		l.Close()
		_ = os.Remove(tmp)
		return nil, err
	}
	return l, nil
}

// Close ends it.
func (s *Server) Close() error { return errors.Join(os.Remove(s.path), s.l.Close()) }

func (s *Server) serve() {
	for {
		c, err := s.l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(time.Second / 10) // too many open files; perhaps not for long
			continue
		}
		s.answer(c)
	}
}

// answer answers one request.
func (s *Server) answer(c *net.UnixConn) {
	defer c.Close()
	var r reply
	var q request
	if err := allowed(c); err != nil {
		r.Error = err.Error()
	} else if err := receive(c, patience, &q); err != nil {
		r.Error = err.Error()
	} else if err := s.do(&q, &r); err != nil {
		r.Error = err.Error()
	}
	_ = send(c, &r) // or nobody wants to know
}

// allowed says no to whoever isn't root. The directory does already.
func allowed(c *net.UnixConn) error {
	cred, err := peer(c)
	if err != nil {
		return err
	}
	if cred.Uid != 0 {
		return fmt.Errorf("user %d may not control workloads: only root may", cred.Uid)
	}
	return nil
}

func (s *Server) do(q *request, r *reply) error {
	switch q.Do {
	case "status":
		st := s.w.Status()
		r.Status = &st
		return nil
	case "apply":
		p, err := q.policy()
		if err != nil {
			return err
		}
		return s.w.Apply(p)
	case "revoke":
		done, err := s.w.Revoke(q.Detach, q.Kill)
		r.Revoked = &done
		return err
	}
	return fmt.Errorf("no request is called %q: the workload is of another version of bpfbroker", q.Do)
}

func (q *request) policy() (policy.Policy, error) {
	if q.Rules == nil {
		return policy.Builtin(q.Policy)
	}
	return policy.Decode(q.Rules)
}

// Client is for one workload.
type Client struct {
	ID   string
	path string
}

// ErrNone is that there is no such workload.
var ErrNone = errors.New("no such workload runs")

// All lists the workloads that run, by their sockets in dir. What is left of others is
// removed.
func All(dir string) ([]Client, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Client
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		c := Client{e.Name(), filepath.Join(dir, e.Name())}
		conn, err := net.Dial("unix", c.path)
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			_ = os.Remove(c.path)
			continue
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, err
		}
		conn.Close()
		out = append(out, c)
	}
	return out, nil
}

// Find is the workload whose id is, or begins with, id.
func Find(dir, id string) (Client, error) {
	all, err := All(dir)
	if err != nil {
		return Client{}, err
	}
	if i := slices.IndexFunc(all, func(c Client) bool { return c.ID == id }); i >= 0 {
		return all[i], nil
	}
	var found []Client
	var ids []string
	for _, c := range all {
		if ids = append(ids, c.ID); id != "" && strings.HasPrefix(c.ID, id) {
			found = append(found, c)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		if len(all) == 0 {
			return Client{}, fmt.Errorf("workload %q: %w; none does", id, ErrNone)
		}
		return Client{}, fmt.Errorf("workload %q: %w; there are %s", id, ErrNone, strings.Join(ids, ", "))
	}
	return Client{}, fmt.Errorf("workload %q: %d begin like that; give more of the id", id, len(found))
}

// Status asks the workload how it is.
func (c Client) Status() (Status, error) {
	r, err := c.ask(&request{Do: "status"}, patience)
	if err == nil && r.Status == nil {
		err = fmt.Errorf("workload %q: a reply without a status", c.ID)
	}
	if err != nil {
		return Status{}, err
	}
	return *r.Status, nil
}

// Apply has p decide from now on.
func (c Client) Apply(p policy.Policy) error {
	q := &request{Do: "apply", Policy: p.Name()}
	if rules, is := p.(*policy.Rules); is {
		data, err := rules.Encode()
		if err != nil {
			return err
		}
		q.Rules = data
	}
	_, err := c.ask(q, maxWork)
	return err
}

// Revoke withdraws the workload's rights.
func (c Client) Revoke(detach, kill bool) (Revoked, error) {
	r, err := c.ask(&request{Do: "revoke", Detach: detach, Kill: kill}, maxWork)
	if r.Revoked == nil {
		return Revoked{}, err
	}
	return *r.Revoked, err
}

func (c Client) ask(q *request, wait time.Duration) (r reply, err error) {
	conn, err := net.Dial("unix", c.path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return r, fmt.Errorf("workload %q: %w", c.ID, ErrNone)
	}
	if err != nil {
		return r, err
	}
	defer conn.Close()
	if err := send(conn, q); err != nil && !errors.Is(err, syscall.EPIPE) { // it has answered already
		return r, fmt.Errorf("ask workload %q: %w", c.ID, err)
	}
	answered := make(chan struct{})
	defer close(answered)
	go keepAwake(conn, answered)
	if err := receive(conn, wait, &r); err != nil {
		return r, fmt.Errorf("ask workload %q: %w", c.ID, err)
	}
	if r.Error != "" {
		err = fmt.Errorf("workload %q: %s", c.ID, r.Error)
	}
	return r, err
}

// keepAwake continues the server as often as it is stopped: `run` stops when its command
// does, and a workload could keep itself from being revoked by that.
func keepAwake(c net.Conn, answered <-chan struct{}) {
	cred, err := peer(c)
	if err != nil || cred.Pid == 0 {
		return // it is of another pid namespace
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-answered:
			return
		case <-tick.C:
			if sys.Stopped(int(cred.Pid)) {
				_ = syscall.Kill(int(cred.Pid), syscall.SIGCONT)
			}
		}
	}
}

// peer is who has the other end: of a server, who listened.
func peer(c net.Conn) (*syscall.Ucred, error) {
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *syscall.Ucred
	var e error
	err = raw.Control(func(fd uintptr) {
		cred, e = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err = errors.Join(err, e); err != nil {
		return nil, fmt.Errorf("who has the other end: %w", err)
	}
	return cred, nil
}

func send(c net.Conn, v any) error {
	if err := c.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	return json.NewEncoder(c).Encode(v)
}

func receive(c net.Conn, wait time.Duration, v any) error {
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	return json.NewDecoder(io.LimitReader(c, maxMessage)).Decode(v)
}
