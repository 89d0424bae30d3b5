package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/facts/reference"
)

func factsCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "facts [NAME…]",
		Short: "Print what policies may speak of",
		Long: `Print the facts that the conditions of a policy may speak of: of each its name, type,
the commands that have it, and what it is. NAME is a fact, the first part of facts'
names, or a command.`,
		Example: `  bpfbroker facts
  bpfbroker facts prog map.type
  bpfbroker facts link_create
  bpfbroker facts -o json | jq -r '.facts[] | select(.set_by_workload) | .name'`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := reference.Write(c.OutOrStdout(), format, args); err != nil {
				return &exitError{err, exitUsage}
			}
			return nil
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			var names []string
			for _, f := range facts.Table {
				group, _, _ := strings.Cut(f.Name, ".")
				names = append(names, group, f.Name)
			}
			slices.Sort(names)
			return slices.Compact(names), cobra.ShellCompDirectiveNoFileComp
		},
	}
	usageErrors(c)
	c.Flags().StringVarP(&format, "output", "o", reference.Formats[0], "format: "+strings.Join(reference.Formats, ", "))
	complete(c, "output", reference.Formats...)
	return c
}
