package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/bpfbroker/bpfbroker/control"
)

// needRoot is the answer to others than root, whom a directory would only tell that
// permission is denied.
func needRoot(what string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%s: only root can control workloads; run it with sudo", what)
	}
	return nil
}

// workloadIDs has shells complete the ids of running workloads.
func workloadIDs(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var ids []string
	all, err := control.All(control.Dir)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	for _, c := range all {
		ids = append(ids, c.ID)
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

func psCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "ps",
		Short: "List the workloads that run",
		Long: `List the workloads that run: their ids, the policies that decide their operations, how
many operations there were and how many of them were denied, and the commands.`,
		Example: `  bpfbroker ps
  bpfbroker ps -o json | jq -r '.[] | select(.denied > 0) | .id'`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := needRoot("ps"); err != nil {
				return err
			}
			all, err := statuses()
			if err != nil {
				return fmt.Errorf("ps: %w", err)
			}
			return writeStatuses(c.OutOrStdout(), format, all)
		},
	}
	c.Flags().StringVarP(&format, "output", "o", "text", "format: text or json")
	complete(c, "output", "text", "json")
	usageErrors(c)
	return c
}

// statuses asks all workloads; those that end meanwhile are left out.
func statuses() ([]control.Status, error) {
	all, err := control.All(control.Dir)
	if err != nil {
		return nil, err
	}
	out := []control.Status{}
	for _, c := range all {
		s, err := c.Status()
		if errors.Is(err, control.ErrNone) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// writeJSON writes what -o json asks for.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func writeStatuses(w io.Writer, format string, all []control.Status) error {
	switch format {
	case "json":
		return writeJSON(w, all)
	case "text":
	default:
		return &exitError{fmt.Errorf("ps: format %q: not one of text, json", format), exitUsage}
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "WORKLOAD\tPOLICY\tSINCE\tOPERATIONS\tDENIED\tCOMMAND")
	for _, s := range all {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%s\n", s.ID, s.Policy, s.Began.Local().Format(time.DateTime), s.Served, s.Denied, printable(strings.Join(s.Command, " "), 60))
	}
	return t.Flush()
}

// printable cuts a text to n characters, of which none is a terminal's.
func printable(s string, n int) string {
	q := fmt.Sprintf("%q", s)
	q = q[1 : len(q)-1]
	if r := []rune(q); len(r) > n {
		q = string(r[:n-1]) + "…"
	}
	return q
}

func policyApply() *cobra.Command {
	var ids []string
	c := &cobra.Command{
		Use:   "apply NAME|FILE",
		Short: "Replace the policy of workloads that run",
		Long: `Replace the policy of running workloads: all that run under a policy of the same name, or
those that --workload names, whatever their policies are called. When it returns, no
operation is decided by the policy before any more. What the workloads hold, they keep.

A policy with mistakes isn't applied: the one before stays in force. So it does where a
workload can't be served under the new one.`,
		Example: `  bpfbroker policy apply policies/cart.yaml
  bpfbroker policy apply deny --workload run-6f1e`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := needRoot("policy apply"); err != nil {
				return err
			}
			return apply(c.OutOrStdout(), args[0], ids)
		},
		ValidArgsFunction: policyNames,
	}
	c.Flags().StringSliceVarP(&ids, "workload", "w", nil, "id of a workload, or its beginning; may be given more than once")
	if err := c.RegisterFlagCompletionFunc("workload", workloadIDs); err != nil {
		panic(err) // no such flag
	}
	usageErrors(c)
	return c
}

func apply(w io.Writer, nameOrPath string, ids []string) error {
	p, err := findPolicy(nameOrPath)
	if err != nil {
		return fmt.Errorf("policy apply: the policy before stays in force: %w", err)
	}
	var to []control.Client
	for _, id := range ids {
		c, err := control.Find(control.Dir, id)
		if err != nil {
			return fmt.Errorf("policy apply: %w", err)
		}
		to = append(to, c)
	}
	if len(ids) == 0 {
		if to, err = under(p.Name()); err != nil {
			return fmt.Errorf("policy apply: %w", err)
		}
	}
	var failed []error
	for _, c := range to {
		if err := c.Apply(p); err != nil {
			failed = append(failed, fmt.Errorf("policy apply: %w", err))
			continue
		}
		fmt.Fprintf(w, "%s: policy %s is in force\n", c.ID, p.Name())
	}
	if len(failed) > 0 {
		return &exitError{errors.Join(failed...), exitProblems}
	}
	return nil
}

// under are the workloads that run under a policy of that name.
func under(name string) (out []control.Client, err error) {
	all, err := control.All(control.Dir)
	if err != nil {
		return nil, err
	}
	var others []string
	for _, c := range all {
		s, err := c.Status()
		if errors.Is(err, control.ErrNone) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if s.Policy == name {
			out = append(out, c)
		} else {
			others = append(others, fmt.Sprintf("%s (%s)", s.ID, s.Policy))
		}
	}
	switch {
	case len(out) > 0:
		return out, nil
	case len(others) > 0:
		return nil, fmt.Errorf("no workload runs under a policy called %q; name workloads with --workload: %s", name, strings.Join(others, ", "))
	}
	return nil, fmt.Errorf("no workload runs")
}

func revokeCommand() *cobra.Command {
	var detach, kill bool
	c := &cobra.Command{
		Use:   "revoke WORKLOAD",
		Short: "Withdraw the rights of a workload that runs",
		Long: `Deny a running workload every operation from now on. It keeps the maps, programs and links
that it holds, and may use them as far as bpf() needs no rights for that.

With --detach what it has attached is detached, too: links, programs attached to cgroups,
interfaces, network namespaces and sockmaps, struct_ops. Some links (of tracepoints,
kprobes, uprobes, fentry) the kernel detaches only when nobody holds them any more; they are
listed, and the exit status is 1. With --kill the workload's processes are killed as well,
after which nothing of it is left.

WORKLOAD is an id as "bpfbroker ps" lists it, or its beginning. "bpfbroker policy apply"
gives the workload rights again.

Exit status: 0 if all is withdrawn, 1 if something is left, 2 if it is called wrongly.`,
		Example: `  bpfbroker revoke run-6f1e
  bpfbroker revoke --detach run-6f1e || bpfbroker revoke --kill run-6f1e`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := needRoot("revoke"); err != nil {
				return err
			}
			w, err := control.Find(control.Dir, args[0])
			if err != nil {
				return fmt.Errorf("revoke: %w", err)
			}
			done, err := w.Revoke(detach, kill)
			if err != nil {
				return fmt.Errorf("revoke: %w", err)
			}
			return tellRevoked(c.OutOrStdout(), w.ID, detach, done)
		},
		ValidArgsFunction: workloadIDs,
	}
	c.Flags().BoolVar(&detach, "detach", false, "detach what the workload has attached")
	c.Flags().BoolVar(&kill, "kill", false, "kill the workload's processes")
	usageErrors(c)
	return c
}

func tellRevoked(w io.Writer, id string, detach bool, done control.Revoked) error {
	fmt.Fprintf(w, "%s: everything is denied\n", id)
	if detach {
		fmt.Fprintf(w, "%s: detached %d links, and %d programs attached without one\n", id, done.Links, done.Attached)
	}
	if done.Killed {
		fmt.Fprintf(w, "%s: its processes are killed\n", id)
		return nil
	}
	if len(done.Left) == 0 {
		return nil
	}
	return &exitError{fmt.Errorf("revoke: %d links are detached only when the workload's processes close them or end (--kill): %s", len(done.Left), strings.Join(done.Left, ", ")), exitProblems}
}
