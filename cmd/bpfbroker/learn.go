package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bpfbroker/bpfbroker/audit"
	"github.com/bpfbroker/bpfbroker/policy"
	"github.com/bpfbroker/bpfbroker/policy/learn"
	"github.com/bpfbroker/bpfbroker/policy/load"
)

type learnOptions struct {
	run      runOptions
	from     []string // logs, instead of a command
	workload string
	output   string
	name     string
	force    bool
	digests  bool
	noLimits bool
}

// learnUnder is the policy under which a command is watched if no other is named.
const learnUnder = "trusted"

func learnCommand() *cobra.Command {
	var o learnOptions
	c := &cobra.Command{
		Use:   "learn [flags] -- CMD [ARGS…] | learn --from AUDITLOG [flags]",
		Short: "Write the policy that a command needs",
		Long: `Run CMD as bpfbroker run does, under the policy trusted or another, and write a policy
that allows what it did, and little else: a YAML file with comments, for people to read
before they use it. With --from, make it of what is in an audit log (bpfbroker run --audit):
so a policy is learned from a workload that runs, or from several runs.

The policy bounds what the broker found out of each operation: types, sizes, flags, helpers
and kernel functions, what is attached to. Numbers get room up to the next power of two;
processes and temporary directories may be others. It says nothing of names, licenses and
ids. What CMD tried and the kernel refused, as programs do to find out what the kernel has,
is allowed likewise.

Exit status: CMD's own; 125 if bpfbroker itself fails.`,
		Example: `  # write agent.yaml, and run under it
  bpfbroker learn -- ./agent
  bpfbroker run --policy ./agent.yaml -- ./agent

  # these programs and no others, whatever they are called
  bpfbroker learn --digests -o policies/agent.yaml -- ./agent

  # from a workload that runs
  bpfbroker run --policy trusted --audit agent.log -- ./agent
  bpfbroker learn --from agent.log -o policies/agent.yaml

  # what would it have changed?
  bpfbroker policy test --replay agent.log policies/agent.yaml`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) == 0 && len(o.from) == 0:
				return errors.New("learn: no command; say what to run after --, for example: bpfbroker learn -- bpftool prog show; or give a log with --from")
			case len(args) > 0 && len(o.from) > 0:
				return errors.New("learn: a command and --from; it is one or the other")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error { return o.learn(c, args) },
		ValidArgsFunction: func(_ *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 || strings.Contains(prefix, "/") {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return executables(prefix), cobra.ShellCompDirectiveDefault
		},
	}
	o.run.flags(c, learnUnder)
	f := c.Flags()
	f.StringArrayVar(&o.from, "from", nil, "learn from this audit log, - for standard input; several, one after the other")
	f.StringVar(&o.workload, "workload", "", "with --from, only from the workload with this id (default: all in the log)")
	f.StringVarP(&o.output, "output", "o", "", "file to write, - for standard output (default: NAME.yaml)")
	f.StringVar(&o.name, "name", "", "the policy's name (default: that of CMD, of -o's file or of the log)")
	f.BoolVar(&o.force, "force", false, "replace the file if there is one")
	f.BoolVar(&o.digests, "digests", false, "allow only the programs that were loaded, by their digests (prog.digest), instead of by what they call")
	f.BoolVar(&o.noLimits, "no-limits", false, "set no limits of maps, programs, links and their memory")
	return c
}

// learned is what was learned, and what is told of it beside the policy.
type learned struct {
	*learn.Learner
	workloads map[string]bool
	lost      uint64
	denied    map[string]int // what, with its reason
	strange   map[string]int
	entries   []*audit.Entry // one of each kind, to ask the policy
}

// learn writes the policy of a command, or of logs.
func (o *learnOptions) learn(c *cobra.Command, args []string) error {
	if err := o.where(args); err != nil {
		return err
	}
	l := &learned{Learner: learn.New(), workloads: map[string]bool{}, denied: map[string]int{}, strange: map[string]int{}}
	if len(o.from) > 0 {
		if err := readLogs(c, o.from, audit.Filter{Workload: o.workload}, l.add); err != nil {
			return fmt.Errorf("learn: %w", err)
		}
		return o.write(c, l, fmt.Sprintf("%s: %d workloads, %d operations", strings.Join(o.from, ", "), len(l.workloads), l.Count()))
	}
	if o.run.watch {
		return errors.New("learn: --watch: what is learned is of one policy; leave it out")
	}
	dir, err := os.MkdirTemp("", "bpfbroker-learn-") // mode 0700
	if err != nil {
		return fmt.Errorf("learn: %w", err)
	}
	defer os.RemoveAll(dir)
	if o.run.audit != "" && !audit.IsFile(o.run.audit) {
		return fmt.Errorf("learn: --audit: %s can't be read again; give a file", o.run.audit)
	}
	if o.run.audit == "" {
		o.run.audit = filepath.Join(dir, "log")
	}
	if o.run.policy == "" {
		o.run.policy = learnUnder
	}
	o.run.recorded = true
	id, status, err := o.run.run(args, c.ErrOrStderr())
	if err != nil {
		return err
	}
	if err := readLogs(c, rotated(o.run.audit), audit.Filter{Workload: id}, l.add); err != nil {
		return fmt.Errorf("learn: %w", err)
	}
	if err := o.write(c, l, "a run of "+filepath.Base(args[0])); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil { // as Exit doesn't return
		return err
	}
	status.Exit()
	return nil
}

