// Package condition says whether what a policy's author wrote holds for one
// request.
//
// A condition is an expression of CEL over what is known of the request. It is
// checked when the policy is read, and what it may cost is bounded then and
// again when it is judged. It reads no clock and no file, but for the names of
// time zones, which are built in where the machine has none. Nothing but a
// plain true holds.
package condition

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // a machine without zones would refuse all that names one

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/env"
)

// Bounds of an expression. What it costs is what CEL counts, with the longest
// texts that a request may have: some milliseconds at most.
const (
	maxText  = 500
	maxDepth = 20
	maxNodes = 300
	maxRegex = 500 // instructions
	maxCost  = 100_000
)

// Facts are what a condition may look at.
type Facts struct {
	Person string
	Groups []string // of the policy's, that she is in
	Begin  time.Time
	Length time.Duration
	Source string // the address from which she asks; empty: not known
	Reason string
	Ticket string
	Host   string
	Labels map[string]string // of the host
	Risk   Risk
}

// Risk is what is known of a request that is out of the ordinary for its
// person. What is nil is not known, and no condition that looks at it can be
// judged by it.
type Risk struct {
	NewNetwork    *bool
	FirstTime     *bool
	FactorRefused *int
	FactorAge     *time.Duration
}

// Names of the facts of [Risk], as conditions have them.
const (
	NewNetwork    = "risk.new_network"
	FirstTime     = "risk.first_time"
	FactorRefused = "risk.factor_refused"
	FactorAge     = "risk.factor_age"
)

// Risks are those names.
var Risks = []string{NewNetwork, FirstTime, FactorRefused, FactorAge}

// The variables, and how large they can be.
var variables = []struct {
	name string
	is   *cel.Type
	most uint64
}{
	{"person", cel.StringType, 64},
	{"groups", cel.ListType(cel.StringType), 1000},
	{"begin", cel.TimestampType, 1},
	{"end", cel.TimestampType, 1},
	{"length", cel.DurationType, 1},
	{"source", cel.StringType, 64},
	{"reason", cel.StringType, 500},
	{"ticket", cel.StringType, 100},
	{"host", cel.StringType, 64},
	{"labels", cel.MapType(cel.StringType, cel.StringType), 64},
	{NewNetwork, cel.BoolType, 1},
	{FirstTime, cel.BoolType, 1},
	{FactorRefused, cel.IntType, 1},
	{FactorAge, cel.DurationType, 1},
}

// functions are those of CEL that conditions have. Parts of times are not
// among them: they would be read in UTC, and a window in a zone is what is
// meant.
var functions = []string{
	"_&&_", "_||_", "!_", "_?_:_", "_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "@in", "_[_]", "_+_", "_-_", "-_", "@not_strictly_false",
	"size", "contains", "startsWith", "endsWith", "matches", "duration", "timestamp",
}

// A Compiler reads conditions. It is for one reading of a policy.
type Compiler struct{ env *cel.Env }

// NewCompiler makes one.
func NewCompiler() (*Compiler, error) {
	std := &env.LibrarySubset{IncludeMacros: []string{"has", "all", "exists", "exists_one"}}
	for _, name := range functions {
		std.IncludeFunctions = append(std.IncludeFunctions, env.NewFunction(name))
	}
	options := []cel.EnvOption{
		cel.StdLib(cel.StdLibSubset(std)), cel.EagerlyValidateDeclarations(true), cel.DefaultUTCTimeZone(true),
		cel.ParserRecursionLimit(maxDepth), cel.ParserExpressionSizeLimit(maxText), cel.ExpressionNodeLimit(maxNodes), cel.RegexProgramSizeLimit(maxRegex),
		during, inside,
		cel.ASTValidators(cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateRegexLiterals(),
			cel.ValidateComprehensionNestingLimit(1), written{}),
	}
	for _, v := range variables {
		options = append(options, cel.Variable(v.name, v.is))
	}
	e, err := cel.NewCustomEnv(options...)
	return &Compiler{e}, err
}

// A Condition is one that can be judged.
type Condition struct {
	Text    string // as it is written
	Uses    []string
	Labels  []Label // that it looks at
	program cel.Program
}

// A Label is one that a condition names, with the value that it is compared
// to, if that is written.
type Label struct{ Key, Value string }

// A Mistake is why a text is no condition, and where in it.
type Mistake struct {
	At   int // characters before it
	Text string
}

func (m *Mistake) Error() string { return m.Text }

// Compile reads a condition.
func (c *Compiler) Compile(text string) (*Condition, *Mistake) {
	if len(text) > maxText || strings.TrimSpace(text) == "" {
		return nil, &Mistake{Text: fmt.Sprintf("%d characters, and a condition has 1 to %d", len(text), maxText)}
	}
	tree, issues := c.env.Compile(text)
	if issues.Err() != nil {
		return nil, mistake(text, issues)
	}
	if tree.OutputType() != cel.BoolType {
		return nil, &Mistake{Text: "comes to a " + tree.OutputType().String() + ", and has to come to true or false"}
	}
	likely, err := c.env.EstimateCost(tree, sizes{})
	if err != nil || likely.Max > maxCost {
		return nil, &Mistake{Text: "could cost too much to judge"}
	}
	program, err := c.env.Program(tree, cel.CostLimit(maxCost), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, &Mistake{Text: err.Error()}
	}
	out := &Condition{Text: text, program: program}
	out.look(tree.NativeRep())
	return out, nil
}

