package identity

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

const (
	defaultRedirect = "http://localhost:0/auth/callback"
	// goodbye is how long the browser may take to fetch its last page.
	goodbye = 2 * time.Second
)

// page is what the browser shows in the end.
const page = `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Vidimus</title></head>
<body><p>%s You may close this page.</p></body></html>
`

// Browser gets a token with the help of a person who signs in to the issuer in a browser
// on this machine, which comes back here with a code.
func (c Client) Browser(ctx context.Context) (string, error) {
	s, ctx, err := c.begin(ctx)
	if err != nil {
		return "", err
	}
	if err := s.provesTheCode(); err != nil {
		return "", c.fault(err)
	}
	back, err := listen(ctx, c.Redirect)
	if err != nil {
		return "", err
	}
	defer back.close()
	s.config.RedirectURL = back.url
	verifier, nonce := oauth2.GenerateVerifier(), rand.Text()
	where := s.config.AuthCodeURL(back.state, oauth2.S256ChallengeOption(verifier), oauth2.AccessTypeOnline, oidc.Nonce(nonce))
	c.Tell("Sign in with a browser on this machine at:\n" + where)
	if c.Open != nil {
		if err := c.Open(where); err != nil {
			c.Tell(fmt.Sprintf("No browser could be opened (%v): open that address in one.", err))
		}
	}
	code, err := back.wait(ctx)
	if err != nil {
		return "", c.fault(err)
	}
	answer, err := s.config.Exchange(ctx, code, oauth2.VerifierOption(verifier))
	if err != nil {
		return "", c.fault(err)
	}
	token, err := s.accept(ctx, answer, nonce)
	if err != nil {
		return "", c.fault(err)
	}
	return token, nil
}

// callback is where the browser comes back to.
type callback struct {
	url    string // as the browser is sent to it
	state  string // what it must bring along
	server *http.Server
	came   chan returned
}

// returned is what the browser brought.
type returned struct {
	code string
	err  error
}

// listen listens on this machine alone.
func listen(ctx context.Context, redirect string) (*callback, error) {
	if redirect == "" {
		redirect = defaultRedirect
	}
	u, err := url.Parse(redirect)
	if err != nil || u.Scheme != "http" || !isLoopback(u.Hostname()) || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, fmt.Errorf("redirect URL %q: want http on localhost, as %s", redirect, defaultRedirect)
	}
	port := u.Port()
	if port == "" {
		port = "0"
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, fmt.Errorf("redirect URL %q: %w", redirect, err)
	}
	if port == "0" {
		_, port, err = net.SplitHostPort(listener.Addr().String())
		if err != nil {
			return nil, err
		}
	}
	u.Host = net.JoinHostPort(u.Hostname(), port)
	if u.Path == "" {
		u.Path = "/"
	}
	back := &callback{url: u.String(), state: rand.Text(), came: make(chan returned, 1)}
	back.server = &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { back.serve(w, r, u.Path) }),
		ReadHeaderTimeout: patience,
		MaxHeaderBytes:    64 << 10,
	}
	go func() { _ = back.server.Serve(listener) }() // ends with close
	return back, nil
}

// serve takes what the browser brings. Whoever does not know the state is not the
// browser that was sent, and changes nothing.
func (b *callback) serve(w http.ResponseWriter, r *http.Request, path string) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Security-Policy", "default-src 'none'")
	w.Header().Set("Referrer-Policy", "no-referrer")
	query := r.URL.Query()
	switch {
	case r.URL.Path != path || r.Method != http.MethodGet:
		http.NotFound(w, r)
		return
	case subtle.ConstantTimeCompare([]byte(query.Get("state")), []byte(b.state)) != 1:
		http.Error(w, "another sign-in, or an old one", http.StatusBadRequest)
		return
	}
	got, text := returned{code: query.Get("code")}, "You are signed in."
	if got.code == "" {
		said := query.Get("error")
		if more := query.Get("error_description"); more != "" {
			said += ": " + more
		}
		got.err, text = refusal(said), "You are not signed in."
	}
	select {
	case b.came <- got:
	default: // it comes again
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprintf(w, page, text)
}

// wait returns the code that the browser brings.
func (b *callback) wait(ctx context.Context) (string, error) {
	select {
	case got := <-b.came:
		return got.code, got.err
	case <-ctx.Done():
		return "", fmt.Errorf("nobody has signed in: %w", context.Cause(ctx))
	}
}

func (b *callback) close() {
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	if err := b.server.Shutdown(ctx); errors.Is(err, context.DeadlineExceeded) {
		_ = b.server.Close()
	}
}
