package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"vidimus/signer"
)

// lie changes answers of a registry. There is a second one at target.test.
type lie struct {
	*offline
	target *offline
	host   string
	// about returns another answer to a request, nil for the true one.
	about func(req *http.Request, resp *http.Response) *http.Response
}

func (l lie) RoundTrip(req *http.Request) (*http.Response, error) {
	asked := l.offline
	if req.URL.Host == "target.test" {
		asked = l.target
	}
	resp, err := asked.RoundTrip(req)
	if err == nil && req.URL.Host == l.host {
		if other := l.about(req, resp); other != nil {
			other.Request = req
			return other, nil
		}
	}
	return resp, err
}

// answer is one with a status and a body.
func answer(status int, header http.Header, body []byte) *http.Response {
	if header == nil {
		header = http.Header{}
	}
	return &http.Response{
		StatusCode: status, Status: fmt.Sprint(status), Header: header, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}
}

// TestACopyFromARegistryThatLies changes the bytes of one digest after another of an
// index with a signature; the target is never tagged.
func TestACopyFromARegistryThatLies(t *testing.T) {
	isolate(t)
	var reached int
	for _, change := range []struct {
		name string
		to   func(body []byte) []byte
	}{
		{"other", func(body []byte) []byte { return append(bytes.Clone(body[:len(body)-1]), body[len(body)-1]^1) }},
		{"cut off", func(body []byte) []byte { return body[:len(body)-1] }},
		{"none", func([]byte) []byte { return nil }},
	} {
		t.Run(change.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOffline()
				digests := o.index(t, "source.test/acme/web:v1", 2)
				f := new(signFlags)
				f.base = o
				f.recursive = true
				if _, err := f.signAs(t, generateKey(t), "source.test/acme/web:v1", nil); err != nil {
					t.Fatal(err)
				}
				for _, digest := range append(digests, blobsOf(t, o, digests)...) {
					c, target := new(copyFlags), newOffline()
					c.base = lie{o, target, "source.test", func(req *http.Request, resp *http.Response) *http.Response {
						if req.Method != http.MethodGet || !strings.HasSuffix(req.URL.Path, digest.String()) || strings.Contains(req.URL.Path, "/referrers/") {
							return nil
						}
						body, err := io.ReadAll(resp.Body)
						if err != nil {
							t.Error(err)
						}
						reached++
						return answer(resp.StatusCode, resp.Header, change.to(body))
					}}
					var out output
					code, err := out.execute(t.Context(), c.command(), nil, "source.test/acme/web@"+digests[0].String(), "target.test/acme/web:v1")
					if code == exitHolds || err == nil {
						t.Errorf("%s: copied\n%s", digest, out.stderr.String())
					}
					if _, err := remote.Get(ref(t, "target.test/acme/web:v1"), remote.WithTransport(target)); err == nil {
						t.Errorf("%s: the target is tagged", digest)
					}
				}
			})
		})
	}
	if reached < 20 {
		t.Errorf("%d lies were told", reached)
	}
}

// blobsOf returns the digests of all blobs of images and their signatures.
func blobsOf(t *testing.T, o *offline, digests []v1.Hash) []v1.Hash {
	t.Helper()
	var blobs []v1.Hash
	add := func(reference string) {
		image, err := remote.Image(ref(t, reference), remote.WithTransport(o))
		if err != nil {
			t.Fatal(err)
		}
		manifest, err := image.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		blobs = append(blobs, manifest.Config.Digest, manifest.Layers[0].Digest)
	}
	for i, digest := range digests {
		if i > 0 {
			add("source.test/acme/web@" + digest.String())
		}
		add("source.test/acme/web:" + signer.Tag(digest))
	}
	return blobs
}

// A list may not send its reader elsewhere, nor answer without end; and where a
// registry does not tell, nothing is taken for absent.
func TestARepositoryIsReadFromItsRegistryAlone(t *testing.T) {
	isolate(t)
	page := func(link string) *http.Response {
		return answer(200, http.Header{"Link": {link}, "Content-Type": {"application/vnd.oci.image.index.v1+json"}}, []byte(`{"schemaVersion":2,"manifests":[],"tags":["v1"]}`))
	}
	for name, row := range map[string]struct {
		link, want string
	}{
		"elsewhere":     {`<https://other.test/v2/acme/web/tags/list?last=x>; rel="next"`, "the next page of a list is said to be at"},
		"without TLS":   {`<http://source.test/v2/acme/web/tags/list?last=x>; rel="next"`, "the next page of a list is said to be at"},
		"for ever":      {`</v2/acme/web/tags/list?last=x>; rel="next"`, "a list of more than 1000 pages"},
		"unquoted, too": {`</v2/acme/web/tags/list?last=x>; rel=next`, "a list of more than 1000 pages"},
	} {
		t.Run(name, func(t *testing.T) {
			f := new(imageFlags)
			f.base = lie{newOffline(), nil, "source.test", func(req *http.Request, _ *http.Response) *http.Response {
				if strings.Contains(req.URL.Path, "/tags/list") || strings.Contains(req.URL.Path, "/referrers/") {
					return page(row.link)
				}
				return nil
			}}
			repo, err := f.repository(t.Context(), ref(t, "source.test/acme/web:v1").Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := repo.Tags(t.Context()); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want %q", err, row.want)
			}
			if _, err := repo.Referrers(t.Context(), sha256Of(nil)); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want %q", err, row.want)
			}
		})
	}
}

