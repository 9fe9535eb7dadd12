package envelope

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// MaxSubjects is how many subjects one statement may have.
const MaxSubjects = 1024

// PredicateCosignSign is the predicate type of the statement that is a signature of
// an image; every other one is an attestation about it. Source: cosign
// pkg/types/predicate.go.
const PredicateCosignSign = "https://sigstore.dev/cosign/sign/v1"

const (
	payloadTypeInToto = "application/vnd.in-toto+json"
	statementV01      = "https://in-toto.io/Statement/v0.1"
	statementV1       = "https://in-toto.io/Statement/v1"
)

// Subjects returns the digests ("sha256:" and hexadecimal) of what the document
// in data is about, sorted, each once, at least one. mediaType is one for which
// IsEvidence holds; a bundle must be of that very media type.
//
// Nothing is verified: the answer says what the document is about if its
// signature holds, and serves to tell a signature from other content.
//
// Sources: github.com/secure-systems-lab/dsse envelope.md, in-toto attestation
// spec/v1/statement.md, sigstore protobuf-specs sigstore_bundle.proto.
func Subjects(mediaType string, data []byte) ([]string, error) {
	digests, err := subjects(mediaType, data)
	if err != nil {
		return nil, err
	}
	slices.Sort(digests)
	return slices.Compact(digests), nil
}

func subjects(mediaType string, data []byte) ([]string, error) {
	switch {
	case mediaType == MediaTypeSimpleSigning:
		p, err := ParsePayload(data)
		if err != nil {
			return nil, err
		}
		return []string{p.Digest}, nil
	case mediaType == MediaTypeDSSE:
		if err := CheckJSON(data, MaxDepth); err != nil {
			return nil, fmt.Errorf("envelope: %w", err)
		}
		return envelopeSubjects(data)
	case IsBundle(mediaType):
		digests, err := bundleSubjects(mediaType, data)
		if err != nil {
			return nil, fmt.Errorf("bundle: %w", err)
		}
		return digests, nil
	}
	return nil, fmt.Errorf("media type %s is not one of evidence", quote(mediaType))
}

// envelopeSubjects reads a DSSE envelope with an in-toto statement. Names that
// DSSE does not know are ignored, as it wants.
func envelopeSubjects(data json.RawMessage) ([]string, error) {
	members, err := object("the envelope", data)
	if err != nil {
		return nil, err
	}
	payload, err := envelopePayload(members)
	if err != nil {
		return nil, err
	}
	if kind(members["signatures"]) != "a list" {
		return nil, fmt.Errorf("signatures of the envelope is %s, not a list", kind(members["signatures"]))
	}
	statement, err := ParseStatement(payload)
	if err != nil {
		return nil, err
	}
	return statement.Digests(), nil
}

// envelopePayload returns the payload of a DSSE envelope with these members, which
// is to be an in-toto statement.
func envelopePayload(members map[string]json.RawMessage) ([]byte, error) {
	payloadType, err := text("payloadType of the envelope", members["payloadType"])
	if err != nil {
		return nil, err
	}
	if payloadType != payloadTypeInToto {
		return nil, fmt.Errorf("payloadType of the envelope is %s, not %q", quote(payloadType), payloadTypeInToto)
	}
	encoded, err := text("payload of the envelope", members["payload"])
	if err != nil {
		return nil, err
	}
	payload, err := decodeBase64(encoded)
	if err != nil {
		return nil, fmt.Errorf("payload of the envelope: %w", err)
	}
	return payload, nil
}

// decodeBase64 takes the standard and the URL-safe alphabet, as DSSE wants.
func decodeBase64(encoded string) ([]byte, error) {
	decoded, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		decoded, err = base64.URLEncoding.Strict().DecodeString(encoded)
	}
	if err != nil {
		return nil, errors.New("not base64")
	}
	return decoded, nil
}

// Statement is what an in-toto statement says, as far as it is decided upon.
type Statement struct {
	PredicateType string // of a signature of cosign's: PredicateCosignSign
	Subjects      []StatementSubject
	Predicate     json.RawMessage // as it stands in the statement; nil when there is none
}

// StatementSubject is one thing that a statement is about, named by a sha256
// digest.
type StatementSubject struct {
	Digest string // "sha256:" and 64 lower-case hexadecimal digits
	Name   string // as in-toto has it; cosign's signatures have none

	annotations json.RawMessage
}

