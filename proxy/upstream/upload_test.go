package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// uploading is a registry that takes one upload, at a location of the test's choice.
type uploading struct {
	location string // of POST and PATCH; "%s" is the path for it
	status   int    // of PATCH; 0 is 202
}

func (u uploading) serve(rw http.ResponseWriter, r *http.Request) {
	const path = "/v2/acme/web/blobs/uploads/1?state=a%2Fb"
	location := u.location
	if strings.Contains(location, "%s") {
		location = fmt.Sprintf(location, path)
	}
	rw.Header().Set("Location", location)
	switch r.Method {
	case http.MethodPost:
		if r.URL.Query().Has("mount") {
			rw.WriteHeader(http.StatusCreated)
			return
		}
		rw.WriteHeader(http.StatusAccepted)
	case http.MethodPatch:
		rw.Header().Set("Range", "0-4")
		rw.WriteHeader(max(u.status, http.StatusAccepted))
	case http.MethodPut:
		rw.Header().Set("OCI-Subject", "sha256:x")
		rw.WriteHeader(http.StatusCreated)
	case http.MethodDelete:
		rw.WriteHeader(http.StatusAccepted)
	}
}

var content = v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("ab", 32)}

func TestATokenHasTheRightsThatTheRequestNeeds(t *testing.T) {
	w := newWorld(t)
	r := &tokenRegistry{content: uploading{location: "%s"}.serve}
	r.scope = func(string) string { return "repository:acme/web:pull,push" }
	registry := w.serve("https", "registry.corp.example", r.serve)
	auth := w.serve("https", "auth.corp.example", r.issue)
	r.realm = auth.url() + "/token"
	c := w.client(registry, nil)
	location, _, err := c.StartUpload(t.Context(), "acme/web", v1.Hash{}, "")
	if err != nil {
		t.Fatal(err)
	}
	next, held, err := c.AppendUpload(t.Context(), "acme/web", location, 0, 5, false, strings.NewReader("hello"))
	if err != nil || held != 5 {
		t.Fatal(held, err)
	}
	if err := c.CommitUpload(t.Context(), "acme/web", next, content); err != nil {
		t.Fatal(err)
	}
	if got := registry.last().line; got != "PUT /v2/acme/web/blobs/uploads/1?state=a%2Fb&digest=sha256%3A"+content.Hex {
		t.Errorf("committed by %s", got)
	}
	if subject, err := c.PutManifest(t.Context(), "acme/web", "v1", "application/x", []byte("manifest")); err != nil || !subject {
		t.Fatal(subject, err)
	}
	if got := registry.last(); got.body != "manifest" || got.header.Get("Content-Type") != "application/x" {
		t.Errorf("put %q as %s", got.body, got.header.Get("Content-Type"))
	}
	// One token for all of it; a pull is asked for with a right of its own.
	if got := auth.lines(); len(got) != 1 || !strings.Contains(got[0], "scope=repository%3Aacme%2Fweb%3Apull%2Cpush") {
		t.Errorf("tokens were asked for by %q", got)
	}
	r.scope = nil
	if _, _, err := manifestOf(t.Context(), c, "acme/web", "v1"); err != nil {
		t.Fatal(err)
	}
	if got := auth.last().line; !strings.HasSuffix(got, "scope=repository%3Aacme%2Fweb%3Apull&service=svc") && !strings.Contains(got, "%3Apull&") {
		t.Errorf("a pull asks for %s", got)
	}
}

func TestScopesOfPushes(t *testing.T) {
	push, mount := need{repository: "a/b", rights: pushes}, need{repository: "a/b", rights: pushes, from: "c/d"}
	remove := need{repository: "a/b", rights: deletes}
	for _, test := range []struct {
		need        need
		asked, want string
	}{
		{push, "", "repository:a/b:pull,push"},
		{push, "repository:a/b:pull,push,delete,*", "repository:a/b:pull,push"},
		{push, "repository:a/b:push repository:c/d:pull,push", "repository:a/b:pull,push repository:c/d:pull"},
		{mount, "", "repository:a/b:pull,push repository:c/d:pull"},
		{mount, "repository:c/d:pull repository:a/b:pull,push", "repository:c/d:pull repository:a/b:pull,push"},
		{remove, "", "repository:a/b:pull,push,delete"},
		{remove, "repository:a/b:delete", "repository:a/b:delete"},
		{remove, "repository:a/b:*", "repository:a/b:*"},
		{remove, "repository:a/b:evil", "repository:a/b:pull,push,delete"},
		{need{repository: "a/b"}, "repository:a/b:pull,push", "repository:a/b:pull"},
	} {
		if got := test.need.scope(test.asked); got != test.want {
			t.Errorf("%+v, asked %q: %q, want %q", test.need, test.asked, got, test.want)
		}
	}
}

