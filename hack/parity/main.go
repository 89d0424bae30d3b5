// Parity runs the test suite of github.com/cilium/ebpf, compiled unmodified,
// natively as root and under "bpfbroker run", and compares test by test.
//
// It writes a report that names every test which passes natively and not
// brokered, with the cause that causes.txt gives it. It fails when fewer than
// -min percent of the native passes are reached, or when a test of passed.txt
// no longer passes brokered.
//
//	go run ./hack/parity                      compare, write docs/results/parity.md
//	go run ./hack/parity -update              … and rewrite hack/parity/passed.txt
//	go run ./hack/parity -native-only         what this machine passes as root
//	go run ./hack/parity -learn FILE          with runs under learned policies: see learn.go
//	go run ./hack/parity -packages link,perf  a part; reports to standard output only
//
// Nothing of the host changes: each run has a mount namespace of its own, where
// a bpffs lies on /sys/fs/bpf and tracefs on /sys/kernel/tracing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bpfbroker/bpfbroker/hack/internal/list"
)

const modulePath = "github.com/cilium/ebpf"

// packages are those whose tests make bpf() calls or read what BPF tools read,
// relative to the module's root.
var packages = []string{
	".", "asm", "btf", "features", "link", "perf", "pin", "ringbuf", "rlimit",
	"internal/sys", "internal/kallsyms",
}

type options struct {
	module     string
	broker     string
	runArgs    string
	report     string
	passed     string
	causes     string
	only       string
	testArgs   string
	timeout    time.Duration
	min        float64
	rounds     int
	learn      string
	update     bool
	nativeOnly bool
	keep       bool
	verbose    bool
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == stageName {
		fmt.Fprintln(os.Stderr, "parity:", stage(os.Args[2:]))
		os.Exit(stageFailed)
	}

	var o options
	flag.StringVar(&o.module, "version", "v0.22.0", "version of "+modulePath)
	flag.StringVar(&o.broker, "broker", "bin/bpfbroker", "the bpfbroker to test")
	flag.StringVar(&o.runArgs, "run-args", "--policy trusted --net private", "flags for bpfbroker run")
	flag.StringVar(&o.report, "report", "docs/results/parity.md", "the report to write")
	flag.StringVar(&o.passed, "passed", "hack/parity/passed.txt", "tests that must pass brokered")
	flag.StringVar(&o.causes, "causes", "hack/parity/causes.txt", "causes of differences")
	flag.StringVar(&o.only, "packages", "", "comma-separated packages to test (default all; a part writes no report)")
	flag.StringVar(&o.testArgs, "test-args", "", "more arguments for the test binaries, for example -test.run=TestX")
	flag.DurationVar(&o.timeout, "timeout", 2*time.Minute, "limit for one package")
	flag.Float64Var(&o.min, "min", 95, "least percentage of the native passes")
	flag.IntVar(&o.rounds, "rounds", 1, "run each side so often; a test passes when it passes in every round")
	flag.StringVar(&o.learn, "learn", "", "instead, compare with runs under what bpfbroker learn makes of them, and write the report here")
	flag.BoolVar(&o.update, "update", false, "rewrite the list of tests that must pass")
	flag.BoolVar(&o.nativeOnly, "native-only", false, "only run natively")
	flag.BoolVar(&o.keep, "keep", false, "keep the directory with the compiled tests")
	flag.BoolVar(&o.verbose, "v", false, "show the output of tests that differ")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "parity:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if os.Geteuid() != 0 {
		return errors.New("the native side needs root")
	}
	pkgs, partial := packages, false
	if o.only != "" {
		pkgs, partial = strings.Split(o.only, ","), true
	}
	if o.testArgs != "" {
		partial = true
	}

	suite, err := compile(ctx, o.module, pkgs)
	if err != nil {
		return err
	}
	if o.keep {
		fmt.Println("tests are kept in", suite.dir)
	} else {
		defer os.RemoveAll(suite.dir)
	}

	if o.learn != "" {
		return learned(ctx, o, suite, pkgs)
	}
	native := side{name: "native"}
	brokered := side{name: "brokered"}
	if !o.nativeOnly {
		broker, err := filepath.Abs(o.broker)
		if err != nil {
			return err
		}
		brokered.prefix = append([]string{broker, "run"}, strings.Fields(o.runArgs)...)
		brokered.prefix = append(brokered.prefix, "--")
		if err := tokenPathClosed(ctx, brokered); err != nil {
			return err
		}
	}

	cmp := comparison{module: o.module, runArgs: o.runArgs}
	for _, pkg := range pkgs {
		row := packageResult{name: pkg}
		row.native = suite.repeat(ctx, native, pkg, o)
		fmt.Printf("%-20s native   %s\n", pkg, row.native)
		if !o.nativeOnly {
			row.brokered = suite.repeat(ctx, brokered, pkg, o)
			fmt.Printf("%-20s brokered %s\n", "", row.brokered)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		cmp.packages = append(cmp.packages, row)
	}
	if o.nativeOnly {
		fmt.Printf("\n%d tests pass natively\n", cmp.nativePassed())
		return nil
	}

	causes, err := readCauses(o.causes)
	if err != nil {
		return err
	}
	cmp.explain(causes)
	fmt.Println()
	cmp.print(os.Stdout, o.verbose)

	if partial {
		return nil
	}
	if err := os.WriteFile(o.report, []byte(cmp.markdown()), 0o644); err != nil {
		return err
	}
	fmt.Println("wrote", o.report)

	now := cmp.brokeredPasses()
	if o.update {
		text := "# Tests that pass under bpfbroker run. Written by: go run ./hack/parity -update\n" + strings.Join(now, "\n") + "\n"
		if err := os.WriteFile(o.passed, []byte(text), 0o644); err != nil {
			return err
		}
		fmt.Println("wrote", o.passed)
	}
	before, err := list.Read(o.passed)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var fallen []string
	for _, name := range before {
		if _, found := slices.BinarySearch(now, name); !found {
			fallen = append(fallen, name)
		}
	}
	if len(fallen) > 0 {
		return fmt.Errorf("%d tests of %s no longer pass brokered:\n  %s", len(fallen), o.passed, strings.Join(fallen, "\n  "))
	}
	if got := cmp.percent(); got < o.min {
		return fmt.Errorf("%.1f %% of the tests that pass natively pass brokered; wanted %.1f %%", got, o.min)
	}
	return nil
}
