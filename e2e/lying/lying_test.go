package lying_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"vidimus/e2e/lying"
)

func TestHonestRegistrySpeaksTheProtocol(t *testing.T) {
	up := lying.Start(t)
	ref, err := name.ParseReference(up.Host + "/acme/web:v1")
	if err != nil {
		t.Fatal(err)
	}

	t.Run("an image pushed by another's client is pulled as it was", func(t *testing.T) {
		image, err := random.Image(1000, 2)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(ref, image); err != nil {
			t.Fatal(err)
		}
		got, err := remote.Image(ref)
		if err != nil {
			t.Fatal(err)
		}
		want, _ := image.Digest()
		if digest, err := got.Digest(); err != nil || digest != want {
			t.Errorf("pulled %v, %v; want %v", digest, err, want)
		}
		layers, _ := got.Layers()
		for _, layer := range layers {
			r, err := layer.Compressed()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, r); err != nil {
				t.Errorf("layer: %v", err)
			}
		}
	})

	t.Run("a built index is pulled with its children", func(t *testing.T) {
		index := lying.Index(lying.ImageFor("multi", "amd64"), lying.ImageFor("multi", "arm64"))
		up.Push("acme/web", index, "multi")
		image, err := remote.Image(ref.Context().Tag("multi"), remote.WithPlatform(v1.Platform{OS: "linux", Architecture: "arm64"}))
		if err != nil {
			t.Fatal(err)
		}
		if digest, _ := image.Digest(); digest != index.Children[1].Digest() {
			t.Errorf("pulled %v, want %v", digest, index.Children[1].Digest())
		}
	})

	t.Run("referrers are listed, over pages too", func(t *testing.T) {
		subject := lying.Image("subject")
		up.Push("acme/web", subject)
		up.PushReferrer("acme/web", subject.Digest(), lying.Artifact("text/one", subject.Descriptor()))
		up.PushReferrer("acme/web", subject.Digest(), lying.Artifact("text/two", subject.Descriptor()))
		index, err := remote.Referrers(ref.Context().Digest(subject.Digest().String()))
		if err != nil {
			t.Fatal(err)
		}
		if manifest, _ := index.IndexManifest(); len(manifest.Manifests) != 2 {
			t.Errorf("%d referrers, want 2", len(manifest.Manifests))
		}
		up.PageSize(1)
		defer up.PageSize(0)
		answer := get(t, up.URL+"/v2/acme/web/referrers/"+subject.Digest().String())
		if !strings.Contains(answer.header.Get("Link"), `from=1>; rel="next"`) {
			t.Errorf("Link %q", answer.header.Get("Link"))
		}
	})

	t.Run("tags are listed, over pages too", func(t *testing.T) {
		up.PageSize(1)
		defer up.PageSize(0)
		tags, err := remote.List(ref.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"multi", "v1"}, tags); diff != "" {
			t.Error(diff)
		}
	})
}

func TestFallbackTagIsKeptWithoutTheReferrersAPI(t *testing.T) {
	up := lying.Start(t)
	up.WithoutReferrers()
	subject := lying.Image("subject")
	up.Push("acme/web", subject)
	up.PushReferrer("acme/web", subject.Digest(), lying.Artifact("text/one", subject.Descriptor()))
	up.PushReferrer("acme/web", subject.Digest(), lying.Artifact("text/two", subject.Descriptor()))
	digest, err := name.NewDigest(up.Host + "/acme/web@" + subject.Digest().String())
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Referrers(digest)
	if err != nil {
		t.Fatal(err)
	}
	if manifest, _ := index.IndexManifest(); len(manifest.Manifests) != 2 {
		t.Errorf("%d referrers, want 2", len(manifest.Manifests))
	}
}

func TestAccess(t *testing.T) {
	for _, test := range []struct {
		title  string
		access lying.Access
		auth   authn.Authenticator
		pulls  bool
	}{
		{"basic with the password", lying.Access{Username: "robot", Password: "secret"}, &authn.Basic{Username: "robot", Password: "secret"}, true},
		{"basic without", lying.Access{Username: "robot", Password: "secret"}, authn.Anonymous, false},
		{"bearer with the password", lying.Access{Username: "robot", Password: "secret", Bearer: true}, &authn.Basic{Username: "robot", Password: "secret"}, true},
		{"bearer without", lying.Access{Username: "robot", Password: "secret", Bearer: true}, authn.Anonymous, false},
		{"bearer for everybody", lying.Access{Bearer: true}, authn.Anonymous, true},
	} {
		t.Run(test.title, func(t *testing.T) {
			up := lying.Start(t)
			up.Push("acme/web", lying.Image("web"), "v1")
			up.Require(test.access)
			ref, err := name.ParseReference(up.Host + "/acme/web:v1")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := remote.Get(ref, remote.WithAuth(test.auth)); (err == nil) != test.pulls {
				t.Errorf("pull: %v", err)
			}
		})
	}
}

