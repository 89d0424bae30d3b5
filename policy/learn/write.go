package learn

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"

	"github.com/bpfbroker/bpfbroker/policy"
)

// What package load takes of a policy at most; a test compares.
const (
	maxFile      = 256 << 10
	maxRules     = 256
	maxVariables = 64
	maxExpr      = 4096
)

// writer makes one policy, with so much detail.
type writer struct {
	*Learner
	o      Options
	detail detail
	exact  bool // no room to grow
	list   []*rule
	vars   []*variable
	left   int // operations
	notes  []string
}

// variable is a list with a name.
type variable struct {
	name  string
	names []string
}

func newWriter(l *Learner, o Options, d detail) *writer { return &writer{Learner: l, o: o, detail: d} }

// note keeps what is told beside the policy, once.
func (w *writer) note(format string, args ...any) {
	if s := fmt.Sprintf(format, args...); !slices.Contains(w.notes, s) && len(w.notes) < 64 {
		w.notes = append(w.notes, s)
	}
}

// fits says whether package load takes it.
func (w *writer) fits(p *Policy) bool {
	return len(p.Text) <= maxFile && len(w.list) <= maxRules && len(w.vars) <= maxVariables
}

// policy is the rules that were made, written.
func (w *writer) policy() *Policy {
	w.name()
	w.variables()
	for _, r := range w.list {
		w.shorten(r)
	}
	w.unused()
	var b strings.Builder
	for _, line := range []string{
		"Learned by bpfbroker: what was seen, and little else. Read it before you use it.",
		"",
		"Rules bound what the broker has found out of each operation. They don't look at what the",
		"workload chooses freely (names, licenses) and what is another each time (ids). Numbers have",
		"room up to the next power of two.",
	} {
		b.WriteString(strings.TrimSuffix("# "+line, " ") + "\n")
	}
	if len(w.notes) > 0 {
		b.WriteString("#\n# Wider than what was seen, or not in here:\n")
		for _, n := range w.notes {
			comment(&b, "- "+n, "")
		}
	}
	fmt.Fprintf(&b, "apiVersion: bpfbroker/v1alpha1\nkind: Policy\nmetadata:\n  name: %s\n", scalar(w.o.Name))
	if w.o.Description != "" {
		fmt.Fprintf(&b, "  description: %s\n", quote(plain(w.o.Description, 240)))
	}
	b.WriteString("spec:\n")
	if len(w.vars) > 0 {
		b.WriteString("  variables:\n")
		for _, v := range w.vars {
			fmt.Fprintf(&b, "    %s: >-\n", v.name)
			wrap(&b, list(v.names), "      ")
		}
		b.WriteString("\n")
	}
	w.limits(&b)
	if len(w.list) == 0 {
		// Rules can't be none; this one says what having none would.
		b.WriteString("  rules:\n  # Nothing was seen.\n  - name: nothing\n    commands: any\n    verdict: deny\n")
	} else {
		b.WriteString("  rules:\n")
	}
	for i, r := range w.list {
		if i > 0 {
			b.WriteString("\n")
		}
		comment(&b, r.comment(), "  ")
		w.writeRule(&b, r, "  ")
	}
	return &Policy{Text: []byte(b.String()), Rules: max(len(w.list), 1), Left: w.left, Notes: w.notes}
}

// writeRule writes a rule as an element of a list.
func (w *writer) writeRule(b *strings.Builder, r *rule, indent string) {
	fmt.Fprintf(b, "%s- name: %s\n%s  commands: [%s]\n", indent, r.name, indent, strings.Join(r.commands, ", "))
	if len(r.conds) > 0 {
		fmt.Fprintf(b, "%s  when: |\n", indent)
		wrap(b, r.text(), indent+"    ")
	}
	fmt.Fprintf(b, "%s  verdict: %s\n", indent, r.verdict)
	for _, m := range []struct{ modifier, is, none string }{
		{"errno", r.errno, ""}, {"scope", r.scope.String(), policy.ScopeHost.String()}, {"pids", r.pids.String(), policy.ScopeHost.String()},
	} {
		if m.is != m.none {
			fmt.Fprintf(b, "%s  %s: %s\n", indent, m.modifier, m.is)
		}
	}
}

// name gives each rule one of its own.
func (w *writer) name() {
	count := map[string]int{}
	for _, r := range w.list {
		r.name = r.title()
		if count[r.name]++; count[r.name] > 1 {
			r.name += "-" + strconv.Itoa(count[r.name])
		}
	}
	// A title may look like one with a number.
	taken := map[string]bool{}
	for _, r := range w.list {
		for n := 2; taken[r.name]; n++ {
			r.name = r.title() + "-" + strconv.Itoa(n)
		}
		taken[r.name] = true
	}
}

// Lists that are longer than that stand apart from their rules, and lists that several
// rules have if they are longer than that.
const (
	longList   = 1200
	sharedList = 50
	varText    = 3000 // of one variable: an expression has 4096 characters at most
)

