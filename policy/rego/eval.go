package rego

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/print"
	"github.com/open-policy-agent/opa/v1/types"
)

// Function is a function of the caller's that a Question may use, with arguments that
// are text. It is called once for each list of arguments. An error that matches
// fs.ErrNotExist makes the call undefined; every other one is the answer's.
type Function struct {
	Name      string
	Arguments []string // what they are
	Call      func(ctx context.Context, arguments []string) (any, error)
}

// Question is a query and what it may use.
type Question struct {
	Query     string
	Modules   map[string][]byte // of any package, by file
	Input     []byte            // JSON; nil: there is none
	Functions []Function
	Print     io.Writer // where print writes
}

// Answer is what a query comes to: a solution for each way in which it holds.
type Answer struct {
	Solutions []Solution `json:"solutions"`
}

// Solution is the value of a query that is one expression with a value, and true for
// every other; and the variables of the query.
type Solution struct {
	Value    any            `json:"value"`
	Bindings map[string]any `json:"bindings,omitempty"`
}

// Holds reports whether the query is defined and not false.
func (a Answer) Holds() bool {
	for _, s := range a.Solutions {
		if s.Value != false {
			return true
		}
	}
	return false
}

// Eval answers a question on a person's own command line: it takes as long as ctx
// lets it, and does what its functions do. Otherwise a module can do no more than those
// of Compile. An error of type *Fault, or several joined, is about what was asked.
func Eval(ctx context.Context, q Question) (Answer, error) {
	e := evaluation{ctx: ctx, capabilities: capabilities(), builtins: make(map[string]*topdown.Builtin)}
	for _, f := range q.Functions {
		e.add(f)
	}
	modules := make(map[string]*ast.Module)
	for file, source := range q.Modules {
		parsed, err := ast.ParseModuleWithOpts(file, string(source), ast.ParserOptions{Capabilities: e.capabilities, RegoVersion: ast.RegoV1})
		if err != nil {
			return Answer{}, inFiles(err)
		}
		modules[file] = parsed
	}
	compiler := ast.NewCompiler().WithCapabilities(e.capabilities).WithEnablePrintStatements(q.Print != nil)
	if compiler.Compile(modules); compiler.Failed() {
		return Answer{}, inFiles(compiler.Errors)
	}
	asked := &question{compiler: compiler.QueryCompiler().WithEnablePrintStatements(q.Print != nil)}
	body, err := ast.ParseBodyWithOpts(q.Query, ast.ParserOptions{Capabilities: e.capabilities, RegoVersion: ast.RegoV1})
	if err == nil {
		asked.body, err = asked.compiler.Compile(keepValue(body))
	}
	if err != nil {
		return Answer{}, &Fault{Message: "the query: " + withoutLine(faultsOf(err))}
	}
	input, err := inputOf(q.Input)
	if err != nil {
		return Answer{}, err
	}
	stop := topdown.NewCancel()
	defer context.AfterFunc(ctx, stop.Cancel)()
	results, err := run(ctx, inmem.New(), func(query *topdown.Query) {
		query.WithCompiler(compiler).WithBuiltins(e.builtins)
		if q.Print != nil {
			query.WithPrintHook(printer{q.Print})
		}
	}, asked, stop, input)
	switch {
	case e.failure != nil:
		return Answer{}, e.failure
	case ctx.Err() != nil:
		return Answer{}, ctx.Err()
	case err != nil:
		return Answer{}, &Fault{Message: explain(err)}
	}
	return answerOf(asked, results)
}

// evaluation is one Eval at work, in one goroutine.
type evaluation struct {
	ctx          context.Context // of Eval, for the functions: OPA's own call has no other way
	capabilities *ast.Capabilities
	builtins     map[string]*topdown.Builtin
	failure      error // the first of a function's
}

