package upstream

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"sync"
	"time"
)

// authenticator answers the challenges of one upstream. It keeps the challenge
// of each repository and right, so that the next request brings its answer along, and
// tokens until they expire; both are bounded, for clients choose repositories.
type authenticator struct {
	realms      realms
	credentials Credentials
	send        func(*http.Request) (*http.Response, error)
	userAgent   string
	limit       int64 // bytes of a token answer
	timeout     time.Duration

	fetching flights[tokenKey, token]

	mu         sync.Mutex
	last       challenge // the latest of any repository; zero: none yet
	challenges map[need]challenge
	tokens     map[tokenKey]token
}

// maxRemembered bounds the challenges and the tokens that are kept.
const maxRemembered = 1024

// maxSends is how often one request is sent for the sake of authentication:
// without an answer to a challenge, with a token that turns out to be revoked,
// and with a new one.
const maxSends = 3

// tokenKey is what a token is for and whose it is.
type tokenKey struct {
	challenge challenge
	identity  [sha256.Size]byte
}

// authorization is what a request carries to prove who asks.
type authorization struct {
	header string // the Authorization field; empty: none
	key    tokenKey
	cached bool // a token from an earlier request: it may have been revoked
}

// prepare returns what to send with a request that wants to do this, as far as a
// challenge is known. answering tells that this very request was challenged:
// only then is it an error to have nothing to answer with, for one repository
// may be open to everyone while another is not, and so may this one be by now.
func (a *authenticator) prepare(ctx context.Context, wants need, answering bool) (authorization, error) {
	ask, known := a.challengeFor(wants)
	if !known {
		return authorization{}, nil
	}
	used, err := a.answer(ctx, ask)
	if err == nil {
		return used, nil
	}
	a.forgetChallenge(wants)
	e, ok := errors.AsType[*Error](err)
	if answering || !ok || e.kind == KindUnavailable || e.kind == KindRateLimited || e.kind == KindTLS {
		return authorization{}, err
	}
	return authorization{}, nil
}

// answer returns what ask asks for.
func (a *authenticator) answer(ctx context.Context, ask challenge) (authorization, error) {
	var credential Credential
	if a.credentials != nil {
		var err error
		if credential, err = a.credentials(ctx, a.realms.own.authority()); err != nil {
			return authorization{}, credentialFault(ctx, err)
		}
	}
	used := authorization{key: tokenKey{ask, credential.identity()}}
	switch {
	case ask.scheme == "basic":
		if credential.Username == "" && credential.Password == "" {
			return authorization{}, fault(KindUnauthorized, "401: it asks for a user name and password, and none are configured")
		}
		used.header = basic(credential)
		return used, nil
	case credential.RegistryToken != "":
		if !plainToken(credential.RegistryToken) {
			return authorization{}, fault(KindUnauthorized, "the configured registry token is not a token")
		}
		used.header = "Bearer " + credential.RegistryToken
		return used, nil
	}
	t, cached, err := a.token(ctx, used.key, credential)
	if err != nil {
		return authorization{}, err
	}
	used.header, used.cached = "Bearer "+t.value, cached
	return used, nil
}

// rejected takes note of a 401 in answer to used, and returns an error when
// another try makes no sense.
func (a *authenticator) rejected(wants need, used authorization, header http.Header) error {
	ask, ok := pickChallenge(header, wants)
	if !ok {
		return fault(KindUnauthorized, "401 without a challenge that is understood")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if t, held := a.tokens[used.key]; held && "Bearer "+t.value == used.header {
		delete(a.tokens, used.key)
	}
	a.last = ask
	a.challenges = remember(a.challenges, wants, ask)
	if used.header != "" && !used.cached && used.key.challenge == ask {
		if used.key.identity == (Credential{}).identity() {
			return fault(KindUnauthorized, "401, and no credentials are configured")
		}
		return fault(KindUnauthorized, "401 in spite of the configured credentials")
	}
	return nil
}

func (a *authenticator) challengeFor(wants need) (challenge, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if ask, ok := a.challenges[wants]; ok {
		return ask, true
	}
	return a.last.forNeed(wants), a.last != challenge{}
}

// forgetChallenge makes the next request that wants to do this ask anew, for the
// token host may have moved.
func (a *authenticator) forgetChallenge(wants need) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.challenges, wants)
	a.last = challenge{}
}

// token returns a token that is held, or fetches one together with whoever else
// needs it at the same time.
func (a *authenticator) token(ctx context.Context, key tokenKey, credential Credential) (t token, cached bool, err error) {
	a.mu.Lock()
	t, ok := a.tokens[key]
	a.mu.Unlock()
	if ok && time.Now().Before(t.until) {
		return t, true, nil
	}
	t, err = a.fetching.do(ctx, key, a.timeout, func(ctx context.Context) (token, error) {
		t, err := a.fetchToken(ctx, key.challenge, credential)
		if err != nil {
			return token{}, err
		}
		a.mu.Lock()
		a.tokens = remember(a.tokens, key, t)
		a.mu.Unlock()
		return t, nil
	})
	return t, false, err
}

// remember sets one entry of a map that it keeps within maxRemembered, at the
// cost of any other entry.
func remember[K comparable, V any](held map[K]V, key K, value V) map[K]V {
	if held == nil {
		held = map[K]V{}
	}
	if _, ok := held[key]; !ok && len(held) >= maxRemembered {
		for other := range held {
			delete(held, other)
			break
		}
	}
	held[key] = value
	return held
}

func basic(credential Credential) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(credential.Username+":"+credential.Password))
}

// credentialFault keeps an error of Credentials only when it is one of ours:
// another's text may hold anything.
func credentialFault(ctx context.Context, err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if ctx.Err() != nil {
		return transportFault(ctx, err)
	}
	return fault(KindUnavailable, "the credentials cannot be had")
}
