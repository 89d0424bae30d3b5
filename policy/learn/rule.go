package learn

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/policy"
)

// rule is one of the policy's.
type rule struct {
	name     string
	commands []string
	conds    []*cond
	verdict  policy.Verdict
	errno    string // of a denial
	scope    policy.Scope
	pids     policy.Scope
	refused  bool // the kernel has refused all that it was made of

	// Of the comment.
	count    int
	outcomes map[string]int
	example  string
}

// rule makes the rule that allows these operations, of one command.
func (w *writer) rule(group []*seen) *rule {
	command := group[0].Facts.Command
	r := &rule{commands: []string{command}, verdict: group[0].Verdict}
	w.scope(r, group)
	for i := range facts.Table {
		f := &facts.Table[i]
		b := bounds[f.Name]
		if b == 0 || !f.Has(command) || !relevant(f, group) {
			continue
		}
		if w.o.Digests && command == "prog_load" && implied[f.Name] && len(digests(group)) > 0 {
			continue
		}
		if f.Name == "attach.ifname" && numbered(group) {
			f, b = facts.Find("attach.ifindex"), Values
		}
		if c := w.cond(f, b, group); c != nil {
			r.conds = append(r.conds, c)
		}
	}
	if w.o.Digests && command == "prog_load" {
		if d := digests(group); len(d) > 0 {
			r.conds = append(r.conds, w.names(facts.Find("prog.digest"), d))
			r.conds = slices.DeleteFunc(r.conds, func(c *cond) bool { return c == nil })
		} else {
			w.note("prog_load %s: the digest of some isn't known, so the programs are told by what they call", quote(group[0].Facts.Prog.Type))
		}
	}
	// What kind it is comes first: an operation of another needs nothing else to be known.
	slices.SortStableFunc(r.conds, func(a, b *cond) int { return rank(a) - rank(b) })
	for _, s := range group {
		r.add(s)
	}
	return r
}

// scope gives the rule the scope that the operations had. A program at a clock may have had
// none by its rule's grace, since it looks at no task: where others have one, so has its rule.
func (w *writer) scope(r *rule, group []*seen) {
	for _, s := range group {
		r.scope, r.pids = max(r.scope, s.Scope), max(r.pids, s.PIDs)
		if s.Facts.Command == "prog_load" && s.Facts.Prog.Type == "perf_event" {
			r.scope, r.pids = w.Learner.scope, w.Learner.pids
		}
	}
}

// numbered says that the operations are at interfaces of which the numbers are known, and
// not the names: there are none.
func numbered(group []*seen) bool {
	ifname := facts.Find("attach.ifname")
	return !slices.ContainsFunc(group, func(s *seen) bool { return known(&s.Operation, ifname) || s.Facts.Attach.Ifindex == 0 })
}

// implied are facts that follow from a program's digest.
var implied = map[string]bool{"prog.insns": true, "prog.helpers": true, "prog.kfuncs": true, "prog.kernel_stacks": true}

// digests are those of the programs; none where one isn't known.
func digests(group []*seen) []string {
	digest := facts.Find("prog.digest")
	for _, s := range group {
		if s.Facts.Prog.Digest == "" || !known(&s.Operation, digest) {
			return nil
		}
	}
	return values(group, digest)
}

func rank(c *cond) int {
	if i := slices.Index(kinds, c.fact.Name); i >= 0 {
		return i - len(kinds)
	}
	if c.fact.Name == "token" || c.fact.Name == "workload.netns_own" {
		return 1
	}
	return 0
}

// add counts an operation as one that the rule is for.
func (r *rule) add(s *seen) {
	r.count += s.count
	if r.outcomes == nil {
		r.outcomes = map[string]int{}
	}
	r.outcomes[s.Outcome] += s.count
	if r.example == "" {
		r.example = example(&s.Facts)
	}
}

