package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/audit"
	"github.com/bpfbroker/bpfbroker/daemon"
	"github.com/bpfbroker/bpfbroker/filter"
	"github.com/bpfbroker/bpfbroker/internal/sys"
	"github.com/bpfbroker/bpfbroker/launch"
	"github.com/bpfbroker/bpfbroker/ledger"
	"github.com/bpfbroker/bpfbroker/policy"
	"github.com/bpfbroker/bpfbroker/worker"
	"github.com/bpfbroker/bpfbroker/workload"
)

type runOptions struct {
	policy   string
	decides  policy.Policy // what it names
	recorded bool          // all that it allows goes to the log
	watch    bool
	net, pid string
	worker   string
	memory   string
	tracing  string
	symbols  string
	userMap  string
	groupMap string
	quiet    bool
	audit    string
	programs string // --audit-programs
}

// values of --tracing
const (
	tracingView = "view"
	tracingNone = "none"
)

// values of --symbols
const (
	symbolsTrusted = "trusted"
	symbolsShow    = "show"
	symbolsHide    = "hide"
)

var symbolsValues = []string{symbolsTrusted, symbolsShow, symbolsHide}

func runCommand() *cobra.Command {
	var o runOptions
	c := &cobra.Command{
		Use:   "run [flags] -- CMD [ARGS…]",
		Short: "Run a command without privileges, its bpf() calls brokered",
		Long: `Run CMD as root of a new user namespace, without any capability on the host. Its
bpf() calls, and those of all processes that it starts, are decided by the policy
and performed in its place.

CMD gets namespaces of its own for mounts, cgroups and IPC, a cgroup v2 below the
caller's, at /sys/fs/cgroup, an empty bpffs of its own at /sys/fs/bpf, and at
/sys/kernel/tracing a read-only copy of what tracing tools read. Standard streams,
terminal, signals, working directory and exit status are as if CMD had been started
directly. All that run creates is gone after it, but for that copy, which is for all.

Policies:
` + policy.Describe() + `
Without --policy it is ` + policy.Default + `, as its programs see and change nothing but what is the
command's own; run says so.

Exit status: CMD's own, or 128 and the signal's number where a signal ended it and
the shell can't be told so; 125 if bpfbroker itself fails, 126 if CMD can't be
executed, 127 if there is no CMD.`,
		Example: `  # a shell in which BPF tools work
  bpfbroker run --policy trusted -- bash

  # XDP on interfaces of the command's own
  bpfbroker run --policy trusted --net private -- ./attach-xdp.sh

  # by rules of one's own
  bpfbroker run --policy policies/agent.yaml --watch -- ./agent

  # what would this program need?
  bpfbroker run --policy deny -- bpftool feature probe

  # what it did, and what was decided
  bpfbroker run --policy trusted --audit agent.log -- ./agent

  # other ids than root's in /etc/subuid
  bpfbroker run --policy trusted --user-map 0:300000:65536 -- id`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("run: no command; say what to run after --, for example: bpfbroker run --policy trusted -- bash")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error { return run(o, args, c.ErrOrStderr()) },
		ValidArgsFunction: func(_ *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 || strings.Contains(prefix, "/") {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return executables(prefix), cobra.ShellCompDirectiveDefault
		},
	}
	o.flags(c, policy.Default)
	return c
}

// flags are run's, and those of others that run a command; byDefault says which policy
// decides where none is chosen.
func (o *runOptions) flags(c *cobra.Command, byDefault string) {
	f := c.Flags()
	f.SetInterspersed(false) // CMD's flags are CMD's, also without --
	f.StringVarP(&o.policy, "policy", "p", "", "policy that decides CMD's operations: "+strings.Join(policy.Names(), ", ")+", a YAML file's path, or that of a directory of such files, of which the first is taken that selects the workload (default: "+byDefault+")")
	f.StringVar(&o.net, "net", "host", "network namespace: host (the caller's) or private (a new one, with lo)")
	f.StringVar(&o.pid, "pid", "host", "pid namespace: host (the caller's) or private (a new one, with an init)")
	f.StringVar(&o.tracing, "tracing", tracingView, "what CMD sees at /sys/kernel/tracing and /sys/kernel/debug: view (a copy of what tracing tools read) or none (what the host shows to all)")
	f.StringVar(&o.symbols, "symbols", symbolsTrusted, "whether CMD sees the addresses of the kernel's symbols in /proc/kallsyms, which the view has: show, hide, or trusted (under a policy that allows all)")
	f.StringVar(&o.userMap, "user-map", "", "user ids of the namespace, INSIDE:OUTSIDE:SIZE[,…] (default: root's in /etc/subuid, else 0:100000:65536)")
	f.StringVar(&o.groupMap, "group-map", "", "group ids likewise (default: as --user-map, else root's in /etc/subgid)")
	f.StringVar(&o.worker, "worker", "", "what the worker performs with: token (no capability on the host; Linux 6.9) or capability (default: token where the kernel has it)")
	f.StringVar(&o.memory, "worker-memory", daemon.MemoryWorkload, "whose the worker's own memory is, some MiB: workload (who makes it grow pays for it) or broker (for a workload with a tight limit)")
	f.StringVar(&o.audit, "audit", "", "log each decision to: a file, stdout, stderr, journald or syslog (default: nowhere)")
	f.StringVar(&o.programs, "audit-programs", "", "directory for the instructions of programs where the policy says audit: full (default: with --audit FILE, FILE.programs)")
	f.BoolVar(&o.watch, "watch", false, "when the policy's file changes, apply it; one with mistakes isn't")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "don't say which policy is the default, nor list at the end what it denied")
	complete := func(flag string, values ...string) {
		err := c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
		if err != nil {
			panic(err) // no such flag
		}
	}
	complete("policy", policy.Names()...)
	complete("worker", worker.Kinds()...)
	complete("worker-memory", daemon.MemoryWorkload, daemon.MemoryBroker)
	complete("tracing", tracingView, tracingNone)
	complete("symbols", symbolsValues...)
	complete("net", "host", "private")
	complete("pid", "host", "private")
}

