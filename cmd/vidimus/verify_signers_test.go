package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"

	"vidimus/verifier/envelope"
)

const (
	testIssuer  = "https://token.actions.githubusercontent.com"
	testSubject = "https://github.com/acme/web/.github/workflows/release.yml@refs/tags/v1"
)

// certified is an image with a signature with a certificate, and what proves that.
type certified struct {
	image                    string
	roots, intermediate      string // PEM
	timestamped, other, junk string // files of trust roots
}

// signCertified puts an image into a registry, signed with a certificate and a timestamp
// as cosign attaches them.
func signCertified(t *testing.T) certified {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	image, err := random.Image(16, 1)
	if err != nil {
		t.Fatal(err)
	}
	return certifyImage(t, strings.TrimPrefix(server.URL, "http://")+"/acme/web", image)
}

// certifyImage pushes an image to a repository as v1, and signs it.
func certifyImage(t *testing.T, repository string, image v1.Image) certified {
	t.Helper()
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	push := func(tag string) {
		reference, err := name.ParseReference(repository + ":" + tag)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(reference, image); err != nil {
			t.Fatal(err)
		}
	}
	push("v1")

	rootKey, key, leafKey := newKey(t), newKey(t), newKey(t)
	now := time.Now()
	issue := func(template, parent *x509.Certificate, public crypto.PublicKey, by *ecdsa.PrivateKey) *x509.Certificate {
		template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(1), now.Add(-time.Hour), now.Add(time.Hour)
		if parent == nil {
			parent = template
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	authority := func(name string) *x509.Certificate {
		return &x509.Certificate{Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true}
	}
	trusted := issue(authority("root"), nil, rootKey.Public(), rootKey)
	between := issue(authority("between"), trusted, key.Public(), rootKey)
	subject, err := url.Parse(testSubject)
	if err != nil {
		t.Fatal(err)
	}
	leaf := issue(&x509.Certificate{
		URIs: []*url.URL{subject}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}, Value: []byte(testIssuer)}},
	}, between, leafKey.Public(), key)

	payload, err := envelope.EncodePayload(envelope.Payload{Reference: repository, Digest: digest.String()})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(payload)
	signature, err := ecdsa.SignASN1(rand.Reader, leafKey, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	virtual, err := ca.NewVirtualSigstore()
	if err != nil {
		t.Fatal(err)
	}
	stamp, err := virtual.TimestampResponse(signature)
	if err != nil {
		t.Fatal(err)
	}
	text := func(value any) string {
		data, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	pemOf := func(c *x509.Certificate) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	image, err = mutate.Append(empty.Image, mutate.Addendum{
		Layer: static.NewLayer(payload, envelope.MediaTypeSimpleSigning),
		Annotations: map[string]string{
			"dev.cosignproject.cosign/signature":   strings.Trim(text(signature), `"`),
			"dev.sigstore.cosign/certificate":      pemOf(leaf),
			"dev.sigstore.cosign/chain":            pemOf(between),
			"dev.sigstore.cosign/rfc3161timestamp": text(map[string]any{"SignedRFC3161Timestamp": stamp}),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	push("sha256-" + digest.Hex + ".sig")

	save := func(name string, cas ...root.CertificateAuthority) string {
		made, err := root.NewTrustedRoot(root.TrustedRootMediaType01, cas, nil, virtual.TimestampingAuthorities(), nil)
		if err != nil {
			t.Fatal(err)
		}
		data, err := made.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, name, string(data))
		return name
	}
	writeFile(t, "roots.pem", pemOf(trusted))
	writeFile(t, "between.pem", pemOf(between))
	writeFile(t, "junk.json", "{}")
	return certified{
		image: repository + ":v1", roots: "roots.pem", intermediate: "between.pem", junk: "junk.json",
		timestamped: save("root.json", &root.FulcioCertificateAuthority{Root: trusted, Intermediates: []*x509.Certificate{between}}),
		other:       save("other.json", virtual.FulcioCertificateAuthorities()...),
	}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestVerifyByWhomACertificateNames(t *testing.T) {
	isolate(t)
	c := signCertified(t)
	who := []string{"--certificate-identity", testSubject, "--certificate-oidc-issuer", testIssuer}
	by := func(more ...string) []string { return append(append([]string(nil), who...), more...) }
	for _, row := range []struct {
		what string
		args []string
		code int
		want string // of the output, or of the error
	}{
		{"a trusted root", by("--trusted-root", c.timestamped), exitHolds, "docker-manifest-digest"},
		{"and cosign's other flags", by("--trusted-root", c.timestamped, "--insecure-ignore-tlog", "--offline", "--max-workers", "3"), exitHolds, "docker-manifest-digest"},
		{"expressions", []string{"--certificate-identity-regexp", `https://github\.com/acme/.*`, "--certificate-oidc-issuer-regexp", ".*", "--trusted-root", c.timestamped}, exitHolds, "docker-manifest-digest"},
		{"an expression that fits a part", []string{"--certificate-identity-regexp", `https://github\.com/acme/`, "--certificate-oidc-issuer", testIssuer, "--trusted-root", c.timestamped}, exitDoesNotHold, "no signature by"},
		{"stars are themselves", []string{"--certificate-identity", "https://github.com/acme/**", "--certificate-oidc-issuer", testIssuer, "--trusted-root", c.timestamped}, exitDoesNotHold, "no signature by https://github.com/acme/**"},
		{"another issuer", []string{"--certificate-identity", testSubject, "--certificate-oidc-issuer", "https://a.example", "--trusted-root", c.timestamped}, exitDoesNotHold, "none of the identities"},
		{"another trusted root", by("--trusted-root", c.other), exitDoesNotHold, "does not hold"},
		{"the public instance's root", by(), exitDoesNotHold, "does not hold"},
		{"a private PKI", by("--ca-roots", c.roots, "--ca-intermediates", c.intermediate), exitHolds, "docker-manifest-digest"},
		{"a private PKI, the intermediate comes along", by("--ca-roots", c.roots), exitHolds, "docker-manifest-digest"},
		{"a private PKI, without an issuer", []string{"--certificate-identity", testSubject, "--certificate-chain", c.roots}, exitHolds, "docker-manifest-digest"},
		{"another private PKI", by("--ca-roots", "tls.pem"), exitDoesNotHold, "does not hold"},
		{"no issuer", []string{"--certificate-identity", testSubject}, exitMisuse, "needs --certificate-oidc-issuer"},
		{"no subject", []string{"--certificate-oidc-issuer", testIssuer}, exitMisuse, "needs --certificate-identity"},
		{"two forms", by("--certificate-identity-regexp", ".*"), exitMisuse, "say the same"},
		{"a key as well", by("--key", "cosign.pub"), exitMisuse, "two signers"},
		{"neither", nil, exitMisuse, "which key with --key, or who"},
		{"an expression that is none", []string{"--certificate-identity-regexp", "(", "--certificate-oidc-issuer", testIssuer}, exitMisuse, "missing closing"},
		{"a trusted root that is none", by("--trusted-root", c.junk), exitMisuse, "mediaType"},
		{"a trusted root that is missing", by("--trusted-root", "missing.json"), exitMisuse, "missing.json"},
		{"two proofs", by("--trusted-root", c.timestamped, "--ca-roots", c.roots), exitMisuse, "give one"},
		{"intermediates alone", by("--ca-intermediates", c.intermediate), exitMisuse, "lead to --ca-roots"},
		{"roots that are none", by("--ca-roots", c.intermediate), exitMisuse, "self-signed"},
		{"a key and certificates", []string{"--key", "cosign.pub", "--ca-roots", c.roots}, exitMisuse, "about certificates"},
		{"a key and the log", []string{"--key", "cosign.pub", "--insecure-ignore-tlog=false"}, exitMisuse, "is asked for no log entry"},
	} {
		if row.what == "another private PKI" {
			certificate, _ := selfSigned(t)
			writeFile(t, "tls.pem", certificate)
		}
		var out output
		code, err := out.execute(t.Context(), newVerifyCommand(), strings.NewReader(""), append(row.args, c.image)...)
		text := out.stdout.String()
		if err != nil {
			text = err.Error()
		}
		if code != row.code || !strings.Contains(text, row.want) {
			t.Errorf("%s: exit %d, %v; want %d with %q\n%s", row.what, code, err, row.code, row.want, out.stdout.String())
		}
	}
}
