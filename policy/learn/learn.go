// Package learn writes the policy that allows what a workload was seen to do, and little
// else: from the facts of its operations to rules as YAML. It reads neither YAML nor CEL.
//
// What is alike becomes one rule: maps of a type, programs of a type. A rule bounds what
// the broker has found out of each operation: types, helpers, what is attached to. It says
// nothing of what the workload chooses freely (names, licenses) or what is another each
// time (ids of objects, processes).
package learn

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/policy"
	"github.com/bpfbroker/bpfbroker/policy/names"
)

// Operation is one that was seen.
type Operation struct {
	Facts   facts.Facts
	Cut     facts.Set      // facts of which the beginning alone is there
	Verdict policy.Verdict // Allow or Native
	Scope   policy.Scope   // that it was allowed with
	PIDs    policy.Scope
	Outcome string // "ok", or the errno's name
	Made    string // the kind of the object that it made, if any
}

// Options say how to write a policy.
type Options struct {
	Name        string
	Description string
	Digests     bool // allow the very programs that were seen, by their digests
	NoLimits    bool // of objects held at once
}

// Policy is what was learned.
type Policy struct {
	Text  []byte   // YAML
	Rules int      // how many
	Left  int      // how many operations aren't in it, as no rule can be
	Notes []string // what the rules couldn't be made as narrow as what was seen, and why
}

// maxDistinct bounds the memory for what was seen: operations that differ in what rules
// speak of.
const maxDistinct = 100_000

// Learner collects what is seen.
type Learner struct {
	seen  map[string]*seen
	made  map[string]int64 // objects, by kind
	peaks facts.Counts     // the most that were held at once
	told  bool             // what was held, by any operation: most logs don't
	blind bool             // and not by all
	bytes int64            // of maps that were made
	count int
	scope policy.Scope // the widest that any had
	pids  policy.Scope
}

// seen is an operation, and those that differ from it only in what no rule speaks of.
type seen struct {
	Operation
	count int
	order int
}

// New returns one that has seen nothing.
func New() *Learner { return &Learner{seen: map[string]*seen{}, made: map[string]int64{}} }

// Add takes an operation. The error is of one that no rule can be about.
func (l *Learner) Add(o Operation) error {
	f := &o.Facts
	switch {
	case o.Verdict == policy.Deny:
		return fmt.Errorf("%s was denied", quote(f.Command))
	case !names.Of("command").Has(f.Command):
		return fmt.Errorf("no command %s", quote(f.Command))
	case slices.Contains(names.Native(), f.Command):
		return fmt.Errorf("%s is the kernel's to decide", f.Command)
	}
	key := identity(&o)
	if s := l.seen[key]; s != nil {
		s.count++
	} else if len(l.seen) == maxDistinct {
		return fmt.Errorf("more than %d different operations", maxDistinct)
	} else {
		o.Facts = f.Clone()
		l.seen[key] = &seen{o, 1, l.count}
	}
	l.count++
	l.scope, l.pids = max(l.scope, o.Scope), max(l.pids, o.PIDs)
	if slices.Contains(makers, f.Command) {
		l.made[o.Made]++
	}
	for _, u := range f.Unknown {
		l.blind = l.blind || strings.HasPrefix(u.Fact, "counts.")
	}
	c, bytes := &f.Counts, int64(0)
	switch {
	case o.Outcome != "ok":
	case f.Command == "map_create":
		bytes = min(max(f.Map.Bytes, 0), 1<<60)
	case f.Command == "btf_load":
		bytes = typesBytes
	}
	l.bytes = min(l.bytes+bytes, 1<<60)
	l.told = l.told || c.Maps|c.Progs|c.Links|c.Bytes != 0
	// They are what was held before the operation.
	l.peaks.Maps, l.peaks.Progs, l.peaks.Links = max(l.peaks.Maps, c.Maps), max(l.peaks.Progs, c.Progs), max(l.peaks.Links, c.Links)
	l.peaks.Bytes = max(l.peaks.Bytes, min(max(c.Bytes, 0), 1<<60)+bytes)
	return nil
}

// typesBytes is as large as types are taken to be, of which no log has the size.
const typesBytes = 4 << 20

// makers are the commands that make what is limited; others open it.
var makers = []string{"map_create", "prog_load", "link_create", "raw_tracepoint_open"}