// where finds out where the policy goes, and what it is called.
func (o *learnOptions) where(args []string) error {
	name := o.name
	if name == "" {
		switch {
		case o.output != "" && o.output != "-":
			name = strings.TrimSuffix(strings.TrimSuffix(o.output, ".yaml"), ".yml")
		case len(args) > 0:
			name = args[0]
		default:
			name = strings.TrimSuffix(o.from[0], ".log")
		}
		name = learn.Name(name)
	} else if learn.Name(name) != name {
		return fmt.Errorf("learn: --name: %q is no name of a policy: lower case letters, digits, - and ., and no built-in policy's", name)
	}
	o.name = name
	if o.output == "" {
		o.output = name + ".yaml"
	}
	if o.output == "-" || o.force {
		return nil
	}
	if _, err := os.Lstat(o.output); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("learn: %q is there already; --force replaces it, -o writes another", o.output)
	}
	return nil
}

// rotated are the files of a log, in the order in which they were written.
func rotated(path string) []string {
	files := []string{path}
	for i := 1; ; i++ {
		older := fmt.Sprintf("%s.%d", path, i)
		if _, err := os.Lstat(older); err != nil {
			return files
		}
		files = slices.Insert(files, 0, older)
	}
}

// add learns from a record.
func (l *learned) add(e *audit.Entry, _ []byte) error {
	if e.Lost > 0 {
		l.lost += e.Lost
		return nil
	}
	l.workloads[e.Workload] = true
	what := strings.TrimSpace(e.Facts.Command + " " + e.Facts.Kind())
	if e.Decision.Verdict == policy.Deny {
		l.denied[fmt.Sprintf("%.100q: %.300q", what, e.Decision.Message)]++
		return nil
	}
	before := l.Distinct()
	err := l.Add(learn.Operation{Facts: e.Facts, Cut: e.Cut, Verdict: e.Decision.Verdict, Scope: e.Decision.Scope, PIDs: e.Decision.PIDs, Outcome: e.Outcome, Made: e.Record.Outcome.Kind})
	switch {
	case err != nil:
		l.strange[err.Error()]++
	case l.Distinct() > before:
		l.entries = append(l.entries, e)
	}
	return nil
}

// write writes the policy, and says what to know of it.
func (o *learnOptions) write(c *cobra.Command, l *learned, from string) error {
	p := l.Write(learn.Options{Name: o.name, Description: "learned from " + from, Digests: o.digests, NoLimits: o.noLimits})
	rules, err := load.Parse(o.output, p.Text)
	if err != nil {
		return fmt.Errorf("learn: what was learned is no policy, which is a mistake of bpfbroker's: %w", err)
	}
	if err := o.store(c.OutOrStdout(), p.Text); err != nil {
		return fmt.Errorf("learn: write the policy: %w", err)
	}
	out := c.ErrOrStderr()
	if o.output == "-" {
		fmt.Fprintf(out, "bpfbroker: learned %d rules from %d operations\n", p.Rules, l.Count())
	} else {
		fmt.Fprintf(out, "bpfbroker: learned %d rules from %d operations; wrote %s. Read it; to run under it:\n  bpfbroker run --policy %s -- …\n",
			p.Rules, l.Count(), o.output, asPolicy(o.output))
	}
	for _, n := range p.Notes {
		fmt.Fprintf(out, "  note: %s\n", n)
	}
	if l.lost > 0 {
		fmt.Fprintf(out, "  warning: %d records are missing in the log, so rules may be, too\n", l.lost)
	}
	tell := func(what string, m map[string]int) {
		for _, k := range sortedKeys(m) {
			fmt.Fprintf(out, "  %s: %d times %s\n", what, m[k], k)
		}
	}
	tell("not learned", l.strange)
	tell("denied, so not learned", l.denied)
	// What it was made of is asked: nobody should find out later.
	r := audit.NewReplay(rules)
	for _, e := range l.entries {
		r.Add(e)
	}
	if r.Changes() > 0 {
		fmt.Fprintf(out, "  warning: the policy decides some otherwise than they were:\n")
		r.Print(out)
	}
	return nil
}

// asPolicy is the file as --policy takes it.
func asPolicy(file string) string {
	if strings.Contains(file, "/") || strings.HasSuffix(file, ".yaml") || strings.HasSuffix(file, ".yml") {
		return file
	}
	return "./" + file
}

// store writes the file at once, or not at all.
func (o *learnOptions) store(stdout io.Writer, text []byte) error {
	if o.output == "-" {
		_, err := stdout.Write(text)
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(o.output), ".learn-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // it may have got its name
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	if o.force {
		return os.Rename(f.Name(), o.output)
	}
	return os.Link(f.Name(), o.output) // which replaces nothing
}

func sortedKeys(m map[string]int) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
