package load_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/bpfbroker/bpfbroker/policy"
	"github.com/bpfbroker/bpfbroker/policy/load"
)

// TestBuiltinCases asks the built-in policies the cases beside them, as they are embedded.
func TestBuiltinCases(t *testing.T) {
	total := 0
	for _, name := range policy.Names() {
		if _, ok := policy.BuiltinSource(name); !ok {
			continue
		}
		p, err := policy.Builtin(name)
		if err != nil {
			t.Fatal(err)
		}
		cases, err := load.CasesFile(load.CasesPath("../builtin/" + name + ".yaml"))
		if err != nil {
			t.Error(err)
			continue
		}
		total += len(cases.List)
		for _, f := range cases.Run(p) {
			t.Error(f.String())
		}
		// Each rule is wanted by a case.
		text, err := os.ReadFile(cases.File)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range p.(*policy.Rules).Spec().Rules {
			if !strings.Contains(string(text), "rule: "+r.Name) && !strings.Contains(string(text), `rule: "`+r.Name+`"`) {
				t.Errorf("%s: no case for rule %q", name, r.Name)
			}
		}
	}
	if total < 150 {
		t.Errorf("%d cases; wanted at least 150", total)
	}
}

// What differs is shown, with what was asked.
func TestCasesDiffer(t *testing.T) {
	p, err := load.Parse("p.yaml", []byte("{apiVersion: bpfbroker/v1alpha1, kind: Policy, metadata: {name: test}, spec: {rules: [{name: maps, commands: [map_create], verdict: allow}]}}"))
	if err != nil {
		t.Fatal(err)
	}
	cases, err := load.ParseCases("x.tests.yaml", []byte(`apiVersion: bpfbroker/v1alpha1
kind: PolicyTest
cases:
- name: a map
  facts: {command: map_create, map.type: hash, map.flags: [BPF_F_MMAPABLE], map.bytes: 9}
  want: {verdict: deny, rule: mups, cause: default, errno: EACCES, message: nothing}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := `x.tests.yaml:4: a map
  - verdict: deny
  + verdict: allow
  - rule: mups
  + rule: maps
  - cause: default
  + cause: rule
  - errno: EACCES
  + errno: EPERM
  - message: … nothing …
  + message: policy "test": rule "maps" (p.yaml:1) allows it
    command: map_create
    map.type: hash
    map.flags: [BPF_F_MMAPABLE]
    map.bytes: 9
`
	failed := cases.Run(p)
	if len(failed) != 1 || failed[0].String() != want {
		t.Errorf("got %v\nwanted %s", failed, want)
	}
}

// A case may say when it is asked: what expires does then. And what scope it wants.
func TestCasesAtATime(t *testing.T) {
	p, err := load.Parse("p.yaml", []byte(`apiVersion: bpfbroker/v1alpha1
kind: Policy
metadata: {name: test}
spec:
  rules:
  - {name: until, commands: [prog_load], verdict: allow, scope: workload, expires: 2030-01-02T03:04:05Z}
`))
	if err != nil {
		t.Fatal(err)
	}
	cases, err := load.ParseCases("x.tests.yaml", []byte(`apiVersion: bpfbroker/v1alpha1
kind: PolicyTest
cases:
- name: before
  at: 2030-01-02T03:04:04Z
  facts: {command: prog_load, prog.type: kprobe}
  want: {verdict: allow, scope: workload}
- name: then
  at: 2030-01-02T04:04:05+01:00
  facts: {command: prog_load, prog.type: kprobe}
  want: {verdict: deny, message: it has expired}
- name: too late
  at: 2030-01-02T03:04:05Z
  facts: {command: prog_load, prog.type: kprobe}
  want: {verdict: allow}
- name: too wide
  at: 2030-01-02T03:04:04Z
  facts: {command: prog_load, prog.type: kprobe}
  want: {verdict: allow, scope: host}
`))
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, f := range cases.Run(p) {
		got.WriteString(f.String())
	}
	want := `x.tests.yaml:12: too late
  - verdict: allow
  + verdict: deny
    command: prog_load
    prog.type: kprobe
    at 2030-01-02T03:04:05Z
    policy "test": no rule matches prog_load; nearest is "until" (p.yaml:6): it has expired
x.tests.yaml:16: too wide
  - scope: host
  + scope: workload
    command: prog_load
    prog.type: kprobe
    at 2030-01-02T03:04:04Z
    policy "test": rule "until" (p.yaml:6) allows it
`
	if got.String() != want {
		t.Errorf("got\n%s\nwanted\n%s", got.String(), want)
	}
}

func TestCasesErrors(t *testing.T) {
	_, err := load.ParseCases("x.tests.yaml", []byte(`apiVersion: bpfbroker/v1alpha1
kind: PolicyTest
cases:
- name: a
  facts: {command: map_crate, map.typ: hash, map.key_size: x, map.flags: hash}
  want: {verdict: alow}
- name: a
  facts: {command: map_create, prog.type: xdp, map.type: hash}
  unknown: {map.tpe: x}
- facts: {}
  want: {verdict: deny, couse: rule}
- {name: b, facts: {command: map_create}, at: noon, want: {verdict: deny}}
- {name: c, facts: {command: map_create}, at: 0001-01-01T00:00:00Z, want: {verdict: deny}}
`))
	var found *load.Errors
	if !errors.As(err, &found) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{`no command "map_crate"; did you mean "map_create"?`, `no fact "map.typ"; did you mean "map.type"?`, "map.key_size is a string",
		"map.flags is a string", `no value "alow"; did you mean "allow"?`, `a case is called "a" already, in line 4`, "map_create doesn't have prog.type",
		`no fact "map.tpe"`, "a case has no want", "a case has no name", "facts have no command", `want has no field "couse"; did you mean "cause"?`,
		`x.tests.yaml:12:47: at is a string ("noon"); wanted a time like`, `x.tests.yaml:13:47: at is a time ("0001-01-01T00:00:00Z"); wanted a time like`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
}
