package real

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
)

// Sigstore is an instance of Sigstore on loopback: a certificate authority, a
// transparency log of version 2 and a timestamp authority, all three the real
// programs, and an issuer of identity tokens in this process. There is no log of
// certificates, so that these carry no SCT.
type Sigstore struct {
	Issuer *Issuer

	Fulcio     string // URL
	Rekor      string // URL
	Timestamps string // URL with its path

	TrustedRoot   string // path of a trusted_root.json that knows all of them
	SigningConfig string // path of a signing_config.json that names all of them
}

// StartSigstore starts one and returns when all of it is ready.
func StartSigstore(tb testing.TB) *Sigstore {
	tb.Helper()
	// Whatever is missing is said before anything is started.
	for _, name := range []string{"fulcio", "rekor-server-posix", "timestamp-server"} {
		Program(tb, name)
	}
	s := &Sigstore{Issuer: StartIssuer(tb)}
	authority := s.startFulcio(tb)
	log := s.startRekor(tb)
	stamper := s.startTimestamps(tb)
	s.writeTrustedRoot(tb, authority, log, stamper)
	s.writeSigningConfig(tb)
	return s
}

func (s *Sigstore) startFulcio(tb testing.TB) root.CertificateAuthority {
	tb.Helper()
	dir := Dir(tb)
	config := Write(tb, dir, "fulcio.yaml", fmt.Sprintf(`oidc-issuers:
  %[1]s: {issuer-url: %[1]q, client-id: sigstore, type: email}
  %[2]s: {issuer-url: %[2]q, client-id: sigstore, type: github-workflow}
`, s.Issuer.Email(), s.Issuer.GitHub()))
	addr, grpc, metrics := FreeAddr(tb), FreeAddr(tb), FreeAddr(tb)
	Start(tb, Command{
		Path: Program(tb, "fulcio"),
		Args: []string{
			"serve", "--ca", "ephemeralca", "--ct-log-url", "", "--config-path", config,
			"--host", "127.0.0.1", "--port", port(tb, addr), "--grpc-host", "127.0.0.1", "--grpc-port", port(tb, grpc),
			"--metrics-port", port(tb, metrics), "--legacy-unix-domain-socket", filepath.Join(dir, "s"),
		},
		Dir: dir,
	}, func() error { return get("http://" + addr + "/healthz") })
	s.Fulcio = "http://" + addr
	var bundle struct {
		Chains []struct {
			Certificates []string `json:"certificates"`
		} `json:"chains"`
	}
	if err := json.Unmarshal(fetch(tb, s.Fulcio+"/api/v2/trustBundle"), &bundle); err != nil || len(bundle.Chains) != 1 {
		tb.Fatalf("fulcio's trust bundle: %+v, %v", bundle, err)
	}
	var chain []*x509.Certificate
	for _, text := range bundle.Chains[0].Certificates {
		chain = append(chain, certificates(tb, []byte(text))...)
	}
	last := chain[len(chain)-1]
	return &root.FulcioCertificateAuthority{
		Root: last, Intermediates: chain[:len(chain)-1], ValidityPeriodStart: last.NotBefore, URI: s.Fulcio,
	}
}

// startRekor starts the log. Its origin, by which it signs its checkpoints, is the
// host of its URL: clients take it from there.
func (s *Sigstore) startRekor(tb testing.TB) *root.TransparencyLog {
	tb.Helper()
	const origin = "127.0.0.1"
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		tb.Fatal(err)
	}
	dir := Dir(tb)
	key := Write(tb, dir, "log.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	addr, grpc, metrics := FreeAddr(tb), FreeAddr(tb), FreeAddr(tb)
	Start(tb, Command{
		Path: Program(tb, "rekor-server-posix"),
		Args: []string{
			"serve", "--http-address", "127.0.0.1", "--http-port", port(tb, addr),
			"--grpc-address", "127.0.0.1", "--grpc-port", port(tb, grpc), "--http-metrics-port", port(tb, metrics),
			"--hostname", origin, "--storage-dir", filepath.Join(dir, "log"), "--signer-filepath", key,
			"--checkpoint-interval", "1s",
		},
		Dir: dir,
	}, func() error { return get("http://" + addr + "/healthz") })
	s.Rekor = "http://" + addr
	// The whole of what the key hash of a C2SP signed note is the first bytes of.
	id := sha256.Sum256(append([]byte(origin+"\n\x01"), public...))
	return &root.TransparencyLog{
		BaseURL: s.Rekor, ID: id[:], ValidityPeriodStart: time.Now().Add(-time.Hour),
		HashFunc: crypto.SHA256, PublicKey: public, SignatureHashFunc: crypto.SHA512,
	}
}

// metricsAddr is where timestamp-server has its metrics, whatever it is told. Two
// of them cannot run at once: the second waits for the first to end, which is for other
// packages' tests. Of one package at most one test with an instance is parallel: one that
// waited would keep the place that the other's subtests want.
const metricsAddr = ":2112"

