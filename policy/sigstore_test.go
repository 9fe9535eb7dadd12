package policy

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"testing"
	"time"

	"vidimus/e2e/notary"
	"vidimus/verifier"
)

// proving is a notary who proves signatures of any time, as a world has them.
type proving struct {
	*notary.Notary
	t testing.TB
}

func newProving(t testing.TB) *proving {
	t.Helper()
	from, until := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC)
	return &proving{notary.NewFor(t, from, until), t}
}

// trust is the trust root that proves what n does.
func (n *proving) trust() *verifier.Root {
	n.t.Helper()
	parsed, err := verifier.ParseRoot(n.Trust(notary.Has{Logs: true}))
	if err != nil {
		n.t.Fatal(err)
	}
	return parsed
}

// logged adds to the layer of a signature what proves that owner has made it at a time.
func (n *proving) logged(layer any, owner, payload []byte, at time.Time) any {
	n.t.Helper()
	annotations := layer.(map[string]any)["annotations"].(map[string]string)
	signature, err := base64.StdEncoding.DecodeString(annotations["dev.cosignproject.cosign/signature"])
	if err != nil {
		n.t.Fatal(err)
	}
	annotations["dev.sigstore.cosign/bundle"] = n.Annotation(notary.Body("hashedrekord", payload, signature, owner), at)
	return layer
}

// byKey is a layer with a signature by somebody's key, made at a time, or at none.
func (n *proving) byKey(w *world, words string, at time.Time) any {
	payload, signature := w.signature(words)
	layer := w.layer(web, payload, signature)
	if at.IsZero() {
		return layer
	}
	name := words
	der, err := x509.MarshalPKIXPublicKey(w.keys[name].Public())
	if err != nil {
		n.t.Fatal(err)
	}
	return n.logged(layer, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), payload, at)
}

const testIssuer = "https://issuer.example"

// byName is a layer with a signature with a certificate, for a repository.
func (n *proving) byName(w *world, repository, subject string, at time.Time) any {
	n.t.Helper()
	h := n.IssueAt(at, testIssuer, subject)
	payload := w.payload(repository, image, nil)
	sum := sha256.Sum256(payload)
	signature, err := ecdsa.SignASN1(rand.Reader, h.Key, sum[:])
	if err != nil {
		n.t.Fatal(err)
	}
	layer := w.layer(repository, payload, signature)
	layer.(map[string]any)["annotations"].(map[string]string)["dev.sigstore.cosign/certificate"] = string(h.PEM())
	return n.logged(layer, h.PEM(), payload, at)
}

// named is an authority of people by name.
func (n *proving) named(authority string, subjects ...string) verifier.Authority {
	n.t.Helper()
	a := verifier.Authority{Name: authority, Root: n.trust()}
	for _, subject := range subjects {
		id, err := verifier.ParseIdentity(testIssuer, subject, "")
		if err != nil {
			n.t.Fatal(err)
		}
		a.Identities = append(a.Identities, id)
	}
	return a
}
