package main

import (
	"errors"
	"path/filepath"

	"vidimus/policy"
	"vidimus/policy/rego"
	"vidimus/verifier/envelope"
)

func attestationShape() shape[attestationConfig] {
	const fix = "write an alias like slsaprovenance1, or a URI"
	return object([]field[attestationConfig]{
		required(key("predicateType", "", parsed(schema{"type": "string"}, fix, envelope.PredicateType),
			func(c *attestationConfig) *string { return &c.PredicateType },
			"what kind of statement: a URI, or cosign's alias (slsaprovenance, slsaprovenance02, slsaprovenance1, link, spdx, spdxjson, cyclonedx, vuln, openvex, custom)")),
		required(key("require", "", requireShape(), func(c *attestationConfig) **requireConfig { return &c.Require },
			"which authorities must have signed it, spelled as a policy's require")),
		key("rego", `""`, filePath(), func(c *attestationConfig) *file { return &c.Rego },
			"file with rules in Rego; a statement that they deny does not count"),
	})
}

// regoModule names a module: one file may be read as two kinds.
type regoModule struct {
	file  string
	input rego.Input
}

// rego compiles the file that f names, once for all who name it; nil when there is
// none, or when it has faults, which are reported.
func (j *judgement) rego(f file, input rego.Input) policy.Rego {
	data, ok := j.content(f)
	if !ok {
		return nil
	}
	module := regoModule{f.Name, input}
	compiled, done := j.modules[module]
	if !done {
		var err error
		// Answers to clients may show the name: without its directory.
		compiled, err = rego.Compile(filepath.Base(f.Name), data, input)
		j.modules[module] = compiled
		for _, each := range unjoin(err) {
			at := pos{File: f.Name}
			what := each.Error()
			if fault, ok := errors.AsType[*rego.Fault](each); ok {
				at.Line, what = fault.Line, fault.Message
			}
			j.fail(at, what, "")
		}
	}
	if compiled == nil {
		return nil
	}
	return compiled
}

// attestations are those that a policy asks for.
func (j *judgement) attestations(all []attestationConfig) []policy.Attestation {
	var out []policy.Attestation
	for _, a := range all {
		out = append(out, policy.Attestation{
			PredicateType: a.PredicateType, Require: j.require(a.Require), Rego: j.rego(a.Rego, rego.Predicate),
		})
	}
	return out
}
