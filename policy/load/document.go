package load

import (
	"bytes"
	"errors"
	"io"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/policy"
	"github.com/bpfbroker/bpfbroker/policy/names"
)

// What a file may have at most.
const (
	MaxFile      = 256 << 10 // bytes
	maxRules     = 256
	maxVariables = 64
	maxList      = 1024
	maxText      = 256 // characters of names and messages
)

// document is a policy as it stands in its file.
type document struct {
	*source
	spec      policy.Spec
	variables []entry
	rules     []*ruleNodes
	shares    []*yaml.Node // of spec.Share
}

// entry is a key with its value.
type entry struct {
	name       string
	key, value *yaml.Node
}

// ruleNodes are the places of a rule's parts.
type ruleNodes struct {
	policy.Rule
	at, name, commands, when, limits, expires *yaml.Node

	broken bool // its condition has mistakes
}

// lazily compiles a pattern when it is first asked for: most processes of bpfbroker never
// read a policy.
func lazily(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

// yamlLine finds the line in the messages of package yaml.
var yamlLine = lazily(`^yaml: (?:line (\d+): )?(.*)$`)

// parse reads the YAML.
func parse(file string, text []byte) *document {
	d := &document{source: newSource(file, text)}
	d.spec.File = file
	if len(text) > MaxFile {
		d.lines = nil
		d.at(1, 1, "file has %d bytes; a policy may have %d", len(text), MaxFile)
		return d
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var root, more yaml.Node
	if err := dec.Decode(&root); err != nil {
		if errors.Is(err, io.EOF) {
			d.at(1, 1, "file is empty; a policy begins with apiVersion: %s", apiVersion)
			return d
		}
		d.syntax(err)
		return d
	}
	if len(root.Content) != 1 {
		d.at(1, 1, "no document")
		return d
	}
	switch err := dec.Decode(&more); {
	case err == nil:
		d.node(&more, "a file has one policy; this is a second document")
		return d
	case !errors.Is(err, io.EOF):
		d.syntax(err)
		return d
	}
	if d.aliases(root.Content[0]) {
		d.policy(root.Content[0])
	}
	return d
}

// syntax notes an error of package yaml, which has a line at most.
func (d *document) syntax(err error) {
	line, message := 1, err.Error()
	if m := yamlLine().FindStringSubmatch(message); m != nil {
		if n, err := strconv.Atoi(m[1]); err == nil {
			line = n
		}
		message = m[2]
	}
	column := 1
	if line <= len(d.lines) {
		t := d.lines[line-1]
		column = len(t) - len(strings.TrimLeft(t, " ")) + 1
	}
	d.at(line, column, "no YAML: %s", message)
}

// aliases refuses what YAML has for repeating: a small file could become a large one.
func (d *document) aliases(n *yaml.Node) bool {
	ok := true
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		d.node(n, "anchors and aliases aren't taken; give a name to an expression in spec.variables")
		return false
	}
	for _, c := range n.Content {
		ok = d.aliases(c) && ok
	}
	return ok
}

// fields goes through a mapping, each key once, and those not known are mistakes.
func (d *document) fields(n *yaml.Node, what string, known ...field) {
	all := d.entries(n, what)
	names := make([]string, len(known))
	for i, f := range known {
		names[i] = f.name
	}
	for _, e := range all {
		i := slices.Index(names, e.name)
		if i < 0 {
			d.node(e.key, "%s has no field %q%s", what, clip(e.name), suggest(e.name, names))
			continue
		}
		known[i].read(e.value)
	}
	for _, f := range known {
		if f.must && n.Kind == yaml.MappingNode && !slices.ContainsFunc(all, func(e entry) bool { return e.name == f.name }) {
			d.node(n, "%s has no %s", what, f.name)
		}
	}
}

// field is how a field of a mapping is read.
type field struct {
	name string
	must bool
	read func(*yaml.Node)
}

// entries are the keys and values of a mapping.
func (d *document) entries(n *yaml.Node, what string) []entry {
	if n.Kind != yaml.MappingNode {
		d.node(n, "%s is %s; wanted a mapping", what, kind(n))
		return nil
	}
	var out []entry
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if k.Kind != yaml.ScalarNode {
			d.node(k, "a key of %s is %s; wanted a word", what, kind(k))
			continue
		}
		if line := seen[k.Value]; line > 0 {
			d.node(k, "%s has %q twice; first in line %d", what, clip(k.Value), line)
			continue
		}
		seen[k.Value] = k.Line
		out = append(out, entry{k.Value, k, n.Content[i+1]})
	}
	return out
}

