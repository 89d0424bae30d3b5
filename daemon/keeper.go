package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/bpfbroker/bpfbroker/audit"
	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/guard"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/ledger"
	"github.com/bpfbroker/bpfbroker/policy"
	"github.com/bpfbroker/bpfbroker/worker"
	"github.com/bpfbroker/bpfbroker/workload"
)

// Workload describes a workload that is to be served. The files stay the caller's.
type Workload struct {
	ID       string
	Kind     worker.Kind // "": the best that the kernel has
	Policy   policy.Policy
	IDs      *guard.IDs      // its namespaces
	Who      *facts.Workload // what else is known of it; nil: it is the caller's own
	Memory   string          // MemoryWorkload or MemoryBroker
	Listener *os.File        // the workload's seccomp listener
	UserNS   *os.File
	NetNS    *os.File
	Cgroup   *os.File // directory of the worker's cgroup (v2)
	Own      *os.File // and of the workload's
	BPFFS    *os.File // root directory of the workload's bpffs, O_PATH
	// Audit is where the audit log goes (package audit): a path, or the name of another
	// sink; "": nowhere. AuditPrograms is a directory for the instructions of programs
	// of which the policy wants them kept; "": they aren't.
	Audit, AuditPrograms string
	// Interrupted says that its filter isn't of ours, and lacks WAIT_KILLABLE_RECV.
	Interrupted bool
	// Tasks are the files "tasks" of the worker's cgroups of v1, if there are any.
	Tasks []*os.File
}

// Keeper is what starts a daemon for one workload, keeps its fds, and starts
// another one when it dies.
type Keeper struct {
	args   []string
	names  []string // of files
	files  []*os.File
	ledger *ledger.Ledger

	ready chan error
	ended chan error

	served bool // a daemon came to serve
	failed bool // the last one didn't

	policy  policy.Policy // that the next daemon serves by
	fresh   bool          // it begins with this policy: it doesn't go on with a worker that there is
	loaders bool          // the workload's filter is made for programs that load others
	nested  bool          // the workload may hold maps of maps

	objects, netNS *os.File // as the daemon has them
	succession
}

// Keep has a daemon serve the workload. It returns once calls are answered.
func Keep(w Workload) (*Keeper, error) {
	best, err := worker.Supported()
	switch {
	case err != nil:
		return nil, err
	case w.Kind == "":
		w.Kind = best
	case w.Kind == worker.Token && best != worker.Token:
		return nil, errors.New("this kernel has no BPF tokens (they came with Linux 6.9): use --worker=capability")
	}
	book, err := ledger.Create()
	if err != nil {
		return nil, err
	}
	defer book.Close()
	objects, err := workload.CreateObjects()
	if err != nil {
		return nil, err
	}
	defer objects.Close()
	holdings, err := workload.CreateHoldings()
	if err != nil {
		return nil, err
	}
	defer holdings.Close()
	k := &Keeper{
		args:  []string{"bpfbroker", Arg, "--id=" + w.ID, "--kind=" + string(w.Kind), "--memory=" + w.Memory, fmt.Sprint("--interrupted=", w.Interrupted)},
		ready: make(chan error, 1), ended: make(chan error, 1),
		loaders: w.Policy.Ceiling().Loaders(), fresh: true,
	}
	for flag, v := range map[string]any{"--ids=": w.IDs, "--who=": w.Who} { // nil is null
		b, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		k.args = append(k.args, flag+string(b))
	}
	if k.ledger, err = ledger.Open(int(book.Fd())); err != nil {
		return nil, err
	}
	files := map[string]*os.File{
		fdListener: w.Listener, fdUserNS: w.UserNS, fdNetNS: w.NetNS, fdCgroup: w.Cgroup, fdOwn: w.Own, fdBPFFS: w.BPFFS, fdLedger: book, fdObjects: objects, fdHoldings: holdings,
	}
	if w.Audit != "" {
		records, err := audit.Create()
		if err != nil {
			return nil, err
		}
		defer records.Close()
		files[fdAudit], files[fdAuditStream] = records, audit.Stream(w.Audit)
		k.args = append(k.args, "--audit="+w.Audit, "--audit-programs="+w.AuditPrograms)
	}
	for _, f := range []struct {
		from *os.File
		to   **os.File
	}{{objects, &k.objects}, {w.NetNS, &k.netNS}} {
		if *f.to, err = sys.Duplicate(int(f.from.Fd())); err != nil {
			k.close()
			return nil, fmt.Errorf("keep fd: %w", err)
		}
	}
	for i, f := range w.Tasks {
		files[fmt.Sprint(fdTasks, i)] = f
	}
	for name, f := range files {
		if f == nil {
			continue
		}
		fd, err := sys.Duplicate(int(f.Fd()))
		if err != nil {
			k.close()
			return nil, fmt.Errorf("keep fd %q: %w", name, err)
		}
		k.names, k.files = append(k.names, name), append(k.files, fd)
	}
	if err := k.decideBy(w.Policy); err != nil {
		k.close()
		return nil, err
	}
	go k.keep()
	if err := <-k.ready; err != nil {
		<-k.ended
		return nil, err
	}
	return k, nil
}

