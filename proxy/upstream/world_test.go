package upstream

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // net/http tells there of answers that nobody asked for
	goleak.VerifyTestMain(m)
}

// world is a small internet on loopback: names, hosts that record what reaches
// them, and a certificate authority that all of them trust. Names end in
// .example or .test, and nothing leaves the machine.
type world struct {
	t  *testing.T
	ca *authority

	mu    sync.Mutex
	names map[string][]netip.Addr
}

func newWorld(t *testing.T) *world {
	return &world{t: t, ca: newAuthority(t), names: map[string][]netip.Addr{}}
}

// resolve lets name resolve to addresses.
func (w *world) resolve(name string, addresses ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.names[name] = nil
	for _, address := range addresses {
		w.names[name] = append(w.names[name], netip.MustParseAddr(address))
	}
}

// host is one server of the world.
type host struct {
	name   string // with its port
	scheme string

	mu       sync.Mutex
	requests []seen
}

// seen is one request that reached a host.
type seen struct {
	line   string // "GET /v2/..." with its query
	header http.Header
	body   string
}

func (h *host) url() string { return h.scheme + "://" + h.name }

func (h *host) lines() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var lines []string
	for _, r := range h.requests {
		lines = append(lines, r.line)
	}
	return lines
}

// authorizations returns the Authorization headers that reached the host.
func (h *host) authorizations() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var values []string
	for _, r := range h.requests {
		values = append(values, r.header.Values("Authorization")...)
	}
	return values
}

func (h *host) first() seen {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.requests[0]
}

func (h *host) last() seen {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.requests[len(h.requests)-1]
}

func (h *host) record(handler http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		h.mu.Lock()
		h.requests = append(h.requests, seen{r.Method + " " + r.RequestURI, r.Header.Clone(), string(body)})
		h.mu.Unlock()
		handler(rw, r)
	})
}

// serve starts a host under name, over TLS when scheme is https.
func (w *world) serve(scheme, name string, handler http.HandlerFunc) *host {
	h := &host{scheme: scheme}
	server := httptest.NewUnstartedServer(h.record(handler))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	if scheme == "https" {
		server.TLS = &tls.Config{Certificates: []tls.Certificate{w.ca.issue(w.t, time.Hour, name)}}
		server.StartTLS()
	} else {
		server.Start()
	}
	w.t.Cleanup(server.Close)
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	h.name = net.JoinHostPort(name, port)
	if _, err := netip.ParseAddr(name); err != nil {
		w.resolve(name, "127.0.0.1")
	}
	return h
}

// loopback lets hosts other than the upstream's own be on loopback.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// client returns a client of the world for the registry h. change may be nil.
func (w *world) client(h *host, change func(*Config)) *Client {
	w.t.Helper()
	config := Config{Name: "reg", URL: h.url(), CA: w.ca.pem, Resolver: w.resolver(), Egress: loopback}
	if change != nil {
		change(&config)
	}
	c, err := New(config)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	return c
}

// resolver answers from the world's names, over a pipe in DNS's TCP form.
func (w *world) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go w.answerLookups(server)
		return client, nil
	}}
}

func (w *world) answerLookups(conn net.Conn) {
	defer conn.Close()
	for {
		var length uint16
		if binary.Read(conn, binary.BigEndian, &length) != nil {
			return
		}
		query := make([]byte, length)
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		answer, err := w.answer(query)
		if err != nil {
			return
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}

func (w *world) answer(query []byte) ([]byte, error) {
	var message dnsmessage.Message
	if err := message.Unpack(query); err != nil {
		return nil, err
	}
	question := message.Questions[0]
	name := strings.TrimSuffix(question.Name.String(), ".")
	w.mu.Lock()
	addresses, known := w.names[name]
	w.mu.Unlock()
	message.Response, message.Additionals = true, nil
	if !known {
		message.RCode = dnsmessage.RCodeNameError
	}
	for _, address := range addresses {
		header := dnsmessage.ResourceHeader{Name: question.Name, Type: question.Type, Class: question.Class}
		switch {
		case address.Is4() && question.Type == dnsmessage.TypeA:
			message.Answers = append(message.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: address.As4()}})
		case address.Is6() && question.Type == dnsmessage.TypeAAAA:
			message.Answers = append(message.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AAAAResource{AAAA: address.As16()}})
		}
	}
	return message.Pack()
}

// authority is a certificate authority.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{certificate, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// issue returns a certificate for name that is valid until then.
func (a *authority) issue(t *testing.T, valid time.Duration, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(valid),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if addr := net.ParseIP(name); addr != nil {
		template.IPAddresses = []net.IP{addr}
	} else {
		template.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// tokenRegistry is a registry with a token host. Its tokens are "<scope>#<n>",
// and good for the manifests and blobs of their repository alone.
type tokenRegistry struct {
	realm   string
	content http.HandlerFunc // for requests with a good token
	scope   func(repository string) string

	mu      sync.Mutex
	issued  int
	revoked []string
}

func (r *tokenRegistry) revoke(token string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.revoked = append(r.revoked, token)
}

func (r *tokenRegistry) issue(rw http.ResponseWriter, request *http.Request) {
	r.mu.Lock()
	r.issued++
	n := r.issued
	r.mu.Unlock()
	scopes := request.URL.Query()["scope"]
	if request.Method == http.MethodPost {
		scopes = []string{"posted"}
	}
	fmt.Fprintf(rw, `{"token": "%s#%d", "expires_in": 300}`, strings.Join(scopes, ","), n)
}

func (r *tokenRegistry) serve(rw http.ResponseWriter, request *http.Request) {
	repository := repositoryOf(request.URL.Path)
	scope := "repository:" + repository + ":pull"
	if r.scope != nil {
		scope = r.scope(repository)
	}
	token, _ := strings.CutPrefix(request.Header.Get("Authorization"), "Bearer ")
	got, _, _ := strings.Cut(token, "#")
	r.mu.Lock()
	revoked := slices.Contains(r.revoked, token)
	r.mu.Unlock()
	if got != scope || revoked {
		rw.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s",service="svc",scope="%s"`, r.realm, scope))
		rw.WriteHeader(http.StatusUnauthorized)
		return
	}
	if r.content != nil {
		r.content(rw, request)
		return
	}
	fmt.Fprint(rw, "content of "+repository)
}

func repositoryOf(path string) string {
	path = strings.TrimPrefix(path, "/v2/")
	for _, route := range []string{"/manifests/", "/blobs/", "/tags/", "/referrers/"} {
		if before, _, ok := strings.Cut(path, route); ok {
			return before
		}
	}
	return path
}

// manifestOf is Manifest for who holds none.
func manifestOf(ctx context.Context, c *Client, repository, reference string) (body []byte, contentType string, err error) {
	body, contentType, unchanged, err := c.Manifest(ctx, repository, reference, v1.Hash{})
	if unchanged {
		return nil, "", errors.New("unchanged, which was not asked")
	}
	return body, contentType, err
}

// kindOf returns the kind of an error's Error, or "none".
func kindOf(err error) string {
	e, ok := err.(*Error)
	if !ok {
		return "none"
	}
	return e.Kind()
}

func wantKind(t *testing.T, err error, kind string) {
	t.Helper()
	if kindOf(err) != kind {
		t.Fatalf("error %v has kind %q, want %q", err, kindOf(err), kind)
	}
}