// example is what the operation was about, as the workload calls it.
func example(f *facts.Facts) string {
	for _, x := range []struct{ what, name string }{
		{"map", f.Map.Name}, {"program", f.Prog.Name}, {"interface", f.Attach.Ifname}, {"cgroup", f.Attach.Cgroup},
		{"tracepoint", f.Attach.Tracepoint}, {"file", f.Attach.File}, {"tracepoint", f.Event.Tracepoint}, {"function", f.Event.Function},
		{"file", f.Event.File}, {"path", f.Pin.Path},
	} {
		if x.name != "" {
			return x.what + " " + quote(shorter(x.name, 60))
		}
	}
	return ""
}

// matches says whether the rule is for the operation.
func (r *rule) matches(o *Operation) bool {
	return slices.Contains(r.commands, o.Facts.Command) && !slices.ContainsFunc(r.conds, func(c *cond) bool { return !c.holds(o) })
}

func (r *rule) text() string {
	var out []string
	for _, c := range r.conds {
		out = append(out, c.text())
	}
	return strings.Join(out, " &&\n")
}

// but is all that the rule says, but of the fact; of "", but of the commands.
func (r *rule) but(fact string) string {
	parts := []string{r.verdict.String(), r.errno, r.scope.String(), r.pids.String()}
	if fact != "" {
		parts = append(parts, r.commands...)
	}
	for _, c := range r.conds {
		if c.fact.Name == fact {
			parts = append(parts, fact)
			continue
		}
		parts = append(parts, c.text())
	}
	return strings.Join(parts, "\n") // no part has a line break
}

// reads says whether a condition asks for the fact.
func (r *rule) reads(fact string) bool {
	return slices.ContainsFunc(r.conds, func(c *cond) bool { return c.fact.Name == fact || fact == "prog.digest" && len(c.digests) > 0 })
}

// join makes the rule one for what the other is for, too, which differs in the fact.
func (r *rule) join(o *rule, fact string) bool {
	for i, c := range r.conds {
		if c.fact.Name == fact && !c.join(o.conds[i]) {
			return false
		}
	}
	for _, c := range o.commands {
		if !slices.Contains(r.commands, c) {
			r.commands = append(r.commands, c)
		}
	}
	r.refused = r.refused && o.refused
	r.count += o.count
	for outcome, n := range o.outcomes {
		r.outcomes[outcome] += n
	}
	if r.example == "" {
		r.example = o.example
	}
	return true
}

// comment says how often it was seen.
func (r *rule) comment() string {
	s := "Seen once"
	if r.count > 1 {
		s = fmt.Sprintf("Seen %d times", r.count)
	}
	var failed []string
	for _, outcome := range slices.Sorted(maps.Keys(r.outcomes)) {
		if outcome != "ok" {
			failed = append(failed, fmt.Sprintf("%d %s", r.outcomes[outcome], clean(shorter(outcome, 40))))
		}
	}
	switch {
	case r.verdict == policy.Deny:
		s += "; there is no such type, and it is answered as the kernel did"
	case r.refused:
		s += "; the kernel refused all: " + strings.Join(failed, ", ")
	case len(failed) > 0:
		s += "; of that " + strings.Join(failed, ", ")
	}
	if r.example != "" {
		s += "; for example " + r.example
	}
	return s + "."
}

// title is what the rule is called, but for a number where there are several.
func (r *rule) title() string {
	noun := map[string]string{
		"map_create": "maps", "prog_load": "programs", "btf_load": "types", "perf_event_open": "events",
	}[r.commands[0]]
	if noun == "" {
		noun = strings.ReplaceAll(r.commands[0], "_", "-")
	}
	if r.refused || r.verdict == policy.Deny {
		noun = "refused-" + noun
	}
	for _, c := range r.conds {
		if slices.Contains(kinds, c.fact.Name) && len(c.names) == 1 && c.names[0] != "" && len(c.prefixes) == 0 {
			return shorter(noun+"-"+strings.ReplaceAll(clean(c.names[0]), "_", "-"), 56)
		}
	}
	return noun
}
