package main

import (
	"encoding/json"
	"io"
	"strconv"
)

// schemaVersion is the dialect of JSON schema that is written.
const schemaVersion = "https://json-schema.org/draft/2020-12/schema"

// writeSchema writes the JSON schema of the configuration, for editors. It says
// less than the decoder: what a value must look like, not what must fit together.
func writeSchema(w io.Writer) error {
	top := schema{
		"$schema": schemaVersion,
		"title":   "Vidimus configuration",
	}
	for k, v := range configShape().schema {
		top[k] = v
	}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(top)
}

func objectSchema[T any](fields []field[T]) schema {
	properties := make(schema)
	var must []string
	for _, f := range fields {
		property := schema{"description": f.doc}
		for k, v := range f.schema {
			property[k] = v
		}
		if f.def != "" {
			property["default"] = plainValue(f.absent(node{}))
		}
		if f.must {
			must = append(must, f.name)
		}
		properties[f.name] = property
	}
	out := schema{"type": "object", "additionalProperties": false, "properties": properties}
	if must != nil {
		out["required"] = must
	}
	return out
}

// plainValue is n as encoding/json understands it.
func plainValue(n node) any {
	switch n.kind {
	case mapping:
		out := make(map[string]any)
		for _, p := range n.pairs {
			out[p.key] = plainValue(p.value)
		}
		return out
	case sequence:
		out := make([]any, len(n.items))
		for i, item := range n.items {
			out[i] = plainValue(item)
		}
		return out
	}
	switch n.tag {
	case "!!bool":
		return n.value == "true"
	case "!!int":
		if v, err := strconv.Atoi(n.value); err == nil {
			return v
		}
	}
	return n.value
}
