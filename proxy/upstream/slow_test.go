package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// scripted returns a client, for use in a synctest bubble, whose registry
// answers each request with script over a pipe. Time is the bubble's.
func scripted(t *testing.T, config Config, script func(n int, request *http.Request, conn net.Conn)) (c *Client, sent func() int) {
	t.Helper()
	var servers sync.WaitGroup
	connect, sent := pipeServer(&servers, script)
	config.Name, config.URL = "reg", "http://registry.test"
	c, err := newClient(config, func(context.Context, string, string) (net.Conn, error) { return connect(), nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		servers.Wait()
	})
	return c, sent
}

// pipeServer returns how to connect to a server that answers with script, over
// pipes, and how many requests have reached it.
func pipeServer(servers *sync.WaitGroup, script func(n int, request *http.Request, conn net.Conn)) (connect func() net.Conn, sent func() int) {
	var mu sync.Mutex
	n := 0
	connect = func() net.Conn {
		client, server := net.Pipe()
		servers.Go(func() {
			defer server.Close()
			reader := bufio.NewReader(server)
			for {
				request, err := http.ReadRequest(reader)
				if err != nil {
					return
				}
				mu.Lock()
				n++
				this := n
				mu.Unlock()
				script(this, request, server)
			}
		})
		return client
	}
	return connect, func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

// answer writes a whole answer.
func answer(conn net.Conn, status string, header string, body string) {
	fmt.Fprintf(conn, "HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n%s", status, len(body), header, body)
}

func TestSlowRegistry(t *testing.T) {
	hang := func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }
	drip := func(conn net.Conn, every time.Duration) {
		for {
			time.Sleep(every)
			if _, err := conn.Write([]byte("x")); err != nil {
				return
			}
		}
	}
	digest := digestOf(t, "x")
	manifest := func(t *testing.T, c *Client) error {
		_, _, err := manifestOf(t.Context(), c, "acme/web", "v1")
		return err
	}
	blob := func(t *testing.T, c *Client) error {
		body, _, err := c.Blob(t.Context(), "acme/web", digest, 0)
		if err != nil {
			return err
		}
		defer body.Close()
		_, err = io.Copy(io.Discard, body)
		return err
	}
	for _, tt := range []struct {
		name   string
		call   func(*testing.T, *Client) error
		script func(conn net.Conn)
		least  time.Duration
		most   time.Duration
	}{
		{"that sends no header is given up after Header", manifest, hang, 30 * time.Second, 31 * time.Second},
		{"that drips its header is given up after Header", manifest, func(conn net.Conn) { drip(conn, time.Second) }, 30 * time.Second, 31 * time.Second},
		{"that drips a manifest is given up after Whole", manifest, func(conn net.Conn) {
			fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
			drip(conn, time.Second)
		}, 60 * time.Second, 61 * time.Second},
		{"that drips an error is taken by its status after Whole", manifest, func(conn net.Conn) {
			fmt.Fprint(conn, "HTTP/1.1 403 Forbidden\r\nContent-Length: 1000\r\n\r\n")
			drip(conn, time.Second)
		}, 60 * time.Second, 61 * time.Second},
		{"that sends no header of a blob is given up after Header", blob, hang, 30 * time.Second, 31 * time.Second},
		{"that stops in a blob is given up after Idle", blob, func(conn net.Conn) {
			fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome")
			hang(conn)
		}, 30 * time.Second, 31 * time.Second},
		{"that drips a blob is given up for its rate", blob, func(conn net.Conn) {
			fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
			drip(conn, time.Second)
		}, 30 * time.Second, 32 * time.Second},
		{"that sends nothing but interim answers is given up", manifest, func(conn net.Conn) {
			for {
				time.Sleep(time.Second)
				if _, err := fmt.Fprint(conn, "HTTP/1.1 103 Early Hints\r\n\r\n"); err != nil {
					return
				}
			}
		}, time.Second, 31 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, sent := scripted(t, Config{}, func(_ int, _ *http.Request, conn net.Conn) { tt.script(conn) })
				start := time.Now()
				err := tt.call(t, c)
				if kind := kindOf(err); kind != KindUnavailable && kind != KindForbidden {
					t.Errorf("got %v", err)
				}
				if took := time.Since(start); took < tt.least || took > tt.most {
					t.Errorf("took %s (%v)", took, err)
				}
				if sent() != 1 {
					t.Errorf("sent %d times: what is slow is not tried again", sent())
				}
			})
		})
	}

	t.Run("a slow reader is not taken for a slow registry", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := scripted(t, Config{}, func(_ int, _ *http.Request, conn net.Conn) { answer(conn, "200 OK", "", string(make([]byte, 64<<10))) })
			body, _, err := c.Blob(t.Context(), "acme/web", digest, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer body.Close()
			buffer, total := make([]byte, 8<<10), 0
			for {
				n, err := body.Read(buffer)
				total += n
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Hour)
			}
			if total != 64<<10 {
				t.Errorf("%d bytes", total)
			}
		})
	})

	t.Run("a blob that comes steadily may take for ever", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := scripted(t, Config{}, func(_ int, _ *http.Request, conn net.Conn) {
				fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 4096000\r\n\r\n")
				for range 1000 {
					time.Sleep(3 * time.Second)
					if _, err := conn.Write(make([]byte, 4096)); err != nil {
						return
					}
				}
			})
			start := time.Now()
			if err := blob(t, c); err != nil {
				t.Error(err)
			}
			if took := time.Since(start); took < 50*time.Minute {
				t.Errorf("took %s", took)
			}
		})
	})

	t.Run("who asks may leave", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := scripted(t, Config{}, func(_ int, _ *http.Request, conn net.Conn) { hang(conn) })
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, _, err := manifestOf(ctx, c, "acme/web", "v1")
			if !errors.Is(err, context.DeadlineExceeded) || kindOf(err) != KindUnavailable {
				t.Errorf("got %v", err)
			}
		})
	})
}

