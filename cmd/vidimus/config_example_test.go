package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestExampleIsTheOneAtTheRoot(t *testing.T) {
	if root := mustReadFile(t, "../../config.example.yaml"); root != exampleConfig {
		t.Error("config.example.yaml at the root differs from the one in cmd/vidimus: copy the latter over it")
	}
}

func TestExampleHolds(t *testing.T) {
	inDirectory(t, map[string]string{"cosign.pub": readFixture(t, "release.pub")})
	mustLoad(t, exampleConfig, nil)
	mustLoad(t, uncommented(), nil)
}

// setting is a line whose # is followed by the key without a blank.
var setting = regexp.MustCompile(`(?m)^( *)#([a-zA-Z]+:)`)

// uncommented is the example with every default switched on.
func uncommented() string { return setting.ReplaceAllString(exampleConfig, "$1$2") }

// TestExampleShowsEveryKeyAndItsDefault walks the tables of keys by way of the
// schema, which is made from them, beside the example.
func TestExampleShowsEveryKeyAndItsDefault(t *testing.T) {
	commented := make(map[int]bool)
	for i, line := range strings.Split(exampleConfig, "\n") {
		commented[i+1] = setting.MatchString(line)
	}
	root, found := parseYAML("example", []byte(uncommented()))
	if err := found.err(); err != nil {
		t.Fatal(err)
	}
	shown := make(map[string]bool)
	walkExample(t, toJSON(t, configShape().schema).(map[string]any), root, func(key string, property map[string]any, p pair) {
		shown[key] = true
		def, hasDefault := property["default"]
		if commented[p.at.Line] && hasDefault && !isMapping(p.value) {
			if diff := cmp.Diff(def, toJSON(t, plainValue(p.value))); diff != "" {
				t.Errorf("line %d: %s is shown with another value than its default (-default +shown):\n%s", p.at.Line, key, diff)
			}
		}
		if commented[p.at.Line] && !hasDefault {
			t.Errorf("line %d: %s is shown as a default, and has none", p.at.Line, key)
		}
	})
	walkSchema("", toJSON(t, configShape().schema).(map[string]any), func(key string) {
		if !shown[key] && !explainedInProse[key] {
			t.Errorf("the example does not show %s", key)
		}
	})
}

// explainedInProse are keys of entries that cannot stand in an example that
// loads anywhere and for ever: they have a date, or files.
var explainedInProse = map[string]bool{
	"exceptions.*.match": true, "exceptions.*.digests": true, "exceptions.*.until": true, "exceptions.*.reason": true,
	"include.*.files": true, "include.*.scope": true,
	"authorities.*.signer": true, "authorities.*.signer.key": true, "authorities.*.signer.passwordFile": true, "authorities.*.signer.passwordEnv": true,
	"auth.access": true, "auth.access.*.subjects": true, "auth.access.*.match": true, "auth.access.*.actions": true,
}

func TestProseOfTheExampleShowsWhatItCannotSwitchOn(t *testing.T) {
	for key := range explainedInProse {
		name := key[strings.LastIndexByte(key, '.')+1:]
		if !regexp.MustCompile(`(?m)^#.*[{ ]` + name + `:`).MatchString(exampleConfig) {
			t.Errorf("the example's comments do not show %s", key)
		}
	}
}

func isMapping(n node) bool { return n.kind == mapping }

// walkExample calls visit for each key of n that schema knows, with * for names
// and indices.
func walkExample(t *testing.T, schema map[string]any, n node, visit func(string, map[string]any, pair)) {
	t.Helper()
	var walk func(key string, schema map[string]any, n node)
	walk = func(key string, schema map[string]any, n node) {
		for _, variant := range variants(schema) {
			properties, _ := variant["properties"].(map[string]any)
			additional, _ := variant["additionalProperties"].(map[string]any)
			items, _ := variant["items"].(map[string]any)
			for _, p := range n.pairs {
				if property, ok := properties[p.key].(map[string]any); ok {
					visit(joinKey(key, p.key), property, p)
					walk(joinKey(key, p.key), property, p.value)
				} else if additional != nil {
					walk(joinKey(key, "*"), additional, p.value)
				}
			}
			for _, item := range n.items {
				if items != nil {
					walk(joinKey(key, "*"), items, item)
				}
			}
		}
	}
	walk("", schema, n)
}

func walkSchema(key string, schema map[string]any, visit func(key string)) {
	for _, variant := range variants(schema) {
		properties, _ := variant["properties"].(map[string]any)
		for name, property := range properties {
			visit(joinKey(key, name))
			walkSchema(joinKey(key, name), property.(map[string]any), visit)
		}
		for _, inner := range []string{"additionalProperties", "items"} {
			if sub, ok := variant[inner].(map[string]any); ok {
				walkSchema(joinKey(key, "*"), sub, visit)
			}
		}
	}
}

// variants are a schema and the alternatives that it offers.
func variants(schema map[string]any) []map[string]any {
	all := []map[string]any{schema}
	alternatives, _ := schema["anyOf"].([]any)
	for _, a := range alternatives {
		all = append(all, a.(map[string]any))
	}
	return all
}

