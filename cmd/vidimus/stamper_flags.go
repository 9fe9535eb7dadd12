package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"
)

// stamperFlags are how a timestamp authority is reached, with cosign's names.
type stamperFlags struct {
	stamper                            string
	stamperCA, stamperCert, stamperKey string
	stamperName                        string
}

func (f *stamperFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.stamper, "timestamp-server-url", "", "get a timestamp from this RFC 3161 authority")
	flags.StringVar(&f.stamperCA, "timestamp-client-cacert", "", "PEM `FILE` of authorities to trust for the timestamp authority, instead of the system's")
	flags.StringVar(&f.stamperCert, "timestamp-client-cert", "", "PEM `FILE` of the certificate to show to the timestamp authority")
	flags.StringVar(&f.stamperKey, "timestamp-client-key", "", "PEM `FILE` of its private key")
	flags.StringVar(&f.stamperName, "timestamp-server-name", "", "the `NAME` that the timestamp authority's certificate is of, if not its host's")
}

// transport is what the authority is asked over, nil for the usual.
func (f *stamperFlags) transport() (http.RoundTripper, error) {
	if f.stamperCA+f.stamperCert+f.stamperKey+f.stamperName == "" {
		return nil, nil
	}
	if (f.stamperCert == "") != (f.stamperKey == "") {
		return nil, errors.New("--timestamp-client-cert and --timestamp-client-key go together")
	}
	config := &tls.Config{ServerName: f.stamperName}
	if f.stamperCA != "" {
		data, err := readBounded(f.stamperCA)
		if err != nil {
			return nil, fmt.Errorf("--timestamp-client-cacert: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("--timestamp-client-cacert: %s holds no certificate in PEM", f.stamperCA)
		}
	}
	if f.stamperCert != "" {
		pair, err := tls.LoadX509KeyPair(f.stamperCert, f.stamperKey)
		if err != nil {
			return nil, fmt.Errorf("--timestamp-client-cert: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = config
	return t, nil
}