// C6: an upload goes on at the upstream's own origin, by whatever spelling, or nowhere.
func TestC6WhereAnUploadGoesOn(t *testing.T) {
	for _, test := range []struct {
		location string // %h is the upstream's host and port
		own      bool
	}{
		{"/v2/x", true},
		{"upload-1", true},
		{"https://%h/v2/x?_state=a", true},
		{"HTTPS://REGISTRY.corp.example:%p/v2/x", true},
		{"http://%h/v2/x", true}, // of a registry that does not know of the TLS before it
		{"http://registry.corp.example:1/v2/x", false},
		{"https://other.example/v2/x", false},
		{"//other.example/v2/x", false},
		{"https://registry.corp.example.evil.example:%p/x", false},
		{"https://user:secret@%h/x", false},
		{"https://registry.corp.example:1/x", false},
		{"ftp://%h/x", false},
		{"", false},
		{"http://[", false},
		{"/" + strings.Repeat("a", maxLocation), false},
	} {
		w := newWorld(t)
		elsewhere := w.serve("https", "other.example", func(http.ResponseWriter, *http.Request) {})
		var at uploading
		registry := w.serve("https", "registry.corp.example", func(rw http.ResponseWriter, r *http.Request) { at.serve(rw, r) })
		_, port, _ := strings.Cut(registry.name, ":")
		at.location = strings.NewReplacer("%h", registry.name, "%p", port).Replace(test.location)
		c := w.client(registry, nil)
		location, _, err := c.StartUpload(t.Context(), "acme/web", v1.Hash{}, "")
		if (err == nil) != test.own {
			t.Errorf("%.80s: %v", test.location, err)
		}
		if err != nil {
			if strings.Contains(err.Error(), "secret") {
				t.Error(err)
			}
			continue
		}
		if !strings.HasPrefix(location, "/") || strings.HasPrefix(location, "//") {
			t.Errorf("%s is %s", test.location, location)
		}
		if _, _, err := c.AppendUpload(t.Context(), "acme/web", location, 0, 5, true, strings.NewReader("hello")); err != nil {
			t.Errorf("%s: %v", test.location, err)
		} else if got := registry.last(); got.header.Get("Content-Range") != "0-4" || got.body != "hello" {
			t.Errorf("sent %q as %s", got.body, got.header.Get("Content-Range"))
		}
		if got := elsewhere.lines(); len(got) != 0 {
			t.Errorf("elsewhere was asked %q", got)
		}
	}
	w := newWorld(t)
	c := w.client(w.serve("https", "registry.corp.example", uploading{location: "%s"}.serve), nil)
	for _, location := range []string{"https://evil.example/x", "//evil.example/x", "x", ""} {
		if _, _, err := c.AppendUpload(t.Context(), "acme/web", location, 0, 1, false, strings.NewReader("x")); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%q: %v", location, err)
		}
	}
}

// What changes something is not sent again after it has begun, nor elsewhere.
func TestAWriteIsSentOnce(t *testing.T) {
	for name, write := range map[string]func(c *Client) error{
		"a piece": func(c *Client) error {
			_, _, err := c.AppendUpload(context.Background(), "acme/web", "/x", 0, 1, false, strings.NewReader("x"))
			return err
		},
		"the end of an upload": func(c *Client) error { return c.CommitUpload(context.Background(), "acme/web", "/x", content) },
		"a tag": func(c *Client) error {
			_, err := c.PutManifest(context.Background(), "acme/web", "v1", "application/x", nil)
			return err
		},
		"a deletion": func(c *Client) error { return c.DeleteManifest(context.Background(), "acme/web", "v1") },
	} {
		for _, status := range []int{503, 307, 404, 403, 400} {
			w := newWorld(t)
			elsewhere := w.serve("https", "other.example", func(http.ResponseWriter, *http.Request) {})
			registry := w.serve("https", "registry.corp.example", func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Location", elsewhere.url()+"/x")
				rw.WriteHeader(status)
			})
			err := write(w.client(registry, nil))
			e, ok := errors.AsType[*Error](err)
			if !ok || status != 307 && e.Status() != status {
				t.Errorf("%s, %d: %v", name, status, err)
			}
			wrote := registry.lines()
			wrote = slices.DeleteFunc(wrote, func(line string) bool { return strings.HasPrefix(line, "HEAD") }) // whether it happened
			if len(wrote) != 1 || len(elsewhere.lines()) != 0 {
				t.Errorf("%s, %d: sent %q, elsewhere %q", name, status, wrote, elsewhere.lines())
			}
		}
	}
}

func TestACommitWhoseAnswerIsLostHasHappened(t *testing.T) {
	for _, there := range []bool{true, false} {
		w := newWorld(t)
		registry := w.serve("https", "registry.corp.example", func(rw http.ResponseWriter, r *http.Request) {
			switch {
			case r.Method == http.MethodPut:
				panic(http.ErrAbortHandler)
			case !there:
				rw.WriteHeader(http.StatusNotFound)
			}
		})
		if err := w.client(registry, nil).CommitUpload(t.Context(), "acme/web", "/x", content); (err == nil) != there {
			t.Errorf("the blob is there: %v: %v", there, err)
		}
	}
}

