// Package identity gets an identity token for whoever signs without a key: from where
// the program runs (a CI job, a file that is put there), or from an OpenID issuer with
// a person's help, in a browser on the same machine or on any other device.
//
// An issuer is one that the caller chose. What it answers is bounded in size and time,
// and the token that it gives is verified under its own keys, for the audience that was
// asked for, before it is handed out. It goes nowhere else from here, and no error
// contains it.
package identity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

const (
	// patience is how long an issuer may take for one answer.
	patience = 30 * time.Second
	// maxAnswer is how much of one is read.
	maxAnswer = 1 << 20
	// maxText is how much of what an issuer says stands in an error.
	maxText = 300
)

// Client is known to an issuer, and gets tokens from it.
type Client struct {
	Issuer string // URL
	ID     string // of the client, and the audience of the token
	Secret string // of the client; empty where it has none

	// Redirect is where a browser comes back to: http, and on this machine. Its port
	// may be 0. Empty is http://localhost:0/auth/callback.
	Redirect string

	// Tell is given what the person is to do.
	Tell func(text string)
	// Open shows a page in the person's browser. nil is for where there is none that
	// could be told to: the person is told the page's address either way.
	Open func(url string) error
}

// bounded asks nobody in the open, wherever an issuer sends it, and reads no more of an
// answer than maxAnswer.
type bounded struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := checkURL(req.URL.String()); err != nil {
		return nil, err
	}
	resp, err := b.RoundTripper.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	return resp, nil
}

// session is one with an issuer.
type session struct {
	client   Client
	provider *oidc.Provider
	config   oauth2.Config
}

// begin asks the issuer where its endpoints are. The context that is returned is for
// what follows.
func (c Client) begin(ctx context.Context) (*session, context.Context, error) {
	if err := checkURL(c.Issuer); err != nil {
		return nil, nil, c.fault(err)
	}
	ctx = oidc.ClientContext(ctx, &http.Client{Transport: bounded{http.DefaultTransport}, Timeout: patience, CheckRedirect: readsOnly})
	provider, err := oidc.NewProvider(ctx, c.Issuer)
	if err != nil {
		return nil, nil, c.fault(err)
	}
	endpoint := provider.Endpoint()
	for what, text := range map[string]string{
		"authorization endpoint": endpoint.AuthURL, "token endpoint": endpoint.TokenURL, "device authorization endpoint": endpoint.DeviceAuthURL,
	} {
		if err := checkURL(text); text != "" && err != nil {
			return nil, nil, c.fault(fmt.Errorf("its %s: %w", what, err))
		}
	}
	return &session{c, provider, oauth2.Config{
		ClientID: c.ID, ClientSecret: c.Secret, Endpoint: endpoint, Scopes: []string{oidc.ScopeOpenID, "email"},
	}}, ctx, nil
}

// maxRedirects is net/http's own.
const maxRedirects = 10

// readsOnly follows redirects of what only reads: what is sent along with the rest, a
// code or the client's secret, is for nobody else.
func readsOnly(_ *http.Request, via []*http.Request) error {
	if via[0].Method != http.MethodGet || len(via) >= maxRedirects {
		return errors.New("it redirects, which is not followed")
	}
	return nil
}

// checkURL refuses addresses to which what is secret would go in the open.
func checkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("not a URL of a host")
	}
	if u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname()) {
		return nil
	}
	return errors.New("want a URL of https, or of http on this machine")
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// provesTheCode wants the issuer to know PKCE (RFC 7636), without which another program
// on the machine could use a code that it has seen. Azure knows it and does not say so.
func (s *session) provesTheCode() error {
	var said struct {
		Methods []string `json:"code_challenge_methods_supported"`
	}
	if err := s.provider.Claims(&said); err != nil {
		return err
	}
	u, err := url.Parse(s.config.Endpoint.AuthURL)
	if err != nil {
		return err
	}
	azure := said.Methods == nil && (u.Host == "login.microsoftonline.com" || u.Host == "login.microsoftonline.us")
	if !slices.Contains(said.Methods, "S256") && !azure {
		return errors.New("it does not say that it knows PKCE (code_challenge_methods_supported: S256)")
	}
	return nil
}

