package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"vidimus/policy"
	"vidimus/proxy/access"
)

// closed lets nobody in, and notes what it was asked.
type closed struct {
	caller access.Caller
	err    error
	some   bool
	asked  []string
}

func (c *closed) Identify(*http.Request) (access.Caller, error) { return c.caller, c.err }
func (c *closed) AllowsSome(access.Caller) bool                 { return c.some }
func (c *closed) Allows(_ access.Caller, repository string, action access.Action) bool {
	c.asked = append(c.asked, repository+" "+string(action))
	return false
}

// untouched are parts that no refusal may reach: their methods panic.
type untouched struct {
	Store
	Index
	Recorder
	Upstream
}

type silentGate struct{ Gate }

func (silentGate) Scope(string) policy.Scope { return policy.Scope{} }

func behind(t *testing.T, door Access) *Proxy {
	t.Helper()
	parts := &untouched{}
	p, err := New(Config{Store: parts, Index: parts, Recorder: parts}, &Revision{
		Upstreams: map[string]Registered{"docker.io": {Upstream: parts}}, DefaultUpstream: "docker.io", Gate: silentGate{}, Access: door,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// samples are paths of every endpoint there is.
func samples(t *testing.T) map[endpoint][]string {
	t.Helper()
	digest := "sha256:" + strings.Repeat("0a", 32)
	all := map[endpoint][]string{
		endpointUnknown:   {"/v2/x", "/v2/alpine/other/x", "/v2/a%2fb/tags/list"},
		endpointBase:      {"/v2", "/v2/"},
		endpointCatalog:   {"/v2/_catalog"},
		endpointManifest:  {"/v2/alpine/manifests/v1", "/v2/alpine/manifests/" + digest, "/v2/alpine/manifests/sha256-" + strings.Repeat("0a", 32) + ".sig"},
		endpointBlob:      {"/v2/alpine/blobs/" + digest},
		endpointUpload:    {"/v2/alpine/blobs/uploads/", "/v2/alpine/blobs/uploads", "/v2/alpine/blobs/uploads/session", "/v2/alpine/blobs/uploads/?mount=" + digest + "&from=library/other"},
		endpointTags:      {"/v2/alpine/tags/list"},
		endpointReferrers: {"/v2/alpine/referrers/" + digest},
	}
	for e := range endpointNames {
		if endpoint(e) == endpointHook {
			continue // it asks for a token of its own, whoever its caller is: hooks_test.go
		}
		if len(all[endpoint(e)]) == 0 {
			t.Fatalf("endpoint %s has no sample: what asks who may use it?", endpoint(e))
		}
	}
	return all
}

var everyMethod = []string{
	http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPost, http.MethodPatch, http.MethodDelete,
	http.MethodOptions, http.MethodTrace, http.MethodConnect, "PROPFIND", "get",
}

// TestNoRouteWithoutACheck walks every endpoint with every method: who may do
// nothing learns nothing, who may do nothing in a repository is refused there by
// its canonical name, and neither reaches an upstream, the store, the index or the
// record.
func TestNoRouteWithoutACheck(t *testing.T) {
	user := access.Caller{Kind: access.User, Name: "eve"}
	for e, paths := range samples(t) {
		for _, path := range paths {
			for _, method := range everyMethod {
				for _, c := range []struct {
					door   closed
					status int
				}{
					{closed{}, http.StatusUnauthorized},
					{closed{caller: user}, http.StatusForbidden},
					{closed{err: access.ErrCredentials, some: true}, http.StatusUnauthorized},
					{closed{err: access.ErrBusy, some: true}, http.StatusTooManyRequests},
					{closed{err: errors.New("broken"), some: true}, http.StatusServiceUnavailable},
					{closed{err: context.Canceled, some: true}, http.StatusServiceUnavailable},
				} {
					door := c.door
					w := httptest.NewRecorder()
					behind(t, &door).ServeHTTP(w, &http.Request{Method: method, URL: mustParse(t, path), RequestURI: path, Host: "vidimus", Header: http.Header{}})
					if w.Code != c.status || (w.Header().Get("WWW-Authenticate") != "") != (c.status == http.StatusUnauthorized) {
						t.Errorf("%s %s, %+v: %d %v, want %d", method, path, c.door, w.Code, w.Header(), c.status)
					}
				}
				if e == endpointUnknown || e == endpointBase || e == endpointCatalog {
					continue
				}
				for _, caller := range []access.Caller{{}, user} {
					door := closed{caller: caller, some: true}
					w := httptest.NewRecorder()
					behind(t, &door).ServeHTTP(w, &http.Request{Method: method, URL: mustParse(t, path), RequestURI: path, Host: "vidimus", Header: http.Header{}})
					want := http.StatusForbidden
					if caller.Kind == access.Anonymous {
						want = http.StatusUnauthorized
					}
					if w.Code != want || len(door.asked) == 0 {
						t.Errorf("%s %s by %s: %d after %q", method, path, caller, w.Code, door.asked)
					}
					for _, asked := range door.asked {
						if !strings.HasPrefix(asked, "docker.io/library/alpine ") {
							t.Errorf("%s %s asks about %q", method, path, asked)
						}
					}
				}
			}
		}
	}
}

// TestTheRightsOfEachRoute fixes which rights let a request through.
func TestTheRightsOfEachRoute(t *testing.T) {
	for _, c := range []struct {
		endpoint      endpoint
		methods, want string
	}{
		{endpointManifest, "GET", "pull sign inspect"},
		{endpointManifest, "HEAD", "pull sign inspect push"},
		{endpointManifest, "PUT POST PATCH", "push sign"},
		{endpointManifest, "DELETE", "delete"},
		{endpointBlob, "GET", "pull sign inspect"},
		{endpointBlob, "HEAD", "pull sign inspect push"},
		{endpointBlob, "DELETE", "delete"},
		{endpointUpload, "GET HEAD POST PATCH PUT DELETE", "push sign"},
		{endpointTags, "GET HEAD", "pull inspect"},
		{endpointReferrers, "GET HEAD", "pull sign inspect"},
	} {
		for _, method := range strings.Fields(c.methods) {
			if got := strings.Trim(fmt.Sprint(route{endpoint: c.endpoint}.rights(method)), "[]"); got != c.want {
				t.Errorf("%s %s: %s, want %s", method, c.endpoint, got, c.want)
			}
		}
	}
}

func TestWhatAnybodyMayDoWhereNobodyIsKnown(t *testing.T) {
	q := &request{live: &live{Revision: &Revision{}}}
	for action, want := range map[access.Action]bool{
		access.Pull: true, access.Push: true, access.Delete: true, access.Sign: false, access.Inspect: false,
	} {
		if q.may("docker.io/library/alpine", action) != want {
			t.Errorf("%s: %v", action, !want)
		}
	}
}

func mustParse(t *testing.T, path string) *url.URL {
	t.Helper()
	u, err := url.ParseRequestURI(path)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