// Count is how many operations were taken.
func (l *Learner) Count() int { return l.count }

// Distinct is how many of them differ in what rules speak of.
func (l *Learner) Distinct() int { return len(l.seen) }

// identity is all of an operation that rules may speak of, as a string.
func identity(o *Operation) string {
	var b strings.Builder
	part := func(s string) { b.WriteString(strconv.Itoa(len(s))); b.WriteByte(':'); b.WriteString(s) }
	part(o.Facts.Command)
	part(o.Outcome)
	b.WriteString(string([]byte{'0' + byte(o.Verdict), '0' + byte(o.Scope), '0' + byte(o.PIDs)}))
	for i := range facts.Table {
		f := &facts.Table[i]
		if bounds[f.Name] == 0 && f.Name != "prog.digest" && f.Name != "attach.ifindex" || !f.Has(o.Facts.Command) {
			continue
		}
		part(f.Name)
		b.WriteString(strconv.FormatBool(known(o, f)))
		switch p := f.At(&o.Facts).(type) {
		case *string:
			part(*p)
		case *[]string:
			for _, s := range *p {
				part(s)
			}
		case *int64:
			b.WriteString(strconv.FormatInt(*p, 10))
		case *bool:
			b.WriteString(strconv.FormatBool(*p))
		}
	}
	return b.String()
}

// known says whether the operation tells the whole fact.
func known(o *Operation, f *facts.Fact) bool {
	return !o.Cut.Has(f.Name) && o.Facts.Unknown.Why(f.Name) == ""
}

// Write writes the policy.
func (l *Learner) Write(o Options) *Policy {
	all := make([]*seen, 0, len(l.seen))
	for _, s := range l.seen {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *seen) int { return cmp.Compare(a.order, b.order) })
	// Where there is too much for one policy, it is told in fewer words.
	for d := fine; ; d++ {
		w := newWriter(l, o, d)
		if !w.rules(all) {
			continue
		}
		p := w.policy()
		if d == least || w.fits(p) {
			return p
		}
	}
}

// detail is how much of what was seen the rules tell.
type detail int

const (
	fine   detail = iota // rules for each type
	coarse               // a rule for each command
	shared               // and one list for each fact
	least                // and no list
)

// Smallest is the rule, as YAML, that allows the operation, and others only if they are
// alike in all that a rule should be about.
func Smallest(f *facts.Facts, cut facts.Set) string {
	w := newWriter(New(), Options{NoLimits: true}, fine)
	w.exact = true
	s := &seen{Operation{Facts: *f, Cut: cut, Verdict: policy.Allow, Outcome: "ok"}, 1, 0}
	r := w.rule([]*seen{s})
	r.name = strings.TrimSuffix("allow-"+clean(f.Command)+"-"+clean(f.Kind()), "-")
	r.commands = []string{clean(f.Command)}
	var b strings.Builder
	w.writeRule(&b, r, "")
	return b.String()
}

// maxGroups is of how many kinds of operations rules are made, before they are merged.
const maxGroups = 1024

// rules makes the rules. False: they are too many.
func (w *writer) rules(all []*seen) bool {
	var worked, refused, impossible []*seen
	for _, s := range all {
		switch {
		case !allowable(&s.Facts):
			impossible = append(impossible, s)
		case s.Outcome == "ok" || s.Outcome == "gone" || s.Verdict == policy.Native:
			worked = append(worked, s)
		default:
			if f := untold(&s.Operation); f != nil {
				w.left += s.count
				// To allow it would be to allow whatever isn't known, for nothing.
				w.note("%s %s, which the kernel refused with %s, isn't in here: %s isn't known: %s", s.Facts.Command, quote(s.Facts.Kind()),
					quote(s.Outcome), f.Name, quote(shorter(s.Facts.Unknown.Why(f.Name), 100)))
				continue
			}
			refused = append(refused, s)
		}
	}
	told := slices.Concat(worked, refused)
	w.list = w.grouped(worked)
	// What the kernel has refused is part of what the program does, such as finding out
	// what the kernel has. It is kept apart from what worked, so that this isn't widened.
	refused = slices.DeleteFunc(refused, func(s *seen) bool {
		for _, r := range w.list {
			if r.verdict == s.Verdict && r.matches(&s.Operation) {
				r.add(s)
				return true
			}
		}
		return false
	})
	more := w.grouped(refused)
	for _, r := range more {
		r.refused = true
	}
	w.list = append(append(w.list, more...), w.impossible(impossible)...)
	if len(w.list) > maxGroups {
		return false
	}
	told = slices.DeleteFunc(told, func(s *seen) bool { return whole(&s.Operation) })
	for again := true; again; {
		w.list = merged(w.list)
		w.sort()
		w.prune()
		if len(w.list) > 2*maxRules {
			return false // it won't be half of that
		}
		again = false
		for _, s := range told {
			again = w.settle(&s.Operation) || again
		}
	}
	return true
}

