package envelope

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// MaxSubjects is how many subjects one statement may have.
const MaxSubjects = 1024

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
	case isBundle(mediaType):
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
	payloadType, err := text("payloadType of the envelope", members["payloadType"])
	if err != nil {
		return nil, err
	}
	if payloadType != payloadTypeInToto {
		return nil, fmt.Errorf("payloadType of the envelope is %s, not %q", quote(payloadType), payloadTypeInToto)
	}
	if kind(members["signatures"]) != "a list" {
		return nil, fmt.Errorf("signatures of the envelope is %s, not a list", kind(members["signatures"]))
	}
	encoded, err := text("payload of the envelope", members["payload"])
	if err != nil {
		return nil, err
	}
	statement, err := decodeBase64(encoded)
	if err != nil {
		return nil, fmt.Errorf("payload of the envelope: %w", err)
	}
	return statementSubjects(statement)
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

func statementSubjects(data []byte) ([]string, error) {
	if err := CheckJSON(data, MaxDepth); err != nil {
		return nil, fmt.Errorf("statement: %w", err)
	}
	members, err := object("the statement", data)
	if err != nil {
		return nil, err
	}
	version, err := text("_type of the statement", members["_type"])
	if err != nil {
		return nil, err
	}
	if version != statementV01 && version != statementV1 {
		return nil, fmt.Errorf("_type of the statement is %s, not an in-toto statement v0.1 or v1", quote(version))
	}
	elements, err := list("subject of the statement", members["subject"], MaxSubjects)
	if err != nil {
		return nil, err
	}
	var digests []string
	for _, element := range elements {
		digest, err := subjectDigest(element)
		if err != nil {
			return nil, err
		}
		if digest != "" {
			digests = append(digests, digest)
		}
	}
	if len(digests) == 0 {
		return nil, errors.New("the statement names no subject by a sha256 digest")
	}
	return digests, nil
}

// subjectDigest returns the sha256 digest of one statement subject, or nothing
// when it is named by other algorithms only.
func subjectDigest(data json.RawMessage) (string, error) {
	subject, err := object("a subject of the statement", data)
	if err != nil {
		return "", err
	}
	digests, err := object("digest of a subject of the statement", subject["digest"])
	if err != nil {
		return "", err
	}
	value, ok := digests["sha256"]
	if !ok {
		return "", nil
	}
	encoded, err := text("sha256 of a subject of the statement", value)
	if err != nil {
		return "", err
	}
	return digestPrefix + encoded, checkHex(encoded)
}

// bundleSubjects reads a sigstore bundle. Its names are exact: a parser of
// protobuf's JSON form takes each name in a second spelling, under which another
// subject could hide.
func bundleSubjects(mediaType string, data []byte) ([]string, error) {
	if err := CheckJSON(data, MaxDepth); err != nil {
		return nil, err
	}
	members, err := object("the bundle", data)
	if err != nil {
		return nil, err
	}
	content := "dsseEnvelope"
	if _, ok := members["messageSignature"]; ok {
		content = "messageSignature"
	}
	if err := exact("the bundle", members, "mediaType", "verificationMaterial", content); err != nil {
		return nil, err
	}
	own, err := text("mediaType", members["mediaType"])
	if err != nil {
		return nil, err
	}
	if own != mediaType {
		return nil, fmt.Errorf("mediaType is %s, not that of its blob, %q", quote(own), mediaType)
	}
	if _, err := object("verificationMaterial", members["verificationMaterial"]); err != nil {
		return nil, err
	}
	if content == "dsseEnvelope" {
		return envelopeSubjects(members[content])
	}
	return messageSubjects(members[content])
}

func messageSubjects(data json.RawMessage) ([]string, error) {
	members, err := exactObject("messageSignature", data, "messageDigest", "signature")
	if err != nil {
		return nil, err
	}
	digest, err := exactObject("messageDigest", members["messageDigest"], "algorithm", "digest")
	if err != nil {
		return nil, err
	}
	algorithm, err := text("algorithm of messageDigest", digest["algorithm"])
	if err != nil {
		return nil, err
	}
	if algorithm != "SHA2_256" {
		return nil, fmt.Errorf("algorithm of messageDigest is %s, not SHA2_256", quote(algorithm))
	}
	encoded, err := text("digest of messageDigest", digest["digest"])
	if err != nil {
		return nil, err
	}
	sum, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || len(sum) != 32 || strings.ContainsAny(encoded, "\r\n") {
		return nil, errors.New("digest of messageDigest is not 32 bytes in base64")
	}
	return []string{digestPrefix + hex.EncodeToString(sum)}, nil
}
