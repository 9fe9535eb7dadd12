package verifier_test

import (
	"bytes"
	"crypto"
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
	"fmt"
	"math/big"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"google.golang.org/protobuf/encoding/protojson"

	"vidimus/verifier"
)

const (
	githubIssuer = "https://token.actions.githubusercontent.com"
	workflow     = "https://github.com/acme/web/.github/workflows/release.yml@refs/tags/v1"
)

// sigstore is an instance of everything that proves signatures: a log and a timestamp
// authority of sigstore-go's, and a certificate authority of our own, which issues what
// a test asks for.
type sigstore struct {
	*ca.VirtualSigstore
	tb           testing.TB
	root         *x509.Certificate
	intermediate *x509.Certificate
	key          *ecdsa.PrivateKey // of the intermediate
	now          time.Time
}

var virtual = sync.OnceValues(ca.NewVirtualSigstore)

// newSigstore returns an instance: the parts of sigstore-go's are one for all tests.
func newSigstore(tb testing.TB) *sigstore {
	tb.Helper()
	vs, err := virtual()
	if err != nil {
		tb.Fatal(err)
	}
	return newInstance(tb, vs)
}

func newInstance(tb testing.TB, vs *ca.VirtualSigstore) *sigstore {
	tb.Helper()
	now := time.Now()
	s := &sigstore{VirtualSigstore: vs, tb: tb, now: now}
	rootKey := newECDSA(tb, elliptic.P256())
	s.root = s.certify(authorityTemplate("root", now.Add(-time.Hour), now.Add(time.Hour)), nil, rootKey.Public(), rootKey)
	s.key = newECDSA(tb, elliptic.P256())
	s.intermediate = s.certify(authorityTemplate("intermediate", now.Add(-time.Hour), now.Add(time.Hour)), s.root, s.key.Public(), rootKey)
	return s
}

func authorityTemplate(name string, from, until time.Time) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: until,
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
}

// certify makes a certificate; without a parent it is its own.
func (s *sigstore) certify(template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) *x509.Certificate {
	s.tb.Helper()
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		s.tb.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		s.tb.Fatal(err)
	}
	return certificate
}

// holder is somebody with a certificate.
type holder struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func (h holder) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.certificate.Raw})
}

// issue makes a certificate for subject, as Fulcio would, changed by a test.
func (s *sigstore) issue(issuer, subject string, change ...func(*x509.Certificate)) holder {
	s.tb.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: s.now.Add(-time.Minute), NotAfter: s.now.Add(9 * time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	if u, err := url.Parse(subject); err == nil && u.Scheme != "" {
		template.URIs = []*url.URL{u}
	} else {
		template.EmailAddresses = []string{subject}
	}
	if issuer != "" {
		template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: fulcio(1), Value: []byte(issuer)})
	}
	for _, c := range change {
		c(template)
	}
	key := newECDSA(s.tb, elliptic.P256())
	return holder{s.certify(template, s.intermediate, key.Public(), s.key), key}
}

// fulcio is an extension of Fulcio's.
func fulcio(n int) asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, n} }

// from says in a certificate which repository the signer ran for.
func from(repository string) func(*x509.Certificate) {
	return func(template *x509.Certificate) {
		value, _ := asn1.MarshalWithParams(repository, "utf8")
		template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: fulcio(12), Value: value})
	}
}

// has is what a trust root has besides certificate authorities.
type has struct{ logs, stamps, promises bool }

// trust makes a trust root of s, in the format of a file.
func (s *sigstore) trustJSON(what has) []byte {
	s.tb.Helper()
	cas := append(s.FulcioCertificateAuthorities(), &root.FulcioCertificateAuthority{
		Root: s.root, Intermediates: []*x509.Certificate{s.intermediate}, ValidityPeriodStart: s.now.Add(-time.Hour),
	})
	decoded := func(logs map[string]*root.TransparencyLog, wanted bool) map[string]*root.TransparencyLog {
		if !wanted {
			return nil
		}
		for _, log := range logs {
			log.ID, _ = hex.DecodeString(string(log.ID))
		}
		return logs
	}
	var stamps []root.TimestampingAuthority
	if what.stamps {
		stamps = s.TimestampingAuthorities()
	}
	made, err := root.NewTrustedRoot(root.TrustedRootMediaType01, cas, decoded(s.CTLogs(), what.promises), stamps, decoded(s.RekorLogs(), what.logs))
	if err != nil {
		s.tb.Fatal(err)
	}
	data, err := made.MarshalJSON()
	if err != nil {
		s.tb.Fatal(err)
	}
	return data
}