func TestRetries(t *testing.T) {
	const ok = "200 OK"
	for _, tt := range []struct {
		name    string
		answers []string // status and header; empty: the connection is cut
		kind    string
		sent    int
		least   time.Duration
		most    time.Duration
		after   time.Duration // RetryAfter of the error
	}{
		{"success is not tried again", []string{ok}, "none", 1, 0, 0, 0},
		{"503 once", []string{"503 x", ok}, "none", 2, 100 * time.Millisecond, 200 * time.Millisecond, 0},
		{"503 twice", []string{"503 x", "503 x", ok}, "none", 3, 300 * time.Millisecond, 600 * time.Millisecond, 0},
		{"503 for ever", []string{"503 x", "503 x", "503 x", ok}, KindUnavailable, 3, 300 * time.Millisecond, 600 * time.Millisecond, 0},
		{"a connection that is cut", []string{"", ok}, "none", 2, 100 * time.Millisecond, 200 * time.Millisecond, 0},
		{"429 with a short Retry-After", []string{"429 x\r\nRetry-After: 5", ok}, "none", 2, 5 * time.Second, 5 * time.Second, 0},
		{"429 with a long Retry-After", []string{"429 x\r\nRetry-After: 6", ok}, KindRateLimited, 1, 0, 0, 6 * time.Second},
		{"429 with a date", []string{"429 x\r\nRetry-After: Sat, 01 Jan 2000 00:01:00 GMT", ok}, KindRateLimited, 1, 0, 0, time.Minute},
		{"429 with a date in the past", []string{"429 x\r\nRetry-After: Fri, 31 Dec 1999 00:00:00 GMT", ok}, "none", 2, 100 * time.Millisecond, 200 * time.Millisecond, 0},
		{"429 with an absurd Retry-After", []string{"429 x\r\nRetry-After: 4000000000", ok}, KindRateLimited, 1, 0, 0, time.Hour},
		{"429 with a negative Retry-After", []string{"429 x\r\nRetry-After: -1", ok}, "none", 2, 100 * time.Millisecond, 200 * time.Millisecond, 0},
		{"429 for ever", []string{"429 x\r\nRetry-After: 1", "429 x\r\nRetry-After: 1", "429 x\r\nRetry-After: 2"}, KindRateLimited, 3, 2 * time.Second, 2 * time.Second, 2 * time.Second},
		{"500", []string{"500 x", ok}, KindUnavailable, 1, 0, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, sent := scripted(t, Config{}, func(n int, _ *http.Request, conn net.Conn) {
					status := tt.answers[n-1]
					if status == "" {
						conn.Close()
						return
					}
					answer(conn, status, "", "")
				})
				start := time.Now()
				_, _, err := manifestOf(t.Context(), c, "acme/web", "v1")
				took := time.Since(start)
				wantKind(t, err, tt.kind)
				if sent() != tt.sent || took < tt.least || took > tt.most {
					t.Errorf("sent %d times in %s", sent(), took)
				}
				if e, ok := err.(*Error); ok && e.RetryAfter() != tt.after {
					t.Errorf("RetryAfter %s, want %s", e.RetryAfter(), tt.after)
				}
			})
		})
	}

	t.Run("who asks may leave between two tries", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, sent := scripted(t, Config{}, func(_ int, _ *http.Request, conn net.Conn) {
				answer(conn, "429 x", "Retry-After: 5\r\n", "")
			})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, _, err := manifestOf(ctx, c, "acme/web", "v1")
			if !errors.Is(err, context.DeadlineExceeded) || sent() != 1 {
				t.Errorf("got %v after %d", err, sent())
			}
		})
	})
}

func TestTokenExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens := 0
		c, _ := scripted(t, Config{}, func(_ int, request *http.Request, conn net.Conn) {
			switch {
			case request.URL.Path == "/token":
				tokens++
				answer(conn, "200 OK", "", `{"token": "t", "expires_in": 100}`)
			case request.Header.Get("Authorization") == "Bearer t":
				answer(conn, "200 OK", "", "content")
			default:
				answer(conn, "401 x", `WWW-Authenticate: Bearer realm="http://registry.test/token"`+"\r\n", "")
			}
		})
		for _, step := range []struct {
			pause time.Duration
			want  int
		}{{0, 1}, {89 * time.Second, 1}, {2 * time.Second, 2}, {0, 2}} {
			time.Sleep(step.pause)
			if _, _, err := manifestOf(t.Context(), c, "acme/web", "v1"); err != nil {
				t.Fatal(err)
			}
			if tokens != step.want {
				t.Errorf("%d tokens after %s, want %d", tokens, step.pause, step.want)
			}
		}
	})
}

func TestConnectionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		c, sent := scripted(t, Config{Limits: Limits{Connections: 3}}, func(_ int, _ *http.Request, conn net.Conn) {
			<-release
			answer(conn, "200 OK", "", "")
		})
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				if _, _, err := manifestOf(t.Context(), c, "acme/web", "v1"); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if sent() != 3 {
			t.Errorf("%d at once, want 3", sent())
		}
		close(release)
		all.Wait()
		if sent() != 10 {
			t.Errorf("%d in all, want 10", sent())
		}
	})
}
