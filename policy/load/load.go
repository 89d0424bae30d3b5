// Package load reads policies: YAML documents whose conditions are CEL expressions. It
// finds all mistakes of one at once, each with its place. What it makes is evaluated
// without CEL (see package expr), so that only what reads policies has to pay for it.
package load

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cel.dev/cel-go/common/decls"

	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/policy"
	"github.com/bpfbroker/bpfbroker/policy/expr"
	"github.com/bpfbroker/bpfbroker/policy/names"
)

// Parse makes a policy of a file's text. Its mistakes are an *Errors.
func Parse(file string, text []byte) (*policy.Rules, error) {
	d := parse(file, text)
	if err := d.expressions(); err != nil {
		return nil, err
	}
	d.reachable()
	if err := d.err(); err != nil {
		return nil, err
	}
	r, err := policy.New(d.spec)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if d.readable(r.Ceiling()); d.err() != nil {
		return nil, d.err()
	}
	return r.WithSource(text), nil
}

// Dir reads the policies in a directory, in the order of their files' names: *.yaml, but for
// the files of cases beside them. Mistakes of all are one error.
func Dir(dir string) (policies []*policy.Rules, err error) {
	files, err := filepath.Glob(filepath.Join(escape(dir), "*.yaml"))
	if err != nil {
		return nil, fmt.Errorf("read policies: %w", err)
	}
	var failed []error
	names := map[string]string{}
	for _, file := range files {
		if base := filepath.Base(file); strings.HasPrefix(base, ".") || IsCases(base) {
			continue
		}
		p, err := File(file)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		if other := names[p.Name()]; other != "" {
			failed = append(failed, fmt.Errorf("%s: the policy is called %q, as that of %s", file, p.Name(), other))
		}
		names[p.Name()] = file
		policies = append(policies, p)
	}
	if len(failed) > 0 {
		return nil, errors.Join(failed...)
	}
	if len(policies) == 0 {
		return nil, fmt.Errorf("read policies: there is none in %q: none of its files is called *.yaml", dir)
	}
	return policies, nil
}

// escape makes a path a pattern for itself.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// File reads a policy.
func File(path string) (*policy.Rules, error) {
	text, err := read(path, MaxFile)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	return Parse(path, text)
}

// read reads a file, and one byte more than it may have: parsers say that it is too large.
func read(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most+1))
}

var variableName = lazily(`^[a-z_][a-zA-Z0-9_]{0,62}$`)

// expressions reads the CEL. Its error is none of the policy's.
func (d *document) expressions() error {
	c := &checking{document: d}
	var err error
	for _, e := range d.variables {
		c.later = append(c.later, e.name)
	}
	if c.parser, err = cel(); err != nil {
		return fmt.Errorf("make CEL's parser: %w", err)
	}
	if c.checker, err = c.env(); err != nil {
		return fmt.Errorf("make CEL's environment: %w", err)
	}
	fold, err := expr.NewSet(nil)
	if err != nil {
		return err
	}
	var reads []facts.Set
	for _, e := range d.variables {
		v := &variable{name: e.name, at: e.key}
		switch {
		case !variableName().MatchString(e.name):
			d.node(e.key, "a variable's name has letters, digits and _, at most 63, and begins in lower case")
			continue
		case (&scalar{checking: c}).reserved(e.name) || slices.Contains(callable, e.name) || slices.Contains(celWords, e.name):
			d.node(e.key, "%q has a meaning already; give the variable another name", e.name)
			continue
		}
		v.node, v.known = c.compile(e.value, "variable "+e.name, nil, false)
		if v.node != nil && v.node.Type == facts.Texts && v.node.Op != expr.Fact {
			d.node(e.value, "a variable can't be a choice of labels")
			v.node = nil
		}
		if v.node != nil {
			folded, err := fold.Fold(v.node)
			var fault *expr.Fault
			switch {
			case errors.As(err, &fault):
				d.node(e.value, "variable %s has no value: %v", e.name, fault)
				v.node = nil
			case err != nil:
				return err
			default:
				v.node = folded
			}
		}
		if v.node != nil {
			v.reads = v.node.Facts(reads)
			if err := c.checker.AddIdents(decls.NewVariable(e.name, celTypes[v.node.Type])); err != nil {
				return fmt.Errorf("declare variable %q: %w", e.name, err)
			}
		}
		reads = append(reads, v.reads)
		c.vars = append(c.vars, v)
	}
	for _, r := range d.rules {
		if r.when != nil {
			r.When, _ = c.compile(r.when, "when", r.Commands, true)
			r.broken = r.When == nil
			if r.When != nil && r.When.Type != facts.Bool {
				d.node(r.when, "when has the type %s; wanted a condition, bool", r.When.Type)
				r.When, r.broken = nil, true
			}
			if r.When != nil {
				folded, err := fold.Fold(r.When)
				var fault *expr.Fault
				switch {
				case errors.As(err, &fault):
					d.node(r.when, "when has no value: %v", fault)
				case err != nil:
					return err
				case folded.Op == expr.Const && folded.Int == 0:
					d.node(r.when, "when is never true")
				case folded.Op == expr.Const:
					r.When = nil
				}
			}
		}
	}
	for _, v := range c.vars {
		if !v.used && v.node != nil {
			d.node(v.at, "variable %q isn't used", v.name)
		}
	}
	if len(d.errors) > 0 {
		return nil
	}
	for _, v := range c.vars {
		d.spec.Variables = append(d.spec.Variables, policy.Variable{Name: v.name, Expr: v.node})
	}
	for _, r := range d.rules {
		d.spec.Rules = append(d.spec.Rules, r.Rule)
	}
	return nil
}

// celWords are CEL's own: types and reserved words.
var celWords = []string{"bool", "bytes", "double", "duration", "int", "list", "map", "null_type", "string", "timestamp", "type", "uint",
	"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package", "namespace", "return", "var", "void", "while"}

// reachable finds rules that never decide: the same name twice, and those for which rules
// before have decided on all their commands.
func (d *document) reachable() {
	names := map[string]int{}
	type key struct{ command, when string }
	decided := map[key]*ruleNodes{}
	for _, r := range d.rules {
		if line := names[r.Name]; line > 0 && r.name != nil && r.Name != "" {
			d.node(r.name, "a rule is called %q already, in line %d", clip(r.Name), line)
		} else {
			names[r.Name] = r.Line
		}
		if r.broken {
			continue
		}
		when := ""
		if r.When != nil {
			when = r.When.String()
		}
		commands := r.Commands
		if commands == nil {
			commands = policy.Commands()
		}
		var by *ruleNodes
		open := len(commands) == 0
		for _, c := range commands {
			before := decided[key{c, ""}]
			if before == nil {
				before = decided[key{c, when}]
			}
			if before == nil {
				open = true
				continue
			}
			by = before
		}
		if !open {
			d.node(r.at, "rule %q never decides: rule %q (line %d) has decided by then", clip(r.Name), clip(by.Name), by.Line)
			continue
		}
		if !r.Expires.IsZero() {
			continue
		}
		for _, c := range commands {
			if decided[key{c, when}] == nil {
				decided[key{c, when}] = r
			}
		}
	}
}

// leftToKernel says that no rule is ever asked about a command.
func leftToKernel(command string) bool {
	return slices.Contains(names.Native(), command)
}
