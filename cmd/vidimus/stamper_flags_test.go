package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestATimestampAuthorityThatWantsACertificate is one whose own certificate is of another
// name than its host, and of an authority that the system does not know.
func TestATimestampAuthorityThatWantsACertificate(t *testing.T) {
	isolate(t)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	key, err := x509.MarshalPKCS8PrivateKey(server.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	writeFile(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	writeFile(t, "none.pem", "no certificate")
	shown := []string{"--timestamp-client-cert", "cert.pem", "--timestamp-client-key", "key.pem"}
	trusted := append([]string{"--timestamp-client-cacert", "cert.pem"}, shown...)
	for name, tt := range map[string]struct {
		args []string
		want string // of the error; empty where it answers
	}{
		"all of it":                {append([]string{"--timestamp-server-name", "example.com"}, trusted...), ""},
		"by its host's name":       {trusted, ""},
		"of another name":          {append([]string{"--timestamp-server-name", "other.example"}, trusted...), "other.example"},
		"no certificate to show":   {[]string{"--timestamp-client-cacert", "cert.pem"}, "certificate required"},
		"an authority of nobody's": {shown, "unknown authority"},
		"half a pair":              {shown[:2], "go together"},
		"a file that is missing":   {[]string{"--timestamp-client-cacert", "missing.pem"}, "--timestamp-client-cacert: open missing.pem"},
		"a file without one":       {[]string{"--timestamp-client-cacert", "none.pem"}, "none.pem holds no certificate"},
		"no pair":                  {[]string{"--timestamp-client-cert", "key.pem", "--timestamp-client-key", "key.pem"}, "--timestamp-client-cert:"},
	} {
		t.Run(name, func(t *testing.T) {
			var f stamperFlags
			cmd := new(cobra.Command)
			f.register(cmd)
			if err := cmd.ParseFlags(tt.args); err != nil {
				t.Fatal(err)
			}
			transport, err := f.transport()
			if err == nil {
				var response *http.Response
				client := http.Client{Transport: transport}
				if response, err = client.Get(server.URL); err == nil {
					response.Body.Close()
				}
			}
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
	var f stamperFlags
	if transport, err := f.transport(); transport != nil || err != nil {
		t.Errorf("without flags: %v, %v", transport, err)
	}
}
