package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/abi/reference"
)

func commandsCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "commands [COMMAND…]",
		Short: "Print the table of bpf()'s commands: what bpfbroker knows of each",
		Long: `Print the table from which bpfbroker decodes, copies and performs every bpf() call:
the commands, their attributes' fields, where they point, what is intercepted and
what the kernel decides, and why.`,
		Example: `  bpfbroker commands
  bpfbroker commands prog_load -o markdown
  bpfbroker commands -o json | jq '.commands[] | select(.native) | .name'`,
		RunE: func(c *cobra.Command, args []string) error {
			return reference.Write(c.OutOrStdout(), format, args)
		},
		ValidArgsFunction: func(_ *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			var names []string
			for _, row := range abi.Table() {
				names = append(names, row.Name)
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
	c.Flags().StringVarP(&format, "output", "o", reference.Formats[0], "format: "+strings.Join(reference.Formats, ", "))
	err := c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(reference.Formats, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic(err) // no such flag
	}
	return c
}
