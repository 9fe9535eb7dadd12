package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/sigstore/sigstore-go/pkg/tuf"
	"github.com/theupdateframework/go-tuf/v2/metadata/fetcher"

	"vidimus/verifier"
)

// When the trust root of Sigstore's public instance is fetched.
const (
	refreshEvery = 24 * time.Hour
	refreshAgain = time.Hour   // after it failed
	refreshLook  = time.Minute // whether anybody needs it now
	// refreshTime is how long one request may take, and refreshPatience all of them.
	refreshTime     = 30 * time.Second
	refreshPatience = 3 * time.Minute
)

// rootRefresher keeps the trust root of Sigstore's public instance fresh, where
// somebody names it and the network allows. It is needed for nothing: what was built in
// counts until a fresher one is there, which then is part of the configuration as if a
// file had changed. What is kept on disk between two runs is TUF's, and counts only as
// far as its signatures do.
type rootRefresher struct {
	log   *slog.Logger
	fetch func(ctx context.Context) ([]byte, error)
	fresh atomic.Pointer[[]byte]
}

// wrap returns from with the freshest trust root.
func (f *rootRefresher) wrap(from source) source {
	return func(r *reader) (Config, faults, error) {
		if fresh := f.fresh.Load(); fresh != nil {
			r.fresh = *fresh
		}
		return from(r)
	}
}

// run fetches the trust root until ctx ends, while needed says so. changed is called
// when there is another one.
func (f *rootRefresher) run(ctx context.Context, needed func() bool, changed func()) {
	for {
		next := refreshLook
		if needed() {
			next = refreshEvery
			switch renewed, err := f.refresh(ctx); {
			case ctx.Err() != nil:
				return
			case err != nil:
				next = refreshAgain
				f.log.Warn("the trust root of Sigstore is not refreshed; the one at hand stays", "error", plainLine(err), "next", next.String())
			case renewed:
				f.log.Info("the trust root of Sigstore is refreshed")
				changed()
			}
		}
		if !pause(ctx, next) {
			return
		}
	}
}

// refresh fetches the trust root, and reports whether it is another one than that at
// hand.
func (f *rootRefresher) refresh(ctx context.Context) (renewed bool, err error) {
	defer func() {
		if value := recover(); value != nil { // the libraries have had some on hostile metadata
			renewed, err = false, fmt.Errorf("reading it panicked: %v", value)
		}
	}()
	data, err := f.fetch(ctx)
	if err != nil {
		return false, err
	}
	if _, err := verifier.ParseRoot(data); err != nil {
		return false, err
	}
	hand := verifier.PublicRoot()
	if fresh := f.fresh.Load(); fresh != nil {
		hand = *fresh
	}
	if bytes.Equal(data, hand) {
		return false, nil
	}
	f.fresh.Store(&data)
	return true, nil
}

// usesPublicRoot reports whether c names the trust root of Sigstore's public instance.
func (c *Config) usesPublicRoot() bool {
	if c.TrustedRoot.Public {
		return true
	}
	for _, a := range c.Authorities {
		if a.Value.TrustedRoot.Public {
			return true
		}
	}
	return false
}

// tufSource is where a trust root comes from: a TUF repository, and the root of its
// metadata.
type tufSource struct {
	url  string
	root []byte
}

// sigstoreTUF is the public instance's.
func sigstoreTUF() tufSource { return tufSource{tuf.DefaultMirror, tuf.DefaultRoot()} }

// fetcher returns what fetches from s under a configuration: through its proxy, with
// metadata kept in its directory for content. What cannot be fetched is taken from there
// as long as its signatures have not expired.
func (s tufSource) fetcher(config func() *Config) func(ctx context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, refreshPatience)
		defer cancel()
		c := config()
		options := &tuf.Options{
			Root: s.root, RepositoryBaseURL: s.url, CacheValidity: 1, Fetcher: tufFetcher(ctx, c.Egress.Proxy),
			DisableLocalCache: c.Cache.Directory.Name == "",
		}
		if !options.DisableLocalCache {
			options.CachePath = filepath.Join(c.Cache.Directory.Name, "trusted-root")
		}
		client, err := tuf.New(options)
		if err != nil && !options.DisableLocalCache && ctx.Err() == nil {
			options.ForceCache = true
			var again error
			if client, again = tuf.New(options); again != nil {
				return nil, err
			}
			err = nil
		}
		if err != nil {
			return nil, err
		}
		return client.GetTarget("trusted_root.json")
	}
}

// tufFetcher makes requests that end with ctx, and follows nobody elsewhere.
func tufFetcher(ctx context.Context, proxy string) fetcher.Fetcher {
	transport := &http.Transport{Proxy: proxyFunc(proxy), ForceAttemptHTTP2: true, DisableKeepAlives: true}
	f := fetcher.NewDefaultFetcher()
	f.SetHTTPClient(&http.Client{
		Timeout:       refreshTime,
		Transport:     during{ctx, transport},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	})
	f.SetHTTPUserAgent("vidimus/" + version())
	return f
}

// during makes the requests of a library that knows no context end with one: it lives
// as long as that, and no longer.
type during struct {
	ctx  context.Context
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (d during) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(r.Context())
	stop := context.AfterFunc(d.ctx, cancel)
	answer, err := d.next.RoundTrip(r.WithContext(ctx))
	if err != nil {
		stop()
		cancel()
		return nil, errors.Join(err, d.ctx.Err())
	}
	return answer, nil // the body ends with d.ctx, or with the client's timeout
}

// plainLine is an error on one line.
func plainLine(err error) string { return displayed(err.Error()) }
