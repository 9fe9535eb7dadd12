package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// plug is a dialFunc that answers when the test says so.
type plug struct {
	mu    sync.Mutex
	dials int
	next  func(ctx context.Context) (net.Conn, error)
}

func (p *plug) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	p.mu.Lock()
	p.dials++
	next := p.next
	p.mu.Unlock()
	return next(ctx)
}

func (p *plug) use(next func(ctx context.Context) (net.Conn, error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = next
}

// wantDials wants so many dials since it was asked last.
func (p *plug) wantDials(t *testing.T, want int) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dials != want {
		t.Errorf("%d dials, want %d", p.dials, want)
	}
	p.dials = 0
}

// silent is a host that answers to no connection.
func silent(ctx context.Context) (net.Conn, error) {
	select {
	case <-time.After(10 * time.Second):
		return nil, &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func reset(context.Context) (net.Conn, error) {
	return nil, &net.OpError{Op: "dial", Err: errors.New("connection refused")}
}

func connect(context.Context) (net.Conn, error) {
	a, b := net.Pipe()
	b.Close()
	return a, nil
}

func TestBreaker(t *testing.T) {
	// dialled returns what guard makes of a dial, and how long it took.
	dialled := func(t *testing.T, dial dialFunc, address string) (time.Duration, error) {
		begun := time.Now()
		conn, err := dial(t.Context(), "tcp", address)
		if err == nil {
			conn.Close()
		}
		return time.Since(begun), err
	}
	const host, other = "registry.test:443", "token.test:443"
	world := func(t *testing.T, f func(t *testing.T, p *plug, dial dialFunc)) {
		synctest.Test(t, func(t *testing.T) {
			p := &plug{next: silent}
			f(t, p, new(breaker).guard(p.dial))
		})
	}
	// closed has a host just closed.
	closed := func(t *testing.T, p *plug, dial dialFunc) {
		t.Helper()
		p.use(silent)
		if took, err := dialled(t, dial, host); err == nil || took != 10*time.Second {
			t.Fatalf("%v after %s", err, took)
		}
		p.wantDials(t, 1)
	}

	t.Run("a host that lets a dial time out is spared for two seconds", func(t *testing.T) {
		world(t, func(t *testing.T, p *plug, dial dialFunc) {
			closed(t, p, dial)
			for range 2 {
				took, err := dialled(t, dial, host)
				wantKind(t, err, KindUnavailable)
				if took != 0 {
					t.Errorf("took %s", took)
				}
				time.Sleep(closedFor/2 - time.Millisecond)
			}
			p.wantDials(t, 0)
			if _, err := dialled(t, dial, other); err == nil {
				t.Error("another host connected")
			}
			p.wantDials(t, 1)
		})
	})
	t.Run("then one tries, and nobody waits for it", func(t *testing.T) {
		world(t, func(t *testing.T, p *plug, dial dialFunc) {
			closed(t, p, dial)
			time.Sleep(closedFor)
			var trying sync.WaitGroup
			trying.Go(func() {
				if took, err := dialled(t, dial, host); err == nil || took != 10*time.Second {
					t.Errorf("%v after %s", err, took)
				}
			})
			synctest.Wait()
			if took, err := dialled(t, dial, host); err == nil || took != 0 {
				t.Errorf("%v after %s", err, took)
			}
			trying.Wait()
			p.wantDials(t, 1)
			if took, err := dialled(t, dial, host); err == nil || took != 0 {
				t.Errorf("after it failed: %v after %s", err, took)
			}
			p.wantDials(t, 0)
		})
	})
	for name, answer := range map[string]func(context.Context) (net.Conn, error){"a connection": connect, "a refusal": reset} {
		t.Run(name+" opens it to all", func(t *testing.T) {
			world(t, func(t *testing.T, p *plug, dial dialFunc) {
				closed(t, p, dial)
				time.Sleep(closedFor)
				p.use(answer)
				for range 3 {
					dialled(t, dial, host)
				}
				p.wantDials(t, 3)
			})
		})
	}
	t.Run("who leaves says nothing about the host", func(t *testing.T) {
		world(t, func(t *testing.T, p *plug, dial dialFunc) {
			leave := func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if _, err := dial(ctx, "tcp", host); err == nil {
					t.Error("connected")
				}
			}
			leave()
			leave()
			p.wantDials(t, 2)
			closed(t, p, dial)
			time.Sleep(closedFor)
			leave() // it was the one that tried
			p.wantDials(t, 1)
			leave()
			p.wantDials(t, 1)
		})
	})
	t.Run("one that times out while another gets through closes nothing", func(t *testing.T) {
		world(t, func(t *testing.T, p *plug, dial dialFunc) {
			var lost sync.WaitGroup
			lost.Go(func() { dialled(t, dial, host) })
			time.Sleep(time.Second)
			p.use(connect)
			if _, err := dialled(t, dial, host); err != nil {
				t.Error(err)
			}
			lost.Wait()
			if _, err := dialled(t, dial, host); err != nil {
				t.Error(err)
			}
			p.wantDials(t, 3)
		})
	})
	t.Run("a queue at a silent host does not wait for one dial after the other", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := &plug{next: silent}
			c, err := newClient(Config{Name: "reg", URL: "http://registry.test", Limits: Limits{Connections: 4}}, p.dial)
			if err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			var all sync.WaitGroup
			for range 40 {
				all.Go(func() {
					_, _, err := manifestOf(t.Context(), c, "acme/web", "v1")
					wantKindIn(t, err, KindUnavailable)
				})
			}
			all.Wait()
			if took := time.Since(begun); took != 10*time.Second {
				t.Errorf("took %s", took)
			}
			p.wantDials(t, 4)
		})
	})
	t.Run("a connection that stands is used although the host is closed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var servers sync.WaitGroup
			p := &plug{}
			serve, _ := pipeServer(&servers, func(_ int, _ *http.Request, conn net.Conn) { answer(conn, "200 OK", "", "content") })
			p.use(func(context.Context) (net.Conn, error) { return serve(), nil })
			c, err := newClient(Config{Name: "reg", URL: "http://registry.test"}, p.dial)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close(); servers.Wait() })
			// one connection is idle when another dial times out
			body, _, err := c.Blob(t.Context(), "acme/web", digestOf(t, "content"), 0)
			if err != nil {
				t.Fatal(err)
			}
			p.use(silent)
			_, _, err = manifestOf(t.Context(), c, "acme/web", "v1")
			wantKind(t, err, KindUnavailable)
			if _, err := io.ReadAll(body); err != nil {
				t.Error(err)
			}
			body.Close()
			if _, _, err := manifestOf(t.Context(), c, "acme/web", "v1"); err != nil {
				t.Errorf("over the connection that stands: %v", err)
			}
		})
	})
}

// wantKindIn is wantKind for other goroutines than the test's.
func wantKindIn(t *testing.T, err error, kind string) {
	t.Helper()
	if kindOf(err) != kind {
		t.Errorf("error %v has kind %q, want %q", err, kindOf(err), kind)
	}
}
