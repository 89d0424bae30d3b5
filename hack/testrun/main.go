// Testrun runs go test and shows that its skips, and what it leaves behind, are
// the expected ones.
//
//	go run ./hack/testrun [flags] -- [arguments of go test]
//
// It prints go test's line for each package, the output of failed tests in
// full, every skip with its reason, and at the end one plain line,
// "N passed, N failed, N skipped". Tests and subtests count.
//
// A skip that -skips doesn't list is a failure: a test that silently stops
// running proves nothing. A listed test that ran is fine.
//
// With -leaks, BPF programs, maps and links, cgroups, mounts and processes that
// are there after the tests and were not before are failures, too.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"slices"
	"strings"
	"time"
)

func main() {
	skips := flag.String("skips", "hack/expected-skips.txt", "list of tests that may be skipped")
	leaks := flag.Bool("leaks", false, "compare BPF objects, cgroups, mounts and processes before and after")
	short := flag.Bool("short", false, "run go test -short; skips that name it in their reason are expected")
	verbose := flag.Bool("v", false, "show the output of passing tests, too")
	flag.Parse()

	if err := run(*skips, *leaks, *short, *verbose, flag.Args()); err != nil {
		fmt.Println("testrun:", err)
		os.Exit(1)
	}
}

func run(skips string, leaks, short, verbose bool, args []string) error {
	expected, err := readSkips(skips)
	if err != nil {
		return err
	}
	var before snapshot
	if leaks {
		if before, err = takeSnapshot(); err != nil {
			return fmt.Errorf("snapshot before the tests: %w", err)
		}
	}

	// An interrupt reaches go test through the terminal; we stay to report.
	signal.Ignore(os.Interrupt)

	command := []string{"test", "-json"}
	if short {
		command = append(command, "-short")
	}
	cmd := exec.Command("go", append(command, args...)...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	started := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	r := newReport(os.Stdout, verbose)
	readErr := r.read(stdout)
	testErr := cmd.Wait()

	var problems []error
	if readErr != nil {
		problems = append(problems, readErr)
	}
	if testErr != nil {
		problems = append(problems, fmt.Errorf("go test: %w", testErr))
	}
	problems = append(problems, r.showSkips(expected, short)...)
	if r.passed == 0 {
		problems = append(problems, errors.New("no test passed: nothing was tested"))
	}
	if leaks {
		left, err := before.leftovers(5 * time.Second)
		if err != nil {
			problems = append(problems, fmt.Errorf("snapshot after the tests: %w", err))
		}
		for _, l := range left {
			problems = append(problems, fmt.Errorf("left behind: %s", l))
		}
		if len(left) == 0 && err == nil {
			fmt.Println("nothing left behind: BPF objects, cgroups, mounts and processes are as before")
		}
	}
	for _, p := range problems {
		fmt.Println("FAIL:", p)
	}
	fmt.Printf("(%.0f s)\n", time.Since(started).Seconds())
	fmt.Printf("%d passed, %d failed, %d skipped\n", r.passed, r.failed, len(r.skips))
	if len(problems) > 0 {
		os.Exit(1)
	}
	return nil
}

// event is one line of go test -json.
type event struct {
	Action, Package, ImportPath, Test, Output string
}

type skip struct {
	name, reason string
}

// report turns events into lines for people.
type report struct {
	w       io.Writer
	verbose bool
	output  map[string][]string // of tests still undecided, by package and test
	passed  int
	failed  int
	skips   []skip
}

func newReport(w io.Writer, verbose bool) *report {
	return &report{w: w, verbose: verbose, output: make(map[string][]string)}
}

func (r *report) read(from io.Reader) error {
	in := bufio.NewReader(from)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				fmt.Fprintf(r.w, "%s", line) // go itself, not a test
			} else {
				r.add(e)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read go test: %w", err)
		}
	}
}

