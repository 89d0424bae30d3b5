package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/bpfbroker/bpfbroker/audit"
	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/guard"
	"github.com/bpfbroker/bpfbroker/helper"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/ledger"
	"github.com/bpfbroker/bpfbroker/perform"
	"github.com/bpfbroker/bpfbroker/policy"
	"github.com/bpfbroker/bpfbroker/request"
	"github.com/bpfbroker/bpfbroker/worker"
	"github.com/bpfbroker/bpfbroker/workload"
)

// supervisor keeps one workload served.
type supervisor struct {
	id       string
	kind     worker.Kind
	policy   policy.Policy
	memory   string
	store    store
	files    map[string]*os.File // by their names in the store
	fresh    bool                // the worker that there may be is of another policy
	parent   *worker.Parent      // nil: no worker was started yet
	exe      *os.File
	probes   request.Probes
	objects  *workload.Objects
	ledger   *ledger.Ledger
	holdings *workload.Holdings // nil: the policy doesn't have them counted
	known    *workload.Known
	// Lists of the kernel's names, nil where they aren't needed: see lists.
	names, tracepoints *os.File
	netNS              uint64
	audit              *audit.Log   // nil: none is kept
	stuck              atomic.Int32 // threads that served a worker which is gone, and don't end
}

// process is a running worker.
type process struct {
	pid     int
	pidfd   *os.File
	channel *os.File
	server  *helper.Server
}

const (
	// patience is how long a worker may take until it serves.
	patience = 20 * time.Second
	// maxFailures is how many workers in a row may fail, and daemons. Then the listener is
	// closed, and calls fail (ENOSYS) instead of waiting for ever.
	maxFailures = 10
	// maxStuck threads of ours may wait for a file of the workload's that never
	// answers, as on its own FUSE, after their workers are gone: more it doesn't get.
	maxStuck = 4
	// lastWords is how long a worker may live without its channel.
	lastWords = time.Second
	// retry is the time between workers that fail before they serve, or that crash
	// after hasty of them in a row have, by which the call is refused that may have been
	// the cause: whatever is wrong may pass.
	retry = time.Second
	hasty = 3
)

// newSupervisor prepares for a workload whose fds are files.
func newSupervisor(id string, kind worker.Kind, pol policy.Policy, memory string, fresh bool, st store, files map[string]*os.File) (*supervisor, error) {
	s := &supervisor{id: id, kind: kind, policy: pol, memory: memory, fresh: fresh, store: st, files: files, probes: request.KernelProbes()}
	for _, name := range []string{fdListener, fdUserNS, fdNetNS, fdCgroup, fdLedger, fdObjects, fdHoldings} {
		if files[name] == nil {
			return nil, fmt.Errorf("workload %q: there is no fd %q", id, name)
		}
	}
	var err error
	if s.exe, err = sys.UnreadableExecutable(); err != nil {
		return nil, err
	}
	if s.ledger, err = ledger.Open(int(files[fdLedger].Fd())); err != nil {
		return nil, err
	}
	if s.objects, err = workload.OpenObjects(int(files[fdObjects].Fd()), perform.Living); err != nil {
		return nil, err
	}
	if pol.Counts() {
		if s.holdings, err = workload.OpenHoldings(int(files[fdHoldings].Fd())); err != nil {
			return nil, err
		}
	}
	userNS, e1 := sys.Inode(int(files[fdUserNS].Fd()))
	var e2 sys.Errno
	s.netNS, e2 = sys.Inode(int(files[fdNetNS].Fd()))
	if e1 != 0 || e2 != 0 {
		return nil, fmt.Errorf("look at the namespaces of workload %q: %w", id, errors.Join(e1, e2))
	}
	s.known = s.know(userNS)
	s.lists()
	if err := s.share(); err != nil {
		if fresh {
			return nil, err
		}
		s.ledger.Fault(err) // what has changed on the host meanwhile isn't the workload's fault
	}
	return s, nil
}

