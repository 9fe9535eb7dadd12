package rego

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What docs/rego.md shows as the input of a module has every name that the schema
// knows, and no other.
func TestTheDocumentedInputsAreWhole(t *testing.T) {
	page, err := os.ReadFile("../../docs/rego.md")
	if err != nil {
		t.Fatal(err)
	}
	for title, input := range map[string]Input{"The input of an attestation's Rego": Predicate, "The input of a policy's Rego": Image} {
		_, section, _ := strings.Cut(string(page), "\n### "+title+"\n")
		_, section, _ = strings.Cut(section, "```json\n")
		section, _, _ = strings.Cut(section, "\n```")
		var shown any
		if err := json.Unmarshal([]byte(section), &shown); err != nil {
			t.Fatalf("%s: %v", title, err)
		}
		if diff := cmp.Diff(namesIn(schemaOf(input)), namesShown(shown)); diff != "" {
			t.Errorf("%s (-known +documented):\n%s", title, diff)
		}
	}
}

// namesIn are the names that a schema knows, with those inside of them; nil where it says
// nothing of any.
func namesIn(schema any) map[string]any {
	of, _ := schema.(map[string]any)
	if items, ok := of["items"]; ok {
		return namesIn(items)
	}
	properties, _ := of["properties"].(map[string]any)
	return namesOf(properties, namesIn)
}

func namesShown(value any) map[string]any {
	switch value := value.(type) {
	case []any:
		if len(value) > 0 {
			return namesShown(value[0])
		}
	case map[string]any:
		return namesOf(value, namesShown)
	}
	return nil
}

func namesOf(members map[string]any, inside func(any) map[string]any) map[string]any {
	if len(members) == 0 {
		return nil
	}
	names := make(map[string]any)
	for name, member := range members {
		if name != "annotations" { // whatever was signed
			names[name] = inside(member)
		}
	}
	return names
}
