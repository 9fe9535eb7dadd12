package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/spf13/cobra"

	"vidimus/proxy/upstream"
)

// registryFlags are how a command reaches a registry that a person named, with
// the names and meanings that they have in cosign.
type registryFlags struct {
	allowHTTP, insecure bool
	caFile              string

	// What proves who asks goes to one registry alone, the first that is asked: a
	// command that asks two cannot tell whose it is.
	username, password, token string
	certFile, keyFile         string
	serverName                string
	theOne                    onlyRegistry

	tagPrefix string
}

func (f *registryFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&f.allowHTTP, "allow-http-registry", false, "speak plain HTTP to a registry that has no TLS")
	flags.BoolVar(&f.insecure, "allow-insecure-registry", false, "do not check the registry's certificate")
	flags.StringVar(&f.caFile, "registry-cacert", "", "PEM `FILE` of authorities to trust for the registry, besides the system's")
	flags.StringVar(&f.username, "registry-username", "", "`NAME` at the registry, instead of docker's credential store")
	flags.StringVar(&f.password, "registry-password", "", "its password, which other users of this host can see on a command line")
	flags.StringVar(&f.token, "registry-token", "", "bearer `TOKEN` for the registry, instead of a name and password")
	flags.StringVar(&f.certFile, "registry-client-cert", "", "PEM `FILE` of the certificate to show to the registry")
	flags.StringVar(&f.keyFile, "registry-client-key", "", "PEM `FILE` of its private key")
	flags.StringVar(&f.serverName, "registry-server-name", "", "the `NAME` that the registry's certificate is of, if not its host's")
	flags.StringVar(&f.tagPrefix, "attachment-tag-prefix", "", "`PREFIX` of the tags of evidence, as in PREFIXsha256-<hex>.sig")
}

// onlyRegistry is the one registry that something is for.
type onlyRegistry struct {
	mu   sync.Mutex
	host string
}

// is reports whether host is the registry that it is for.
func (o *onlyRegistry) is(host string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.host == host
}

// settle makes host the registry that it is for, unless another is already.
func (o *onlyRegistry) settle(host string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.host == "" {
		o.host = host
	}
	if o.host != host {
		return fmt.Errorf("--registry-username, --registry-token and --registry-client-cert are for one registry, and this asks %s and %s: log in with docker login instead", o.host, host)
	}
	return nil
}

// proves reports whether the flags say who asks.
func (f *registryFlags) proves() bool {
	return f.username+f.password+f.token+f.certFile+f.keyFile+f.serverName != ""
}

// tagName is what a tag may be. Source: distribution-spec.
var tagName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`) })

// check finds what is wrong with the flags together.
func (f *registryFlags) check() error {
	longest := f.tagPrefix + "sha256-" + strings.Repeat("0", 64) + ".sbom"
	switch {
	case (f.username == "") != (f.password == ""):
		return misuse(errors.New("--registry-username and --registry-password go together"))
	case f.username != "" && f.token != "":
		return misuse(errors.New("--registry-token and --registry-username: one of them says who asks"))
	case (f.certFile == "") != (f.keyFile == ""):
		return misuse(errors.New("--registry-client-cert and --registry-client-key go together"))
	case f.tagPrefix != "" && !tagName().MatchString(longest):
		return misuse(fmt.Errorf("--attachment-tag-prefix %q: together with sha256-<hex>.sbom that is no tag", f.tagPrefix))
	}
	return nil
}

// prefixedTag matches the tags of evidence that may have a prefix.
var prefixedTag = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^sha256-[0-9a-f]{64}\.(sig|att|sbom)$`) })

// tagged returns a reference as the registry knows it: tags of evidence have the prefix
// that was given.
func (f *registryFlags) tagged(reference string) string {
	if f == nil || f.tagPrefix == "" || !prefixedTag().MatchString(reference) {
		return reference
	}
	return f.tagPrefix + reference
}

// credentials are what says to a registry who asks: what the flags say, or docker's
// credential store.
func (f *registryFlags) credentials(ctx context.Context, repo name.Repository) (authn.Authenticator, error) {
	if f.proves() {
		if err := f.theOne.settle(repo.RegistryStr()); err != nil {
			return nil, misuse(err)
		}
	}
	switch {
	case f.username != "":
		return &authn.Basic{Username: f.username, Password: f.password}, nil
	case f.token != "":
		return &authn.Bearer{Token: f.token}, nil
	}
	auth, err := authn.Resolve(ctx, authn.DefaultKeychain, repo)
	if err != nil {
		return nil, fmt.Errorf("credentials for %s: %w", repo.RegistryStr(), err)
	}
	return auth, nil
}

// upstreamCredentials are credentials for a client that is made for one registry.
func (f *registryFlags) upstreamCredentials(registry name.Registry) (upstream.Credentials, error) {
	if f.proves() {
		if err := f.theOne.settle(registry.RegistryStr()); err != nil {
			return nil, misuse(err)
		}
	}
	switch {
	case f.username != "":
		return upstream.Static(f.username, f.password), nil
	case f.token != "":
		return upstream.Bearer(f.token), nil
	}
	return upstream.DockerConfig(""), nil
}

// certificate returns what --registry-client-cert names, nil without it.
func (f *registryFlags) certificate() (*tls.Certificate, error) {
	if f.certFile == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(f.certFile, f.keyFile)
	if err != nil {
		return nil, misuse(fmt.Errorf("--registry-client-cert: %w", err))
	}
	return &pair, nil
}

// authorities returns what --registry-cacert names, nil without it.
func (f *registryFlags) authorities() ([]byte, error) {
	if f.caFile == "" {
		return nil, nil
	}
	ca, err := os.ReadFile(f.caFile)
	if err != nil {
		return nil, misuse(fmt.Errorf("--registry-cacert: %w", err))
	}
	return ca, nil
}

// certificateFor shows a certificate to one registry, and to no host that this redirects to.
type certificateFor struct {
	to          *onlyRegistry
	own, others http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (c certificateFor) RoundTrip(req *http.Request) (*http.Response, error) {
	if c.to.is(req.URL.Host) {
		return c.own.RoundTrip(req)
	}
	return c.others.RoundTrip(req)
}

// presenting returns a transport that shows the certificate of the flags to the one
// registry that it is for.
func (f *registryFlags) presenting(t *http.Transport) (http.RoundTripper, error) {
	pair, err := f.certificate()
	if err != nil || pair == nil && f.serverName == "" {
		return t, err
	}
	own := t.Clone()
	if own.TLSClientConfig == nil {
		own.TLSClientConfig = new(tls.Config)
	}
	own.TLSClientConfig.ServerName = f.serverName
	if pair != nil {
		own.TLSClientConfig.Certificates = []tls.Certificate{*pair}
	}
	return certificateFor{&f.theOne, own, t}, nil
}

// words are the flags that reach the same registry, but for secrets.
func (f *registryFlags) words() []string {
	var words []string
	if f.allowHTTP {
		words = append(words, "--allow-http-registry")
	}
	if f.insecure {
		words = append(words, "--allow-insecure-registry")
	}
	for _, flag := range []struct{ name, value string }{
		{"registry-cacert", f.caFile}, {"registry-server-name", f.serverName},
		{"registry-client-cert", f.certFile}, {"registry-client-key", f.keyFile},
		{"attachment-tag-prefix", f.tagPrefix},
	} {
		if flag.value != "" {
			words = append(words, "--"+flag.name, shellQuote(flag.value))
		}
	}
	return words
}