func (r *report) add(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "build-output":
		fmt.Fprint(r.w, e.Output)
	case "output":
		if e.Test == "" && (strings.HasPrefix(e.Output, "ok  \t") || strings.HasPrefix(e.Output, "FAIL\t")) {
			fmt.Fprint(r.w, e.Output)
			return
		}
		r.output[key] = append(r.output[key], e.Output)
	case "pass":
		r.finish(e, &r.passed, r.verbose)
	case "fail":
		r.finish(e, &r.failed, true)
	case "skip":
		if e.Test != "" {
			r.skips = append(r.skips, skip{name(e), reason(r.output[key])})
		}
		delete(r.output, key)
	}
}

func (r *report) finish(e event, count *int, show bool) {
	key := e.Package + " " + e.Test
	if e.Test != "" {
		*count++
	}
	if show {
		if e.Test != "" {
			fmt.Fprintf(r.w, "---- %s: %s\n", name(e), e.Action)
		}
		for _, line := range r.output[key] {
			fmt.Fprint(r.w, line)
		}
	}
	delete(r.output, key)
	if e.Test == "" && e.Action == "fail" {
		// The binary died: what its undecided tests wrote is all there is.
		for _, key := range slices.Sorted(keys(r.output)) {
			if strings.HasPrefix(key, e.Package+" ") {
				fmt.Fprintf(r.w, "---- %s: did not end\n", strings.ReplaceAll(key, " ", "."))
				for _, line := range r.output[key] {
					fmt.Fprint(r.w, line)
				}
				r.failed++
				delete(r.output, key)
			}
		}
	}
}

func keys(m map[string][]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// name is the test's, with its package as in the tree: "internal/sys.TestX".
func name(e event) string {
	const module = "github.com/bpfbroker/bpfbroker"
	pkg := strings.TrimPrefix(strings.TrimPrefix(e.Package, module), "/")
	return pkg + "." + e.Test
}

// reason is what a skipped test said last.
func reason(output []string) string {
	var said []string
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			said = append(said, line)
		}
	}
	if len(said) == 0 {
		return "no reason given"
	}
	return strings.Join(said, "; ")
}

// showSkips prints the skips and returns those that nobody expects.
func (r *report) showSkips(expected []string, short bool) (unexpected []error) {
	slices.SortFunc(r.skips, func(a, b skip) int { return strings.Compare(a.name, b.name) })
	inShort := 0
	for _, s := range r.skips {
		if short && strings.Contains(s.reason, "-short") {
			inShort++
			continue
		}
		fmt.Fprintf(r.w, "skip %s: %s\n", s.name, s.reason)
		if !listed(expected, s.name) {
			unexpected = append(unexpected, fmt.Errorf("unexpected skip of %s; make it run, or list it in hack/expected-skips.txt with its class", s.name))
		}
	}
	if inShort > 0 {
		fmt.Fprintf(r.w, "skip %d tests that need root or time: -short\n", inShort)
	}
	return unexpected
}

// listed also looks at the parents of a subtest: listing one lists them all.
func listed(expected []string, name string) bool {
	for _, pattern := range expected {
		if pattern == name || strings.HasPrefix(name, pattern+"/") {
			return true
		}
		if ok, err := path.Match(pattern, name); err == nil && ok {
			return true
		}
	}
	return false
}

// classes of reasons, so that a reviewer of the list sees what it would take to
// run a test.
var classes = []string{
	"kernel", // this kernel lacks the feature, or isn't allowed to have it
	"arch",   // another architecture's
	"tool",   // a program that Debian 12 doesn't have
	"long",   // runs by a target of its own: make storm, kill, fuzz
	"child",  // the part of a test that only runs as its child process
}

// readSkips reads lines "package.TestName class".
func readSkips(file string) ([]string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if len(fields) != 2 || !slices.Contains(classes, fields[1]) {
			return nil, fmt.Errorf("%s: want \"package.TestName class\", class one of %s; got %q", file, strings.Join(classes, ", "), strings.TrimSpace(line))
		}
		names = append(names, fields[0])
	}
	return names, nil
}
