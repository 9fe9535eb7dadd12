package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vidimus/policy"
	"vidimus/proxy"
)

// outputs are what scripts read, by the heading of docs/json.md under which it stands.
var outputs = []struct {
	heading string
	value   any
}{
	{"explain IMAGE", explanationJSON{}},
	{"explain ID", toldDecision{}},
	{"decisions", proxy.Record{}},
	{"policy test", testedAll{}},
	{"answers", proxy.Detail{}},
}

// The names and kinds of what scripts read are relied upon: this fails when one is
// renamed, dropped or made something else. One that is added is added to the golden file
// (-update) and to docs/json.md.
func TestTheNamesInJSONStay(t *testing.T) {
	var all []string
	for _, o := range outputs {
		all = append(all, members(o.heading, reflect.TypeOf(o.value))...)
	}
	got := strings.Join(all, "\n") + "\n"
	golden := filepath.Join("testdata", "json.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestEveryMemberOfJSONIsDocumented(t *testing.T) {
	data, err := os.ReadFile("../../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `([A-Za-z]+)` \\|")
	documented := make(map[string]bool)
	for _, match := range row.FindAllStringSubmatch(string(data), -1) {
		documented[match[1]] = true
	}
	written := make(map[string]bool)
	for _, o := range outputs {
		if !strings.Contains(string(data), "\n## "+o.heading+"\n") {
			t.Errorf("docs/json.md has no heading %q", o.heading)
		}
		for _, line := range append(members(o.heading, reflect.TypeOf(o.value)), members("evidence", reflect.TypeFor[policy.Piece]())...) {
			path, _, _ := strings.Cut(strings.TrimPrefix(line, o.heading), "  ")
			name := strings.TrimSuffix(path[strings.LastIndexByte(path, '.')+1:], "[]")
			written[name] = true
			if !documented[name] {
				t.Errorf("docs/json.md does not tell of %s, as in %s", name, line)
			}
		}
	}
	for name := range documented {
		if !written[name] {
			t.Errorf("docs/json.md tells of %s, which nothing writes", name)
		}
	}
}

// members lists what a type is in JSON, a line for each member: its path, its kind, and
// whether it may be missing.
func members(path string, t reflect.Type) []string {
	var lines []string
	for field := range reflectFields(t) {
		name, option, _ := strings.Cut(field.Tag.Get("json"), ",")
		at, kind := path+"."+name, field.Type
		for kind.Kind() == reflect.Pointer || kind.Kind() == reflect.Slice && kind != reflect.TypeFor[json.RawMessage]() {
			if kind.Kind() == reflect.Slice {
				at += "[]"
			}
			kind = kind.Elem()
		}
		lines = append(lines, strings.TrimSuffix(at+"  "+kindOf(kind)+" "+option, " "))
		if kind.Kind() == reflect.Struct && kind != reflect.TypeFor[time.Time]() {
			lines = append(lines, members(at, kind)...)
		}
	}
	return lines
}

// reflectFields yields the fields that JSON has, those of embedded structs included.
func reflectFields(t reflect.Type) func(func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for _, field := range reflect.VisibleFields(t) {
			if !field.Anonymous && field.IsExported() && field.Tag.Get("json") != "-" && !yield(field) {
				return
			}
		}
	}
}

func kindOf(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Time](), t == reflect.TypeFor[policy.Enforcement]():
		return "string"
	case t == reflect.TypeFor[json.RawMessage]():
		return "list of evidence"
	case t.Kind() == reflect.Struct, t.Kind() == reflect.Map:
		return "object"
	case t.Kind() == reflect.Bool:
		return "boolean"
	case t.Kind() == reflect.Int:
		return "number"
	}
	return t.Kind().String()
}
