// Package upstream reads from one upstream registry over the distribution API, and
// writes to it what is pushed.
//
// Nothing that the registry says is believed. The package bounds what it
// receives in size, time and number, and keeps the registry's credentials to
// itself; it checks no digest. Who uses it hashes every byte: digest headers
// are neither read nor returned, and a tag resolves to bytes, not to a digest.
//
// Three rules hold whatever the registry answers:
//
//   - Credentials and tokens go to the registry's own scheme, host and port,
//     and to token hosts that are allowed (see Config.AuthHosts). They go to no
//     redirect's host, and into no error.
//   - Every address is checked after the name has been resolved, at each dial
//     (see Config.Egress). Link-local addresses are never dialled.
//   - Redirects are followed at most five times, never from https to http.
//
// Through an HTTP proxy it is the proxy that resolves the registry's name; then
// only the proxy's own address and addresses written out in URLs are checked
// here, and the proxy's rules decide about names.
//
// Errors are *Error. Those for something that the registry does not have match
// fs.ErrNotExist; a name, tag or digest outside the OCI grammar matches
// fs.ErrInvalid, and nothing is sent for it.
package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Config describes one upstream registry. Only Name is required.
type Config struct {
	// Name is what the configuration calls the registry: "ghcr.io". It names
	// the registry in errors.
	Name string

	// URL is the scheme, host and port of the registry, without a path. Empty
	// means https://<Name>, and for docker.io https://registry-1.docker.io.
	URL string

	// Credentials are asked whenever the registry or its token host wants to
	// know who asks. Nil means anonymous.
	Credentials Credentials

	// CA holds PEM certificates that are trusted in addition to the system's.
	CA []byte

	// Certificate is shown to the registry's own origin when it asks for one, and
	// to nobody else; nil means none. ServerName is what its certificate is to be
	// of instead of the host's name; empty means that.
	Certificate *tls.Certificate
	ServerName  string

	// AuthHosts are hosts (host or host:port) that may issue tokens besides the
	// registry's own host and its registrable domain. They are compared
	// exactly and must be reached over https. A host that is listed here is
	// given the credentials, and issues tokens that are given to the registry:
	// list none that is shared with a registry that is trusted less.
	AuthHosts []string

	// Egress lists networks with private addresses that redirects, token hosts
	// and proxies may resolve to. The registry's own host may always.
	Egress []netip.Prefix

	// Proxy is asked, for each request, for the HTTP proxy to use. Nil means
	// none; the environment is not looked at.
	Proxy func(*http.Request) (*url.URL, error)

	// UserAgent is sent with each request; empty means "vidimus".
	UserAgent string

	// Observe, when not nil, is called once for each answer, those of token
	// hosts and redirects included, with its status code, "other" for a code
	// that HTTP does not define, or "error" when there was no answer. remaining
	// is what the registry says is left of its rate limit, or -1. It must not
	// block.
	Observe func(status string, remaining int)

	// Resolver looks names up; nil means the system's.
	Resolver *net.Resolver

	Timeouts Timeouts
	Limits   Limits
}

// Timeouts bound the time that the registry may take. Zero means the default.
type Timeouts struct {
	Dial   time.Duration // one connection, the lookup of its name included; 10 s
	TLS    time.Duration // one handshake; 10 s
	Header time.Duration // from the request to the answer's header; 30 s
	Whole  time.Duration // an answer that is held in memory, or the header of a blob, with retries, redirects and tokens; 60 s
	Idle   time.Duration // without a byte of a blob that is being waited for, or taken; 30 s
	Commit time.Duration // the answer to what was uploaded: a manifest, or the end of a blob, which some move then; 5 min
}

// Limits bound what the registry may send. Zero means the default.
type Limits struct {
	Manifest    int64 // bytes of a manifest; 4 MiB
	Error       int64 // bytes of a token answer, and of an error that is looked into; 64 KiB
	Page        int64 // bytes of one page of tags or referrers; 4 MiB
	Header      int64 // bytes of an answer's header; 64 KiB
	Pages       int   // pages of one list; 32
	Referrers   int   // descriptors of one list of referrers; 1024
	Connections int   // at once to one host, but for pieces of uploads, and as many for writes; 64
	Rate        int64 // bytes a second below which a blob's transfer is given up; 1 KiB
}

// Client speaks to one upstream registry. It is safe for concurrent use.
type Client struct {
	name      string
	own       origin
	userAgent string
	observe   func(string, int)
	timeouts  Timeouts
	limits    Limits
	egress    egress
	transport *http.Transport
	writing   *http.Transport                     // for what changes something: it may take longer, and takes no connection from pulls
	pieces    *http.Transport                     // for pieces of blobs, which last as long as who sends them likes: they take none from either
	certified map[*http.Transport]*http.Transport // what each is to the registry's own origin, when there is a certificate or another name
	auth      *authenticator
	marks     tagMarks
	allowance allowance
	breaker   breaker
	begun     validators // of transfers under way
}

// New returns a client for the registry that config describes. It reports all
// that is wrong with config, and dials nothing.
func New(config Config) (*Client, error) { return newClient(config, nil) }

