package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// ways are the arguments of demo/way.
var ways = [...]string{"root", "without", "broker"}

const (
	asRoot = iota
	without
	brokered
)

// outcome is what became of a case, run one way.
type outcome struct {
	ok     bool
	why    string // the first line that tells what went wrong
	output string
	took   time.Duration
}

type runner struct {
	dir     string // of the programs
	broker  string
	timeout time.Duration
}

// checkWays makes sure that a command can be run each way at all: else a
// refusal proves nothing.
func (r runner) checkWays(ctx context.Context) error {
	for _, how := range ways {
		if got := r.attempt(ctx, how, testCase{argv: []string{"true"}}); !got.ok {
			return fmt.Errorf("can't run anything the way %q:\n%s", how, got.output)
		}
	}
	return nil
}

func (r runner) attempt(ctx context.Context, how string, c testCase) outcome {
	started := time.Now()
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()

	cmd := exec.CommandContext(ctx, "./way", append([]string{how}, c.argv...)...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(),
		"BPFBROKER="+r.broker,
		"PATH="+os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin",
		"LC_ALL=C", // what is said is compared
		// Debian's clang says neither to the tools that compile with its library.
		"BCC_KERNEL_SOURCE="+r.dir+"/kheaders",
	)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	// A group of its own: the whole of it is ended when time is up.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second

	err := cmd.Run()
	// What ignores SIGTERM; "no such process" is as it should be.
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	got := outcome{ok: err == nil, output: output.String(), took: time.Since(started)}
	switch {
	case got.ok:
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		got.why = "still runs after " + r.timeout.String()
	default:
		if got.why = firstError(got.output); got.why == "" {
			got.why = err.Error()
		}
	}
	return got
}

var (
	// A tool says this, and goes on: root lacks CAP_SYS_RESOURCE on our machine.
	harmless = regexp.MustCompile(`RLIMIT_MEMLOCK`)
	// bcc warns in thousands of lines of its compiler's.
	warning   = regexp.MustCompile(`(?i)warning:`)
	refusal   = regexp.MustCompile(`(?i)not permitted|permission denied|EPERM|EACCES|err=-1\b|\(-1\)`)
	complaint = regexp.MustCompile(`(?i)error|fail|can't|cannot|could not|couldn't|not found|unable|invalid|no such|refused|unsupported|not supported|exception|wanted`)
)

// firstError returns the first line that tells of a refusal, else of a failure,
// else the last line.
func firstError(output string) string {
	var last, complained string
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line == "" || harmless.MatchString(line) || warning.MatchString(line) {
			continue
		}
		if refusal.MatchString(line) {
			return clip(line)
		}
		if complained == "" && complaint.MatchString(line) {
			complained = line
		}
		last = line
	}
	if complained != "" {
		return clip(complained)
	}
	return clip(last)
}

func clip(s string) string {
	if r := []rune(s); len(r) > 160 {
		return string(r[:160]) + "…"
	}
	return s
}
