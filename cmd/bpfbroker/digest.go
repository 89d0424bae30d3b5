package main

import (
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/bpfbroker/bpfbroker/digest/object"
)

func digestCommand() *cobra.Command {
	var program string
	c := &cobra.Command{
		Use:   "digest [--program NAME] OBJECT.o…",
		Short: "Print the digests of programs in object files",
		Long: `Prints, for each program of the object files, the digest by which policies name
it (the fact prog.digest), and FILE:PROGRAM.

The digest is a SHA-256 of the program's instructions, with the functions that it
calls, and relocated for the running kernel. Numbers of file descriptors and the
order of functions don't count: whichever loader loads the program, it has the same
digest. On another kernel it may have another, if it uses types or functions of the
kernel.

Nothing is loaded. A program that reads the kernel's configuration (__kconfig) or
names kernel symbols other than functions that it calls (__ksym) is refused: its
instructions are known only when it is loaded. See the fact in the audit log then.`,
		Example: `  # all programs of a file
  bpfbroker digest xdp.o

  # one, as a policy has it
  bpfbroker digest --program count xdp.o`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("digest: no object file; say which, for example: bpfbroker digest xdp.o")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, file := range args {
				programs, err := object.Digests(file, program)
				if err != nil {
					return err
				}
				for _, p := range programs {
					fmt.Fprintf(w, "%v\t%s:%s\n", p.Sum, file, p.Name)
				}
			}
			return w.Flush()
		},
	}
	c.Flags().StringVar(&program, "program", "", "name of the only program to look at (default: all)")
	return c
}
