package policy_test

import (
	"maps"
	"testing"

	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/policy"
)

func TestOptions(t *testing.T) {
	c := policy.Ceiling{
		Commands: policy.Of("map_create", "prog_load"), // 0 and 5
		Maps:     policy.Of("hash", "ringbuf"),         // 1 and 27
		Progs:    policy.Any,
	}
	want := map[string]string{"delegate_cmds": "0x21", "delegate_maps": "0x8000002", "delegate_progs": "any", "delegate_attachs": "0x0"}
	if got := c.Options(); !maps.Equal(got, want) {
		t.Errorf("got %v, wanted %v", got, want)
	}
	if c.Empty() || !(policy.Ceiling{}).Empty() {
		t.Error("what is empty?")
	}
}

// What a built-in policy allows is within its ceiling, and where nothing is, nothing
// is allowed that takes a token.
func TestCeilings(t *testing.T) {
	for _, name := range policy.Names() {
		p, err := policy.Builtin(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range []facts.Facts{
			{Command: "map_create", Map: facts.Map{Type: "hash"}}, {Command: "prog_load", Prog: facts.Prog{Type: "kprobe"}},
			{Command: "prog_load", Prog: facts.Prog{Type: "xdp", AttachType: "xdp"}}, {Command: "btf_load"},
		} {
			c := p.Ceiling()
			within := c.Commands.Has(f.Command) && (f.Map.Type == "" || c.Maps.Has(f.Map.Type)) &&
				(f.Prog.Type == "" || c.Progs.Has(f.Prog.Type)) && (f.Prog.AttachType == "" || c.Attachs.Has(f.Prog.AttachType))
			if allowed := p.Decide(&f).Verdict == policy.Allow; allowed && !within {
				t.Errorf("%s allows %+v, which its ceiling doesn't", name, f)
			}
		}
	}
}