// add makes f a function of the language.
func (e *evaluation) add(f Function) {
	var arguments []types.Type
	for _, name := range f.Arguments {
		arguments = append(arguments, types.Named(name, types.S))
	}
	declared := &ast.Builtin{Name: f.Name, Decl: types.NewFunction(arguments, types.A), Nondeterministic: true}
	e.capabilities.Builtins = append(e.capabilities.Builtins, declared)
	type outcome struct {
		value ast.Value
		err   error
	}
	known := make(map[string]outcome)
	call := func(given []*ast.Term) (ast.Value, error) {
		var texts []string
		for _, term := range given[:len(f.Arguments)] { // behind them is what takes the value
			text, ok := term.Value.(ast.String)
			if !ok {
				return nil, fmt.Errorf("%s wants text, not %s", f.Name, term)
			}
			texts = append(texts, string(text))
		}
		id := fmt.Sprintf("%q", texts)
		if o, ok := known[id]; ok {
			return o.value, o.err
		}
		var o outcome
		var value any
		if value, o.err = f.Call(e.ctx, texts); o.err == nil {
			o.value, o.err = ast.InterfaceToValue(value)
		}
		known[id] = o
		return o.value, o.err
	}
	e.builtins[f.Name] = &topdown.Builtin{Decl: declared, Func: func(_ topdown.BuiltinContext, given []*ast.Term, iter func(*ast.Term) error) error {
		value, err := call(given)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // undefined
		case err != nil:
			if e.failure == nil {
				e.failure = fmt.Errorf("%s: %w", f.Name, err)
			}
			return topdown.Halt{Err: err}
		}
		return iter(ast.NewTerm(value))
	}}
}

// keepValue binds the value of a query that is one expression, when that has one: of
// several only what makes them all true is a solution.
func keepValue(body ast.Body) ast.Body {
	if len(body) > 1 {
		return body
	}
	last := body[0]
	var value *ast.Term
	switch terms := last.Terms.(type) {
	case *ast.Term:
		value = terms
	case []*ast.Term:
		switch last.Operator().String() {
		case ast.Assign.Name, ast.Equality.Name, ast.Print.Name:
		default:
			value = ast.CallTerm(terms...)
		}
	}
	if value == nil || last.Negated {
		return body
	}
	kept := ast.Equality.Expr(ast.VarTerm(answer), value)
	kept.With, kept.Location = last.With, last.Location
	return ast.NewBody(kept)
}

func inputOf(data []byte) (*ast.Term, error) {
	if data == nil {
		return nil, nil
	}
	value, err := ast.ValueFromReader(bytes.NewReader(data))
	if err != nil {
		return nil, &Fault{Message: "the input is not JSON: " + err.Error()}
	}
	return ast.NewTerm(value), nil
}

// answerOf translates results; the variables that the compiler has made or renamed get
// the names that they were written with.
func answerOf(asked *question, results topdown.QueryResultSet) (Answer, error) {
	a := Answer{Solutions: []Solution{}}
	written := asked.compiler.RewrittenVars()
	for _, result := range results {
		s := Solution{Bindings: make(map[string]any), Value: true}
		for variable, term := range result {
			name := variable
			if original, ok := written[variable]; ok {
				name = original
			}
			value, err := ast.JSON(term.Value)
			if err != nil {
				return Answer{}, &Fault{Message: "the answer cannot be shown: " + err.Error()}
			}
			switch {
			case name == answer:
				s.Value = value
			case !name.IsGenerated() && !name.IsWildcard():
				s.Bindings[string(name)] = value
			}
		}
		a.Solutions = append(a.Solutions, s)
	}
	return a, nil
}

// inFiles is faultsOf for several files: each fault names its own.
func inFiles(err error) error {
	all, ok := errors.AsType[ast.Errors](err)
	if !ok {
		return &Fault{Message: err.Error()}
	}
	var faults []error
	for _, each := range all {
		where := ""
		if each.Location != nil {
			where = fmt.Sprintf("%s:%d: ", each.Location.File, each.Location.Row)
		}
		faults = append(faults, &Fault{Message: where + advise(each)})
	}
	return errors.Join(faults...)
}

// withoutLine is a fault in a query, which has but one line.
func withoutLine(err error) string {
	text := strings.ReplaceAll(err.Error(), "line 1: ", "")
	text = strings.ReplaceAll(text, "var "+answer+" is unsafe\n", "") // only where the query has another fault
	return strings.ReplaceAll(text, "\n", "; ")
}

// printer is where print writes.
type printer struct{ to io.Writer }

func (p printer) Print(_ print.Context, text string) error {
	_, err := fmt.Fprintln(p.to, text)
	return err
}