// Where only manifests can be deleted, the tag of a signature on an image does not
// make clean delete the image.
func TestCleanDeletesNoImage(t *testing.T) {
	isolate(t)
	o := newOffline()
	digest := o.image(t, "source.test/acme/web:v1")
	victim := o.image(t, "source.test/acme/web:victim")
	image, err := remote.Get(ref(t, "source.test/acme/web:victim"), remote.WithTransport(o))
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range []string{signer.Tag(digest), strings.TrimSuffix(signer.Tag(digest), "sig") + "att"} {
		if err := remote.Tag(ref(t, "source.test/acme/web:x").Context().Tag(tag), image, remote.WithTransport(o)); err != nil {
			t.Fatal(err)
		}
	}
	var out output
	f := new(cleanFlags)
	f.base = lie{o, nil, "source.test", func(req *http.Request, _ *http.Response) *http.Response {
		if req.Method == http.MethodDelete && !strings.Contains(req.URL.Path, "sha256:") {
			return answer(http.StatusBadRequest, nil, []byte(`{"errors":[{"code":"UNSUPPORTED"}]}`))
		}
		return nil
	}}
	code, err := out.execute(t.Context(), f.command(), nil, "-f", "source.test/acme/web:v1")
	if code != exitUnknown || !strings.Contains(out.stderr.String(), "is no evidence: it is not deleted by its digest") {
		t.Errorf("exit %d, %v\n%s", code, err, out.stderr.String())
	}
	if _, err := remote.Get(ref(t, "source.test/acme/web@"+victim.String()), remote.WithTransport(o)); err != nil {
		t.Errorf("the image is gone: %v", err)
	}
}

// A referrer that is deleted is taken off the list under the fallback tag, and the
// others stay on it as they were.
func TestCleanTakesReferrersOffTheirList(t *testing.T) {
	list := []byte(`{"schemaVersion": 2, "manifests": [{"digest":"sha256:a", "x": 1},{"digest":"sha256:b"}], "annotations":{"k":"v"}}`)
	changed, left, err := without(list, "sha256:b")
	if want := `{"schemaVersion": 2, "manifests": [{"digest":"sha256:a", "x": 1}], "annotations":{"k":"v"}}`; err != nil || left != 1 || string(changed) != want {
		t.Errorf("%s, %d left, %v", changed, left, err)
	}
	if changed, left, err = without(changed, "sha256:a"); err != nil || left != 0 || !strings.Contains(string(changed), `"manifests": []`) {
		t.Errorf("%s, %d left, %v", changed, left, err)
	}
	for _, other := range []string{`{"manifests":[]}`, `{"layers":[]}`} {
		if changed, _, err := without([]byte(other), "sha256:a"); changed != nil || err != nil {
			t.Errorf("%s became %s, %v", other, changed, err)
		}
	}
	if _, _, err := without([]byte(`{"manifests":[],"manifests":[]}`), "sha256:a"); err == nil {
		t.Error("a list that can be read in two ways is rewritten")
	}
}

// A passing failure while a blob is sent is got over, from its beginning.
func TestACopyGetsOverAPassingFailure(t *testing.T) {
	isolate(t)
	synctest.Test(t, func(t *testing.T) {
		o, target := newOffline(), newOffline()
		digest := o.image(t, "source.test/acme/web:v1")
		var failed atomic.Bool // blobs go several at once
		c := new(copyFlags)
		c.base = lie{o, target, "target.test", func(req *http.Request, _ *http.Response) *http.Response {
			if req.Method == http.MethodPut && strings.Contains(req.URL.Path, "/blobs/uploads/") && failed.CompareAndSwap(false, true) {
				return answer(http.StatusServiceUnavailable, nil, nil)
			}
			return nil
		}}
		var out output
		code, err := out.execute(t.Context(), c.command(), nil, "source.test/acme/web:v1", "target.test/acme/web:v1")
		if code != exitHolds || !failed.Load() {
			t.Errorf("exit %d, %v", code, err)
		}
		if _, err := remote.Get(ref(t, "target.test/acme/web@"+digest.String()), remote.WithTransport(target)); err != nil {
			t.Error(err)
		}
	})
}
