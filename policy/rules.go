package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bpfbroker/bpfbroker/abi"
	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/policy/expr"
)

// Spec is a policy document that has been read and checked: plain data. Package load
// makes it from YAML, New makes it a policy.
type Spec struct {
	Name        string     `json:"name"`
	Description string     `json:"description,omitempty"`
	File        string     `json:"file,omitempty"`
	Selector    Selector   `json:"selector,omitzero"`
	Variables   []Variable `json:"variables,omitempty"`
	Rules       []Rule     `json:"rules"`
	Limits      Limits     `json:"limits,omitzero"`
	Share       []Share    `json:"share,omitempty"`
}

// Selector says for which workloads a policy is. Empty lists are for all; of several,
// each must fit.
type Selector struct {
	Users   []string          `json:"users,omitempty"`
	Groups  []string          `json:"groups,omitempty"`
	Images  []string          `json:"images,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	Cgroups []string          `json:"cgroups,omitempty"`
}

// Variable is an expression with a name, for rules to share.
type Variable struct {
	Name string     `json:"name"`
	Expr *expr.Node `json:"expr"`
}

// Rule is one condition with its outcome.
type Rule struct {
	Name     string     `json:"name"`
	Line     int        `json:"line,omitempty"`
	Commands []string   `json:"commands,omitempty"` // nil: any
	When     *expr.Node `json:"when,omitempty"`     // nil: always
	Verdict  Verdict    `json:"verdict"`
	Errno    uint32     `json:"errno,omitempty"`
	Message  string     `json:"message,omitempty"`
	Limits   *Limits    `json:"limits,omitempty"`
	Expires  time.Time  `json:"expires,omitzero"`
	Audit    Audit      `json:"audit,omitempty"`
	Scope    Scope      `json:"scope,omitempty"` // of programs and perf events
	PIDs     Scope      `json:"pids,omitempty"`  // that those programs are told
}

// Share is an object beside its own that the workload may see: pinned at a path of the
// host's, or of an id.
type Share struct {
	Path  string `json:"path,omitempty"`
	Write bool   `json:"write,omitempty"` // of a pinned map
	Kind  string `json:"kind,omitempty"`  // of an id: "map", "prog", "link", "btf"
	ID    int64  `json:"id,omitempty"`
}

// String is how users know it.
func (s Share) String() string {
	if s.Path != "" {
		return s.Path
	}
	return fmt.Sprintf("the %s of id %d", s.Kind, s.ID)
}

// ToRead says whether it could be a map that is shared to be read alone.
func (s Share) ToRead() bool { return !s.Write && (s.Path != "" || s.Kind == "map") }

// Rules is a policy made of rules: the first that matches decides.
type Rules struct {
	spec    Spec
	source  []byte
	set     *expr.Set
	byName  map[string]*forCommand
	ceiling Ceiling
	counts  bool
	now     func() time.Time
}

// forCommand are the rules of one command, in order.
type forCommand struct {
	rules   []*rule
	needs   facts.Set
	expires bool // one of them does
}

type rule struct {
	*Rule
	cond     *expr.Cond // nil: always
	needs    facts.Set
	decision Decision // where the rule matches, and there is nothing more to say
	place    string   // ` (observe.yaml:12)`
}

// New makes a policy of a specification. It checks what it would stumble over, not what
// package load has checked.
func New(spec Spec) (*Rules, error) {
	r := &Rules{spec: spec, byName: map[string]*forCommand{}, now: time.Now}
	var vars []*expr.Node
	var varNeeds []facts.Set
	for _, v := range spec.Variables {
		if v.Expr == nil {
			return nil, fmt.Errorf("policy %q: variable %q is empty", spec.Name, v.Name)
		}
		vars, varNeeds = append(vars, v.Expr), append(varNeeds, v.Expr.Facts(varNeeds))
	}
	var err error
	if r.set, err = expr.NewSet(vars); err != nil {
		return nil, fmt.Errorf("policy %q: variables: %w", spec.Name, err)
	}
	for _, c := range Commands() {
		r.byName[c] = &forCommand{}
	}
	for i := range spec.Rules {
		if err := r.add(&spec.Rules[i], varNeeds); err != nil {
			return nil, fmt.Errorf("policy %q: rule %q: %w", spec.Name, spec.Rules[i].Name, err)
		}
	}
	r.ceiling = r.derive()
	r.counts = r.spec.Limits.counted() || slices.ContainsFunc(spec.Rules, func(r Rule) bool { return r.Limits.counted() })
	for _, f := range r.byName {
		r.counts = r.counts || f.needs.Any("counts.")
	}
	if r.counts {
		r.byName["map_create"].needs.Add("map.bytes") // to count it
	}
	return r, nil
}

// Commands are the names of all commands, as rules have them.
func Commands() []string {
	var out []string
	for _, row := range abi.Rows() {
		out = append(out, row.Name)
	}
	return out
}

func (r *Rules) add(spec *Rule, vars []facts.Set) error {
	if spec.Verdict > Native || spec.Audit > AuditNone || spec.Scope > ScopeWorkload || spec.PIDs > spec.Scope {
		return fmt.Errorf("verdict %d, audit %d, scope %d, pids %d", spec.Verdict, spec.Audit, spec.Scope, spec.PIDs)
	}
	c := &rule{Rule: spec, place: place(r.spec.File, spec.Line)}
	if spec.When != nil {
		var err error
		if c.cond, err = r.set.Cond(spec.When); err != nil {
			return err
		}
		c.needs = spec.When.Facts(vars)
	}
	verb := map[Verdict]string{Allow: allowsIt, Deny: " denies it", Native: " leaves it to the kernel"}[spec.Verdict]
	c.decision = Decision{Verdict: spec.Verdict, Cause: ByRule, Rule: spec.Name, Errno: spec.Errno, Audit: spec.Audit, Scope: spec.Scope, PIDs: spec.PIDs,
		Message: fmt.Sprintf("policy %q: rule %q%s%s", r.spec.Name, spec.Name, c.place, verb)}
	if spec.Verdict == Allow && (spec.Limits.counted() || r.spec.Limits.counted()) {
		c.decision.Limits, c.decision.All = spec.Limits, &r.spec.Limits
	}
	commands := spec.Commands
	if commands == nil {
		commands = Commands()
	}
	for _, name := range commands {
		f := r.byName[name]
		if f == nil {
			return fmt.Errorf("no command %q", name)
		}
		f.rules = append(f.rules, c)
		f.expires = f.expires || !spec.Expires.IsZero()
		f.needs.Union(c.needs)
		for _, l := range []*Limits{spec.Limits, &r.spec.Limits} {
			if l != nil && l.Insns > 0 && name == "prog_load" {
				f.needs.Add("prog.insns")
			}
		}
		if spec.Scope == ScopeWorkload {
			for _, fact := range scoped[name] {
				f.needs.Add(fact)
			}
		}
		// What the ceiling is made of is looked at in any case.
		switch name {
		case "map_create":
			f.needs.Add("map.type")
		case "prog_load":
			f.needs.Add("prog.type")
			f.needs.Add("prog.attach_type")
		}
	}
	return nil
}

// scoped are the commands that a scope is for, and what is looked at to see whether they
// can have it, beside what the ceiling is made of.
var scoped = map[string][]string{
	"prog_load":       {"prog.helpers", "prog.kfuncs"},
	"perf_event_open": nil,
}

// Scoped are the commands that a scope is for.
func Scoped() []string { return slices.Sorted(maps.Keys(scoped)) }

// allowsIt ends the message of a rule that allows an operation.
const allowsIt = " allows it"

func place(file string, line int) string {
	if file == "" || line == 0 {
		return ""
	}
	return fmt.Sprintf(" (%s:%d)", file, line)
}

func (r *Rules) Name() string     { return r.spec.Name }
func (r *Rules) Trusts() bool     { return false }
func (r *Rules) Counts() bool     { return r.counts }
func (r *Rules) Ceiling() Ceiling { return r.ceiling }

// Limits are those of the whole workload.
func (r *Rules) Limits() Limits { return r.spec.Limits }

// Spec is what the policy was made of; it must not be changed.
func (r *Rules) Spec() *Spec { return &r.spec }

// Source is the file's name and text, where the policy was read from one in this process.
func (r *Rules) Source() (file string, text []byte) { return r.spec.File, r.source }

// WithSource keeps the text that the policy was read from.
func (r *Rules) WithSource(text []byte) *Rules { r.source = text; return r }

// WithClock is the policy with another clock: rules that expire ask it. Without one, they
// ask the system's; nothing else in a policy depends on the time.
func (r *Rules) WithClock(now func() time.Time) *Rules {
	c := *r
	c.now = now
	return &c
}

// Recorded is the policy with all that it allows in the audit log, also where its rules
// say none.
func (r *Rules) Recorded() (*Rules, error) {
	spec := r.spec
	spec.Rules = slices.Clone(spec.Rules)
	for i := range spec.Rules {
		if u := &spec.Rules[i]; u.Audit == AuditNone {
			u.Audit = AuditSummary
		}
	}
	c, err := New(spec)
	if err != nil {
		return nil, err
	}
	c.now = r.now
	return c.WithSource(r.source), nil
}

// Needs are the facts that the rules for a command read.
func (r *Rules) Needs(command string) facts.Set {
	if f := r.byName[command]; f != nil {
		return f.needs
	}
	return facts.Set{}
}

// Decide tries the rules for the command, in order.
func (r *Rules) Decide(f *facts.Facts) Decision {
	c := r.byName[f.Command]
	if c == nil || len(c.rules) == 0 {
		return Decision{Message: fmt.Sprintf("policy %q: no rule is for %s", r.spec.Name, clip(f.Command))}
	}
	var now time.Time // one for the whole decision
	if c.expires {
		now = r.now()
	}
	fr := r.set.Begin(f)
	defer r.set.End(fr)
	for _, u := range c.rules {
		if u.expired(now) {
			continue
		}
		if u.cond != nil {
			holds, fault := u.cond.Holds(fr)
			if fault != nil {
				return r.fault(u, f, fault)
			}
			if !holds {
				continue
			}
		}
		return r.matched(u, f, fr)
	}
	return r.nearest(c, f, fr, now)
}

func (u *rule) expired(now time.Time) bool {
	return !u.Expires.IsZero() && !now.Before(u.Expires)
}

// matched is the decision of a rule that matches.
func (r *Rules) matched(u *rule, f *facts.Facts, fr *expr.Frame) Decision {
	d := u.decision
	if d.Verdict == Deny {
		d.Message = r.denied(u, f, fr)
		return d
	}
	if d.Verdict == Native {
		return d
	}
	if limit := r.insns(u); limit > 0 && f.Command == "prog_load" {
		d.Cause, d.Verdict = ByLimit, Deny
		if why := f.Unknown.Why("prog.insns"); why != "" {
			d.Cause, d.Message = ByError, fmt.Sprintf("policy %q: rule %q%s has a limit, and prog.insns isn't known: %s", r.spec.Name, u.Name, u.place, clip(why))
			return d
		}
		if f.Prog.Insns > limit {
			d.Message = fmt.Sprintf("policy %q: rule %q%s allows programs of %d instructions; prog.insns is %d", r.spec.Name, u.Name, u.place, limit, f.Prog.Insns)
			return d
		}
		d.Cause, d.Verdict = ByRule, Allow
	}
	if fact, value := r.outside(f); fact != "" {
		return Decision{Verdict: Deny, Cause: ByDefault, Audit: u.Audit,
			Message: fmt.Sprintf("policy %q: rule %q%s matches, but %s %s is none that bpfbroker knows", r.spec.Name, u.Name, u.place, fact, clip(value))}
	}
	return d
}

// insns is the smaller limit of the rule and the policy.
func (r *Rules) insns(u *rule) int64 {
	limit := r.spec.Limits.Insns
	if u.Limits != nil && u.Limits.Insns > 0 && (limit == 0 || u.Limits.Insns < limit) {
		limit = u.Limits.Insns
	}
	return limit
}

// outside says what of an allowed operation isn't in the ceiling. That can only be a type
// that the table doesn't know: a ceiling has names.
func (r *Rules) outside(f *facts.Facts) (fact, value string) {
	switch f.Command {
	case "map_create":
		if !r.ceiling.Maps.Has(f.Map.Type) {
			return "map.type", f.Map.Type
		}
	case "prog_load":
		if !r.ceiling.Progs.Has(f.Prog.Type) {
			return "prog.type", f.Prog.Type
		}
		if !r.ceiling.Attachs.Has(attachBit(f.Prog.AttachType)) {
			return "prog.attach_type", f.Prog.AttachType
		}
	}
	return "", ""
}

// clip shortens and quotes what may come from the workload.
func clip(s string) string {
	if len(s) > 100 {
		s = strings.ToValidUTF8(s[:100], "") + "…"
	}
	return fmt.Sprintf("%q", s)
}

// The explanations of denials. They may take longer than decisions.

func (r *Rules) fault(u *rule, f *facts.Facts, fault *expr.Fault) Decision {
	why := fault.Why
	if fault.Fact != "" {
		why = fmt.Sprintf("%s isn't known: %s", fault.Fact, clip(fault.Why))
	}
	return Decision{Verdict: Deny, Cause: ByError, Rule: u.Name, Audit: u.Audit,
		Message: fmt.Sprintf("policy %q: rule %q%s can't be decided for %s: %s", r.spec.Name, u.Name, u.place, f.Command, why)}
}

func (r *Rules) denied(u *rule, f *facts.Facts, fr *expr.Frame) string {
	var b strings.Builder
	fmt.Fprintf(&b, "policy %q: rule %q%s denies %s", r.spec.Name, u.Name, u.place, f.Command)
	if u.When != nil {
		fr.Renew()
		b.WriteString(r.set.Values(u.When, fr))
	}
	if u.Message != "" {
		b.WriteString(": " + u.Message)
	}
	return b.String()
}

// nearest is the denial by default: it names the rule that came nearest, which is the one
// of which most comparisons held, of several the first.
func (r *Rules) nearest(c *forCommand, f *facts.Facts, fr *expr.Frame, now time.Time) Decision {
	var best *rule
	nearest := expr.Failed{Met: -1}
	fr.Renew()
	for _, u := range c.rules {
		if u.Verdict == Deny {
			continue
		}
		failed := expr.Failed{Line: u.Line}
		if !u.expired(now) {
			failed = u.cond.Failed(fr)
		} else if u.cond != nil {
			if holds, fault := u.cond.Holds(fr); fault != nil || !holds {
				continue
			}
		}
		if failed.Met > nearest.Met {
			best, nearest = u, failed
		}
	}
	if best == nil {
		return Decision{Message: fmt.Sprintf("policy %q: no rule allows %s", r.spec.Name, f.Command)}
	}
	why := "it has expired"
	if !best.expired(now) {
		why = best.cond.Why(nearest, fr)
	}
	return Decision{Message: fmt.Sprintf("policy %q: no rule matches %s; nearest is %q%s: %s", r.spec.Name, f.Command, best.Name, place(r.spec.File, nearest.Line), why)}
}

// sorted returns the names in the order of the table.
func sorted(names map[string]bool, table *abi.Values) []string {
	var out []string
	for n := range names {
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b string) int {
		x, _ := table.Value(a)
		y, _ := table.Value(b)
		return int(x) - int(y)
	})
	return out
}
