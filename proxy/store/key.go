package store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// key is a digest that has been checked: the only form in which one reaches a
// path or a map.
type key [sha256.Size]byte

// parseDigest accepts SHA-256 in its one canonical spelling.
func parseDigest(digest v1.Hash) (key, error) {
	var k key
	if digest.Algorithm != "sha256" {
		return k, fmt.Errorf("store: digest algorithm %.32q is not sha256", digest.Algorithm)
	}
	if !k.decode(digest.Hex) {
		return key{}, fmt.Errorf("store: %.80q is not the hex of a SHA-256", digest.Hex)
	}
	return k, nil
}

// decode reads lower-case hex; package hex would read upper-case as well, and a
// copy.
func (k *key) decode(text string) bool {
	const digits = "0123456789abcdef"
	if len(text) != hex.EncodedLen(len(k)) {
		return false
	}
	for i := range k {
		high, low := strings.IndexByte(digits, text[2*i]), strings.IndexByte(digits, text[2*i+1])
		if high < 0 || low < 0 {
			return false
		}
		k[i] = byte(high<<4 | low)
	}
	return true
}

func (k key) hex() string {
	var text [2 * len(k)]byte
	hex.Encode(text[:], k[:])
	return string(text[:])
}

func (k key) digest() v1.Hash { return v1.Hash{Algorithm: "sha256", Hex: k.hex()} }

func (k key) String() string { return "sha256:" + k.hex() }

// missing is the error for content that is not held.
func (k key) missing() error { return fmt.Errorf("store: %s: %w", k, fs.ErrNotExist) }
