package policy_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/policy"
)

var update = flag.Bool("update", false, "rewrite testdata")

const golden = "testdata/builtin.txt"

// TestBuiltin shows what every built-in policy says to every operation, as one
// text for reviewers.
func TestBuiltin(t *testing.T) {
	var asked []facts.Facts
	for _, row := range abi.Rows() {
		asked = append(asked, facts.Facts{Command: row.Name})
		if row.Command == abi.ProgLoad {
			asked = append(asked, facts.Facts{Command: row.Name, Prog: facts.Prog{Type: "xdp"}}, facts.Facts{Command: row.Name, Prog: facts.Prog{Type: "syscall"}})
		}
	}
	asked = append(asked, facts.Facts{Command: "unknown"}, facts.Facts{})
	var b strings.Builder
	for _, name := range policy.Names() {
		p, err := policy.Builtin(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range asked {
			d := p.Decide(&f)
			fmt.Fprintf(&b, "%-8s %-30s %-8s %-6v %-8v %s\n", name, f.Command, f.Prog.Type, d.Verdict, d.Cause, d.Rule)
			if d.Message == "" {
				t.Errorf("%s, %s: a decision without a reason", name, f.Command)
			}
		}
	}
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || b.String() != string(want) {
		t.Errorf("decisions differ from %s (%v); if that is meant, run go test ./policy -update\n%s", golden, err, b.String())
	}
}

// What is forgotten must deny.
func TestZeroDenies(t *testing.T) {
	var d policy.Decision
	if d.Verdict != policy.Deny || d.Cause != policy.ByDefault {
		t.Errorf("the zero decision is %v by %v", d.Verdict, d.Cause)
	}
}

func TestUnknownPolicy(t *testing.T) {
	_, err := policy.Builtin("x")
	if err == nil || !strings.Contains(err.Error(), `no policy "x"`) || !strings.Contains(err.Error(), "trusted") {
		t.Errorf("got %v, wanted an error that lists what there is", err)
	}
}