// variables gives names to lists.
func (w *writer) variables() {
	use := map[string][]*cond{}
	var order []string
	for _, r := range w.list {
		for _, c := range r.conds {
			if len(c.names) == 0 || slices.Contains(kinds, c.fact.Name) && len(list(c.names)) < longList {
				continue
			}
			key := c.fact.Name + list(c.names)
			if w.detail >= shared {
				key = c.fact.Name
			}
			if use[key] == nil {
				order = append(order, key)
			}
			use[key] = append(use[key], c)
		}
	}
	count := map[string]int{}
	for _, key := range order {
		conds := use[key]
		var all []string
		for _, c := range conds {
			all = append(all, c.names...)
		}
		all = distinct(all)
		n := len(list(all))
		if n <= longList && (len(conds) < 2 || n <= sharedList) {
			continue
		}
		if w.detail >= shared && n > listText {
			for _, c := range conds {
				c.names, c.prefixes = nil, []string{""} // anything
			}
			continue
		}
		var vars []string
		base := strings.NewReplacer(".", "_").Replace(conds[0].fact.Name)
		for _, part := range parts(all) {
			count[base]++
			v := &variable{"seen_" + base, part}
			if count[base] > 1 {
				v.name += "_" + strconv.Itoa(count[base])
			}
			w.vars = append(w.vars, v)
			vars = append(vars, v.name)
		}
		for _, c := range conds {
			c.names, c.variables, c.said = all, vars, ""
		}
	}
	for _, r := range w.list {
		r.conds = slices.DeleteFunc(r.conds, func(c *cond) bool {
			if !slices.Contains(c.prefixes, "") {
				return false
			}
			w.note("%s: it has too many names, so any is allowed", c.fact.Name)
			return true
		})
	}
}

// parts cuts a list so that the text of each part is short enough.
func parts(names []string) (out [][]string) {
	size := varText
	for _, n := range names {
		if size += len(quote(n)) + 2; size > varText {
			out, size = append(out, nil), len(quote(n))
		}
		out[len(out)-1] = append(out[len(out)-1], n)
	}
	return out
}

// shorten takes the longest conditions out of a rule until it isn't too long.
func (w *writer) shorten(r *rule) {
	for len(r.text()) > maxExpr*9/10 {
		long := slices.MaxFunc(r.conds, func(a, b *cond) int { return len(a.text()) - len(b.text()) })
		w.note("%s: %s is too long, so any is allowed", r.commands[0], long.fact.Name)
		r.conds = slices.DeleteFunc(r.conds, func(c *cond) bool { return c == long })
	}
}

// unused drops variables that no rule speaks of any more.
func (w *writer) unused() {
	used := map[string]bool{}
	for _, r := range w.list {
		for _, c := range r.conds {
			for _, v := range c.variables {
				used[v] = true
			}
		}
	}
	w.vars = slices.DeleteFunc(w.vars, func(v *variable) bool { return !used[v.name] })
}

// limits are twice what was held at once, where that is known, else what was made in all.
func (w *writer) limits(b *strings.Builder) {
	if w.o.NoLimits {
		return
	}
	var parts []string
	limit := func(name string, made, held, least int64, unit string) {
		n := made
		if w.told && !w.blind && held > 0 {
			n = min(held, made)
		}
		if n > 0 && (unit != "" || 2*n <= policy.MaxLimit) { // more can't be limited
			parts = append(parts, fmt.Sprintf("%s: %d%s", name, max(2*n, least), unit))
		}
	}
	limit("maps", w.made["map"], w.peaks.Maps+1, 8, "")
	limit("programs", w.made["prog"], w.peaks.Progs+1, 8, "")
	limit("links", w.made["link"], w.peaks.Links+1, 8, "")
	const mib = 1 << 20
	limit("bytes", (w.bytes+mib-1)/mib, (w.peaks.Bytes+mib-1)/mib, 1, "Mi")
	if len(parts) > 0 {
		comment(b, "Twice what the workload held at once, as far as that is known, else twice what it made.", "  ")
		fmt.Fprintf(b, "  limits: {%s}\n\n", strings.Join(parts, ", "))
	}
}

const width = 100

// comment writes a comment. Its text is ASCII without line breaks: what is a workload's
// own is quoted.
func comment(b *strings.Builder, text, indent string) {
	wrap(b, plain(text, 2000), indent+"# ")
}

// plain is text in one line.
func plain(s string, most int) string {
	return shorter(strings.Map(func(r rune) rune {
		if r > unicode.MaxASCII || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s), most)
}

// wrap writes text in lines of at most so many characters, where it has spaces that aren't
// in a string.
func wrap(b *strings.Builder, text, indent string) {
	for line := range strings.SplitSeq(text, "\n") {
		at := indent
		for len(at)+len(line) > width {
			i := space(line, width-len(at))
			if i < 0 {
				break
			}
			b.WriteString(at + line[:i] + "\n")
			line = line[i+1:]
			if at = indent; !strings.HasSuffix(indent, "# ") {
				at += "  "
			}
		}
		b.WriteString(at + line + "\n")
	}
}

// space is the last space before n that is in no string, else the first one after it, -1
// for none.
func space(line string, n int) int {
	found, in := -1, false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\' && in:
			i++
		case c == '"':
			in = !in
		case c == ' ' && !in && i > 0:
			if i > n && found >= 0 {
				return found
			}
			found = i
			if i > n {
				return i
			}
		}
	}
	return found
}

// scalar is a policy's name as YAML has it: a number, say, isn't taken for one.
func scalar(name string) string {
	if plainName().MatchString(name) && !slices.Contains([]string{"true", "false", "null", "yes", "no", "on", "off", "y", "n"}, name) {
		return name
	}
	return quote(name)
}

var plainName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z][a-z0-9-]*$`) })

// Name makes the name of a policy of any text, such as the path of a command.
func Name(text string) string {
	text = text[strings.LastIndexByte(text, '/')+1:]
	name := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r == '.' || r == '-' {
			return r
		}
		return '-'
	}, strings.ToLower(text))
	name = strings.Trim(shorter(name, 50), "-.")
	if name == "" {
		name = "workload"
	}
	if slices.Contains(policy.Names(), name) {
		name += "-learned"
	}
	return name
}
