package envelope

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Limits on what proves one bundle. Log entries and timestamps hold keys and nested
// structures of whoever wrote them, and to read one takes time that grows with the
// square of its size or faster. A log entry has some 3 KiB, a timestamp with the chain
// of its authority 8 KiB.
const (
	// MaxProofs is how many log entries, and how many timestamps, one bundle may have.
	MaxProofs = 32
	// MaxEntrySize and MaxStampSize are how many bytes one of them may have, as JSON.
	MaxEntrySize = 24 << 10
	MaxStampSize = 12 << 10
	// MaxMaterialSize is how many bytes all that a bundle is verified with may have.
	MaxMaterialSize = 64 << 10
)

// Bundle is a sigstore bundle. Nothing in it is to be trusted, and no part of it is a
// key: what a signer's certificate or the hint at a key says is not returned.
type Bundle struct {
	// Certificate says that the signer is named by a certificate in the bundle, and
	// not by a key that is known from elsewhere.
	Certificate bool

	// Proofs is how many log entries and timestamps there are. What they prove is not
	// looked at here.
	Proofs int

	// Signed is what Signature is over: the pre-authentication encoding of Statement.
	// Both are nil in a bundle over a message, which is signed as it is and stands
	// elsewhere.
	Signed    []byte
	Statement []byte

	// Digest is of the message, in a bundle over one: "sha256:" and hexadecimal.
	Digest string

	Signature []byte
}

// ParseBundle reads a sigstore bundle of any version up to v0.3 as strictly as it is
// decided upon: no names but those of its format in the bundle, in what it says of
// the signer, and in what is signed; exactly one signature; at most MaxProofs log
// entries and timestamps. Of these only the form is looked at, and what they say left
// alone: without a trust root they prove nothing. mediaType is that of the blob, which
// the bundle must name as its own. Statement is not parsed: see ParseStatement.
//
// Sources: sigstore protobuf-specs sigstore_bundle.proto, cosign
// specs/BUNDLE_SPEC.md, github.com/secure-systems-lab/dsse protocol.md.
func ParseBundle(mediaType string, data []byte) (Bundle, error) {
	b, err := parseBundle(mediaType, data)
	if err != nil {
		return Bundle{}, fmt.Errorf("bundle: %w", err)
	}
	return b, nil
}

func parseBundle(mediaType string, data []byte) (b Bundle, err error) {
	members, content, err := bundleMembers(mediaType, data)
	if err != nil {
		return Bundle{}, err
	}
	if b.Certificate, b.Proofs, err = parseMaterial(mediaType, members["verificationMaterial"]); err != nil {
		return Bundle{}, err
	}
	if content == messageSignature {
		err = b.parseMessage(members[content])
	} else {
		err = b.parseEnvelope(members[content])
	}
	return b, err
}

// The two kinds of content.
const (
	dsseEnvelope     = "dsseEnvelope"
	messageSignature = "messageSignature"
)

// bundleMembers returns the members of a bundle and which of them is its content. Its
// names are exact: a parser of protobuf's JSON form takes each name in a second
// spelling, under which another subject could hide.
func bundleMembers(mediaType string, data []byte) (members map[string]json.RawMessage, content string, err error) {
	if err := CheckJSON(data, MaxDepth); err != nil {
		return nil, "", err
	}
	if members, err = object("the bundle", data); err != nil {
		return nil, "", err
	}
	content = dsseEnvelope
	if _, ok := members[messageSignature]; ok {
		content = messageSignature
	}
	if err := exact("the bundle", members, "mediaType", "verificationMaterial", content); err != nil {
		return nil, "", err
	}
	own, err := text("mediaType", members["mediaType"])
	if err != nil {
		return nil, "", err
	}
	if own != mediaType || !IsBundle(mediaType) {
		return nil, "", fmt.Errorf("mediaType is %s, not that of its blob, %q", quote(own), mediaType)
	}
	return members, content, nil
}