func (s *Sigstore) startTimestamps(tb testing.TB) root.TimestampingAuthority {
	tb.Helper()
	err := Eventually(tb.Context(), readyTime, func() error {
		listener, err := net.Listen("tcp", metricsAddr)
		if err != nil {
			return err
		}
		return listener.Close()
	})
	if err != nil {
		tb.Fatalf("timestamp-server needs port 2112 for its metrics: %v", err)
	}
	addr := FreeAddr(tb)
	Start(tb, Command{
		Path: Program(tb, "timestamp-server"),
		Args: []string{
			"serve", "--host", "127.0.0.1", "--port", port(tb, addr),
			"--disable-ntp-monitoring", "--timestamp-signer", "memory",
		},
		Dir: Dir(tb),
	}, func() error { return get("http://" + addr + "/ping") })
	s.Timestamps = "http://" + addr + "/api/v1/timestamp"
	chain := certificates(tb, fetch(tb, s.Timestamps+"/certchain"))
	last := chain[len(chain)-1]
	return &root.SigstoreTimestampingAuthority{
		Root: last, Intermediates: chain[1 : len(chain)-1], Leaf: chain[0], ValidityPeriodStart: last.NotBefore, URI: s.Timestamps,
	}
}

func (s *Sigstore) writeTrustedRoot(tb testing.TB, authority root.CertificateAuthority, log *root.TransparencyLog, stamper root.TimestampingAuthority) {
	tb.Helper()
	trusted, err := root.NewTrustedRoot(root.TrustedRootMediaType01,
		[]root.CertificateAuthority{authority}, nil, []root.TimestampingAuthority{stamper},
		map[string]*root.TransparencyLog{hex.EncodeToString(log.ID): log})
	if err != nil {
		tb.Fatal(err)
	}
	s.TrustedRoot = writeJSON(tb, "trusted_root.json", trusted)
}

func (s *Sigstore) writeSigningConfig(tb testing.TB) {
	tb.Helper()
	service := func(url string, version uint32) []root.Service {
		return []root.Service{{
			URL: url, MajorAPIVersion: version, Operator: "e2e", ValidityPeriodStart: time.Now().Add(-time.Hour),
		}}
	}
	anyOne := root.ServiceConfiguration{Selector: prototrustroot.ServiceSelector_ANY}
	config, err := root.NewSigningConfig(root.SigningConfigMediaType02,
		service(s.Fulcio, 1), service(s.Issuer.Email(), 1), service(s.Rekor, 2), anyOne, service(s.Timestamps, 1), anyOne)
	if err != nil {
		tb.Fatal(err)
	}
	s.SigningConfig = writeJSON(tb, "signing_config.json", config)
}

func writeJSON(tb testing.TB, name string, value json.Marshaler) string {
	tb.Helper()
	data, err := value.MarshalJSON()
	if err != nil {
		tb.Fatal(err)
	}
	return Write(tb, tb.TempDir(), name, string(data))
}

// certificates reads all certificates of PEM text.
func certificates(tb testing.TB, text []byte) []*x509.Certificate {
	tb.Helper()
	var all []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, certificate)
	}
	if len(all) == 0 {
		tb.Fatalf("no certificate in %q", text)
	}
	return all
}

func fetch(tb testing.TB, url string) []byte {
	tb.Helper()
	resp, err := http.Get(url)
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		tb.Fatalf("GET %s: %s %v %s", url, resp.Status, err, body)
	}
	return body
}

// Stampers are the certificates of the timestamp authority, its own first, in PEM.
func (s *Sigstore) Stampers(tb testing.TB) string {
	tb.Helper()
	return string(fetch(tb, s.Timestamps+"/certchain"))
}

func port(tb testing.TB, addr string) string {
	tb.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		tb.Fatal(err)
	}
	return port
}

// Keyless signs an image with cosign 3 as whoever token is of, into a bundle with an
// entry in the log and a timestamp.
func (s *Sigstore) Keyless(tb testing.TB, c *Cosign, token, image string, args ...string) Result {
	tb.Helper()
	all := []string{
		"sign", "--allow-http-registry", "--identity-token", token, "--yes",
		"--signing-config", s.SigningConfig, "--trusted-root", s.TrustedRoot,
	}
	return c.Run(tb, "", append(append(all, args...), image)...)
}

// VerifyKeyless verifies with cosign 3 that identity, certified for issuer, signed.
func (s *Sigstore) VerifyKeyless(tb testing.TB, c *Cosign, issuer, identity, image string, args ...string) Result {
	tb.Helper()
	all := []string{
		"verify", "--allow-http-registry", "--trusted-root", s.TrustedRoot, "--insecure-ignore-sct", "--use-signed-timestamps",
		"--certificate-identity", identity, "--certificate-oidc-issuer", issuer,
	}
	return c.Run(tb, "", append(append(all, args...), image)...)
}

// TokenFile writes a token to a file, for flags that take one.
func TokenFile(tb testing.TB, token string) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "token")
	if err := os.WriteFile(path, []byte(token), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}
