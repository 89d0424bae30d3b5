// Driver compares what calls cost natively, through the least supervisor that is
// possible (bench/floor.c), and through "bpfbroker run".
//
//	go run ./bench/driver [flags]
//
// On a shared machine the same call takes twice as long a minute later. So the
// ways are run in turn, round after round, and what counts is the ratio of two
// ways in one round: the median over the rounds, with its range.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bpfbroker/bpfbroker/internal/sys"
)

// way is one way to run callbench.
type way struct {
	name   string
	prefix []string // of the command; BROKER and FLOOR stand for the binaries
}

var (
	native = way{"native", nil}
	floor  = way{"C supervisor", []string{"FLOOR", "supervise"}}
	allow  = way{"filter, ALLOW all", []string{"FLOOR", "allow"}}
	look   = way{"filter, shortest", []string{"FLOOR", "look"}}
	broker = way{"bpfbroker", []string{"BROKER", "run", "--quiet", "--policy", "trusted", "--"}}
)

// series is one kind of call, made in several ways, the first of which is the
// base of the ratios.
type series struct {
	kind    string // callbench's word
	title   string
	batches int
	calls   int
	ways    []way
}

var all = []series{
	{"map_create", "MAP_CREATE, array of 4", 11, 100, []way{native, floor, broker}},
	{"prog_load", "PROG_LOAD, 2 instructions", 11, 50, []way{native, floor, broker}},
	{"prog_load_2000", "PROG_LOAD, 2000 instructions", 5, 10, []way{native, floor, broker}},
	{"map_lookup", "MAP_LOOKUP_ELEM, array", 11, 20000, []way{native, allow, look, broker}},
	{"getppid", "getppid, for comparison", 11, 20000, []way{native, allow, look, broker}},
}

// placement says where the kernel may run caller and broker.
type placement struct {
	title  string
	prefix []string
}

var placements = []placement{
	{"any CPU", nil},
	{"both on one CPU", []string{"taskset", "--cpu-list", "0"}},
}

type options struct {
	rounds int
	broker string
	source string
	report string
	only   string
}

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 15, "rounds")
	flag.StringVar(&o.broker, "broker", "bin/bpfbroker", "the bpfbroker to measure")
	flag.StringVar(&o.source, "source", "bench", "directory of the C programs")
	flag.StringVar(&o.report, "report", "docs/results/bench.md", "the report to write; empty: standard output only")
	flag.StringVar(&o.only, "only", "", "only this kind of call, as callbench calls it (map_create, …); writes no report")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("needs root: native calls and bpfbroker do")
	}
	b, err := build(ctx, o)
	if err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)

	started := time.Now()
	var tables []table
	for _, p := range placements {
		for _, s := range all {
			if o.only == "" || o.only == s.kind {
				tables = append(tables, table{s, p, make([][]float64, len(s.ways))})
			}
		}
	}
	if len(tables) == 0 {
		return fmt.Errorf("no kind of call %q", o.only)
	}
	for round := range o.rounds {
		for i := range tables {
			if err := tables[i].round(ctx, b, round); err != nil {
				return err
			}
		}
		fmt.Fprintf(os.Stderr, "\rround %d of %d", round+1, o.rounds)
	}
	fmt.Fprintln(os.Stderr)

	text := report(tables, o.rounds, time.Since(started))
	fmt.Print(text)
	if o.report == "" || o.only != "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(o.report), 0o755); err != nil {
		return err
	}
	return os.WriteFile(o.report, []byte(text), 0o644)
}

// binaries are the programs, in a directory that every user can read.
type binaries struct {
	dir    string
	broker string
}

func build(ctx context.Context, o options) (binaries, error) {
	var b binaries
	var err error
	if b.broker, err = filepath.Abs(o.broker); err != nil {
		return b, err
	}
	if _, err := os.Stat(b.broker); err != nil {
		return b, fmt.Errorf("%w; run make build first", err)
	}
	if b.dir, err = os.MkdirTemp("", "bpfbroker-bench-"); err != nil {
		return b, err
	}
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return b, err
	}
	for _, name := range []string{"callbench", "floor"} {
		gcc := exec.CommandContext(ctx, "gcc", "-O2", "-Wall", "-Wextra", "-o", filepath.Join(b.dir, name), filepath.Join(o.source, name+".c"))
		if out, err := gcc.CombinedOutput(); err != nil {
			return b, fmt.Errorf("compile %s.c: %w\n%s", name, err, out)
		}
	}
	return b, nil
}

