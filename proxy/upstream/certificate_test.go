package upstream

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// TestACertificateIsShownToTheRegistryAlone has a registry that wants one redirect to a
// host that asks for one, too, and gets none.
func TestACertificateIsShownToTheRegistryAlone(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "robot"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pair := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
	serve := func(handler http.HandlerFunc) *httptest.Server {
		server := httptest.NewUnstartedServer(handler)
		server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
		server.StartTLS()
		t.Cleanup(server.Close)
		return server
	}
	content := []byte("blob")
	var shownElsewhere atomic.Int64
	elsewhere := serve(func(w http.ResponseWriter, r *http.Request) {
		shownElsewhere.Add(int64(len(r.TLS.PeerCertificates)))
		_, _ = w.Write(content)
	})
	var shown atomic.Int64
	registry := serve(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) == 0 {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		shown.Add(1)
		http.Redirect(w, r, elsewhere.URL+"/blob", http.StatusTemporaryRedirect)
	})
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: registry.Certificate().Raw})
	digest, _, err := v1.SHA256(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		certificate *tls.Certificate
		name        string
		good        bool
	}{
		{&pair, "", true},
		{&pair, "example.com", true}, // which httptest's certificate is of
		{nil, "", false},
		{&pair, "other.example", false},
	} {
		client, err := New(Config{Name: "reg.test", URL: registry.URL, CA: ca, Certificate: row.certificate, ServerName: row.name})
		if err != nil {
			t.Fatal(err)
		}
		body, _, err := client.Blob(t.Context(), "acme/web", digest, 0)
		if (err == nil) != row.good {
			t.Errorf("certificate %t, name %q: %v", row.certificate != nil, row.name, err)
		}
		if err == nil {
			body.Close()
		}
		client.Close()
	}
	if shown.Load() == 0 || shownElsewhere.Load() > 0 {
		t.Errorf("shown to the registry %d times, and elsewhere %d times", shown.Load(), shownElsewhere.Load())
	}
}

// A piece of an upload lasts as long as its sender likes. It takes no connection from what
// is asked of a registry that is shown a certificate, or goes by another name, either.
func TestAPieceTakesNoConnectionWithACertificate(t *testing.T) {
	arrived, goOn := make(chan struct{}), make(chan struct{})
	manifest := []byte(`{"schemaVersion":2}`)
	registry := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodPatch:
			close(arrived)
			<-goOn
			w.Header().Set("Location", r.URL.Path)
			w.WriteHeader(http.StatusAccepted)
		default:
			_, _ = w.Write(manifest)
		}
	}))
	defer registry.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: registry.Certificate().Raw})
	client, err := New(Config{Name: "reg.test", URL: registry.URL, CA: ca, ServerName: "example.com", Limits: Limits{Connections: 1}, Timeouts: Timeouts{Whole: 5 * time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	sent := make(chan error)
	go func() {
		_, _, err := client.AppendUpload(context.Background(), "acme/web", "/v2/acme/web/blobs/uploads/1", 0, 1, false, bytes.NewReader([]byte("x")))
		sent <- err
	}()
	<-arrived
	if _, _, _, err := client.Manifest(t.Context(), "acme/web", "v1", v1.Hash{}); err != nil {
		t.Error(err)
	}
	close(goOn)
	if err := <-sent; err != nil {
		t.Error(err)
	}
}
