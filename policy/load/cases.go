package load

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/policy"
	"github.com/bpfbroker/bpfbroker/policy/names"
)

// Cases say what a policy decides: for facts, the verdict that is wanted.
//
//	apiVersion: bpfbroker/v1alpha1
//	kind: PolicyTest
//	cases:
//	- name: small arrays
//	  facts: {command: map_create, map.type: array, map.max_entries: 8}
//	  unknown: {map.bytes: why}       # facts that can't be found out
//	  at: 2027-01-31T18:00:00Z        # what time it is, for rules that expire; now
//	  want: {verdict: allow, rule: small, cause: rule, scope: host, pids: host, errno: EPERM, message: part of it}
//
// Facts that aren't given are zero. Of want, only what is given is compared; cause is rule,
// default, limit or error.
type Cases struct {
	File string
	List []Case
}

// Case is one of them.
type Case struct {
	Name  string
	Line  int
	Facts facts.Facts
	At    time.Time // what time it is; the zero value: now
	given []string  // "map.type: array", as they were given
	want  want
}

type want struct {
	verdict, rule, cause, scope, pids, errno, message string
	hasRule                                           bool
}

// maxCases is how many a file may have.
const maxCases = 4096

// ParseCases reads cases. Their mistakes are an *Errors.
func ParseCases(file string, text []byte) (*Cases, error) {
	d := &document{source: newSource(file, text)}
	c := &Cases{File: file}
	if len(text) > 4*MaxFile {
		return nil, fmt.Errorf("%s has %d bytes; cases may have %d", file, len(text), 4*MaxFile)
	}
	var root yaml.Node
	if err := yaml.NewDecoder(bytes.NewReader(text)).Decode(&root); errors.Is(err, io.EOF) {
		d.at(1, 1, "file is empty")
	} else if err != nil {
		d.syntax(err)
	} else if len(root.Content) == 1 && d.aliases(root.Content[0]) {
		d.fields(root.Content[0], "the file",
			field{"apiVersion", true, d.word("apiVersion", []string{apiVersion}, func(int) {})},
			field{"kind", true, d.word("kind", []string{"PolicyTest"}, func(int) {})},
			field{"cases", true, func(n *yaml.Node) { d.cases(n, c) }})
	}
	return c, d.err()
}

// CasesPath is where the cases of a policy's file are: beside it.
func CasesPath(path string) string {
	for _, ext := range []string{".yaml", ".yml"} {
		if base, ok := strings.CutSuffix(path, ext); ok {
			return base + ".tests" + ext
		}
	}
	return path + ".tests.yaml"
}

// IsCases says whether a path is that of cases: CasesPath of something.
func IsCases(path string) bool {
	return strings.HasSuffix(path, ".tests.yaml") || strings.HasSuffix(path, ".tests.yml")
}

// CasesFile reads cases.
func CasesFile(path string) (*Cases, error) {
	text, err := read(path, 4*MaxFile)
	if err != nil {
		return nil, fmt.Errorf("read cases: %w", err)
	}
	return ParseCases(path, text)
}

func (d *document) cases(n *yaml.Node, to *Cases) {
	if n.Kind != yaml.SequenceNode || len(n.Content) > maxCases {
		d.node(n, "cases is %s; wanted a list of at most %d", kind(n), maxCases)
		return
	}
	names := map[string]int{}
	for _, x := range n.Content {
		c := Case{Line: x.Line}
		d.fields(x, "a case",
			field{"name", true, func(n *yaml.Node) {
				d.text("a case's name", maxText, &c.Name)(n)
				if line := names[c.Name]; line > 0 {
					d.node(n, "a case is called %q already, in line %d", clip(c.Name), line)
				}
				names[c.Name] = n.Line
			}},
			field{"facts", true, func(n *yaml.Node) { d.facts(n, &c) }},
			field{"unknown", false, func(n *yaml.Node) {
				for _, e := range d.entries(n, "unknown") {
					var why string
					d.text("why", maxText, &why)(e.value)
					if facts.Find(e.name) == nil {
						d.node(e.key, "no fact %q%s", clip(e.name), suggest(e.name, factNames()))
					}
					c.Facts.Unknown = append(c.Facts.Unknown, struct{ Fact, Why string }{e.name, why})
				}
			}},
			field{"at", false, d.time("at", &c.At)},
			field{"want", true, func(n *yaml.Node) { d.wanted(n, &c.want) }})
		to.List = append(to.List, c)
	}
}

func factNames() []string {
	out := make([]string, len(facts.Table))
	for i, f := range facts.Table {
		out[i] = f.Name
	}
	return out
}

