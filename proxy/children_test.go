package proxy_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/e2e/lying"
	"vidimus/policy"
)

func byDigest(repository string, content lying.Content) string {
	return manifestPath(repository, content.Digest().String())
}

func TestB12ChildrenOfASignedIndex(t *testing.T) {
	for kind, make := range map[string]func(...lying.Content) lying.Content{"OCI's": lying.Index, "docker's": lying.DockerList} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t, onDisk)
			amd, arm := lying.ImageFor("web", "amd64"), lying.ImageFor("web", "arm64")
			index := make(amd, arm)
			w.up.PushSigned("acme/web", index, w.key, "v1")
			refused(t, w.get(byDigest(web, amd)), 403, "DENIED", "unsigned") // nobody knows of the index
			served(t, w.get(manifestPath(web, "v1")), index)
			served(t, w.get(byDigest(web, amd)), amd)
			servedBlob(t, w.get(blobPath(web, lying.Digest(amd.Blobs[1]))), amd.Blobs[1])
			refused(t, w.get(blobPath(web, lying.Digest(arm.Blobs[0]))), 404, "BLOB_UNKNOWN", "")

			w.restart()
			w.up.Forget()
			served(t, w.get(byDigest(web, arm)), arm)
			asked(t, w.up, // cold child, the index comes from the store, its signature is sought anew
				"GET /v2/acme/web/manifests/"+arm.Digest().String(),
				"GET /v2/acme/web/manifests/"+tag(index.Digest()))
			servedBlob(t, w.get(blobPath(web, lying.Digest(arm.Blobs[1]))), arm.Blobs[1])
			records := w.records.list()
			last := records[len(records)-1]
			if last.Via != index.Digest().String() || last.Digest != arm.Digest().String() || last.Decision != "allowed" {
				t.Errorf("the child's record: %+v", last)
			}
		})
	}
}

func TestATagMovedToAChildOfASignedIndex(t *testing.T) {
	w := newWorld(t)
	amd, arm := lying.ImageFor("web", "amd64"), lying.ImageFor("web", "arm64")
	index := lying.Index(amd, arm)
	w.up.PushSigned("acme/web", index, w.key, "v1")
	served(t, w.get(manifestPath(web, "v1")), index)
	served(t, w.get(byDigest(web, arm)), arm)
	w.up.Tag("acme/web", "v1", arm.Digest())
	w.clock.pass(time.Minute)
	refused(t, w.get(manifestPath(web, "v1")), 403, "DENIED", "unsigned")
	served(t, w.get(byDigest(web, arm)), arm) // by digest it is the index's child as before
	refused(t, w.get(manifestPath(web, "v1")), 403, "DENIED", "unsigned")
}

func TestB11AChildSwappedUpstream(t *testing.T) {
	w := newWorld(t)
	child, evil := lying.Image("child"), lying.Image("evil")
	index := lying.Index(child)
	w.up.PushSigned("acme/web", index, w.key, "v1")
	w.up.PutManifest("acme/web", child.Digest().String(), child.MediaType, evil.Body)
	served(t, w.get(manifestPath(web, "v1")), index)
	refused(t, w.get(byDigest(web, child)), 502, "UNAVAILABLE", "upstream-mismatch")
	w.up.Push("acme/web", child)
	served(t, w.get(byDigest(web, child)), child)
}

// An index vouches for what it describes: the size and media type included.
func TestB13AnIndexThatLiesAboutItsChild(t *testing.T) {
	child := lying.Image("child")
	for name, change := range map[string]func(*v1.Descriptor){
		"the size":       func(d *v1.Descriptor) { d.Size++ },
		"the media type": func(d *v1.Descriptor) { d.MediaType = "application/vnd.oci.image.index.v1+json" },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			desc := child.Descriptor()
			change(&desc)
			index := lying.IndexOf(desc)
			w.up.Push("acme/web", child)
			w.up.PushSigned("acme/web", index, w.key, "v1")
			served(t, w.get(manifestPath(web, "v1")), index)
			refused(t, w.get(byDigest(web, child)), 403, "DENIED", "unsigned")
		})
	}
}

