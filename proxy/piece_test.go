package proxy_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"testing"
	"time"

	"vidimus/e2e/lying"
	"vidimus/proxy/upstream"
)

// taking is an upstream that takes the second piece of an upload in its own way. take
// returns what it took, which is held then whatever becomes of the request. The
// channel ends when it is.
func taking(t *testing.T, take func(body io.Reader) []byte) (w *world, held chan int) {
	held = make(chan int, 1)
	var registry *url.URL
	var forward *httputil.ReverseProxy
	patches := 0 // by one client, one after the other
	front := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch {
			if patches++; patches == 2 {
				content := take(r.Body)
				at := *registry
				at.Path = r.URL.Path
				answer, err := http.DefaultClient.Do(must(http.NewRequest("PATCH", at.String(), bytes.NewReader(content))))
				if err != nil {
					t.Error(err)
					return
				}
				defer answer.Body.Close()
				rw.Header().Set("Range", answer.Header.Get("Range"))
				rw.Header().Set("Location", answer.Header.Get("Location"))
				rw.WriteHeader(answer.StatusCode)
				held <- len(content)
				return
			}
		}
		forward.ServeHTTP(rw, r)
	}))
	t.Cleanup(front.Close)
	w = newWorld(t, pushable, func(w *world, s *settings) {
		registry = must(http.NewRequest("GET", w.up.URL, nil)).URL
		forward = httputil.NewSingleHostReverseProxy(registry)
		forward.Transport = &http.Transport{DisableKeepAlives: true}
		ours := w.up.URL
		s.client = func(c *upstream.Config) {
			if c.URL == ours {
				c.URL, c.Timeouts.Idle = front.URL, 2*time.Second
			}
		}
	})
	return w, held
}

// goneOn sends the rest of an upload that broke off after its first 1000 bytes, of
// which the upstream has more, and commits it. Only what the upstream has not is sent.
func (w *world) goneOn(at string, content []byte, had int) {
	w.t.Helper()
	w.up.Forget()
	status := w.get(at)
	for status.status == http.StatusConflict { // the request that broke off is on its way out
		status = w.get(at)
	}
	at = w.goesOn(status, 204, 1000)
	at = w.goesOn(w.send("PATCH", at, bytes.NewReader(content[1000:]), "Content-Range", fmt.Sprintf("1000-%d", len(content)-1)), 202, len(content))
	sent := w.up.Requests(lying.Any().Method("PATCH"))
	if want := strconv.Itoa(len(content) - 1000 - had); len(sent) != 1 || sent[0].Header.Get("Content-Length") != want {
		w.t.Errorf("want %s bytes sent: %v", want, sent)
	}
	w.stored(w.send("PUT", withDigest(at, lying.Digest(content)), nil), content)
}

// An upstream that takes less at once than comes gets everything in its order.
func TestAPieceIsRelayedToASlowerUpstream(t *testing.T) {
	content := make([]byte, 5<<20+7)
	rand.Read(content)
	w, held := taking(t, func(body io.Reader) (taken []byte) {
		for some := make([]byte, 1000); ; {
			n, err := body.Read(some)
			if taken = append(taken, some[:n]...); err != nil {
				return taken
			}
		}
	})
	at := w.goesOn(w.send("PATCH", w.upload(), bytes.NewReader(content[:1000])), 202, 1000)
	at = w.goesOn(w.send("PATCH", at, chunks(content[1000:])), 202, len(content))
	if n := <-held; n != len(content)-1000 {
		t.Errorf("%d bytes were taken", n)
	}
	w.stored(w.send("PUT", withDigest(at, lying.Digest(content)), nil), content)
}

// A client that leaves in the middle of a piece goes on from where it was last sound.
func TestAPieceWhoseClientLeavesIsGoneOnWith(t *testing.T) {
	content := make([]byte, 3<<20)
	rand.Read(content)
	const sent = 1<<20 + 11
	came := make(chan struct{})
	w, held := taking(t, func(body io.Reader) []byte {
		taken := make([]byte, sent)
		if _, err := io.ReadFull(body, taken); err != nil {
			t.Error(err)
		}
		close(came)
		if n, err := body.Read(make([]byte, 1)); n != 0 || err == nil || err == io.EOF {
			t.Errorf("%d more bytes came: %v", n, err)
		}
		return taken
	})
	at := w.goesOn(w.send("PATCH", w.upload(), bytes.NewReader(content[:1000])), 202, 1000)
	conn, err := net.Dial("tcp", w.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "PATCH %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n", at, len(content)-1000)
	if _, err := conn.Write(content[1000 : 1000+sent]); err != nil {
		t.Fatal(err)
	}
	<-came
	conn.Close()
	w.goneOn(at, content, <-held)
}

// An upstream that stops taking a piece ends it, and the client goes on from where it
// was last sound.
func TestAPieceThatTheUpstreamStopsTakingIsGoneOnWith(t *testing.T) {
	content := make([]byte, 32<<20) // more than the buffers of connections take
	rand.Read(content)
	given := make(chan struct{})
	w, held := taking(t, func(body io.Reader) []byte {
		taken := make([]byte, 1<<20+11)
		if _, err := io.ReadFull(body, taken); err != nil {
			t.Error(err)
		}
		<-given
		return taken
	})
	at := w.goesOn(w.send("PATCH", w.upload(), bytes.NewReader(content[:1000])), 202, 1000)
	// who is still sending may not get to read the answer
	if a := w.send("PATCH", at, bytes.NewReader(content[1000:])); a.broken == nil && a.status < 500 {
		t.Errorf("%d %s", a.status, a.body)
	}
	close(given)
	w.goneOn(at, content, <-held)
}
