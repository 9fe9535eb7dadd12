package rego

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// functions are those of OPA's that a module may call: their outcome depends on what
// they are given and on nothing else.
// What is missing reaches out (http.send, net.lookup_ip_addr, opa.runtime, schemas,
// time zones), differs from one evaluation to the next (time.now_ns, rand.intn,
// uuid.rfc4122), makes much of little (numbers.range, bits.lsh, net.cidr_expand,
// graph.reachable_paths, yaml.unmarshal with its aliases), or handles keys and certificates, which is not a policy's affair.
var functions = []string{
	// comparison, arithmetic, sets
	"eq", "assign", "equal", "neq", "gt", "gte", "lt", "lte",
	"internal.member_2", "internal.member_3",
	"plus", "minus", "mul", "div", "rem", "round", "ceil", "floor", "abs",
	"and", "or", "intersection", "union",
	// collections
	"count", "sum", "product", "max", "min", "sort",
	"array.concat", "array.flatten", "array.slice", "array.reverse",
	"object.subset", "object.union", "object.union_n", "object.remove", "object.filter", "object.get", "object.keys",
	"json.filter", "json.remove", "json.patch", "walk", "graph.reachable",
	// text
	"concat", "format_int", "indexof", "indexof_n", "substring", "contains", "startswith", "endswith", "lower", "upper",
	"split", "replace", "trim", "trim_left", "trim_prefix", "trim_right", "trim_suffix", "trim_space", "sprintf",
	"strings.any_prefix_match", "strings.any_suffix_match", "strings.count", "strings.replace_n", "strings.reverse",
	"strings.split_n", "internal.template_string",
	"regex.match", "regex.is_valid", "regex.find_all_string_submatch_n", "regex.find_n", "regex.split", "regex.replace",
	"regex.template_match", "glob.match", "glob.quote_meta",
	"semver.is_valid", "semver.compare", "to_number", "units.parse", "units.parse_bytes",
	// formats
	"json.marshal", "json.unmarshal", "json.is_valid", "base64.encode", "base64.decode", "base64.is_valid",
	"base64url.encode", "base64url.encode_no_pad", "base64url.decode", "hex.encode", "hex.decode",
	"urlquery.decode", "urlquery.encode", "uri.parse", "uri.is_valid", "crypto.sha256",
	"time.parse_rfc3339_ns", "time.parse_duration_ns",
	// kinds of values
	"is_number", "is_string", "is_boolean", "is_array", "is_set", "is_object", "is_null", "type_name",
	// nothing comes of these
	"print", "internal.print",
}

// capabilities are OPA's, with these functions alone and no way to fetch a schema.
func capabilities() *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion()
	c.Builtins = slices.DeleteFunc(c.Builtins, func(b *ast.Builtin) bool { return !slices.Contains(functions, b.Name) })
	c.AllowNet = []string{}
	return c
}

// isOPAs reports whether OPA has a function of this name, which is not here.
func isOPAs(name string) bool {
	return slices.ContainsFunc(ast.CapabilitiesForThisVersion().Builtins, func(b *ast.Builtin) bool { return b.Name == name })
}
