// Tools runs real BPF tools and programs three ways, and compares: natively as
// root, in a user namespace without bpfbroker, and under "bpfbroker run".
//
// A case is a script below cases/, whose folder is the tool and whose second
// line is its title. It asserts what it shows, and exits with another status than 0
// if that isn't so. A list of the same name with ".list" makes it a case for
// each line: "NAME ARGUMENTS…".
//
// It fails when a case that passes as root fails brokered, or when the two fail
// differently, unless expected.txt gives a reason; and when a reason is given for
// what isn't so any more.
//
//	go run ./hack/tools                  all; writes docs/results/tools.md
//	go run ./hack/tools -run bpftool/    a part; reports to standard output only
//	go run ./hack/tools -v -run xdp      … with the output of what fails
//
// How a case is run is in demo/way, which demo/run.sh uses, too.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"sync"
	"time"
)

type options struct {
	broker   string
	report   string
	expected string
	only     string
	timeout  time.Duration
	jobs     int
	keep     bool
	verbose  bool
}

func main() {
	var o options
	flag.StringVar(&o.broker, "broker", "bin/bpfbroker", "the bpfbroker to test")
	flag.StringVar(&o.report, "report", "docs/results/tools.md", "the report to write")
	flag.StringVar(&o.expected, "expected", "hack/tools/expected.txt", "what may fail brokered, and why")
	flag.StringVar(&o.only, "run", "", "regular expression of the cases to run (a part writes no report)")
	flag.DurationVar(&o.timeout, "timeout", time.Minute, "limit for one case, one way")
	flag.IntVar(&o.jobs, "j", 2, "cases at once; the three ways of one are one after another")
	flag.BoolVar(&o.keep, "keep", false, "keep the directory with the programs")
	flag.BoolVar(&o.verbose, "v", false, "show the output of cases that fail")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "tools:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if os.Geteuid() != 0 {
		return errors.New("needs root, which starts bpfbroker")
	}
	broker, err := filepath.Abs(o.broker)
	if err != nil {
		return err
	}
	only, err := regexp.Compile(o.only)
	if err != nil {
		return err
	}
	reasons, err := readReasons(o.expected)
	if err != nil {
		return err
	}

	// Where everybody may read: this checkout may be below /root.
	dir, err := os.MkdirTemp("", "bpfbroker-tools-")
	if err != nil {
		return err
	}
	if o.keep {
		fmt.Println("programs are kept in", dir)
	} else {
		defer os.RemoveAll(dir)
	}
	fmt.Println("building the programs")
	build := exec.CommandContext(ctx, "bash", "hack/tools/build.sh", dir)
	build.Stdout, build.Stderr = os.Stdout, os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("hack/tools/build.sh: %w", err)
	}

	all, err := findCases(filepath.Join(dir, "cases"))
	if err != nil {
		return err
	}
	var cases []*result
	for _, c := range all {
		if only.MatchString(c.name) {
			cases = append(cases, &result{testCase: c})
		}
	}
	if len(cases) == 0 {
		return fmt.Errorf("no case matches %q", o.only)
	}

	r := runner{dir: dir, broker: broker, timeout: o.timeout}
	if err := r.checkWays(ctx); err != nil {
		return err
	}
	progress := make(chan *result)
	go func() {
		r.all(ctx, cases, o.jobs, progress)
		close(progress)
	}()
	done := 0
	for c := range progress {
		done++
		c.judge(reasons)
		c.print(os.Stdout, done, len(cases), o.verbose)
	}
	if err := ctx.Err(); err != nil {
		return err
	}

	if o.only == "" {
		if err := os.WriteFile(o.report, []byte(markdown(cases)), 0o644); err != nil {
			return err
		}
		fmt.Println("wrote", o.report)
	}
	fmt.Println(summary(cases))
	return verdict(cases, reasons, o.only == "")
}

// all runs the cases, some at once, and sends each when it was run all ways.
func (r runner) all(ctx context.Context, cases []*result, jobs int, done chan<- *result) {
	var wg sync.WaitGroup
	next := make(chan *result)
	for range max(jobs, 1) {
		wg.Go(func() {
			for c := range next {
				for i, how := range ways {
					c.outcomes[i] = r.attempt(ctx, how, c.testCase)
				}
				done <- c
			}
		})
	}
	for _, c := range cases {
		if ctx.Err() != nil {
			break
		}
		next <- c
	}
	close(next)
	wg.Wait()
}
