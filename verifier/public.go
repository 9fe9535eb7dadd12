package verifier

import _ "embed"

// publicRoot is the trust root of Sigstore's public instance as its TUF repository had it
// in August 2026 (target trusted_root.json, listed by targets.json with the SHA-256
// 6494e21ea73fa7ee769f85f57d5a3e6a08725eae1e38c755fc3517c9e6bc0b66).
//
//go:embed sigstore_root.json
var publicRoot []byte

// PublicRoot returns the trust root of Sigstore's public instance (fulcio, rekor and
// timestamp of sigstore.dev) that this program was built with, for ParseRoot. A newer one
// may have been published since.
func PublicRoot() []byte { return append([]byte(nil), publicRoot...) }
