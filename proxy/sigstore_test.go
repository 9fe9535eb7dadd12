package proxy_test

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"

	"vidimus/e2e/lying"
	"vidimus/verifier"
)

// fields is a JSON object.
type fields = map[string]any

const (
	testIssuer = "https://token.actions.githubusercontent.com"
	// workflow is who ci of these tests is.
	workflow = "https://github.com/acme/web/.github/workflows/release.yml@refs/tags/v1"
)

// sigstore proves who has signed, and when: a log and a timestamp authority of
// sigstore-go's, and a certificate authority of its own.
type sigstore struct {
	*ca.VirtualSigstore
	t                testing.TB
	now              time.Time
	top, between     *x509.Certificate
	topKey, issuance lying.Key
}

var virtual, virtualOther = sync.OnceValues(ca.NewVirtualSigstore), sync.OnceValues(ca.NewVirtualSigstore)

func newSigstore(t testing.TB, shared func() (*ca.VirtualSigstore, error)) *sigstore {
	t.Helper()
	v, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	s := &sigstore{VirtualSigstore: v, t: t, now: time.Now(), topKey: lying.P256(), issuance: lying.P256()}
	s.top = s.certify(s.authority("top", time.Hour), nil, s.topKey, s.topKey)
	s.between = s.certify(s.authority("between", time.Hour), s.top, s.issuance, s.topKey)
	return s
}

func (s *sigstore) authority(name string, until time.Duration) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: s.now.Add(-time.Hour), NotAfter: s.now.Add(until),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
}

func (s *sigstore) certify(template, parent *x509.Certificate, key, by lying.Key) *x509.Certificate {
	s.t.Helper()
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Signer().Public(), by.Signer())
	if err != nil {
		s.t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		s.t.Fatal(err)
	}
	return parsed
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
	return pemOf(h.certificate)
}

func pemOf(certificates ...*x509.Certificate) (text []byte) {
	for _, c := range certificates {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return text
}

// issue makes a certificate as Fulcio does, changed by a test.
func (s *sigstore) issue(issuer, subject string, change ...func(*x509.Certificate)) signer {
	s.t.Helper()
	name, err := url.Parse(subject)
	if err != nil {
		s.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: s.now.Add(-time.Minute), NotAfter: s.now.Add(9 * time.Minute), URIs: []*url.URL{name},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}, Value: []byte(issuer)}},
	}
	for _, c := range change {
		c(template)
	}
	key := lying.P256()
	return signer{key, s.certify(template, s.between, key, s.issuance)}
}

// trust is the trust root of s, with a log, a timestamp authority, or both.
func (s *sigstore) trust(logged, stamped bool) *verifier.Root {
	s.t.Helper()
	var logs map[string]*root.TransparencyLog
	if logged {
		logs = s.RekorLogs()
		for _, log := range logs {
			log.ID, _ = hex.DecodeString(string(log.ID))
		}
	}
	var stamps []root.TimestampingAuthority
	if stamped {
		stamps = s.TimestampingAuthorities()
	}
	cas := []root.CertificateAuthority{&root.FulcioCertificateAuthority{
		Root: s.top, Intermediates: []*x509.Certificate{s.between}, ValidityPeriodStart: s.now.Add(-time.Hour),
	}}
	made, err := root.NewTrustedRoot(root.TrustedRootMediaType01, cas, nil, stamps, logs)
	if err != nil {
		s.t.Fatal(err)
	}
	data, err := made.MarshalJSON()
	if err != nil {
		s.t.Fatal(err)
	}
	parsed, err := verifier.ParseRoot(data)
	if err != nil {
		s.t.Fatal(err)
	}
	return parsed
}

// body is that of a log's entry: that owner has made signature over payload.
func body(kind string, payload, signature, owner []byte) []byte {
	sum := sha256.Sum256(payload)
	hash := fields{"algorithm": "sha256", "value": hex.EncodeToString(sum[:])}
	spec := fields{"data": fields{"hash": hash}, "signature": fields{"content": signature, "publicKey": fields{"content": owner}}}
	if kind == "dsse" {
		spec = fields{"envelopeHash": hash, "payloadHash": hash, "signatures": []any{fields{
			"signature": base64.StdEncoding.EncodeToString(signature), "verifier": owner,
		}}}
	}
	return lying.Encode(fields{"apiVersion": "0.0.1", "kind": kind, "spec": spec})
}

// promise is the log's word that it has taken a body at a time.
func (s *sigstore) promise(body []byte, at time.Time) (id string, promise []byte) {
	s.t.Helper()
	id, err := s.RekorLogID()
	if err != nil {
		s.t.Fatal(err)
	}
	promise, err = s.RekorSignPayload(tlog.RekorPayload{
		Body: base64.StdEncoding.EncodeToString(body), IntegratedTime: at.Unix(), LogIndex: 7, LogID: id,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return id, promise
}

// entry is a log's entry as a bundle has it.
func (s *sigstore) entry(kind string, body []byte, at time.Time) fields {
	s.t.Helper()
	id, promise := s.promise(body, at)
	proof, err := s.GetInclusionProof(body)
	if err != nil {
		s.t.Fatal(err)
	}
	rawID, _ := hex.DecodeString(id)
	rootHash, _ := hex.DecodeString(*proof.RootHash)
	return fields{
		"logIndex": "7", "logId": fields{"keyId": rawID}, "kindVersion": fields{"kind": kind, "version": "0.0.1"},
		"integratedTime": fmt.Sprint(at.Unix()), "canonicalizedBody": body, "inclusionPromise": fields{"signedEntryTimestamp": promise},
		"inclusionProof": fields{
			"logIndex": fmt.Sprint(*proof.LogIndex), "rootHash": rootHash, "treeSize": fmt.Sprint(*proof.TreeSize),
			"hashes": []any{}, "checkpoint": fields{"envelope": *proof.Checkpoint},
		},
	}
}

// annotated is the same entry as cosign writes it beside a signature.
func (s *sigstore) annotated(body []byte, at time.Time) string {
	s.t.Helper()
	id, promise := s.promise(body, at)
	return string(lying.Encode(fields{
		"SignedEntryTimestamp": promise,
		"Payload":              fields{"body": body, "integratedTime": at.Unix(), "logIndex": 7, "logID": id},
	}))
}

func (s *sigstore) stamp(signature []byte) fields {
	s.t.Helper()
	stamp, err := s.TimestampResponse(signature)
	if err != nil {
		s.t.Fatal(err)
	}
	return fields{"rfc3161Timestamps": []any{fields{"signedTimestamp": stamp}}}
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
	m["tlogEntries"] = []any{s.entry("dsse", body("dsse", statement, signature, h.owner()), at)}
	m["timestampVerificationData"] = s.stamp(signature)
	return b
}

// layer is h's signature of a payload as cosign keeps it, proven by the log at a time,
// with further annotations.
func (s *sigstore) layer(h signer, payload []byte, at time.Time, further map[string]string) lying.Layer {
	s.t.Helper()
	layer := lying.Signature(h.Key, payload)
	signature, _ := base64.StdEncoding.DecodeString(layer.Annotations[lying.SignatureAnnotation])
	annotations := maps.Clone(layer.Annotations)
	annotations["dev.sigstore.cosign/bundle"] = s.annotated(body("hashedrekord", payload, signature, h.owner()), at)
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
