package signer

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/nacl/secretbox"
)

// The PEM types of an encrypted private key: the second since cosign v2, the
// first before. Both hold the same.
const (
	pemTypeCosign   = "ENCRYPTED COSIGN PRIVATE KEY"
	pemTypeSigstore = "ENCRYPTED SIGSTORE PRIVATE KEY"
)

// MaxKeyFileSize is the size from which on a key file is refused unread. An
// encrypted RSA key of 8192 bits, the largest, takes 9 KiB.
const MaxKeyFileSize = 16 << 10

const (
	saltSize  = 32
	nonceSize = 24
)

var (
	// ErrNotKeyFile says that a file is not one encrypted private key in
	// cosign's format and nothing else.
	ErrNotKeyFile = errors.New("not an encrypted cosign or sigstore private key")

	// ErrKeyParameters says that a key file asks for a cipher, or for an
	// amount of work, that no cosign ever wrote.
	ErrKeyParameters = errors.New("unsupported encryption parameters")

	// ErrPassword says that the password does not open the key file. A file
	// that was altered cannot be told from a wrong password.
	ErrPassword = errors.New("wrong password, or the key file is damaged")
)

// keyBox is the JSON inside the PEM block, as go-securesystemslib's package
// encrypted (before it go-tuf's) writes it.
type keyBox struct {
	KDF        keyKDF    `json:"kdf"`
	Cipher     keyCipher `json:"cipher"`
	Ciphertext []byte    `json:"ciphertext"`
}

type keyKDF struct {
	Name   string       `json:"name"`
	Params scryptParams `json:"params"`
	Salt   []byte       `json:"salt"`
}

type scryptParams struct {
	N int `json:"N"`
	R int `json:"r"`
	P int `json:"p"`
}

type keyCipher struct {
	Name  string `json:"name"`
	Nonce []byte `json:"nonce"`
}

// acceptedParams are the only amounts of work that a key file may ask for:
// go-tuf's until 0.3 (cosign v0 and v1), the present default, and OWASP's.
// Anything else would let a file choose how much memory is spent on it.
func acceptedParams() []scryptParams {
	return []scryptParams{{32768, 8, 1}, {65536, 8, 1}, {131072, 8, 1}}
}

// parseKeyFile reads and checks everything that can be checked without the
// password, and does no work that depends on what the file says.
func parseKeyFile(data []byte) (keyBox, error) {
	body, err := singleBlock(data)
	if err != nil {
		return keyBox{}, err
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	var box keyBox
	if err := dec.Decode(&box); err != nil {
		return keyBox{}, fmt.Errorf("%w: its content is not the expected JSON", ErrNotKeyFile)
	}
	if len(bytes.TrimSpace(body[dec.InputOffset():])) != 0 {
		return keyBox{}, fmt.Errorf("%w: data after its JSON", ErrNotKeyFile)
	}
	return box, box.check()
}

// singleBlock returns the content of data's only PEM block. A second block, or
// text around the first, is an error: which of several keys was meant is not
// for the first that parses to say.
func singleBlock(data []byte) ([]byte, error) {
	if len(data) > MaxKeyFileSize {
		return nil, fmt.Errorf("%w: larger than %d bytes", ErrNotKeyFile, MaxKeyFileSize)
	}
	data = bytes.TrimSpace(data)
	block, rest := pem.Decode(data)
	switch {
	case block == nil:
		return nil, fmt.Errorf("%w: no PEM block", ErrNotKeyFile)
	case block.Type != pemTypeCosign && block.Type != pemTypeSigstore:
		return nil, fmt.Errorf("%w: the PEM block is of type %q", ErrNotKeyFile, block.Type)
	case len(block.Headers) != 0:
		return nil, fmt.Errorf("%w: the PEM block has headers", ErrNotKeyFile)
	case len(bytes.TrimSpace(rest)) != 0,
		!bytes.HasPrefix(data, []byte("-----BEGIN ")),
		bytes.Count(data, []byte("-----BEGIN ")) != 1:
		return nil, fmt.Errorf("%w: text before or after the PEM block", ErrNotKeyFile)
	}
	return block.Bytes, nil
}

func (b keyBox) check() error {
	switch {
	case b.KDF.Name != "scrypt":
		return fmt.Errorf("%w: key derivation is not scrypt", ErrKeyParameters)
	case !slices.Contains(acceptedParams(), b.KDF.Params):
		return fmt.Errorf("%w: scrypt N=%d r=%d p=%d, want N 32768, 65536 or 131072 with r=8 p=1",
			ErrKeyParameters, b.KDF.Params.N, b.KDF.Params.R, b.KDF.Params.P)
	case len(b.KDF.Salt) != saltSize:
		return fmt.Errorf("%w: a salt of %d bytes, want %d", ErrKeyParameters, len(b.KDF.Salt), saltSize)
	case b.Cipher.Name != "nacl/secretbox":
		return fmt.Errorf("%w: cipher is not nacl/secretbox", ErrKeyParameters)
	case len(b.Cipher.Nonce) != nonceSize:
		return fmt.Errorf("%w: a nonce of %d bytes, want %d", ErrKeyParameters, len(b.Cipher.Nonce), nonceSize)
	case len(b.Ciphertext) <= secretbox.Overhead:
		return fmt.Errorf("%w: the ciphertext is truncated", ErrNotKeyFile)
	}
	return nil
}