// parseMaterial reads what a bundle brings along to verify it with.
func parseMaterial(mediaType string, data json.RawMessage) (certificate bool, proofs int, err error) {
	const what = "verificationMaterial"
	members, err := object(what, data)
	if err != nil {
		return false, 0, err
	}
	entries, err := list("tlogEntries", orEmpty(members["tlogEntries"], "[]"), MaxProofs)
	if err != nil {
		return false, 0, err
	}
	if err := checkEntries(entries, mediaType == mediaTypeBundle01); err != nil {
		return false, 0, err
	}
	stamped, err := object("timestampVerificationData", orEmpty(members["timestampVerificationData"], "{}"))
	if err != nil {
		return false, 0, err
	}
	if err := exactly("timestampVerificationData", stamped, nil, "rfc3161Timestamps"); err != nil {
		return false, 0, err
	}
	stamps, err := list("rfc3161Timestamps", orEmpty(stamped["rfc3161Timestamps"], "[]"), MaxProofs)
	if err != nil {
		return false, 0, err
	}
	if err := checkSizes(data, entries, stamps); err != nil {
		return false, 0, err
	}
	signers := []string{"publicKey", "certificate", "x509CertificateChain"}
	for _, signer := range signers {
		if _, ok := members[signer]; ok {
			if _, err := object(signer, members[signer]); err != nil {
				return false, 0, err
			}
			return signer != "publicKey", len(entries) + len(stamps), exactly(what, members, []string{signer}, "tlogEntries", "timestampVerificationData")
		}
	}
	return false, 0, fmt.Errorf("%s has none of %s", what, strings.Join(signers, ", "))
}

// checkSizes keeps what proves a bundle within the limits.
func checkSizes(material json.RawMessage, entries, stamps []json.RawMessage) error {
	for _, part := range []struct {
		what  string
		all   []json.RawMessage
		limit int
	}{{"a log entry", entries, MaxEntrySize}, {"a timestamp", stamps, MaxStampSize}, {"verificationMaterial", []json.RawMessage{material}, MaxMaterialSize}} {
		for _, data := range part.all {
			if len(data) > part.limit {
				return fmt.Errorf("%s has more than %d bytes", part.what, part.limit)
			}
		}
	}
	return nil
}

// checkEntries wants log entries in the form without which a verifier that asks for
// them would refuse the bundle: one of them with a promise of the log's in v0.1, with a
// proof of inclusion since. What they say is not looked at.
func checkEntries(entries []json.RawMessage, promise bool) error {
	const what = "a log entry"
	proven := len(entries) == 0
	for _, entry := range entries {
		members, err := object(what, entry)
		if err != nil {
			return err
		}
		if err := exactly(what, members, []string{"logId", "kindVersion", "canonicalizedBody"},
			"logIndex", "integratedTime", "inclusionPromise", "inclusionProof"); err != nil {
			return err
		}
		if _, err := text("canonicalizedBody of "+what, members["canonicalizedBody"]); err != nil {
			return err
		}
		if _, err := exactObject("logId of "+what, members["logId"], "keyId"); err != nil {
			return err
		}
		if _, err := exactObject("kindVersion of "+what, members["kindVersion"], "kind", "version"); err != nil {
			return err
		}
		if raw, ok := members["inclusionProof"]; ok {
			proof, err := object("inclusionProof of "+what, raw)
			if err != nil {
				return err
			}
			if _, err := exactObject("checkpoint of "+what, proof["checkpoint"], "envelope"); err != nil {
				return err
			}
			proven = proven || !promise
		}
		_, promised := members["inclusionPromise"]
		proven = proven || promise && promised
	}
	if !proven {
		return errors.New("the log entries have no proof of the kind that this version of the bundle asks for")
	}
	return nil
}

