package expr

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/bpfbroker/bpfbroker/facts"
)

// Conditions.

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
		return twoStrings(a, b, test), err
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
