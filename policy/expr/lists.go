package expr

import (
	"fmt"
	"slices"

	"github.com/bpfbroker/bpfbroker/facts"
)

// Lists, and the macros over them.

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
