package load

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"cel.dev/cel-go/checker"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/containers"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/decls"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/stdlib"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/parser"
	"go.yaml.in/yaml/v3"

	"github.com/bpfbroker/bpfbroker/facts"
	"github.com/bpfbroker/bpfbroker/policy/expr"
	"github.com/bpfbroker/bpfbroker/policy/names"
)

// What an expression may be at most.
const (
	maxExpr  = 4096 // characters
	maxDeep  = 64   // nested parentheses and operators
	maxNodes = 2000
)

// maxCost bounds what CEL estimates that an expression can cost, where facts are as large
// as they may be. What a decision costs in fact is bounded as well: expr.MaxSteps.
const maxCost = 10_000_000

// sizes say how large facts may be: lists of 1024 elements, strings of 4096 characters.
type sizes struct{}

func (sizes) EstimateSize(n cost.AstNode) *cost.SizeEstimate {
	e := cost.SizeEstimate{Max: 4096}
	if n.Type().Kind() != types.StringKind {
		e.Max = 1024
	}
	return &e
}

func (sizes) EstimateCallCost(string, string, *cost.AstNode, []cost.AstNode) *cost.CallEstimate {
	return nil
}

// functions are those of CEL that policies have: on strings, ints, bools and lists. The
// names are CEL's own.
var functions = []string{
	operators.Conditional, operators.LogicalAnd, operators.LogicalOr, operators.LogicalNot, operators.NotStrictlyFalse,
	operators.Equals, operators.NotEquals, operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals, operators.In,
	operators.Add, operators.Subtract, operators.Multiply, operators.Divide, operators.Modulo, operators.Negate, operators.Index,
	"size", "startsWith", "endsWith", "contains", "matches",
}

// callable are the functions and macros as policies write them.
var callable = []string{"size", "startsWith", "endsWith", "contains", "matches", "all", "exists", "exists_one", "filter", "map", "has"}

// celTypes are the facts' types.
var celTypes = map[facts.Type]*types.Type{
	facts.String: types.StringType, facts.Int: types.IntType, facts.Bool: types.BoolType,
	facts.Strings: types.NewListType(types.StringType), facts.Ints: types.NewListType(types.IntType),
	facts.Texts: types.NewMapType(types.StringType, types.StringType),
}

func factType(t *types.Type) (facts.Type, bool) {
	for f, c := range celTypes {
		if c.IsExactType(t) {
			return f, true
		}
	}
	return 0, false
}

// cel is what does CEL's part, made when the first expression is read. Of CEL's two
// parsers it is the one that isn't generated: a policy takes 4 ms instead of 10.
// TestMeaning compares it with the other.
var cel = sync.OnceValues(func() (*parser.Parser, error) {
	return parser.NewParser(parser.Macros(parser.AllMacros...), parser.ExpressionSizeCodePointLimit(maxExpr), parser.MaxRecursionDepth(maxDeep),
		parser.MaxExpressionNodeCount(maxNodes), parser.ErrorRecoveryLimit(4), parser.ErrorReportingLimit(10), parser.PopulateMacroCalls(false), parser.EnablePrattParser(true))
})

