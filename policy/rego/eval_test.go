package rego

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"
)

func TestEval(t *testing.T) {
	modules := map[string][]byte{
		"a.rego": []byte("package a\nallow if input.x == 1\nnames contains n if some n in [\"b\", \"a\"]\nno := false\nf(x) := x + 1"),
	}
	for _, tt := range []struct {
		query, input string
		want         string // the solutions
		holds        bool
	}{
		{"data.a.allow", `{"x": 1}`, `[{"value":true}]`, true},
		{"data.a.allow", `{"x": 2}`, `[]`, false},
		{"data.a.allow", ``, `[]`, false},
		{"data.a.no", ``, `[{"value":false}]`, false},
		{"data.a.names", ``, `[{"value":["a","b"]}]`, true},
		{"x := data.a.names[_]", ``, `[{"value":true,"bindings":{"x":"a"}},{"value":true,"bindings":{"x":"b"}}]`, true},
		{"some x in data.a.names; x != \"a\"", ``, `[{"value":true,"bindings":{"x":"b"}}]`, true},
		{"x := 1; x == 2", ``, `[]`, false},
		{"1 + 1", ``, `[{"value":2}]`, true},
		{"data.a.f(2)", ``, `[{"value":3}]`, true},
		{"not data.a.allow", ``, `[{"value":true}]`, true},
		{"data.a.allow with input as {\"x\": 1}", ``, `[{"value":true}]`, true},
		{"1 > 2", ``, `[{"value":false}]`, false},
		{"null", ``, `[{"value":null}]`, true},
		{"echo(\"hello\")", ``, `[{"value":{"said":"hello"}}]`, true},
		{"echo(\"nothing\")", ``, `[]`, false},
		{"not echo(\"nothing\")", ``, `[{"value":true}]`, true},
		{"x := echo(\"a\").said; y := echo(\"a\").said; x == y", ``, `[{"value":true,"bindings":{"x":"a","y":"a"}}]`, true},
	} {
		t.Run(tt.query+" "+tt.input, func(t *testing.T) {
			calls := 0
			q := Question{Query: tt.query, Modules: modules, Functions: []Function{{Name: "echo", Arguments: []string{"text"}, Call: func(_ context.Context, given []string) (any, error) {
				if calls++; given[0] == "nothing" {
					return nil, fmt.Errorf("%w", fs.ErrNotExist)
				}
				return map[string]string{"said": given[0]}, nil
			}}}}
			if tt.input != "" {
				q.Input = []byte(tt.input)
			}
			a, err := Eval(t.Context(), q)
			got, _ := json.Marshal(a.Solutions)
			if err != nil || string(got) != tt.want || a.Holds() != tt.holds || calls > 1 {
				t.Errorf("%s, %v, %v, after %d calls", got, a.Holds(), err, calls)
			}
		})
	}
	t.Run("print writes", func(t *testing.T) {
		var out strings.Builder
		if _, err := Eval(t.Context(), Question{Query: `x := 1; print("x is", x)`, Print: &out}); err != nil || out.String() != "x is 1\n" {
			t.Errorf("%q, %v", out.String(), err)
		}
	})
}

func TestEvalSaysWhatIsWrong(t *testing.T) {
	unreachable := errors.New("no answer")
	functions := []Function{{Name: "oci.manifest", Arguments: []string{"ref"}, Call: func(context.Context, []string) (any, error) { return nil, unreachable }}}
	for _, tt := range []struct{ query, module, input, want string }{
		{"x :=", "", "", "the query: "},
		{"missing", "", "", "the query: var missing is unsafe"},
		{"http.send({})", "", "", "calls http.send, which is not there"},
		{"opa.runtime()", "", "", "calls opa.runtime, which is not there"},
		{"true", "package a\n\nallow if {", "", "a.rego:3: "},
		{"true", "package a\nallow if time.now_ns() > 0", "", "a.rego:2: calls time.now_ns"},
		{"oci.manifest(1)", "", "", "oci.manifest"},
		{"to_number(\"x\")", "", "", "evaluating it failed: to_number"},
		{"true", "", "{", "the input is not JSON"},
	} {
		t.Run(tt.query+tt.module, func(t *testing.T) {
			q := Question{Query: tt.query, Functions: functions, Modules: map[string][]byte{}}
			if tt.module != "" {
				q.Modules["a.rego"] = []byte(tt.module)
			}
			if tt.input != "" {
				q.Input = []byte(tt.input)
			}
			_, err := Eval(t.Context(), q)
			if _, ok := errors.AsType[*Fault](err); !ok || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%T %v\nwant %s", err, err, tt.want)
			}
		})
	}
	// What nobody could tell is never taken for undefined.
	for _, query := range []string{`oci.manifest("x")`, `not oci.manifest("x")`, `[x | x := oci.manifest("x")]`} {
		if a, err := Eval(t.Context(), Question{Query: query, Functions: functions}); !errors.Is(err, unreachable) || a.Holds() {
			t.Errorf("%s: %v, %v", query, a, err)
		}
	}
	t.Run("it ends with its context", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := Eval(ctx, Question{Query: "xs := [0,1,2,3,4,5,6,7,8,9]; a := xs[_]; b := xs[_]; c := xs[_]; d := xs[_]; e := xs[_]; f := xs[_]; g := xs[_]; h := xs[_]; a+b+c+d+e+f+g+h < 0"})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}
