package main

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/bpfbroker/bpfbroker/hack/internal/list"
	"github.com/bpfbroker/bpfbroker/internal/sys"
)

const unexplained = "unexplained"

type packageResult struct {
	name             string
	native, brokered results
	differences      []difference
}

// difference is a test that passes natively and not brokered.
type difference struct {
	pkg, test string
	outcome   string // brokered: fail, skip, none
	cause     string
	message   string // the first line that tells what went wrong
	output    []string
}

type comparison struct {
	module   string
	runArgs  string
	packages []packageResult
}

// cause says why tests whose name or output matches differ.
type cause struct {
	name, output *regexp.Regexp
	text         string
}

// readCauses reads lines "name REGEXP => cause" and "output REGEXP => cause".
// A name is matched as "package.TestName/subtest".
func readCauses(path string) ([]cause, error) {
	lines, err := list.Read(path)
	if err != nil {
		return nil, err
	}
	var causes []cause
	for _, line := range lines {
		what, text, ok := strings.Cut(line, " => ")
		kind, expr, ok2 := strings.Cut(what, " ")
		if !ok || !ok2 {
			return nil, fmt.Errorf("%s: want \"name|output REGEXP => cause\", got %q", path, line)
		}
		re, err := regexp.Compile(strings.TrimSpace(expr))
		if err != nil {
			return nil, fmt.Errorf("%s: %q: %w", path, line, err)
		}
		c := cause{text: strings.TrimSpace(text)}
		switch kind {
		case "name":
			c.name = re
		case "output":
			c.output = re
		default:
			return nil, fmt.Errorf("%s: unknown kind %q in %q", path, kind, line)
		}
		causes = append(causes, c)
	}
	return causes, nil
}

// explain finds the differences and their causes.
func (c *comparison) explain(causes []cause) {
	for i := range c.packages {
		p := &c.packages[i]
		p.differences = nil
		for name, native := range p.native.tests {
			if native.outcome != "pass" {
				continue
			}
			brokered, ran := p.brokered.tests[name]
			if brokered.outcome == "pass" {
				continue
			}
			d := difference{pkg: p.name, test: name, outcome: brokered.outcome, output: brokered.output}
			d.message = firstError(brokered.output)
			if !ran {
				d.outcome = "not run"
				d.message = p.brokered.err
			}
			d.cause = d.find(causes)
			if d.cause == unexplained && d.message == "" && p.subtestDiffers(name) {
				d.cause = "a subtest differs"
			}
			if d.cause == unexplained && !ran && p.parentDiffers(name) {
				d.cause = "its parent ended before it"
			}
			p.differences = append(p.differences, d)
		}
		slices.SortFunc(p.differences, func(a, b difference) int { return strings.Compare(a.test, b.test) })
	}
}

func (d difference) find(causes []cause) string {
	name := d.pkg + "." + d.test
	output := strings.Join(d.output, "\n")
	for _, c := range causes {
		if c.name != nil && c.name.MatchString(name) || c.output != nil && c.output.MatchString(output) {
			return c.text
		}
	}
	return unexplained
}

func (p *packageResult) subtestDiffers(name string) bool {
	for sub, t := range p.native.tests {
		if strings.HasPrefix(sub, name+"/") && t.outcome == "pass" && p.brokered.tests[sub].outcome != "pass" {
			return true
		}
	}
	return false
}

func (p *packageResult) parentDiffers(name string) bool {
	for {
		slash := strings.LastIndexByte(name, '/')
		if slash < 0 {
			return false
		}
		name = name[:slash]
		if t, ok := p.brokered.tests[name]; ok && t.outcome != "pass" {
			return true
		}
	}
}

var (
	location = regexp.MustCompile(`^\s*[\w.-]+\.go:\d+: ?`)
	framing  = regexp.MustCompile(`^\s*(=== |--- |error:$|got:$|stack:$|comment:$|$)`)
)

// firstError returns the first line of a test's output that tells something:
// of a quicktest report the error or the value got, else the first message.
func firstError(output []string) string {
	var first string
	for i, line := range output {
		if framing.MatchString(line) {
			if t := strings.TrimSpace(line); (t == "error:" || t == "got:") && i+1 < len(output) {
				next := strings.TrimSpace(output[i+1])
				if t == "got:" || !strings.HasPrefix(next, "got non-nil error") {
					return clip(next)
				}
			}
			continue
		}
		if text := location.ReplaceAllString(line, ""); text != line || first == "" {
			if text = strings.TrimSpace(text); text != "" && (first == "" || text != line) {
				if first == "" {
					first = text
				}
			}
		}
	}
	return clip(first)
}

