package proxy_test

import (
	"crypto/x509"
	"encoding/base64"
	"maps"
	"testing"
	"time"

	"vidimus/e2e/lying"
	"vidimus/e2e/notary"
	"vidimus/verifier"
)

// fields is a JSON object.
type fields = map[string]any

const (
	testIssuer = "https://token.actions.githubusercontent.com"
	// workflow is who ci of these tests is.
	workflow = "https://github.com/acme/web/.github/workflows/release.yml@refs/tags/v1"
)

// sigstore is an instance of what proves who has signed, and when.
type sigstore struct {
	*notary.Notary
	t testing.TB
}

func newSigstore(t testing.TB) *sigstore {
	t.Helper()
	return &sigstore{notary.New(t), t}
}

// newSigstoreElsewhere has nothing in common with newSigstore's.
func newSigstoreElsewhere(t testing.TB) *sigstore {
	t.Helper()
	return &sigstore{notary.NewElsewhere(t), t}
}

// signer is somebody with a key, and with a certificate unless that is nil.
type signer struct {
	lying.Key
	certificate *x509.Certificate
}

// owner is what a log says of who has signed.
func (h signer) owner() []byte {
	if h.certificate == nil {
		return h.PublicPEM()
	}
	return notary.PEM(h.certificate)
}

// issue makes a certificate as Fulcio does, changed by a test.
func (s *sigstore) issue(issuer, subject string, change ...func(*x509.Certificate)) signer {
	s.t.Helper()
	h := s.Issue(issuer, subject, change...)
	return signer{lying.KeyOf(h.Key), h.Certificate}
}

// trust is the trust root of s, with a log, a timestamp authority, or both.
func (s *sigstore) trust(logged, stamped bool) *verifier.Root {
	s.t.Helper()
	parsed, err := verifier.ParseRoot(s.Trust(notary.Has{Logs: logged, Stamps: stamped}))
	if err != nil {
		s.t.Fatal(err)
	}
	return parsed
}

func signatureOf(bundle fields) []byte {
	signed := bundle["dsseEnvelope"].(fields)["signatures"].([]any)[0].(fields)
	signature, _ := base64.StdEncoding.DecodeString(signed["sig"].(string))
	return signature
}

func material(bundle fields) fields { return bundle["verificationMaterial"].(fields) }

// bundle is h's over a statement, proven by the log at a time and by a timestamp.
func (s *sigstore) bundle(h signer, statement []byte, at time.Time) fields {
	s.t.Helper()
	b := lying.BundleFields(lying.Bundle03, h.Key, statement)
	signature, m := signatureOf(b), material(b)
	if h.certificate != nil {
		delete(m, "publicKey")
		m["certificate"] = fields{"rawBytes": h.certificate.Raw}
	}
	m["tlogEntries"] = []any{s.Entry("dsse", notary.Body("dsse", statement, signature, h.owner()), at)}
	m["timestampVerificationData"] = s.Stamps(signature)
	return b
}

// layer is h's signature of a payload as cosign keeps it, proven by the log at a time,
// with further annotations.
func (s *sigstore) layer(h signer, payload []byte, at time.Time, further map[string]string) lying.Layer {
	s.t.Helper()
	layer := lying.Signature(h.Key, payload)
	signature, _ := base64.StdEncoding.DecodeString(layer.Annotations[lying.SignatureAnnotation])
	annotations := maps.Clone(layer.Annotations)
	annotations["dev.sigstore.cosign/bundle"] = s.Annotation(notary.Body("hashedrekord", payload, signature, h.owner()), at)
	if h.certificate != nil {
		annotations["dev.sigstore.cosign/certificate"] = string(h.owner())
	}
	maps.Copy(annotations, further)
	layer.Annotations = annotations
	return layer
}

// keyless is an authority of who goes by these subjects.
func (s *sigstore) keyless(name string, trust *verifier.Root, subjects ...string) verifier.Authority {
	s.t.Helper()
	a := verifier.Authority{Name: name, Root: trust}
	for _, subject := range subjects {
		id, err := verifier.ParseIdentity(testIssuer, subject, "")
		if err != nil {
			s.t.Fatal(err)
		}
		a.Identities = append(a.Identities, id)
	}
	return a
}
