package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// token is a bearer token until it expires.
type token struct {
	value string
	until time.Time
}

const (
	defaultLifetime = 60 * time.Second // what the specification has for an answer without expires_in
	maxLifetime     = 24 * time.Hour
	maxTokenLength  = 16 << 10
)

// tokenAnswer is what a token host answers.
// https://distribution.github.io/distribution/spec/auth/token/
type tokenAnswer struct {
	Token       string          `json:"token"`
	AccessToken string          `json:"access_token"`
	ExpiresIn   json.RawMessage `json:"expires_in"`
	IssuedAt    json.RawMessage `json:"issued_at"`
}

// fetchToken exchanges credential, which may be nobody's, for a token.
func (a *authenticator) fetchToken(ctx context.Context, ask challenge, credential Credential) (token, error) {
	realm, err := a.realms.check(ask.realm)
	if err != nil {
		return token{}, err
	}
	// POST is not idempotent: the token host may turn the refresh token over.
	if credential.IdentityToken != "" {
		t, err := a.exchange(postRequest(ctx, realm, ask, credential, a.userAgent))
		return t, final(err)
	}
	var t token
	err = retry(ctx, func() (err error) {
		t, err = a.exchange(getRequest(ctx, realm, ask, credential))
		return err
	})
	return t, final(err)
}

// final makes an error that has had its tries here count as no reason to try the
// request itself again.
func final(err error) error {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return err
	}
	last := *e
	last.transient = false
	return &last
}

func getRequest(ctx context.Context, realm *url.URL, ask challenge, credential Credential) (*http.Request, error) {
	u := *realm
	query := u.Query()
	if ask.service != "" {
		query.Set("service", ask.service)
	}
	for _, scope := range strings.Fields(ask.scope) {
		query.Add("scope", scope)
	}
	u.RawQuery = query.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fault(KindMismatch, "the token realm is not a URL")
	}
	if credential.Username != "" || credential.Password != "" {
		request.Header.Set("Authorization", basic(credential))
	}
	return request, nil
}

// postRequest is OAuth2's refresh of a token.
// https://distribution.github.io/distribution/spec/auth/oauth/
func postRequest(ctx context.Context, realm *url.URL, ask challenge, credential Credential, client string) (*http.Request, error) {
	form := url.Values{
		"grant_type":    {"refresh_token"},
		"refresh_token": {credential.IdentityToken},
		"client_id":     {client},
		"service":       {ask.service},
		"scope":         {ask.scope},
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(form.Encode()))
	if err != nil {
		return nil, fault(KindMismatch, "the token realm is not a URL")
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return request, nil
}

// exchange sends one request for a token. A redirect is not followed: its
// target would need the credentials.
func (a *authenticator) exchange(request *http.Request, err error) (token, error) {
	if err != nil {
		return token{}, err
	}
	response, err := a.send(request)
	if err != nil {
		return token{}, err
	}
	defer discard(response)
	if response.StatusCode != http.StatusOK {
		e := statusFault(response, a.limit)
		// A token host that is not there says nothing about the image.
		if e.cause != nil {
			e.kind, e.cause = KindMismatch, nil
		}
		switch e.kind {
		case KindMismatch: // of which clients are told, and hosts are none of their business
			e.text = "the token host answers " + e.text
		default:
			e.text = "token host " + clip(request.URL.Host) + ": " + e.text
		}
		return token{}, e
	}
	if !identity(response.Header) {
		return token{}, fault(KindMismatch, "the token answer has a Content-Encoding, which was not asked for")
	}
	body, err := readAll(request.Context(), response, a.limit, "the token answer")
	if err != nil {
		return token{}, err
	}
	return parseToken(body, response.Header, time.Now())
}

// parseToken reads an answer that came at now with header.
func parseToken(body []byte, header http.Header, now time.Time) (token, error) {
	var answer tokenAnswer
	if json.Unmarshal(body, &answer) != nil {
		return token{}, fault(KindMismatch, "the token answer is not what the specification says")
	}
	value := answer.Token
	if value == "" {
		value = answer.AccessToken
	}
	if !plainToken(value) {
		return token{}, fault(KindMismatch, "the token answer holds no token")
	}
	lifetime := answer.lifetime() - answer.age(header, now)
	lifetime -= min(lifetime/10, 10*time.Second) // it is to hold until the request arrives
	return token{value: value, until: now.Add(lifetime)}, nil
}

func (t tokenAnswer) lifetime() time.Duration {
	seconds, err := strconv.ParseFloat(strings.Trim(string(t.ExpiresIn), `"`), 64)
	if err != nil || !(seconds > 0) {
		return defaultLifetime
	}
	return time.Duration(min(seconds, maxLifetime.Seconds()) * float64(time.Second))
}

// age is how long ago the token was issued by the token host's own clock, as
// its Date header gives it: with ours a difference of the clocks would count.
func (t tokenAnswer) age(header http.Header, now time.Time) time.Duration {
	var issued time.Time
	if len(t.IssuedAt) == 0 || json.Unmarshal(t.IssuedAt, &issued) != nil || issued.IsZero() {
		return 0
	}
	if date, err := http.ParseTime(header.Get("Date")); err == nil {
		now = date
	}
	return min(max(now.Sub(issued), 0), maxLifetime)
}

// plainToken reports whether value can stand in an Authorization field: visible
// ASCII of a sane length.
func plainToken(value string) bool {
	return value != "" && len(value) <= maxTokenLength && !strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' })
}