// Digests returns the digests of the subjects, in their order.
func (s Statement) Digests() []string {
	digests := make([]string, 0, len(s.Subjects))
	for _, subject := range s.Subjects {
		digests = append(digests, subject.Digest)
	}
	return digests
}

// ParseStatement reads an in-toto statement, v0.1 or v1. Subjects that are named by
// other algorithms than sha256 only are left out; at least one is left. Names that
// in-toto does not know are ignored, as it wants. When the predicate type is that of
// a signature, though, there are none, and the predicate, when there is one, is an
// object: cosign before v3.0.5 wrote none.
func ParseStatement(data []byte) (Statement, error) {
	if err := CheckJSON(data, MaxDepth); err != nil {
		return Statement{}, fmt.Errorf("statement: %w", err)
	}
	members, err := object("the statement", data)
	if err != nil {
		return Statement{}, err
	}
	version, err := text("_type of the statement", members["_type"])
	if err != nil {
		return Statement{}, err
	}
	if version != statementV01 && version != statementV1 {
		return Statement{}, fmt.Errorf("_type of the statement is %s, not an in-toto statement v0.1 or v1", quote(version))
	}
	var s Statement
	elements, err := list("subject of the statement", members["subject"], MaxSubjects)
	if err != nil {
		return Statement{}, err
	}
	for _, element := range elements {
		subject, err := parseSubject(element)
		if err != nil {
			return Statement{}, err
		}
		if subject.Digest != "" {
			s.Subjects = append(s.Subjects, subject)
		}
	}
	if len(s.Subjects) == 0 {
		return Statement{}, errors.New("the statement names no subject by a sha256 digest")
	}
	return s, s.parsePredicate(members)
}

// parsePredicate reads the type of the predicate. Attestations of old have been
// seen without one, and say what they are about all the same.
func (s *Statement) parsePredicate(members map[string]json.RawMessage) error {
	s.Predicate = members["predicate"]
	raw, ok := members["predicateType"]
	if !ok {
		return nil
	}
	var err error
	if s.PredicateType, err = text("predicateType of the statement", raw); err != nil {
		return err
	}
	if s.PredicateType != PredicateCosignSign {
		return nil
	}
	names := []string{"_type", "subject", "predicateType"}
	if predicate, ok := members["predicate"]; ok {
		if kind(predicate) != "an object" {
			return fmt.Errorf("predicate of the statement is %s, not an object", kind(predicate))
		}
		names = append(names, "predicate")
	}
	return exact("the statement", members, names...)
}

// parseSubject reads one statement subject; its digest is empty when it is named by
// other algorithms only.
func parseSubject(data json.RawMessage) (StatementSubject, error) {
	members, err := object("a subject of the statement", data)
	if err != nil {
		return StatementSubject{}, err
	}
	digests, err := object("digest of a subject of the statement", members["digest"])
	if err != nil {
		return StatementSubject{}, err
	}
	value, ok := digests["sha256"]
	if !ok {
		return StatementSubject{}, nil
	}
	encoded, err := text("sha256 of a subject of the statement", value)
	if err != nil {
		return StatementSubject{}, err
	}
	s := StatementSubject{Digest: digestPrefix + encoded, annotations: members["annotations"]}
	if err := checkHex(encoded); err != nil {
		return StatementSubject{}, err
	}
	if name, ok := members["name"]; ok && kind(name) != "null" {
		if s.Name, err = text("name of a subject of the statement", name); err != nil {
			return StatementSubject{}, err
		}
	}
	return s, nil
}

// Claims returns what a signature says of the subject besides its digest. The
// annotations are those that its signer added (cosign sign -a), as ParsePayload has
// them; among them, under "docker-reference" as in a simple-signing payload, there
// may be the name that is claimed for it. Without that, its name as in-toto has it
// is claimed. It may be empty.
func (s StatementSubject) Claims() (name string, annotations map[string]any, err error) {
	if len(s.annotations) > 0 {
		if annotations, err = parseAnnotations(Modern, "annotations of the subject", s.annotations); err != nil {
			return "", nil, err
		}
	}
	name = s.Name
	if claimed, ok := annotations[DockerReference]; ok {
		if name, ok = claimed.(string); !ok {
			return "", nil, fmt.Errorf("annotation %s of the subject is not a string", DockerReference)
		}
	}
	return name, annotations, checkReference(name)
}