// table holds the nanoseconds of one series in one placement: by way, then round.
type table struct {
	series
	placement
	ns [][]float64
}

// round measures every way once. The order turns from round to round, so that no
// way always comes after the same other.
func (t *table) round(ctx context.Context, b binaries, round int) error {
	for i := range t.ways {
		w := (i + round) % len(t.ways)
		ns, err := t.measure(ctx, b, t.ways[w])
		if err != nil {
			return err
		}
		t.ns[w] = append(t.ns[w], ns)
	}
	return nil
}

func (t *table) measure(ctx context.Context, b binaries, w way) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	args := slices.Concat(t.placement.prefix, w.prefix, []string{"./callbench", t.kind, strconv.Itoa(t.batches), strconv.Itoa(t.calls)})
	for i, arg := range args {
		switch arg {
		case "BROKER":
			args[i] = b.broker
		case "FLOOR":
			args[i] = "./floor"
		}
	}
	path := args[0]
	if strings.HasPrefix(path, "./") {
		path = filepath.Join(b.dir, path)
	}
	cmd := exec.CommandContext(ctx, path, args[1:]...)
	cmd.Dir = b.dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	kind, value, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	ns, err := strconv.ParseFloat(value, 64)
	if err != nil || kind != t.kind || ns <= 0 {
		return 0, fmt.Errorf("%s: got %q, wanted \"%s NANOSECONDS\"", strings.Join(args, " "), out, t.kind)
	}
	return ns, nil
}

// ratios of way w to way base, by round.
func (t *table) ratios(w, base int) []float64 {
	r := make([]float64, len(t.ns[w]))
	for i := range r {
		r[i] = t.ns[w][i] / t.ns[base][i]
	}
	return r
}

func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	if n%2 == 1 {
		return v[n/2]
	}
	return (v[n/2-1] + v[n/2]) / 2
}

func report(tables []table, rounds int, took time.Duration) string {
	var s strings.Builder
	fmt.Fprintf(&s, `# What a call costs

Written by `+"`make bench`"+` on %s: Linux %s, %s, %d CPUs, %s; %d rounds in %.0f s.

In each round every way is run in turn, in a process of its own. A way's time is
the median of the rounds' times. A ratio is that of two times of the same round:
the median of the rounds' ratios, and in brackets the least and the greatest.
Compare ratios, not times: the machine is shared.

- *native*: root, without a filter
- *C supervisor*: the least that is possible, one thread that receives, copies,
  calls and replies, and decides nothing (bench/floor.c)
- *filter, ALLOW all*: one instruction; *filter, shortest*: four, which look at
  bpf()'s command
- *bpfbroker*: under `+"`bpfbroker run --policy trusted`"+`; the map lookup is native
  there, so what is measured is the filter
`, time.Now().UTC().Format(time.DateOnly), sys.KernelRelease(), cpu(), runtime.NumCPU(), runtime.Version(), rounds, took.Seconds())

	for _, p := range placements {
		fmt.Fprintf(&s, "\n## Caller and broker on %s\n\n", strings.TrimPrefix(p.title, "both on "))
		fmt.Fprintln(&s, "| call | way | time | to native | to the C supervisor |")
		fmt.Fprintln(&s, "|---|---|--:|--:|--:|")
		for _, t := range tables {
			if t.placement.title != p.title {
				continue
			}
			supervisor := slices.IndexFunc(t.ways, func(w way) bool { return w.name == floor.name })
			for i, w := range t.ways {
				toNative, toFloor := "", ""
				if i > 0 {
					toNative = ratio(t.ratios(i, 0))
				}
				if supervisor > 0 && i > supervisor {
					toFloor = ratio(t.ratios(i, supervisor))
				}
				title := ""
				if i == 0 {
					title = t.series.title
				}
				fmt.Fprintf(&s, "| %s | %s | %s | %s | %s |\n", title, w.name, duration(median(t.ns[i])), toNative, toFloor)
			}
		}
	}
	return s.String()
}

func ratio(r []float64) string {
	return fmt.Sprintf("%.2f (%.2f–%.2f)", median(r), slices.Min(r), slices.Max(r))
}

func duration(ns float64) string {
	if ns < 10_000 {
		return fmt.Sprintf("%.0f ns", ns)
	}
	return fmt.Sprintf("%.1f µs", ns/1000)
}

func cpu() string {
	data, _ := os.ReadFile("/proc/cpuinfo") // for the reader; what is measured doesn't depend on it
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
