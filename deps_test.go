// Package bpfbroker_test holds the rules of which package may import which.
package bpfbroker_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/bpfbroker/bpfbroker"

// mayImport says for each package which others of ours it may import; a pattern
// ends in "/…". What isn't here imports none of ours.
//
// The way of a call is request, inspect, policy, perform, reply, and each knows
// only what comes before it. What decides (policy, on facts) and what acts
// (perform) don't know of each other: broker strings them together.
var mayImport = map[string][]string{
	"facts/reference": {"facts"},
	"abi/reference":   {"abi"},
	"digest/object":   {"digest"},
	"hack/confinedoc": {"confine"},
	"hack/parity":     {"hack/internal/list", "internal/sys"},
	"hack/tools":      {"hack/internal/list", "internal/sys"},
	"bench/driver":    {"internal/sys"},

	"internal/sys":        {"internal/poller"},
	"internal/arena":      {"internal/sys"},
	"internal/brokertest": {"abi", "facts", "internal/sys"},
	"internal/generate":   {"abi"},

	"audit":        {"abi", "facts", "internal/sys", "ledger", "policy", "policy/learn"},
	"loader":       {"abi", "internal/sys"},
	"notify":       {"internal/sys"},
	"request":      {"abi", "internal/arena", "internal/sys"},
	"inspect":      {"abi", "digest", "facts", "internal/sys", "request"},
	"policy":       {"abi", "facts", "policy/expr"},
	"policy/expr":  {"facts"},
	"policy/load":  {"abi", "facts", "policy", "policy/expr", "policy/names"},
	"policy/learn": {"facts", "policy", "policy/names"},
	"policy/names": {"abi", "policy"},
	"guard":        {"abi"},
	"perform":      {"abi", "guard", "internal/arena", "internal/sys", "loader", "request"},
	"reply":        {"abi", "internal/sys", "notify", "perform", "request"},
	"workload":     {"abi", "btfnames", "facts", "guard", "internal/sys", "ledger", "notify", "perform"},
	"ledger":       {"abi", "internal/sys"},
	"helper":       {"abi", "audit", "facts", "inspect", "internal/arena", "internal/sys", "perform", "policy", "request", "workload"},
	"broker":       {"abi", "audit", "facts", "guard", "helper", "inspect", "internal/arena", "internal/sys", "ledger", "loader", "notify", "perform", "policy", "reply", "request", "workload"},
	"worker":       {"abi", "audit", "broker", "btfnames", "confine", "helper", "internal/poller", "internal/sys", "ledger", "policy", "request", "workload"},
	"daemon":       {"abi", "audit", "btfnames", "facts", "guard", "helper", "internal/poller", "internal/sys", "ledger", "perform", "policy", "request", "tracing", "worker", "workload"},
	"cgroups":      {"internal/sys"},
	"launch":       {"cgroups", "internal/sys", "tracing"},
	"tracing":      {"internal/sys"},
	"control":      {"internal/sys", "policy"},
	"oci":          {"internal/sys"},
	"serve":        {"cgroups", "control", "daemon", "facts", "internal/sys", "oci", "policy", "worker", "workload"},
	"confine":      {"filter"},

	"cmd/bpfbroker": {"…"},
}

// onlyIn says which packages may import what is dangerous or heavy.
var onlyIn = map[string][]string{
	// The one door to the kernel. Tools that never run beside a workload have doors
	// of their own.
	"unsafe":             {"internal/sys"},
	"golang.org/x/sys/…": {"internal/sys", "hack/…", "bench/…"},
	"syscall":            {"internal/sys", "internal/poller", "launch", "cgroups", "cmd/…", "tracing", "daemon", "control", "audit", "hack/…", "bench/…", "demo/…"}, // signals, exit statuses, locks of files

	"github.com/cilium/ebpf/…":    {"audit", "digest/object", "hack/…", "demo/…"},
	"cel.dev/…":                   {"policy/load"},
	"go.yaml.in/…":                {"policy/load"},
	"github.com/spf13/…":          {"cmd/…"},
	"github.com/coreos/…":         {"audit", "cmd/…"},
	"github.com/opencontainers/…": {"oci"},

	// So that no process which a workload could reach parses YAML or CEL.
	module + "/policy/load": {"cmd/…"},

	// Made for tests.
	"testing":                       {"internal/brokertest"},
	module + "/internal/brokertest": {},
}

type listed struct {
	ImportPath, Doc  string
	GoFiles, Imports []string
}

// packages lists the module's packages that have more than tests.
func packages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Doc,GoFiles,Imports", "./...")
	out, err := cmd.Output()
	if err != nil {
		var e *exec.ExitError
		if errors.As(err, &e) {
			t.Fatalf("%v: %v\n%s", cmd.Args, err, e.Stderr)
		}
		t.Fatal(err)
	}
	var all []listed
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if len(p.GoFiles) > 0 {
			all = append(all, p)
		}
	}
	return all
}

// matches says whether name is one of the patterns.
func matches(name string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if p == "…" {
			return true
		}
		if dir, ok := strings.CutSuffix(p, "/…"); ok {
			return name == dir || strings.HasPrefix(name, dir+"/")
		}
		return name == p
	})
}

func TestDependencies(t *testing.T) {
	all := packages(t)
	seen := map[string]bool{}
	for _, p := range all {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		seen[name] = true
		for _, i := range p.Imports {
			if ours, ok := strings.CutPrefix(i, module+"/"); ok && !matches(ours, mayImport[name]) {
				t.Errorf("%s imports %s: not among what it may, in deps_test.go", name, ours)
			}
			for what, where := range onlyIn {
				if matches(i, []string{what}) && !matches(name, where) {
					t.Errorf("%s imports %s: only %v may, says deps_test.go", name, i, where)
				}
			}
		}
	}
	// A rule for what is gone would hold for whatever gets its name next.
	for name := range mayImport {
		if !seen[name] {
			t.Errorf("deps_test.go has a rule for %s, which isn't there", name)
		}
	}
}

func TestDocComments(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		if p.Doc == "" {
			t.Errorf("%s has no doc comment", name)
			continue
		}
		// A command's says what the command does.
		base := path.Base(name)
		if !strings.HasPrefix(p.Doc, "Package "+base+" ") && !strings.HasPrefix(strings.ToLower(p.Doc), base+" ") {
			t.Errorf("%s: its doc comment begins %q", name, strings.SplitN(p.Doc, " ", 4)[:3])
		}
	}
}
