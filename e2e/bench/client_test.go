package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestParseHead(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want head
		rest string
		err  string
	}{
		"usual":           {"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nbody", head{200, 12, false}, "body", ""},
		"other case":      {"HTTP/1.1 404 Not Found\r\ncontent-length:0\r\nCONNECTION: Close\r\n\r\n", head{404, 0, true}, "", ""},
		"kept":            {"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n", head{200, 1, false}, "", ""},
		"closed":          {"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", head{200, 1, true}, "", ""},
		"no length":       {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", head{}, "", "without Content-Length"},
		"negative length": {"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", head{}, "", "not a length"},
		"other protocol":  {"SSH-2.0-OpenSSH\r\n\r\n", head{}, "", "not an answer of HTTP/1.1"},
		"no status":       {"HTTP/1.1 2x0 OK\r\n\r\n", head{}, "", "without a status"},
		"too large":       {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxHead), head{}, "", "too large"},
	} {
		t.Run(name, func(t *testing.T) {
			h, size, err := parseHead([]byte(c.text))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error %v, want one with %q", err, c.err)
				}
				return
			}
			if err != nil || h != c.want || c.text[size:] != c.rest {
				t.Errorf("%+v, %d, %v; want %+v before %q", h, size, err, c.want, c.rest)
			}
			for cut := range size {
				if _, n, err := parseHead([]byte(c.text[:cut])); n != 0 || err != nil {
					t.Errorf("of %d bytes it takes %d, with %v", cut, n, err)
				}
			}
		})
	}
}

// serving starts a server that answers body at every path, with 200 unless the
// path is a status, and returns its address.
func serving(t *testing.T, body string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		if status, err := strconv.Atoi(strings.Trim(r.URL.Path, "/")); err == nil {
			w.WriteHeader(status)
		}
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func TestAClientFindsOutWhatIsWrong(t *testing.T) {
	const body = "what is served"
	addr := serving(t, body)
	right := part{sum([]byte(body)), int64(len(body))}
	other := part{sum([]byte("something else")), int64(len(body))}
	for name, c := range map[string]struct {
		path   string
		want   part
		hashed bool
		err    string
	}{
		"right":                    {"/", right, true, ""},
		"another digest":           {"/", other, true, "its digest is " + right.Digest},
		"another digest, unlooked": {"/", other, false, ""},
		"another length":           {"/", part{right.Digest, 3}, false, "14 bytes, want 3"},
		"an error":                 {"/503", right, true, "status 503: " + body},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := dial(t.Context(), addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			for range 2 { // on the same connection
				err = conn.get(t.Context(), c.path, c.want, c.hashed)
				if c.err == "" && err != nil || c.err != "" && (!errors.Is(err, errWrong) || !strings.Contains(err.Error(), c.err)) {
					t.Fatalf("error %v, want %q", err, c.err)
				}
				if err != nil {
					return
				}
			}
		})
	}
}

// breaking starts a server that reads a request, writes text and closes the
// connection, unless it is to hold it.
func breaking(t *testing.T, text string, hold bool) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = conn.Read(make([]byte, 1024))
				_, _ = io.WriteString(conn, text)
				if hold {
					<-done
				}
			}()
		}
	}()
	return listener.Addr().String()
}

func TestAClientNoticesAnAnswerThatEndsEarly(t *testing.T) {
	addr := breaking(t, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", false)
	conn, err := dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.get(t.Context(), "/", part{"", 10}, false); !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "6 of 10 bytes") {
		t.Errorf("error %v", err)
	}
}

func TestAClientStopsWhenItIsTold(t *testing.T) {
	addr := breaking(t, "HTTP/1.1 200 OK\r\n", true)
	told := errors.New("told so")
	ctx, stop := context.WithCancelCause(t.Context())
	conn, err := dial(ctx, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stop(told)
	if err := conn.get(ctx, "/", part{"", 10}, false); !errors.Is(err, told) {
		t.Errorf("error %v", err)
	}
	l := load{addr: addr, request: request("GET", addr, "/"), connections: 2, want: 10}
	if _, err := l.once(ctx); !errors.Is(err, told) {
		t.Errorf("a load: error %v", err)
	}
}

func TestALoadSendsOneRequestOnEachConnection(t *testing.T) {
	body := strings.Repeat("x", 3*readSize) // does not fit into one read
	var connections, requests atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = io.WriteString(w, body)
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	addr := server.Listener.Addr().String()
	l := load{addr: addr, request: request("GET", addr, "/"), connections: 5, want: int64(len(body))}
	timings, err := l.once(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(timings) != 5 || connections.Load() != 5 || requests.Load() != 5 {
		t.Errorf("%d timings, %d connections, %d requests; want 5 of each", len(timings), connections.Load(), requests.Load())
	}
	for i, c := range timings {
		if c.sent.IsZero() || c.first.Before(c.sent) || c.end.Before(c.first) {
			t.Errorf("connection %d: %+v", i, c)
		}
	}
}

func TestASustainedLoadCountsWhatCame(t *testing.T) {
	addr := serving(t, "body")
	for _, method := range []string{"GET", "HEAD"} {
		l := load{addr: addr, request: request(method, addr, "/"), connections: 3, want: 4, headOnly: method == "HEAD"}
		got, err := l.sustain(t.Context(), 100*time.Millisecond, func() (time.Duration, error) { return cpuTime(os.Getpid()) })
		if err != nil {
			t.Fatal(err)
		}
		if got.requests == 0 || got.time < 100*time.Millisecond {
			t.Errorf("%s: %+v", method, got)
		}
		if bodies := got.bytes / 4; method == "GET" && bodies != got.requests || method == "HEAD" && bodies != 0 {
			t.Errorf("%s: %d requests with %d bytes", method, got.requests, got.bytes)
		}
	}
}

func TestALoadFindsOutWhatIsWrong(t *testing.T) {
	good, broken := serving(t, "body"), breaking(t, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", false)
	closing := breaking(t, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody", false)
	long := breaking(t, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody and more", false)
	for name, c := range map[string]struct {
		addr, path string
		want       int64
		err        string
	}{
		"an error":       {good, "/500", 4, "status 500 with 4 bytes, want 200 with 4"},
		"another length": {good, "/", 5, "status 200 with 4 bytes, want 200 with 5"},
		"ends early":     {broken, "/", 10, io.ErrUnexpectedEOF.Error()},
		"will close":     {closing, "/", 4, "will close the connection"},
		"too long":       {long, "/", 4, "bytes come after its end"},
	} {
		l := load{addr: c.addr, request: request("GET", c.addr, c.path), connections: 2, want: c.want}
		_, err := l.once(t.Context())
		if err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), "GET "+c.path+" at "+c.addr) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.err)
		}
	}
}
