package verifier_test

import (
	"crypto"
	"crypto/elliptic"
	"testing"

	"vidimus/e2e/notary"
	"vidimus/verifier"
)

// BenchmarkVerify measures a call without the network: one signature that
// satisfies, over a payload that is predicted, and one by each other kind of key
// over one that is fetched; one in a bundle, without and with a certificate and
// times; an attestation with a certificate; and 64 by a stranger.
func BenchmarkVerify(b *testing.B) {
	p256 := newECDSA(b, elliptic.P256())
	for _, tt := range []struct {
		name    string
		key     crypto.Signer
		hash    crypto.Hash
		subject verifier.Subject
	}{
		{"P-256/predicted", p256, crypto.SHA256, named},
		{"P-256/fetched", p256, crypto.SHA256, subject},
		{"P-384/fetched", newECDSA(b, elliptic.P384()), crypto.SHA384, subject},
		{"P-521/fetched", newECDSA(b, elliptic.P521()), crypto.SHA512, subject},
		{"Ed25519/fetched", newEd25519(b), 0, subject},
		{"RSA-2048/fetched", newRSA(b, 2048), crypto.SHA256, subject},
	} {
		b.Run("one/"+tt.name, func(b *testing.B) {
			r := newRegistry()
			p := payload(b, subject.Digest, nil)
			r.tag(b, sigTag, r.layer(p, sign(b, tt.key, tt.hash, p)))
			run(b, r, tt.subject, authority(b, "release", tt.key), true)
		})
	}
	b.Run("one/P-256/bundle", func(b *testing.B) {
		r := newRegistry()
		data := encode(b, bundle(b, p256, crypto.SHA256, statement(subject.Digest, predicateSign)))
		r.listed = append(r.listed, r.artifact(b, bundleType, data))
		run(b, r, subject, authority(b, "release", p256), true)
	})
	b.Run("one/keyless/bundle", func(b *testing.B) {
		in := newSigstore(b)
		r := newRegistry()
		h := in.Issue(githubIssuer, workflow)
		r.listed = append(r.listed, r.artifact(b, bundleType, encode(b, in.sign(h, statement(subject.Digest, predicateSign)))))
		run(b, r, subject, keyless(b, "ci", in.trust(notary.Has{Logs: true, Stamps: true}), githubIssuer, workflow), true)
	})
	for _, kind := range []string{"dsse 0.0.1", "intoto 0.0.1"} {
		b.Run("one/keyless/attestation, "+kind, func(b *testing.B) {
			in := newSigstore(b)
			r := newRegistry()
			h := in.Issue(githubIssuer, workflow)
			e := dsse(b, statement(subject.Digest, predicateSLSA), h.Key)
			r.tag(b, attTag, r.envelope(b, e, map[string]string{
				certificateName: string(h.PEM()), entryName: in.Annotation(envelopeBody(b, kind, encode(b, e), e, h.PEM()), in.Now),
			}))
			run(b, r, attested, keyless(b, "ci", in.trust(notary.Has{Logs: true, Stamps: true}), githubIssuer, workflow), true)
		})
	}
	b.Run("one/P-256/bundle, timed", func(b *testing.B) {
		in := newSigstore(b)
		r := newRegistry()
		owner := []byte(block("PUBLIC KEY", pkixOf(b, p256.Public())))
		data := encode(b, in.prove(bundle(b, p256, crypto.SHA256, statement(subject.Digest, predicateSign)), owner, in.Now))
		r.listed = append(r.listed, r.artifact(b, bundleType, data))
		release := authority(b, "release", p256)
		release.Root = in.trust(notary.Has{Logs: true, Stamps: true})
		run(b, r, subject, release, true)
	})
	b.Run("64/keyless, of no identity", func(b *testing.B) {
		in := newSigstore(b)
		r := newRegistry()
		h := in.Issue(githubIssuer, workflow)
		for range verifier.MaxReferrers {
			r.listed = append(r.listed, r.artifact(b, bundleType, encode(b, in.sign(h, statement(subject.Digest, predicateSign)))))
		}
		run(b, r, subject, keyless(b, "ci", in.trust(notary.Has{Logs: true, Stamps: true}), githubIssuer, "nobody"), false)
	})
	for _, tt := range []struct {
		name     string
		subject  verifier.Subject
		distinct bool // payloads
	}{
		{"predicted", named, false}, {"fetched", subject, false}, {"distinct", named, true},
	} {
		b.Run("64/"+tt.name, func(b *testing.B) {
			r := newRegistry()
			layers := make([]layer, verifier.MaxSignatures)
			for i := range layers {
				annotations := map[string]any(nil)
				if tt.distinct {
					annotations = map[string]any{"n": i}
				}
				p := payload(b, subject.Digest, annotations)
				layers[i] = r.layer(p, sign(b, p256, crypto.SHA256, p))
			}
			r.tag(b, sigTag, layers...)
			run(b, r, tt.subject, authority(b, "release", newECDSA(b, elliptic.P256())), false)
		})
	}
}

func run(b *testing.B, r *registry, s verifier.Subject, a verifier.Authority, verified bool) {
	b.Helper()
	b.ReportAllocs()
	for b.Loop() {
		r.forget()
		report := verifier.Verify(b.Context(), r, s, []verifier.Authority{a}, verifier.Sources(), anyVerified)
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