// executables lists the commands in PATH that begin with prefix.
func executables(prefix string) []string {
	var out []string
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // PATH often names directories that aren't there
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), prefix) {
				out = append(out, e.Name())
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// config checks the options, and makes of them what launch wants to know.
func (o *runOptions) config(args []string, stderr io.Writer) (launch.Config, error) {
	cfg := launch.Config{Args: args}
	named := o.policy != ""
	if !named {
		o.policy = policy.Default
	}
	if st, err := os.Stat(o.policy); err == nil && st.IsDir() && isFile(o.policy) {
		if o.policy, err = chosen(o.policy); err != nil {
			return cfg, fmt.Errorf("run: --policy: %w", err)
		}
	}
	pol, err := findPolicy(o.policy)
	if err != nil {
		return cfg, fmt.Errorf("run: --policy: %w", err)
	}
	if rules, is := pol.(*policy.Rules); is && o.recorded {
		if pol, err = rules.Recorded(); err != nil {
			return cfg, fmt.Errorf("run: --policy: %w", err)
		}
	}
	o.decides = pol
	if o.watch && !isFile(o.policy) {
		return cfg, fmt.Errorf("run: --watch: policy %q is built in and doesn't change; give a file's path with --policy", o.policy)
	}
	switch o.tracing {
	case tracingView:
		cfg.Tracing = true
		// Who may load any program may read the kernel's memory, and find them there.
		cfg.Symbols = o.symbols == symbolsShow || o.symbols == symbolsTrusted && pol.Trusts()
	case tracingNone:
	default:
		return cfg, fmt.Errorf("run: --tracing: %q is neither %s nor %s", o.tracing, tracingView, tracingNone)
	}
	if !slices.Contains(symbolsValues, o.symbols) {
		return cfg, fmt.Errorf("run: --symbols: %q is none of %s", o.symbols, strings.Join(symbolsValues, ", "))
	}
	if o.worker != "" && !slices.Contains(worker.Kinds(), o.worker) {
		return cfg, fmt.Errorf("run: --worker: %q is neither %s", o.worker, strings.Join(worker.Kinds(), " nor "))
	}
	if o.memory != daemon.MemoryWorkload && o.memory != daemon.MemoryBroker {
		return cfg, fmt.Errorf("run: --worker-memory: %q is neither %s nor %s", o.memory, daemon.MemoryWorkload, daemon.MemoryBroker)
	}
	if err := o.checkAudit(); err != nil {
		return cfg, fmt.Errorf("run: %w", err)
	}
	for _, m := range []struct {
		flag, value string
		to          *launch.Mode
	}{{"net", o.net, &cfg.Net}, {"pid", o.pid, &cfg.PID}} {
		switch m.value {
		case "host":
			*m.to = launch.Host
		case "private":
			*m.to = launch.Private
		default:
			return cfg, fmt.Errorf("run: --%s: %q is neither host nor private", m.flag, m.value)
		}
	}
	for _, m := range []struct {
		flag, value string
		to          *[]launch.IDMap
	}{{"user-map", o.userMap, &cfg.UserMap}, {"group-map", o.groupMap, &cfg.GroupMap}} {
		if m.value == "" {
			continue
		}
		ids, err := launch.ParseIDMap(m.value)
		if err != nil {
			return cfg, fmt.Errorf("run: --%s: %w", m.flag, err)
		}
		*m.to = ids
	}
	if os.Geteuid() != 0 {
		return cfg, errors.New("run: only root can create workloads; run it with sudo")
	}
	prog, err := filter.Program(abi.NativeCommands(sys.KernelRelease(), pol.Ceiling().Loaders()))
	if err != nil {
		return cfg, fmt.Errorf("run: %w", err)
	}
	for _, i := range prog {
		cfg.Filter = append(cfg.Filter, sys.SockFilter(i))
	}
	cfg.ID = newID()
	if !named && !o.quiet {
		fmt.Fprintf(stderr, "bpfbroker: policy %s, as --policy names no other: %s\n", o.policy, policy.About(o.policy))
	}
	return cfg, nil
}

// checkAudit makes paths absolute, and looks whether the log can be written to.
func (o *runOptions) checkAudit() (err error) {
	if o.audit == "" {
		if o.programs != "" {
			return errors.New("--audit-programs: there is no log for them; give --audit, too")
		}
		return nil
	}
	if audit.IsFile(o.audit) {
		if o.audit, err = filepath.Abs(o.audit); err != nil {
			return fmt.Errorf("--audit: %w", err)
		}
		if o.programs == "" {
			o.programs = audit.ProgramsOf(o.audit)
		}
	}
	if o.programs != "" {
		if o.programs, err = filepath.Abs(o.programs); err != nil {
			return fmt.Errorf("--audit-programs: %w", err)
		}
	}
	if os.Geteuid() != 0 {
		return nil // run says so, which is more to the point
	}
	if err := audit.Check(o.audit); err != nil {
		return fmt.Errorf("--audit: %w", err)
	}
	return nil
}

// newID makes a workload's id, unique on the host.
func newID() string {
	var b [6]byte
	rand.Read(b[:]) // never fails
	return "run-" + hex.EncodeToString(b[:])
}

// run runs the command. Where it could be started, run doesn't return: the
// process ends as the command did.
func run(o runOptions, args []string, stderr io.Writer) error {
	_, status, err := o.run(args, stderr)
	if err != nil {
		return err
	}
	status.Exit()
	return nil
}

// run runs the command, and tells how it ended; id is the workload's.
func (o *runOptions) run(args []string, stderr io.Writer) (id string, status launch.ExitStatus, err error) {
	cfg, err := o.config(args, stderr)
	if err != nil {
		return "", status, err
	}
	w, err := launch.Start(cfg)
	if err != nil {
		return "", status, err
	}
	status, report, err := o.serve(cfg, w)
	if err := errors.Join(err, w.Close()); err != nil {
		return "", status, err
	}
	for _, e := range report.Faults {
		fmt.Fprintln(stderr, "bpfbroker:", e)
	}
	if !o.quiet {
		summarize(stderr, o.decides.Name(), report)
	}
	return cfg.ID, status, nil
}

// lastWords is how long a worker may take to end after its workload. It ends by
// itself; one that the kernel holds on to is killed.
const lastWords = 10 * time.Second

// serve starts the worker, lets the command go, and waits for the end of both.
func (o *runOptions) serve(cfg launch.Config, w *launch.Workload) (launch.ExitStatus, ledger.Summary, error) {
	none := launch.ExitStatus{}
	k, err := daemon.Keep(daemon.Workload{
		ID: cfg.ID, Kind: worker.Kind(o.worker), Policy: o.decides, IDs: workload.IDsOf(w.PID()), Memory: o.memory, Audit: o.audit, AuditPrograms: o.programs,
		Listener: w.Listener(), UserNS: w.UserNS(), NetNS: w.NetNS(), Cgroup: w.WorkerCgroup(), Own: w.OwnCgroup(), BPFFS: w.BPFFS(), Tasks: w.WorkerTasks(),
	})
	if err != nil {
		return none, ledger.Summary{}, err
	}
	// The daemon has it, and who keeps the daemon's fds: if that gives up, calls fail
	// (ENOSYS) instead of waiting for an answer that nobody gives.
	if err := w.Listener().Close(); err != nil {
		return none, ledger.Summary{}, err
	}
	stop, err := o.reachable(cfg, w, k)
	if err != nil {
		return none, ledger.Summary{}, err
	}
	defer stop()
	if err := w.Release(); err != nil {
		var notExecuted *launch.ExecError
		if errors.As(err, &notExecuted) {
			err = &exitError{err, notExecuted.ExitCode()}
		}
		return none, ledger.Summary{}, err
	}
	status, err := w.Wait()
	if err != nil {
		return none, ledger.Summary{}, err
	}
	select {
	case err = <-k.Ended():
	case <-time.After(lastWords):
		err = fmt.Errorf("worker and daemon didn't end within %v of their workload, and are killed", lastWords)
	}
	sum := k.Summary()
	if err != nil {
		sum.Faults = append(sum.Faults, err.Error())
	}
	return status, sum, nil
}

// summarize says what was denied, most frequent first.
func summarize(w io.Writer, policyName string, r ledger.Summary) {
	if len(r.Denied) == 0 {
		return
	}
	total := 0
	for _, d := range r.Denied {
		total += d.Count
	}
	fmt.Fprintf(w, "bpfbroker: policy %s denied %d of %d operations:\n", policyName, total, r.Served)
	for _, d := range r.Denied {
		fmt.Fprintf(w, "  %6d  %s\n", d.Count, strings.TrimSpace(d.Command+" "+d.Kind))
	}
}
