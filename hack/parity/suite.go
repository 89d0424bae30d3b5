package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// suite is the module's tests, compiled, in a directory that anyone may read.
type suite struct {
	dir      string
	binaries map[string]string // by package
}

// side is one of the two ways to run a test binary.
type side struct {
	name   string
	prefix []string // before the binary's name
}

// test is what became of one test.
type test struct {
	outcome string // pass, fail, skip; "none" when it began and never ended
	output  []string
}

// results are the tests of one package, by name, as one side ran them.
type results struct {
	tests map[string]test
	err   string // why the binary as a whole ended otherwise than by its tests
	tail  []string
	took  time.Duration
}

func (r results) count(outcome string) int {
	n := 0
	for _, t := range r.tests {
		if t.outcome == outcome {
			n++
		}
	}
	return n
}

func (r results) String() string {
	s := fmt.Sprintf("%4d passed %3d failed %3d skipped  %5.1fs", r.count("pass"), r.count("fail"), r.count("skip"), r.took.Seconds())
	if n := r.count("none"); n > 0 {
		s += fmt.Sprintf("  %d never ended", n)
	}
	if r.err != "" {
		s += "  " + r.err
	}
	return s
}

// compile copies the module out of the read-only cache and compiles the tests
// of pkgs. The caller removes the suite's directory.
func compile(ctx context.Context, version string, pkgs []string) (_ *suite, err error) {
	out, err := exec.CommandContext(ctx, "go", "mod", "download", "-json", modulePath+"@"+version).Output()
	if err != nil {
		return nil, fmt.Errorf("go mod download %s@%s: %w", modulePath, version, exitError(err))
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		return nil, fmt.Errorf("go mod download -json: %w", err)
	}

	// Not below the work tree: that may lie in a directory only root may enter.
	dir, err := os.MkdirTemp("", "bpfbroker-parity-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	if err := os.CopyFS(dir, os.DirFS(module.Dir)); err != nil {
		return nil, fmt.Errorf("copy module: %w", err)
	}
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.Chmod(path, 0o755)
		}
		return os.Chmod(path, 0o644)
	})
	if err != nil {
		return nil, err
	}

	s := &suite{dir: dir, binaries: make(map[string]string)}
	for _, pkg := range pkgs {
		binary := filepath.Join(dir, pkg, "parity.test")
		cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", binary, "./"+pkg)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod", "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("compile tests of %s: %w\n%s", pkg, err, out)
		}
		s.binaries[pkg] = binary
	}
	return s, nil
}

// repeat runs a package's tests o.rounds times and keeps, for each test, the
// first outcome that wasn't a pass.
func (s *suite) repeat(ctx context.Context, where side, pkg string, o options) results {
	sum := s.run(ctx, where, pkg, o)
	for range o.rounds - 1 {
		next := s.run(ctx, where, pkg, o)
		sum.took += next.took
		for name, t := range sum.tests {
			if n, ok := next.tests[name]; t.outcome == "pass" && (!ok || n.outcome != "pass") {
				sum.tests[name] = n
			}
		}
	}
	return sum
}

func (s *suite) run(ctx context.Context, where side, pkg string, o options) results {
	started := time.Now()
	res := results{tests: make(map[string]test)}

	ctx, cancel := context.WithTimeout(ctx, o.timeout+20*time.Second)
	defer cancel()

	binary := s.binaries[pkg]
	args := append([]string{stageName}, where.prefix...)
	args = append(args, binary, "-test.v=test2json", "-test.paniconexit0", "-test.timeout="+o.timeout.String())
	args = append(args, strings.Fields(o.testArgs)...)
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Dir = filepath.Dir(binary)
	var raw bytes.Buffer
	cmd.Stdout, cmd.Stderr = &raw, &raw
	// A group of its own: what a test sends to its group stays there.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second

	err := cmd.Run()
	res.took = time.Since(started)
	if err != nil {
		res.err = err.Error()
	}
	if ctx.Err() != nil {
		res.err = "stopped after " + o.timeout.String()
	}
	if err := res.parse(pkg, raw.Bytes()); err != nil {
		res.err = err.Error()
	}
	if res.count("fail") > 0 && res.err == "exit status 1" && res.count("none") == 0 {
		res.err = ""
	}
	return res
}

// parse fills in the tests from a test binary's output.
func (r *results) parse(pkg string, raw []byte) error {
	cmd := exec.Command("go", "tool", "test2json", "-p", pkg)
	cmd.Stdin = bytes.NewReader(raw)
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("go tool test2json: %w", exitError(err))
	}
	dec := json.NewDecoder(bufio.NewReader(bytes.NewReader(out)))
	for dec.More() {
		var event struct{ Action, Test, Output string }
		if err := dec.Decode(&event); err != nil {
			return fmt.Errorf("decode test2json: %w", err)
		}
		if event.Test == "" {
			if event.Action == "output" {
				r.tail = append(r.tail, strings.TrimRight(event.Output, "\n"))
			}
			continue
		}
		t := r.tests[event.Test]
		switch event.Action {
		case "run":
			t.outcome = "none"
		case "pass", "fail", "skip":
			t.outcome = event.Action
		case "output":
			t.output = append(t.output, strings.TrimRight(event.Output, "\n"))
		}
		r.tests[event.Test] = t
	}
	return nil
}

// tokenPathClosed makes sure that the workload's bpffs delegates nothing: the
// library would then make itself a token, and the broker would be tested less.
func tokenPathClosed(ctx context.Context, where side) error {
	args := append([]string{stageName}, where.prefix...)
	cmd := exec.CommandContext(ctx, "/proc/self/exe", append(args, "cat", "/proc/self/mountinfo")...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(where.prefix, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, " - bpf ") && strings.Contains(line, "delegate_") {
			return fmt.Errorf("the workload's bpffs delegates, so tests would use a token: %s", strings.TrimSpace(line))
		}
	}
	return nil
}

// exitError adds what a command wrote to standard error.
func exitError(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	return err
}