// accept verifies the token in an answer, and returns it. Where a nonce was sent, it is
// to be in it.
func (s *session) accept(ctx context.Context, answer *oauth2.Token, nonce string) (string, error) {
	raw, ok := answer.Extra("id_token").(string)
	if !ok || raw == "" {
		return "", errors.New("its answer has no identity token (id_token)")
	}
	verified, err := s.provider.Verifier(&oidc.Config{ClientID: s.config.ClientID}).Verify(ctx, raw)
	if err != nil {
		return "", fmt.Errorf("its identity token: %w", err)
	}
	if verified.Nonce != nonce && nonce != "" {
		return "", errors.New("its identity token is for another question (nonce)")
	}
	if verified.AccessTokenHash != "" {
		if err := verified.VerifyAccessToken(answer.AccessToken); err != nil {
			return "", fmt.Errorf("its identity token: %w", err)
		}
	}
	return raw, nil
}

// Device gets a token with the help of a person who opens a page on any device and
// enters the code that Tell is given there (RFC 8628).
func (c Client) Device(ctx context.Context) (string, error) {
	s, ctx, err := c.begin(ctx)
	if err != nil {
		return "", err
	}
	if s.config.Endpoint.DeviceAuthURL == "" {
		return "", c.fault(errors.New("it offers no sign-in on another device (device_authorization_endpoint)"))
	}
	if err := s.provesTheCode(); err != nil {
		return "", c.fault(err)
	}
	verifier := oauth2.GenerateVerifier()
	asked, err := s.config.DeviceAuth(ctx, oauth2.S256ChallengeOption(verifier))
	if err != nil {
		return "", c.fault(err)
	}
	where := asked.VerificationURIComplete
	if where == "" {
		where = asked.VerificationURI
	}
	if err := checkURL(where); err != nil {
		return "", c.fault(fmt.Errorf("the page that it names: %w", err))
	}
	asked.Interval = min(max(asked.Interval, 0), 60) // zero is the default
	until := ""
	if !asked.Expiry.IsZero() {
		until = fmt.Sprintf(", within %v", time.Until(asked.Expiry).Round(time.Second))
	}
	c.Tell(fmt.Sprintf("Enter the verification code %s in a browser at: %s%s", printable(asked.UserCode), printable(where), until))
	answer, err := s.config.DeviceAccessToken(ctx, asked, oauth2.VerifierOption(verifier))
	if err != nil {
		return "", c.fault(err)
	}
	token, err := s.accept(ctx, answer, "")
	if err != nil {
		return "", c.fault(err)
	}
	return token, nil
}

// Credentials gets the token of the client itself, by its secret.
func (c Client) Credentials(ctx context.Context) (string, error) {
	s, ctx, err := c.begin(ctx)
	if err != nil {
		return "", err
	}
	config := clientcredentials.Config{
		ClientID: c.ID, ClientSecret: c.Secret, TokenURL: s.config.Endpoint.TokenURL, Scopes: s.config.Scopes,
	}
	answer, err := config.Token(ctx)
	if err != nil {
		return "", c.fault(err)
	}
	token, err := s.accept(ctx, answer, "")
	if err != nil {
		return "", c.fault(err)
	}
	return token, nil
}

// fault names the issuer, and keeps what it said short and on one line.
func (c Client) fault(err error) error {
	if refused, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		said := refused.ErrorCode
		if refused.ErrorDescription != "" {
			said += ": " + refused.ErrorDescription
		}
		if said == "" && refused.Response != nil {
			said = refused.Response.Status
		}
		err = refusal(said)
	}
	return &issuerError{c.Issuer, err}
}

// refusal is what an issuer said instead of giving a token.
type refusal string

func (r refusal) Error() string { return "it refused: " + printable(string(r)) }

// issuerError names the issuer.
type issuerError struct {
	issuer string
	err    error
}

func (e *issuerError) Error() string { return "OpenID issuer " + e.issuer + ": " + clip(e.err.Error()) }
func (e *issuerError) Unwrap() error { return e.err }

// clip makes a text one line of bounded length, without what would steer a terminal:
// libraries put whole answers into their errors.
func clip(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if strings.ContainsFunc(text, unicode.IsControl) {
		quoted := fmt.Sprintf("%+q", text)
		text = quoted[1 : len(quoted)-1]
	}
	if len(text) > maxText {
		text = text[:maxText] + "..."
	}
	return text
}

// printable is an issuer's text as it may go to a terminal.
func printable(text string) string {
	if text = clip(text); !strings.ContainsFunc(text, func(r rune) bool { return r > '~' }) {
		return text
	}
	quoted := fmt.Sprintf("%+q", text)
	return quoted[1 : len(quoted)-1]
}
