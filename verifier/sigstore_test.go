package verifier_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"vidimus/e2e/notary"
	"vidimus/verifier"
)

const (
	githubIssuer = "https://token.actions.githubusercontent.com"
	workflow     = "https://github.com/acme/web/.github/workflows/release.yml@refs/tags/v1"
)

// sigstore is an instance of everything that proves signatures, and writes what it
// proves as a test wants it.
type sigstore struct {
	*notary.Notary
	tb testing.TB
}

func newSigstore(tb testing.TB) *sigstore {
	tb.Helper()
	return &sigstore{notary.New(tb), tb}
}

// newSigstoreElsewhere has nothing in common with newSigstore's.
func newSigstoreElsewhere(tb testing.TB) *sigstore {
	tb.Helper()
	return &sigstore{notary.NewElsewhere(tb), tb}
}

// from says in a certificate which repository the signer ran for.
func from(repository string) func(*x509.Certificate) {
	return func(template *x509.Certificate) {
		value, _ := asn1.MarshalWithParams(repository, "utf8")
		template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: notary.Fulcio(12), Value: value})
	}
}

func (s *sigstore) trust(has notary.Has) *verifier.Root {
	s.tb.Helper()
	r, err := verifier.ParseRoot(s.Trust(has))
	if err != nil {
		s.tb.Fatal(err)
	}
	return r
}

// prove adds to a bundle what proves it: its signer's certificate or nothing, and the
// log's entry at a time, and a timestamp.
func (s *sigstore) prove(b object, owner []byte, at time.Time) object {
	s.tb.Helper()
	kind, payload, signature := "dsse", []byte(nil), []byte(nil)
	if _, ok := b["dsseEnvelope"]; ok {
		payload = part(b, "dsseEnvelope")["payload"].([]byte)
		signature = part(b, "dsseEnvelope", "signatures")["sig"].([]byte)
	} else {
		kind, payload, signature = "hashedrekord", []byte("subject"), part(b, "messageSignature")["signature"].([]byte)
	}
	material := part(b, "verificationMaterial")
	if block, _ := pem.Decode(owner); block.Type == "CERTIFICATE" {
		delete(material, "publicKey")
		material["certificate"] = object{"rawBytes": block.Bytes}
	}
	material["tlogEntries"] = []any{s.Entry(kind, notary.Body(kind, payload, signature, owner), at)}
	material["timestampVerificationData"] = s.Stamps(signature)
	return b
}

// sign makes a bundle over a statement that is proven in every way.
func (s *sigstore) sign(h notary.Holder, said any) object {
	return s.prove(bundle(s.tb, h.Key, crypto.SHA256, said), h.PEM(), s.Now)
}

// second makes one as Rekor v2 has it, by sigstore-go's own certificate authority.
func (s *sigstore) second(issuer, subject string, said any) object {
	s.tb.Helper()
	data := encode(s.tb, said)
	entity, err := s.AttestAtTimeHashedRekordV2(subject, issuer, data, time.Time{})
	if err != nil {
		s.tb.Fatal(err)
	}
	material, _ := entity.VerificationContent()
	entries, _ := entity.TlogEntries()
	stamps, _ := entity.Timestamps()
	content, _ := entity.SignatureContent()
	tle := entries[0].TransparencyLogEntry()
	tle.IntegratedTime = 0
	raw, err := protojson.Marshal(tle)
	if err != nil {
		s.tb.Fatal(err)
	}
	var entry object
	if err := json.Unmarshal(raw, &entry); err != nil {
		s.tb.Fatal(err)
	}
	return object{
		"mediaType": bundleType,
		"verificationMaterial": object{
			"certificate": object{"rawBytes": material.Certificate().Raw}, "tlogEntries": []any{entry},
			"timestampVerificationData": object{"rfc3161Timestamps": []any{object{"signedTimestamp": stamps[0]}}},
		},
		"dsseEnvelope": object{
			"payload": data, "payloadType": "application/vnd.in-toto+json",
			"signatures": []any{object{"sig": content.Signature()}},
		},
	}
}

// attach makes the annotations of cosign's signature image.
func (s *sigstore) attach(owner, payload, signature []byte, at time.Time) map[string]string {
	s.tb.Helper()
	annotations := map[string]string{
		"dev.sigstore.cosign/bundle":           s.Annotation(notary.Body("hashedrekord", payload, signature, owner), at),
		"dev.sigstore.cosign/rfc3161timestamp": string(encode(s.tb, object{"SignedRFC3161Timestamp": s.Stamp(signature)})),
	}
	if bytes.HasPrefix(owner, []byte("-----BEGIN CERTIFICATE")) {
		annotations["dev.sigstore.cosign/certificate"] = string(owner)
	}
	return annotations
}

// identity is one of exact texts or patterns.
func identity(tb testing.TB, issuer, subject string) verifier.Identity {
	tb.Helper()
	id, err := verifier.ParseIdentity(issuer, subject, "")
	if err != nil {
		tb.Fatal(err)
	}
	return id
}

// keyless is an authority of one identity.
func keyless(tb testing.TB, name string, trust *verifier.Root, issuer, subject string) verifier.Authority {
	tb.Helper()
	return verifier.Authority{Name: name, Root: trust, Identities: []verifier.Identity{identity(tb, issuer, subject)}}
}

// find looks in all sources at the present moment: in a bubble of synctest it would be
// another one.
func (s *sigstore) find(t *testing.T, r *registry, authorities ...verifier.Authority) verifier.Report {
	t.Helper()
	about := subject
	about.Now = s.Now
	return look(t, r, about, authorities, verifier.Sources(), nil)
}
