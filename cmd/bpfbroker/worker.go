package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/bpfbroker/bpfbroker/worker"
)

// workerCommand is what worker.Start executes; it is of no use to anyone else.
func workerCommand() *cobra.Command {
	var id, policy string
	c := &cobra.Command{
		Use:    worker.Arg,
		Short:  "Serve one workload (started by bpfbroker itself)",
		Args:   cobra.NoArgs,
		Hidden: true,
		Run:    func(*cobra.Command, []string) { os.Exit(worker.Main(id, policy)) },
	}
	c.Flags().StringVar(&id, "id", "", "the workload's id")
	c.Flags().StringVar(&policy, "policy", "", "name of a built-in policy")
	return c
}
