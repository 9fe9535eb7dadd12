// Package notary proves in tests who has signed something, and when, as an instance of
// Sigstore does: by a transparency log and a timestamp authority, which are sigstore-go's
// for tests, and by a certificate authority of its own, which issues what a test asks for.
//
// It knows nothing of ours, so that no fault of ours hides in what it makes. Only tests
// may import it.
package notary

import (
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
)

// Fields is a JSON object.
type Fields = map[string]any

// Notary is an instance. Its certificate authorities are of one test; a test may put
// others in their place.
type Notary struct {
	*ca.VirtualSigstore
	Now time.Time // when it was made

	Root, Intermediate *x509.Certificate
	RootKey, Key       *ecdsa.PrivateKey // Key is the intermediate's

	tb          testing.TB
	from, until time.Time // of the logs; zero for as long as sigstore-go says
}

// The parts of sigstore-go's, which take long to make, are for all tests of a process.
var here, elsewhere = sync.OnceValues(ca.NewVirtualSigstore), sync.OnceValues(ca.NewVirtualSigstore)

// New returns an instance for an hour. All have the same log and timestamp authority.
func New(tb testing.TB) *Notary {
	tb.Helper()
	now := time.Now()
	return start(tb, here, now.Add(-time.Hour), now.Add(time.Hour))
}

// NewElsewhere returns an instance that has nothing in common with those of New.
func NewElsewhere(tb testing.TB) *Notary {
	tb.Helper()
	now := time.Now()
	return start(tb, elsewhere, now.Add(-time.Hour), now.Add(time.Hour))
}

// NewFor is New for another time, within which its log proves anything, too.
func NewFor(tb testing.TB, from, until time.Time) *Notary {
	tb.Helper()
	n := start(tb, here, from, until)
	n.from, n.until = from, until
	return n
}

func start(tb testing.TB, virtual func() (*ca.VirtualSigstore, error), from, until time.Time) *Notary {
	tb.Helper()
	v, err := virtual()
	if err != nil {
		tb.Fatal(err)
	}
	n := &Notary{VirtualSigstore: v, Now: time.Now(), RootKey: NewKey(tb), Key: NewKey(tb), tb: tb}
	n.Root = n.Certify(Authority("root", from, until), nil, n.RootKey.Public(), n.RootKey)
	n.Intermediate = n.Certify(Authority("intermediate", from, until), n.Root, n.Key.Public(), n.RootKey)
	return n
}

// NewKey makes a key as cosign's are.
func NewKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// Authority is the template of a certificate of an authority.
func Authority(name string, from, until time.Time) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: until,
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
}

// Certify makes a certificate of a template; without a parent it is its own.
func (n *Notary) Certify(template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) *x509.Certificate {
	n.tb.Helper()
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		n.tb.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		n.tb.Fatal(err)
	}
	return certificate
}

// Holder is somebody with a certificate.
type Holder struct {
	Certificate *x509.Certificate
	Key         *ecdsa.PrivateKey
}

// PEM is the certificate, which is what a log calls who has signed.
func (h Holder) PEM() []byte { return PEM(h.Certificate) }

// PEM writes certificates.
func PEM(certificates ...*x509.Certificate) (text []byte) {
	for _, c := range certificates {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return text
}

// CAs are the certificates of the authorities, as a private PKI keeps them.
func (n *Notary) CAs() []byte { return PEM(n.Intermediate, n.Root) }

// Issue makes a certificate as Fulcio does, changed by a test: for a subject, which is a
// URL or an address, whom an issuer vouches for, or nobody.
func (n *Notary) Issue(issuer, subject string, change ...func(*x509.Certificate)) Holder {
	n.tb.Helper()
	return n.IssueAt(n.Now, issuer, subject, change...)
}

// IssueAt is Issue at another time.
func (n *Notary) IssueAt(at time.Time, issuer, subject string, change ...func(*x509.Certificate)) Holder {
	n.tb.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: at.Add(-time.Minute), NotAfter: at.Add(9 * time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	if u, err := url.Parse(subject); err == nil && u.Scheme != "" {
		template.URIs = []*url.URL{u}
	} else {
		template.EmailAddresses = []string{subject}
	}
	if issuer != "" {
		template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: Fulcio(1), Value: []byte(issuer)})
	}
	for _, c := range change {
		c(template)
	}
	key := NewKey(n.tb)
	return Holder{n.Certify(template, n.Intermediate, key.Public(), n.Key), key}
}

// Fulcio is one of Fulcio's extensions of certificates.
func Fulcio(number int) asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, number}
}

// Has is what a trust root has besides certificate authorities.
type Has struct{ Logs, Stamps, Promises bool }

