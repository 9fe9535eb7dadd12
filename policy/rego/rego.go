// Package rego compiles and evaluates Rego, the language of Open Policy Agent.
//
// A Module is one file whose rules say no. It sees its input, which is data about
// verified evidence, and nothing else: of OPA's functions it has those that compute
// (capabilities.go lists them), none that reaches a network, a file, the environment, a
// clock or a random number, and there is no data besides its own rules. So a decision
// can be made again and comes out the same.
//
// # What a module says
//
// It is in package vidimus and defines one of these rules, or both:
//
//	deny contains message if { ... }   # each message is a reason to deny
//	allow if { ... }                   # must be true
//
// Everything that is not said denies: allow that is false, undefined or no boolean; an
// error, also of a function that was called with something it cannot take; an
// evaluation that takes longer than Timeout. A module that defines neither, or deny as
// something else than a set, does not compile.
//
// # Bounds
//
// A module is as trusted as the configuration that names it, and may still be wrong: an
// evaluation is stopped after Timeout. That bounds the memory of one that is merely
// slow; it does not keep one that is meant to from exhausting memory with a single
// call, as of replace. The size of the input is for the caller to bound. Of one module as many evaluations
// run at once as there are processors; one that does not stop, because a single
// function runs long, keeps its place until it has.
//
// Eval is another matter: it answers a question on a person's own command line.
package rego

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/topdown"
)

const (
	// Timeout is how long one evaluation may take.
	Timeout = 100 * time.Millisecond
	// MaxSource is how many bytes of a module are compiled.
	MaxSource = 1 << 20
	// maxReasons is how many messages of deny are kept.
	maxReasons = 8
)

// Module is a compiled module. It is immutable and safe for concurrent use.
type Module struct {
	compiler *ast.Compiler
	name     string // of its package
	allow    *question
	deny     *question
	readsTag bool
	store    storage.Store // without data
	slots    chan struct{}
}

// question is a compiled query whose answer is in the variable answer.
type question struct {
	compiler ast.QueryCompiler
	body     ast.Body
}

const answer = "answer"

// ReadsTag reports whether what the module says may depend on input.image.tag.
func (m *Module) ReadsTag() bool { return m.readsTag }

// Judge evaluates the module with a JSON document as its input, and returns why it
// denies; nothing when it does not. That it could not be evaluated is such a reason. An
// error means that ctx ended, and that nobody can tell.
func (m *Module) Judge(ctx context.Context, input []byte) (reasons []string, err error) {
	select {
	case m.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("rego: wait for a processor: %w", ctx.Err())
	}
	value, err := ast.ValueFromReader(bytes.NewReader(input)) // takes many times the memory of input
	if err != nil {
		<-m.slots
		return []string{"the input is not JSON"}, nil
	}
	limited, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	stop := topdown.NewCancel()
	done := make(chan []string, 1)
	go func() {
		defer func() { <-m.slots }()
		defer func() {
			if value := recover(); value != nil {
				done <- []string{fmt.Sprintf("evaluating it panicked: %v", value)}
			}
		}()
		done <- m.judge(limited, stop, ast.NewTerm(value))
	}()
	select {
	case reasons := <-done:
		if ctx.Err() != nil {
			return nil, fmt.Errorf("rego: %w", ctx.Err())
		}
		return reasons, nil
	case <-limited.Done():
		stop.Cancel()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("rego: %w", ctx.Err())
		}
		return []string{tooLong}, nil
	}
}

var tooLong = fmt.Sprintf("evaluating it took longer than %v", Timeout)

// judge asks both questions.
func (m *Module) judge(ctx context.Context, stop topdown.Cancel, input *ast.Term) []string {
	var reasons []string
	if m.deny != nil {
		said, err := m.ask(ctx, m.deny, stop, input)
		if err != nil {
			return []string{explain(err)}
		}
		reasons = messages(said)
	}
	if m.allow == nil || len(reasons) > 0 {
		return reasons
	}
	said, err := m.ask(ctx, m.allow, stop, input)
	switch {
	case err != nil:
		return []string{explain(err)}
	case said == nil:
		return []string{"allow is undefined"}
	case said.Value.Compare(ast.Boolean(true)) == 0:
		return nil
	case said.Value.Compare(ast.Boolean(false)) == 0:
		return []string{"allow is false"}
	}
	return []string{"allow is neither true nor false"}
}

// ask returns the one answer to a question; nil when it is undefined.
func (m *Module) ask(ctx context.Context, q *question, stop topdown.Cancel, input *ast.Term) (*ast.Term, error) {
	results, err := run(ctx, m.store, func(query *topdown.Query) { query.WithCompiler(m.compiler) }, q, stop, input)
	switch {
	case err != nil || len(results) == 0:
		return nil, err
	case len(results) > 1:
		return nil, errors.New("it has several answers")
	}
	return results[0][ast.Var(answer)], nil
}

func run(ctx context.Context, store storage.Store, with func(*topdown.Query), q *question, stop topdown.Cancel, input *ast.Term) (topdown.QueryResultSet, error) {
	transaction, err := store.NewTransaction(ctx)
	if err != nil {
		return nil, err
	}
	defer store.Abort(ctx, transaction)
	query := topdown.NewQuery(q.body).
		WithQueryCompiler(q.compiler).
		WithStore(store).
		WithTransaction(transaction).
		WithCancel(stop).
		WithInput(input).
		WithSeed(noSeed{}).
		WithTime(time.Unix(0, 0)).
		WithStrictBuiltinErrors(true)
	with(query)
	return query.Run(ctx)
}

// noSeed is no source of random numbers.
type noSeed struct{}

func (noSeed) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// messages are what deny says.
func messages(said *ast.Term) []string {
	if said == nil {
		return []string{"deny is undefined"}
	}
	set, ok := said.Value.(ast.Set)
	if !ok {
		return []string{"deny is not a set"}
	}
	var all []string
	for _, message := range set.Slice() {
		if len(all) == maxReasons {
			return append(all, fmt.Sprintf("and %d more", set.Len()-maxReasons))
		}
		if text, ok := message.Value.(ast.String); ok {
			all = append(all, string(text))
		} else {
			all = append(all, message.String())
		}
	}
	return all
}

// explain says what went wrong in an evaluation.
func explain(err error) string {
	if topdown.IsCancel(err) {
		return tooLong
	}
	if failure, ok := errors.AsType[*topdown.Error](err); ok {
		where := ""
		if failure.Location != nil {
			where = fmt.Sprintf("line %d: ", failure.Location.Row)
		}
		return "evaluating it failed: " + where + strings.Join(strings.Fields(failure.Message), " ")
	}
	return "evaluating it failed: " + err.Error()
}

func newModule(compiler *ast.Compiler, name string) *Module {
	return &Module{compiler: compiler, name: name, store: inmem.New(), slots: make(chan struct{}, runtime.GOMAXPROCS(0))}
}
