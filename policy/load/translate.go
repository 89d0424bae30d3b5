package load

import (
	"regexp"
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/policy/expr"
	"github.com/bpfbroker/bpfbroker/policy/names"
)

// node makes our tree of a checked CEL expression. Beside it comes which names its value
// can have, nil for any. What it can't make is a mistake, and its result nil.
func (s *scalar) node(e ast.Expr) (*expr.Node, *names.Domain) {
	typ, ok := factType(s.ast.GetType(e.ID()))
	if !ok && !(e.Kind() == ast.ListKind && len(e.AsList().Elements()) == 0) {
		if strings.Contains(s.ast.GetType(e.ID()).String(), "dyn") {
			s.id(e.ID(), "the elements have different types")
			return nil, nil
		}
		s.id(e.ID(), "policies have no values of the type %s; only string, int, bool and lists of strings or ints", s.ast.GetType(e.ID()))
		return nil, nil
	}
	n := &expr.Node{Type: typ, Line: s.line(e.ID())}
	switch e.Kind() {
	case ast.LiteralKind:
		return s.literal(e, n), nil
	case ast.IdentKind, ast.SelectKind:
		return s.named(e, n)
	case ast.ListKind:
		return s.list(e, n)
	case ast.CallKind:
		return s.call(e, n)
	case ast.ComprehensionKind:
		return s.macro(e, n)
	}
	s.id(e.ID(), "policies don't have this part of CEL")
	return nil, nil
}

func (s *scalar) literal(e ast.Expr, n *expr.Node) *expr.Node {
	n.Op = expr.Const
	switch v := e.AsLiteral().(type) {
	case types.Bool:
		n.Int = expr.Bool(bool(v)).Int
	case types.Int:
		n.Int = int64(v)
	case types.String:
		n.Str = string(v)
	default:
		s.id(e.ID(), "policies have no literals of this type")
		return nil
	}
	return n
}

func (s *scalar) named(e ast.Expr, n *expr.Node) (*expr.Node, *names.Domain) {
	name := ""
	if r := s.ast.ReferenceMap()[e.ID()]; r != nil {
		name = r.Name
	} else if e.Kind() == ast.IdentKind {
		name = e.AsIdent()
	}
	if name != "" {
		if e.Kind() == ast.IdentKind {
			for i := len(s.loops) - 1; i >= 0; i-- {
				if s.loops[i].name == name {
					n.Op, n.Name, n.Int = expr.Loop, name, int64(i)
					return n, s.loops[i].known
				}
			}
		}
		if f := facts.Find(name); f != nil {
			n.Op, n.Name = expr.Fact, name
			s.available(e, f)
			return n, names.Of(name)
		}
		i, v := s.variable(name)
		if v == nil || v.node == nil {
			s.id(e.ID(), "no fact or variable %q", clip(name))
			return nil, nil
		}
		v.used = true
		s.availableVariable(e, v)
		if v.node.Op == expr.Const {
			c := *v.node
			c.Name = name
			return &c, v.known
		}
		n.Op, n.Name, n.Int = expr.Var, name, int64(i)
		return n, v.known
	}
	if e.Kind() != ast.SelectKind {
		s.id(e.ID(), "no fact or variable")
		return nil, nil
	}
	// A key of texts.
	sel := e.AsSelect()
	t, _ := s.node(sel.Operand())
	if t == nil {
		return nil, nil
	}
	if t.Type != facts.Texts {
		s.id(e.ID(), "%s is a %s, which has no field %q", t, t.Type, sel.FieldName())
		return nil, nil
	}
	n.Op = expr.Index
	if sel.IsTestOnly() {
		n.Op = expr.Has
	}
	n.Args = []*expr.Node{t, {Op: expr.Const, Type: facts.String, Str: sel.FieldName(), Line: n.Line}}
	return n, nil
}

// available checks that all commands of the rule have the fact.
func (s *scalar) available(e ast.Expr, f *facts.Fact) {
	if !s.inRule {
		return // a variable's facts count where it is used
	}
	without := lacking(s.commands, f)
	if len(without) == 0 {
		return
	}
	what := without[0] + " doesn't"
	if len(without) > 1 {
		what = without[0] + " and others don't"
	}
	s.id(e.ID(), "%s have %s, and the rule is for them too; make a rule of its own for those that have it", what, f.Name)
}

func (s *scalar) availableVariable(e ast.Expr, v *variable) {
	if !s.inRule {
		return
	}
	for i := range facts.Table {
		f := &facts.Table[i]
		if v.reads.Has(f.Name) {
			if without := lacking(s.commands, f); len(without) > 0 {
				s.id(e.ID(), "variable %s reads %s, which %s doesn't have", v.name, f.Name, without[0])
				return
			}
		}
	}
}

