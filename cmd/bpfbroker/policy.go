package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/bpfbroker/bpfbroker/cgroups"
	"github.com/bpfbroker/bpfbroker/policy"
	"github.com/bpfbroker/bpfbroker/policy/load"
	"github.com/bpfbroker/bpfbroker/serve"
)

// Exit codes of commands that look at something and say whether it is as it should be.
const (
	exitProblems = 1
	exitUsage    = 2
)

// usageErrors makes the command end with exitUsage where it is called wrongly.
func usageErrors(c *cobra.Command) {
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exitError{err, exitUsage} })
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return &exitError{fmt.Errorf("%s: %w; see --help", strings.TrimPrefix(c.CommandPath(), "bpfbroker "), err), exitUsage}
			}
			return nil
		}
	}
}

// complete gives a flag the values that shells complete.
func complete(c *cobra.Command, flag string, values ...string) {
	err := c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic(err) // no such flag
	}
}

func policyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "policy",
		Short: "Check, test and show policies",
		Long: `Check, test and show policies: what decides the operations of workloads. A policy is a
YAML file of rules, each with a condition in CEL over facts (see "bpfbroker facts"); the
first rule that matches an operation decides on it, and what no rule matches is denied.

Exit status: 0 if all is well, 1 if there are problems, 2 if it is called wrongly.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	usageErrors(c)
	c.AddCommand(policyCheck(), policyTest(), policyApply(), policyCeiling(), policyShow(), policyList())
	return c
}

// yamlFiles has shells complete policies' files.
func yamlFiles(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
}

// policyNames has shells complete built-in policies, then files.
func policyNames(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return policy.Names(), cobra.ShellCompDirectiveDefault
}

// eachPolicy looks at each of the policies in files, and says at the end of how many look
// said no. Cases, which policies/*.yaml has, too, are passed over.
func eachPolicy(files []string, what string, look func(path string) (good bool)) error {
	cases := files[0]
	files = slices.DeleteFunc(slices.Clone(files), load.IsCases)
	if len(files) == 0 {
		return &exitError{fmt.Errorf("%s has cases; name the policy that they are for", cases), exitUsage}
	}
	bad := 0
	for _, path := range files {
		if !look(path) {
			bad++
		}
	}
	if bad == 0 {
		return nil
	}
	return &exitError{fmt.Errorf("%d of %d policies %s", bad, len(files), what), exitProblems}
}

// isFile says whether a policy is given by a file's path: it has a slash, or ends in .yaml
// or .yml.
func isFile(nameOrPath string) bool {
	return strings.Contains(nameOrPath, "/") || strings.HasSuffix(nameOrPath, ".yaml") || strings.HasSuffix(nameOrPath, ".yml")
}

// chosen is the file of the first policy in a directory whose selector fits a workload that
// we begin.
func chosen(dir string) (string, error) {
	all, err := load.Dir(dir)
	if err != nil {
		return "", err
	}
	w, err := who()
	if err != nil {
		return "", err
	}
	p := policy.Select(all, w)
	if p == nil {
		return "", fmt.Errorf("none of the %d policies in %q is for user %s (groups %s) in cgroup %s; see their selectors", len(all), dir, w.User, strings.Join(w.Groups, ", "), w.Cgroup)
	}
	return p.Spec().File, nil
}

// who is the owner of a workload that we begin: whoever we are.
func who() (*policy.Who, error) {
	w := &policy.Who{}
	serve.Owner(os.Getuid(), w)
	paths, err := cgroups.Paths(cgroups.Self)
	if err != nil {
		return nil, err
	}
	w.Cgroup = paths[""]
	return w, nil
}

// findPolicy returns the built-in policy of that name, or the one in that file.
func findPolicy(nameOrPath string) (policy.Policy, error) {
	if !isFile(nameOrPath) {
		return policy.Builtin(nameOrPath)
	}
	return load.File(nameOrPath)
}

func policyCheck() *cobra.Command {
	c := &cobra.Command{
		Use:   "check FILE…",
		Short: "Say what is wrong with policies",
		Long: `Read policies and list all mistakes of each, with their places: YAML, unknown names,
CEL's types, rules that never decide, conditions that cost too much.`,
		Example: `  bpfbroker policy check policies/*.yaml`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, files []string) error {
			return eachPolicy(files, "have mistakes", func(path string) bool {
				p, err := load.File(path)
				if err != nil {
					fmt.Fprintln(c.ErrOrStderr(), err)
					return false
				}
				fmt.Fprintf(c.OutOrStdout(), "%s: policy %s, %d rules\n", path, p.Name(), len(p.Spec().Rules))
				return true
			})
		},
		ValidArgsFunction: yamlFiles,
	}
	usageErrors(c)
	return c
}

