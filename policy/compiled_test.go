package policy_test

import (
	"os"
	"strings"
	"testing"

	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/policy"
)

// What another process hands over is checked: it must not make this one stumble later.
func TestDecode(t *testing.T) {
	for _, c := range []struct{ when, want string }{
		{`{"op": "fact", "type": 3, "name": "prog.sleepable"}`, ""},
		{`{"op": "fact", "type": 1, "name": "prog.sleepable"}`, "doesn't fit"},
		{`{"op": "fact", "type": 3, "name": "nope"}`, "doesn't fit"},
		{`{"op": "fact", "type": 1, "name": "prog.type"}`, "condition has the type string"},
		{`{"op": "var", "type": 3, "int": 1}`, "doesn't fit"},
		{`{"op": "loop", "type": 3}`, "doesn't fit"},
		{`{"op": "&&", "type": 3, "args": [null, null]}`, "without a node"},
		{`{"op": "!", "type": 3}`, "doesn't fit"},
		{`{"op": "matches", "type": 3, "args": [{"op": "const", "type": 1}, {"op": "const", "type": 1, "str": "("}]}`, "missing closing"},
		{`{"op": "all", "type": 3, "args": [{"op": "const", "type": 4}, {"op": "loop", "type": 3}]}`, "doesn't fit"},
		{`{"op": "nope", "type": 3}`, "doesn't fit"},
		{`{"op": "const", "type": 3, "more": 1}`, "unknown field"},
	} {
		p, err := policy.Decode([]byte(`{"name": "x", "rules": [{"name": "r", "commands": ["prog_load"], "verdict": 1, "when": ` + c.when + `}]}`))
		if c.want == "" {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, %v; wanted an error with %q", c.when, p, err, c.want)
		}
	}
	for _, text := range []string{`{"name": "x", "rules": [{"name": "r", "commands": ["nope"], "verdict": 1}]}`, `{"name": "x", "rules": [{"name": "r", "verdict": 7}]}`,
		`{"name": "x", "rules": [], "variables": [{"name": "v"}]}`, `[]`, ``} {
		if _, err := policy.Decode([]byte(text)); err == nil {
			t.Errorf("%s: got no error", text)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, name := range []string{"observe", "network", "container-devices"} {
		data, err := os.ReadFile("builtin/" + name + ".json")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := policy.Decode(data)
		if err != nil {
			return
		}
		for _, c := range policy.Commands() {
			op := facts.Facts{Command: c}
			op.Prog.Helpers = []string{"bpf_loop"}
			p.Decide(&op)
		}
	})
}