// whole says whether all that rules speak of is known of the operation.
func whole(o *Operation) bool {
	for i := range facts.Table {
		f := &facts.Table[i]
		if (bounds[f.Name] != 0 || f.Name == "prog.digest") && f.Has(o.Facts.Command) && !known(o, f) {
			return false
		}
	}
	return true
}

// untold is a fact of the operation that isn't known, though a rule would ask for it and
// can't name the program by its digest, or the interface by its number, instead; nil for
// none.
func untold(o *Operation) *facts.Fact {
	pinned := o.Facts.Prog.Digest != "" && known(o, facts.Find("prog.digest"))
	for i := range facts.Table {
		f := &facts.Table[i]
		switch {
		case bounds[f.Name] == 0, !f.Has(o.Facts.Command), known(o, f), never(o.Facts.Command, f):
		case pinned && strings.HasPrefix(f.Name, "prog."):
		case f.Name == "attach.ifname" && o.Facts.Attach.Ifindex != 0: // it has a number
		default:
			return f
		}
	}
	return nil
}

// sort brings the rules into their order: by command; those that ask for digests, which
// may not be known, behind those that don't; what has no condition behind what has, as
// nothing is asked behind it; and what was left to the kernel last.
func (w *writer) sort() {
	order := map[string]int{}
	for i, c := range policy.Commands() {
		order[c] = i
	}
	last := func(r *rule) int {
		switch {
		case r.verdict == policy.Native && len(r.conds) == 0:
			return 5
		case r.verdict == policy.Native:
			return 4
		case len(r.conds) == 0:
			return 3
		case r.verdict == policy.Deny:
			return 2
		case r.reads("prog.digest"):
			return 1
		case r.reads("attach.ifindex"): // of what interface's name isn't known
			return -1
		}
		return 0
	}
	slices.SortStableFunc(w.list, func(a, b *rule) int {
		return cmp.Or(cmp.Compare(last(a), last(b)), cmp.Compare(order[a.commands[0]], order[b.commands[0]]), strings.Compare(a.text(), b.text()))
	})
}

// settle sees to it that an operation of which facts aren't known is decided: a rule that
// asks for such a fact can't be, and none behind it is tried. It returns whether it had to
// change a rule.
func (w *writer) settle(o *Operation) bool {
	digest := facts.Find("prog.digest")
	for _, r := range w.list {
		if !slices.Contains(r.commands, o.Facts.Command) {
			continue
		}
		var open []*cond
		if slices.ContainsFunc(r.conds, func(c *cond) bool {
			if c.holds(o) {
				return false
			}
			if known(o, c.fact) && (len(c.digests) == 0 || known(o, digest)) {
				return true
			}
			open = append(open, c)
			return false
		}) {
			continue
		}
		if len(open) > 0 && r.verdict == policy.Deny {
			w.unknown(o, open[0].fact)
			w.list = slices.DeleteFunc(w.list, func(x *rule) bool { return x == r })
			return true
		}
		for _, c := range open {
			if d := o.Facts.Prog.Digest; d != "" && known(o, digest) && strings.HasPrefix(c.fact.Name, "prog.") && len(c.digests) < maxDigests {
				c.digests, c.said = distinct(append(c.digests, d)), ""
				continue
			}
			w.unknown(o, c.fact)
			r.conds = slices.DeleteFunc(r.conds, func(x *cond) bool { return x == c })
		}
		return len(open) > 0
	}
	return false
}

// prune takes out what never decides, as another rule has by then.
func (w *writer) prune() {
	decided := map[string]bool{}
	w.list = slices.DeleteFunc(w.list, func(r *rule) bool {
		text := r.text()
		r.commands = slices.DeleteFunc(r.commands, func(c string) bool {
			key := c + "\n" + text
			was := decided[key] || decided[c+"\n"]
			decided[key] = true
			return was
		})
		return len(r.commands) == 0
	})
}

