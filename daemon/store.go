package daemon

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// The names of a workload's fds in the store.
const (
	fdListener = "listener" // the seccomp listener
	fdUserNS   = "userns"   // the workload's user namespace
	fdNetNS    = "netns"    // and network namespace
	fdCgroup   = "cgroup"   // directory of the worker's cgroup (v2)
	fdOwn      = "own"      // and of the workload's
	fdBPFFS    = "bpffs"    // root of the workload's bpffs, O_PATH
	fdTasks    = "tasks"    // and a number: the file of that name of a cgroup of v1
	fdLedger   = "ledger"
	fdPolicy   = "policy"   // what policy.Decode reads, if the policy has rules
	fdObjects  = "objects"  // workload.Objects
	fdHoldings = "holdings" // workload.Holdings
	// Of a workload with an audit log:
	fdAudit       = "audit"       // the book
	fdAuditStream = "auditstream" // what the log is written to, if that is a stream
	// What a worker that runs has:
	fdWorker  = "worker"  // its pidfd
	fdChannel = "channel" // the daemon's end of the channel
	fdExe     = "exe"     // the binary that it was executed from
)

// store is the daemon's side of the socket to whoever keeps its fds.
type store struct{ sock *os.File }

// keep has the store keep a copy of f under name, besides those that it has.
func (s store) keep(name string, f int) error {
	if err := sys.SendWithFDs(int(s.sock.Fd()), []byte("FDSTORE=1\nFDNAME="+name+"\n"), f); err != nil {
		return fmt.Errorf("keep fd %q: %w", name, err)
	}
	return nil
}

// drop has the store close all that it keeps under name.
func (s store) drop(name string) error {
	return s.say("FDSTOREREMOVE=1\nFDNAME=" + name + "\n")
}

// ready says that the daemon serves; failed, why it doesn't.
func (s store) ready() error           { return s.say("READY=1\n") }
func (s store) failed(err error) error { return s.say("STATUS=" + err.Error() + "\n") }

func (s store) say(m string) error {
	if len(m) > maxMessage {
		m = m[:maxMessage]
	}
	return sys.SendWithFDs(int(s.sock.Fd()), []byte(m))
}

const maxMessage = 4096

// message is what a daemon said.
type message struct {
	keep, drop string // the name; "" for neither
	ready      bool
	status     string
	fds        []int
}

// receive reads one message from a daemon. io.EOF or ECONNRESET: it is gone.
func receive(sock *os.File) (m message, err error) {
	b := make([]byte, maxMessage)
	n, fds, err := sys.RecvWithFDs(int(sock.Fd()), b)
	if err != nil {
		return m, err
	}
	if n == 0 {
		return m, errGone
	}
	m.fds = fds
	name, keeps, drops := "", false, false
	if status, ok := strings.CutPrefix(string(b[:n]), "STATUS="); ok {
		m.status = strings.TrimSuffix(status, "\n")
		return m, nil
	}
	for line := range strings.Lines(string(b[:n])) {
		switch line = strings.TrimSuffix(line, "\n"); {
		case line == "READY=1":
			m.ready = true
		case line == "FDSTORE=1":
			keeps = true
		case line == "FDSTOREREMOVE=1":
			drops = true
		case strings.HasPrefix(line, "FDNAME="):
			name = strings.TrimPrefix(line, "FDNAME=")
		}
	}
	if keeps {
		m.keep = name
	}
	if drops {
		m.drop = name
	}
	return m, nil
}

var errGone = errors.New("the other side is gone")
