// Package expr is what a policy's rules are conditional on: typed expressions over
// facts. Package load makes them from CEL; they are evaluated, shown and bounded here,
// without CEL, which would cost each of bpfbroker's processes 2 ms and 1 MiB, and a
// worker more. What they mean is what CEL says; a test of package load compares the two.
package expr

import (
	"errors"
	"fmt"

	"github.com/bpfbroker/bpfbroker/facts"
)

// Op is what a node does with its arguments.
type Op string

const (
	Const Op = "const" // Int (bool: 0 or 1), Str, Ints or Strs, by Type
	Fact  Op = "fact"  // Name
	Var   Op = "var"   // the policy's variable number Int
	Loop  Op = "loop"  // the element that the macro at depth Int is at
	List  Op = "list"  // its arguments

	And Op = "&&"
	Or  Op = "||"
	Not Op = "!"
	If  Op = "?:"

	Eq Op = "=="
	Ne Op = "!="
	Lt Op = "<"
	Le Op = "<="
	Gt Op = ">"
	Ge Op = ">="
	In Op = "in"

	Add Op = "+"
	Sub Op = "-"
	Mul Op = "*"
	Div Op = "/"
	Mod Op = "%"
	Neg Op = "neg"

	Size     Op = "size"
	Starts   Op = "startsWith"
	Ends     Op = "endsWith"
	Contains Op = "contains"
	Matches  Op = "matches" // its second argument is constant
	Index    Op = "[]"
	Has      Op = "has" // a key of texts

	// The macros: a list, and what is said of its element, which is the Loop of depth
	// Int. Filter and Map have a list for their value; Map has what an element becomes,
	// and before it a condition where there is one.
	All       Op = "all"
	Exists    Op = "exists"
	ExistsOne Op = "exists_one"
	Filter    Op = "filter"
	Map       Op = "map"
)

// MaxDepth is how deep macros may be nested.
const MaxDepth = 2

// Node is an expression.
type Node struct {
	Op   Op         `json:"op"`
	Type facts.Type `json:"type"`
	// Name is the fact's, the loop variable's (of macros too), the policy's variable's;
	// of a constant, the variable that it was written as.
	Name string   `json:"name,omitempty"`
	Int  int64    `json:"int,omitempty"`
	Str  string   `json:"str,omitempty"`
	Ints []int64  `json:"ints,omitempty"`
	Strs []string `json:"strs,omitempty"`
	Args []*Node  `json:"args,omitempty"`
	Line int      `json:"line,omitempty"` // in the policy's file
}

// Bool is a constant.
func Bool(b bool) *Node {
	n := &Node{Op: Const, Type: facts.Bool}
	if b {
		n.Int = 1
	}
	return n
}

// Walk calls f for the node and all below it.
func (n *Node) Walk(f func(*Node)) {
	f(n)
	for _, a := range n.Args {
		a.Walk(f)
	}
}

// Facts are the facts that the expression reads. vars are those that the policy's
// variables read.
func (n *Node) Facts(vars []facts.Set) facts.Set {
	var s facts.Set
	n.Walk(func(n *Node) {
		switch {
		case n.Op == Fact:
			s.Add(n.Name)
		case n.Op == Var && n.Int >= 0 && n.Int < int64(len(vars)):
			s.Union(vars[n.Int])
		}
	})
	return s
}

