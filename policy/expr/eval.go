package expr

import (
	"fmt"
	"sync"

	"github.com/bpfbroker/bpfbroker/facts"
)

// MaxSteps bounds what one decision may take: a step is a comparison, or 16 bytes that
// are looked at. It is some 5 ms.
const MaxSteps = 500_000

// Fault is why an expression has no value.
type Fault struct {
	Fact string // the fact that isn't known, "" if it isn't that
	Why  string
}

func (f *Fault) Error() string {
	if f.Fact != "" {
		return fmt.Sprintf("%s isn't known: %s", f.Fact, f.Why)
	}
	return f.Why
}

var tooLong = &Fault{Why: fmt.Sprintf("the conditions take more than %d steps", MaxSteps)}

// Set is a policy's variables, which its conditions share.
type Set struct {
	nodes []*Node
	vars  []any   // the evaluator of each: fn[bool], …
	conds []*Cond // those that are conditions: for explanations
	pool  sync.Pool
}

// NewSet makes variables ready. Each may speak of those before it.
func NewSet(vars []*Node) (*Set, error) {
	s := &Set{}
	for i, n := range vars {
		if err := n.check(vars[:i], nil); err != nil {
			return nil, err
		}
		f, err := s.compile(n)
		if err != nil {
			return nil, err
		}
		var c *Cond
		if n.Type == facts.Bool {
			if c, err = s.cond(n); err != nil {
				return nil, err
			}
		}
		s.nodes, s.vars, s.conds = append(s.nodes, n), append(s.vars, f), append(s.conds, c)
	}
	s.pool.New = func() any { return &Frame{vars: make([]memo, len(s.vars))} }
	return s, nil
}

// Frame is what one decision has found out so far.
type Frame struct {
	facts *facts.Facts
	vars  []memo
	loops [MaxDepth]struct {
		s string
		n int64
	}
	steps int
}

// memo is a variable's value, found once.
type memo struct {
	done  bool
	fault *Fault
	n     int64 // also of a bool
	s     string
	ss    []string
	ns    []int64
	texts map[string]string
}

// Begin begins a decision about the facts.
func (s *Set) Begin(f *facts.Facts) *Frame {
	fr := s.pool.Get().(*Frame)
	fr.facts, fr.steps = f, MaxSteps
	return fr
}

// Renew gives the frame its steps again: to explain what was decided.
func (fr *Frame) Renew() { fr.steps = MaxSteps }

// End ends it: the frame must not be used again.
func (s *Set) End(fr *Frame) {
	clear(fr.vars)
	fr.facts = nil
	clear(fr.loops[:])
	s.pool.Put(fr)
}

// take takes steps, and says whether there were as many left.
func (fr *Frame) take(n int) bool {
	fr.steps -= n + 1
	return fr.steps >= 0
}

// Cond is a condition that is ready to be evaluated.
type Cond struct {
	set  *Set
	Node *Node
	fn   fn[bool]
	kids []*Cond // of And, Or, Not: for explanations
}

// Cond makes a condition ready.
func (s *Set) Cond(n *Node) (*Cond, error) {
	if err := n.check(s.nodes, nil); err != nil {
		return nil, err
	}
	if n.Type != facts.Bool {
		return nil, fmt.Errorf("condition has the type %v", n.Type)
	}
	return s.cond(n)
}

func (s *Set) cond(n *Node) (*Cond, error) {
	c := &Cond{set: s, Node: n}
	var err error
	if c.fn, err = s.bools(n); err != nil {
		return nil, err
	}
	if n.Op == And || n.Op == Or || n.Op == Not {
		for _, a := range n.Args {
			k, err := s.cond(a)
			if err != nil {
				return nil, err
			}
			c.kids = append(c.kids, k)
		}
	}
	return c, nil
}

// Holds evaluates the condition.
func (c *Cond) Holds(fr *Frame) (bool, *Fault) { return c.fn(fr) }

