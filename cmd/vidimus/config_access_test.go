package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"vidimus/proxy"
	"vidimus/proxy/access"
)

// htpasswdOf is an htpasswd file of user, password, user, password...
func htpasswdOf(t testing.TB, pairs ...string) string {
	t.Helper()
	var file strings.Builder
	for pair := range slices.Chunk(pairs, 2) {
		hash, err := bcrypt.GenerateFromPassword([]byte(pair[1]), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		file.WriteString(pair[0] + ":" + string(hash) + "\n")
	}
	return file.String()
}

const guardedConfig = plainConfig + `
auth:
  htpasswd: users
  access:
    - {subjects: [alice], match: "docker.io/a/**", actions: [pull, push]}
    - {subjects: [authenticated], match: ["docker.io/**", "!docker.io/b/**"], actions: [pull]}
`

// login is what the revision in effect says of a user and password.
func login(r *revision, user, password string) error {
	request := httptest.NewRequest(http.MethodGet, "/v2/", nil)
	request.SetBasicAuth(user, password)
	_, err := r.Proxy.Access.Identify(request)
	return err
}

func TestAccessReachesTheProxy(t *testing.T) {
	inDirectory(t, map[string]string{"users": htpasswdOf(t, "alice", "one", "bob", "two")})
	r, err := mustLoad(t, guardedConfig, nil).build(observers{}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	alice, bob := access.Caller{Kind: access.User, Name: "alice"}, access.Caller{Kind: access.User, Name: "bob"}
	for _, row := range []struct {
		caller     access.Caller
		repository string
		action     access.Action
		want       bool
	}{
		{alice, "docker.io/a/x", access.Push, true},
		{bob, "docker.io/a/x", access.Pull, true},
		{bob, "docker.io/a/x", access.Push, false},
		{alice, "docker.io/b/x", access.Pull, false},
		{access.Caller{}, "docker.io/a/x", access.Pull, false},
	} {
		if got := r.Proxy.Access.Allows(row.caller, row.repository, row.action); got != row.want {
			t.Errorf("%s %s %s: %v", row.caller, row.action, row.repository, got)
		}
	}
	if login(r, "alice", "one") != nil || !errors.Is(login(r, "alice", "two"), access.ErrCredentials) {
		t.Error("passwords are not those of the file")
	}
}

func TestWithoutAccessNobodyIsAsked(t *testing.T) {
	inDirectory(t, nil)
	for _, auth := range []string{"", "auth: {}\n", "auth: {anonymousPull: true}\n"} {
		r, err := mustLoad(t, plainConfig+auth, nil).build(observers{}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.Proxy.Access != nil {
			t.Errorf("%q: callers are asked who they are", auth)
		}
	}
}

func TestCredentialsOffLoopbackWithAccess(t *testing.T) {
	inDirectory(t, map[string]string{"users": htpasswdOf(t, "alice", "one")})
	mustLoad(t, `
version: 1
http: {addr: ":5080"}
upstreams: {docker.io: {credentials: docker}}
auth: {htpasswd: users, access: [{subjects: [alice], match: "**", actions: [pull]}]}
`, nil)
}

func TestAnonymousMayDoMoreOnLoopback(t *testing.T) {
	inDirectory(t, nil)
	mustLoad(t, `
version: 1
upstreams: {docker.io: {}}
auth: {access: [{subjects: [anonymous], match: "**", actions: [pull, push, sign, inspect, delete]}], anonymousPull: true}
`, nil)
}

func TestPasswordsCountForTheRevisionButNotForItsID(t *testing.T) {
	inDirectory(t, map[string]string{"users": htpasswdOf(t, "alice", "one", "bob", "two")})
	before := mustLoad(t, guardedConfig, nil)
	writeFile(t, "users", htpasswdOf(t, "alice", "other", "bob", "two"))
	after := mustLoad(t, guardedConfig, nil)
	if after.sum == before.sum {
		t.Error("a changed password changed nothing")
	}
	if after.ID != before.ID {
		t.Error("the id, which everybody sees, depends on a password")
	}
}

func TestAChangedPasswordCountsWithinThePromise(t *testing.T) {
	reload(t, map[string]string{"vidimus.yaml": guardedConfig, "users": htpasswdOf(t, "alice", "one", "bob", "two")}, func(r *reloading) {
		for range 2 { // remembered
			if err := login(r.Revision(), "alice", "one"); err != nil {
				t.Fatal(err)
			}
		}
		remembers := r.Revision().passwords
		writeFile(t, "vidimus.yaml", guardedConfig+"enforcement: warn\n")
		r.pass(withinPromise)
		r.wantRevisions(1)
		if r.Revision().passwords != remembers {
			t.Error("another change has everybody's password hashed again")
		}
		writeFile(t, "users", htpasswdOf(t, "alice", "another", "bob", "two"))
		r.pass(withinPromise)
		r.wantRevisions(2)
		if err := login(r.Revision(), "alice", "one"); !errors.Is(err, access.ErrCredentials) {
			t.Errorf("the old password: %v", err)
		}
		if err := login(r.Revision(), "alice", "another"); err != nil {
			t.Errorf("the new one: %v", err)
		}
		// what does not hold changes nothing, and says why without what it says
		writeFile(t, "users", "alice:c4nary\n"+htpasswdOf(t, "bob", "two"))
		r.pass(withinPromise)
		r.wantRevisions(2)
		if err := login(r.Revision(), "alice", "another"); err != nil {
			t.Errorf("a broken file: %v", err)
		}
		if log := r.log.String(); !strings.Contains(log, "users:1: the hash of user alice is not bcrypt") || strings.Contains(log, "c4nary") {
			t.Errorf("the log: %s", log)
		}
	})
}

func TestSummarySaysWhoMayDoWhat(t *testing.T) {
	inDirectory(t, map[string]string{"users": htpasswdOf(t, "alice", "one")})
	for text, want := range map[string][]string{
		plainConfig:   {"\naccess        everyone who reaches the port may pull\n"},
		guardedConfig: {"\naccess        alice: pull, push in docker.io/a/**\n", "\naccess        authenticated: pull in docker.io/**, !docker.io/b/**\n", "\naccess        otherwise refused\n"},
	} {
		var out strings.Builder
		if err := mustLoad(t, text, nil).summarize(&out, "vidimus.yaml", clock); err != nil {
			t.Fatal(err)
		}
		for _, line := range want {
			if !strings.Contains(out.String(), line) {
				t.Errorf("the summary does not say %q:\n%s", line, &out)
			}
		}
	}
}

// clientPair returns a certificate authority as PEM, and a client's certificate by it.
func clientPair(t *testing.T, name pkix.Name, hosts ...string) (ca string, client tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	root, err := x509.CreateCertificate(rand.Reader, authority, authority, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: name, DNSNames: hosts, NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	signed, err := x509.CreateCertificate(rand.Reader, leaf, authority, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root})), tls.Certificate{Certificate: [][]byte{signed}, PrivateKey: key}
}

// TestAClientCertificateIsACaller shows certificates to a server, over TLS.
func TestAClientCertificateIsACaller(t *testing.T) {
	certificate, key := selfSigned(t)
	nodes, node := clientPair(t, pkix.Name{CommonName: "admin"}, "node.example")
	admins, admin := clientPair(t, pkix.Name{CommonName: "admin"})
	inDirectory(t, map[string]string{
		"tls.crt": certificate, "tls.key": key, "nodes.pem": nodes, "admins.pem": admins, "users": htpasswdOf(t, "alice", "one"),
		"vidimus.yaml": plainConfig + `
http: {addr: "127.0.0.1:0", tls: {certificate: tls.crt, key: tls.key, clientCAs: [nodes.pem, admins.pem]}}
metrics: {addr: ""}
auth: {htpasswd: users, access: [{subjects: ["cert:node.example", alice], match: "docker.io/**", actions: [pull]}]}
`})
	s, err := startServer(t, fromFile("vidimus.yaml"), new(bytes.Buffer))
	if err != nil {
		t.Fatal(err)
	}
	l := s.listeners[0]
	done := make(chan error, 1)
	go func() { done <- l.server.Serve(l.Listener) }()
	defer func() { l.server.Close(); <-done }()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(certificate))
	for name, row := range map[string]struct {
		certificate    tls.Certificate
		user, password string
		want           int
	}{
		"a name of the certificate":           {node, "", "", http.StatusOK},
		"the common name beside others":       {admin, "", "", http.StatusForbidden},
		"a user behind another's certificate": {admin, "alice", "one", http.StatusOK},
		"a wrong password behind a good one":  {node, "alice", "two", http.StatusUnauthorized},
	} {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{row.certificate}}, DisableKeepAlives: true}}
		request, err := http.NewRequest(http.MethodGet, "https://"+s.address()+"/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if row.user != "" {
			request.SetBasicAuth(row.user, row.password)
		}
		answer, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != row.want {
			t.Errorf("%s: %d %s", name, answer.StatusCode, body)
		}
	}
}

func TestDecisionsNameWhoAsked(t *testing.T) {
	var out strings.Builder
	f := decisionsFlags{}
	r := proxy.Record{ID: "7f3c", Decision: "denied", Reason: "unsigned", Repository: "ghcr.io/acme/web", Reference: "v1", Enforcement: "enforce", Client: "192.0.2.7", Caller: "auditor", Access: "inspect"}
	if err := f.printer(&out)(r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"client auditor at 192.0.2.7\n", "; SERVED all the same, for the caller may inspect"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in %s", want, &out)
		}
	}
	for client, want := range map[string]bool{"auditor": true, "192.0.2.7": true, "inspect": false} {
		if (proxy.Query{Client: client}).Matches(r) != want {
			t.Errorf("--client %s: %v", client, !want)
		}
	}
}
