package policy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"

	"vidimus/verifier"
)

// notary proves when something was signed, and issues certificates: a log of
// sigstore-go's, that takes any time, and an authority of its own.
type notary struct {
	t    testing.TB
	log  *ca.VirtualSigstore
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

var testLog = sync.OnceValues(ca.NewVirtualSigstore)

var ages = struct{ begin, end time.Time }{time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC)}

func newNotary(t testing.TB) *notary {
	t.Helper()
	log, err := testLog()
	if err != nil {
		t.Fatal(err)
	}
	n := &notary{t: t, log: log, key: newKey(t)}
	n.cert = n.certify(&x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: ages.begin, NotAfter: ages.end,
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}, nil, n.key)
	return n
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (n *notary) certify(template, parent *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	n.t.Helper()
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), n.key)
	if err != nil {
		n.t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		n.t.Fatal(err)
	}
	return parsed
}

// trust is the trust root that proves what n does.
func (n *notary) trust() *verifier.Root {
	n.t.Helper()
	logs := n.log.RekorLogs()
	for _, log := range logs {
		log.ID, _ = hex.DecodeString(string(log.ID))
		log.ValidityPeriodStart, log.ValidityPeriodEnd = ages.begin, ages.end
	}
	made, err := root.NewTrustedRoot(root.TrustedRootMediaType01, []root.CertificateAuthority{&root.FulcioCertificateAuthority{Root: n.cert}}, nil, nil, logs)
	if err != nil {
		n.t.Fatal(err)
	}
	data, err := made.MarshalJSON()
	if err != nil {
		n.t.Fatal(err)
	}
	parsed, err := verifier.ParseRoot(data)
	if err != nil {
		n.t.Fatal(err)
	}
	return parsed
}

// logged adds to the layer of a signature what proves that owner has made it at a time.
func (n *notary) logged(layer any, owner, payload []byte, at time.Time) any {
	n.t.Helper()
	annotations := layer.(map[string]any)["annotations"].(map[string]string)
	sum := sha256.Sum256(payload)
	body := n.marshal(map[string]any{"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": map[string]any{
		"data":      map[string]any{"hash": map[string]any{"algorithm": "sha256", "value": hex.EncodeToString(sum[:])}},
		"signature": map[string]any{"content": annotations["dev.cosignproject.cosign/signature"], "publicKey": map[string]any{"content": owner}},
	}})
	id, err := n.log.RekorLogID()
	if err != nil {
		n.t.Fatal(err)
	}
	entry := tlog.RekorPayload{Body: base64.StdEncoding.EncodeToString(body), IntegratedTime: at.Unix(), LogIndex: 1, LogID: id}
	promise, err := n.log.RekorSignPayload(entry)
	if err != nil {
		n.t.Fatal(err)
	}
	annotations["dev.sigstore.cosign/bundle"] = string(n.marshal(map[string]any{"SignedEntryTimestamp": promise, "Payload": entry}))
	return layer
}

func (n *notary) marshal(value any) []byte {
	n.t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		n.t.Fatal(err)
	}
	return data
}

// byKey is a layer with a signature by somebody's key, made at a time, or at none.
func (n *notary) byKey(w *world, words string, at time.Time) any {
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
func (n *notary) byName(w *world, repository, subject string, at time.Time) any {
	n.t.Helper()
	key := newKey(n.t)
	name, err := url.Parse(subject)
	if err != nil {
		n.t.Fatal(err)
	}
	certificate := n.certify(&x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: at.Add(-time.Minute), NotAfter: at.Add(9 * time.Minute), URIs: []*url.URL{name},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}, Value: []byte(testIssuer)}},
	}, n.cert, key)
	payload := w.payload(repository, image, nil)
	sum := sha256.Sum256(payload)
	signature, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		n.t.Fatal(err)
	}
	layer := w.layer(repository, payload, signature)
	owner := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})
	layer.(map[string]any)["annotations"].(map[string]string)["dev.sigstore.cosign/certificate"] = string(owner)
	return n.logged(layer, owner, payload, at)
}

// named is an authority of people by name.
func (n *notary) named(authority string, subjects ...string) verifier.Authority {
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
