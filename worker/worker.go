// Package worker is the process around a broker: one per workload. It holds the
// listener and does the whole way of every operation.
//
// A worker holds as little as the kernel makes possible. It is in the workload's
// user and network namespaces, in a cgroup beside the workload's, outside its pid
// namespace, and in a mount namespace with nothing but a /proc that shows the
// workload's own processes. Kind says what it may do with bpf().
//
// Parent (in the daemon) executes it: see sys.Spawn for the steps, in their order.
// Main (in the worker) makes the token, puts itself under a seccomp filter
// (package confine), and serves until the last process of the workload has ended.
package worker

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/bpfbroker/bpfbroker/broker"
	"github.com/bpfbroker/bpfbroker/internal/poller"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/policy"
	"github.com/bpfbroker/bpfbroker/request"
	"github.com/bpfbroker/bpfbroker/workload"
)

// Kind says what a worker performs with.
type Kind string

const (
	// Token workers have no capability on the host, and a BPF token of the policy's
	// ceiling (Linux 6.9). They are in the workload's user namespace.
	Token Kind = "token"
	// Capability workers have those capabilities on the host that the policy's
	// ceiling needs.
	Capability Kind = "capability"
)

// Kinds lists them.
func Kinds() []string { return []string{string(Token), string(Capability)} }

// Supported is the best kind that this kernel has.
func Supported() (Kind, error) {
	tokens, err := sys.TokenSupported()
	if tokens {
		return Token, err
	}
	return Capability, err
}

// inPlace are the capabilities by which a worker of either kind acts in a target's
// place. A token worker has them in the workload's user namespace alone.
var inPlace = []sys.Capability{
	sys.CAP_SYS_PTRACE, // the target's memory and fds, its root and working directory
	sys.CAP_SYS_CHROOT, // taking the target's root
	sys.CAP_SETUID,     // acting with the caller's uid
	sys.CAP_SETGID,     // and its gid and groups
}

// Capabilities are those that a worker of this kind has in its user namespace, the
// workload's or the host's, to serve a policy with this ceiling.
func Capabilities(k Kind, c policy.Ceiling) []sys.Capability {
	caps := append([]sys.Capability(nil), inPlace...)
	if k == Token {
		// What a token allows takes the capability in the token's user namespace;
		// CAP_SYS_ADMIN there makes the token and enters the target's namespaces.
		caps = append(caps, sys.CAP_BPF, sys.CAP_NET_ADMIN, sys.CAP_SYS_ADMIN)
		if c.KernelMemory {
			caps = append(caps, sys.CAP_PERFMON)
		}
		return caps
	}
	if !c.Empty() {
		caps = append(caps, sys.CAP_BPF)
	}
	if !c.Progs.Empty() || !c.Maps.Empty() {
		caps = append(caps, sys.CAP_NET_ADMIN) // network programs, and the maps for them
	}
	if c.KernelMemory {
		caps = append(caps, sys.CAP_PERFMON) // tracing programs, what the verifier lets pass
	}
	if c.HostAdmin != "" {
		caps = append(caps,
			sys.CAP_SYS_ADMIN, // see the policy; and entering a target's other namespaces
			sys.CAP_SYSLOG,    // kernel addresses, as root sees them
		)
	}
	return caps
}

// Config is what a worker serves.
type Config struct {
	Known    *workload.Known
	Kind     Kind
	Policy   policy.Policy
	Probes   request.Probes
	Exe      *os.File // what is executed: no reader in the workload may read it
	Listener *os.File // the seccomp listener
	Channel  *os.File // its end of the channel to the daemon
	Ledger   *os.File // the workload's
	Names    *os.File // an index of btfnames, nil for none
	// Tracepoints are workload.Tracepoints, nil for none.
	Tracepoints *os.File
	Rules       *os.File   // what policy.Decode makes the policy of; nil: it has no rules
	Holdings    *os.File   // memory of workload.Holdings; nil: nothing is counted
	Audit       *os.File   // the workload's audit book; nil: no log is kept
	UserNS      *os.File   // the workload's user namespace
	Cgroup      *os.File   // directory of the worker's cgroup (v2)
	Tasks       []*os.File // files "tasks" of its cgroups of v1
}