func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	if n.Tag == "!!null" {
		return "empty"
	}
	return "a " + map[string]string{"!!str": "string", "!!int": "number", "!!float": "number", "!!bool": "bool", "!!timestamp": "time"}[n.ShortTag()] + " (" + strconv.Quote(clip(n.Value)) + ")"
}

func clip(s string) string {
	if r := []rune(s); len(r) > 60 {
		return string(r[:60]) + "…"
	}
	return s
}

// text reads a string; max is in characters.
func (d *document) text(what string, max int, to *string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		switch {
		case n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str":
			d.node(n, "%s is %s; wanted a string", what, kind(n))
		case len([]rune(n.Value)) > max:
			d.node(n, "%s has more than %d characters", what, max)
		case strings.ContainsFunc(n.Value, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7f }):
			d.node(n, "%s has a control character", what)
		default:
			*to = strings.TrimSpace(n.Value)
		}
	}
}

// time reads a time. Its zero value means that there is none, and is no time to give.
func (d *document) time(what string, to *time.Time) func(*yaml.Node) {
	return func(n *yaml.Node) {
		t, err := time.Parse(time.RFC3339, n.Value)
		if err != nil || n.Kind != yaml.ScalarNode || t.IsZero() {
			d.node(n, "%s is %s; wanted a time like 2027-01-31T18:00:00Z", what, kind(n))
			return
		}
		*to = t.UTC()
	}
}

// list reads a list of strings; check, where there is one, of each.
func (d *document) list(what string, to *[]string, check func(*yaml.Node)) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if n.Kind != yaml.SequenceNode {
			d.node(n, "%s is %s; wanted a list", what, kind(n))
			return
		}
		if len(n.Content) > maxList {
			d.node(n, "%s has %d elements; at most %d", what, len(n.Content), maxList)
			return
		}
		if len(n.Content) == 0 {
			d.node(n, "%s is an empty list", what)
		}
		for _, c := range n.Content {
			var s string
			errors := len(d.errors)
			d.text("an element of "+what, maxText, &s)(c)
			if len(d.errors) > errors {
				continue
			}
			if slices.Contains(*to, s) {
				d.node(c, "%s has %q twice", what, clip(s))
				continue
			}
			if check != nil {
				check(c)
			}
			*to = append(*to, s)
		}
	}
}

// word reads one of some words.
func (d *document) word(what string, words []string, chosen func(int)) func(*yaml.Node) {
	return func(n *yaml.Node) {
		i := -1
		if n.Kind == yaml.ScalarNode {
			i = slices.Index(words, n.Value)
		}
		switch {
		case n.Kind != yaml.ScalarNode:
			d.node(n, "%s is %s; wanted one of: %s", what, kind(n), strings.Join(words, ", "))
		case i < 0:
			d.node(n, "no %s %q%s", what, clip(n.Value), suggest(n.Value, words))
		default:
			chosen(i)
		}
	}
}

// apiVersion and kind of the documents that this package reads.
const (
	apiVersion = "bpfbroker/v1alpha1"
	docKind    = "Policy"
)

var policyName = lazily(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)

func (d *document) policy(n *yaml.Node) {
	exactly := func(what, want string) func(*yaml.Node) {
		return func(n *yaml.Node) {
			if n.Kind != yaml.ScalarNode || n.Value != want {
				d.node(n, "%s is %s; wanted %s", what, kind(n), want)
			}
		}
	}
	d.fields(n, "a policy",
		field{"apiVersion", true, exactly("apiVersion", apiVersion)},
		field{"kind", true, exactly("kind", docKind)},
		field{"metadata", true, func(n *yaml.Node) {
			d.fields(n, "metadata",
				field{"name", true, func(n *yaml.Node) {
					d.text("metadata.name", maxText, &d.spec.Name)(n)
					if d.spec.Name != "" && !policyName().MatchString(d.spec.Name) {
						d.node(n, "a policy's name has lower case letters, digits, - and ., at most 63")
					}
				}},
				field{"description", false, d.text("metadata.description", maxText, &d.spec.Description)})
		}},
		field{"spec", true, func(n *yaml.Node) {
			d.fields(n, "spec",
				field{"selector", false, d.selector},
				field{"variables", false, func(n *yaml.Node) {
					d.variables = d.entries(n, "variables")
					if len(d.variables) > maxVariables {
						d.node(n, "%d variables; at most %d", len(d.variables), maxVariables)
						d.variables = nil
					}
				}},
				field{"rules", true, d.ruleList},
				field{"limits", false, func(n *yaml.Node) { d.limits(n, &d.spec.Limits) }},
				field{"share", false, d.share})
		}})
}

