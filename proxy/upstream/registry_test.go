package upstream

import (
	"errors"
	"io"
	"io/fs"
	"log"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// TestAgainstARegistry reads from one that somebody else has written.
func TestAgainstARegistry(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true)))
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	image, err := random.Image(100<<10, 1)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := random.Image(10, 1)
	if err != nil {
		t.Fatal(err)
	}
	digest, desc := must(image.Digest())(t), must(describe(image))(t)
	signature = mutate.Subject(signature, desc).(v1.Image)
	push := func(reference string, image v1.Image) {
		ref, err := name.ParseReference(u.Host + "/acme/web" + reference)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(ref, image); err != nil {
			t.Fatal(err)
		}
	}
	push(":v1", image)
	push(":v2", image)
	push("@"+must(signature.Digest())(t).String(), signature)

	c, err := New(Config{Name: "local", URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	for _, reference := range []string{"v1", digest.String()} {
		got, contentType, err := manifestOf(t.Context(), c, "acme/web", reference)
		if err != nil || string(got) != string(must(image.RawManifest())(t)) || contentType != string(desc.MediaType) {
			t.Errorf("manifest %s: %d bytes, %s, %v", reference, len(got), contentType, err)
		}
	}
	layer := must(image.Layers())(t)[0]
	layerDigest, layerSize := must(layer.Digest())(t), must(layer.Size())(t)
	want, err := io.ReadAll(must(layer.Compressed())(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, offset := range []int64{0, 1, layerSize / 2, layerSize - 1} {
		body, size, err := c.Blob(t.Context(), "acme/web", layerDigest, offset)
		if err != nil {
			t.Fatalf("from %d: %v", offset, err)
		}
		got, err := io.ReadAll(body)
		body.Close()
		if err != nil || size != layerSize || string(got) != string(want[offset:]) {
			t.Errorf("from %d: %d bytes of %d, %v", offset, len(got), size, err)
		}
	}
	if size, err := c.Exists(t.Context(), "acme/web", layerDigest); err != nil || size != layerSize {
		t.Errorf("%d bytes, %v", size, err)
	}
	_, absent := c.Exists(t.Context(), "acme/web", digestOf(t, "nothing"))
	for name, err := range map[string]error{
		"manifest":   second(manifestOf(t.Context(), c, "acme/web", "v3")),
		"blob":       absent,
		"repository": second(c.Tags(t.Context(), "acme/nothing", 0, "")),
	} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("no such %s: %v", name, err)
		}
	}
	tags, more, err := c.Tags(t.Context(), "acme/web", 1, "v1")
	if !slices.Equal(tags, []string{"v2"}) || more || err != nil {
		t.Errorf("tags %q, %v, %v", tags, more, err)
	}
	referrers, err := c.Referrers(t.Context(), "acme/web", digest, "")
	if err != nil || len(referrers) != 1 || referrers[0].Digest != must(signature.Digest())(t) {
		t.Errorf("referrers %v, %v", referrers, err)
	}
}

func describe(image v1.Image) (desc v1.Descriptor, err error) {
	if desc.Digest, err = image.Digest(); err != nil {
		return desc, err
	}
	if desc.Size, err = image.Size(); err != nil {
		return desc, err
	}
	desc.MediaType, err = image.MediaType()
	return desc, err
}

func must[T any](value T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func second[A, B any](_ A, _ B, err error) error { return err }
