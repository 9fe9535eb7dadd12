package verifier_test

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"strings"
	"testing"
	"time"

	"vidimus/e2e/notary"
	"vidimus/verifier"
)

// nested is a timestamp as deep as it is long, which reading it costs the square of.
func nested(t *testing.T, depth int) []byte {
	t.Helper()
	inner := append(bytes.Repeat([]byte{0x30, 0x80}, depth), 5, 0)
	inner = append(inner, make([]byte, 2*depth)...)
	token, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: inner})
	if err != nil {
		t.Fatal(err)
	}
	stamp, err := asn1.Marshal(struct {
		Status struct{ Value int }
		Token  asn1.RawValue
	}{Token: asn1.RawValue{FullBytes: token}})
	if err != nil {
		t.Fatal(err)
	}
	return stamp
}

// What proves a signature is in the hands of whoever may write beside it, and to read it
// takes more than its size: 680 kB of a timestamp took 45 seconds, which no deadline
// ended. What is not larger than real ones is read, and takes nothing from the others.
func TestWhatProvesASignatureIsSmall(t *testing.T) {
	s := newSigstore(t)
	h := s.Issue(githubIssuer, workflow)
	ci := keyless(t, "ci", s.trust(notary.Has{Logs: true, Stamps: true}), githubIssuer, workflow)
	changed := func(change func(material object)) object {
		b := s.sign(h, statement(subject.Digest, predicateSign))
		change(part(b, "verificationMaterial"))
		return b
	}
	stamps := func(all ...[]byte) func(object) {
		return func(material object) {
			var list []any
			for _, stamp := range all {
				list = append(list, object{"signedTimestamp": stamp})
			}
			material["timestampVerificationData"] = object{"rfc3161Timestamps": list}
		}
	}
	inside := nested(t, 2000)
	for _, tt := range []struct {
		name   string
		bundle object
		why    string // empty: it counts
	}{
		{"a deep timestamp inside of the limit", changed(stamps(inside)), ""},
		{"a deep timestamp", changed(stamps(nested(t, 170_000))), "a timestamp has more than 12288 bytes"},
		{"many deep timestamps", changed(stamps(inside, inside, inside, inside, inside, inside, inside)), "verificationMaterial has more than 65536 bytes"},
		{"a long log entry", changed(func(material object) {
			part(material, "tlogEntries")["canonicalizedBody"] = bytes.Repeat([]byte("x"), 24<<10)
		}), "a log entry has more than 24576 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistry()
			r.list(t, tt.bundle)
			begun := time.Now()
			e := s.find(t, r, ci).Evidence[0]
			if e.Verified() != (tt.why == "") || !strings.Contains(e.Detail(), tt.why) {
				t.Errorf("verified %v: %s", e.Verified(), e.Detail())
			}
			if took := time.Since(begun); took > verifier.DecisionTime/2 {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestWhatIsAttachedToASignatureIsSmall(t *testing.T) {
	s := newSigstore(t)
	h := s.Issue(githubIssuer, workflow)
	p := payload(t, subject.Digest, nil)
	trust := s.trust(notary.Has{Logs: true, Stamps: true})
	release := newECDSA(t, elliptic.P256())
	for _, name := range []string{"bundle", "rfc3161timestamp", "chain", "certificate"} {
		large := func(annotations map[string]string) map[string]string {
			annotations["dev.sigstore.cosign/"+name] = strings.Repeat("x", 64<<10)
			return annotations
		}
		r := newRegistry()
		signature := sign(t, h.Key, crypto.SHA256, p)
		r.tag(t, sigTag, r.layer(p, signature).annotated(large(s.attach(h.PEM(), p, signature, s.Now))))
		e := s.find(t, r, keyless(t, "ci", trust, githubIssuer, workflow)).Evidence[0]
		if e.Verified() || e.Reason() != "payload-invalid" || !strings.Contains(e.Detail(), "dev.sigstore.cosign/"+name+" has more than") {
			t.Errorf("%s: verified %v, %s: %s", name, e.Verified(), e.Reason(), e.Detail())
		}

		r = newRegistry()
		signature = sign(t, release, crypto.SHA256, p)
		r.tag(t, sigTag, r.layer(p, signature).annotated(large(map[string]string{})))
		by := authority(t, "release", release)
		by.Root = trust
		e = s.find(t, r, by).Evidence[0]
		if _, timed := e.SignedAt(); !e.Verified() || timed || !strings.Contains(e.Untimed(), "has more than") {
			t.Errorf("%s, signed by a key: verified %v, timed %v: %s", name, e.Verified(), timed, e.Untimed())
		}
	}
}

// Of a private PKI the signer brings intermediates along, and a chain is one whatever
// they say of themselves.
func TestTheChainOfAPrivatePKIKeepsToItsAuthorities(t *testing.T) {
	s := newSigstore(t)
	rootKey, key, lastKey := newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P256())
	trusted := s.Certify(notary.Authority("acme root", s.Now.Add(-time.Hour), s.Now.Add(time.Hour)), nil, rootKey.Public(), rootKey)
	between := func(change func(*x509.Certificate)) *x509.Certificate {
		template := notary.Authority("acme", s.Now.Add(-time.Hour), s.Now.Add(time.Hour))
		change(template)
		return s.Certify(template, trusted, key.Public(), rootKey)
	}
	last := func(parent *x509.Certificate, public crypto.PublicKey) *x509.Certificate {
		return s.Certify(notary.Authority("acme last", s.Now.Add(-time.Hour), s.Now.Add(time.Hour)), parent, public, key)
	}
	issued := func(parent *x509.Certificate, signer crypto.Signer, change func(*x509.Certificate)) notary.Holder {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(3), NotBefore: s.Now.Add(-time.Minute), NotAfter: s.Now.Add(time.Minute), EmailAddresses: []string{"dev@acme.example"},
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		}
		change(template)
		own := newECDSA(t, elliptic.P256())
		return notary.Holder{Certificate: s.Certify(template, parent, own.Public(), signer), Key: own}
	}
	asIs := func(*x509.Certificate) {}
	plain := between(asIs)
	short := between(func(c *x509.Certificate) { c.MaxPathLenZero = true })
	elsewhere := between(func(c *x509.Certificate) {
		c.PermittedDNSDomainsCritical, c.PermittedEmailAddresses = true, []string{"other.example"}
	})
	servers := between(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	large, _ := new(big.Int).SetString(strings.Repeat("f", 16384/4), 16)
	giant := last(plain, &rsa.PublicKey{N: large, E: 1<<31 - 1})
	signer := issued(plain, key, asIs)
	for _, tt := range []struct {
		name   string
		holder notary.Holder
		others []*x509.Certificate
		why    string // empty: it counts
	}{
		{"two intermediates", issued(last(plain, lastKey.Public()), lastKey, asIs), []*x509.Certificate{plain, last(plain, lastKey.Public())}, ""},
		{"an intermediate of a root that is called alike", issued(s.Certify(notary.Authority("acme", s.Now.Add(-time.Hour), s.Now.Add(time.Hour)), nil, key.Public(), key), key, asIs),
			[]*x509.Certificate{s.Certify(notary.Authority("acme root", s.Now.Add(-time.Hour), s.Now.Add(time.Hour)), nil, key.Public(), key)}, "unknown authority"},
		{"a signer's certificate as an intermediate", issued(signer.Certificate, signer.Key, asIs), []*x509.Certificate{plain, signer.Certificate}, "parent certificate cannot sign this kind of certificate"},
		{"an intermediate below one that has none below it", issued(last(short, lastKey.Public()), lastKey, asIs), []*x509.Certificate{short, last(short, lastKey.Public())}, "too many intermediates"},
		{"an intermediate for other names", issued(elsewhere, key, asIs), []*x509.Certificate{elsewhere}, "not permitted"},
		{"an intermediate for servers", issued(servers, key, asIs), []*x509.Certificate{servers}, "incompatible key usage"},
		{"a certificate for servers", issued(plain, key, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), []*x509.Certificate{plain}, "incompatible key usage"},
		{"a giant key on the way", signer, []*x509.Certificate{plain, giant}, "more than 8192 bits"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := versioned(bundle(t, tt.holder.Key, crypto.SHA256, statement(subject.Digest, predicateSign)), version02)
			m := part(b, "verificationMaterial")
			delete(m, "publicKey")
			chain := []any{object{"rawBytes": tt.holder.Certificate.Raw}}
			for _, c := range tt.others {
				chain = append(chain, object{"rawBytes": c.Raw})
			}
			m["x509CertificateChain"] = object{"certificates": chain}
			r := newRegistry()
			r.list(t, b)
			acme := keyless(t, "acme", cas(t, trusted), "", "*@acme.example")
			acme.PrivatePKI = true
			e := s.find(t, r, acme).Evidence[0]
			if e.Verified() != (tt.why == "") || !strings.Contains(e.Detail(), tt.why) {
				t.Errorf("verified %v: %s", e.Verified(), e.Detail())
			}
		})
	}
}