// env declares facts, and the variables so far.
func (c *checking) env() (*checker.Env, error) {
	e, err := checker.NewEnv(containers.DefaultContainer, types.NewEmptyRegistry())
	if err != nil {
		return nil, err
	}
	for _, f := range stdlib.Functions() {
		if slices.Contains(functions, f.Name()) {
			if err := e.AddFunctions(f); err != nil {
				return nil, err
			}
		}
	}
	for i := range facts.Table {
		if err := e.AddIdents(decls.NewVariable(facts.Table[i].Name, celTypes[facts.Table[i].Type])); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// checking is the state of reading a policy's expressions.
type checking struct {
	*document
	parser  *parser.Parser
	checker *checker.Env
	vars    []*variable
	later   []string // all variables' names
}

// variable is one of the policy's.
type variable struct {
	name  string
	node  *expr.Node // nil: it has mistakes
	known *names.Domain
	reads facts.Set
	used  bool
	at    *yaml.Node
}

func (c *checking) variable(name string) (int, *variable) {
	for i, v := range c.vars {
		if v.name == name {
			return i, v
		}
	}
	return -1, nil
}

// scalar is one expression, with where its characters stand.
type scalar struct {
	*checking
	text     []rune
	places   []place
	lines    []int // where each line of the text begins
	info     *ast.SourceInfo
	ast      *ast.AST
	loops    []loop
	commands []string // of the rule; nil: any
	inRule   bool
}

// loop is a variable of a macro.
type loop struct {
	name  string
	typ   facts.Type
	known *names.Domain
}

// at notes a mistake at a character of the expression.
func (s *scalar) at(offset int, format string, args ...any) {
	offset = min(max(offset, 0), len(s.places)-1)
	p := s.places[offset]
	s.source.at(p.line, p.column, format, args...)
}

// id notes a mistake at a node of the expression.
func (s *scalar) id(id int64, format string, args ...any) {
	s.at(s.offset(id), format, args...)
}

func (s *scalar) offset(id int64) int {
	if r, ok := s.info.GetOffsetRange(id); ok {
		return int(r.Start)
	}
	return 0
}

func (s *scalar) line(id int64) int {
	return s.places[min(max(s.offset(id), 0), len(s.places)-1)].line
}

// location notes one of CEL's mistakes.
func (s *scalar) location(e *common.Error) {
	offset := 0
	if l := e.Location.Line() - 1; l >= 0 && l < len(s.lines) {
		offset = s.lines[l] + max(e.Location.Column(), 0) // -1: of an empty expression
	}
	message := plain(e.Message)
	if offset < len(s.text) && s.text[offset] == '=' && !strings.HasPrefix(string(s.text[offset:]), "==") {
		message = "no operator =; to compare, write =="
	}
	s.at(offset, "%s", message)
}

// compile reads the expression of a node of the YAML; nil where it has mistakes.
func (c *checking) compile(n *yaml.Node, what string, commands []string, inRule bool) (*expr.Node, *names.Domain) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null" {
		c.node(n, "%s is %s; wanted a CEL expression", what, kind(n))
		return nil, nil
	}
	s := &scalar{checking: c, text: []rune(n.Value), places: c.places(n), lines: []int{0}, commands: commands, inRule: inRule}
	if len(s.text) > maxExpr {
		c.node(n, "%s has %d characters; at most %d", what, len(s.text), maxExpr)
		return nil, nil
	}
	for i, r := range s.text {
		if r == '\n' {
			s.lines = append(s.lines, i+1)
		}
	}
	source := common.NewStringSource(n.Value, c.file)
	parsed, errs := c.parser.Parse(source)
	if len(errs.GetErrors()) > 0 {
		s.location(errs.GetErrors()[0]) // others follow from it
		return nil, nil
	}
	s.info = parsed.SourceInfo()
	if !s.names(parsed.Expr(), nil) {
		return nil, nil
	}
	s.ast, errs = checker.Check(parsed, source, c.checker)
	if len(errs.GetErrors()) > 0 {
		for _, e := range errs.GetErrors() {
			s.location(e)
		}
		return nil, nil
	}
	if c, err := cost.Cost(s.ast, sizes{}); err != nil || c.Max > maxCost {
		s.at(0, "%s could cost too much: lists in loops in lists", what)
		return nil, nil
	}
	before := len(c.errors)
	out, known := s.node(s.ast.Expr())
	if len(c.errors) > before {
		return nil, nil
	}
	return out, known
}

