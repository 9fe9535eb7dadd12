package proxy

import (
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
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