func TestB13Depth(t *testing.T) {
	for depth, status := range map[int]int{1: 200, 2: 200, 3: 200, 4: 403, 5: 403} {
		t.Run(fmt.Sprint(depth, " indexes"), func(t *testing.T) {
			w := newWorld(t)
			child := lying.Image("child")
			chain := []lying.Content{child}
			for range depth {
				chain = append(chain, lying.Index(chain[len(chain)-1]))
			}
			top := chain[len(chain)-1]
			w.up.PushSigned("acme/web", top, w.key, "v1")
			served(t, w.get(manifestPath(web, "v1")), top)
			for i := len(chain) - 2; i > 0; i-- {
				a := w.get(byDigest(web, chain[i]))
				if above := len(chain) - 1 - i; above <= 3 && a.status != 200 || above > 3 && a.status != 403 {
					t.Errorf("%d indexes above: status %d", above, a.status)
				}
			}
			if a := w.get(byDigest(web, child)); a.status != status {
				t.Errorf("status %d\n%s", a.status, a.body)
			}
		})
	}
}

func TestB13Breadth(t *testing.T) {
	child := lying.Image("child")
	for n, status := range map[int]int{1000: 200, 1001: 403} {
		t.Run(fmt.Sprint(n, " children"), func(t *testing.T) {
			w := newWorld(t)
			descriptors := []v1.Descriptor{child.Descriptor()}
			for i := 1; i < n; i++ {
				desc := child.Descriptor()
				desc.Digest = lying.Digest(fmt.Append(nil, i))
				descriptors = append(descriptors, desc)
			}
			index := lying.IndexOf(descriptors...)
			w.up.Push("acme/web", child)
			w.up.PushSigned("acme/web", index, w.key, "v1")
			served(t, w.get(manifestPath(web, "v1")), index)
			if a := w.get(byDigest(web, child)); a.status != status {
				t.Errorf("status %d\n%s", a.status, a.body)
			}
		})
	}
}

// The way up through indexes is bounded, whatever they list.
func TestB13TheWayUpIsBounded(t *testing.T) {
	w := newWorld(t, enforcing(policy.Warn))
	child := lying.Image("child")
	level := []lying.Content{child}
	for range 3 {
		var above []lying.Content
		for i := range 20 {
			padding := lying.ImageFor(fmt.Sprint(len(level), " ", i), "arm64")
			index := lying.Index(append([]lying.Content{padding}, level...)...)
			w.up.Push("acme/web", index)
			if a := w.get(byDigest(web, index)); a.status != http.StatusOK {
				t.Fatalf("status %d", a.status)
			}
			above = append(above, index)
		}
		level = above
	}
	w.use("enforcing", func(s *settings) { s.ceiling = policy.Enforce })
	w.up.Forget()
	before := len(w.records.list())
	refused(t, w.get(byDigest(web, child)), 403, "DENIED", "unsigned")
	// 60 indexes lie above it, on 8,000 ways
	if n := len(w.records.list()) - before; n > 40 {
		t.Errorf("%d decisions", n)
	}
	if n := len(w.up.Log()); n > 160 {
		t.Errorf("%d requests upstream", n)
	}
}

func TestB14ChildrenOfElsewhere(t *testing.T) {
	w := newWorld(t)
	child := lying.Image("child")
	index := lying.Index(child)
	w.up.PushSigned("acme/web", index, w.key, "v1")
	served(t, w.get(manifestPath(web, "v1")), index)
	served(t, w.get(byDigest(web, child)), child)
	layer := lying.Digest(child.Blobs[1])
	servedBlob(t, w.get(blobPath(web, layer)), child.Blobs[1])
	for name, repository := range map[string]string{
		"another repository of the upstream": "ghcr.io/acme/other", "another upstream": "docker.io/acme/web",
	} {
		t.Run("a digest asked for in "+name, func(t *testing.T) {
			for _, reference := range []string{child.Digest().String(), index.Digest().String(), "v1", tag(index.Digest())} {
				refused(t, w.get(manifestPath(repository, reference)), 404, "MANIFEST_UNKNOWN", "")
			}
			refused(t, w.get(blobPath(repository, layer)), 404, "BLOB_UNKNOWN", "")
			registry := w.up
			if repository == "docker.io/acme/web" {
				registry = w.hub
			}
			name := repository[len(repository)-len("acme/other"):]
			if registry == w.hub {
				name = "acme/web"
			}
			registry.Push(name, child) // there, but listed by no index there
			refused(t, w.get(byDigest(repository, child)), 403, "DENIED", "unsigned")
			refused(t, w.get(blobPath(repository, layer)), 404, "BLOB_UNKNOWN", "")
		})
	}
}