func TestAnUploadThatTheUpstreamDoesNotTakeIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		f := newFeed(strings.NewReader("some bytes"), 30*time.Second, cancel)
		if n, err := f.Read(make([]byte, 4)); n != 4 || err != nil {
			t.Fatal(n, err)
		}
		time.Sleep(29 * time.Second)
		synctest.Wait()
		if ctx.Err() != nil {
			t.Fatal("given up too soon")
		}
		f.Read(make([]byte, 4))
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if e, ok := errors.AsType[*Error](context.Cause(ctx)); !ok || e.Kind() != KindUnavailable {
			t.Errorf("the cause is %v", context.Cause(ctx))
		}
	})
	// What makes wait is the source, and costs the upstream nothing.
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		source, sink := io.Pipe()
		f := newFeed(source, 30*time.Second, cancel)
		done := make(chan struct{})
		go func() { defer close(done); io.Copy(io.Discard, f) }()
		time.Sleep(time.Hour)
		sink.Close()
		<-done
		if ctx.Err() != nil || !f.spent() {
			t.Errorf("%v, spent %v", context.Cause(ctx), f.spent())
		}
		cancel(nil)
	})
}

// The source is its owner's again once all was read.
func TestAPieceIsNotReadBeyondItsEnd(t *testing.T) {
	reads := 0
	f := newFeed(readerFunc(func(b []byte) (int, error) {
		reads++
		return copy(b, "x"), io.EOF
	}), time.Hour, nil)
	for range 3 {
		if _, err := f.Read(make([]byte, 4)); err != io.EOF {
			t.Error(err)
		}
	}
	if !f.spent() || reads != 1 {
		t.Errorf("spent %v, read %d times", f.spent(), reads)
	}
}

// An upstream that has all bytes that were said may answer before the end of the source was
// seen, which takes another read.
func TestAPieceIsSpentWhenAllOfItCame(t *testing.T) {
	for size, spent := range map[int64]bool{4: true, 5: false, -1: false} {
		f := newFeed(strings.NewReader("some"), time.Hour, nil)
		f.size = size
		if n, err := f.Read(make([]byte, 4)); n != 4 || err != nil {
			t.Fatal(n, err)
		}
		if f.spent() != spent {
			t.Errorf("of %d bytes 4 came: spent %v", size, !spent)
		}
	}
}

func TestAnUploadThatIsGivenUpEndsItsSource(t *testing.T) {
	w := newWorld(t)
	c := w.client(w.serve("https", "registry.corp.example", uploading{location: "%s"}.serve), nil)
	source, sink := io.Pipe() // from which nothing comes
	defer sink.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := c.AppendUpload(ctx, "acme/web", "/x", 0, -1, false, source); err == nil {
		t.Error("it succeeded")
	}
	if _, err := sink.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the source is still open: %v", err)
	}
}

func TestAnAnswerBeforeAllWasSentIsNoSuccess(t *testing.T) {
	w := newWorld(t)
	source, sink := io.Pipe()
	done := make(chan struct{})
	// not by serve, which reads all that comes
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		control := http.NewResponseController(rw)
		control.EnableFullDuplex()
		rw.Header().Set("Content-Length", "0")
		rw.WriteHeader(http.StatusAccepted)
		control.Flush()
		<-done
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(done) })
	go sink.Write([]byte("some"))
	c, err := New(Config{Name: "reg", URL: server.URL, Egress: loopback})
	if err != nil {
		t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	_, _, err = c.AppendUpload(t.Context(), "acme/web", "/x", 0, -1, false, source)
	if kind := kindOf(err); kind != KindMismatch {
		t.Errorf("%q: %v", kind, err)
	}
	sink.Close()
}

// An upstream that answers and does not come to an end keeps no place for ever.
func TestC7AnAnswerToAPieceWithoutAnEndIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	for status, kind := range map[int]string{http.StatusAccepted: "none", http.StatusInternalServerError: KindUnavailable} {
		w := newWorld(t)
		left := make(chan struct{})
		h := w.serve("https", "registry.corp.example", func(rw http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			rw.Header().Set("Location", "/x")
			rw.WriteHeader(status)
			http.NewResponseController(rw).Flush()
			<-r.Context().Done()
			close(left)
		})
		c := w.client(h, func(config *Config) { config.Timeouts.Idle = 2 * time.Second })
		ended := make(chan error, 1)
		go func() {
			_, _, err := c.AppendUpload(t.Context(), "acme/web", "/x", 0, 4, false, strings.NewReader("some"))
			ended <- err
		}()
		select {
		case err := <-ended:
			if kindOf(err) != kind {
				t.Errorf("%d: %v", status, err)
			}
			<-left
		case <-time.After(20 * time.Second):
			t.Fatalf("%d: it is waited for", status)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }
