package launch

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// link is one end of the connection between `run` and a stage: values (gob, so
// that any byte in an argument survives), and fds beside them.
type link struct {
	sock *os.File
	fds  []int // received, not yet taken
}

// newLink returns a connection's two ends.
func newLink() (ours, theirs *link, err error) {
	a, b, err := sys.SocketPair()
	if err != nil {
		return nil, nil, fmt.Errorf("make control socket: %w", err)
	}
	return &link{sock: a}, &link{sock: b}, nil
}

func (l *link) close() {
	for _, fd := range l.fds {
		sys.Close(fd)
	}
	l.fds = nil
	l.sock.Close()
}

func (l *link) send(v any, fds ...int) error {
	b := bytes.NewBuffer(make([]byte, 4))
	if err := gob.NewEncoder(b).Encode(v); err != nil {
		return err
	}
	binary.LittleEndian.PutUint32(b.Bytes(), uint32(b.Len()-4))
	return sys.SendWithFDs(int(l.sock.Fd()), b.Bytes(), fds...)
}

// receive waits for a value; io.EOF: the other side is gone.
func (l *link) receive(v any) error {
	var head [4]byte
	if _, err := io.ReadFull(l, head[:]); err != nil {
		return err
	}
	body := make([]byte, binary.LittleEndian.Uint32(head[:]))
	if _, err := io.ReadFull(l, body); err != nil {
		return err
	}
	return gob.NewDecoder(bytes.NewReader(body)).Decode(v)
}

// Read is for receive.
func (l *link) Read(b []byte) (int, error) {
	n, fds, err := sys.RecvWithFDs(int(l.sock.Fd()), b)
	l.fds = append(l.fds, fds...)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err == syscall.ECONNRESET {
		err = io.EOF // it died with something of ours unread
	}
	return n, err
}

// take returns the next fd that came with a value; the caller closes it.
func (l *link) take() (int, error) {
	if len(l.fds) == 0 {
		return -1, fmt.Errorf("the other side sent no fd")
	}
	fd := l.fds[0]
	l.fds = l.fds[1:]
	return fd, nil
}

// setup is what a workload's stage is told first. With it travels the init's end
// of the socket that it has if PrivatePID.
type setup struct {
	Args, Env              []string
	Dir                    string // "": stay where we are
	PrivateNet, PrivatePID bool
	Symbols                bool // ask for them
	Ignored                sys.SignalSet
	Filter                 []sys.SockFilter
}

// request is what the stage can't do itself and asks `run` for, or reports.
type request struct {
	Step  step
	Path  string // blockedDir: the topmost directory that it may not search
	Error string // failed
	Errno syscall.Errno
}

type step int

const (
	failed      step = iota
	makeBPFFS        // with an fd of fsopen: create it as the host's root, and mount it
	showSymbols      // mount them over this namespace's
	blockedDir       // make the working directory reachable
	ready            // with the listener: all is done, waiting for release
)

// answer is `run`'s to a request; to ready, an empty one releases CMD.
type answer struct{ Error string }

// ask sends a request or order and waits for the answer.
func (l *link) ask(question any, fds ...int) error {
	if err := l.send(question, fds...); err != nil {
		return err
	}
	var a answer
	if err := l.receive(&a); err != nil {
		return err
	}
	if a.Error != "" {
		return remoteError(a.Error)
	}
	return nil
}

type remoteError string

func (e remoteError) Error() string { return string(e) }
