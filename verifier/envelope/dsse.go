package envelope

import (
	"encoding/json"
	"errors"
	"fmt"
)

// MaxEnvelopeSignatures is how many signatures one envelope may have.
const MaxEnvelopeSignatures = 16

// Envelope is a DSSE envelope with an in-toto statement. Nothing in it is to be
// trusted.
type Envelope struct {
	Statement  []byte // the very bytes of the payload, not parsed: see ParseStatement
	Signed     []byte // what the signatures are over: the pre-authentication encoding of Statement
	Signatures []EnvelopeSignature
}

// EnvelopeSignature is one signature of an envelope.
type EnvelopeSignature struct {
	KeyID     string // an unauthenticated hint, which may be empty
	Signature []byte
}

// ParseEnvelope reads a DSSE envelope whose payload is an in-toto statement, with one
// to MaxEnvelopeSignatures signatures. Names that DSSE does not know are ignored, as
// it wants.
//
// Source: github.com/secure-systems-lab/dsse protocol.md and envelope.md.
func ParseEnvelope(data []byte) (Envelope, error) {
	e, err := parseEnvelope(data)
	if err != nil {
		return Envelope{}, fmt.Errorf("envelope: %w", err)
	}
	return e, nil
}

func parseEnvelope(data []byte) (e Envelope, err error) {
	if err := CheckJSON(data, MaxDepth); err != nil {
		return Envelope{}, err
	}
	members, err := object("the envelope", data)
	if err != nil {
		return Envelope{}, err
	}
	if e.Statement, err = envelopePayload(members); err != nil {
		return Envelope{}, err
	}
	e.Signed = pae(payloadTypeInToto, e.Statement)
	signatures, err := list("signatures of the envelope", members["signatures"], MaxEnvelopeSignatures)
	if err != nil {
		return Envelope{}, err
	}
	if len(signatures) == 0 {
		return Envelope{}, errors.New("the envelope has no signature")
	}
	for _, raw := range signatures {
		signature, err := parseEnvelopeSignature(raw)
		if err != nil {
			return Envelope{}, err
		}
		e.Signatures = append(e.Signatures, signature)
	}
	return e, nil
}

func parseEnvelopeSignature(data json.RawMessage) (s EnvelopeSignature, err error) {
	members, err := object("a signature of the envelope", data)
	if err != nil {
		return EnvelopeSignature{}, err
	}
	if s.KeyID, err = text("keyid of a signature of the envelope", orEmpty(members["keyid"], `""`)); err != nil {
		return EnvelopeSignature{}, err
	}
	encoded, err := text("sig of a signature of the envelope", members["sig"])
	if err != nil {
		return EnvelopeSignature{}, err
	}
	if s.Signature, err = decodeBase64(encoded); err != nil || len(s.Signature) == 0 {
		return EnvelopeSignature{}, errors.New("a signature of the envelope is not base64")
	}
	return s, nil
}

// EncodeEnvelope returns the DSSE envelope of an in-toto statement as cosign writes
// it: one line of JSON. e.Signed is not read.
func EncodeEnvelope(e Envelope) ([]byte, error) {
	type signature struct {
		KeyID string `json:"keyid"`
		Sig   []byte `json:"sig"`
	}
	out := struct {
		PayloadType string      `json:"payloadType"`
		Payload     []byte      `json:"payload"`
		Signatures  []signature `json:"signatures"`
	}{payloadTypeInToto, e.Statement, []signature{}}
	for _, s := range e.Signatures {
		out.Signatures = append(out.Signatures, signature{s.KeyID, s.Signature})
	}
	return json.Marshal(out)
}