func (s *scalar) list(e ast.Expr, n *expr.Node) (*expr.Node, *names.Domain) {
	elements := e.AsList().Elements()
	if len(elements) == 0 {
		if n.Type == 0 {
			n.Type = facts.Strings
		}
		n.Op = expr.Const
		return n, nil
	}
	n.Op = expr.List
	constant := true
	for _, x := range elements {
		a, _ := s.node(x)
		if a == nil {
			return nil, nil
		}
		constant = constant && a.Op == expr.Const
		n.Args = append(n.Args, a)
	}
	if !constant {
		return n, nil
	}
	n.Op = expr.Const
	for i, a := range n.Args {
		if a.Type == facts.String {
			if slices.Contains(n.Strs, a.Str) {
				s.id(elements[i].ID(), "the list has %q twice", clip(a.Str))
			}
			n.Strs = append(n.Strs, a.Str)
		} else {
			n.Ints = append(n.Ints, a.Int)
		}
	}
	n.Args = nil
	return n, nil
}

var ops = map[string]expr.Op{
	operators.Conditional: expr.If, operators.LogicalAnd: expr.And, operators.LogicalOr: expr.Or, operators.LogicalNot: expr.Not,
	operators.Equals: expr.Eq, operators.NotEquals: expr.Ne, operators.Less: expr.Lt, operators.LessEquals: expr.Le,
	operators.Greater: expr.Gt, operators.GreaterEquals: expr.Ge, operators.In: expr.In,
	operators.Add: expr.Add, operators.Subtract: expr.Sub, operators.Multiply: expr.Mul, operators.Divide: expr.Div, operators.Modulo: expr.Mod,
	operators.Negate: expr.Neg, operators.Index: expr.Index,
	"size": expr.Size, "startsWith": expr.Starts, "endsWith": expr.Ends, "contains": expr.Contains, "matches": expr.Matches,
}

func (s *scalar) call(e ast.Expr, n *expr.Node) (*expr.Node, *names.Domain) {
	c := e.AsCall()
	op, ok := ops[c.FunctionName()]
	if !ok {
		s.id(e.ID(), "no function %q%s", c.FunctionName(), suggest(c.FunctionName(), callable))
		return nil, nil
	}
	n.Op = op
	args := c.Args()
	if c.IsMemberFunction() {
		args = append([]ast.Expr{c.Target()}, args...)
	}
	var known []*names.Domain
	for _, x := range args {
		a, d := s.node(x)
		if a == nil {
			return nil, nil
		}
		if (op == expr.And || op == expr.Or) && a.Op == op {
			n.Args = append(n.Args, a.Args...) // a && b && c is one
		} else {
			n.Args = append(n.Args, a)
		}
		known = append(known, d)
	}
	switch op {
	case expr.Eq, expr.Ne:
		if n.Args[0].Type == facts.Texts {
			s.id(e.ID(), "labels can't be compared as a whole")
			return nil, nil
		}
		s.emptyLists(n)
		s.values(args[1], n.Args[1], known[0])
		s.values(args[0], n.Args[0], known[1])
	case expr.In:
		if l := n.Args[1]; l.Op == expr.Const && l.Strs == nil && l.Ints == nil {
			s.id(e.ID(), "nothing is in an empty list")
			return nil, nil
		}
		s.values(args[1], n.Args[1], known[0])
		s.values(args[0], n.Args[0], known[1])
	case expr.Lt, expr.Le, expr.Gt, expr.Ge:
		if t := n.Args[0].Type; t != facts.Int && t != facts.String {
			s.id(e.ID(), "no %s for the type %s", op, t)
			return nil, nil
		}
	case expr.Matches:
		re := n.Args[1]
		if re.Op != expr.Const {
			s.id(args[1].ID(), "the pattern of matches isn't constant")
			return nil, nil
		}
		if _, err := regexp.Compile(re.Str); err != nil || len(re.Str) > maxText {
			if err == nil {
				s.id(args[1].ID(), "pattern has more than %d bytes", maxText)
			} else {
				s.id(args[1].ID(), "no pattern: %v", err)
			}
			return nil, nil
		}
	case expr.If:
		if n.Args[1].Type != n.Args[2].Type {
			s.id(e.ID(), "the two values have different types: %s and %s", n.Args[1].Type, n.Args[2].Type)
			return nil, nil
		}
		if known[1] == known[2] {
			return n, known[1]
		}
	case expr.Index:
		return n, known[0]
	case expr.Add:
		if n.Type != facts.Int && n.Type != facts.String {
			s.emptyLists(n)
		}
		if known[0] == known[1] {
			return n, known[0]
		}
	}
	return n, nil
}

