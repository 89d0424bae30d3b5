package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// result is a case, run all ways.
type result struct {
	testCase
	outcomes [len(ways)]outcome
	verdict  string
	wrong    bool   // the run as a whole fails
	reason   string // of expected.txt
}

var digits = regexp.MustCompile(`0x[0-9a-f]+|[0-9]+`)

// sameFailure tells whether two lines differ in numbers alone.
func sameFailure(a, b string) bool {
	return digits.ReplaceAllString(a, "N") == digits.ReplaceAllString(b, "N")
}

func (r *result) judge(reasons map[string]string) {
	root, broker := r.outcomes[asRoot], r.outcomes[brokered]
	asWanted := false
	switch {
	case root.ok && broker.ok:
		r.verdict, asWanted = "as root", true
	case root.ok:
		r.verdict = "fails"
	case broker.ok:
		r.verdict = "works, not as root"
	case sameFailure(root.why, broker.why):
		r.verdict, asWanted = "as root", true
	default:
		r.verdict = "fails otherwise"
	}
	r.reason = reasons[r.name]
	switch {
	case asWanted && r.reason != "":
		r.wrong = true
		r.verdict += ", but a failure was expected"
	case !asWanted && r.reason == "":
		r.wrong = true
	}
}

func (r *result) print(w io.Writer, n, all int, verbose bool) {
	mark := "ok   "
	if r.wrong {
		mark = "WRONG"
	} else if r.reason != "" {
		mark = "known"
	}
	fmt.Fprintf(w, "%3d/%d %s %-42s", n, all, mark, r.name)
	for i, o := range r.outcomes {
		word := "fails"
		if o.ok {
			word = "works"
		}
		fmt.Fprintf(w, "  %s: %s %4.1fs", ways[i], word, o.took.Seconds())
	}
	fmt.Fprintln(w)
	for i, o := range r.outcomes {
		if o.ok || i == without && !verbose {
			continue
		}
		fmt.Fprintf(w, "        %s: %s\n", ways[i], o.why)
		if verbose {
			for line := range strings.Lines(o.output) {
				fmt.Fprintf(w, "          | %s\n", strings.TrimRight(line, "\n"))
			}
		}
	}
}

// verdict is the error of the run as a whole, if there is one.
func verdict(cases []*result, reasons map[string]string, all bool) error {
	var wrong []string
	names := make(map[string]bool)
	for _, c := range cases {
		names[c.name] = true
		if c.wrong {
			wrong = append(wrong, fmt.Sprintf("%s: %s", c.name, c.verdict))
		}
	}
	if all {
		for name := range reasons {
			if !names[name] {
				wrong = append(wrong, name+": there is no such case, but a reason for it")
			}
		}
	}
	slices.Sort(wrong)
	if len(wrong) > 0 {
		return fmt.Errorf("%d wrong:\n  %s", len(wrong), strings.Join(wrong, "\n  "))
	}
	return nil
}

type count struct{ cases, root, without, both, refused int }

func (n *count) add(r *result) {
	root, broker := r.outcomes[asRoot], r.outcomes[brokered]
	n.cases++
	if r.outcomes[without].ok {
		n.without++
	}
	switch {
	case root.ok:
		n.root++
		if broker.ok {
			n.both++
		}
	case !broker.ok && sameFailure(root.why, broker.why):
		n.refused++
	}
}

func summary(cases []*result) string {
	var n count
	for _, c := range cases {
		n.add(c)
	}
	return fmt.Sprintf("%d of %d cases work as root, %d of these under bpfbroker; %d fail both ways alike; %d work without it",
		n.root, n.cases, n.both, n.refused, n.without)
}

func markdown(cases []*result) string {
	var b strings.Builder
	b.WriteString("# Real tools, three ways\n\n")
	b.WriteString("Each case is a script that runs an unmodified tool or program, and asserts what it shows: as **root**, natively; as root of a user namespace **without** bpfbroker; and there, **under** `bpfbroker run --policy trusted --net private`. Repeat with `make tools`; the scripts are in [hack/tools/cases](../../hack/tools/cases).\n\n")
	kind := cmp.Or(os.Getenv("WORKER"), "token")
	fmt.Fprintf(&b, "Kernel %s, %s, %s worker. %s.\n\n", sys.KernelRelease(), time.Now().UTC().Format(time.DateOnly), kind, summary(cases))
	b.WriteString("Where a case fails, the first line that says why is shown.\n\n")

	tools, by := group(cases)
	b.WriteString("| tool | cases | work as root | of these under bpfbroker | fail both ways alike | work without it |\n|---|--:|--:|--:|--:|--:|\n")
	for _, tool := range tools {
		var n count
		for _, c := range by[tool] {
			n.add(c)
		}
		fmt.Fprintf(&b, "| [%s](#%s) | %d | %d | %d | %d | %d |\n", tool, tool, n.cases, n.root, n.both, n.refused, n.without)
	}
	var known []*result
	for _, c := range cases {
		if c.reason != "" {
			known = append(known, c)
		}
	}
	if len(known) > 0 {
		b.WriteString("\n## Otherwise than as root\n\n| case | what | why |\n|---|---|---|\n")
		for _, c := range known {
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", c.name, c.verdict, cell(c.reason))
		}
	}
	for _, tool := range tools {
		fmt.Fprintf(&b, "\n## %s\n\n| use | root | without | under bpfbroker |\n|---|---|---|---|\n", tool)
		for _, c := range by[tool] {
			fmt.Fprintf(&b, "| %s |", cell(c.title))
			for _, o := range c.outcomes {
				text := "works"
				if !o.ok {
					text = cell(o.why)
				}
				fmt.Fprintf(&b, " %s |", text)
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// group returns the tools in the cases' order, and the cases of each.
func group(cases []*result) (tools []string, by map[string][]*result) {
	by = make(map[string][]*result)
	for _, c := range cases {
		if by[c.tool] == nil {
			tools = append(tools, c.tool)
		}
		by[c.tool] = append(by[c.tool], c)
	}
	return tools, by
}

// cell makes a tool's words fit for a table: no column, no markup, none of the
// numbers that differ from run to run.
func cell(s string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;", "*", `\*`, "_", `\_`).Replace(s)
}
