package expr

import (
	"fmt"
	"math"

	"github.com/bpfbroker/bpfbroker/facts"
)

// Numbers, strings, and strings by name.

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
		return twoStrings(a, b, func(x, y string) string { return x + y }), err
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

// twoStrings is what f makes of two strings. It costs by their lengths.
func twoStrings[T any](a, b fn[string], f func(x, y string) T) fn[T] {
	return func(fr *Frame) (v T, fault *Fault) {
		x, fault := a(fr)
		if fault != nil {
			return v, fault
		}
		y, fault := b(fr)
		if fault != nil {
			return v, fault
		}
		if !fr.take((len(x) + len(y)) / 16) {
			return v, tooLong
		}
		return f(x, y), nil
	}
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
