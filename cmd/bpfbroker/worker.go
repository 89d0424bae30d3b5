package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/bpfbroker/bpfbroker/daemon"
	"github.com/bpfbroker/bpfbroker/worker"
)

// workerCommand is what worker.Parent executes; it is of no use to anyone else.
func workerCommand() *cobra.Command {
	var o worker.Options
	c := &cobra.Command{
		Use:    worker.Arg,
		Short:  "Serve one workload (started by bpfbroker itself)",
		Args:   cobra.NoArgs,
		Hidden: true,
		Run:    func(*cobra.Command, []string) { os.Exit(worker.Main(o)) },
	}
	c.Flags().StringVar(&o.ID, "id", "", "the workload's id")
	c.Flags().StringVar(&o.Known, "known", "", "what is known of the workload, JSON")
	c.Flags().StringVar(&o.Kind, "kind", "", "token or capability")
	c.Flags().StringVar(&o.Policy, "policy", "", "name of a built-in policy")
	c.Flags().StringVar(&o.Probes, "probes", "", "the kernel's numbers of its probe PMUs")
	c.Flags().IntVar(&o.Audit, "audit", 0, "fd of the audit book, if there is one")
	c.Flags().IntVar(&o.Rules, "rules", 0, "fd of the policy's rules, if it has any")
	c.Flags().IntVar(&o.Holdings, "holdings", 0, "fd of memory for what the workload holds, if that is counted")
	c.Flags().IntVar(&o.Names, "names", 0, "fd of the index of the kernel's types, if there is one")
	c.Flags().IntVar(&o.Tracepoints, "tracepoints", 0, "fd of the list of tracepoints, if there is one")
	return c
}

// daemonCommand is what daemon.Keep executes; likewise.
func daemonCommand() *cobra.Command {
	var o daemon.Options
	c := &cobra.Command{
		Use:    daemon.Arg,
		Short:  "Keep one workload served (started by bpfbroker itself)",
		Args:   cobra.NoArgs,
		Hidden: true,
		Run:    func(*cobra.Command, []string) { os.Exit(daemon.Main(o)) },
	}
	c.Flags().StringVar(&o.ID, "id", "", "the workload's id")
	c.Flags().StringVar(&o.Kind, "kind", "", "of worker: token or capability")
	c.Flags().StringVar(&o.Policy, "policy", "", "name of a built-in policy")
	c.Flags().StringVar(&o.Memory, "memory", "", "whose the worker's memory is: workload or broker")
	c.Flags().StringVar(&o.Audit, "audit", "", "where the audit log goes")
	c.Flags().StringVar(&o.AuditPrograms, "audit-programs", "", "directory for the instructions of programs")
	c.Flags().StringVar(&o.IDs, "ids", "", "the workload's namespaces, JSON")
	c.Flags().BoolVar(&o.Interrupted, "interrupted", false, "signals interrupt its calls")
	c.Flags().StringVar(&o.Who, "who", "", "what else is known of it, JSON")
	c.Flags().BoolVar(&o.Fresh, "fresh", false, "end the worker that there is")
	c.Flags().StringVar(&o.FDs, "fds", "", "the names of the inherited fds, JSON")
	return c
}
