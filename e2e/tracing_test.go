package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tool runs a program brokered, and returns its standard output. What it writes to
// standard error is shown if it fails.
func tool(t *testing.T, flags []string, name string, args ...string) string {
	t.Helper()
	c := exec.Command(name, args...)
	c.Dir = "/"
	c = brokered(c, flags...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		t.Fatalf("%v: %v\n%s%s", c.Args, err, out.String(), errs.String())
	}
	return out.String()
}

// availableEvents are the events that the host's root sees.
func availableEvents(t *testing.T) []string {
	t.Helper()
	c := exec.Command("unshare", "-m", "sh", "-c",
		"mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing; cat /sys/kernel/tracing/available_events")
	events := strings.Fields(output(t, c))
	slices.Sort(events)
	return events
}

// TestBpftrace looks tracepoints up by their names, traces one, and names kernel
// functions by their addresses.
func TestBpftrace(t *testing.T) {
	needRoot(t)
	exits := filepath.Join(bin, "exits")
	if err := os.WriteFile(exits, []byte("#!/bin/sh\nexit 42\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, pid := range []string{"--pid=host", "--pid=private"} {
		flags := []string{pid}
		var listed []string
		for name := range strings.FieldsSeq(tool(t, flags, "bpftrace", "-l", "tracepoint:*")) {
			listed = append(listed, strings.TrimPrefix(name, "tracepoint:"))
		}
		slices.Sort(listed)
		if want := availableEvents(t); !slices.Equal(listed, want) {
			t.Errorf("%s: %d tracepoints listed, %d available", pid, len(listed), len(want))
		}
		// Where the argument is, the format tells.
		out := tool(t, flags, "bpftrace", "-e",
			`tracepoint:syscalls:sys_enter_exit_group /args->error_code == 42/ { printf("seen\n"); exit(); }`,
			"-c", "/bin/sh "+exits)
		if !strings.Contains(out, "seen") {
			t.Errorf("%s: a tracepoint with arguments: %q", pid, out)
		}
		out = tool(t, flags, "bpftrace", "-e",
			`tracepoint:syscalls:sys_enter_getpid { @a[kstack] = count(); exit(); }`, "-c", "/bin/bash "+exits)
		if !strings.Contains(out, "do_syscall") && !strings.Contains(out, "syscall_trace") && !strings.Contains(out, "el0_svc") {
			t.Errorf("%s: a kernel stack without names: %q", pid, out)
		}
	}
}

// TestTracingOfPolicies: the view is there under each policy, addresses under trusted
// alone, and nothing with --tracing none.
func TestTracingOfPolicies(t *testing.T) {
	needRoot(t)
	const look = `cat /sys/kernel/tracing/events/printk/console/id 2>/dev/null | wc -l; grep -vcE '^0+ ' /proc/kallsyms`
	const shown = "symbols"
	for _, c := range []struct {
		flags []string
		want  string
	}{
		{[]string{"--policy=trusted"}, "1 " + shown},
		{[]string{"--policy=deny"}, "1 0"},
		{[]string{"--policy=trusted", "--tracing=view"}, "1 " + shown},
		{[]string{"--policy=trusted", "--tracing=none"}, "0 0"},
		{[]string{"--policy=deny", "--tracing=none"}, "0 0"},
	} {
		cmd := exec.Command(broker, append(append([]string{"run"}, c.flags...), "--", "sh", "-c", look+"; true")...)
		cmd.Dir, cmd.Stderr = "/", os.Stderr
		out, err := cmd.Output()
		got := strings.Fields(string(out))
		if len(got) == 2 && got[1] != "0" {
			got[1] = shown
		}
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%v: events and symbols %q (%v), want %q", c.flags, got, err, c.want)
		}
	}
}
