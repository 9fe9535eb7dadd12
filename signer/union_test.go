package signer

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/verifier/envelope"
)

// imageOf is a signature image with a layer for each name.
func imageOf(t *testing.T, names ...string) []byte {
	t.Helper()
	img := newSignatureImage(false)
	var err error
	for _, name := range names {
		// all over the same payload: only the annotation tells them apart
		layer := describe(envelope.MediaTypeSimpleSigning, []byte("payload"))
		layer.Annotations = map[string]string{signatureAnnotation: name}
		if img, err = img.with(layer); err != nil {
			t.Fatal(err)
		}
	}
	manifest, _, err := img.encode()
	if err != nil {
		t.Fatal(err)
	}
	return manifest
}

func TestUnionLosesNothing(t *testing.T) {
	image := func(names string) []byte { return imageOf(t, strings.Fields(names)...) }
	for _, test := range []struct{ name, pushed, held, want string }{
		{"the same", "a b", "a b", "a b"},
		{"one more is pushed", "a b", "a", "a b"},
		{"one more is held", "a", "a b", "a b"},
		{"each has one", "a", "b", "b a"},
		{"both added to the same", "a b", "a c", "a c b"},
		{"in another order", "b a", "a b", "a b"},
		{"one more is pushed before all", "c a b", "a b", "a b c"},
		{"one more is pushed in between", "a c b", "a b", "a b c"},
		{"nothing is held", "a", "", "a"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, config, err := Union(image(test.pushed), image(test.held))
			if err != nil {
				t.Fatal(err)
			}
			want := image(test.want)
			if !bytes.Equal(got, want) {
				t.Errorf("got %s\nwant %s", got, want)
			}
			if isNew := test.want != test.pushed && test.want != test.held; isNew != (config != nil) {
				t.Errorf("the config is %s", config)
			}
			if config == nil {
				return
			}
			var m v1.Manifest
			var file v1.ConfigFile
			if json.Unmarshal(got, &m) != nil || json.Unmarshal(config, &file) != nil || m.Config.Digest != digestOf(config) || len(file.RootFS.DiffIDs) != len(m.Layers) {
				t.Errorf("the config does not go with it: %s", config)
			}
		})
	}
	// What the union is does not depend on whether it was made before.
	once, _, err := Union(image("a"), image("b"))
	if err != nil {
		t.Fatal(err)
	}
	for _, pushed := range []string{"a", "b"} {
		if again, config, err := Union(image(pushed), once); err != nil || !bytes.Equal(again, once) || config != nil {
			t.Errorf("joined again: %s %v", again, err)
		}
	}
}

// What is added comes last, as cosign has it, where it is surely tried there; and first
// where it may not be.
func TestWhatIsAddedToManyComesFirst(t *testing.T) {
	for _, test := range []struct{ held, added, first int }{
		{0, 1, 0}, {surelyTried - 1, 1, surelyTried - 1}, {surelyTried, 1, 0}, {200, 1, 0}, {0, 100, 0}, {10, surelyTried - 9, 0},
	} {
		held := slices.Repeat([]string{"held"}, test.held)
		added := slices.Repeat([]string{"added"}, test.added)
		got := joined(held, added)
		if i := slices.Index(got, "added"); len(got) != test.held+test.added || i != test.first {
			t.Errorf("of %d and %d: %d, those that are added from %d on, want %d", test.held, test.added, len(got), i, test.first)
		}
	}
}

func TestUnionOfWhatIsNoSignatureImageIsRefused(t *testing.T) {
	image := imageOf(t, "a")
	index := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
	for name, pair := range map[string][2][]byte{
		"an index is pushed": {index, image}, "an index is held": {image, index}, "no JSON is held": {image, []byte("x")},
		"an image to run is held": {image, bytes.Replace(image, []byte(envelope.MediaTypeSimpleSigning), []byte("application/vnd.oci.image.layer.v1.tar+gzip"), 1)},
		"two of a key":            {[]byte(`{"layers":[],"layers":[]}`), image},
	} {
		if got, _, err := Union(pair[0], pair[1]); err == nil {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// Annotations that are no strings are not understood, and might be anything.
func TestUnionKeepsLayersThatItCannotTellApart(t *testing.T) {
	image := func(annotations string) []byte {
		layer := `{"mediaType":"x","size":1,"digest":"` + digestOf([]byte("x")).String() + `","annotations":` + annotations + `}`
		return bytes.Replace(imageOf(t), []byte(`"layers":[]`), []byte(`"layers":[`+layer+`]`), 1)
	}
	got, _, err := Union(image(`{"a":1}`), image(`{"a":2}`))
	if err != nil {
		t.Fatal(err)
	}
	if img, err := parseSignatureImage(got); err != nil || len(img.layers) != 2 {
		t.Errorf("%d layers, %v, want 2:\n%s", len(img.layers), err, got)
	}
}
