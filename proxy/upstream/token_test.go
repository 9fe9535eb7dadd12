package upstream

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestTokenHostAnswers(t *testing.T) {
	status := func(code int) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(code) }
	}
	text := func(body string) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, body) }
	}
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		kind   string
		asked  int
	}{
		{"401 is unauthorized", status(401), KindUnauthorized, 1},
		{"403 is forbidden", status(403), KindForbidden, 1},
		{"404 says nothing about the image", status(404), KindMismatch, 1},
		{"429 is rate-limited", status(429), KindRateLimited, 3},
		{"503 is tried again", status(503), KindUnavailable, 3},
		{"a redirect is not followed", func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, "/elsewhere", http.StatusTemporaryRedirect)
		}, KindMismatch, 1},
		{"no token", text(`{}`), KindMismatch, 1},
		{"not JSON", text(`token`), KindMismatch, 1},
		{"a token that would split the header", text(`{"token": "a\r\nX-Evil: b"}`), KindMismatch, 1},
		{"a token with a space", text(`{"token": "a b"}`), KindMismatch, 1},
		{"a token of 17 KiB", text(`{"token": "` + strings.Repeat("a", 17<<10) + `"}`), KindMismatch, 1},
		{"an answer without an end", func(rw http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := rw.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		}, KindMismatch, 1},
		{"a compressed answer", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Encoding", "gzip")
			fmt.Fprint(rw, `{"token": "a"}`)
		}, KindMismatch, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := &tokenRegistry{}
			registry := w.serve("https", "registry.corp.example", r.serve)
			auth := w.serve("https", "auth.corp.example", tt.answer)
			r.realm = auth.url() + "/token"
			_, _, err := manifestOf(t.Context(), w.client(registry, nil), "acme/web", "v1")
			wantKind(t, err, tt.kind)
			if got := len(auth.lines()); got != tt.asked {
				t.Errorf("asked %d times, want %d", got, tt.asked)
			}
		})
	}
}

func TestParseToken(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name, body, date string
		value            string
		lifetime         time.Duration
	}{
		{"no expiry is a minute, less a margin", `{"token": "a"}`, "", "a", 54 * time.Second},
		{"access_token is a token", `{"access_token": "b"}`, "", "b", 54 * time.Second},
		{"token comes first", `{"token": "a", "access_token": "b"}`, "", "a", 54 * time.Second},
		{"five minutes, less ten seconds", `{"token": "a", "expires_in": 300}`, "", "a", 290 * time.Second},
		{"a number in quotes", `{"token": "a", "expires_in": "300"}`, "", "a", 290 * time.Second},
		{"zero is a minute", `{"token": "a", "expires_in": 0}`, "", "a", 54 * time.Second},
		{"a negative number is a minute", `{"token": "a", "expires_in": -1}`, "", "a", 54 * time.Second},
		{"a huge number is a day", `{"token": "a", "expires_in": 1e300}`, "", "a", 24*time.Hour - 10*time.Second},
		{"an object is a minute", `{"token": "a", "expires_in": {}}`, "", "a", 54 * time.Second},
		{"issued two minutes ago", `{"token": "a", "expires_in": 300, "issued_at": "2026-11-22T11:58:00Z"}`, "", "a", 170 * time.Second},
		{"issued just now by a clock that is an hour slow", `{"token": "a", "expires_in": 300, "issued_at": "2026-11-22T11:00:00Z"}`, "Sun, 22 Nov 2026 11:00:00 GMT", "a", 290 * time.Second},
		{"issued in the future", `{"token": "a", "expires_in": 300, "issued_at": "2026-11-22T13:00:00Z"}`, "", "a", 290 * time.Second},
		{"issued at no time", `{"token": "a", "expires_in": 300, "issued_at": 12}`, "", "a", 290 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			header := http.Header{}
			if tt.date != "" {
				header.Set("Date", tt.date)
			}
			got, err := parseToken([]byte(tt.body), header, now)
			if err != nil {
				t.Fatal(err)
			}
			if got.value != tt.value || got.until.Sub(now) != tt.lifetime {
				t.Errorf("got %q for %s, want %q for %s", got.value, got.until.Sub(now), tt.value, tt.lifetime)
			}
		})
	}
}
