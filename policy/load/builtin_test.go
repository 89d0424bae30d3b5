package load_test

import (
	"flag"
	"os"
	"testing"

	"github.com/bpfbroker/bpfbroker/policy"
	"github.com/bpfbroker/bpfbroker/policy/load"
)

var update = flag.Bool("update", false, "rewrite testdata, and policy/builtin/*.json")

// What processes read without YAML and CEL is what the YAML says.
func TestBuiltin(t *testing.T) {
	for _, name := range policy.Names() {
		if _, ok := policy.BuiltinSource(name); !ok {
			continue
		}
		text, err := os.ReadFile("../builtin/" + name + ".yaml") // as it is now
		if err != nil {
			t.Fatal(err)
		}
		p, err := load.Parse(name+".yaml", text)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		got, err := p.Encode()
		if err != nil {
			t.Fatal(err)
		}
		golden := "../builtin/" + name + ".json"
		if *update {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil || string(got) != string(want) {
			t.Errorf("%s isn't what %s.yaml says (%v); run go test ./policy/load -update", golden, name, err)
		}
		if p.Spec().Description != policy.About(name) {
			t.Errorf("%s: description %q; policy.About says %q", name, p.Spec().Description, policy.About(name))
		}
		if _, err := policy.Decode(got); err != nil {
			t.Error(err)
		}
	}
}
