package proxy_test

import (
	"bytes"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/e2e/lying"
)

// noiseBytes are bytes that nothing compresses, the same for each seed.
func noiseBytes(seed uint64, n int) []byte {
	source := rand.NewChaCha8([32]byte{byte(seed)})
	b := make([]byte, n)
	source.Read(b)
	return b
}

// imageOf is an image of one layer.
func imageOf(layer []byte) lying.Content {
	return lying.ImageManifest{
		Config: lying.Layer{MediaType: types.OCIConfigJSON, Data: []byte(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}`)},
		Layers: []lying.Layer{{MediaType: types.OCILayer, Data: layer}},
	}.Build()
}

var blobSizes = map[string]int{"of 1 byte": 1, "of 1 KiB": 1 << 10, "of 64 KiB and a byte": 64<<10 + 1, "of 1.3 MiB": 1300 << 10}

var places = map[string]func(*world, *settings){"in memory": func(*world, *settings) {}, "on disk": onDisk}

func TestB3B4BlobsOfALyingUpstream(t *testing.T) {
	lies := map[string][]lying.Fault{
		"B3 the first byte is wrong":          {lying.FlipByte(0)},
		"B3 the last byte is wrong":           {lying.FlipByte(-1)},
		"B3 the last byte is wrong, chunked":  {lying.FlipByte(-1), lying.Chunked()},
		"B4 it ends early":                    {lying.Edit(func(b []byte) []byte { return b[:len(b)-1] })},
		"B4 it ends early, chunked":           {lying.Edit(func(b []byte) []byte { return b[:len(b)-1] }), lying.Chunked()},
		"B4 it breaks at once":                {lying.Break(0)},
		"B4 it goes on":                       {lying.Longer([]byte("x"))},
		"B4 it goes on, chunked":              {lying.Longer([]byte("x")), lying.Chunked()},
		"B4 a length that is too long":        {func(a *lying.Answer) { a.Length = int64(len(a.Body)) + 1 }},
		"B5 it never ends":                    {lying.Endless()},
		"B17 it is compressed":                {lying.Gzip()},
		"B17 it is called compressed":         {lying.ContentEncoding("zstd")},
		"ranges are ignored, and it breaks":   {lying.Break(0), lying.IgnoreRange()},
		"another blob":                        {lying.Body([]byte("y"))},
		"an error page of status 200":         {lying.Body([]byte("<html>")), lying.ContentType("text/html")},
		"it is gone":                          {lying.NotFound()},
		"the size of the manifest, then more": {lying.Edit(func(b []byte) []byte { return append(bytes.Clone(b), b...) })},
	}
	for place, where := range places {
		for size, n := range blobSizes {
			for name, faults := range lies {
				if strings.HasSuffix(name, "compressed") && n > 64<<10 || place == "on disk" && n <= 64<<10 {
					continue // for the test's time
				}
				t.Run(name+" "+size+" "+place, func(t *testing.T) {
					t.Parallel()
					w := newWorld(t, where)
					layer := noiseBytes(1, n)
					image := imageOf(layer)
					w.up.PushSigned("acme/web", image, w.key, "v1")
					served(t, w.get(manifestPath(web, "v1")), image)
					w.up.Lie(lying.Blob("acme/web", lying.Digest(layer)), faults...)
					path := blobPath(web, lying.Digest(layer))
					for _, headers := range [][]string{nil, {"Range", "bytes=0-0"}, {"Range", "bytes=-1"}} {
						a := w.get(path, headers...)
						neverWhole(t, a)
						if a.broken == nil && a.status < 500 && a.status != 404 {
							t.Errorf("status %d\n%s", a.status, a.body)
						}
						if n <= 64<<10 && a.broken == nil && a.status == 502 {
							refused(t, a, 502, "UNAVAILABLE", "upstream-mismatch")
						}
					}
					w.up.BeHonest()
					servedBlob(t, w.get(path), layer)
					w.up.Lie(lying.Any(), faults...)
					servedBlob(t, w.get(path), layer) // warm: nobody is asked
				})
			}
		}
	}
}

// A transfer that breaks is taken up again; whoever lies in the second part is
// found out as well.
func TestB4ABrokenTransferIsResumed(t *testing.T) {
	layer := noiseBytes(2, 1300<<10)
	for name, test := range map[string]struct {
		second []lying.Fault
		whole  bool
	}{
		"honestly":                 {nil, true},
		"without ranges":           {[]lying.Fault{lying.IgnoreRange()}, true},
		"with a wrong last byte":   {[]lying.Fault{lying.FlipByte(-1)}, false},
		"with another first byte":  {[]lying.Fault{lying.FlipByte(0), lying.IgnoreRange()}, true}, // what was had is not read again
		"with another middle byte": {[]lying.Fault{lying.FlipByte(700 << 10)}, false},
		"with bytes too many":      {[]lying.Fault{lying.Longer([]byte("x"))}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			image := imageOf(layer)
			w.up.PushSigned("acme/web", image, w.key, "v1")
			served(t, w.get(manifestPath(web, "v1")), image)
			blob := lying.Blob("acme/web", lying.Digest(layer))
			w.up.Lie(blob.First(1), lying.Break(300<<10))
			w.up.Lie(blob.From(2), test.second...)
			a := w.get(blobPath(web, lying.Digest(layer)))
			if test.whole {
				servedBlob(t, a, layer)
			} else {
				neverWhole(t, a)
			}
		})
	}
}

// Content that rots on disk is never served whole, and heals by itself.
func TestB3ContentThatRotsOnDisk(t *testing.T) {
	for size, n := range blobSizes {
		for name, rot := range map[string]func([]byte) []byte{
			"flipped at its end":   func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
			"flipped at its begin": func(b []byte) []byte { b[0] ^= 1; return b },
			"cut":                  func(b []byte) []byte { return b[:len(b)-1] },
			"longer":               func(b []byte) []byte { return append(b, 'x') },
			"empty":                func([]byte) []byte { return nil },
		} {
			t.Run("a blob "+size+" "+name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, onDisk)
				layer := noiseBytes(3, n)
				image := imageOf(layer)
				w.up.PushSigned("acme/web", image, w.key, "v1")
				served(t, w.get(manifestPath(web, "v1")), image)
				path := blobPath(web, lying.Digest(layer))
				servedBlob(t, w.get(path), layer)
				w.stop()
				rewrite(t, w.settings.directory, layer, rot)
				w.start()
				if a := w.get(path); a.whole() && !bytes.Equal(a.body, layer) {
					t.Fatalf("rotten content was served whole: %d bytes", len(a.body))
				}
				servedBlob(t, w.get(path), layer)
			})
		}
	}
	t.Run("a manifest flipped", func(t *testing.T) {
		w := newWorld(t, onDisk)
		image := lying.Image("web")
		w.up.PushSigned("acme/web", image, w.key, "v1")
		path := manifestPath(web, image.Digest().String())
		served(t, w.get(path), image)
		w.stop()
		rewrite(t, w.settings.directory, image.Body, func(b []byte) []byte { b[20] ^= 1; return b })
		w.start()
		served(t, w.get(path), image)
	})
}

// rewrite changes each file below dir that holds exactly content.
func rewrite(t *testing.T, dir string, content []byte, change func([]byte) []byte) {
	t.Helper()
	changed := 0
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(data, content) {
			return err
		}
		changed++
		if err := os.Chmod(path, 0o600); err != nil {
			return err
		}
		return os.WriteFile(path, change(data), 0o600)
	})
	if err != nil || changed == 0 {
		t.Fatalf("changed %d files: %v", changed, err)
	}
}

func TestB15BlobsWithoutAnAllowedManifest(t *testing.T) {
	w := newWorld(t)
	signed, unsigned, other := lying.Image("signed"), lying.Image("unsigned"), lying.Image("other")
	w.up.PushSigned("acme/web", signed, w.key, "v1")
	w.up.Push("acme/web", unsigned, "v2")
	w.up.PushSigned("acme/other", other, w.key, "v1")
	layer := func(c lying.Content) v1.Hash { return lying.Digest(c.Blobs[1]) }
	gone := func(name, path string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			refused(t, w.get(path), 404, "BLOB_UNKNOWN", "")
			if a := w.head(path); a.status != 404 {
				t.Errorf("HEAD: %d", a.status)
			}
			refused(t, w.get(path, "Range", "bytes=0-0"), 404, "BLOB_UNKNOWN", "")
			refused(t, w.get(path, "If-None-Match", "*"), 404, "BLOB_UNKNOWN", "")
		})
	}
	gone("before its manifest", blobPath(web, layer(signed)))
	served(t, w.get(manifestPath(web, "v1")), signed)
	servedBlob(t, w.get(blobPath(web, layer(signed))), signed.Blobs[1])
	refused(t, w.get(manifestPath(web, "v2")), 403, "DENIED", "unsigned")
	gone("of an unsigned image", blobPath(web, layer(unsigned)))
	served(t, w.get(manifestPath("ghcr.io/acme/other", "v1")), other)
	gone("of another repository", blobPath(web, layer(other)))
	gone("of another repository's, though upstream holds it here", func() string {
		w.up.Push("acme/web", other)
		return blobPath(web, layer(other))
	}())
	gone("a manifest's digest", blobPath(web, signed.Digest()))
	gone("in another repository", blobPath("ghcr.io/acme/other", layer(signed)))
	gone("in a repository that does not exist", blobPath("ghcr.io/acme/none", layer(signed)))
	gone("in another upstream", blobPath("docker.io/acme/web", layer(signed)))
	gone("in a denied repository", blobPath("ghcr.io/old/web", layer(signed)))
	gone("where no policy fits", blobPath("ghcr.io/none/web", layer(signed)))
}

func TestHeadOfABlobIsWhatGetBegins(t *testing.T) {
	for place, where := range places {
		t.Run(place, func(t *testing.T) {
			w := newWorld(t, where)
			image := lying.Image("web")
			w.up.PushSigned("acme/web", image, w.key, "v1")
			served(t, w.get(manifestPath(web, "v1")), image)
			path := blobPath(web, lying.Digest(image.Blobs[1]))
			cold, get, warm := w.head(path), w.get(path), w.head(path)
			for _, a := range []answer{cold, get, warm} {
				for _, changing := range []string{"Date", "X-Request-Id"} {
					a.header.Del(changing)
					get.header.Del(changing)
				}
				if diff := cmp.Diff(get.header, a.header); diff != "" || a.status != get.status {
					t.Errorf("status %d and %d, headers (-GET +HEAD):\n%s", get.status, a.status, diff)
				}
			}
			w.up.Forget()
			w.head(path)
			asked(t, w.up)
		})
	}
}

// The digest of a child is no blob, though a signed index lists it.
func TestAnIndexLeadsToNoBlob(t *testing.T) {
	w := newWorld(t)
	child := lying.Image("child")
	index := lying.Index(child)
	w.up.PushSigned("acme/web", index, w.key, "v1")
	w.up.PutBlob("acme/web", child.Digest().String(), child.Body)
	served(t, w.get(manifestPath(web, "v1")), index)
	served(t, w.get(manifestPath(web, child.Digest().String())), child)
	refused(t, w.get(blobPath(web, child.Digest())), 404, "BLOB_UNKNOWN", "")
}

func TestB16NothingIsMounted(t *testing.T) {
	w := newWorld(t)
	image := lying.Image("web")
	w.up.PushSigned("acme/web", image, w.key, "v1")
	served(t, w.get(manifestPath(web, "v1")), image)
	w.up.Forget()
	a := w.do("POST", "/v2/ghcr.io/acme/other/blobs/uploads/?mount="+lying.Digest(image.Blobs[1]).String()+"&from=acme/web")
	refused(t, a, 405, "UNSUPPORTED", "")
	asked(t, w.up)
	if strings.Contains(string(a.body), "sha256") {
		t.Errorf("the refusal tells of the blob: %s", a.body)
	}
}
