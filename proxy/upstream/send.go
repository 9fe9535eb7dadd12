package upstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxRedirects   = 5
	maxTries       = 3
	firstBackoff   = 200 * time.Millisecond // doubled for each try, and half of it left to chance
	longestPause   = 5 * time.Second        // a longer Retry-After is left to who asked
	maxDiscarded   = 32 << 10               // of a body that nobody reads, so that its connection is used again
	pingAfter      = 20 * time.Second       // without a frame on an HTTP/2 connection
	idleKept       = 90 * time.Second
	idlePerHost    = 32 // more than a pull uses at once, or the next one dials anew
	transportRead  = 32 << 10
	transportWrite = 64 << 10
)

// newTransport returns a transport of a client. It keeps no cookies, asks
// for no compression and looks at no environment.
func newTransport(proxy func(*http.Request) (*url.URL, error), roots *x509.CertPool, dial dialFunc, timeouts Timeouts, limits Limits) *http.Transport {
	return &http.Transport{
		Proxy:                  proxy,
		DialContext:            dial,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    timeouts.TLS,
		ResponseHeaderTimeout:  timeouts.Header,
		MaxResponseHeaderBytes: limits.Header,
		MaxConnsPerHost:        limits.Connections,
		MaxIdleConnsPerHost:    min(limits.Connections, idlePerHost),
		IdleConnTimeout:        idleKept,
		ReadBufferSize:         transportRead,
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingAfter},
		OnProxyConnectResponse: func(_ context.Context, _ *url.URL, _ *http.Request, response *http.Response) error {
			if response.StatusCode != http.StatusOK {
				return fault(KindUnavailable, "the HTTP proxy answers %s to CONNECT", statusText(response.StatusCode))
			}
			return nil
		},
	}
}

// call is one request to the upstream's API, which may be sent again.
type call struct {
	method     string
	repository string
	path       string // below /v2/<repository>/, of characters that need no escape
	query      string // encoded
	header     http.Header
	begun      validator // for If-Range, where it came from

	// Of requests that change something. These follow no redirect.
	rights rights
	from   string   // the repository that is mounted from
	at     *url.URL // instead of path and query; of the upstream's own origin
	body   []byte
	want   []int // the statuses that are handed on
}

func (q call) need() need { return need{q.repository, q.rights, q.from} }

func (q call) url(own origin) *url.URL {
	if q.at != nil {
		return q.at
	}
	return &url.URL{Scheme: own.scheme, Host: own.authority(), Path: "/v2/" + q.repository + "/" + q.path, RawQuery: q.query}
}

// String names the call in errors, without its query.
func (q call) String() string {
	if q.at != nil {
		return q.method + " /v2/" + q.repository + "/blobs/uploads/..." // what follows is a secret of the upstream's
	}
	return q.method + " /v2/" + q.repository + "/" + q.path
}

// reader is the body, nil when there is none.
func (q call) reader() io.Reader {
	if q.body == nil {
		return nil
	}
	return bytes.NewReader(q.body)
}

// accepts reports whether an answer with this status is handed on. 304 answers
// nothing but a condition, and means what it says only then.
func (q call) accepts(status int) bool {
	if q.want != nil {
		return slices.Contains(q.want, status)
	}
	switch status {
	case http.StatusOK, http.StatusPartialContent:
		return true
	case http.StatusNotModified:
		return q.header.Get("If-None-Match") != ""
	}
	return false
}

// do sends q, again after transient failures, until use accepts an answer with a
// status that q accepts. use closes the body of an answer that it accepts.
func (c *Client) do(ctx context.Context, q call, use func(*http.Response) error) error {
	return retry(ctx, func() error {
		response, err := c.authenticated(ctx, q)
		if err != nil {
			return err
		}
		if !q.accepts(response.StatusCode) {
			defer discard(response)
			return statusFault(response, c.limits.Error)
		}
		if q.method != http.MethodHead && response.StatusCode != http.StatusNotModified && !identity(response.Header) {
			discard(response)
			return fault(KindMismatch, "the answer has a Content-Encoding, which was not asked for")
		}
		if err := use(response); err != nil {
			discard(response)
			return transportFault(ctx, err)
		}
		return nil
	})
}

// retry runs try up to three times, as long as its error is transient.
func retry(ctx context.Context, try func() error) error {
	backoff := firstBackoff
	for left := maxTries - 1; ; left-- {
		err := try()
		if err == nil {
			return nil
		}
		e, ok := errors.AsType[*Error](err)
		if !ok || !e.transient || left == 0 || e.retryAfter > longestPause {
			return err
		}
		pause := max(e.retryAfter, backoff/2+rand.N(backoff/2))
		if !sleep(ctx, pause) {
			return transportFault(ctx, ctx.Err())
		}
		backoff *= 2
	}
}

