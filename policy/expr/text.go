package expr

import (
	"strconv"
	"strings"

	"github.com/bpfbroker/bpfbroker/facts"
)

// How tightly operators bind, loosest first.
var binds = map[Op]int{If: 1, Or: 2, And: 3, Eq: 4, Ne: 4, Lt: 4, Le: 4, Gt: 4, Ge: 4, In: 4, Add: 5, Sub: 5, Mul: 6, Div: 6, Mod: 6, Not: 7, Neg: 7}

// String is the expression as CEL, whole.
func (n *Node) String() string {
	var b strings.Builder
	n.write(&b, 0, 0)
	return b.String()
}

// Short is the expression as CEL for messages: long lists are cut.
func (n *Node) Short() string {
	var b strings.Builder
	n.write(&b, 0, 4)
	return cut(b.String(), 200)
}

// cut shortens what may be of any length.
func cut(s string, max int) string {
	if len(s) <= max {
		return s
	}
	return strings.ToValidUTF8(s[:max], "") + "…"
}

func (n *Node) write(b *strings.Builder, outer, most int) {
	bind := binds[n.Op]
	if bind > 0 && bind <= outer {
		b.WriteByte('(')
		defer b.WriteByte(')')
	}
	arg := func(i, outer int) { n.Args[i].write(b, outer, most) }
	args := func(from int) {
		b.WriteByte('(')
		for i := from; i < len(n.Args); i++ {
			if i > from {
				b.WriteString(", ")
			}
			arg(i, 0)
		}
		b.WriteByte(')')
	}
	switch n.Op {
	case Const:
		if n.Name != "" {
			b.WriteString(n.Name)
			return
		}
		b.WriteString(show(n.value(), most))
	case Fact, Var, Loop:
		b.WriteString(n.Name)
	case List:
		b.WriteByte('[')
		for i := range n.Args {
			if i > 0 {
				b.WriteString(", ")
			}
			arg(i, 0)
		}
		b.WriteByte(']')
	case And, Or:
		for i := range n.Args {
			if i > 0 {
				b.WriteString(" " + string(n.Op) + " ")
			}
			arg(i, bind)
		}
	case Not:
		b.WriteByte('!')
		arg(0, bind-1)
	case Neg:
		b.WriteByte('-')
		arg(0, bind)
	case If:
		arg(0, bind)
		b.WriteString(" ? ")
		arg(1, bind)
		b.WriteString(" : ")
		arg(2, bind-1)
	case Eq, Ne, Lt, Le, Gt, Ge, In, Add, Sub, Mul, Div, Mod:
		arg(0, bind-1)
		b.WriteString(" " + string(n.Op) + " ")
		arg(1, bind)
	case Size, Starts, Ends, Contains, Matches:
		arg(0, 8)
		b.WriteString("." + string(n.Op))
		args(1)
	case Index:
		arg(0, 8)
		b.WriteByte('[')
		arg(1, 0)
		b.WriteByte(']')
	case Has:
		arg(1, 0)
		b.WriteString(" in ")
		arg(0, 8)
	case All, Exists, ExistsOne, Filter, Map:
		arg(0, 8)
		b.WriteString("." + string(n.Op) + "(" + n.Name)
		for i := 1; i < len(n.Args); i++ {
			b.WriteString(", ")
			arg(i, 0)
		}
		b.WriteByte(')')
	}
}

// value is a constant's.
func (n *Node) value() any {
	switch n.Type {
	case facts.Bool:
		return n.Int != 0
	case facts.Int:
		return n.Int
	case facts.String:
		return n.Str
	case facts.Ints:
		return n.Ints
	}
	return n.Strs
}

// show is a value as CEL; of a list, the first most elements (0: all).
func show(v any, most int) string {
	var parts []string
	n := 0
	switch v := v.(type) {
	case bool:
		return strconv.FormatBool(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case string:
		if most > 0 {
			v = cut(v, 100)
		}
		return strconv.Quote(v)
	case []string:
		n = len(v)
		for i, s := range v {
			if most > 0 && i == most {
				break
			}
			parts = append(parts, show(s, most))
		}
	case []int64:
		n = len(v)
		for i, x := range v {
			if most > 0 && i == most {
				break
			}
			parts = append(parts, show(x, most))
		}
	default:
		return "{…}" // texts: labels, of any size
	}
	if len(parts) < n {
		parts = append(parts, strconv.Itoa(n-len(parts))+" more")
	}
	return "[" + strings.Join(parts, ", ") + "]"
}
