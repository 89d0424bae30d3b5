package expr

import (
	"slices"
	"strings"

	"github.com/bpfbroker/bpfbroker/facts"
)

// Assume is what is taken for known of an operation; all else is open.
type Assume struct {
	Is  map[string]string // the value of a fact
	Has map[string]string // an element of a fact that is a list
}

// Outcome is what can be said of a condition when not everything is known.
type Outcome uint8

const (
	Open   Outcome = iota
	Always         // it holds, or can't be evaluated
	Never          // it doesn't hold, or can't be evaluated
)

func outcome(b bool) Outcome {
	if b {
		return Always
	}
	return Never
}

func (o Outcome) not() Outcome {
	switch o {
	case Always:
		return Never
	case Never:
		return Always
	}
	return Open
}

// Given says what becomes of the condition under assumptions. Never is sound: no operation
// that meets the assumptions meets the condition. So is Always, unless a fact isn't known.
func (c *Cond) Given(a Assume) Outcome {
	g := &given{Assume: a, vars: c.set.nodes, memo: make([]*Outcome, len(c.set.nodes))}
	return g.bools(c.Node)
}

type given struct {
	Assume
	vars  []*Node
	memo  []*Outcome // of variables that are conditions
	loops [MaxDepth]*string
}

func (g *given) bools(n *Node) Outcome {
	switch n.Op {
	case Const:
		return outcome(n.Int != 0)
	case Var:
		if g.memo[n.Int] == nil {
			o := g.bools(g.vars[n.Int])
			g.memo[n.Int] = &o
		}
		return *g.memo[n.Int]
	case Not:
		return g.bools(n.Args[0]).not()
	case And, Or:
		settles := outcome(n.Op == Or)
		all := settles.not()
		for _, a := range n.Args {
			switch g.bools(a) {
			case settles:
				return settles
			case Open:
				all = Open
			}
		}
		return all
	case If:
		switch g.bools(n.Args[0]) {
		case Always:
			return g.bools(n.Args[1])
		case Never:
			return g.bools(n.Args[2])
		}
		if a, b := g.bools(n.Args[1]), g.bools(n.Args[2]); a == b {
			return a
		}
	case Eq, Ne:
		if x, ok := g.str(n.Args[0]); ok {
			if y, ok := g.str(n.Args[1]); ok {
				return outcome((x == y) == (n.Op == Eq))
			}
		}
		if g.filled(n.Args[0]) && empty(n.Args[1]) || g.filled(n.Args[1]) && empty(n.Args[0]) {
			return outcome(n.Op == Ne)
		}
	case Gt:
		if g.filled(n.Args[0]) && empty(n.Args[1]) {
			return Always
		}
	case In:
		return g.in(n)
	case Starts, Ends, Contains:
		x, ok := g.str(n.Args[0])
		y, ok2 := g.str(n.Args[1])
		if ok && ok2 {
			switch n.Op {
			case Starts:
				return outcome(strings.HasPrefix(x, y))
			case Ends:
				return outcome(strings.HasSuffix(x, y))
			}
			return outcome(strings.Contains(x, y))
		}
	case All, Exists:
		// One element that is known to be there can settle it.
		l := n.Args[0]
		if l.Op != Fact || l.Type != facts.Strings {
			return Open
		}
		v, ok := g.Has[l.Name]
		if !ok {
			return Open
		}
		g.loops[n.Int] = &v
		o := g.bools(n.Args[1])
		g.loops[n.Int] = nil
		if o == outcome(n.Op == Exists) {
			return o
		}
	}
	return Open
}

// filled says that a list has an element for certain; it, or its size.
func (g *given) filled(n *Node) bool {
	if n.Op == Size {
		n = n.Args[0]
	}
	_, ok := g.Has[n.Name]
	return n.Op == Fact && ok
}

// empty is an empty list, or its size.
func empty(n *Node) bool {
	return n.Op == Const && (n.Type == facts.Int && n.Int == 0 || n.Type == facts.Strings && len(n.Strs) == 0)
}

func (g *given) in(n *Node) Outcome {
	x, ok := g.str(n.Args[0])
	if !ok {
		return Open
	}
	l := n.Args[1]
	if l.Op == Var {
		l = g.vars[l.Int]
	}
	switch {
	case l.Op == Const && l.Type == facts.Strings:
		return outcome(slices.Contains(l.Strs, x))
	case l.Op == Fact && l.Type == facts.Strings:
		if v, ok := g.Has[l.Name]; ok && v == x {
			return Always
		}
	}
	return Open
}

// str is what a string is, where it is known.
func (g *given) str(n *Node) (string, bool) {
	switch n.Op {
	case Const:
		return n.Str, n.Type == facts.String
	case Fact:
		v, ok := g.Is[n.Name]
		return v, ok
	case Loop:
		if v := g.loops[n.Int]; v != nil {
			return *v, true
		}
	case Var:
		// Only those that are a fact by another name: more would have to be remembered.
		if v := g.vars[n.Int]; v.Op == Fact || v.Op == Const {
			return g.str(v)
		}
	}
	return "", false
}