func (d *document) selector(n *yaml.Node) {
	s := &d.spec.Selector
	d.fields(n, "selector",
		field{"users", false, d.list("users", &s.Users, nil)},
		field{"groups", false, d.list("groups", &s.Groups, nil)},
		field{"images", false, d.list("images", &s.Images, nil)},
		field{"cgroups", false, d.list("cgroups", &s.Cgroups, nil)},
		field{"labels", false, func(n *yaml.Node) {
			s.Labels = map[string]string{}
			for _, e := range d.entries(n, "labels") {
				var v string
				d.text("a label", maxText, &v)(e.value)
				s.Labels[e.name] = v
			}
		}})
}

// addShare adds an element. Each path gets its last part for a name in the workload's bpffs.
func (d *document) addShare(n *yaml.Node, s policy.Share) {
	for _, o := range d.spec.Share {
		if s.Path != "" && o.Path != "" && path.Base(s.Path) == path.Base(o.Path) {
			d.node(n, "%q and %q would both be pinned as %q in the workload's bpffs", clip(o.Path), clip(s.Path), path.Base(s.Path))
			break
		}
	}
	d.spec.Share, d.shares = append(d.spec.Share, s), append(d.shares, n)
}

// readable refuses maps that are shared to be read alone where programs could write them:
// the kernel lets a program write to what is in a map of maps, which a workload fills
// without being asked.
func (d *document) readable(c policy.Ceiling) {
	if !c.MapsOfMaps() {
		return
	}
	for i, s := range d.spec.Share {
		if s.ToRead() {
			d.node(d.shares[i], "%s is shared to be read alone, but the rules could allow maps of maps (array_of_maps, hash_of_maps), by which a program could write to it; deny those, or give access: read-write", s)
		}
	}
}

func (d *document) share(n *yaml.Node) {
	if n.Kind != yaml.SequenceNode {
		d.node(n, "share is %s; wanted a list", kind(n))
		return
	}
	if len(n.Content) > maxList {
		d.node(n, "share has %d elements; at most %d", len(n.Content), maxList)
		return
	}
	pathOf := func(s *policy.Share) func(*yaml.Node) {
		return func(n *yaml.Node) {
			d.text("a path", 4096, &s.Path)(n)
			if s.Path != "" && !strings.HasPrefix(s.Path, "/") {
				d.node(n, "path %q isn't absolute", clip(s.Path))
			}
		}
	}
	for _, c := range n.Content {
		var s policy.Share
		if c.Kind == yaml.ScalarNode {
			pathOf(&s)(c)
			d.addShare(c, s)
			continue
		}
		kinds := []string{"map", "prog", "link", "btf"}
		access := false
		d.fields(c, "an element of share",
			field{"path", false, pathOf(&s)},
			field{"access", false, d.word("access", []string{"read-only", "read-write"}, func(i int) { s.Write, access = i == 1, true })},
			field{"kind", false, d.word("kind of object", kinds, func(i int) { s.Kind = kinds[i] })},
			field{"id", false, func(n *yaml.Node) { d.number(n, "id", &s.ID, false) }})
		switch {
		case c.Kind != yaml.MappingNode:
		case s.Path == "" && (s.Kind == "" || s.ID == 0):
			d.node(c, "an element of share has a path, or a kind and an id")
		case s.Path != "" && (s.Kind != "" || s.ID != 0):
			d.node(c, "an element of share has a path or an id, not both")
		case s.Path == "" && access:
			d.node(c, "access is for a path; by an id an object can only be looked at")
		}
		d.addShare(c, s)
	}
}