// check says whether the tree is one that this package can evaluate: one may come from
// another process. vars are the variables that it may speak of, depth how many macros it
// is in.
func (n *Node) check(vars []*Node, loops []facts.Type) error {
	if n == nil {
		return errors.New("expression without a node")
	}
	bad := func() error { return fmt.Errorf("expression %q of type %d doesn't fit", n.Op, n.Type) }
	is := func(want facts.Type, types ...facts.Type) error {
		if n.Type != want || len(n.Args) != len(types) {
			return bad()
		}
		for i, t := range types {
			if n.Args[i].Type != t {
				return bad()
			}
		}
		return nil
	}
	// The macros' bodies see one more loop variable.
	inner := loops
	switch n.Op {
	case All, Exists, ExistsOne, Filter, Map:
		if len(n.Args) < 2 || len(n.Args) > 3 || n.Args[0] == nil || n.Int != int64(len(loops)) || len(loops) >= MaxDepth {
			return bad()
		}
		switch n.Args[0].Type {
		case facts.Strings:
			inner = append(loops[:len(loops):len(loops)], facts.String)
		case facts.Ints:
			inner = append(loops[:len(loops):len(loops)], facts.Int)
		default:
			return bad()
		}
	}
	for i, a := range n.Args {
		l := inner
		if i == 0 {
			l = loops
		}
		if err := a.check(vars, l); err != nil {
			return err
		}
	}
	arg := func(i int) facts.Type {
		if i < len(n.Args) {
			return n.Args[i].Type
		}
		return 0
	}
	elem := func(t facts.Type) facts.Type {
		switch t {
		case facts.Strings:
			return facts.String
		case facts.Ints:
			return facts.Int
		}
		return 0
	}
	switch n.Op {
	case Const:
		if n.Type == 0 || n.Type > facts.Ints || len(n.Args) > 0 {
			return bad()
		}
	case Fact:
		f := facts.Find(n.Name)
		if f == nil || f.Type != n.Type || len(n.Args) > 0 {
			return bad()
		}
	case Var:
		if n.Int < 0 || n.Int >= int64(len(vars)) || vars[n.Int].Type != n.Type || len(n.Args) > 0 {
			return bad()
		}
	case Loop:
		if n.Int < 0 || n.Int >= int64(len(loops)) || loops[n.Int] != n.Type || len(n.Args) > 0 {
			return bad()
		}
	case List:
		for i := range n.Args {
			if arg(i) == 0 || arg(i) != elem(n.Type) {
				return bad()
			}
		}
		if elem(n.Type) == 0 {
			return bad()
		}
	case And, Or:
		if n.Type != facts.Bool || len(n.Args) < 2 {
			return bad()
		}
		for i := range n.Args {
			if arg(i) != facts.Bool {
				return bad()
			}
		}
	case Not:
		return is(facts.Bool, facts.Bool)
	case If:
		return is(n.Type, facts.Bool, n.Type, n.Type)
	case Eq, Ne:
		if arg(0) == facts.Texts {
			return bad()
		}
		return is(facts.Bool, arg(0), arg(0))
	case Lt, Le, Gt, Ge:
		if arg(0) != facts.Int && arg(0) != facts.String {
			return bad()
		}
		return is(facts.Bool, arg(0), arg(0))
	case In:
		if arg(1) == facts.Texts {
			return is(facts.Bool, facts.String, facts.Texts)
		}
		return is(facts.Bool, elem(arg(1)), arg(1))
	case Add:
		if n.Type == facts.Bool || n.Type == facts.Texts {
			return bad()
		}
		return is(n.Type, n.Type, n.Type)
	case Sub, Mul, Div, Mod:
		return is(facts.Int, facts.Int, facts.Int)
	case Neg:
		return is(facts.Int, facts.Int)
	case Size:
		if arg(0) == facts.Bool || arg(0) == facts.Int {
			return bad()
		}
		return is(facts.Int, arg(0))
	case Starts, Ends, Contains:
		return is(facts.Bool, facts.String, facts.String)
	case Matches:
		if len(n.Args) != 2 || n.Args[1].Op != Const {
			return bad()
		}
		return is(facts.Bool, facts.String, facts.String)
	case Index:
		if arg(0) == facts.Texts {
			return is(facts.String, facts.Texts, facts.String)
		}
		return is(elem(arg(0)), arg(0), facts.Int)
	case Has:
		return is(facts.Bool, facts.Texts, facts.String)
	case All, Exists, ExistsOne:
		return is(facts.Bool, arg(0), facts.Bool)
	case Filter:
		return is(arg(0), arg(0), facts.Bool)
	case Map:
		if elem(n.Type) == 0 {
			return bad()
		}
		if len(n.Args) == 3 {
			return is(n.Type, arg(0), facts.Bool, elem(n.Type))
		}
		return is(n.Type, arg(0), elem(n.Type))
	default:
		return bad()
	}
	return nil
}