// startAudit begins to write the log. Whether target can be written to is seen later: a
// daemon that takes over goes on without.
func (s *supervisor) startAudit(target, programs string) error {
	if s.files[fdAudit] == nil {
		return fmt.Errorf("workload %q: there is no fd %q", s.id, fdAudit)
	}
	cfg := audit.Config{Workload: s.id, Book: int(s.files[fdAudit].Fd()), Sink: audit.Open(target, s.files[fdAuditStream]), Report: s.ledger.Fault}
	if programs != "" {
		cfg.Programs = audit.NewPrograms(programs)
	}
	var err error
	s.audit, err = audit.Start(cfg)
	return err
}

// know gathers what facts take of the workload.
func (s *supervisor) know(userNS uint64) *workload.Known {
	k := &workload.Known{Workload: facts.Workload{ID: s.id, UID: int64(os.Getuid()), GID: int64(os.Getgid())}, UserNS: userNS, CPUs: sys.PossibleCPUs()}
	// From a namespace of its own none of its processes comes into the host's, which takes
	// rights there. What began in the host's has it for good, though a thread may be elsewhere:
	// an fd that is made there is used here.
	k.Workload.NetnsOwn = sys.OwnedBelow(int(s.files[fdNetNS].Fd()), userNS)
	own := s.files[fdOwn]
	if own == nil { // a daemon of another version didn't keep it
		return k
	}
	if id, e := sys.IDOf(int(own.Fd())); e == 0 {
		k.Cgroup = id
		// Where the mount doesn't show it, what is inside is known nevertheless.
		if k.Workload.Cgroup, _ = workload.CgroupPath(int(own.Fd())); k.Workload.Cgroup != "" {
			k.Guard = guard.Scope{ID: id.Ino, Level: strings.Count(k.Workload.Cgroup, "/")}
		}
	}
	return k
}

// told adds what the daemon was told of the workload.
func (s *supervisor) told(o Options) error {
	s.known.Interrupted = o.Interrupted
	var who *facts.Workload
	for text, to := range map[string]any{o.IDs: &s.known.IDs, o.Who: &who} {
		if text == "" { // by a keeper of another version
			continue
		}
		if err := json.Unmarshal([]byte(text), to); err != nil {
			return fmt.Errorf("what is told of the workload: %w", err)
		}
	}
	if who != nil {
		w := &s.known.Workload
		w.UID, w.GID, w.Container, w.Labels, w.Annotations = who.UID, who.GID, who.Container, who.Labels, who.Annotations
	}
	return nil
}

// run serves the workload until it has ended. ready is called once its calls are
// answered. The error says why they can't be.
func (s *supervisor) run(ready func() error) error {
	defer func() {
		if s.parent != nil {
			s.parent.Close()
		}
	}()
	p := s.adopt()
	var pace pace
	for failures := 0; ; {
		var err error
		if p == nil {
			p, err = s.start()
		}
		if err != nil {
			if failures++; s.ended() {
				return nil
			}
			if ready != nil || failures == maxFailures {
				return err // never served; or given up
			}
			s.ledger.Fault(err)
			time.Sleep(retry)
			continue
		}
		if ready != nil {
			if err := ready(); err != nil {
				return err
			}
			ready = nil
		}
		began := time.Now()
		why := s.watch(p)
		if s.ended() {
			return nil
		}
		if !errors.Is(why, errCrashed) || time.Since(began) > retry {
			failures = 0
		} else if failures++; failures == maxFailures {
			return fmt.Errorf("%d workers in a row crashed: %w", failures, why)
		}
		s.blame(why)
		s.ledger.Fault(fmt.Errorf("worker %d: %w; another takes over", p.pid, why))
		time.Sleep(pace.wait(time.Now()))
		if failures > hasty {
			time.Sleep(retry)
		}
		p = nil
	}
}

// blame counts, for each call that was under way, that a worker ended over it. One
// that crashed may have done so because of the call. SIGKILL came from elsewhere,
// but perhaps because there was no memory for the call. (Of a worker that another
// daemon has started it isn't known how it ended.)
func (s *supervisor) blame(why error) {
	weight := uint32(1)
	if errors.Is(why, errCrashed) {
		weight = ledger.MaxBlame/3 + 1
	}
	for i := range ledger.Slots {
		if slot := s.ledger.Slot(i); slot.Taken() {
			slot.Blame += weight
		}
	}
}

// ended says whether no process of the workload is left.
func (s *supervisor) ended() bool { return sys.HungUp(int(s.files[fdListener].Fd())) }

