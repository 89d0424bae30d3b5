package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/bpfbroker/bpfbroker/policy"
	"github.com/bpfbroker/bpfbroker/policy/load"
	"github.com/bpfbroker/bpfbroker/serve"
	"github.com/bpfbroker/bpfbroker/worker"
)

// stateDir is the daemon's, if no other is named.
const stateDir = "/run/bpfbroker"

func serveCommand() *cobra.Command {
	var o runOptions // of which it has some
	var dir string
	c := &cobra.Command{
		Use:   "serve [flags]",
		Short: "Serve containers: their runtimes hand their bpf() calls over",
		Long: `Serve containers whose runtimes (runc, crun, podman, …) hand over the bpf() calls of their
processes: those with a seccomp profile that names ` + serve.OCISocket + ` in the state directory as its
listenerPath. "bpfbroker profile" makes such profiles. Each process that a runtime
starts, and what that starts, is a workload: see "bpfbroker ps", "revoke", "policy apply".

Containers need a user namespace of their own. Where none of the policies of a directory is
for a container, or --policy isn't given, all is denied.

It runs until SIGINT or SIGTERM. The bpf() calls of the containers that it serves fail
with ENOSYS then.`,
		Example: `  # what the policies of a directory say, the first that selects the container
  bpfbroker serve --policy /etc/bpfbroker/policies --audit journald

  # a container that may trace its own processes
  bpfbroker serve --policy observe &
  bpfbroker profile >bpf.json
  podman run --security-opt seccomp=bpf.json --userns auto …`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.serveContainers(dir) },
	}
	f := c.Flags()
	f.StringVar(&dir, "state-dir", stateDir, "where the sockets are; runtimes are told by their profiles")
	f.StringVarP(&o.policy, "policy", "p", "deny", "policy that decides: "+strings.Join(policy.Names(), ", ")+", a YAML file's path, or that of a directory of such files, of which the first is taken that selects the container")
	f.StringVar(&o.worker, "worker", "", "what workers perform with: token (no capability on the host; Linux 6.9) or capability (default: token where the kernel has it)")
	f.StringVar(&o.audit, "audit", "", "log each decision to: a file, stdout, stderr, journald or syslog (default: nowhere)")
	f.StringVar(&o.programs, "audit-programs", "", "directory for the instructions of programs where the policy says audit: full (default: with --audit FILE, FILE.programs)")
	complete(c, "worker", worker.Kinds()...)
	usageErrors(c)
	return c
}

// serveContainers serves until it is told to end.
func (o *runOptions) serveContainers(dir string) error {
	if os.Geteuid() != 0 {
		return errors.New("serve: only root can serve containers; run it with sudo")
	}
	choose, err := o.chooser()
	if err != nil {
		return fmt.Errorf("serve: --policy: %w", err)
	}
	if o.worker != "" && !slices.Contains(worker.Kinds(), o.worker) {
		return fmt.Errorf("serve: --worker: %q is neither %s", o.worker, strings.Join(worker.Kinds(), " nor "))
	}
	if err := o.checkAudit(); err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	s, err := serve.Listen(serve.Config{StateDir: dir, Choose: choose, Kind: worker.Kind(o.worker), Audit: o.audit, AuditPrograms: o.programs, Log: log})
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	closed := make(chan error, 1)
	go func() {
		<-ctx.Done()
		_, _ = daemon.SdNotify(false, daemon.SdNotifyStopping)
		closed <- s.Close() // and Serve returns
	}()
	log.Info("ready", "dir", dir, "policy", o.policy)
	_, _ = daemon.SdNotify(false, daemon.SdNotifyReady) // where there is no systemd, nobody listens
	if err := s.Serve(); err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	return <-closed
}

// chooser returns what chooses the policy for a container.
func (o *runOptions) chooser() (func(*policy.Who) (policy.Policy, error), error) {
	if st, err := os.Stat(o.policy); err == nil && st.IsDir() && isFile(o.policy) {
		all, err := load.Dir(o.policy)
		if err != nil {
			return nil, err
		}
		deny, err := policy.Builtin("deny")
		if err != nil {
			return nil, err
		}
		return func(w *policy.Who) (policy.Policy, error) {
			if p := policy.Select(all, w); p != nil {
				return p, nil
			}
			return deny, nil
		}, nil
	}
	p, err := findPolicy(o.policy)
	if err != nil {
		return nil, err
	}
	return func(*policy.Who) (policy.Policy, error) { return p, nil }, nil
}
