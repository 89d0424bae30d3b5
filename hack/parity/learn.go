package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// The policy that bpfbroker learn makes of what a package's tests do: under it they come
// out as under the policy that they were seen under.

// learnedRow is one package's.
type learnedRow struct {
	name          string
	before, after results
	rules, notes  int
	operations    string
	differ        []string
}

// learned runs each package, learns, runs it under what was learned, and reports. The error
// says that tests came out otherwise.
func learned(ctx context.Context, o options, suite *suite, pkgs []string) error {
	broker, err := filepath.Abs(o.broker)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bpfbroker-learned-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	where := func(flags ...string) side {
		return side{name: "brokered", prefix: slices.Concat([]string{broker, "run", "--quiet", "--symbols=show"}, flags, []string{"--"})}
	}
	var rows []learnedRow
	bad := 0
	for i, pkg := range pkgs {
		log, file := filepath.Join(dir, fmt.Sprint(i, ".log")), filepath.Join(dir, fmt.Sprint(i, ".yaml"))
		row := learnedRow{name: pkg}
		row.before = suite.repeat(ctx, where(append(strings.Fields(o.runArgs), "--audit="+log)...), pkg, o)
		fmt.Printf("%-20s before   %s\n", pkg, row.before)
		cmd := exec.CommandContext(ctx, broker, "learn", "--name=learned", "--from="+log, "-o", file)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
		}
		fmt.Printf("%s", out)
		if _, err := fmt.Sscanf(string(out), "bpfbroker: learned %d rules from %s", &row.rules, &row.operations); err != nil {
			return fmt.Errorf("bpfbroker learn said %q: %w", out, err)
		}
		row.notes = bytes.Count(out, []byte("  note: "))
		// The last --policy counts.
		row.after = suite.repeat(ctx, where(append(strings.Fields(o.runArgs), "--policy="+file)...), pkg, o)
		fmt.Printf("%-20s after    %s\n", "", row.after)
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, name := range slices.Sorted(maps.Keys(row.before.tests)) {
			if b, a := row.before.tests[name], row.after.tests[name]; a.outcome != b.outcome {
				row.differ = append(row.differ, fmt.Sprintf("`%s`: %s → %s", name, b.outcome, a.outcome))
				if o.verbose {
					fmt.Println(strings.Join(a.output, "\n"))
				}
			}
		}
		bad += len(row.differ)
		rows = append(rows, row)
	}
	if err := os.WriteFile(o.learn, []byte(learnedReport(o, rows)), 0o644); err != nil {
		return err
	}
	fmt.Println("wrote", o.learn)
	if bad > 0 {
		return fmt.Errorf("%d tests come out otherwise under what was learned", bad)
	}
	return nil
}

func learnedReport(o options, rows []learnedRow) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Learned policies: the test suite of %s %s\n\n", modulePath, o.module)
	fmt.Fprintf(&b, "Each package's tests run under `bpfbroker run %s --symbols show --audit LOG`; `bpfbroker learn --from LOG` makes a policy of that; then they run likewise under that policy. They must come out the same. Repeat with `make learn`.\n\n", o.runArgs)
	fmt.Fprintf(&b, "Kernel %s. Counted are tests and subtests. Notes are what the policy says of itself that it isn't as narrow as what was seen.\n\n", sys.KernelRelease())
	b.WriteString("| package | operations | rules | notes | passed, failed, skipped before | under what was learned | other outcome |\n|---|--:|--:|--:|--:|--:|--:|\n")
	count := func(r results) string {
		return fmt.Sprintf("%d, %d, %d", r.count("pass"), r.count("fail"), r.count("skip"))
	}
	for _, r := range rows {
		fmt.Fprintf(&b, "| `%s` | %s | %d | %d | %s | %s | %d |\n", r.name, r.operations, r.rules, r.notes, count(r.before), count(r.after), len(r.differ))
	}
	for _, r := range rows {
		if len(r.differ) > 0 {
			fmt.Fprintf(&b, "\n## `%s`\n\n- %s\n", r.name, strings.Join(r.differ, "\n- "))
		}
	}
	return b.String()
}