func (s *sigstore) trust(what has) *verifier.Root {
	s.tb.Helper()
	r, err := verifier.ParseRoot(s.trustJSON(what))
	if err != nil {
		s.tb.Fatal(err)
	}
	return r
}

// body is a v1 entry's, about what a signature by the owner of a PEM block is over: a
// statement in an envelope, or a message.
func body(kind string, payload, signature, owner []byte) []byte {
	sum := sha256.Sum256(payload)
	hash := object{"algorithm": "sha256", "value": hex.EncodeToString(sum[:])}
	spec := object{"data": object{"hash": hash}, "signature": object{"content": signature, "publicKey": object{"content": owner}}}
	if kind == "dsse" {
		spec = object{"envelopeHash": hash, "payloadHash": hash, "signatures": []any{object{
			"signature": base64.StdEncoding.EncodeToString(signature), "verifier": owner,
		}}}
	}
	data, _ := json.Marshal(object{"apiVersion": "0.0.1", "kind": kind, "spec": spec})
	return data
}

// log puts a body into the log at a time, and returns the entry with its promise and
// proof, as a bundle has them.
func (s *sigstore) log(kind string, data []byte, at time.Time) object {
	s.tb.Helper()
	id, err := s.RekorLogID()
	if err != nil {
		s.tb.Fatal(err)
	}
	rawID, _ := hex.DecodeString(id)
	promise, err := s.RekorSignPayload(tlog.RekorPayload{
		Body: base64.StdEncoding.EncodeToString(data), IntegratedTime: at.Unix(), LogIndex: 7, LogID: id,
	})
	if err != nil {
		s.tb.Fatal(err)
	}
	proof, err := s.GetInclusionProof(data)
	if err != nil {
		s.tb.Fatal(err)
	}
	rootHash, _ := hex.DecodeString(*proof.RootHash)
	return object{
		"logIndex": "7", "logId": object{"keyId": rawID}, "kindVersion": object{"kind": kind, "version": "0.0.1"},
		"integratedTime": fmt.Sprint(at.Unix()), "canonicalizedBody": data,
		"inclusionPromise": object{"signedEntryTimestamp": promise},
		"inclusionProof": object{
			"logIndex": fmt.Sprint(*proof.LogIndex), "rootHash": rootHash, "treeSize": fmt.Sprint(*proof.TreeSize),
			"hashes": []any{}, "checkpoint": object{"envelope": *proof.Checkpoint},
		},
	}
}

func (s *sigstore) stamp(signature []byte) []byte {
	s.tb.Helper()
	stamp, err := s.TimestampResponse(signature)
	if err != nil {
		s.tb.Fatal(err)
	}
	return stamp
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
	material["tlogEntries"] = []any{s.log(kind, body(kind, payload, signature, owner), at)}
	material["timestampVerificationData"] = object{"rfc3161Timestamps": []any{object{"signedTimestamp": s.stamp(signature)}}}
	return b
}

// sign makes a bundle over a statement that is proven in every way.
func (s *sigstore) sign(h holder, said any) object {
	return s.prove(bundle(s.tb, h.key, crypto.SHA256, said), h.pem(), s.now)
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
	entry := s.log("hashedrekord", body("hashedrekord", payload, signature, owner), at)
	id, _ := s.RekorLogID()
	said := encode(s.tb, object{
		"SignedEntryTimestamp": part(entry, "inclusionPromise")["signedEntryTimestamp"],
		"Payload":              object{"body": entry["canonicalizedBody"], "integratedTime": at.Unix(), "logIndex": 7, "logID": id},
	})
	annotations := map[string]string{
		"dev.sigstore.cosign/bundle":           string(said),
		"dev.sigstore.cosign/rfc3161timestamp": string(encode(s.tb, object{"SignedRFC3161Timestamp": s.stamp(signature)})),
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
	about.Now = s.now
	return look(t, r, about, authorities, verifier.Sources(), nil)
}

// virtualOther is another instance of sigstore-go's.
var virtualOther = sync.OnceValues(ca.NewVirtualSigstore)