// The fds that a worker finds open beside 0 and 1, which are /dev/null, and 2.
const (
	listenerFD = 3
	channelFD  = 4
	ledgerFD   = 5
)

// Arg is the sub-command that makes this binary a worker.
const Arg = poller.Worker

// StallDeadline is how long a call may wait for memory or files of the workload's
// before it counts as stalled. When its worker is replaced, it is refused.
const StallDeadline = broker.StallDeadline

// Parent is a thread from which a workload's workers are forked: in the workload's
// network namespace, and in a mount namespace with nothing but a /proc. It takes longer
// to make these than all the rest of a worker, so workers after the first have the same:
// nothing that a worker may do changes them (package confine).
type Parent struct {
	jobs chan func()
}

// NewParent returns a parent. It lives until Close.
func NewParent(netNS *os.File) (*Parent, error) {
	p := &Parent{jobs: make(chan func())}
	ready := make(chan error)
	go func() {
		err := sys.BecomeWorkerParent(int(netNS.Fd()))
		ready <- err
		if err != nil {
			return // the thread ends with the goroutine
		}
		for job := range p.jobs {
			job()
		}
	}()
	if err := <-ready; err != nil {
		return nil, err
	}
	return p, nil
}

// Close ends the thread.
func (p *Parent) Close() { close(p.jobs) }

// Start executes a worker. Whether it serves then is told over the channel.
func (p *Parent) Start(cfg Config) (pid, pidfd int, err error) {
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0) // which the parent doesn't see
	if err != nil {
		return 0, -1, err
	}
	defer null.Close()
	done := make(chan struct{})
	p.jobs <- func() {
		pid, pidfd, err = start(cfg, null)
		close(done)
	}
	<-done
	return pid, pidfd, err
}

func start(cfg Config, null *os.File) (pid, pidfd int, err error) {
	known, err := json.Marshal(cfg.Known)
	if err != nil {
		return 0, -1, err
	}
	s := sys.Spawn{
		Exe:  cfg.Exe,
		Args: []string{"bpfbroker", Arg, "--id=" + cfg.Known.Workload.ID, "--known=" + string(known), "--kind=" + string(cfg.Kind), "--policy=" + cfg.Policy.Name(), "--probes=" + cfg.Probes.String()},
		Env: []string{"GODEBUG=madvdontneed=1", "GOTRACEBACK=single",
			// Threads sleep in the kernel, each with one of the runtime's processors, which
			// the scheduler takes away at once while no other is free, and gives to a thread
			// that it wakes for it.
			fmt.Sprintf("GOMAXPROCS=%d", max(16, runtime.NumCPU()))},
		Files:  []*os.File{null, null, os.Stderr, cfg.Listener, cfg.Channel, cfg.Ledger},
		Cgroup: cfg.Cgroup, Tasks: cfg.Tasks,
		Keep: Capabilities(cfg.Kind, cfg.Policy.Ceiling()),
	}
	for _, f := range []struct {
		flag string
		file *os.File
	}{{"audit", cfg.Audit}, {"rules", cfg.Rules}, {"holdings", cfg.Holdings}, {"names", cfg.Names}, {"tracepoints", cfg.Tracepoints}} {
		if f.file != nil {
			s.Args, s.Files = append(s.Args, fmt.Sprintf("--%s=%d", f.flag, len(s.Files))), append(s.Files, f.file)
		}
	}
	if cfg.Kind == Token {
		s.UserNS = cfg.UserNS
	}
	return s.Start()
}

// parseKind is Kind's inverse.
func parseKind(s string) (Kind, error) {
	switch k := Kind(s); k {
	case Token, Capability:
		return k, nil
	}
	return "", fmt.Errorf("no kind of worker is called %q: there are %s", s, strings.Join(Kinds(), " and "))
}

// ReadPolicy is the policy that rules holds, as Config.Rules has it; nil: the one of that
// name that is built in.
func ReadPolicy(name string, rules *os.File) (policy.Policy, error) {
	if rules == nil {
		return policy.Builtin(name)
	}
	data, err := sys.ReadMemoryFile(int(rules.Fd()))
	if err != nil {
		return nil, fmt.Errorf("policy %q: %w", name, err)
	}
	return policy.Decode(data)
}