type answer struct {
	status int
	header http.Header
	body   []byte
	err    error // while reading the body
}

func get(t *testing.T, url string, headers ...string) answer {
	t.Helper()
	return do(t, "GET", url, headers...)
}

func do(t *testing.T, method, url string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, body, err}
}

func TestFaults(t *testing.T) {
	image, other := lying.Image("web"), lying.Image("other")
	layer := image.Blobs[1]
	for _, test := range []struct {
		title  string
		faults []lying.Fault
		want   func(a answer) bool
	}{
		{"none", nil, func(a answer) bool { return a.status == 200 && bytes.Equal(a.body, layer) && a.err == nil }},
		{"other bytes", []lying.Fault{lying.Body(other.Body)}, func(a answer) bool {
			return bytes.Equal(a.body, other.Body) && a.header.Get("Docker-Content-Digest") == lying.Digest(layer).String()
		}},
		{"one byte", []lying.Fault{lying.FlipByte(-1)}, func(a answer) bool {
			return len(a.body) == len(layer) && bytes.Equal(a.body[:5], layer[:5]) && !bytes.Equal(a.body, layer)
		}},
		{"truncated", []lying.Fault{lying.Truncate(5)}, func(a answer) bool { return len(a.body) == 5 && a.err == nil }},
		{"broken", []lying.Fault{lying.Break(5)}, func(a answer) bool { return len(a.body) == 5 && errors.Is(a.err, io.ErrUnexpectedEOF) }},
		{"longer", []lying.Fault{lying.Longer([]byte("x"))}, func(a answer) bool { return len(a.body) == len(layer)+1 && a.err == nil }},
		{"length too short", []lying.Fault{lying.Length(3)}, func(a answer) bool { return len(a.body) == 3 && a.err == nil }},
		{"length too long", []lying.Fault{lying.Length(1e6)}, func(a answer) bool { return errors.Is(a.err, io.ErrUnexpectedEOF) }},
		{"chunked", []lying.Fault{lying.Chunked()}, func(a answer) bool { return a.header.Get("Content-Length") == "" && bytes.Equal(a.body, layer) }},
		{"reset", []lying.Fault{lying.Reset()}, func(a answer) bool { return a.err != nil && a.status == 0 }},
		{"raw", []lying.Fault{lying.Raw("HTTP/1.1 200 OK\r\nX-Raw: yes\r\nContent-Length: 0\r\n\r\n")}, func(a answer) bool {
			return a.header.Get("X-Raw") == "yes"
		}},
		{"two digest headers", []lying.Fault{lying.DigestHeader("sha256:00", "sha512:11")}, func(a answer) bool {
			return slices.Equal(a.header.Values("Docker-Content-Digest"), []string{"sha256:00", "sha512:11"})
		}},
		{"no content type", []lying.Fault{lying.ContentType()}, func(a answer) bool {
			return a.header.Get("Content-Type") != "application/octet-stream"
		}},
		{"gzip", []lying.Fault{lying.Gzip()}, func(a answer) bool {
			return a.header.Get("Content-Encoding") == "gzip" && bytes.HasPrefix(a.body, []byte{0x1f, 0x8b})
		}},
		{"too many requests", []lying.Fault{lying.Status(429), lying.RetryAfter(7 * time.Second)}, func(a answer) bool {
			return a.status == 429 && a.header.Get("Retry-After") == "7" && bytes.Contains(a.body, []byte("TOOMANYREQUESTS"))
		}},
		{"redirect", []lying.Fault{lying.Redirect(307, "http://127.0.0.2/x")}, func(a answer) bool {
			return a.status == 307 && a.header.Get("Location") == "http://127.0.0.2/x"
		}},
		{"challenge", []lying.Fault{lying.Challenge(`Bearer realm="http://evil"`)}, func(a answer) bool {
			return a.status == 401 && a.header.Get("Www-Authenticate") == `Bearer realm="http://evil"`
		}},
		{"a fault for another status", []lying.Fault{lying.When(404, lying.Status(403))}, func(a answer) bool { return a.status == 200 }},
		{"content of something else", []lying.Fault{lying.Content200(other)}, func(a answer) bool {
			return bytes.Equal(a.body, other.Body) && a.header.Get("Docker-Content-Digest") == other.Digest().String()
		}},
	} {
		t.Run(test.title, func(t *testing.T) {
			up := lying.Start(t)
			up.Push("acme/web", image, "v1")
			up.Lie(lying.Blob("acme/web", lying.Digest(layer)).GET(), test.faults...)
			if got := get(t, up.URL+"/v2/acme/web/blobs/"+lying.Digest(layer).String()); !test.want(got) {
				t.Errorf("answer %d %v %.80q, %v", got.status, got.header, got.body, got.err)
			}
		})
	}
}

