package load_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/bpfbroker/bpfbroker/policy/load"
)

var expectation = regexp.MustCompile(`[ \t]*### .*`)

// TestErrors compares the mistakes of testdata/errors/*.yaml with those that stand beside
// them: "### COLUMN: message" at the end of the faulty line, which isn't part of the file
// that is read.
func TestErrors(t *testing.T) {
	files, err := filepath.Glob("testdata/errors/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("files %v, %v", files, err)
	}
	for _, name := range files {
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		text := expectation.ReplaceAll(want, nil)
		_, err = load.Parse(name, text)
		var found *load.Errors
		if !errors.As(err, &found) {
			t.Errorf("%s: got %v, wanted mistakes", name, err)
			continue
		}
		lines := strings.Split(string(text), "\n")
		for _, e := range found.List {
			if e.Line < 1 || e.Line > len(lines) {
				t.Errorf("%s: mistake in line %d: %s", name, e.Line, e.Message)
				continue
			}
			lines[e.Line-1] += fmt.Sprintf(" ### %d: %s", e.Column, e.Message)
		}
		got := strings.Join(lines, "\n")
		if *update {
			if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		} else if got != string(want) {
			t.Errorf("%s: mistakes differ; if that is meant, run go test ./policy/load -update\n%s", name, got)
		}
	}
}

// The caret is below the place, in long lines and behind tabs.
func TestCaret(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"apiVersion: x\n", "p.yaml:1:1: a policy has no kind"},
		{"\tx", "p.yaml:1:1: no YAML: found character that cannot start any token\n    \tx\n    ^"},
		{"", "p.yaml:1:1: file is empty; a policy begins with apiVersion: bpfbroker/v1alpha1"},
		{"a: &x [*x, *x]\n", "p.yaml:1:4: anchors and aliases aren't taken; give a name to an expression in spec.variables\n    a: &x [*x, *x]\n       ^"},
		{strings.Repeat("x", load.MaxFile+1), "p.yaml:1:1: file has 262145 bytes; a policy may have 262144"},
		{"{a: 1}\n---\n{a: 2}\n", "p.yaml:2:1: a file has one policy; this is a second document"},
		{"{apiVersion: bpfbroker/v1alpha1, kind: Policy, metadata: {name: a}, spec: {rules: [" + strings.Repeat(" ", 200) + "3]}}",
			"p.yaml:1:284: a rule is a number (\"3\"); wanted a mapping\n    " + strings.Repeat(" ", 59) + "3]}}\n    " + strings.Repeat(" ", 59) + "^"},
		{"{apiVersion: bpfbroker/v1alpha1, kind: \"\\e[2J\", metadata: {name: a}, spec: {rules: []}}", "wanted Policy"},
	} {
		_, err := load.Parse("p.yaml", []byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v\nwanted %s", err, c.want)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\x1b\x00") {
			t.Errorf("control characters in %q", err)
		}
	}
}
