package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/bpfbroker/bpfbroker/audit"
)

func auditCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "audit",
		Short: "Look at audit logs",
		Long: `Look at the logs that bpfbroker run --audit FILE writes: one record for each decision.
docs/audit.md describes them.`,
	}
	c.AddCommand(auditShowCommand())
	return c
}

func auditShowCommand() *cobra.Command {
	var f audit.Filter
	var since, programs string
	var raw bool
	c := &cobra.Command{
		Use:   "show [flags] FILE…",
		Short: "Print records of audit logs, and programs",
		Long: `Print the records in the files, - for standard input, in the files' order. With
--program the records of one program, and its instructions, if they are kept (audit:
full).`,
		Example: `  # what was denied in the last hour
  bpfbroker audit show --denied --since 1h agent.log

  # as it happens
  tail -F agent.log | bpfbroker audit show -

  # what code was run, by whom
  bpfbroker audit show --program 5f1c agent.log`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("audit show: no file; give the one of bpfbroker run --audit FILE, or - for standard input")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) (err error) {
			if f.Since, err = parseSince(since, time.Now()); err != nil {
				return fmt.Errorf("audit show: --since: %w", err)
			}
			out := c.OutOrStdout()
			digest := f.Program
			err = readLogs(c, args, f, func(e *audit.Entry, line []byte) error {
				if e.Program.Digest != "" && f.Program != "" {
					digest = e.Program.Digest // it may have been given as the other kind
				}
				if raw {
					_, err := out.Write(line)
					return err
				}
				audit.Show(out, e)
				return nil
			})
			if err != nil || f.Program == "" || raw {
				return err
			}
			if programs == "" {
				programs = audit.ProgramsOf(args[0])
			}
			insns, digest, err := audit.NewPrograms(programs).Load(digest)
			if err != nil {
				return fmt.Errorf("audit show: %w", err)
			}
			fmt.Fprintf(out, "\nprogram %s, %d bytes:\n", digest, len(insns))
			return audit.Disassemble(out, insns)
		},
	}
	c.Flags().BoolVar(&f.Denied, "denied", false, "only what was denied")
	c.Flags().StringVar(&f.Workload, "workload", "", "only of the workload with this id")
	c.Flags().StringVar(&since, "since", "", "only from then on: 90m, 2006-01-02, 2006-01-02T15:04:05Z")
	c.Flags().StringVar(&f.Program, "program", "", "only of the program whose digest begins so, and its instructions")
	c.Flags().StringVar(&programs, "audit-programs", "", "directory with the instructions of programs (default: FILE.programs)")
	c.Flags().BoolVar(&raw, "json", false, "print the records as they are")
	return c
}

func explainCommand() *cobra.Command {
	var f audit.Filter
	var file string
	var last bool
	c := &cobra.Command{
		Use:   "explain --audit FILE [--last | --id NUMBER [--workload ID]]",
		Short: "Tell why an operation was denied, and what would allow it",
		Long: `Tell of an operation in an audit log who wanted what, which policy and which rule
decided, and why. If it was denied, print a rule that allows it, and little else.`,
		Example: `  # the last denial
  bpfbroker explain --audit agent.log

  # number 17 of a workload
  bpfbroker explain --audit agent.log --id 17 --workload run-4ee22af1fc64`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if file == "" {
				return errors.New("explain: no log; give the one of bpfbroker run --audit FILE with --audit")
			}
			f.Denied = f.Seq == 0
			var found *audit.Entry
			err := readLogs(c, []string{file}, f, func(e *audit.Entry, _ []byte) error {
				if e.Lost == 0 {
					found = e
				}
				return nil
			})
			switch {
			case err != nil:
				return err
			case found == nil && f.Seq != 0:
				return fmt.Errorf("explain: no record %d in %q", f.Seq, file)
			case found == nil:
				return fmt.Errorf("explain: nothing was denied in %q", file)
			}
			audit.ExplainRecord(c.OutOrStdout(), found)
			return nil
		},
	}
	c.Flags().StringVar(&file, "audit", "", "the log (required)")
	c.Flags().BoolVar(&last, "last", false, "the last denial (default)")
	c.Flags().Uint64Var(&f.Seq, "id", 0, "the record with this number (seq); the last one where several workloads have one")
	c.Flags().StringVar(&f.Workload, "workload", "", "of the workload with this id")
	c.MarkFlagsMutuallyExclusive("last", "id")
	return c
}

// readLogs reads the files, and says how many of their lines are no records.
func readLogs(c *cobra.Command, files []string, f audit.Filter, do func(*audit.Entry, []byte) error) error {
	for _, name := range files {
		in := c.InOrStdin()
		if name != "-" {
			file, err := os.Open(name)
			if err != nil {
				return err
			}
			defer file.Close()
			in = file
		}
		if err := readLog(in, name, f, do, c.ErrOrStderr()); err != nil {
			return err
		}
	}
	return nil
}

func readLog(in io.Reader, name string, f audit.Filter, do func(*audit.Entry, []byte) error, stderr io.Writer) error {
	strange, err := audit.Read(in, f, do)
	if err != nil {
		return fmt.Errorf("read %q: %w", name, err)
	}
	if strange > 0 {
		fmt.Fprintf(stderr, "bpfbroker: %d lines of %q are no records of schema %d, and passed over\n", strange, name, audit.Schema)
	}
	return nil
}

// parseSince is a time, or how long ago it is.
func parseSince(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is neither a duration, such as 90m, nor a time, such as 2006-01-02T15:04:05Z", s)
}