func toJSON(t *testing.T, v any) any {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var out any
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestSchemaAgreesWithTheDecoder checks documents with the few words of JSON
// schema that ours is written in: what the decoder accepts, the schema must, and
// faults of form it must find as well.
func TestSchemaAgreesWithTheDecoder(t *testing.T) {
	var out strings.Builder
	if err := writeSchema(&out); err != nil {
		t.Fatal(err)
	}
	var top map[string]any
	if err := json.Unmarshal([]byte(out.String()), &top); err != nil {
		t.Fatal(err)
	}
	if top["$schema"] != schemaVersion {
		t.Errorf("$schema is %v", top["$schema"])
	}
	for _, text := range []string{exampleConfig, uncommented(), "{version: 1, upstreams: {local: {credentials: docker}}}"} {
		if faults := againstSchema(top, instance(t, text), ""); len(faults) > 0 {
			t.Errorf("the schema refuses what the decoder accepts: %v", faults)
		}
	}
	for _, text := range []string{
		"{version: 2, upstreams: {a.example: {}}}",
		"{version: 1}",
		"{version: 1, upstreams: {}}",
		"{version: 1, upstreams: {a.example: {ulr: x}}}",
		"{version: 1, upstreams: {a.example: {}}, http: []}",
		"{version: 1, upstreams: {a.example: {}}, enforcement: never}",
		"{version: 1, upstreams: {a.example: {}}, cache: {maxSize: lots}}",
		"{version: 1, upstreams: {a.example: {}}, policies: [{match: x, require: [a]}]}",
		"{version: 1, upstreams: {a.example: {}}, policies: [{match: [], allow: unverified}]}",
		"{version: 1, upstreams: {a.example: {}}, revoked: [sha256:1]}",
		"{version: 1, upstreams: {a.example: {}}, hooks: {token: x}}",
	} {
		if faults := againstSchema(top, instance(t, text), ""); len(faults) == 0 {
			t.Errorf("the schema accepts %s", text)
		}
	}
}

func instance(t *testing.T, text string) any {
	t.Helper()
	n, found := parseYAML("instance", []byte(text))
	if err := found.err(); err != nil {
		t.Fatal(err)
	}
	return toJSON(t, plainValue(n))
}

// againstSchema is as much of JSON schema as ours uses.
func againstSchema(schema map[string]any, v any, at string) []string {
	var faults []string
	fail := func(what string) { faults = append(faults, at+": "+what) }
	if want, ok := schema["const"]; ok && fmt.Sprint(want) != fmt.Sprint(v) {
		fail("is not the constant")
	}
	if types, ok := schema["type"]; ok && !strings.Contains(fmt.Sprint(types), typeName(v)) {
		fail("is not a " + fmt.Sprint(types))
		return faults
	}
	if words, ok := schema["enum"].([]any); ok && !strings.Contains(fmt.Sprint(words)+" ", fmt.Sprint(v)) {
		fail("is none of its words")
	}
	if pattern, ok := schema["pattern"].(string); ok {
		if s, isText := v.(string); isText && !regexp.MustCompile(pattern).MatchString(s) {
			fail("does not fit its pattern")
		}
	}
	if alternatives, ok := schema["anyOf"].([]any); ok {
		fits := false
		for _, a := range alternatives {
			fits = fits || len(againstSchema(a.(map[string]any), v, at)) == 0
		}
		if !fits {
			fail("fits no alternative")
		}
	}
	if lowest, ok := schema["minLength"].(float64); ok && len(v.(string)) < int(lowest) {
		fail("is too short")
	}
	switch v := v.(type) {
	case map[string]any:
		faults = append(faults, objectAgainstSchema(schema, v, at)...)
	case []any:
		if lowest, ok := schema["minItems"].(float64); ok && len(v) < int(lowest) {
			fail("has too few items")
		}
		items, _ := schema["items"].(map[string]any)
		for i, item := range v {
			faults = append(faults, againstSchema(items, item, fmt.Sprintf("%s[%d]", at, i))...)
		}
	}
	return faults
}

func objectAgainstSchema(schema map[string]any, v map[string]any, at string) []string {
	var faults []string
	properties, _ := schema["properties"].(map[string]any)
	required, _ := schema["required"].([]any)
	for _, name := range required {
		if _, ok := v[name.(string)]; !ok {
			faults = append(faults, at+": misses "+name.(string))
		}
	}
	if lowest, ok := schema["minProperties"].(float64); ok && len(v) < int(lowest) {
		faults = append(faults, at+": is empty")
	}
	for name, value := range v {
		property, known := properties[name].(map[string]any)
		if additional, ok := schema["additionalProperties"].(map[string]any); !known && ok {
			property, known = additional, true
		}
		if !known && schema["additionalProperties"] != false {
			continue
		}
		if !known {
			faults = append(faults, at+": has an unknown key "+name)
			continue
		}
		faults = append(faults, againstSchema(property, value, joinKey(at, name))...)
	}
	return faults
}

func typeName(v any) string {
	switch v := v.(type) {
	case string:
		return "string"
	case bool:
		return "boolean"
	case float64:
		if v == float64(int(v)) {
			return "integer"
		}
		return "number"
	case map[string]any:
		return "object"
	case []any:
		return "array"
	}
	return "null"
}

func TestDefaultsOfTheTablesHold(t *testing.T) {
	d := decoder{}
	configShape().decode(&d, node{kind: mapping, pairs: []pair{
		{key: "version", value: node{tag: "!!int", value: "1"}},
		{key: "upstreams", value: node{kind: mapping, pairs: []pair{{key: "docker.io", value: node{kind: mapping}}}}},
	}})
	if err := d.faults.err(); err != nil {
		t.Error(err)
	}
}
