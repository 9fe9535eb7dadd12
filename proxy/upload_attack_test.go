package proxy_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"vidimus/e2e/lying"
	"vidimus/proxy"
	"vidimus/proxy/access"
	"vidimus/proxy/upstream"
)

// Clocks of replicas differ, and a clock may be set back: an upload goes on all the same,
// for as long as it may take and no longer.
func TestAnUploadGoesOnByAClockThatIsBehind(t *testing.T) {
	for _, test := range []struct {
		passed time.Duration
		status int
	}{
		{-time.Millisecond, 202}, {-time.Hour, 202}, {0, 202}, {24*time.Hour - time.Second, 202},
		{24 * time.Hour, 404}, {-24 * time.Hour, 404},
	} {
		w := newWorld(t, pushable)
		at := w.upload()
		w.clock.pass(test.passed)
		if a := w.send("PATCH", at, strings.NewReader("x")); a.status != test.status {
			t.Errorf("after %s: %d %s", test.passed, a.status, a.body)
		}
	}
}

// named is an access list by which everybody may push, and is whoever the header From
// names.
type named struct{}

func (named) Identify(r *http.Request) (access.Caller, error) {
	return access.Caller{Kind: access.Certificate, Name: r.Header.Get("From")}, nil
}
func (named) Allows(access.Caller, string, access.Action) bool { return true }
func (named) AllowsSome(access.Caller) bool                    { return true }

// Nobody goes on with the upload of somebody whose name only looks like his in a log,
// where it is cut short and some letters are not shown.
func TestD5NamesThatLookAlikeAreTwoCallers(t *testing.T) {
	long := strings.Repeat("spiffe://example.org/a-very-long-path/", 4)
	for _, names := range [][2]string{{"anna", "anna2"}, {long + "alice", long + "mallory"}, {"z\u00fcrich", "z\u00f6rich"}} {
		w := newWorld(t, pushable, func(_ *world, s *settings) { s.revision = func(r *proxy.Revision) { r.Access = named{} } })
		at := w.goesOn(w.send("POST", uploads, nil, "From", names[0]), 202, 0)
		if a := w.send("PATCH", at, strings.NewReader("x"), "From", names[1]); a.status != 404 {
			t.Errorf("%q goes on with what %q began: %d", names[1], names[0], a.status)
		}
		w.goesOn(w.send("PATCH", at, strings.NewReader("x"), "From", names[0]), 202, 1)
	}
}

// Clients that send blobs slowly hold connections to an upstream, but not those that
// others need: for what is small, and for their own blobs.
func TestD7SlowUploadsKeepNobodyFromPushing(t *testing.T) {
	const connections = 2
	w := newWorld(t, pushable, func(_ *world, s *settings) {
		s.client = func(config *upstream.Config) {
			config.Limits.Connections = connections
			config.Timeouts = upstream.Timeouts{Whole: 5 * time.Second, Commit: 5 * time.Second, Idle: 5 * time.Second}
		}
	})
	image := lying.Image("pushed meanwhile")
	var slow sync.WaitGroup
	defer slow.Wait()
	for range connections + 1 {
		at := w.upload()
		body, writer := io.Pipe()
		defer writer.Close()
		slow.Go(func() { w.send("PATCH", at, body) })
		if _, err := writer.Write(make([]byte, 16<<20)); err != nil { // more than the sockets on the way hold
			t.Fatal(err)
		}
	}
	for _, blob := range image.Blobs {
		if a := w.send("POST", withDigest(uploads, lying.Digest(blob)), bytes.NewReader(blob)); a.status != 201 {
			t.Errorf("a blob: %d %s", a.status, a.body)
		}
	}
	if a := w.put("ghcr.io/open/web", "v1", image); a.status != 201 {
		t.Errorf("a manifest: %d %s", a.status, a.body)
	}
}

// An upload ends a day after it began, also while a piece of it is on its way.
func TestD14APieceDoesNotOutlastItsUpload(t *testing.T) {
	w := newWorld(t, pushable)
	at := w.upload()
	w.clock.pass(24*time.Hour - 50*time.Millisecond)
	body, writer := io.Pipe()
	ended := make(chan answer, 1)
	go func() { ended <- w.send("PATCH", at, body) }()
	if _, err := writer.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	select {
	case a := <-ended:
		if a.status != 400 {
			t.Errorf("%d %s", a.status, a.body)
		}
	case <-time.After(20 * time.Second):
		writer.Close()
		t.Errorf("it goes on: %d", (<-ended).status)
	}
	writer.Close()
}
