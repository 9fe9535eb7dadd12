package rego

import (
	"errors"
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Input says what a module is evaluated with.
type Input int

const (
	// Image is all that is known of an image: {image, signatures, attestations}.
	Image Input = iota
	// Predicate is one attestation: {image, predicateType, predicate, ...}.
	Predicate
	// Statement is an in-toto statement, for modules in cosign's form: package
	// signature with the rule allow, in the syntax of Rego v0 or v1.
	Statement
)

// Fault is one thing that keeps a module from being used.
type Fault struct {
	Line    int    // 0: the whole file
	Message string // what is wrong, and what to do about it
}

func (f *Fault) Error() string {
	if f.Line == 0 {
		return f.Message
	}
	return fmt.Sprintf("line %d: %s", f.Line, f.Message)
}

// Compile compiles the source of a module, which file names in what it says later. The
// error joins one *Fault for each thing that is wrong. What is read of the input must
// be there: for Image and Predicate a field that the input never has is a fault.
func Compile(file string, source []byte, input Input) (*Module, error) {
	if len(source) > MaxSource {
		return nil, &Fault{Message: fmt.Sprintf("has more than %d bytes: shorten it", MaxSource)}
	}
	parsed, version, err := parse(file, string(source), input)
	if err != nil {
		return nil, faultsOf(err)
	}
	name := "vidimus"
	if input == Statement {
		name = "signature"
	}
	if faults := check(parsed, name); len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	compiler := ast.NewCompiler().WithCapabilities(capabilities()).WithDefaultRegoVersion(version)
	if schema := schemaOf(input); schema != nil {
		schemas := ast.NewSchemaSet()
		schemas.Put(ast.SchemaRootRef, schema)
		compiler = compiler.WithSchemas(schemas)
	}
	compiler.Compile(map[string]*ast.Module{file: parsed})
	if compiler.Failed() {
		return nil, faultsOf(compiler.Errors)
	}
	compiled := compiler.Modules[file]
	if faults := checkData(compiled, name); len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	m := newModule(compiler, name)
	m.readsTag = readsTag(compiled)
	if err := m.prepare(parsed); err != nil {
		return nil, err
	}
	return m, nil
}

func parse(file, source string, input Input) (*ast.Module, ast.RegoVersion, error) {
	options := ast.ParserOptions{Capabilities: capabilities(), RegoVersion: ast.RegoV1}
	if strings.TrimSpace(source) == "" {
		return nil, options.RegoVersion, &Fault{Message: "is empty: write package vidimus and a rule deny or allow"}
	}
	parsed, err := ast.ParseModuleWithOpts(file, source, options)
	if err != nil && input == Statement {
		// The functions are for the compiler to check.
		old := ast.ParserOptions{RegoVersion: ast.RegoV0}
		if again, errOld := ast.ParseModuleWithOpts(file, source, old); errOld == nil {
			return again, old.RegoVersion, nil
		}
	}
	return parsed, options.RegoVersion, err
}

// prepare compiles the questions that m is asked.
func (m *Module) prepare(parsed *ast.Module) (err error) {
	for _, rule := range parsed.Rules {
		switch {
		case ruleName(rule) == "deny" && m.deny == nil:
			m.deny, err = m.question("deny")
		case ruleName(rule) == "allow" && m.allow == nil:
			m.allow, err = m.question("allow")
		}
		if err != nil {
			return faultsOf(err)
		}
	}
	return nil
}

func (m *Module) question(rule string) (*question, error) {
	q := &question{compiler: m.compiler.QueryCompiler()}
	body, err := ast.ParseBody(fmt.Sprintf("%s = data.%s.%s", answer, m.name, rule))
	if err == nil {
		q.body, err = q.compiler.Compile(body)
	}
	return q, err
}

func ruleName(rule *ast.Rule) string {
	if ref := rule.Head.Ref(); len(ref) > 0 {
		if name, ok := ref[0].Value.(ast.Var); ok {
			return string(name)
		}
	}
	return ""
}

// check wants the package, and rules that answer in the way that they are understood.
func check(parsed *ast.Module, name string) (faults []error) {
	fault := func(line int, format string, args ...any) {
		faults = append(faults, &Fault{line, fmt.Sprintf(format, args...)})
	}
	if want := ast.MustParseRef("data." + name); !parsed.Package.Path.Equal(want) {
		fault(parsed.Package.Loc().Row, "is package %s: write package %s", strings.TrimPrefix(parsed.Package.Path.String(), "data."), name)
	}
	answers := false
	for _, rule := range parsed.Rules {
		switch line := rule.Loc().Row; ruleName(rule) {
		case "deny":
			answers = true
			switch {
			case name == "signature":
				fault(line, "defines deny, which cosign does not read: write allow")
			case rule.Head.RuleKind() != ast.MultiValue || len(rule.Head.Ref()) != 1:
				fault(line, "defines deny as something else than a set of messages: write deny contains \"why\" if { ... }")
			}
		case "allow":
			answers = true
			if rule.Head.RuleKind() != ast.SingleValue || len(rule.Head.Ref()) != 1 || len(rule.Head.Args) > 0 {
				fault(line, "defines allow as something else than true or false: write allow if { ... }")
			}
		}
	}
	if !answers && len(faults) == 0 {
		fault(0, "defines neither deny nor allow, so it could say nothing: write deny contains \"why\" if { ... } or allow if { ... }")
	}
	return faults
}

// checkData wants no other data than the module's own rules, for there is none: what is
// undefined for ever is a mistake.
func checkData(compiled *ast.Module, name string) (faults []error) {
	own := ast.MustParseRef("data." + name)
	ast.WalkRefs(compiled, func(ref ast.Ref) bool {
		if ref[0].Equal(ast.DefaultRootDocument) && !ref.HasPrefix(own) {
			faults = append(faults, &Fault{ref[0].Loc().Row, fmt.Sprintf("reads %s: there is no data but the rules of this file; write the values into it", ref)})
		}
		return false
	})
	return faults
}

// readsTag reports whether some reference is to input.image.tag, or to more that has it
// inside, or is not known to be to anything else.
func readsTag(compiled *ast.Module) (reads bool) {
	path := []ast.Value{ast.String("image"), ast.String("tag")}
	ast.WalkRefs(compiled, func(ref ast.Ref) bool {
		if !ref[0].Equal(ast.InputRootDocument) {
			return false
		}
		for i, part := range path {
			if len(ref) == i+1 { // all of it
				break
			}
			if ast.IsConstant(ref[i+1].Value) && ref[i+1].Value.Compare(part) != 0 {
				return false
			}
		}
		reads = true
		return false
	})
	return reads
}

// faultsOf makes faults of what OPA reports.
func faultsOf(err error) error {
	all, ok := errors.AsType[ast.Errors](err)
	if !ok {
		if one, ok := errors.AsType[*ast.Error](err); ok {
			all = ast.Errors{one}
		} else if fault, ok := errors.AsType[*Fault](err); ok {
			return fault
		} else {
			return &Fault{Message: err.Error()}
		}
	}
	var faults []error
	for _, each := range all {
		line := 0
		if each.Location != nil {
			line = each.Location.Row
		}
		faults = append(faults, &Fault{line, advise(each)})
	}
	return errors.Join(faults...)
}

// advise says what OPA says, and what to do where it is known.
func advise(e *ast.Error) string {
	said := strings.Join(strings.Fields(e.Message), " ")
	if name, ok := strings.CutPrefix(said, "undefined function "); ok && isOPAs(name) {
		return "calls " + name + ", which is not there: a rule computes with its input, and reaches no network, file or clock; remove it"
	}
	if details, ok := e.Details.(*ast.RefErrInvalidDetail); ok && details.Ref[0].Equal(ast.InputRootDocument) {
		said = fmt.Sprintf("reads %s, which the input does not have", details.Ref)
		if len(details.OneOf) > 0 {
			said += ": there it has " + strings.ReplaceAll(fmt.Sprint(details.OneOf), " ", ", ")
		}
		return said
	}
	if strings.Contains(said, "keyword is required") {
		return said + ": write it in Rego v1, as deny contains \"why\" if { ... }"
	}
	return said
}
