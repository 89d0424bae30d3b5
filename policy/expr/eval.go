package expr

import (
	"cmp"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
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

func (s *Set) bools(n *Node) (fn[bool], error) {
	switch n.Op {
	case Const:
		return constant(n.Int != 0), nil
	case Fact:
		return fact[bool](n.Name), nil
	case Var:
		f := s.vars[n.Int].(fn[bool])
		i := n.Int
		return func(fr *Frame) (bool, *Fault) {
			m := &fr.vars[i]
			if !m.done {
				var b bool
				b, m.fault = f(fr)
				m.n, m.done = Bool(b).Int, true
			}
			return m.n != 0, m.fault
		}, nil
	case If:
		return ifs(s, n, s.bools)
	case Not:
		f, err := s.bools(n.Args[0])
		return func(fr *Frame) (bool, *Fault) {
			v, fault := f(fr)
			return !v && fault == nil, fault
		}, err
	case And, Or:
		fs := make([]fn[bool], len(n.Args))
		for i, a := range n.Args {
			var err error
			if fs[i], err = s.bools(a); err != nil {
				return nil, err
			}
		}
		// A fault doesn't matter where another argument settles it.
		settles := n.Op == Or
		return func(fr *Frame) (bool, *Fault) {
			var first *Fault
			for _, f := range fs {
				v, fault := f(fr)
				if fault == nil && v == settles {
					return settles, nil
				}
				if first == nil {
					first = fault
				}
			}
			return !settles && first == nil, first
		}, nil
	case Eq, Ne:
		return s.equal(n)
	case Lt, Le, Gt, Ge:
		return s.ordered(n)
	case In, Has:
		return s.in(n)
	case Starts, Ends, Contains:
		test := map[Op]func(string, string) bool{Starts: strings.HasPrefix, Ends: strings.HasSuffix, Contains: strings.Contains}[n.Op]
		a, b, err := both(n, s.strs, s.strs)
		return func(fr *Frame) (bool, *Fault) {
			x, fault := a(fr)
			if fault != nil {
				return false, fault
			}
			y, fault := b(fr)
			if fault != nil {
				return false, fault
			}
			if !fr.take((len(x) + len(y)) / 16) {
				return false, tooLong
			}
			return test(x, y), nil
		}, err
	case Matches:
		re, err := regexp.Compile(n.Args[1].Str)
		if err != nil {
			return nil, err
		}
		a, err := s.strs(n.Args[0])
		weight := len(n.Args[1].Str)
		return func(fr *Frame) (bool, *Fault) {
			x, fault := a(fr)
			if fault != nil {
				return false, fault
			}
			if !fr.take(len(x) * weight / 16) {
				return false, tooLong
			}
			return re.MatchString(x), nil
		}, err
	case All, Exists, ExistsOne:
		if n.Args[0].Type == facts.Strings {
			return quantified(s, n, s.strs)
		}
		return quantified(s, n, s.ints)
	}
	return nil, fmt.Errorf("no bool: %q", n.Op)
}

func (s *Set) equal(n *Node) (fn[bool], error) {
	ne := n.Op == Ne
	switch n.Args[0].Type {
	case facts.Bool:
		a, b, err := both(n, s.bools, s.bools)
		return two(a, b, func(x, y bool) (bool, *Fault) { return (x == y) != ne, nil }), err
	case facts.Int:
		a, b, err := both(n, s.ints, s.ints)
		return two(a, b, func(x, y int64) (bool, *Fault) { return (x == y) != ne, nil }), err
	case facts.String:
		a, b, err := both(n, s.strs, s.strs)
		return two(a, b, func(x, y string) (bool, *Fault) { return (x == y) != ne, nil }), err
	case facts.Ints:
		return lists(s, n, s.ints, ne)
	}
	return lists(s, n, s.strs, ne)
}

func lists[T comparable](s *Set, n *Node, elem func(*Node) (fn[T], error), ne bool) (fn[bool], error) {
	l := func(n *Node) (fn[[]T], error) { return list(s, n, elem) }
	a, b, err := both(n, l, l)
	return func(fr *Frame) (bool, *Fault) {
		x, fault := a(fr)
		if fault != nil {
			return false, fault
		}
		y, fault := b(fr)
		if fault != nil {
			return false, fault
		}
		if !fr.take(min(len(x), len(y))) {
			return false, tooLong
		}
		return slices.Equal(x, y) != ne, nil
	}, err
}

func (s *Set) ordered(n *Node) (fn[bool], error) {
	holds := map[Op]func(int) bool{
		Lt: func(c int) bool { return c < 0 }, Le: func(c int) bool { return c <= 0 },
		Gt: func(c int) bool { return c > 0 }, Ge: func(c int) bool { return c >= 0 },
	}[n.Op]
	if n.Args[0].Type == facts.Int {
		a, b, err := both(n, s.ints, s.ints)
		return two(a, b, func(x, y int64) (bool, *Fault) { return holds(cmp.Compare(x, y)), nil }), err
	}
	a, b, err := both(n, s.strs, s.strs)
	return two(a, b, func(x, y string) (bool, *Fault) { return holds(cmp.Compare(x, y)), nil }), err
}

func (s *Set) in(n *Node) (fn[bool], error) {
	if n.Op == Has {
		t, k, err := both(n, s.texts, s.strs)
		return two(t, k, func(t map[string]string, k string) (bool, *Fault) { _, ok := t[k]; return ok, nil }), err
	}
	switch n.Args[1].Type {
	case facts.Texts:
		k, t, err := both(n, s.strs, s.texts)
		return two(k, t, func(k string, t map[string]string) (bool, *Fault) { _, ok := t[k]; return ok, nil }), err
	case facts.Strings:
		return among(s, n, s.strs, n.Args[1].Strs)
	}
	return among(s, n, s.ints, n.Args[1].Ints)
}

// among says whether an element is in a list. Those of a constant list are looked up.
func among[T comparable](s *Set, n *Node, elem func(*Node) (fn[T], error), values []T) (fn[bool], error) {
	e, err := elem(n.Args[0])
	if err != nil {
		return nil, err
	}
	if n.Args[1].Op == Const {
		set := make(map[T]bool, len(values))
		for _, v := range values {
			set[v] = true
		}
		return func(fr *Frame) (bool, *Fault) {
			x, fault := e(fr)
			return fault == nil && set[x], fault
		}, nil
	}
	l, err := list(s, n.Args[1], elem)
	return func(fr *Frame) (bool, *Fault) {
		x, fault := e(fr)
		if fault != nil {
			return false, fault
		}
		all, fault := l(fr)
		if fault != nil {
			return false, fault
		}
		if !fr.take(len(all)) {
			return false, tooLong
		}
		return slices.Contains(all, x), nil
	}, err
}

// each sets the loop variable.
func each[T any](fr *Frame, depth int64, v T) {
	switch v := any(v).(type) {
	case string:
		fr.loops[depth].s = v
	case int64:
		fr.loops[depth].n = v
	}
}

func quantified[T any](s *Set, n *Node, elem func(*Node) (fn[T], error)) (fn[bool], error) {
	l, err := list(s, n.Args[0], elem)
	if err != nil {
		return nil, err
	}
	body, err := s.bools(n.Args[1])
	op, depth := n.Op, n.Int
	return func(fr *Frame) (bool, *Fault) {
		all, fault := l(fr)
		if fault != nil {
			return false, fault
		}
		var first *Fault
		count := 0
		for _, v := range all {
			if !fr.take(0) {
				return false, tooLong
			}
			each(fr, depth, v)
			b, fault := body(fr)
			switch {
			case fault != nil && op == ExistsOne:
				return false, fault
			case fault != nil:
				if first == nil {
					first = fault
				}
			case op == All && !b:
				return false, nil
			case op == Exists && b:
				return true, nil
			case b:
				count++
			}
		}
		if op == ExistsOne {
			return count == 1, nil
		}
		return op == All && first == nil, first
	}, err
}

func list[T any](s *Set, n *Node, elem func(*Node) (fn[T], error)) (fn[[]T], error) {
	self := func(n *Node) (fn[[]T], error) { return list(s, n, elem) }
	switch n.Op {
	case Const:
		v, _ := n.value().([]T)
		return constant(v), nil
	case Fact:
		return fact[[]T](n.Name), nil
	case Var:
		return variable(s, n.Int, func(m *memo) *[]T {
			if p, ok := any(&m.ss).(*[]T); ok {
				return p
			}
			return any(&m.ns).(*[]T)
		}), nil
	case If:
		return ifs(s, n, self)
	case List:
		fs := make([]fn[T], len(n.Args))
		for i, a := range n.Args {
			var err error
			if fs[i], err = elem(a); err != nil {
				return nil, err
			}
		}
		return func(fr *Frame) ([]T, *Fault) {
			if !fr.take(len(fs)) {
				return nil, tooLong
			}
			out := make([]T, len(fs))
			for i, f := range fs {
				var fault *Fault
				if out[i], fault = f(fr); fault != nil {
					return nil, fault
				}
			}
			return out, nil
		}, nil
	case Add:
		a, b, err := both(n, self, self)
		return func(fr *Frame) ([]T, *Fault) {
			x, fault := a(fr)
			if fault != nil {
				return nil, fault
			}
			y, fault := b(fr)
			if fault != nil {
				return nil, fault
			}
			if !fr.take(len(x) + len(y)) {
				return nil, tooLong
			}
			return slices.Concat(x, y), nil
		}, err
	case Filter:
		l, err := self(n.Args[0])
		if err != nil {
			return nil, err
		}
		body, err := s.bools(n.Args[1])
		return mapped[T, T](l, n.Int, body, nil), err
	case Map:
		if n.Args[0].Type == facts.Strings {
			return mapping(s, n, s.strs, elem)
		}
		return mapping(s, n, s.ints, elem)
	}
	return nil, fmt.Errorf("no list: %q", n.Op)
}

func mapping[F, T any](s *Set, n *Node, from func(*Node) (fn[F], error), to func(*Node) (fn[T], error)) (fn[[]T], error) {
	l, err := list(s, n.Args[0], from)
	if err != nil {
		return nil, err
	}
	var cond fn[bool]
	if len(n.Args) == 3 {
		if cond, err = s.bools(n.Args[1]); err != nil {
			return nil, err
		}
	}
	becomes, err := to(n.Args[len(n.Args)-1])
	return mapped(l, n.Int, cond, becomes), err
}

// mapped is a list of what elements become that meet a condition; nil: all, themselves.
func mapped[F, T any](l fn[[]F], depth int64, cond fn[bool], becomes fn[T]) fn[[]T] {
	return func(fr *Frame) ([]T, *Fault) {
		all, fault := l(fr)
		if fault != nil {
			return nil, fault
		}
		var out []T
		for _, v := range all {
			if !fr.take(0) {
				return nil, tooLong
			}
			each(fr, depth, v)
			if cond != nil {
				ok, fault := cond(fr)
				if fault != nil {
					return nil, fault
				}
				if !ok {
					continue
				}
			}
			if becomes == nil {
				out = append(out, any(v).(T))
				continue
			}
			w, fault := becomes(fr)
			if fault != nil {
				return nil, fault
			}
			out = append(out, w)
		}
		return out, nil
	}
}

func (s *Set) ints(n *Node) (fn[int64], error) {
	switch n.Op {
	case Const:
		return constant(n.Int), nil
	case Fact:
		return fact[int64](n.Name), nil
	case Var:
		return variable(s, n.Int, func(m *memo) *int64 { return &m.n }), nil
	case Loop:
		i := n.Int
		return func(fr *Frame) (int64, *Fault) { return fr.loops[i].n, nil }, nil
	case If:
		return ifs(s, n, s.ints)
	case Neg:
		a, err := s.ints(n.Args[0])
		return two(constant(int64(0)), a, calculate[Sub]), err
	case Add, Sub, Mul, Div, Mod:
		a, b, err := both(n, s.ints, s.ints)
		return two(a, b, calculate[n.Op]), err
	case Size:
		switch a := n.Args[0]; a.Type {
		case facts.String:
			f, err := s.strs(a)
			return func(fr *Frame) (int64, *Fault) {
				v, fault := f(fr)
				if fault == nil && !fr.take(len(v)/16) {
					fault = tooLong
				}
				return int64(len([]rune(v))), fault
			}, err
		case facts.Strings:
			f, err := list(s, a, s.strs)
			return length(f), err
		case facts.Ints:
			f, err := list(s, a, s.ints)
			return length(f), err
		default:
			f, err := s.texts(a)
			return func(fr *Frame) (int64, *Fault) {
				v, fault := f(fr)
				return int64(len(v)), fault
			}, err
		}
	case Index:
		return indexed(s, n, s.ints)
	}
	return nil, fmt.Errorf("no int: %q", n.Op)
}

func length[T any](f fn[[]T]) fn[int64] {
	return func(fr *Frame) (int64, *Fault) {
		v, fault := f(fr)
		return int64(len(v)), fault
	}
}

func indexed[T any](s *Set, n *Node, elem func(*Node) (fn[T], error)) (fn[T], error) {
	l, i, err := both(n, func(n *Node) (fn[[]T], error) { return list(s, n, elem) }, s.ints)
	return two(l, i, func(l []T, i int64) (T, *Fault) {
		if i < 0 || i >= int64(len(l)) {
			var none T
			return none, &Fault{Why: fmt.Sprintf("index %d of a list of %d", i, len(l))}
		}
		return l[i], nil
	}), err
}

var overflow = &Fault{Why: "an integer overflows"}

var calculate = map[Op]func(a, b int64) (int64, *Fault){
	Add: func(a, b int64) (int64, *Fault) {
		if c := a + b; (c > a) == (b > 0) {
			return c, nil
		}
		return 0, overflow
	},
	Sub: func(a, b int64) (int64, *Fault) {
		if c := a - b; (c < a) == (b > 0) {
			return c, nil
		}
		return 0, overflow
	},
	Mul: func(a, b int64) (int64, *Fault) {
		if a == 0 || b == 0 {
			return 0, nil
		}
		if c := a * b; c/b == a && !(a == -1 && b == math.MinInt64) && !(b == -1 && a == math.MinInt64) {
			return c, nil
		}
		return 0, overflow
	},
	Div: func(a, b int64) (int64, *Fault) {
		switch {
		case b == 0:
			return 0, &Fault{Why: "division by zero"}
		case a == math.MinInt64 && b == -1:
			return 0, overflow
		}
		return a / b, nil
	},
	Mod: func(a, b int64) (int64, *Fault) {
		switch {
		case b == 0:
			return 0, &Fault{Why: "modulus by zero"}
		case a == math.MinInt64 && b == -1:
			return 0, overflow
		}
		return a % b, nil
	},
}

func (s *Set) strs(n *Node) (fn[string], error) {
	switch n.Op {
	case Const:
		return constant(n.Str), nil
	case Fact:
		return fact[string](n.Name), nil
	case Var:
		return variable(s, n.Int, func(m *memo) *string { return &m.s }), nil
	case Loop:
		i := n.Int
		return func(fr *Frame) (string, *Fault) { return fr.loops[i].s, nil }, nil
	case If:
		return ifs(s, n, s.strs)
	case Add:
		a, b, err := both(n, s.strs, s.strs)
		return func(fr *Frame) (string, *Fault) {
			x, fault := a(fr)
			if fault != nil {
				return "", fault
			}
			y, fault := b(fr)
			if fault != nil {
				return "", fault
			}
			if !fr.take((len(x) + len(y)) / 16) {
				return "", tooLong
			}
			return x + y, nil
		}, err
	case Index:
		if n.Args[0].Type == facts.Texts {
			t, k, err := both(n, s.texts, s.strs)
			return two(t, k, func(t map[string]string, k string) (string, *Fault) {
				v, ok := t[k]
				if !ok {
					return "", &Fault{Why: fmt.Sprintf("there is no %s[%q]", n.Args[0].Short(), cut(k, 100))}
				}
				return v, nil
			}), err
		}
		return indexed(s, n, s.strs)
	}
	return nil, fmt.Errorf("no string: %q", n.Op)
}

func (s *Set) texts(n *Node) (fn[map[string]string], error) {
	switch n.Op {
	case Fact:
		return fact[map[string]string](n.Name), nil
	case Var:
		return variable(s, n.Int, func(m *memo) *map[string]string { return &m.texts }), nil
	case If:
		return ifs(s, n, s.texts)
	}
	return nil, fmt.Errorf("no texts: %q", n.Op)
}