var suffixes = map[string]int64{"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}

var quantity = lazily(`^([0-9]{1,18})([A-Za-z]*)$`)

// number reads a positive number; of bytes, it may have a suffix.
func (d *document) number(n *yaml.Node, what string, to *int64, bytes bool) {
	m := quantity().FindStringSubmatch(n.Value)
	if n.Kind != yaml.ScalarNode || m == nil || !bytes && m[2] != "" {
		d.node(n, "%s is %s; wanted a number%s", what, kind(n), map[bool]string{true: ", or one like 64Mi"}[bytes])
		return
	}
	unit, ok := suffixes[m[2]]
	if !ok {
		d.node(n, "%s has no suffix %q; there are Ki, Mi, Gi, Ti and k, M, G, T", what, clip(m[2]))
		return
	}
	v, err := strconv.ParseInt(m[1], 10, 64)
	switch {
	case err != nil || v > (1<<62)/unit:
		d.node(n, "%s is too large", what)
	case v == 0:
		d.node(n, "%s is 0; to allow none, deny by a rule", what)
	default:
		*to = v * unit
	}
}

func (d *document) limits(n *yaml.Node, l *policy.Limits) {
	d.fields(n, "limits",
		field{"maps", false, func(n *yaml.Node) { d.number(n, "maps", &l.Maps, false) }},
		field{"programs", false, func(n *yaml.Node) { d.number(n, "programs", &l.Progs, false) }},
		field{"links", false, func(n *yaml.Node) { d.number(n, "links", &l.Links, false) }},
		field{"bytes", false, func(n *yaml.Node) { d.number(n, "bytes", &l.Bytes, true) }},
		field{"instructions", false, func(n *yaml.Node) { d.number(n, "instructions", &l.Insns, false) }})
	for _, of := range []struct {
		what string
		is   int64
	}{{"maps", l.Maps}, {"programs", l.Progs}, {"links", l.Links}} {
		if of.is > policy.MaxLimit {
			d.node(n, "a limit of %d %s; the largest is %d: leave it out, or say how many bytes", of.is, of.what, policy.MaxLimit)
		}
	}
	if n.Kind == yaml.MappingNode && len(n.Content) == 0 {
		d.node(n, "limits are empty")
	}
}

func (d *document) ruleList(n *yaml.Node) {
	if n.Kind != yaml.SequenceNode {
		d.node(n, "rules is %s; wanted a list", kind(n))
		return
	}
	if len(n.Content) > maxRules {
		d.node(n, "%d rules; at most %d", len(n.Content), maxRules)
		return
	}
	if len(n.Content) == 0 {
		d.node(n, "rules is an empty list: nothing would be allowed, as the policy deny has it")
	}
	for _, c := range n.Content {
		d.rule(c)
	}
}

// errnos are what a denial may say. EAGAIN isn't among them: libbpf would repeat the call.
var errnos = []struct {
	name  string
	errno uint32
}{{"EPERM", 1}, {"ENOENT", 2}, {"E2BIG", 7}, {"ENOMEM", 12}, {"EACCES", 13}, {"EBUSY", 16}, {"ENODEV", 19}, {"EINVAL", 22}, {"ENOSPC", 28}, {"ENOSYS", 38}, {"EOPNOTSUPP", 95}}

func (d *document) rule(n *yaml.Node) {
	r := &ruleNodes{at: n}
	r.Line = n.Line
	var verdict bool
	var errno, message, scope, pids *yaml.Node
	names := make([]string, len(errnos))
	for i, e := range errnos {
		names[i] = e.name
	}
	d.fields(n, "a rule",
		field{"name", true, func(n *yaml.Node) { r.name = n; d.text("a rule's name", 63, &r.Name)(n) }},
		field{"commands", true, func(n *yaml.Node) {
			r.commands = n
			if n.Kind == yaml.ScalarNode && n.Value == "any" {
				return
			}
			r.Commands = []string{}
			if n.Kind == yaml.ScalarNode {
				d.node(n, "commands is %s; wanted a list, or any", kind(n))
				return
			}
			d.list("commands", &r.Commands, d.command)(n)
		}},
		field{"when", false, func(n *yaml.Node) { r.when = n }},
		field{"verdict", true, d.word("verdict", []string{"deny", "allow", "native"}, func(i int) { verdict, r.Verdict = true, policy.Verdict(i) })},
		field{"errno", false, func(n *yaml.Node) {
			errno = n
			d.word("errno", names, func(i int) { r.Errno = errnos[i].errno })(n)
		}},
		field{"message", false, func(n *yaml.Node) { message = n; d.text("message", maxText, &r.Message)(n) }},
		field{"limits", false, func(n *yaml.Node) {
			r.limits = n
			r.Limits = &policy.Limits{}
			d.limits(n, r.Limits)
		}},
		field{"expires", false, func(n *yaml.Node) {
			r.expires = n
			d.time("expires", &r.Expires)(n)
		}},
		field{"scope", false, func(n *yaml.Node) {
			scope = n
			d.word("scope", []string{"host", "workload"}, func(i int) { r.Scope = policy.Scope(i) })(n)
		}},
		field{"pids", false, func(n *yaml.Node) {
			pids = n
			d.word("pids", []string{"host", "workload"}, func(i int) { r.PIDs = policy.Scope(i) })(n)
		}},
		field{"audit", false, d.word("audit", []string{"summary", "full", "none"}, func(i int) { r.Audit = policy.Audit(i) })})
	if n.Kind != yaml.MappingNode {
		return
	}
	if verdict && r.Verdict != policy.Deny {
		for _, x := range []struct {
			what string
			n    *yaml.Node
		}{{"errno", errno}, {"message", message}} {
			if x.n != nil {
				d.node(x.n, "%s is for the verdict deny", x.what)
			}
		}
	}
	if verdict && r.Limits != nil {
		d.limited(r)
	}
	if scope != nil {
		d.scoped(r, verdict, scope)
	}
	if pids != nil {
		switch {
		case r.PIDs > r.Scope:
			d.node(pids, "pids: %v is for rules with scope: %v", r.PIDs, r.PIDs)
			r.PIDs = policy.ScopeHost
		case r.Commands != nil && !slices.Contains(r.Commands, "prog_load"):
			d.node(pids, "pids is for rules with prog_load")
		}
	}
	d.rules = append(d.rules, r)
}

// scoped checks that the rule allows something that can have a scope.
func (d *document) scoped(r *ruleNodes, verdict bool, scope *yaml.Node) {
	switch {
	case verdict && r.Verdict != policy.Allow:
		d.node(scope, "scope is for the verdict allow")
	case r.Commands != nil && !slices.ContainsFunc(policy.Scoped(), func(c string) bool { return slices.Contains(r.Commands, c) }):
		d.node(scope, "a scope is for rules with %s", strings.Join(policy.Scoped(), " or "))
	}
}

// command checks that rules can speak of a command.
func (d *document) command(n *yaml.Node) {
	switch {
	case n.Value == "any":
		d.node(n, "any stands alone: commands: any")
	case !names.Of("command").Has(n.Value):
		d.node(n, "no command %q%s", clip(n.Value), suggest(n.Value, policy.Commands()))
	case leftToKernel(n.Value):
		d.node(n, "%s acts on what the caller holds alone: the kernel decides, and no rule is asked", n.Value)
	}
}

// limited checks that the rule can create what it limits.
func (d *document) limited(r *ruleNodes) {
	if r.Verdict != policy.Allow {
		d.node(r.limits, "limits are for the verdict allow")
		return
	}
	if r.Commands == nil {
		return
	}
	for _, l := range []struct {
		what     string
		is       int64
		commands []string
	}{
		{"maps", r.Limits.Maps, []string{"map_create"}}, {"bytes", r.Limits.Bytes, []string{"map_create", "btf_load"}},
		{"programs", r.Limits.Progs, []string{"prog_load"}}, {"instructions", r.Limits.Insns, []string{"prog_load"}},
		{"links", r.Limits.Links, []string{"link_create", "raw_tracepoint_open"}},
	} {
		if l.is > 0 && !slices.ContainsFunc(l.commands, func(c string) bool { return slices.Contains(r.Commands, c) }) {
			d.node(r.limits, "a limit of %s is for rules with %s", l.what, strings.Join(l.commands, " or "))
		}
	}
}

// lacking says which of a rule's commands don't have a fact.
func lacking(commands []string, f *facts.Fact) (without []string) {
	if commands == nil {
		commands = policy.Commands()
	}
	for _, c := range commands {
		if !f.Has(c) {
			without = append(without, c)
		}
	}
	return without
}