// Ended receives, once the workload has ended and nothing serves it any more, nil,
// or why it wasn't served to the end.
func (k *Keeper) Ended() <-chan error { return k.ended }

// Summary says what the ledger has counted so far.
func (k *Keeper) Summary() ledger.Summary { return k.ledger.Summary() }

// capabilities are those that a daemon may have.
var capabilities = []sys.Capability{
	sys.CAP_BPF, sys.CAP_PERFMON, sys.CAP_NET_ADMIN, sys.CAP_SYS_ADMIN, sys.CAP_SYSLOG, // helper calls, and a capability worker's
	sys.CAP_SYS_PTRACE, sys.CAP_SYS_CHROOT, sys.CAP_SETUID, sys.CAP_SETGID, // a capability worker's
	sys.CAP_SETPCAP,                               // to take them from it
	sys.CAP_KILL,                                  // to end a worker
	sys.CAP_DAC_OVERRIDE, sys.CAP_DAC_READ_SEARCH, // the workers' binary, cgroup files
	sys.CAP_SYS_RESOURCE, // to spare workers from the OOM killer
}

// keep runs one daemon after the other until one has ended well.
func (k *Keeper) keep() {
	var err error
	var pace pace
	for tries := 0; ; {
		change := k.next()
		var ready bool
		if ready, err = k.daemon(change); err == nil || !k.served {
			change.end(k, ready, errWorkloadEnded)
			break
		}
		change.end(k, ready, err)
		if ready {
			tries = 0
		}
		if k.changing() { // which is why it ended
			continue
		}
		if tries++; tries > maxFailures {
			err = fmt.Errorf("%d daemons in a row ended: %w", tries, err)
			break
		}
		k.ledger.Fault(fmt.Errorf("daemon: %w; another takes over", err))
		time.Sleep(pace.wait(time.Now()))
		if k.failed = !ready; k.failed && tries > 1 {
			time.Sleep(retry)
		}
	}
	k.end()
	k.one.Lock()
	k.close() // the listener, too: calls fail from now on (ENOSYS)
	k.one.Unlock()
	if !k.served {
		k.ready <- errors.Join(errors.New("serve the workload"), err)
	}
	k.ended <- err
}

func (k *Keeper) close() {
	for _, f := range k.files {
		f.Close()
	}
	k.objects.Close() // nil has nothing to close
	k.netNS.Close()
}

// daemon runs one daemon to its end, and says whether it came to serve, and why it
// ended before its workload. change is what it is started for, nil: nothing.
func (k *Keeper) daemon(change *change) (ready bool, err error) {
	ours, theirs, err := sys.PacketPair()
	if err != nil {
		return false, err
	}
	defer ours.Close()
	pid, err := k.start(theirs)
	theirs.Close() // the daemon alone has that end: receive sees its death
	if err != nil {
		return false, fmt.Errorf("start daemon: %w", err)
	}
	k.serves(ours)
	defer k.serves(nil)
	var status error
	for {
		m, err := receive(ours)
		if err != nil {
			break
		}
		switch {
		case m.keep != "":
			for _, fd := range m.fds {
				k.names, k.files = append(k.names, m.keep), append(k.files, os.NewFile(uintptr(fd), m.keep))
			}
			m.fds = nil
		case m.drop != "":
			k.drop(m.drop)
		case m.ready:
			ready, k.fresh = true, false
			change.end(k, true, nil)
			if !k.served {
				k.served = true
				k.ready <- nil
			}
		case m.status != "":
			status = errors.New(m.status)
		}
		for _, fd := range m.fds {
			sys.Close(fd)
		}
	}
	err = sys.Reap(pid)
	if err == nil && status != nil {
		err = errors.New("it gave up")
	}
	return ready, errors.Join(status, err)
}

// start starts a daemon, which speaks to us on socket.
func (k *Keeper) start(socket *os.File) (pid int, err error) {
	names, err := json.Marshal(k.names)
	if err != nil {
		return 0, err
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	binary := sys.CurrentBinary
	if k.failed { // as it may be of a version that can't go on from ours
		binary = sys.OwnBinary
	}
	exe, err := binary()
	if err != nil {
		return 0, err
	}
	defer exe.Close()
	pid, pidfd, err := (&sys.Spawn{
		Exe: exe, Args: slices.Concat(k.args, []string{"--policy=" + k.policy.Name(), fmt.Sprint("--fresh=", k.fresh), "--fds=" + string(names)}), Env: []string{"GOTRACEBACK=single", fmt.Sprintf("GOMAXPROCS=%d", max(4, runtime.NumCPU()))},
		Files: slices.Concat([]*os.File{null, null, os.Stderr, socket}, k.files),
		Keep:  capabilities,
	}).Start()
	if err != nil {
		return 0, err
	}
	sys.Close(pidfd)
	return pid, nil
}

func (k *Keeper) drop(name string) {
	for i := len(k.names) - 1; i >= 0; i-- {
		if k.names[i] == name {
			k.files[i].Close()
			k.names, k.files = slices.Delete(k.names, i, i+1), slices.Delete(k.files, i, i+1)
		}
	}
}
