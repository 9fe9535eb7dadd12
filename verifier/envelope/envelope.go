// Package envelope reads and writes the documents that carry signatures:
// cosign's simple-signing payload, DSSE envelopes with in-toto statements, and
// sigstore bundles.
//
// It checks form, never a signature: nothing that it returns is to be trusted
// until a key has vouched for the bytes it came from. It is strict, because a
// document that two programs read differently lets one program verify what
// another one obeys: every document must pass CheckJSON, every object that is
// decided upon has exactly the names that its format gives it, and whatever is
// not one of the accepted forms is an error that says how it differs.
//
// The package reads bytes that its caller has bounded (a payload or bundle is
// at most 1 MiB in this program); it allocates in proportion to them. It does
// not panic on any input.
package envelope

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Media types of the blobs that carry signatures.
const (
	MediaTypeSimpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json"
	MediaTypeDSSE          = "application/vnd.dsse.envelope.v1+json"
	MediaTypeBundle        = "application/vnd.dev.sigstore.bundle.v0.3+json"

	mediaTypeBundle01 = "application/vnd.dev.sigstore.bundle+json;version=0.1"
	mediaTypeBundle02 = "application/vnd.dev.sigstore.bundle+json;version=0.2"
	mediaTypeBundle03 = "application/vnd.dev.sigstore.bundle+json;version=0.3"
)

// MaxDepth is how deep the documents of this package may nest.
const MaxDepth = 32

// IsEvidence reports whether a blob of mediaType is one that Subjects reads.
// Media types are compared whole: no other case, no other parameters.
func IsEvidence(mediaType string) bool {
	return mediaType == MediaTypeSimpleSigning || mediaType == MediaTypeDSSE || IsBundle(mediaType)
}

// IsBundle reports whether mediaType is one of a sigstore bundle, v0.1 to v0.3.
func IsBundle(mediaType string) bool {
	switch mediaType {
	case MediaTypeBundle, mediaTypeBundle01, mediaTypeBundle02, mediaTypeBundle03:
		return true
	}
	return false
}

// object decodes a JSON object that CheckJSON has passed. what names it in
// errors.
func object(what string, data json.RawMessage) (map[string]json.RawMessage, error) {
	if kind(data) != "an object" {
		return nil, fmt.Errorf("%s is %s, not an object", what, kind(data))
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return members, nil
}

// exactObject is object for one that has the given names and no others.
func exactObject(what string, data json.RawMessage, names ...string) (map[string]json.RawMessage, error) {
	members, err := object(what, data)
	if err != nil {
		return nil, err
	}
	return members, exact(what, members, names...)
}

// exact wants the given names in members and no others.
func exact(what string, members map[string]json.RawMessage, names ...string) error {
	for _, name := range names {
		if _, ok := members[name]; !ok {
			return fmt.Errorf("%s has no %q", what, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if !slices.Contains(names, name) {
			return fmt.Errorf("%s has %s, which does not belong there", what, quote(name))
		}
	}
	return nil
}

// text decodes a JSON string; null is not one.
func text(what string, data json.RawMessage) (string, error) {
	if kind(data) != "a string" {
		return "", fmt.Errorf("%s is %s, not a string", what, kind(data))
	}
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	return s, nil
}

// list decodes a JSON array of at most limit elements, without allocating for
// more.
func list(what string, data json.RawMessage, limit int) ([]json.RawMessage, error) {
	if kind(data) != "a list" {
		return nil, fmt.Errorf("%s is %s, not a list", what, kind(data))
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	if _, err := decoder.Token(); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	var elements []json.RawMessage
	for decoder.More() {
		if len(elements) == limit {
			return nil, fmt.Errorf("%s has more than %d elements", what, limit)
		}
		var element json.RawMessage
		if err := decoder.Decode(&element); err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		elements = append(elements, element)
	}
	return elements, nil
}

// kind names the type of a JSON value, for comparisons and for errors.
func kind(data json.RawMessage) string {
	trimmed := bytes.TrimLeft(data, " \t\r\n")
	if len(trimmed) == 0 {
		return "missing"
	}
	switch trimmed[0] {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "a string"
	case 'n':
		return "null"
	case 't', 'f':
		return "a boolean"
	}
	return "a number"
}

// quote quotes untrusted text for an error: on one line, in ASCII, bounded.
func quote(s string) string {
	const limit = 64
	if len(s) > limit {
		return fmt.Sprintf("%+q...", s[:limit])
	}
	return fmt.Sprintf("%+q", s)
}

const digestPrefix = "sha256:"

// checkDigest wants "sha256:" and 64 lower-case hexadecimal digits.
func checkDigest(digest string) error {
	if digest == "" {
		return errors.New("digest is empty")
	}
	encoded, ok := strings.CutPrefix(digest, digestPrefix)
	if !ok {
		return fmt.Errorf("digest %s is not a sha256 digest", quote(digest))
	}
	return checkHex(encoded)
}

func checkHex(encoded string) error {
	if len(encoded) != 64 || strings.Trim(encoded, "0123456789abcdef") != "" {
		return fmt.Errorf("digest %s is not 64 lower-case hexadecimal digits", quote(encoded))
	}
	return nil
}
