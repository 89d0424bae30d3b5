package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bpfbroker/bpfbroker/policy"
)

// Policies of rules, in workers of both kinds: what they allow is performed, under the
// ceiling that follows from them, and what they don't is denied with its reason.

// installed is a command that users run.
func installed(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath(args[0])
	if err != nil {
		t.Fatalf("no %s; make deps installs it", args[0])
	}
	return exec.Command(path, args[1:]...)
}

// under runs a command under a policy, and returns what was denied, a line each, and
// whether the command succeeded.
func under(t *testing.T, policyName, kind string, c *exec.Cmd, flags ...string) (denied []string, ok bool, out string) {
	t.Helper()
	c = brokeredBy(policyName, c, append(flags, "--quiet", "--worker="+kind)...)
	log, stdout, stderr := audited(t, c)
	for _, r := range log {
		if r.Decision.Verdict == policy.Deny {
			denied = append(denied, r.Facts.Command+" "+r.Facts.Kind()+": "+r.Decision.Message)
		}
	}
	return denied, c.ProcessState.Success(), stdout + stderr
}

func TestPolicyFile(t *testing.T) {
	needRoot(t)
	file := filepath.Join(t.TempDir(), "small.yaml")
	const text = `apiVersion: bpfbroker/v1alpha1
kind: Policy
metadata: {name: small-arrays}
spec:
  rules:
  - name: small
    commands: [map_create]
    when: map.type == "array" && map.max_entries <= 8
    verdict: allow
  - name: look
    commands: [obj_pin, obj_get, obj_get_info_by_fd]
    verdict: allow
  - name: no-xdp
    commands: [prog_load]
    when: prog.type == "xdp"
    verdict: deny
    errno: EACCES
    message: XDP belongs to the network team
`
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	create := func(entries string) *exec.Cmd {
		return installed(t, "bpftool", "map", "create", "/sys/fs/bpf/m", "type", "array", "key", "4", "value", "4", "entries", entries, "name", "m")
	}
	for _, kind := range kinds(t) {
		if denied, ok, out := under(t, file, kind, create("8")); !ok {
			t.Errorf("%s: 8 entries: denied %q: %s", kind, denied, out)
		}
		denied, ok, out := under(t, file, kind, create("9"))
		if ok || !strings.Contains(strings.Join(denied, "\n"), "map.max_entries is 9, not at most 8") {
			t.Errorf("%s: 9 entries: succeeded %v, denied %q: %s", kind, ok, denied, out)
		}
		denied, _, out = under(t, file, kind, probe("policy-xdp"))
		if out != "EACCES\n" || len(denied) != 1 || !strings.Contains(denied[0], "XDP belongs to the network team") {
			t.Errorf("%s: an XDP program: denied %q: %s", kind, denied, out)
		}
	}
}

func TestBuiltinPolicies(t *testing.T) {
	needRoot(t)
	for _, kind := range kinds(t) {
		// A tracer under observe; its program may not read the kernel's memory.
		denied, ok, out := under(t, "observe", kind, installed(t, "bpftrace", "-e", `tracepoint:syscalls:sys_enter_getpid { @[comm] = count(); } interval:s:1 { exit(); }`))
		if !ok || !strings.Contains(out, "Attaching 2 probes") {
			t.Errorf("%s: observe: denied %q: %s", kind, denied, out)
		}
		denied, ok, out = under(t, "observe", kind, installed(t, "bpftrace", "-e", `tracepoint:syscalls:sys_enter_openat { printf("%d\n", *(uint64*)curtask); exit(); }`))
		if text := strings.Join(denied, "\n"); ok || !strings.Contains(text, "bpf_get_current_task") {
			t.Errorf("%s: observe, reading memory: succeeded %v, denied %q: %s", kind, ok, denied, out)
		}
		// That of its own processes it may, and others' it doesn't see.
		other := exec.Command("sh", "-c", "while :; do cat /etc/issue >/dev/null; done")
		if err := other.Start(); err != nil {
			t.Fatal(err)
		}
		denied, ok, out = under(t, "observe", kind, installed(t, "bpftrace", "-e", `tracepoint:syscalls:sys_enter_openat { printf("%s\n", str(args->filename)); }`, "-c", "/bin/cat /etc/hostname"))
		other.Process.Kill()
		_ = other.Wait()
		if !ok || !strings.Contains(out, "/etc/hostname") || strings.Contains(out, "/etc/issue") {
			t.Errorf("%s: observe, its own memory: denied %q: %s", kind, denied, out)
		}
		// XDP in one's own network namespace alone.
		if denied, ok, out := under(t, "network", kind, probe("policy-xdp"), "--net=private"); !ok || out != "attached\n" {
			t.Errorf("%s: network: denied %q: %s", kind, denied, out)
		}
		if denied, _, out := under(t, "network", kind, probe("policy-xdp")); out != "EPERM\n" || len(denied) != 1 || !strings.Contains(denied[0], "workload.netns_own") {
			t.Errorf("%s: network on the host's: denied %q: %s", kind, denied, out)
		}
	}
}

func init() {
	// An XDP program on lo.
	probes["policy-xdp"] = func() {
		const xdp, attachXDP, generic = 6, 37, 2
		fd, e := loadFor(xdp, attachXDP, "drop", returns(2))
		if e == 0 {
			_, e = bpf(cmdLinkCreate, new(attr).u32(0, uint32(fd)).u32(4, 1).u32(8, attachXDP).u32(12, generic), 64)
		}
		if e != 0 {
			say0(errnoName(e))
			return
		}
		say0("attached")
	}
}

func say0(s string) { os.Stdout.WriteString(s + "\n") }