// grouped makes rules of operations that are alike.
func (w *writer) grouped(all []*seen) []*rule {
	groups := map[string][]*seen{}
	for _, s := range all {
		k := w.group(s)
		groups[k] = append(groups[k], s)
	}
	var list []*rule
	for _, k := range slices.Sorted(maps.Keys(groups)) {
		list = append(list, w.rule(groups[k]))
	}
	if len(list) > maxGroups {
		return list // merging takes time, and they won't be written
	}
	return merged(list)
}

// kinds are the facts by which operations of a command are told apart.
var kinds = []string{"map.type", "prog.type", "prog.attach_type", "attach.type", "perf_event.type", "object.kind"}

// group is the same for what is alike.
func (w *writer) group(s *seen) string {
	parts := []string{s.Facts.Command, s.Verdict.String()}
	if w.detail == fine {
		for _, k := range kinds {
			f := facts.Find(k)
			v := "?"
			if known(&s.Operation, f) {
				v = "=" + *f.At(&s.Facts).(*string)
			}
			parts = append(parts, v)
		}
		// Without a program, or an interface, it is a look at what the kernel says to that.
		ifname := facts.Find("attach.ifname")
		parts = append(parts, fmt.Sprint(s.Facts.Attach.ProgType == "", known(&s.Operation, ifname)))
		if w.o.Digests {
			parts = append(parts, fmt.Sprint(known(&s.Operation, facts.Find("prog.digest"))))
		}
		// A cgroup of its own is one thing, another's another.
		inside := facts.Find("attach.cgroup_inside")
		parts = append(parts, fmt.Sprint(known(&s.Operation, inside) && s.Facts.Attach.CgroupInside))
	}
	return fmt.Sprintf("%q", parts)
}

// merged makes one rule of those that differ only in one of the kinds, or in the command.
func merged(list []*rule) []*rule {
	for _, fact := range append([]string{"prog.attach_type"}, append(kinds, "")...) { // programs' types last
		var out []*rule
		byRest := map[string]*rule{}
		for _, r := range list {
			rest := r.but(fact)
			if into := byRest[rest]; into != nil && into.join(r, fact) {
				continue
			}
			if byRest[rest] == nil {
				byRest[rest] = r
			}
			out = append(out, r)
		}
		list = out
	}
	return list
}

// allowable says whether a rule can allow it: types that bpfbroker doesn't know are within
// no ceiling.
func allowable(f *facts.Facts) bool {
	switch f.Command {
	case "map_create":
		return names.Of("map.type").Has(f.Map.Type)
	case "prog_load":
		return names.Of("prog.type").Has(f.Prog.Type) && names.Of("prog.attach_type").Has(f.Prog.AttachType)
	}
	return true
}

// impossible makes rules that answer as the kernel has: a program that looks whether there
// is a type finds that there isn't.
func (w *writer) impossible(all []*seen) []*rule {
	groups := map[string][]*seen{}
	for _, s := range all {
		if errnos[s.Outcome] && w.detail == fine {
			key := w.group(s) + s.Outcome
			groups[key] = append(groups[key], s)
			continue
		}
		w.left += s.count
		w.note("%s %s came out as %s: no rule can allow a type that bpfbroker doesn't know", s.Facts.Command, quote(s.Facts.Kind()), quote(s.Outcome))
	}
	var list []*rule
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		group := groups[key]
		r := &rule{commands: []string{group[0].Facts.Command}, verdict: policy.Deny, errno: group[0].Outcome}
		for _, kind := range kinds {
			if f := facts.Find(kind); f.Has(r.commands[0]) {
				r.conds = append(r.conds, w.names(f, values(group, f)))
			}
		}
		if slices.Contains(r.conds, nil) {
			continue // that has been noted
		}
		for _, s := range group {
			r.add(s)
		}
		list = append(list, r)
	}
	return merged(list)
}

// errnos are those that a denial may say.
var errnos = map[string]bool{"EPERM": true, "ENOENT": true, "E2BIG": true, "ENOMEM": true, "EACCES": true, "EBUSY": true, "ENODEV": true,
	"EINVAL": true, "ENOSPC": true, "ENOSYS": true, "EOPNOTSUPP": true}
