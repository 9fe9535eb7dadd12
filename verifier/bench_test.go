package verifier_test

import (
	"crypto"
	"crypto/elliptic"
	"fmt"
	"testing"

	"vidimus/verifier"
)

// BenchmarkVerify measures a call without the network: one signature that
// satisfies, and 64 by a stranger.
func BenchmarkVerify(b *testing.B) {
	for _, tt := range []struct {
		name string
		key  crypto.Signer
		hash crypto.Hash
	}{
		{"P-256", newECDSA(b, elliptic.P256()), crypto.SHA256},
		{"P-384", newECDSA(b, elliptic.P384()), crypto.SHA384},
		{"P-521", newECDSA(b, elliptic.P521()), crypto.SHA512},
		{"Ed25519", newEd25519(b), 0},
		{"RSA-2048", newRSA(b, 2048), crypto.SHA256},
	} {
		b.Run("one/"+tt.name, func(b *testing.B) {
			r := newRegistry()
			p := payload(b, subject.Digest, nil)
			r.tag(b, sigTag, r.layer(p, sign(b, tt.key, tt.hash, p)))
			run(b, r, authority(b, "release", tt.key), true)
		})
	}
	for _, distinct := range []bool{false, true} {
		b.Run(fmt.Sprintf("64/distinct=%v", distinct), func(b *testing.B) {
			r := newRegistry()
			stranger := newECDSA(b, elliptic.P256())
			layers := make([]layer, verifier.MaxSignatures)
			for i := range layers {
				annotations := map[string]any{}
				if distinct {
					annotations["n"] = i
				}
				p := payload(b, subject.Digest, annotations)
				layers[i] = r.layer(p, sign(b, stranger, crypto.SHA256, p))
			}
			r.tag(b, sigTag, layers...)
			run(b, r, authority(b, "release", newECDSA(b, elliptic.P256())), false)
		})
	}
}

func run(b *testing.B, r *registry, a verifier.Authority, verified bool) {
	b.Helper()
	b.ReportAllocs()
	for b.Loop() {
		r.forget()
		report := verifier.Verify(b.Context(), r, subject, []verifier.Authority{a}, verifier.Tags(), anyVerified)
		if anyVerified(report.Evidence) != verified || len(report.Failures) > 0 {
			b.Fatalf("report %+v", report)
		}
	}
}

func BenchmarkParseKey(b *testing.B) {
	text := []byte(block("PUBLIC KEY", pkixOf(b, newECDSA(b, elliptic.P256()).Public())))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := verifier.ParseKey(text); err != nil {
			b.Fatal(err)
		}
	}
}
