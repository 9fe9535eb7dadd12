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
	if len(digest.Hex) != hex.EncodedLen(len(k)) || digest.Hex != strings.ToLower(digest.Hex) {
		return k, fmt.Errorf("store: %.80q is not the hex of a SHA-256", digest.Hex)
	}
	if _, err := hex.Decode(k[:], []byte(digest.Hex)); err != nil {
		return k, fmt.Errorf("store: %.80q is not the hex of a SHA-256", digest.Hex)
	}
	return k, nil
}

func (k key) hex() string { return hex.EncodeToString(k[:]) }

func (k key) digest() v1.Hash { return v1.Hash{Algorithm: "sha256", Hex: k.hex()} }

func (k key) String() string { return "sha256:" + k.hex() }

// missing is the error for content that is not held.
func (k key) missing() error { return fmt.Errorf("store: %s: %w", k, fs.ErrNotExist) }
