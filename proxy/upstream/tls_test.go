package upstream

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTLS(t *testing.T) {
	start := func(t *testing.T, w *world, certificate tls.Certificate, version uint16) *host {
		h := &host{scheme: "https"}
		server := httptest.NewUnstartedServer(h.record(text("content")))
		server.Config.ErrorLog = log.New(io.Discard, "", 0)
		server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: version, MaxVersion: version}
		server.StartTLS()
		t.Cleanup(server.Close)
		_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
		h.name = net.JoinHostPort("registry.example", port)
		w.resolve("registry.example", "127.0.0.1")
		return h
	}
	for _, tt := range []struct {
		name  string
		start func(*testing.T, *world) *host
		says  string
	}{
		{"a certificate for another host", func(t *testing.T, w *world) *host {
			return start(t, w, w.ca.issue(t, time.Hour, "other.example"), 0)
		}, "another host"},
		{"an expired certificate", func(t *testing.T, w *world) *host {
			return start(t, w, w.ca.issue(t, -time.Hour, "registry.example"), 0)
		}, "expired"},
		{"an unknown authority", func(t *testing.T, w *world) *host {
			return start(t, w, newAuthority(t).issue(t, time.Hour, "registry.example"), 0)
		}, "the key ca"},
		{"TLS 1.1", func(t *testing.T, w *world) *host {
			return start(t, w, w.ca.issue(t, time.Hour, "registry.example"), tls.VersionTLS11)
		}, "handshake"},
		{"no TLS at all", func(t *testing.T, w *world) *host {
			h := w.serve("http", "registry.example", text("content"))
			h.scheme = "https"
			return h
		}, "http://"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			h := tt.start(t, w)
			_, _, err := manifestOf(t.Context(), w.client(h, withPassword), "acme/web", "v1")
			wantKind(t, err, KindTLS)
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%q does not say %q", err, tt.says)
			}
			advice, named := adviceOf(err), tt.says == "the key ca" || tt.says == "http://"
			if named != (advice != "") || named && !strings.Contains(advice, tt.says) {
				t.Errorf("advice is %q", advice)
			}
			// Nothing is sent in the clear instead.
			if got := h.lines(); len(got) != 0 {
				t.Errorf("the registry was asked %q", got)
			}
		})
	}

	t.Run("without a ca only the system's authorities are trusted", func(t *testing.T) {
		w := newWorld(t)
		h := w.serve("https", "registry.example", text("content"))
		_, _, err := manifestOf(t.Context(), w.client(h, func(config *Config) { config.CA = nil }), "acme/web", "v1")
		wantKind(t, err, KindTLS)
	})
}

func TestHTTP2(t *testing.T) {
	w := newWorld(t)
	h := &host{scheme: "https"}
	server := httptest.NewUnstartedServer(h.record(func(rw http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			rw.Header().Set("Content-Length", "100")
		}
		fmt.Fprint(rw, r.Proto)
	}))
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{w.ca.issue(t, time.Hour, "registry.example")}}
	server.StartTLS()
	t.Cleanup(server.Close)
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	h.name = net.JoinHostPort("registry.example", port)
	w.resolve("registry.example", "127.0.0.1")
	c := w.client(h, nil)
	body, _, err := manifestOf(t.Context(), c, "acme/web", "v1")
	if err != nil || string(body) != "HTTP/2.0" {
		t.Fatalf("got %q, %v", body, err)
	}
	blob, size, err := c.Blob(t.Context(), "acme/web", digestOf(t, "x"), 0)
	if err != nil || size != 100 {
		t.Fatalf("got %d, %v", size, err)
	}
	defer blob.Close()
	got, err := io.ReadAll(blob)
	if string(got) != "HTTP/2.0" || kindOf(err) != KindUnavailable {
		t.Errorf("a cut blob: got %q, %v", got, err)
	}
}

func TestObserve(t *testing.T) {
	type observed struct {
		status    string
		remaining int
	}
	var got []observed
	limits := []string{"76;w=21600", "", "nonsense", "-5", "99999999999999", "0"}
	statuses := []int{200, 404, 799, 200, 200, 200}
	w := newWorld(t)
	n := 0
	h := w.serve("https", "registry.example", func(rw http.ResponseWriter, _ *http.Request) {
		if limits[n] != "" {
			rw.Header().Set("RateLimit-Remaining", limits[n])
		}
		rw.WriteHeader(statuses[n])
	})
	c := w.client(h, func(config *Config) {
		config.Observe = func(status string, remaining int) { got = append(got, observed{status, remaining}) }
	})
	for n = range limits {
		_, _, _ = manifestOf(t.Context(), c, "acme/web", "v1")
	}
	w.resolve("registry.example", "169.254.169.254")
	c.Close()
	_, _, _ = manifestOf(t.Context(), c, "acme/web", "v1")
	want := []observed{{"200", 76}, {"404", -1}, {"other", -1}, {"200", -1}, {"200", -1}, {"200", 0}, {"error", -1}}
	if !slices.Equal(got, want) {
		t.Errorf("observed %v, want %v", got, want)
	}

	t.Run("another host has no rate limit of the registry's", func(t *testing.T) {
		w, registry, _, _ := redirectWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("RateLimit-Remaining", "7")
		})
		var got []observed
		c := w.client(registry, func(config *Config) {
			config.Observe = func(status string, remaining int) { got = append(got, observed{status, remaining}) }
		})
		if _, _, err := manifestOf(t.Context(), c, "acme/web", "v1"); err != nil {
			t.Fatal(err)
		}
		if want := []observed{{"401", -1}, {"200", -1}, {"307", -1}, {"200", -1}}; !slices.Equal(got, want) {
			t.Errorf("observed %v, want %v", got, want)
		}
	})
}