// Trust makes a trust root, as a file has it.
func (n *Notary) Trust(has Has) []byte {
	n.tb.Helper()
	authorities := append(n.FulcioCertificateAuthorities(), &root.FulcioCertificateAuthority{
		Root: n.Root, Intermediates: []*x509.Certificate{n.Intermediate}, ValidityPeriodStart: n.Root.NotBefore,
	})
	logs := func(logs map[string]*root.TransparencyLog, wanted bool) map[string]*root.TransparencyLog {
		if !wanted {
			return nil
		}
		for _, log := range logs {
			log.ID, _ = hex.DecodeString(string(log.ID))
			if !n.from.IsZero() {
				log.ValidityPeriodStart, log.ValidityPeriodEnd = n.from, n.until
			}
		}
		return logs
	}
	var stamps []root.TimestampingAuthority
	if has.Stamps {
		stamps = n.TimestampingAuthorities()
	}
	made, err := root.NewTrustedRoot(root.TrustedRootMediaType01, authorities, logs(n.CTLogs(), has.Promises), stamps, logs(n.RekorLogs(), has.Logs))
	if err != nil {
		n.tb.Fatal(err)
	}
	data, err := made.MarshalJSON()
	if err != nil {
		n.tb.Fatal(err)
	}
	return data
}

// Body is that of an entry of version 1, of kind dsse or hashedrekord: that the owner of
// a PEM block has made a signature over a payload.
func Body(kind string, payload, signature, owner []byte) []byte {
	sum := sha256.Sum256(payload)
	hash := Fields{"algorithm": "sha256", "value": hex.EncodeToString(sum[:])}
	spec := Fields{"data": Fields{"hash": hash}, "signature": Fields{"content": signature, "publicKey": Fields{"content": owner}}}
	if kind == "dsse" {
		spec = Fields{"envelopeHash": hash, "payloadHash": hash, "signatures": []any{Fields{
			"signature": base64.StdEncoding.EncodeToString(signature), "verifier": owner,
		}}}
	}
	data, _ := json.Marshal(Fields{"apiVersion": "0.0.1", "kind": kind, "spec": spec})
	return data
}

// logIndex is that of every entry.
const logIndex = 7

// promise is the log's word that it has taken a body at a time.
func (n *Notary) promise(body []byte, at time.Time) (id string, promise []byte) {
	n.tb.Helper()
	id, err := n.RekorLogID()
	if err != nil {
		n.tb.Fatal(err)
	}
	promise, err = n.RekorSignPayload(tlog.RekorPayload{
		Body: base64.StdEncoding.EncodeToString(body), IntegratedTime: at.Unix(), LogIndex: logIndex, LogID: id,
	})
	if err != nil {
		n.tb.Fatal(err)
	}
	return id, promise
}

// Entry puts a body into the log at a time, and returns the entry with its promise and
// proof, as a bundle has them.
func (n *Notary) Entry(kind string, body []byte, at time.Time) Fields {
	n.tb.Helper()
	id, promise := n.promise(body, at)
	proof, err := n.GetInclusionProof(body)
	if err != nil {
		n.tb.Fatal(err)
	}
	rawID, _ := hex.DecodeString(id)
	rootHash, _ := hex.DecodeString(*proof.RootHash)
	return Fields{
		"logIndex": fmt.Sprint(logIndex), "logId": Fields{"keyId": rawID}, "kindVersion": Fields{"kind": kind, "version": "0.0.1"},
		"integratedTime": fmt.Sprint(at.Unix()), "canonicalizedBody": body,
		"inclusionPromise": Fields{"signedEntryTimestamp": promise},
		"inclusionProof": Fields{
			"logIndex": fmt.Sprint(*proof.LogIndex), "rootHash": rootHash, "treeSize": fmt.Sprint(*proof.TreeSize),
			"hashes": []any{}, "checkpoint": Fields{"envelope": *proof.Checkpoint},
		},
	}
}

// Annotation is the same entry as cosign writes it beside a signature.
func (n *Notary) Annotation(body []byte, at time.Time) string {
	n.tb.Helper()
	id, promise := n.promise(body, at)
	data, err := json.Marshal(Fields{
		"SignedEntryTimestamp": promise,
		"Payload":              Fields{"body": body, "integratedTime": at.Unix(), "logIndex": logIndex, "logID": id},
	})
	if err != nil {
		n.tb.Fatal(err)
	}
	return string(data)
}

// Stamp is a timestamp over a signature, of now.
func (n *Notary) Stamp(signature []byte) []byte {
	n.tb.Helper()
	stamp, err := n.TimestampResponse(signature)
	if err != nil {
		n.tb.Fatal(err)
	}
	return stamp
}

// Stamps is the same as a bundle has it.
func (n *Notary) Stamps(signature []byte) Fields {
	n.tb.Helper()
	return Fields{"rfc3161Timestamps": []any{Fields{"signedTimestamp": n.Stamp(signature)}}}
}
