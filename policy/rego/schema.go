package rego

import (
	"encoding/json"
)

// What is known of the input, as JSON schemas: a rule that reads anything else of it is
// undefined for ever, which is found when it is compiled. Package policy makes the
// inputs, and its tests hold them against these.
const (
	imageSchema = `{
		"type": "object", "additionalProperties": false, "properties": {
			"repository": {"type": "string"}, "digest": {"type": "string"}, "tag": {"type": "string"}
		}
	}`
	signerFields    = `"issuer": {"type": "string"}, "subject": {"type": "string"}, "signedAt": {"type": "string"}, `
	listOfText      = `{"type": "array", "items": {"type": "string"}}`
	signatureSchema = `{
		"type": "object", "additionalProperties": false, "properties": {` + signerFields + `
			"form": {"type": "string"}, "digest": {"type": "string"}, "authorities": ` + listOfText + `, "keyIDs": ` + listOfText + `,
			"claimedName": {"type": "string"}, "annotations": {"type": "object"}, "counted": {"type": "boolean"}
		}
	}`
	attestationFields = signerFields + `
			"digest": {"type": "string"}, "authorities": ` + listOfText + `, "keyIDs": ` + listOfText + `,
			"predicateType": {"type": "string"}, "predicate": {}`
	attestationSchema = `{"type": "object", "additionalProperties": false, "properties": {` + attestationFields + `}}`
)

// schemaOf returns the schema of an input; nil when it may have any form.
func schemaOf(input Input) any {
	text := ""
	switch input {
	case Image:
		text = `{"type": "object", "additionalProperties": false, "properties": {
			"image": ` + imageSchema + `,
			"signatures": {"type": "array", "items": ` + signatureSchema + `},
			"attestations": {"type": "array", "items": ` + attestationSchema + `}
		}}`
	case Predicate:
		text = `{"type": "object", "additionalProperties": false, "properties": {
			"image": ` + imageSchema + `, ` + attestationFields + `
		}}`
	default:
		return nil
	}
	var schema any
	if err := json.Unmarshal([]byte(text), &schema); err != nil {
		panic(err) // a constant that the tests read
	}
	return schema
}