// start starts a worker. It returns once that may serve.
func (s *supervisor) start() (*process, error) {
	for _, name := range []string{fdWorker, fdChannel, fdExe} {
		s.forget(name)
	}
	if err := sys.CheckDumpable(); err != nil {
		return nil, err
	}
	if n := s.stuck.Load(); n >= maxStuck {
		return nil, fmt.Errorf("start worker of workload %q: %d operations for it wait for its files, and don't end", s.id, n)
	}
	// The kernel charges a page to the cgroup in which it is first touched, and there
	// it stays: what a worker needs to begin is the broker's if it begins there.
	cgroup, later := s.files[fdCgroup], (*os.File)(nil)
	if s.memory == MemoryBroker {
		cgroup, later = nil, cgroup
	}
	ours, theirs, err := sys.PacketPair()
	if err != nil {
		return nil, fmt.Errorf("make channel to worker: %w", err)
	}
	defer theirs.Close()
	if s.parent == nil {
		s.parent, err = worker.NewParent(s.files[fdNetNS])
	}
	var pid, fd int
	if err == nil {
		pid, fd, err = s.parent.Start(worker.Config{
			Known: s.known, Kind: s.kind, Policy: s.policy, Probes: s.probes, Exe: s.exe,
			Listener: s.files[fdListener], Channel: theirs, Ledger: s.files[fdLedger], Names: s.names, Tracepoints: s.tracepoints,
			Audit: s.files[fdAudit], Rules: s.files[fdPolicy], Holdings: s.counted(),
			UserNS: s.files[fdUserNS], Cgroup: cgroup, Tasks: s.tasks(),
		})
	}
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("start worker of workload %q: %w", s.id, err)
	}
	pidfd := os.NewFile(uintptr(fd), "worker")
	theirs.Close() // its end is the worker's alone: we see when that closes
	p := s.serve(pid, pidfd, ours, false)
	select {
	case err = <-p.server.Ready():
	case <-time.After(patience):
		err = fmt.Errorf("not ready within %v", patience)
	}
	if err == nil && later != nil {
		err = os.WriteFile(fmt.Sprintf("/proc/self/fd/%d/cgroup.procs", later.Fd()), []byte(fmt.Sprint(pid)), 0)
	}
	if err == nil {
		_ = sys.SpareFromOOM(pid) // where it may not be spared, another takes over
		err = errors.Join(s.store.keep(fdWorker, fd), s.store.keep(fdChannel, int(ours.Fd())), s.store.keep(fdExe, int(s.exe.Fd())))
	}
	// Only now: a daemon after us must know of every worker that serves.
	if err == nil {
		err = p.server.Go()
	}
	if err != nil {
		return nil, fmt.Errorf("start worker of workload %q: %w", s.id, s.end(p, err))
	}
	return p, nil
}

// counted is the memory for what the workload holds, nil where it isn't counted.
func (s *supervisor) counted() *os.File {
	if s.holdings == nil {
		return nil
	}
	return s.files[fdHoldings]
}

// tasks are the files of that name of the worker's cgroups of v1.
func (s *supervisor) tasks() (out []*os.File) {
	for i := 0; ; i++ {
		f := s.files[fmt.Sprint(fdTasks, i)]
		if f == nil {
			return out
		}
		out = append(out, f)
	}
}

func (s *supervisor) forget(name string) {
	if f := s.files[name]; f != nil {
		f.Close()
		delete(s.files, name)
	}
	_ = s.store.drop(name) // where it fails nobody is left to be told
}

func (s *supervisor) serve(pid int, pidfd, channel *os.File, serving bool) *process {
	return &process{pid: pid, pidfd: pidfd, channel: channel, server: helper.Serve(helper.Config{
		Socket: channel, Known: s.known, Cgroup: s.files[fdOwn], Policy: s.policy, Objects: s.objects, Bell: s.ledger.Bell(), Probes: s.probes,
		Audit: s.audit, Holdings: s.holdings, Worker: pid, NetNS: s.netNS, Serving: serving,
	})}
}

