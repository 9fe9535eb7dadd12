package proxy_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vidimus/e2e/lying"
)

// A transfer that breaks goes on where it broke, on the condition that the blob
// is the same; whatever the upstream makes of that, the bytes are hashed.
func TestABrokenTransferGoesOn(t *testing.T) {
	layer := noiseBytes(12, 300<<10)
	image := imageOf(layer)
	digest := lying.Digest(layer)
	etag := `"` + digest.String() + `"`
	const at = 100 << 10
	cdn := lying.Start(t)
	cdn.Push("acme/web", image)
	cdn.Lie(lying.Blob("", digest), lying.Header("Etag", `"cdn"`))
	blob := lying.Blob("acme/web", digest)
	for _, test := range []struct {
		name string
		lie  func(up *lying.Registry)
		want []string // Range and If-Range of the upstream's requests
	}{
		{"where it broke", func(*lying.Registry) {}, []string{" ", "bytes=102400- " + etag}},
		{"after it broke twice", func(up *lying.Registry) { up.Lie(blob.Nth(2), lying.Break(50<<10)) }, []string{" ", "bytes=102400- " + etag, "bytes=153600- " + etag}},
		{"from the beginning when the entity tag is another", func(up *lying.Registry) { up.Lie(blob.From(2), lying.Header("Etag", `"new"`)) }, []string{" ", "bytes=102400- " + etag}},
		{"from the beginning when there are no ranges", func(up *lying.Registry) { up.Lie(blob.From(2), lying.IgnoreRange()) }, []string{" ", "bytes=102400- " + etag}},
		{"without a condition when the entity tag is weak", func(up *lying.Registry) { up.Lie(blob, lying.Header("Etag", "W/"+etag)) }, []string{" ", "bytes=102400- "}},
		{"at another host, which does not know the entity tag", func(up *lying.Registry) {
			up.Lie(blob.From(2), lying.Redirect(307, cdn.URL+"/v2/acme/web/blobs/"+digest.String()))
		}, []string{" ", "bytes=102400- " + etag}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.up.PushSigned("acme/web", image, w.key, "v1")
			served(t, w.get(manifestPath(web, "v1")), image)
			w.up.Forget()
			cdn.Forget()
			w.up.Lie(blob.Nth(1), lying.Break(at))
			test.lie(w.up)
			servedBlob(t, w.get(blobPath(web, digest)), layer)
			var got []string
			for _, q := range w.up.Requests(lying.Blob("acme/web", digest)) {
				got = append(got, q.Header.Get("Range")+" "+q.Header.Get("If-Range"))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			elsewhere := cdn.Requests()
			if (len(elsewhere) == 1) != strings.Contains(test.name, "another host") {
				t.Errorf("the other host was asked %d times", len(elsewhere))
			}
			for _, q := range elsewhere {
				if q.Header.Get("Range") != "bytes=102400-" || q.Header.Get("If-Range") != "" {
					t.Errorf("the other host was asked %v", q.Header)
				}
			}
		})
	}
	t.Run("with other bytes never ends", func(t *testing.T) {
		w := newWorld(t)
		w.up.PushSigned("acme/web", image, w.key, "v1")
		served(t, w.get(manifestPath(web, "v1")), image)
		w.up.Lie(blob.Nth(1), lying.Break(at))
		w.up.Lie(blob.From(2), lying.FlipByte(-1))
		neverWhole(t, w.get(blobPath(web, digest)))
	})
}