// orEmpty returns empty for what is absent or null, which protobuf's JSON form means
// to be the same.
func orEmpty(data json.RawMessage, empty string) json.RawMessage {
	if len(data) == 0 || kind(data) == "null" {
		return json.RawMessage(empty)
	}
	return data
}

// exactly wants the given names in members, and no others but those that may be there.
func exactly(what string, members map[string]json.RawMessage, names []string, optional ...string) error {
	names = slices.Clone(names)
	for _, name := range optional {
		if _, ok := members[name]; ok {
			names = append(names, name)
		}
	}
	return exact(what, members, names...)
}

// parseEnvelope reads a DSSE envelope with one signature.
func (b *Bundle) parseEnvelope(data json.RawMessage) error {
	members, err := exactObject("the envelope", data, "payload", "payloadType", "signatures")
	if err != nil {
		return err
	}
	if b.Statement, err = envelopePayload(members); err != nil {
		return err
	}
	b.Signed = pae(payloadTypeInToto, b.Statement)
	signatures, err := list("signatures of the envelope", members["signatures"], 1)
	if err != nil {
		return err
	}
	if len(signatures) == 0 {
		return errors.New("the envelope has no signature")
	}
	signature, err := object("the envelope's signature", signatures[0])
	if err != nil {
		return err
	}
	if err := exactly("the envelope's signature", signature, []string{"sig"}, "keyid"); err != nil {
		return err
	}
	return b.parseSignature(signature["sig"])
}

func (b *Bundle) parseSignature(data json.RawMessage) error {
	encoded, err := text("the signature", data)
	if err != nil {
		return err
	}
	if b.Signature, err = decodeBase64(encoded); err != nil || len(b.Signature) == 0 {
		return errors.New("the signature is not base64")
	}
	return nil
}

// pae is DSSE's pre-authentication encoding, which is what is signed.
func pae(payloadType string, payload []byte) []byte {
	head := "DSSEv1 " + strconv.Itoa(len(payloadType)) + " " + payloadType + " " + strconv.Itoa(len(payload)) + " "
	return append([]byte(head), payload...)
}

// parseMessage reads a signature over bytes that are elsewhere.
func (b *Bundle) parseMessage(data json.RawMessage) error {
	members, digest, err := messageMembers(data)
	if err != nil {
		return err
	}
	b.Digest = digest
	return b.parseSignature(members["signature"])
}

// bundleSubjects returns the digests of what a bundle is about.
func bundleSubjects(mediaType string, data []byte) ([]string, error) {
	members, content, err := bundleMembers(mediaType, data)
	if err != nil {
		return nil, err
	}
	if _, err := object("verificationMaterial", members["verificationMaterial"]); err != nil {
		return nil, err
	}
	if content == dsseEnvelope {
		return envelopeSubjects(members[content])
	}
	_, digest, err := messageMembers(members[content])
	if err != nil {
		return nil, err
	}
	return []string{digest}, nil
}

// messageMembers returns the members of a message signature and the message's digest.
func messageMembers(data json.RawMessage) (members map[string]json.RawMessage, digest string, err error) {
	if members, err = exactObject(messageSignature, data, "messageDigest", "signature"); err != nil {
		return nil, "", err
	}
	said, err := exactObject("messageDigest", members["messageDigest"], "algorithm", "digest")
	if err != nil {
		return nil, "", err
	}
	algorithm, err := text("algorithm of messageDigest", said["algorithm"])
	if err != nil {
		return nil, "", err
	}
	if algorithm != "SHA2_256" {
		return nil, "", fmt.Errorf("algorithm of messageDigest is %s, not SHA2_256", quote(algorithm))
	}
	encoded, err := text("digest of messageDigest", said["digest"])
	if err != nil {
		return nil, "", err
	}
	sum, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || len(sum) != 32 || strings.ContainsAny(encoded, "\r\n") {
		return nil, "", errors.New("digest of messageDigest is not 32 bytes in base64")
	}
	return members, digestPrefix + hex.EncodeToString(sum), nil
}