// mistake is the first of what is wrong.
func mistake(text string, issues *cel.Issues) *Mistake {
	first := issues.Errors()[0]
	said, _, _ := strings.Cut(first.Message, " (in container")
	said, _, _ = strings.Cut(said, "\n")
	at := 0
	if l := first.Location; l != nil && l.Column() > 0 {
		at = l.Column()
		for i, line := range strings.Split(text, "\n") {
			if i+1 < l.Line() {
				at += len([]rune(line)) + 1
			}
		}
	}
	return &Mistake{At: at, Text: said}
}

// look notes which variables and labels the condition names.
func (c *Condition) look(tree *ast.AST) {
	known := map[string]bool{}
	for _, v := range variables {
		known[v.name] = true
	}
	ast.PreOrderVisit(tree.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() == ast.IdentKind && known[e.AsIdent()] {
			c.Uses = append(c.Uses, e.AsIdent())
		}
		if key, ok := labelOf(e); ok {
			c.Labels = append(c.Labels, Label{Key: key})
		}
		c.compares(e)
	}))
	slices.Sort(c.Uses)
	c.Uses = slices.Compact(c.Uses)
}

// labelOf is the key of which the expression is the value: labels.KEY, or
// labels['KEY'].
func labelOf(e ast.Expr) (string, bool) {
	of, key := ast.Expr(nil), ""
	switch {
	case e.Kind() == ast.SelectKind:
		of, key = e.AsSelect().Operand(), e.AsSelect().FieldName()
	case e.Kind() == ast.CallKind && e.AsCall().FunctionName() == "_[_]":
		of = e.AsCall().Args()[0]
		key, _ = literal(e.AsCall().Args()[1])
	}
	return key, key != "" && of.Kind() == ast.IdentKind && of.AsIdent() == "labels"
}

// compares notes the values that a label is compared to: one that the label
// never has is a slip of the pen.
func (c *Condition) compares(e ast.Expr) {
	if e.Kind() != ast.CallKind || len(e.AsCall().Args()) != 2 {
		return
	}
	a, b := e.AsCall().Args()[0], e.AsCall().Args()[1]
	switch e.AsCall().FunctionName() {
	case "_==_", "_!=_":
		for _, pair := range [][2]ast.Expr{{a, b}, {b, a}} {
			key, is := labelOf(pair[0])
			if value, plain := literal(pair[1]); is && plain {
				c.Labels = append(c.Labels, Label{key, value})
			}
		}
	case "@in":
		key, is := labelOf(a)
		if !is || b.Kind() != ast.ListKind {
			return
		}
		for _, v := range b.AsList().Elements() {
			if value, plain := literal(v); plain {
				c.Labels = append(c.Labels, Label{key, value})
			}
		}
	}
}

// literal is the text that an expression is, if it is one.
func literal(e ast.Expr) (string, bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	s, ok := e.AsLiteral().Value().(string)
	return s, ok
}

// ErrNot is what a condition comes to that was judged, and does not hold.
var ErrNot = errors.New("it does not hold")

// Holds is nil if the condition holds. Any other error than [ErrNot] says why
// it could not be judged.
func (c *Condition) Holds(f Facts) error {
	if c == nil || c.program == nil {
		return errors.New("it was not read")
	}
	known := map[string]any{
		"person": f.Person, "groups": nonNil(f.Groups), "begin": f.Begin.UTC(), "end": f.Begin.Add(f.Length).UTC(), "length": f.Length,
		"source": f.Source, "reason": f.Reason, "ticket": f.Ticket, "host": f.Host, "labels": labels(f.Labels),
	}
	f.Risk.into(known)
	out, _, err := c.program.Eval(known)
	if err != nil {
		return err
	}
	if holds, ok := out.Value().(bool); !ok || !holds {
		return ErrNot
	}
	return nil
}

// into puts what is known to the rest: CEL judges nothing by a name without a
// value.
func (r Risk) into(known map[string]any) {
	if r.NewNetwork != nil {
		known[NewNetwork] = *r.NewNetwork
	}
	if r.FirstTime != nil {
		known[FirstTime] = *r.FirstTime
	}
	if r.FactorRefused != nil {
		known[FactorRefused] = *r.FactorRefused
	}
	if r.FactorAge != nil {
		known[FactorAge] = *r.FactorAge
	}
}

func nonNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func labels(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// sizes tells CEL how large the variables can be.
type sizes struct{}

func (sizes) EstimateSize(n cost.AstNode) *cost.SizeEstimate {
	path := n.Path()
	if len(path) == 0 {
		return nil
	}
	for _, v := range variables {
		if v.name == path[0] && len(path) == 1 {
			return &cost.SizeEstimate{Max: v.most}
		}
	}
	return &cost.SizeEstimate{Max: 64} // of a list's or a map's: a name
}

func (sizes) EstimateCallCost(function, _ string, _ *cost.AstNode, _ []cost.AstNode) *cost.CallEstimate {
	if function == "during" || function == "inside" {
		return &cost.CallEstimate{CostEstimate: cost.FixedCostEstimate(10)}
	}
	return nil
}
