package expr

import (
	"fmt"
	"strings"

	"github.com/bpfbroker/bpfbroker/facts"
)

// Failed is the comparison for which a condition doesn't hold.
type Failed struct {
	Line int // in the policy's file
	Met  int // how many comparisons before it held: by that, the rule is found that came nearest

	leaf    *Node
	negated bool // it holds, and shouldn't
}

// Failed finds it.
func (c *Cond) Failed(fr *Frame) Failed { return c.failed(fr, false) }

// failed finds why the condition has the other value than wanted.
func (c *Cond) failed(fr *Frame, negated bool) Failed {
	n, met := c.Node, 0
	switch {
	case n.Op == Not:
		return c.kids[0].failed(fr, !negated)
	case n.Op == And && !negated, n.Op == Or && negated:
		// The first that isn't as wanted is enough.
		for _, k := range c.kids {
			v, fault := k.Holds(fr)
			if fault != nil {
				continue
			}
			if v == negated {
				f := k.failed(fr, negated)
				f.Met += met
				return f
			}
			met++
		}
	case n.Op == Or, n.Op == And:
		// None is as wanted; the one that came nearest is told.
		best := Failed{Met: -1}
		for _, k := range c.kids {
			if f := k.failed(fr, negated); f.Met > best.Met {
				best = f
			}
		}
		return best
	case n.Op == Var:
		if k := c.set.conds[n.Int]; k != nil {
			return k.failed(fr, negated)
		}
	}
	return Failed{Line: n.Line, Met: met, leaf: n, negated: negated}
}

// Why says in a few words why the condition doesn't hold: the comparison that failed, and
// what was compared.
func (c *Cond) Why(f Failed, fr *Frame) string { return c.set.leaf(f.leaf, fr, f.negated) }

// leaf explains a condition that has no conditions in it.
func (s *Set) leaf(n *Node, fr *Frame, negated bool) string {
	verb := "isn't"
	if negated {
		verb = "is"
	}
	switch n.Op {
	case Fact:
		return fmt.Sprintf("%s is %v", n.Name, negated)
	case Eq, Ne, Lt, Le, Gt, Ge, In:
		l, r := n.Args[0], n.Args[1]
		if l.Op == Const && r.Op != Const && n.Op != In {
			return fmt.Sprintf("%s is %s, and %s %s true", r.Short(), s.show(r, fr), n.Short(), verb)
		}
		if l.Op == Const && n.Op == In {
			have := "hasn't"
			if negated {
				have = "has"
			}
			return fmt.Sprintf("%s %s %s", r.Short(), have, show(l.value(), 4))
		}
		op := map[Op]string{Eq: "", Ne: "other than ", In: "in ", Lt: "less than ", Le: "at most ", Gt: "more than ", Ge: "at least "}[n.Op]
		not := "not " + op
		if n.Op == Ne && !negated {
			return fmt.Sprintf("%s is %s", l.Short(), s.show(l, fr))
		}
		if negated {
			not = op
			if n.Op == Eq {
				return fmt.Sprintf("%s is %s", l.Short(), s.show(l, fr))
			}
			not = "which is " + op
		}
		right := r.Short()
		if r.Op == Const {
			right = show(r.value(), 4)
		} else {
			right += " (" + s.show(r, fr) + ")"
		}
		return fmt.Sprintf("%s is %s, %s%s", l.Short(), s.show(l, fr), not, right)
	case All, Exists:
		if n.Op == Exists == negated {
			return s.element(n, fr, n.Op == Exists)
		}
	}
	return fmt.Sprintf("%s is %v%s", n.Short(), negated, s.Values(n, fr))
}

// element tells of a list the elements that made all() false, or exists() true.
func (s *Set) element(n *Node, fr *Frame, want bool) string {
	body, err := s.bools(n.Args[1])
	if err != nil {
		return n.Short()
	}
	var bad []string
	more := 0
	seen := func(text string, set func()) {
		set()
		if v, fault := body(fr); fault != nil || v != want {
			return
		}
		if len(bad) < 3 {
			bad = append(bad, text)
		} else {
			more++
		}
	}
	v, fault := s.eval(n.Args[0], fr)
	if fault != nil {
		return n.Short()
	}
	switch v := v.(type) {
	case []string:
		for _, x := range v {
			seen(show(x, 4), func() { each(fr, n.Int, x) })
		}
	case []int64:
		for _, x := range v {
			seen(show(x, 4), func() { each(fr, n.Int, x) })
		}
	}
	if more > 0 {
		bad = append(bad, fmt.Sprintf("%d more", more))
	}
	text := fmt.Sprintf("%s has %s", n.Args[0].Short(), strings.Join(bad, ", "))
	// The usual form is said in words.
	b := n.Args[1]
	not := "not "
	if want {
		not = ""
	}
	if b.Op == Not {
		b, not = b.Args[0], map[string]string{"not ": "", "": "not "}[not]
	}
	if b.Op == In && b.Args[0].Op == Loop {
		return text + ", " + not + "in " + b.Args[1].Short()
	}
	return fmt.Sprintf("%s, for which %s is %v", text, n.Args[1].Short(), want)
}

// eval evaluates any expression; for explanations, which may take their time.
func (s *Set) eval(n *Node, fr *Frame) (any, *Fault) {
	f, err := s.compile(n)
	if err != nil {
		return nil, &Fault{Why: err.Error()}
	}
	switch f := f.(type) {
	case fn[bool]:
		return f(fr)
	case fn[int64]:
		return f(fr)
	case fn[string]:
		return f(fr)
	case fn[[]int64]:
		return f(fr)
	case fn[[]string]:
		return f(fr)
	case fn[map[string]string]:
		return f(fr)
	}
	return nil, &Fault{Why: "no value"}
}

func (s *Set) show(n *Node, fr *Frame) string {
	v, fault := s.eval(n, fr)
	if fault != nil {
		return "not known"
	}
	return show(v, 4)
}

// Values lists the facts that an expression reads, with their values: ", where a is 1".
func (s *Set) Values(n *Node, fr *Frame) string {
	var out []string
	done := map[string]bool{}
	n.Walk(func(n *Node) {
		if n.Op != Fact || done[n.Name] || len(out) == 3 {
			return
		}
		done[n.Name] = true
		if n.Type != facts.Texts {
			out = append(out, n.Name+" is "+s.show(n, fr))
		}
	})
	if len(out) == 0 {
		return ""
	}
	return ", where " + strings.Join(out, ", ")
}
