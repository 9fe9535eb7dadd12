package proxy

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/policy"
)

func TestManifestsArePushedInBoundedNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &Proxy{pushing: make(chan struct{}, maxPushing)}
		var leave func()
		for range maxPushing {
			var err error
			if leave, err = p.enterPush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		// one waits, and is told to come again
		_, err := p.enterPush(t.Context())
		if e, ok := errors.AsType[*Error](err); !ok || e.Status != http.StatusTooManyRequests || e.RetryAfter == 0 {
			t.Errorf("the error is %v", err)
		}
		leave()
		if _, err := p.enterPush(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestPiecesAreUploadedInBoundedNumber(t *testing.T) {
	var b uploadsUnderWay
	var end func()
	for i := range maxUploads {
		var err error
		if end, err = b.begin(t.Context(), string(rune('a'+i))); err != nil {
			t.Fatal(err)
		}
	}
	_, err := b.begin(t.Context(), "more")
	if e, ok := errors.AsType[*Error](err); !ok || e.Status != http.StatusTooManyRequests {
		t.Errorf("the error is %v", err)
	}
	end()
	if _, err := b.begin(t.Context(), "more"); err != nil {
		t.Error(err)
	}
}

// Who asks about an upload that somebody still goes on with waits a moment for its end.
func TestAnUploadIsWaitedForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b uploadsUnderWay
		end, err := b.begin(t.Context(), "one")
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_, err = b.begin(t.Context(), "one")
		if e, ok := errors.AsType[*Error](err); !ok || e.Status != http.StatusConflict || time.Since(began) != uploadPatience {
			t.Errorf("after %s the error is %v", time.Since(began), err)
		}
		time.AfterFunc(time.Second, end)
		if end, err = b.begin(t.Context(), "one"); err != nil {
			t.Fatal(err)
		}
		end()
		if len(b.busy) > 0 {
			t.Errorf("%v is kept", b.busy)
		}
	})
}

type pushingGate struct{ Gate }

func (pushingGate) Scope(string) policy.Scope { return policy.Scope{Push: new(policy.Push)} }

// forgetful is what a push needs of a store, an index and a record, which keep nothing.
type forgetful struct {
	Store
	Index
	Upstream
}

func (forgetful) Record(context.Context, Record) error { return nil }

func (forgetful) SetTag(context.Context, string, string, v1.Hash, time.Time) error { return nil }

type nothingRevoked struct{ pushingGate }

func (nothingRevoked) Revoked(v1.Hash) bool { return false }

// stuck is an upstream that never answers who puts a manifest.
type stuck struct{ Pushable }

func (stuck) PutManifestOver(ctx context.Context, _, _, _ string, _ []byte, _ string) (bool, error) {
	<-ctx.Done()
	return false, ctx.Err()
}

// A manifest keeps its place no longer than it may, though its client would wait for ever.
func TestAPushEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := New(Config{Store: forgetful{}, Index: forgetful{}, Recorder: forgetful{}}, &Revision{
			Upstreams: map[string]Registered{"docker.io": {Upstream: forgetful{}, Push: stuck{}}}, DefaultUpstream: "docker.io", Gate: nothingRevoked{},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		descriptor := `{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,"digest":"sha256:` + strings.Repeat("0a", 32) + `"}`
		body := `{"schemaVersion":2,"config":` + descriptor + `,"layers":[]}`
		w, began := httptest.NewRecorder(), time.Now()
		p.ServeHTTP(w, httptest.NewRequest(http.MethodPut, "/v2/web/manifests/v1", strings.NewReader(body)))
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if took := time.Since(began); took != pushTime || len(p.pushing) != 0 {
			t.Errorf("it took %v, and %d are being pushed", took, len(p.pushing))
		}
	})
}

func (stuck) DeleteManifest(ctx context.Context, _, _ string) error {
	<-ctx.Done()
	return ctx.Err()
}

type deletable struct{ nothingRevoked }

func (deletable) Scope(string) policy.Scope { return policy.Scope{Push: &policy.Push{Delete: true}} }

// Nor does a deletion keep those waiting for ever who sign in its repository.
func TestADeletionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := New(Config{Store: forgetful{}, Index: forgetful{}, Recorder: forgetful{}}, &Revision{
			Upstreams: map[string]Registered{"docker.io": {Upstream: forgetful{}, Push: stuck{}}}, DefaultUpstream: "docker.io", Gate: deletable{},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		ctx, cancel := context.WithTimeout(t.Context(), 10*pushTime)
		defer cancel()
		w, began := httptest.NewRecorder(), time.Now()
		p.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodDelete, "/v2/web/manifests/sha256-"+strings.Repeat("0a", 32)+".sig", nil))
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if took := time.Since(began); took != pushTime {
			t.Errorf("it took %v", took)
		}
	})
}

// Where as many uploads are under way as may be, the upstream is asked for no more.
func TestUploadsAreBegunInBoundedNumber(t *testing.T) {
	parts := &untouched{}
	p, err := New(Config{Store: parts, Index: parts, Recorder: parts}, &Revision{
		Upstreams: map[string]Registered{"docker.io": {Upstream: parts, Push: struct{ Pushable }{}}}, DefaultUpstream: "docker.io", Gate: pushingGate{},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	for i := range maxUploads {
		if _, err := p.uploads.begin(t.Context(), strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	digest := "sha256:" + strings.Repeat("0a", 32)
	for _, query := range []string{"", "?digest=" + digest, "?from=library/other&mount=" + digest} {
		w := httptest.NewRecorder()
		p.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v2/web/blobs/uploads/"+query, nil))
		if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
			t.Errorf("%q is answered %d %s", query, w.Code, w.Body)
		}
	}
}