// names checks all names that the expression speaks of, before types are: CEL would
// complain of the first part of a dotted name only. loops are the macros' variables.
func (s *scalar) names(e ast.Expr, loops []string) bool {
	ok := true
	all := func(loops []string, list ...ast.Expr) {
		for _, a := range list {
			ok = s.names(a, loops) && ok
		}
	}
	switch e.Kind() {
	case ast.IdentKind, ast.SelectKind:
		if name, root, isName := dotted(e); isName {
			if e.Kind() == ast.SelectKind && e.AsSelect().IsTestOnly() && facts.Find(name) != nil {
				s.id(root.ID(), "has() is for labels: the rule's commands always have %s", name)
				return false
			}
			return s.name(name, root, loops)
		}
		if e.Kind() == ast.SelectKind {
			all(loops, e.AsSelect().Operand())
		}
	case ast.CallKind:
		c := e.AsCall()
		if !slices.Contains(functions, c.FunctionName()) {
			s.id(e.ID(), "no function %q%s", c.FunctionName(), suggest(c.FunctionName(), callable))
			ok = false
		}
		if c.IsMemberFunction() {
			all(loops, c.Target())
		}
		all(loops, c.Args()...)
	case ast.ListKind:
		all(loops, e.AsList().Elements()...)
	case ast.ComprehensionKind:
		c := e.AsComprehension()
		all(loops, c.IterRange())
		if s.reserved(c.IterVar()) || slices.Contains(loops, c.IterVar()) {
			s.id(e.ID(), "%q has a meaning already; give the element another name", c.IterVar())
			return false
		}
		inner := append(loops[:len(loops):len(loops)], c.IterVar(), c.AccuVar())
		all(inner, c.LoopCondition(), c.LoopStep(), c.Result())
	case ast.MapKind, ast.StructKind:
		s.id(e.ID(), "policies have no maps or messages")
		return false
	}
	return ok
}

// reserved says whether a fact's name begins so, or a variable is called so.
func (s *scalar) reserved(name string) bool {
	if _, v := s.variable(name); v != nil {
		return true
	}
	return slices.ContainsFunc(facts.Table, func(f facts.Fact) bool {
		first, _, _ := strings.Cut(f.Name, ".")
		return first == name
	})
}

// dotted is the name that selections of an identifier are; root is the identifier.
func dotted(e ast.Expr) (name string, root ast.Expr, ok bool) {
	switch e.Kind() {
	case ast.IdentKind:
		return e.AsIdent(), e, true
	case ast.SelectKind:
		name, root, ok := dotted(e.AsSelect().Operand())
		return name + "." + e.AsSelect().FieldName(), root, ok
	}
	return "", nil, false
}

// name checks a dotted name: a fact or variable, and what is behind it a key of texts.
func (s *scalar) name(name string, root ast.Expr, loops []string) bool {
	first, _, _ := strings.Cut(name, ".")
	if slices.Contains(loops, first) {
		return true
	}
	for n := name; ; {
		if facts.Find(n) != nil {
			return true
		}
		if _, v := s.variable(n); v != nil {
			return v.node != nil // its mistakes are told where they are
		}
		i := strings.LastIndexByte(n, '.')
		if i < 0 {
			break
		}
		n = n[:i]
	}
	var known []string
	for _, f := range facts.Table {
		known = append(known, f.Name)
	}
	for _, v := range s.vars {
		known = append(known, v.name)
	}
	hint := ""
	if slices.Contains(s.later, name) {
		hint = "; a variable can speak of those before it only"
	} else if n := nearest(name, known); n != "" {
		hint = fmt.Sprintf("; did you mean %q?", n)
	} else if group := s.group(first); group != "" {
		hint = "; there are: " + group
	}
	s.at(s.offset(root.ID()), "no fact or variable %q%s", clip(name), hint)
	return false
}

// group lists the facts that begin so.
func (s *scalar) group(first string) string {
	var out []string
	for _, f := range facts.Table {
		if strings.HasPrefix(f.Name, first+".") {
			out = append(out, f.Name)
		}
	}
	return strings.Join(out, ", ")
}

var (
	overloadMessage = regexp.MustCompile(`^found no matching overload for '([^']*)' applied to '([^']*)'`)
	container       = regexp.MustCompile(` \(in container '[^']*'\)`)
)

// plain says one of CEL's messages in the words of those who write policies.
func plain(m string) string {
	m = container.ReplaceAllString(m, "")
	m = strings.TrimPrefix(m, "Syntax error: ")
	if strings.Contains(m, "input '<EOF>'") {
		return "the expression ends too early"
	}
	g := overloadMessage.FindStringSubmatch(m)
	if g == nil {
		return m
	}
	op, args := g[1], g[2]
	if sign, ok := operators.FindReverse(op); ok && sign != "" {
		op = sign
	}
	switch {
	case op == "_[_]" || op == operators.Index:
		return "no element by index of " + args
	case strings.Contains(args, ".("):
		target, rest, _ := strings.Cut(args, ".(")
		return fmt.Sprintf("no %s(%s of a %s", op, rest, target)
	}
	return fmt.Sprintf("no %s for the types %s", op, args)
}