// Fold returns the constant that a variable without facts is, or the node itself. The
// fault of evaluating it is a mistake in the policy.
func (s *Set) Fold(n *Node) (*Node, error) {
	fixed := n.Op != Const
	n.Walk(func(n *Node) { fixed = fixed && n.Op != Fact && n.Op != Var })
	if !fixed || n.Type == facts.Texts {
		return n, nil
	}
	if err := n.check(nil, nil); err != nil {
		return nil, err
	}
	f, err := s.compile(n)
	if err != nil {
		return nil, err
	}
	fr := &Frame{facts: &facts.Facts{}, steps: MaxSteps}
	out := &Node{Op: Const, Type: n.Type, Line: n.Line}
	var fault *Fault
	switch f := f.(type) {
	case fn[bool]:
		var b bool
		b, fault = f(fr)
		out.Int = Bool(b).Int
	case fn[int64]:
		out.Int, fault = f(fr)
	case fn[string]:
		out.Str, fault = f(fr)
	case fn[[]int64]:
		out.Ints, fault = f(fr)
	case fn[[]string]:
		out.Strs, fault = f(fr)
	}
	if fault != nil {
		return nil, fault
	}
	return out, nil
}

// fn evaluates an expression of a type.
type fn[T any] func(*Frame) (T, *Fault)

func (s *Set) compile(n *Node) (any, error) {
	switch n.Type {
	case facts.Bool:
		return s.bools(n)
	case facts.Int:
		return s.ints(n)
	case facts.String:
		return s.strs(n)
	case facts.Ints:
		return list(s, n, s.ints)
	case facts.Strings:
		return list(s, n, s.strs)
	}
	return s.texts(n)
}

func constant[T any](v T) fn[T] { return func(*Frame) (T, *Fault) { return v, nil } }

func fact[T any](name string) fn[T] {
	at := facts.Find(name).At
	return func(fr *Frame) (T, *Fault) {
		if len(fr.facts.Unknown) > 0 {
			if why := fr.facts.Unknown.Why(name); why != "" {
				var none T
				return none, &Fault{Fact: name, Why: why}
			}
		}
		return *at(fr.facts).(*T), nil
	}
}

// variable evaluates a variable, once a decision. at finds where a memo has a T.
func variable[T any](s *Set, i int64, at func(*memo) *T) fn[T] {
	f := s.vars[i].(fn[T])
	return func(fr *Frame) (T, *Fault) {
		m := &fr.vars[i]
		if !m.done {
			var v T
			v, m.fault = f(fr)
			*at(m), m.done = v, true
		}
		return *at(m), m.fault
	}
}

func choice[T any](cond fn[bool], a, b fn[T]) fn[T] {
	return func(fr *Frame) (T, *Fault) {
		c, fault := cond(fr)
		if fault != nil {
			var none T
			return none, fault
		}
		if c {
			return a(fr)
		}
		return b(fr)
	}
}

// two evaluates both arguments, then f.
func two[A, B, T any](a fn[A], b fn[B], f func(A, B) (T, *Fault)) fn[T] {
	return func(fr *Frame) (T, *Fault) {
		x, fault := a(fr)
		if fault != nil {
			var none T
			return none, fault
		}
		y, fault := b(fr)
		if fault != nil {
			var none T
			return none, fault
		}
		return f(x, y)
	}
}

// both makes the evaluators of two arguments.
func both[A, B any](n *Node, a func(*Node) (fn[A], error), b func(*Node) (fn[B], error)) (fn[A], fn[B], error) {
	x, err := a(n.Args[0])
	if err != nil {
		return nil, nil, err
	}
	y, err := b(n.Args[1])
	return x, y, err
}

func ifs[T any](s *Set, n *Node, f func(*Node) (fn[T], error)) (fn[T], error) {
	c, err := s.bools(n.Args[0])
	if err != nil {
		return nil, err
	}
	a, err := f(n.Args[1])
	if err != nil {
		return nil, err
	}
	b, err := f(n.Args[2])
	return choice(c, a, b), err
}