func (d *document) wanted(n *yaml.Node, w *want) {
	set := func(to *string, words ...string) func(*yaml.Node) {
		return func(n *yaml.Node) {
			d.word("value", words, func(i int) { *to = words[i] })(n)
		}
	}
	var names []string
	for _, e := range errnos {
		names = append(names, e.name)
	}
	d.fields(n, "want",
		field{"verdict", true, set(&w.verdict, "allow", "deny", "native")},
		field{"cause", false, set(&w.cause, "rule", "default", "limit", "error")},
		field{"rule", false, func(n *yaml.Node) { w.hasRule = true; d.text("rule", maxText, &w.rule)(n) }},
		field{"scope", false, set(&w.scope, policy.ScopeHost.String(), policy.ScopeWorkload.String())},
		field{"pids", false, set(&w.pids, policy.ScopeHost.String(), policy.ScopeWorkload.String())},
		field{"errno", false, set(&w.errno, names...)},
		field{"message", false, d.text("message", maxText, &w.message)})
}

// facts reads the facts of a case.
func (d *document) facts(n *yaml.Node, c *Case) {
	for _, e := range d.entries(n, "facts") {
		f := facts.Find(e.name)
		if f == nil {
			d.node(e.key, "no fact %q%s", clip(e.name), suggest(e.name, factNames()))
			continue
		}
		var err error
		switch p := f.At(&c.Facts).(type) {
		case *string:
			d.text(e.name, 1<<16, p)(e.value)
			if dom := names.Of(e.name); dom != nil && e.value.Kind == yaml.ScalarNode && !dom.Has(e.value.Value) && e.name == "command" {
				d.node(e.value, "no command %q%s", clip(e.value.Value), suggest(e.value.Value, dom.Names))
			}
		default:
			err = e.value.Decode(p)
		}
		if err != nil {
			d.node(e.value, "%s is %s; wanted %s", e.name, kind(e.value), f.Type)
		}
		c.given = append(c.given, e.name+": "+flow(e.value))
	}
	if c.Facts.Command == "" && n.Kind == yaml.MappingNode {
		d.node(n, "facts have no command")
	}
	for _, e := range n.Content {
		if f := facts.Find(e.Value); f != nil && e.Line > 0 && c.Facts.Command != "" && !f.Has(c.Facts.Command) {
			d.node(e, "%s doesn't have %s", c.Facts.Command, f.Name)
		}
	}
}

// flow shows a value in a line.
func flow(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode {
		return clip(n.Value)
	}
	var parts []string
	for _, c := range n.Content {
		parts = append(parts, clip(c.Value))
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// Failure is a case that didn't come out as wanted.
type Failure struct {
	Case *Case
	Got  policy.Decision
	text string
}

// String shows it: what differs, line by line, what was asked, and what the policy said.
func (f *Failure) String() string { return f.text }

// Run asks the policy each case.
func (c *Cases) Run(p policy.Policy) (failed []Failure) {
	for i := range c.List {
		k := &c.List[i]
		got := k.ask(p)
		var b strings.Builder
		compare := func(what, want, is string) {
			if want != is {
				fmt.Fprintf(&b, "  - %s: %s\n  + %s: %s\n", what, orNone(want), what, orNone(is))
			}
		}
		compare("verdict", k.want.verdict, got.Verdict.String())
		if k.want.hasRule {
			compare("rule", k.want.rule, got.Rule)
		}
		if k.want.cause != "" {
			compare("cause", k.want.cause, got.Cause.String())
		}
		if k.want.scope != "" {
			compare("scope", k.want.scope, got.Scope.String())
		}
		if k.want.pids != "" {
			compare("pids", k.want.pids, got.PIDs.String())
		}
		if k.want.errno != "" {
			compare("errno", k.want.errno, errnoName(got.Errno))
		}
		if !strings.Contains(got.Message, k.want.message) {
			compare("message", "… "+k.want.message+" …", got.Message)
		}
		if b.Len() == 0 {
			continue
		}
		given := k.given
		if !k.At.IsZero() {
			given = append(given[:len(given):len(given)], "at "+k.At.Format(time.RFC3339))
		}
		text := fmt.Sprintf("%s:%d: %s\n%s    %s\n", c.File, k.Line, k.Name, b.String(), strings.Join(given, "\n    "))
		if k.want.message == "" {
			text += "    " + got.Message + "\n"
		}
		failed = append(failed, Failure{Case: k, Got: got, text: text})
	}
	return failed
}

// ask has the policy decide the case, when it is.
func (k *Case) ask(p policy.Policy) policy.Decision {
	if r, is := p.(*policy.Rules); is && !k.At.IsZero() { // others never expire
		p = r.WithClock(func() time.Time { return k.At })
	}
	return p.Decide(&k.Facts)
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

func errnoName(n uint32) string {
	if n == 0 {
		return "EPERM"
	}
	if i := slices.IndexFunc(errnos, func(e struct {
		name  string
		errno uint32
	}) bool {
		return e.errno == n
	}); i >= 0 {
		return errnos[i].name
	}
	return strconv.Itoa(int(n))
}