// newClient is New with another way to dial; nil means the network.
func newClient(config Config, dial dialFunc) (*Client, error) {
	own, errURL := parseURL(config)
	hosts, errHosts := parseAuthHosts(config.AuthHosts)
	roots, errCA := parseCA(config.CA)
	var errName error
	if config.Name == "" {
		errName = errors.New("an upstream needs a name")
	}
	reach := egress{own: own, private: own.private(), allow: slices.Clone(config.Egress)}
	if err := errors.Join(errName, errURL, errHosts, errCA, reach.checkURL(own)); err != nil {
		return nil, fmt.Errorf("upstream %s: %w", config.Name, err)
	}

	c := &Client{
		name:      config.Name,
		own:       own,
		userAgent: config.UserAgent,
		observe:   config.Observe,
		timeouts:  config.Timeouts.withDefaults(),
		limits:    config.Limits.withDefaults(),
		egress:    reach,
	}
	if c.userAgent == "" {
		c.userAgent = "vidimus"
	}
	if c.observe == nil {
		c.observe = func(string, int) {}
	}
	if dial == nil {
		dial = c.egress.dialler(c.timeouts.Dial, config.Resolver)
	}
	c.transport = newTransport(config.Proxy, roots, c.breaker.guard(dial), c.timeouts, c.limits)
	patient := c.timeouts
	patient.Header = c.timeouts.Commit
	c.writing = newTransport(config.Proxy, roots, c.breaker.guard(dial), patient, c.limits)
	c.pieces = newTransport(config.Proxy, roots, c.breaker.guard(dial), patient, c.limits)
	c.pieces.WriteBufferSize = transportWrite
	c.pieces.MaxConnsPerHost = 0 // who sends them bounds how many there are
	if config.Certificate != nil || config.ServerName != "" {
		c.certified = make(map[*http.Transport]*http.Transport)
		for _, usual := range []*http.Transport{c.transport, c.writing, c.pieces} {
			own := usual.Clone()
			own.TLSClientConfig.ServerName = config.ServerName
			if config.Certificate != nil {
				own.TLSClientConfig.Certificates = []tls.Certificate{*config.Certificate}
			}
			c.certified[usual] = own
		}
	}
	c.auth = &authenticator{
		realms:      realms{name: config.Name, own: own, hosts: hosts},
		credentials: config.Credentials,
		send:        c.roundTrip,
		userAgent:   c.userAgent,
		limit:       c.limits.Error,
		timeout:     c.timeouts.Whole,
	}
	return c, nil
}

// Close closes the connections that are idle. Requests that are under way go on,
// and the client may still be used.
func (c *Client) Close() {
	c.transport.CloseIdleConnections()
	c.writing.CloseIdleConnections()
	c.pieces.CloseIdleConnections()
	for _, own := range c.certified {
		own.CloseIdleConnections()
	}
}

func parseURL(config Config) (origin, error) {
	raw := config.URL
	switch {
	case raw == "" && config.Name == "docker.io":
		raw = "https://registry-1.docker.io"
	case raw == "":
		raw = "https://" + config.Name
	}
	// The text of the URL stays out of the errors: it may hold a password.
	u, err := url.Parse(raw)
	if err != nil {
		return origin{}, errors.New("url is not a URL")
	}
	if u.Host == "" {
		return origin{}, errors.New("url needs a scheme and a host: https://registry.example")
	}
	if u.User != nil {
		return origin{}, errors.New("url holds a user name or password: use username and passwordFile")
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return origin{}, errors.New("url has a path or query: a registry's API is at /v2/ of its host")
	}
	own, err := originOf(u)
	if err != nil {
		return origin{}, fmt.Errorf("url: %w", err)
	}
	return own, nil
}

func parseAuthHosts(hosts []string) (map[origin]bool, error) {
	parsed := make(map[origin]bool, len(hosts))
	var errs []error
	for _, host := range hosts {
		u, err := url.Parse("https://" + host)
		if err != nil || u.Host != host {
			errs = append(errs, fmt.Errorf("authHosts: %q is not a host or host:port", host))
			continue
		}
		o, err := originOf(u)
		if err != nil {
			errs = append(errs, fmt.Errorf("authHosts: %q: %w", host, err))
			continue
		}
		parsed[o] = true
	}
	return parsed, errors.Join(errs...)
}

func parseCA(pem []byte) (*x509.CertPool, error) {
	if len(pem) == 0 {
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("ca holds no PEM certificate")
	}
	return pool, nil
}

func (t Timeouts) withDefaults() Timeouts {
	t.Dial = orDefault(t.Dial, 10*time.Second)
	t.TLS = orDefault(t.TLS, 10*time.Second)
	t.Header = orDefault(t.Header, 30*time.Second)
	t.Whole = orDefault(t.Whole, 60*time.Second)
	t.Idle = orDefault(t.Idle, 30*time.Second)
	t.Commit = orDefault(t.Commit, 5*time.Minute)
	return t
}

func (l Limits) withDefaults() Limits {
	l.Manifest = orDefault(l.Manifest, 4<<20)
	l.Error = orDefault(l.Error, 64<<10)
	l.Page = orDefault(l.Page, 4<<20)
	l.Header = orDefault(l.Header, 64<<10)
	l.Pages = orDefault(l.Pages, 32)
	l.Referrers = orDefault(l.Referrers, 1024)
	l.Connections = orDefault(l.Connections, 64)
	l.Rate = orDefault(l.Rate, 1<<10)
	return l
}

// orDefault returns value, or otherwise when value sets no bound.
func orDefault[T int | int64 | time.Duration](value, otherwise T) T {
	if value <= 0 {
		return otherwise
	}
	return value
}