func TestChildrenFollowTheirIndex(t *testing.T) {
	child := lying.Image("child")
	index := lying.Index(child)
	begin := func(t *testing.T) *world {
		w := newWorld(t)
		w.up.PushSigned("acme/web", index, w.key, "v1")
		served(t, w.get(manifestPath(web, "v1")), index)
		served(t, w.get(byDigest(web, child)), child)
		return w
	}
	none := `"` + child.Digest().String() + `"`
	t.Run("its index is revoked", func(t *testing.T) {
		w := begin(t)
		w.use("two", func(s *settings) { s.revoked = []v1.Hash{index.Digest()} })
		refused(t, w.get(byDigest(web, index)), 403, "DENIED", "revoked")
		refused(t, w.get(byDigest(web, child), "If-None-Match", none), 403, "DENIED", "unsigned")
		refused(t, w.get(blobPath(web, lying.Digest(child.Blobs[1]))), 404, "BLOB_UNKNOWN", "")
	})
	t.Run("it is revoked itself", func(t *testing.T) {
		w := begin(t)
		w.use("two", func(s *settings) { s.revoked = []v1.Hash{child.Digest()} })
		served(t, w.get(byDigest(web, index)), index)
		refused(t, w.get(byDigest(web, child), "If-None-Match", none), 403, "DENIED", "revoked")
		refused(t, w.get(blobPath(web, lying.Digest(child.Blobs[1]))), 404, "BLOB_UNKNOWN", "")
	})
	t.Run("the key of its index is gone", func(t *testing.T) {
		w := begin(t)
		w.use("two", func(s *settings) { s.authorities[0] = authority(t, "release", w.foreign) })
		refused(t, w.get(byDigest(web, child), "If-None-Match", none), 403, "DENIED", "unsigned")
	})
	t.Run("its index cannot be read", func(t *testing.T) {
		w := newWorld(t, onDisk)
		w.up.PushSigned("acme/web", index, w.key, "v1")
		served(t, w.get(manifestPath(web, "v1")), index)
		served(t, w.get(byDigest(web, child)), child)
		w.stop()
		rewrite(t, w.settings.directory, index.Body, func([]byte) []byte { return nil })
		w.start()
		w.up.Lie(lying.Manifest("acme/web", index.Digest().String()), lying.Status(500))
		a := w.get(byDigest(web, child))
		refused(t, a, 503, "UNAVAILABLE", "inconclusive")
		records := w.records.list()
		if last := records[len(records)-1]; last.ID != fault(t, a).Errors[0].Detail.ID || last.Decision != "inconclusive" {
			t.Errorf("record %+v", last)
		}
		w.up.BeHonest()
		served(t, w.get(byDigest(web, child)), child)
	})
	t.Run("it has a signature of its own", func(t *testing.T) {
		w := newWorld(t)
		w.up.Push("acme/web", lying.Index(child), "v1")
		w.up.Sign("acme/web", child.Digest(), w.key)
		refused(t, w.get(manifestPath(web, "v1")), 403, "DENIED", "unsigned")
		served(t, w.get(byDigest(web, child)), child)
		w.up.Tag("acme/web", "amd64", child.Digest())
		served(t, w.get(manifestPath(web, "amd64")), child)
	})
}

func TestB23AMissingChild(t *testing.T) {
	w := newWorld(t)
	child := lying.Image("child")
	index := lying.Index(child)
	w.up.PushSigned("acme/web", index, w.key, "v1")
	w.up.Delete("acme/web", child.Digest())
	served(t, w.get(manifestPath(web, "v1")), index)
	refused(t, w.get(byDigest(web, child)), 404, "MANIFEST_UNKNOWN", "")
}
