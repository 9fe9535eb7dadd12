package envelope

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// PredicateCustom is the predicate type of an attestation whose predicate is text of
// any kind. Source: cosign specs/COSIGN_PREDICATE_SPEC.md.
const PredicateCustom = "https://cosign.sigstore.dev/attestation/v1"

// NewSubject returns the subject of a statement: a digest ("sha256:" and hexadecimal),
// the name that is claimed for it, and annotations. In a signature of cosign's the name
// is one of the annotations (see StatementSubject.Claims); in an attestation it is the
// subject's own.
func NewSubject(digest, name string, annotations map[string]any) (StatementSubject, error) {
	s := StatementSubject{Digest: digest, Name: name}
	if len(annotations) == 0 {
		return s, nil
	}
	encoded, err := json.Marshal(annotations)
	if err != nil {
		return StatementSubject{}, fmt.Errorf("annotations of the subject: %w", err)
	}
	s.annotations = encoded
	return s, nil
}

// SignatureStatement returns the statement that is a signature of the manifest with
// this digest, as cosign v3 writes it. It claims name for the manifest, unless that is
// empty, and holds annotations besides, among which a name may not be.
func SignatureStatement(digest, name string, annotations map[string]any) ([]byte, error) {
	all := make(map[string]any, len(annotations)+1)
	for key, value := range annotations {
		if key == DockerReference {
			return nil, fmt.Errorf("annotation %s would claim a name, which is not claimed so", DockerReference)
		}
		all[key] = value
	}
	if name != "" {
		all[DockerReference] = name
	}
	subject, err := NewSubject(digest, "", all)
	if err != nil {
		return nil, err
	}
	return EncodeStatement(Statement{PredicateType: PredicateCosignSign, Subjects: []StatementSubject{subject}}, json.RawMessage(`{}`))
}

// EncodeStatement returns s, with predicate, as an in-toto statement v1: names in the
// order of the in-toto protocol buffers, annotations sorted, predicate as it is but
// for white space, <, > and & escaped. It refuses what ParseStatement would not accept back.
func EncodeStatement(s Statement, predicate json.RawMessage) ([]byte, error) {
	if s.PredicateType == "" || kind(predicate) != "an object" {
		return nil, errors.New("statement: a predicate type and a predicate that is an object are wanted")
	}
	subjects := make([]ordered, len(s.Subjects))
	for i, subject := range s.Subjects {
		if err := checkDigest(subject.Digest); err != nil {
			return nil, fmt.Errorf("statement: %w", err)
		}
		if !utf8.ValidString(subject.Name) {
			return nil, errors.New("statement: the subject's name is not valid UTF-8")
		}
		if subject.Name != "" {
			subjects[i] = append(subjects[i], member{"name", subject.Name})
		}
		subjects[i] = append(subjects[i], member{"digest", ordered{{"sha256", subject.Digest[len(digestPrefix):]}}})
		if len(subject.annotations) > 0 {
			subjects[i] = append(subjects[i], member{"annotations", subject.annotations})
		}
	}
	data, err := json.Marshal(ordered{
		{"_type", statementV1}, {"subject", subjects},
		{"predicateType", s.PredicateType}, {"predicate", predicate},
	})
	if err != nil {
		return nil, fmt.Errorf("statement: %w", err)
	}
	again, err := ParseStatement(data)
	if err != nil {
		return nil, err
	}
	for _, subject := range again.Subjects {
		if _, _, err := subject.Claims(); err != nil {
			return nil, err
		}
	}
	return data, nil
}

// SignedStatement returns what a signature of a statement is over: DSSE's
// pre-authentication encoding. Source: github.com/secure-systems-lab/dsse protocol.md.
func SignedStatement(statement []byte) []byte { return pae(payloadTypeInToto, statement) }

// Sealed is all that a bundle is made of. Either Certificate or KeyHint says who
// signed, and either Statement or Digest what.
type Sealed struct {
	Certificate []byte // of the signer, DER
	KeyHint     string // at the signer's key

	// Entries are the log's, each in protobuf's JSON form of a TransparencyLogEntry.
	Entries []json.RawMessage
	// Timestamps are RFC 3161 responses.
	Timestamps [][]byte

	Statement []byte
	Digest    []byte // SHA-256 of a message that is signed as it is

	Signature []byte
}

// EncodeBundle returns s as a sigstore bundle v0.3 (MediaTypeBundle), its names in the
// order of the protocol buffers. It refuses what ParseBundle would not accept back.
func EncodeBundle(s Sealed) ([]byte, error) {
	var material ordered
	if s.Certificate != nil {
		material = ordered{{"certificate", ordered{{"rawBytes", s.Certificate}}}}
	} else {
		material = ordered{{"publicKey", ordered{{"hint", s.KeyHint}}}}
	}
	if len(s.Entries) > 0 {
		material = append(material, member{"tlogEntries", s.Entries})
	}
	if len(s.Timestamps) > 0 {
		stamps := make([]ordered, len(s.Timestamps))
		for i, stamp := range s.Timestamps {
			stamps[i] = ordered{{"signedTimestamp", stamp}}
		}
		material = append(material, member{"timestampVerificationData", ordered{{"rfc3161Timestamps", stamps}}})
	}
	content := member{messageSignature, ordered{
		{"messageDigest", ordered{{"algorithm", "SHA2_256"}, {"digest", s.Digest}}},
		{"signature", s.Signature},
	}}
	if s.Statement != nil {
		content = member{dsseEnvelope, ordered{
			{"payload", s.Statement}, {"payloadType", payloadTypeInToto},
			{"signatures", []ordered{{{"sig", s.Signature}}}},
		}}
	}
	data, err := json.Marshal(ordered{{"mediaType", MediaTypeBundle}, {"verificationMaterial", material}, content})
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	if _, err := ParseBundle(MediaTypeBundle, data); err != nil {
		return nil, err
	}
	return data, nil
}