func TestMatches(t *testing.T) {
	image := lying.Image("web")
	up := lying.Start(t)
	up.Push("acme/web", image, "v1")
	tagged, digested := up.URL+"/v2/acme/web/manifests/v1", up.URL+"/v2/acme/web/manifests/"+image.Digest().String()

	t.Run("only the second GET by tag", func(t *testing.T) {
		defer up.BeHonest()
		up.Lie(lying.Manifest("acme/web", "v1").GET().Nth(2), lying.NotFound())
		var statuses []int
		for range 3 {
			statuses = append(statuses, do(t, "HEAD", tagged).status, get(t, tagged).status)
		}
		if diff := cmp.Diff([]int{200, 200, 200, 404, 200, 200}, statuses); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("by digest and not by tag, until it stops", func(t *testing.T) {
		lie := up.Lie(lying.ByDigest("acme/web"), lying.NotFound())
		statuses := []int{get(t, tagged).status, get(t, digested).status}
		lie.Stop()
		statuses = append(statuses, get(t, digested).status)
		if diff := cmp.Diff([]int{200, 404, 200}, statuses); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("what is missing is forbidden", func(t *testing.T) {
		defer up.BeHonest()
		up.Lie(lying.ByTag("acme/web"), lying.When(404, lying.Status(403)))
		statuses := []int{get(t, tagged).status, get(t, up.URL+"/v2/acme/web/manifests/v2").status}
		if diff := cmp.Diff([]int{200, 403}, statuses); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("the log tells what was asked", func(t *testing.T) {
		up.Forget()
		get(t, tagged)
		get(t, up.URL+"/v2/acme/web/blobs/"+lying.Digest(image.Blobs[0]).String())
		if diff := cmp.Diff([]string{"GET /v2/acme/web/manifests/v1"}, up.Log(lying.Manifest("", ""))); diff != "" {
			t.Error(diff)
		}
		if n := len(up.Log()); n != 2 {
			t.Errorf("%d requests in all, want 2", n)
		}
	})
}

func TestTagMovesBetweenRequests(t *testing.T) {
	first, second := lying.Image("first"), lying.Image("second")
	up := lying.Start(t)
	up.Push("acme/web", first, "v1")
	up.Push("acme/web", second)
	up.Lie(lying.Manifest("acme/web", "v1").HEAD(), lying.Before(func(context.Context) { up.Tag("acme/web", "v1", second.Digest()) }))
	url := up.URL + "/v2/acme/web/manifests/v1"
	if got := do(t, "HEAD", url).header.Get("Docker-Content-Digest"); got != first.Digest().String() {
		t.Errorf("HEAD told of %s, want the first", got)
	}
	if got := get(t, url).body; !bytes.Equal(got, second.Body) {
		t.Errorf("GET sent %.60s, want the second", got)
	}
}

func TestAnswersWaitForTheTest(t *testing.T) {
	image := lying.Image("web")
	layer := image.Blobs[1]
	path := "/v2/acme/web/blobs/" + lying.Digest(layer).String()

	t.Run("a hang ends when the test says so", func(t *testing.T) {
		up := lying.Start(t)
		up.Push("acme/web", image)
		release := make(chan struct{})
		up.Lie(lying.Any(), lying.Hang(release))
		done := make(chan answer)
		go func() { done <- get(t, up.URL+path) }()
		if _, err := up.Await(t.Context(), lying.Blob("acme/web", v1.Hash{}), 1); err != nil {
			t.Fatal(err)
		}
		select {
		case <-done:
			t.Fatal("answered before it was released")
		default:
		}
		close(release)
		if got := <-done; !bytes.Equal(got.body, layer) {
			t.Errorf("answer %.60q, %v", got.body, got.err)
		}
	})
	t.Run("a drip sends what it is told to", func(t *testing.T) {
		up := lying.Start(t)
		up.Push("acme/web", image)
		pace := make(chan int)
		up.Lie(lying.Any(), lying.Drip(pace))
		resp, err := http.Get(up.URL + path)
		if err == nil {
			defer resp.Body.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		pace <- 3
		first := make([]byte, 3)
		if _, err := io.ReadFull(resp.Body, first); err != nil || !bytes.Equal(first, layer[:3]) {
			t.Fatalf("first bytes %q, %v", first, err)
		}
		close(pace)
		if rest, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(rest, layer[3:]) {
			t.Errorf("the rest %.60q, %v", rest, err)
		}
	})
	t.Run("an endless body ends with its reader", func(t *testing.T) {
		up := lying.Start(t)
		up.Push("acme/web", image)
		left := make(chan struct{})
		up.Lie(lying.Any(), lying.Endless(), lying.Then(func() { close(left) }))
		resp, err := http.Get(up.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.CopyN(io.Discard, resp.Body, 10<<20); err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
		_ = resp.Body.Close()
		<-left
	})
}

func TestConditions(t *testing.T) {
	image := lying.Image("web")
	layer := image.Blobs[1]
	etag, layerTag := `"`+image.Digest().String()+`"`, `"`+lying.Digest(layer).String()+`"`
	manifest, blob := "/v2/acme/web/manifests/v1", "/v2/acme/web/blobs/"+lying.Digest(layer).String()
	other := lying.Image("other").Body
	for _, test := range []struct {
		name    string
		path    string
		headers []string
		fault   lying.Fault // nil: an honest answer
		status  int
		want    []byte
	}{
		{"the manifest that is held", manifest, []string{"If-None-Match", etag}, nil, 304, nil},
		{"any manifest", manifest, []string{"If-None-Match", "*"}, nil, 304, nil},
		{"another manifest", manifest, []string{"If-None-Match", layerTag}, nil, 200, image.Body},
		{"no manifest", "/v2/acme/web/manifests/v2", []string{"If-None-Match", "*"}, lying.Body(nil), 404, nil},
		{"conditions that it does not know", manifest, []string{"If-None-Match", etag}, lying.Unconditional(), 200, image.Body},
		{"other bytes under the same tag", manifest, []string{"If-None-Match", etag}, lying.Body(other), 200, other},
		{"304 unasked", manifest, nil, lying.NotModified(), 304, nil},
		{"the part of a blob that has not changed", blob, []string{"Range", "bytes=4-7", "If-Range", layerTag}, nil, 206, layer[4:8]},
		{"the part of a blob that has", blob, []string{"Range", "bytes=4-7", "If-Range", etag}, nil, 200, layer},
		{"the part of a blob with another tag now", blob, []string{"Range", "bytes=4-7", "If-Range", layerTag}, lying.Header("Etag", `"new"`), 200, layer},
	} {
		t.Run(test.name, func(t *testing.T) {
			up := lying.Start(t)
			up.Push("acme/web", image, "v1")
			if test.fault != nil {
				up.Lie(lying.Any(), test.fault)
			}
			got := get(t, up.URL+test.path, test.headers...)
			if got.status != test.status || !bytes.Equal(got.body, test.want) {
				t.Errorf("%d %q, want %d %q", got.status, got.body, test.status, test.want)
			}
			if got.status == 304 && got.header.Get("Etag") != etag {
				t.Errorf("Etag %q", got.header.Get("Etag"))
			}
		})
	}
}

func TestRanges(t *testing.T) {
	up := lying.Start(t)
	image := lying.Image("web")
	layer := image.Blobs[1]
	up.Push("acme/web", image)
	url := up.URL + "/v2/acme/web/blobs/" + lying.Digest(layer).String()
	for _, test := range []struct {
		header string
		status int
		want   []byte
	}{
		{"bytes=0-3", 206, layer[:4]},
		{"bytes=4-", 206, layer[4:]},
		{"bytes=-4", 206, layer[len(layer)-4:]},
		{"bytes=100000-", 416, nil},
		{"bytes=0-1,3-4", 200, layer},
	} {
		t.Run(test.header, func(t *testing.T) {
			got := get(t, url, "Range", test.header)
			if got.status != test.status || !bytes.Equal(got.body, test.want) {
				t.Errorf("%d %q, want %d %q", got.status, got.body, test.status, test.want)
			}
		})
	}
}
