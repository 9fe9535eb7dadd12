// Package sigstore asks the services of an instance of Sigstore to take part in a
// signature: a certificate authority (Fulcio) that certifies a key which is made for
// one signature and forgotten, transparency logs (Rekor, both versions of its API) and
// timestamp authorities (RFC 3161).
//
// What they answer is bounded in size and in time, and an error names the service. It
// is believed as far as a signer must: whoever verifies does so from a trust root of
// their own. With a trust root here, too, every proof is verified before it is kept.
package sigstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/sign"

	"vidimus/signer/bounded"
)

// Timeout is how long one service may take.
const Timeout = 30 * time.Second

// maxAnswer is the largest answer of a service that is read.
const maxAnswer = 4 << 20

// maxFile is the largest signing configuration or trust root that is taken.
const maxFile = 4 << 20

// Log is a transparency log.
type Log struct {
	URL     string
	Version uint32 // of its API: 1 or 2
}

// Services are those that take part in signatures.
type Services struct {
	Authority string   // URL of the certificate authority; empty where keys need none
	Issuer    string   // URL of the OpenID issuer at which people sign in for it; may be empty
	Logs      []Log    // each of which gives an entry
	Stampers  []string // URLs of timestamp authorities, each of which gives a timestamp

	// Stamping is what Stampers are asked over; nil means the usual.
	Stamping http.RoundTripper

	// Trusted verifies what they gave before it is kept; nil for not.
	Trusted root.TrustedMaterial

	// Timeout is for each of them; zero means Timeout.
	Timeout time.Duration
}

// Check returns what is wrong with the services' addresses.
func (s Services) Check() error {
	for _, log := range s.Logs {
		if log.Version != 1 && log.Version != 2 {
			return fmt.Errorf("transparency log %s: no such version of the API: %d", log.URL, log.Version)
		}
		if err := checkURL("transparency log", log.URL); err != nil {
			return err
		}
	}
	for _, stamper := range s.Stampers {
		if err := checkURL("timestamp authority", stamper); err != nil {
			return err
		}
	}
	if s.Authority == "" {
		return nil
	}
	return checkURL("certificate authority", s.Authority)
}

func checkURL(what, text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return fmt.Errorf("%s %q: want a URL of https or http", what, text)
	}
	return nil
}

// Promises reports whether some log signs a promise at once, which a signature beside
// a layer can hold: those of version 1 do.
func (s Services) Promises() bool {
	for _, log := range s.Logs {
		if log.Version == 1 {
			return true
		}
	}
	return false
}

// ParseSigningConfig reads which services to use from a signing_config.json (v0.2), as
// of now: for each kind as many as it says, of the newest version of their API.
func ParseSigningConfig(data []byte, now time.Time) (Services, error) {
	if len(data) > maxFile {
		return Services{}, fmt.Errorf("signing config: larger than %d bytes", maxFile)
	}
	config, err := root.NewSigningConfigFromJSON(data)
	if err != nil {
		return Services{}, fmt.Errorf("signing config: %w", err)
	}
	var s Services
	if urls := config.FulcioCertificateAuthorityURLs(); len(urls) > 0 {
		authority, err := root.SelectService(urls, sign.FulcioAPIVersions, now)
		if err != nil {
			return Services{}, fmt.Errorf("signing config: certificate authority: %w", err)
		}
		s.Authority = authority.URL
	}
	if urls := config.OIDCProviderURLs(); len(urls) > 0 {
		issuer, err := root.SelectService(urls, []uint32{1}, now)
		if err != nil {
			return Services{}, fmt.Errorf("signing config: OpenID issuer: %w", err)
		}
		s.Issuer = issuer.URL
	}
	if urls := config.RekorLogURLs(); len(urls) > 0 {
		logs, err := root.SelectServices(urls, config.RekorLogURLsConfig(), sign.RekorAPIVersions, now)
		if err != nil {
			return Services{}, fmt.Errorf("signing config: transparency log: %w", err)
		}
		for _, log := range logs {
			s.Logs = append(s.Logs, Log{log.URL, log.MajorAPIVersion})
		}
	}
	if urls := config.TimestampAuthorityURLs(); len(urls) > 0 {
		stampers, err := root.SelectServices(urls, config.TimestampAuthorityURLsConfig(), sign.TimestampAuthorityAPIVersions, now)
		if err != nil {
			return Services{}, fmt.Errorf("signing config: timestamp authority: %w", err)
		}
		for _, stamper := range stampers {
			s.Stampers = append(s.Stampers, stamper.URL)
		}
	}
	return s, s.Check()
}

// ParseTrustedRoot reads a trusted_root.json.
func ParseTrustedRoot(data []byte) (root.TrustedMaterial, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("trusted root: larger than %d bytes", maxFile)
	}
	trusted, err := root.NewTrustedRootFromJSON(data)
	if err != nil {
		return nil, fmt.Errorf("trusted root: %w", err)
	}
	return trusted, nil
}

// within asks a service, and gives up when it takes longer than a service may.
func within[T any](ctx context.Context, limit time.Duration, service string, do func(context.Context) (T, error)) (T, error) {
	value, err := bounded.Call(ctx, limit, do)
	if err == nil {
		return value, nil
	}
	if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %v: %w", limit, err)
	}
	return value, fmt.Errorf("%s: %w", service, err)
}

func (s Services) timeout() time.Duration {
	if s.Timeout == 0 {
		return Timeout
	}
	return s.Timeout
}

// answer sends a request and returns the status and the bounded body.
func answer(req *http.Request) (*http.Response, []byte, error) {
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, nil, err
	}
	if len(body) > maxAnswer {
		return nil, nil, fmt.Errorf("an answer of more than %d bytes", maxAnswer)
	}
	return resp, body, nil
}

// refused is what a service said instead of what was asked for: on one line, bounded.
func refused(resp *http.Response, body []byte) error {
	const limit = 512
	return fmt.Errorf("%s: %q", resp.Status, body[:min(len(body), limit)])
}