// adopt finds the worker that a daemon before us has left; nil: there is none, or
// none that may go on.
func (s *supervisor) adopt() *process {
	worker, channel, exe := s.files[fdWorker], s.files[fdChannel], s.files[fdExe]
	if worker == nil || channel == nil || exe == nil {
		if worker != nil { // the daemon was killed before all was kept
			endOther(worker)
		}
		return nil
	}
	delete(s.files, fdWorker)
	delete(s.files, fdChannel)
	pid, e := sys.PIDOf(int(worker.Fd()))
	// One of another version may speak otherwise. What it leaves is in the ledger.
	over := s.fresh || e != 0 || gone(worker) || !sys.SameBinary(int(exe.Fd()), int(s.exe.Fd()))
	if over {
		endOther(worker)
	}
	p := s.serve(int(pid), worker, channel, true)
	if over {
		_ = s.end(p, nil) // once it is heard what it made last
		return nil
	}
	return p
}

// endOther ends a worker that isn't to be ours: nobody may work in the ledger when the
// next one does.
func endOther(worker *os.File) {
	kill(worker)
	sys.WaitExit(int(worker.Fd()))
}

// watch waits for a worker's end, and says why it ended. One that its channel or
// the ledger gives away is ended.
func (s *supervisor) watch(p *process) error {
	exited := make(chan struct{})
	go func() {
		sys.WaitExit(int(p.pidfd.Fd()))
		close(exited)
	}()
	tick := time.NewTicker(stallCheck)
	defer tick.Stop()
	var why error // nil: see how it ended
	for {
		select {
		case <-exited:
			return s.end(p, why)
		case <-p.server.Ended():
			if err := p.server.Err(); err != nil && why == nil { // what it said, or it isn't one of ours any more
				why = fmt.Errorf("%w: %w", errCrashed, err)
			}
			select {
			case <-exited: // it was about to
			case <-time.After(lastWords):
				if why == nil {
					// It has shut the channel down, or sent an empty packet, which looks the same.
					why = errors.New("it hung up on the daemon")
				}
			}
			return s.end(p, why)
		case <-tick.C:
			if n := s.stalled(); n >= maxStalled && why == nil {
				why = fmt.Errorf("%d calls wait for memory or files of the workload's for more than %v", n, worker.StallDeadline)
				kill(p.pidfd)
			}
			if why == nil && sys.Stopped(p.pid) { // its workload may do that to it
				why = errors.New("it was stopped")
				kill(p.pidfd)
			}
		}
	}
}

const (
	stallCheck = 5 * time.Second
	// maxStalled calls that wait for the workload itself are too many for its worker.
	maxStalled = ledger.Slots / 2
)

// errCrashed is how a worker ended that wasn't killed.
var errCrashed = errors.New("crashed")

// stalled counts the calls that wait for something of the target's too long.
func (s *supervisor) stalled() (n int) {
	for i := range ledger.Slots {
		slot := s.ledger.Slot(i)
		if slot.Waiting() > worker.StallDeadline {
			n++
		}
	}
	return n
}

// end makes sure that the worker is gone, with all that it had open. It returns why,
// or else how the worker ended, as far as that can be known.
func (s *supervisor) end(p *process, why error) error {
	kill(p.pidfd)
	sys.WaitExit(int(p.pidfd.Fd()))
	ended := sys.Reap(p.pid)
	switch {
	case why != nil:
	case ended == nil:
		why = errors.New("it ended")
	case errors.Is(ended, sys.Signal(sys.SIGKILL)):
		why = ended
	default:
		why = fmt.Errorf("%w: %w", errCrashed, ended)
	}
	p.pidfd.Close()
	// A worker in the hands of its workload may have given its end away.
	sys.HangUp(int(p.channel.Fd()))
	closed := func() {
		<-p.server.Ended()
		p.channel.Close()
	}
	select {
	case <-p.server.Ended():
		closed()
	case <-time.After(time.Second):
		s.stuck.Add(1)
		go func() {
			closed()
			s.stuck.Add(-1)
		}()
	}
	return why
}

// kill does nothing to a process that has ended.
func kill(pidfd *os.File) { _ = sys.SignalProcess(int(pidfd.Fd()), sys.SIGKILL) }

// gone says whether the process has ended.
func gone(pidfd *os.File) bool {
	ok, err := sys.WaitReadable(int(pidfd.Fd()), 0)
	return ok || err != nil
}
