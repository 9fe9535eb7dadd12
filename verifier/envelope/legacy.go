package envelope

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
)

// LocalBundle is the signature of a file as cosign before v3 writes it with --bundle.
// Nothing in it is to be trusted.
type LocalBundle struct {
	Signature []byte
	// Certificate is what is under "cert": of the signer, or the signer's public key,
	// and never a key to trust. nil when there is none.
	Certificate []byte
	// Log is the log's bundle as it is, nil when there is none.
	Log json.RawMessage
}

// ParseLocalBundle reads one, whole: no names but those of the format. Source: cosign
// pkg/cosign/fetch.go, LocalSignedPayload.
func ParseLocalBundle(data []byte) (LocalBundle, error) {
	b, err := parseLocalBundle(data)
	if err != nil {
		return LocalBundle{}, fmt.Errorf("bundle: %w", err)
	}
	return b, nil
}

func parseLocalBundle(data []byte) (b LocalBundle, err error) {
	if err := CheckJSON(data, MaxDepth); err != nil {
		return b, err
	}
	members, err := object("the bundle", data)
	if err != nil {
		return b, err
	}
	if err := exactly("the bundle", members, []string{"base64Signature"}, "cert", "rekorBundle"); err != nil {
		return b, err
	}
	if b.Signature, err = base64Member(members, "base64Signature"); err != nil || len(b.Signature) == 0 {
		return b, errors.New("base64Signature is not a signature in base64")
	}
	if raw, ok := members["cert"]; ok {
		certificate, err := text("cert", raw)
		if err != nil {
			return b, err
		}
		b.Certificate = []byte(certificate)
	}
	if raw, ok := members["rekorBundle"]; ok && kind(raw) != "null" {
		if _, err := object("rekorBundle", raw); err != nil {
			return b, err
		}
		b.Log = raw
	}
	return b, nil
}

// EncodeLocalBundle returns b as cosign writes it.
func EncodeLocalBundle(b LocalBundle) ([]byte, error) {
	document := ordered{{"base64Signature", b.Signature}}
	if b.Certificate != nil {
		document = append(document, member{"cert", b.Certificate})
	}
	if b.Log != nil {
		document = append(document, member{"rekorBundle", b.Log})
	}
	data, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	_, err = ParseLocalBundle(data)
	return data, err
}

// Entry is what the entry of a log says: who signed what.
type Entry struct {
	Digest    string // of what is signed: "sha256:" and hexadecimal
	Signature []byte
	Signer    []byte // public key or certificate, in PEM
}

// ParseLogBundle reads what cosign keeps of a log's entry beside a signature, and
// returns what the entry says. The log's promise is not looked at: without a trust
// root it proves nothing. Source: cosign pkg/cosign/bundle, and the types rekord and
// hashedrekord of Rekor.
func ParseLogBundle(data []byte) (Entry, error) {
	e, err := parseLogBundle(data)
	if err != nil {
		return Entry{}, fmt.Errorf("log entry: %w", err)
	}
	return e, nil
}

func parseLogBundle(data []byte) (Entry, error) {
	if err := CheckJSON(data, MaxDepth); err != nil {
		return Entry{}, err
	}
	members, err := exactObject("the log's bundle", data, "SignedEntryTimestamp", "Payload")
	if err != nil {
		return Entry{}, err
	}
	if promise, err := base64Member(members, "SignedEntryTimestamp"); err != nil || len(promise) == 0 {
		return Entry{}, errors.New("SignedEntryTimestamp is not a signature in base64")
	}
	payload, err := exactObject("Payload", members["Payload"], "body", "integratedTime", "logIndex", "logID")
	if err != nil {
		return Entry{}, err
	}
	body, err := base64Member(payload, "body")
	if err != nil {
		return Entry{}, err
	}
	return parseEntryBody(body)
}

func parseEntryBody(body []byte) (Entry, error) {
	if err := CheckJSON(body, MaxDepth); err != nil {
		return Entry{}, err
	}
	members, err := exactObject("the entry", body, "apiVersion", "kind", "spec")
	if err != nil {
		return Entry{}, err
	}
	kind, err := text("kind", members["kind"])
	if err != nil {
		return Entry{}, err
	}
	if kind != "hashedrekord" && kind != "rekord" {
		return Entry{}, fmt.Errorf("the entry is of kind %s, not one of a signature of a file", quote(kind))
	}
	spec, err := exactObject("spec", members["spec"], "data", "signature")
	if err != nil {
		return Entry{}, err
	}
	return parseEntrySpec(spec)
}

func parseEntrySpec(spec map[string]json.RawMessage) (e Entry, err error) {
	signed, err := object("data", spec["data"])
	if err != nil {
		return e, err
	}
	hash, err := exactObject("hash", signed["hash"], "algorithm", "value")
	if err != nil {
		return e, err
	}
	algorithm, err := text("algorithm", hash["algorithm"])
	if err != nil {
		return e, err
	}
	value, err := text("value", hash["value"])
	if err != nil {
		return e, err
	}
	e.Digest = algorithm + ":" + value
	if err := checkDigest(e.Digest); err != nil {
		return e, err
	}
	signature, err := object("signature", spec["signature"])
	if err != nil {
		return e, err
	}
	if e.Signature, err = base64Member(signature, "content"); err != nil {
		return e, err
	}
	key, err := object("publicKey", signature["publicKey"])
	if err != nil {
		return e, err
	}
	e.Signer, err = base64Member(key, "content")
	return e, err
}

// base64Member decodes a member that is bytes.
func base64Member(members map[string]json.RawMessage, name string) ([]byte, error) {
	encoded, err := text(name, members[name])
	if err != nil {
		return nil, err
	}
	data, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, fmt.Errorf("%s is not base64", name)
	}
	return data, nil
}

// BundleMediaType returns the media type that a bundle in a file gives itself, empty
// for what is none.
func BundleMediaType(data []byte) string {
	var b struct {
		MediaType string `json:"mediaType"`
	}
	if json.Unmarshal(data, &b) != nil || !IsBundle(b.MediaType) {
		return ""
	}
	return b.MediaType
}
