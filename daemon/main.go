package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/bpfbroker/bpfbroker/internal/poller"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/worker"
)

// Arg is the sub-command that makes this binary a daemon for one workload.
const Arg = poller.Daemon

// storeFD is the socket to the keeper; the fds that it keeps follow.
const storeFD = 3

// Options are the arguments of Main, as text.
type Options struct {
	ID, Kind, Policy, Memory, FDs string
	Audit, AuditPrograms          string // as in Workload
	IDs, Who                      string // likewise, JSON
	Interrupted                   bool   // likewise
	// Fresh: the daemon is the first with this policy. A worker that another one has left is
	// ended, not gone on with.
	Fresh bool
}

// Whose memory a worker's own is, beside that of the objects that it makes, which
// is always the workload's.
const (
	// MemoryWorkload: what a workload's calls take is the workload's, from the
	// beginning. So is the death if there is not enough: another worker takes over.
	MemoryWorkload = "workload"
	// MemoryBroker: what an idle worker has is charged to the daemon's cgroup, for
	// workloads that have little. What it takes later is the workload's.
	MemoryBroker = "broker"
)

// Main is the daemon's process: it serves until the workload has ended, or its
// keeper is gone. It returns the exit code.
func Main(o Options) int {
	st := store{os.NewFile(storeFD, "store")}
	err := serve(o, st)
	if err == nil {
		return 0
	}
	_ = st.failed(errors.New(strings.ReplaceAll(err.Error(), "\n", "; "))) // the keeper is gone
	return 1
}

func serve(o Options, st store) error {
	// Between fork and exec a worker is a copy of this process in the workload's
	// user namespace.
	if err := sys.SetNotDumpable(); err != nil {
		return err
	}
	if err := sys.PlacePoller(); err != nil {
		return err
	}
	var names []string
	if err := json.Unmarshal([]byte(o.FDs), &names); err != nil {
		return fmt.Errorf("the names of the fds: %w", err)
	}
	files := map[string]*os.File{}
	for i, name := range names {
		fd := storeFD + 1 + i
		if err := sys.CloseOnExec(fd); err != nil {
			return err
		}
		files[name] = os.NewFile(uintptr(fd), name)
	}
	if err := sys.CloseOnExec(storeFD); err != nil {
		return err
	}
	pol, err := worker.ReadPolicy(o.Policy, files[fdPolicy])
	if err != nil {
		return err
	}
	s, err := newSupervisor(o.ID, worker.Kind(o.Kind), pol, o.Memory, o.Fresh, st, files)
	if err != nil {
		return err
	}
	if err := s.told(o); err != nil {
		return err
	}
	if o.Audit != "" {
		if err := s.startAudit(o.Audit, o.AuditPrograms); err != nil {
			return err
		}
	}
	// Nobody would start another daemon, and the workload is being ended.
	go func() {
		_, _ = st.sock.Read(make([]byte, 1)) // nothing is ever sent: it ends with the keeper
		_ = s.audit.Close()                  // nobody is left to be told
		os.Exit(1)
	}()
	err = s.run(st.ready)
	if e := s.audit.Close(); e != nil {
		s.ledger.Fault(e) // no reason to start another daemon
	}
	return err
}