func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}

func (c *comparison) nativePassed() int {
	n := 0
	for _, p := range c.packages {
		n += p.native.count("pass")
	}
	return n
}

// bothPassed counts tests that pass natively and brokered.
func (p *packageResult) bothPassed() int {
	return p.native.count("pass") - len(p.differences)
}

func (c *comparison) bothPassed() int {
	n := 0
	for i := range c.packages {
		n += c.packages[i].bothPassed()
	}
	return n
}

func percent(part, whole int) float64 {
	if whole == 0 {
		return 100
	}
	return 100 * float64(part) / float64(whole)
}

func (c *comparison) percent() float64 { return percent(c.bothPassed(), c.nativePassed()) }

// brokeredPasses lists what passes on both sides, sorted: what passes brokered
// only says nothing about the broker.
func (c *comparison) brokeredPasses() []string {
	var names []string
	for _, p := range c.packages {
		for name, t := range p.brokered.tests {
			if t.outcome == "pass" && p.native.tests[name].outcome == "pass" {
				names = append(names, p.name+" "+name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// byCause groups all differences, largest group first.
func (c *comparison) byCause() (causes []string, groups map[string][]difference) {
	groups = make(map[string][]difference)
	for _, p := range c.packages {
		for _, d := range p.differences {
			groups[d.cause] = append(groups[d.cause], d)
		}
	}
	for text := range groups {
		causes = append(causes, text)
	}
	slices.SortFunc(causes, func(a, b string) int {
		if n := len(groups[b]) - len(groups[a]); n != 0 {
			return n
		}
		return strings.Compare(a, b)
	})
	return causes, groups
}

func (c *comparison) print(w io.Writer, verbose bool) {
	causes, groups := c.byCause()
	for _, text := range causes {
		fmt.Fprintf(w, "%d: %s\n", len(groups[text]), text)
		for _, d := range groups[text] {
			fmt.Fprintf(w, "    %s %s: %s", d.pkg, d.test, d.outcome)
			if text == unexplained {
				fmt.Fprintf(w, ": %s", d.message)
			}
			fmt.Fprintln(w)
			if verbose {
				for _, line := range d.output {
					fmt.Fprintln(w, "        |", line)
				}
			}
		}
	}
	for _, p := range c.packages {
		if p.brokered.err != "" {
			fmt.Fprintf(w, "%s, brokered: %s\n", p.name, p.brokered.err)
			tail := p.brokered.tail
			for _, line := range tail[max(0, len(tail)-20):] {
				fmt.Fprintln(w, "        |", line)
			}
		}
	}
	fmt.Fprintf(w, "\n%d of %d tests that pass natively pass brokered: %.1f %%\n", c.bothPassed(), c.nativePassed(), c.percent())
}

func (c *comparison) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Parity with root: the test suite of %s %s\n\n", modulePath, c.module)
	fmt.Fprintf(&b, "Its test binaries, compiled unmodified, run natively as root and under `bpfbroker run %s`. Repeat with `make parity`.\n\n", c.runArgs)
	fmt.Fprintf(&b, "Kernel %s, %s. Counted are tests and subtests. The workload's bpffs delegates nothing: no BPF token is involved.\n\n", sys.KernelRelease(), time.Now().UTC().Format(time.DateOnly))
	b.WriteString("| package | passed natively | of these brokered | | brokered: failed | skipped | never ended |\n|---|--:|--:|--:|--:|--:|--:|\n")
	for i := range c.packages {
		p := &c.packages[i]
		n := p.native.count("pass")
		fmt.Fprintf(&b, "| `%s` | %d | %d | %.1f %% | %d | %d | %d |\n", p.name, n, p.bothPassed(), percent(p.bothPassed(), n),
			p.brokered.count("fail"), p.brokered.count("skip"), p.brokered.count("none"))
	}
	fmt.Fprintf(&b, "| **all** | **%d** | **%d** | **%.1f %%** | | | |\n", c.nativePassed(), c.bothPassed(), c.percent())

	b.WriteString("\n## Passes natively and not brokered\n")
	causes, groups := c.byCause()
	if len(causes) == 0 {
		b.WriteString("\nNothing.\n")
	}
	for _, text := range causes {
		fmt.Fprintf(&b, "\n### %s (%d)\n\n| package | test | brokered | first message |\n|---|---|---|---|\n", text, len(groups[text]))
		for _, d := range groups[text] {
			fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s |\n", d.pkg, cell(d.test), d.outcome, cell(d.message))
		}
	}
	return b.String()
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
