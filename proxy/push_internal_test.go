package proxy

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

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
		if end, err = b.begin(string(rune('a' + i))); err != nil {
			t.Fatal(err)
		}
	}
	_, err := b.begin("more")
	if e, ok := errors.AsType[*Error](err); !ok || e.Status != http.StatusTooManyRequests {
		t.Errorf("the error is %v", err)
	}
	end()
	if _, err := b.begin("more"); err != nil {
		t.Error(err)
	}
}

type pushingGate struct{ Gate }

func (pushingGate) Scope(string) policy.Scope { return policy.Scope{Push: new(policy.Push)} }

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
		if _, err := p.uploads.begin(strconv.Itoa(i)); err != nil {
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
