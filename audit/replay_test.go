package audit

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/policy"
	"github.com/bpfbroker/bpfbroker/policy/load"
)

const changed = `apiVersion: bpfbroker/v1alpha1
kind: Policy
metadata: {name: changed}
spec:
  rules:
  - name: small
    commands: [map_create]
    when: map.max_entries <= 8
    verdict: allow
  - name: no-such-type
    commands: [map_create]
    when: map.type == "arena"
    verdict: deny
    errno: EINVAL
  - name: tracing
    commands: [prog_load]
    when: prog.helpers.all(h, h in ["bpf_get_current_comm"])
    verdict: allow
  - name: lists
    commands: [map_get_next_id]
    verdict: native
`

// What would change is told once for what is alike, and what can't be told isn't guessed.
func TestReplay(t *testing.T) {
	p, err := load.Parse("changed.yaml", []byte(changed))
	if err != nil {
		t.Fatal(err)
	}
	seq := uint64(0)
	entry := func(f facts.Facts, v policy.Verdict, outcome string, cut ...string) *Entry {
		seq++
		e := &Entry{Outcome: outcome, Record: Record{Workload: "run-1\x1b", Seq: seq, Time: time.Unix(1e9, 0), Policy: "trusted", Facts: f,
			Decision: policy.Decision{Verdict: v, Cause: policy.ByRule, Rule: "trusted"}}}
		e.Has = Has(&f)
		for _, c := range cut {
			e.Cut.Add(c)
		}
		return e
	}
	entries := func(typ string, n int64) facts.Facts {
		return facts.Facts{Command: "map_create", Map: facts.Map{Type: typ, MaxEntries: n, Name: "m\n"}}
	}
	calls := func(helpers ...string) facts.Facts {
		return facts.Facts{Command: "prog_load", Prog: facts.Prog{Type: "kprobe", Helpers: helpers}}
	}
	unknown := calls()
	unknown.Unknown = append(unknown.Unknown, struct{ Fact, Why string }{"prog.helpers", "the instructions can't be read"})
	r := NewReplay(p)
	for _, e := range []*Entry{
		entry(entries("array", 8), policy.Allow, "ok"),
		entry(entries("array", 9), policy.Allow, "ok"),
		entry(entries("array", 10), policy.Allow, "ok"),
		entry(entries("hash", 9), policy.Deny, "EPERM"),
		entry(entries("arena", 9), policy.Allow, "EINVAL"), // it gets the same answer
		entry(entries("arena", 9), policy.Allow, "ok"),
		entry(entries("arena", 9), policy.Deny, "EPERM"),
		entry(calls("bpf_get_current_comm"), policy.Deny, "EACCES"),
		entry(calls("bpf_get_current_comm"), policy.Allow, "ok", "prog.helpers"),
		entry(calls("bpf_get_current_comm"), policy.Allow, "ok", "prog.name"),
		entry(unknown, policy.Allow, "EFAULT"),
		entry(facts.Facts{Command: "map_get_next_id"}, policy.Allow, "ok"),
		{Lost: 3},
	} {
		r.Add(e)
	}
	var out bytes.Buffer
	r.Print(&out)
	const golden = "testdata/replay.txt"
	if *update {
		if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || !bytes.Equal(out.Bytes(), want) {
		t.Errorf("it differs from %s (%v); if that is meant, run go test ./audit -update\n%s", golden, err, out.Bytes())
	}
	if r.Changes() != 8 {
		t.Errorf("%d changes", r.Changes())
	}
}
