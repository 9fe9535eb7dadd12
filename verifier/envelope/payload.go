package envelope

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"unicode/utf8"
)

// Form is one of the spellings of a simple-signing payload.
type Form int

const (
	// Modern is the form of cosign v0.3 and later, and of containers/image:
	// lower-case names, type "cosign container image signature".
	Modern Form = iota
	// Legacy is the form of cosign v0.1 and v0.2: names as Go spells its
	// fields, type "cosign container signature", annotations that are strings.
	Legacy
)

// String returns the form's name.
func (f Form) String() string {
	switch f {
	case Modern:
		return "modern"
	case Legacy:
		return "legacy"
	}
	return fmt.Sprintf("Form(%d)", int(f))
}

// spelling is what tells one form from the other; the name "docker-reference"
// is common to both.
type spelling struct {
	critical, optional    string
	identity, image, kind string
	digest                string
	kindValue             string
}

// DockerReference is what the name that is claimed for an image is called in a payload,
// and as an annotation of a bundle's subject.
const DockerReference = "docker-reference"

func (f Form) spelling() (spelling, bool) {
	switch f {
	case Modern:
		return spelling{"critical", "optional", "identity", "image", "type", "docker-manifest-digest", "cosign container image signature"}, true
	case Legacy:
		return spelling{"Critical", "Optional", "Identity", "Image", "Type", "Docker-manifest-digest", "cosign container signature"}, true
	}
	return spelling{}, false
}

// Payload is what a simple signature says. As ParsePayload returns it, Digest
// is "sha256:" and 64 lower-case hexadecimal digits, and numbers in Annotations
// are of type json.Number.
type Payload struct {
	Form        Form
	Reference   string         // the name that the signer claims for the image; may be empty
	Digest      string         // of the manifest that is signed
	Annotations map[string]any // "optional"; nil for null
}

// ParsePayload reads a simple-signing payload in one of the two forms, whole:
// the names and the type of one form, no name missing and none added.
// White space and the order of names are free.
//
// Sources: package payload of github.com/sigstore/sigstore (modern, since April
// 2021), cosign v0.1.0 pkg/cosign/sign.go (legacy), containers-signature(5).
func ParsePayload(data []byte) (Payload, error) {
	p, err := parsePayload(data)
	if err != nil {
		return Payload{}, fmt.Errorf("simple-signing payload: %w", err)
	}
	return p, nil
}

func parsePayload(data []byte) (Payload, error) {
	if err := CheckJSON(data, MaxDepth); err != nil {
		return Payload{}, err
	}
	top, err := object("the payload", data)
	if err != nil {
		return Payload{}, err
	}
	p := Payload{Form: Modern}
	if _, ok := top["Critical"]; ok {
		p.Form = Legacy
	}
	s, _ := p.Form.spelling()
	if err := exact("the payload", top, s.critical, s.optional); err != nil {
		return Payload{}, err
	}
	critical, err := exactObject(s.critical, top[s.critical], s.identity, s.image, s.kind)
	if err != nil {
		return Payload{}, err
	}
	if err := p.parseCritical(s, critical); err != nil {
		return Payload{}, err
	}
	p.Annotations, err = parseAnnotations(p.Form, s.optional, top[s.optional])
	return p, err
}

func (p *Payload) parseCritical(s spelling, critical map[string]json.RawMessage) error {
	kindValue, err := text(s.kind, critical[s.kind])
	if err != nil {
		return err
	}
	if kindValue != s.kindValue {
		return fmt.Errorf("%s is %s, not %q", s.kind, quote(kindValue), s.kindValue)
	}
	identity, err := exactObject(s.identity, critical[s.identity], DockerReference)
	if err != nil {
		return err
	}
	if p.Reference, err = text(DockerReference, identity[DockerReference]); err != nil {
		return err
	}
	if err := checkReference(p.Reference); err != nil {
		return err
	}
	image, err := exactObject(s.image, critical[s.image], s.digest)
	if err != nil {
		return err
	}
	if p.Digest, err = text(s.digest, image[s.digest]); err != nil {
		return err
	}
	return checkDigest(p.Digest)
}

// checkReference keeps what cannot be a name out of logs and terminals. The
// name itself is for the policy to compare.
func checkReference(reference string) error {
	notPrintable := func(r rune) bool { return r <= 0x20 || r >= 0x7f }
	if strings.ContainsFunc(reference, notPrintable) {
		return fmt.Errorf("%s %s has characters that no name has", DockerReference, quote(reference))
	}
	return nil
}

func parseAnnotations(form Form, what string, data json.RawMessage) (map[string]any, error) {
	if kind(data) == "null" {
		return nil, nil
	}
	if kind(data) != "an object" {
		return nil, fmt.Errorf("%s is %s, not an object or null", what, kind(data))
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var annotations map[string]any
	if err := decoder.Decode(&annotations); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if form != Legacy {
		return annotations, nil
	}
	for name, value := range annotations {
		if _, ok := value.(string); !ok {
			return nil, fmt.Errorf("%s has a value for %s that is not a string", what, quote(name))
		}
	}
	return annotations, nil
}

// EncodePayload returns the bytes that cosign writes for p, to the byte: the
// names in its order, annotations sorted, <, > and & escaped. It refuses what
// ParsePayload would not accept back.
func EncodePayload(p Payload) ([]byte, error) {
	s, ok := p.Form.spelling()
	if !ok {
		return nil, fmt.Errorf("simple-signing payload: no such form: %d", int(p.Form))
	}
	if !utf8.ValidString(p.Reference) {
		return nil, errors.New("simple-signing payload: reference is not valid UTF-8")
	}
	var optional any
	if p.Annotations != nil {
		optional = p.Annotations
	}
	document := ordered{
		{s.critical, ordered{
			{s.identity, ordered{{DockerReference, p.Reference}}},
			{s.image, ordered{{s.digest, p.Digest}}},
			{s.kind, s.kindValue},
		}},
		{s.optional, optional},
	}
	data, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("simple-signing payload: %w", err)
	}
	if _, err := ParsePayload(data); err != nil {
		return nil, err
	}
	return data, nil
}

// ordered is a JSON object whose names keep their order.
type ordered []member

type member struct {
	name  string
	value any
}

// MarshalJSON implements json.Marshaler.
func (m ordered) MarshalJSON() ([]byte, error) {
	out := []byte{'{'}
	for i, member := range m {
		if i > 0 {
			out = append(out, ',')
		}
		name, err := json.Marshal(member.name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(member.value)
		if err != nil {
			return nil, err
		}
		out = append(append(append(out, name...), ':'), value...)
	}
	return append(out, '}'), nil
}

// CopyAnnotations returns a deep copy of annotations as ParsePayload makes them.
func CopyAnnotations(annotations map[string]any) map[string]any {
	out := maps.Clone(annotations)
	for name, value := range out {
		out[name] = copyValue(value)
	}
	return out
}

func copyValue(value any) any {
	switch value := value.(type) {
	case map[string]any:
		return CopyAnnotations(value)
	case []any:
		out := make([]any, len(value))
		for i, element := range value {
			out[i] = copyValue(element)
		}
		return out
	}
	return value
}