func policyTest() *cobra.Command {
	var log, workload string
	c := &cobra.Command{
		Use:   "test FILE… | test --replay AUDITLOG NAME|FILE…",
		Short: "Ask policies the cases beside them, or what is in an audit log",
		Long: `Ask each policy the cases in the file beside it: of NAME.yaml, NAME.tests.yaml. A case has
facts, and what the policy must decide:

  apiVersion: bpfbroker/v1alpha1
  kind: PolicyTest
  cases:
  - name: large maps are denied
    facts: {command: map_create, map.type: array, map.max_entries: 9}
    want: {verdict: deny, cause: default, message: map.max_entries is 9}

Facts that aren't given are zero. Beside verdict (allow, deny, native), want may have rule,
cause (rule, default, limit, error), scope (host, workload), errno, and a part of the
message. Facts of "unknown", each with a reason, couldn't be found out. With "at", a time
like 2027-01-31T18:00:00Z, it is then, for rules that expire.

With --replay, decide anew on each operation in an audit log (bpfbroker run --audit), and
print what would change. What the log doesn't have whole can't be told. A denial that
answers as the kernel did is no change. Limits of what a workload holds aren't asked: a log
doesn't tell what it held. Exit status 1: something would change, or may.`,
		Example: `  # the cases in policies/cart.tests.yaml
  bpfbroker policy test policies/cart.yaml

  # what would change if this were the policy?
  bpfbroker policy test --replay cart.log policies/cart.yaml`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, files []string) error {
			if log != "" {
				return replay(c, log, workload, files)
			}
			return eachPolicy(files, "failed", func(path string) bool {
				n, failed, err := askCases(path)
				if err != nil {
					fmt.Fprintln(c.ErrOrStderr(), err)
					return false
				}
				for _, f := range failed {
					fmt.Fprint(c.OutOrStdout(), f.String())
				}
				fmt.Fprintf(c.OutOrStdout(), "%s: %d cases, %d failed\n", path, n, len(failed))
				return len(failed) == 0
			})
		},
		ValidArgsFunction: yamlFiles,
	}
	usageErrors(c)
	c.Flags().StringVar(&log, "replay", "", "the audit log to decide on anew, - for standard input")
	c.Flags().StringVar(&workload, "workload", "", "with --replay, only operations of the workload with this id")
	return c
}

// askCases asks a policy the cases beside it.
func askCases(path string) (n int, failed []load.Failure, err error) {
	p, err := load.File(path)
	if err != nil {
		return 0, nil, err
	}
	cases, err := load.CasesFile(load.CasesPath(path))
	if err != nil {
		return 0, nil, err
	}
	return len(cases.List), cases.Run(p), nil
}

func policyCeiling() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "ceiling NAME|FILE",
		Short: "Print what a policy could ever allow",
		Long: `Print the ceiling of a policy: the commands, map types, program types and attach types
that its rules could ever allow, whatever else they ask for. It is what the kernel enforces
on a worker, by the token that the worker is given: whoever takes it over gets this and
nothing else. KERNEL MEMORY says that programs may read the kernel's memory.`,
		Example: `  bpfbroker policy ceiling observe
  bpfbroker policy ceiling policies/cart.yaml -o json`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if format != "text" && format != "json" {
				return &exitError{fmt.Errorf("policy ceiling: format %q: not one of text, json", format), exitUsage}
			}
			p, err := findPolicy(args[0])
			if err != nil {
				return &exitError{err, exitProblems}
			}
			return writeCeiling(c.OutOrStdout(), format, p.Ceiling())
		},
		ValidArgsFunction: policyNames,
	}
	usageErrors(c)
	c.Flags().StringVarP(&format, "output", "o", "text", "format: text, json")
	complete(c, "output", "text", "json")
	return c
}

func writeCeiling(w io.Writer, format string, c policy.Ceiling) error {
	names := func(s policy.Set) []string {
		if s.Any {
			return []string{"any"}
		}
		return s.Names
	}
	if format == "json" {
		return writeJSON(w, struct {
			Commands     []string          `json:"commands"`
			Maps         []string          `json:"map_types"`
			Progs        []string          `json:"program_types"`
			Attachs      []string          `json:"attach_types"`
			KernelMemory bool              `json:"kernel_memory"`
			HostAdmin    string            `json:"host_admin,omitempty"`
			Options      map[string]string `json:"options"`
		}{names(c.Commands), names(c.Maps), names(c.Progs), names(c.Attachs), c.KernelMemory, c.HostAdmin, c.Options()})
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(what, value string) {
		if value == "" {
			value = "none"
		}
		fmt.Fprintf(t, "%s\t%s\n", what, value)
	}
	row("COMMANDS", strings.Join(names(c.Commands), " "))
	row("MAP TYPES", strings.Join(names(c.Maps), " "))
	row("PROGRAM TYPES", strings.Join(names(c.Progs), " "))
	row("ATTACH TYPES", strings.Join(names(c.Attachs), " "))
	row("KERNEL MEMORY", map[bool]string{true: "yes", false: "no"}[c.KernelMemory])
	if c.HostAdmin != "" {
		row("HOST ADMIN", c.HostAdmin)
	}
	o := c.Options()
	row("OPTIONS", fmt.Sprintf("delegate_cmds=%s,delegate_maps=%s,delegate_progs=%s,delegate_attachs=%s",
		o["delegate_cmds"], o["delegate_maps"], o["delegate_progs"], o["delegate_attachs"]))
	return t.Flush()
}

func policyShow() *cobra.Command {
	c := &cobra.Command{
		Use:   "show NAME",
		Short: "Print a built-in policy",
		Long: `Print a built-in policy as YAML, with comments that say what each rule is for and what
holding the objects allows. It is a file to begin one's own with.`,
		Example: `  bpfbroker policy show observe > policies/mine.yaml`,
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if _, err := policy.Builtin(args[0]); err != nil {
				return &exitError{err, exitProblems}
			}
			text, ok := policy.BuiltinSource(args[0])
			if !ok {
				text = fmt.Appendf(nil, "# %s: %s.\n# It has no rules: it says the same to every operation.\n", args[0], policy.About(args[0]))
			}
			_, err := c.OutOrStdout().Write(text)
			return err
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return policy.Names(), cobra.ShellCompDirectiveNoFileComp
		},
	}
	usageErrors(c)
	return c
}

func policyList() *cobra.Command {
	c := &cobra.Command{
		Use:     "list",
		Short:   "List the built-in policies",
		Example: `  bpfbroker policy list`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			t := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, name := range policy.Names() {
				fmt.Fprintf(t, "%s\t%s\n", name, policy.About(name))
			}
			return t.Flush()
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	usageErrors(c)
	return c
}