// emptyLists gives [] the type of what it is compared or joined with.
func (s *scalar) emptyLists(n *expr.Node) {
	for i, a := range n.Args {
		if o := n.Args[1-i]; a.Op == expr.Const && a.Strs == nil && a.Ints == nil && (a.Type == facts.Strings || a.Type == facts.Ints) && o.Type != a.Type {
			a.Type = o.Type
		}
	}
}

// values checks constants that are compared with what has names of a table's.
func (s *scalar) values(e ast.Expr, n *expr.Node, d *names.Domain) {
	if d == nil || n.Op != expr.Const {
		return
	}
	check := func(id int64, v string) {
		if !d.Has(v) {
			s.id(id, "no %s %q%s", d.What, clip(v), suggest(v, d.Names))
		}
	}
	switch n.Type {
	case facts.String:
		check(e.ID(), n.Str)
	case facts.Strings:
		for i, v := range n.Strs {
			if n.Name != "" && !d.Has(v) {
				s.id(e.ID(), "variable %s has %q: no %s%s", n.Name, clip(v), d.What, suggest(v, d.Names))
			}
			if n.Name == "" && e.Kind() == ast.ListKind && i < len(e.AsList().Elements()) {
				check(e.AsList().Elements()[i].ID(), v)
			}
		}
	}
}

// macro finds which macro it was that CEL has made a loop of.
func (s *scalar) macro(e ast.Expr, n *expr.Node) (*expr.Node, *names.Domain) {
	c := e.AsComprehension()
	fail := func(why string) (*expr.Node, *names.Domain) {
		s.id(e.ID(), "%s", why)
		return nil, nil
	}
	l, known := s.node(c.IterRange())
	if l == nil {
		return nil, nil
	}
	loopVar := loop{name: c.IterVar(), known: known}
	switch l.Type {
	case facts.Strings:
		loopVar.typ = facts.String
	case facts.Ints:
		loopVar.typ = facts.Int
	default:
		return fail("macros are for lists")
	}
	if len(s.loops) >= expr.MaxDepth {
		return fail("macros are nested more than twice")
	}
	if c.HasIterVar2() || c.LoopStep().Kind() != ast.CallKind {
		return fail("policies don't have this macro")
	}
	n.Name, n.Int = c.IterVar(), int64(len(s.loops))
	step := c.LoopStep().AsCall()
	parts := step.Args()
	var bodies []ast.Expr
	init := c.AccuInit()
	switch {
	case init.Kind() == ast.LiteralKind && init.AsLiteral() == types.True && step.FunctionName() == operators.LogicalAnd:
		n.Op, bodies = expr.All, parts[1:]
	case init.Kind() == ast.LiteralKind && init.AsLiteral() == types.False && step.FunctionName() == operators.LogicalOr:
		n.Op, bodies = expr.Exists, parts[1:]
	case init.Kind() == ast.LiteralKind && step.FunctionName() == operators.Conditional:
		n.Op, bodies = expr.ExistsOne, parts[:1]
	case init.Kind() == ast.ListKind && step.FunctionName() == operators.Conditional:
		value, ok := appended(parts[1])
		if !ok {
			return fail("policies don't have this macro")
		}
		n.Op, bodies = expr.Map, []ast.Expr{parts[0], value}
		if value.Kind() == ast.IdentKind && value.AsIdent() == c.IterVar() {
			n.Op, bodies = expr.Filter, bodies[:1]
		}
	case init.Kind() == ast.ListKind && step.FunctionName() == operators.Add:
		value, ok := appended(c.LoopStep())
		if !ok {
			return fail("policies don't have this macro")
		}
		n.Op, bodies = expr.Map, []ast.Expr{value}
	default:
		return fail("policies don't have this macro")
	}
	n.Args = []*expr.Node{l}
	s.loops = append(s.loops, loopVar)
	defer func() { s.loops = s.loops[:len(s.loops)-1] }()
	for _, b := range bodies {
		a, d := s.node(b)
		if a == nil {
			return nil, nil
		}
		n.Args = append(n.Args, a)
		if n.Op == expr.Map {
			known = d
		}
	}
	if n.Op == expr.Filter || n.Op == expr.Map {
		return n, known
	}
	return n, nil
}

// appended is the element that a step of filter or map appends to the list so far.
func appended(e ast.Expr) (ast.Expr, bool) {
	if e.Kind() != ast.CallKind || e.AsCall().FunctionName() != operators.Add {
		return nil, false
	}
	args := e.AsCall().Args()
	if len(args) != 2 || args[1].Kind() != ast.ListKind || len(args[1].AsList().Elements()) != 1 {
		return nil, false
	}
	return args[1].AsList().Elements()[0], true
}