// sleep reports whether it was left to sleep.
func sleep(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// authenticated sends q and answers the upstream's challenges. It returns any
// answer but a 401 of the upstream's own.
func (c *Client) authenticated(ctx context.Context, q call) (*http.Response, error) {
	for sent := range maxSends {
		used, err := c.auth.prepare(ctx, q.need(), sent > 0)
		if err != nil {
			return nil, err
		}
		response, own, err := c.follow(ctx, q, used)
		if err != nil {
			return nil, err
		}
		if response.StatusCode != http.StatusUnauthorized {
			return response, nil
		}
		if !own {
			discard(response)
			return nil, fault(KindUnauthorized, "401 from %s, to which it redirects and which gets no credentials", clip(response.Request.URL.Host))
		}
		err = c.auth.rejected(q.need(), used, response.Header)
		discard(response)
		if err != nil {
			return nil, err
		}
	}
	return nil, fault(KindUnauthorized, "401, and each answer to its challenge is met with another")
}

// follow sends q, and what it is redirected to. The authorization goes along as
// long as the upstream redirects to itself; after that it is not attached again,
// not even to the upstream. own tells whether the answer is the upstream's.
func (c *Client) follow(ctx context.Context, q call, used authorization) (response *http.Response, own bool, err error) {
	at, u, own := c.own, q.url(c.own), true
	for range maxRedirects + 1 {
		request, err := http.NewRequestWithContext(ctx, q.method, u.String(), q.reader())
		if err != nil {
			return nil, false, fault(KindMismatch, "it redirects to what is not a URL")
		}
		maps.Copy(request.Header, q.header)
		if own && used.header != "" {
			request.Header.Set("Authorization", used.header)
		}
		if q.begun.etag != "" && at == q.begun.from {
			request.Header.Set("If-Range", q.begun.etag)
		}
		response, err := c.send(c.transportFor(q.rights), request)
		if err != nil {
			return nil, false, err
		}
		if !redirects(response.StatusCode) {
			return response, own, nil
		}
		if q.rights != pulls {
			discard(response)
			return nil, false, fault(KindRefused, "it redirects what would change it, which is not followed")
		}
		u, at, err = redirectTarget(u, at, response.Header.Get("Location"))
		discard(response)
		if err != nil {
			return nil, false, err
		}
		own = own && at == c.own
	}
	return nil, false, fault(KindRefused, "it redirects more than %d times", maxRedirects)
}

func redirects(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

func redirectTarget(from *url.URL, at origin, location string) (*url.URL, origin, error) {
	if location == "" {
		return nil, origin{}, fault(KindMismatch, "it redirects to nowhere")
	}
	u, err := from.Parse(location)
	if err != nil {
		return nil, origin{}, fault(KindMismatch, "it redirects to what is not a URL")
	}
	next, err := originOf(u)
	if err != nil {
		return nil, origin{}, fault(KindRefused, "its redirect is not followed: %v", err)
	}
	if at.scheme == "https" && next.scheme != "https" {
		return nil, origin{}, fault(KindRefused, "it redirects from https to %s, which is not followed", clip(next.String()))
	}
	u.Fragment, u.RawFragment = "", ""
	return u, next, nil
}

// transportFor returns what requests with these rights go over.
func (c *Client) transportFor(r rights) *http.Transport {
	if r == pulls {
		return c.transport
	}
	return c.writing
}

// roundTrip sends one request that changes nothing.
func (c *Client) roundTrip(request *http.Request) (*http.Response, error) {
	return c.send(c.transport, request)
}

// send sends one request to wherever its URL says, if that may be dialled.
func (c *Client) send(over *http.Transport, request *http.Request) (*http.Response, error) {
	to, err := originOf(request.URL)
	if err == nil {
		err = c.egress.checkURL(to)
	}
	if err != nil {
		return nil, transportFault(request.Context(), err)
	}
	if own := c.certified[over]; own != nil && to == c.own {
		over = own
	}
	request.Header.Set("User-Agent", c.userAgent)
	request.Header.Set("Accept-Encoding", "identity")
	response, err := over.RoundTrip(request)
	if err != nil {
		c.observe("error", -1)
		return nil, transportFault(request.Context(), err)
	}
	remaining := -1
	if to == c.own {
		remaining = c.allowance.note(response.Header)
	}
	c.observe(statusLabel(response.StatusCode), remaining)
	if response.StatusCode == http.StatusSwitchingProtocols {
		// What comes as its body is the connection, whose end no context brings about.
		_ = response.Body.Close()
		return nil, fault(KindMismatch, "it switches protocols, which was not asked for")
	}
	return response, nil
}

// statusLabel keeps the number of labels small whatever an upstream answers.
func statusLabel(status int) string {
	if http.StatusText(status) == "" {
		return "other"
	}
	return strconv.Itoa(status)
}

// identity reports whether a body is sent as it is.
func identity(header http.Header) bool {
	for _, value := range header.Values("Content-Encoding") {
		for coding := range strings.SplitSeq(value, ",") {
			if coding = strings.TrimSpace(coding); coding != "" && !strings.EqualFold(coding, "identity") {
				return false
			}
		}
	}
	return true
}

// discard closes an answer that nobody reads, after a body that is short, so that
// its connection is used again.
func discard(response *http.Response) {
	if response.ContentLength <= maxDiscarded { // or does not say
		_, _ = io.CopyN(io.Discard, response.Body, maxDiscarded+1) // up to its end
	}
	_ = response.Body.Close()
}
