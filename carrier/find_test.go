package carrier

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// world is an index of two images, with evidence about all of it.
type world struct {
	*memory
	index, child, other                 v1.Hash
	signatures, artifact, aboutArtifact v1.Hash
}

func newWorld(t *testing.T) world {
	t.Helper()
	w := world{memory: newMemory("source")}
	w.child, w.other = w.image(t, "child"), w.image(t, "other")
	w.index = w.memory.index(t, []v1.Hash{w.child, w.other}, "v1")
	w.signatures = w.memory.signatures(t, w.child, "a", "b")
	w.memory.signatures(t, w.index, "c")
	w.artifact = w.refer(t, w.index, "application/vnd.example")
	w.aboutArtifact = w.refer(t, w.artifact, "application/vnd.cncf.notary.signature")
	return w
}

func TestAllThatBelongsToAnImageIsFound(t *testing.T) {
	w := newWorld(t)
	g, err := Find(t.Context(), w, nil, "v1", Options{})
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for n := range g.All() {
		found = append(found, n.Digest.Hex[:6]+string(n.Kind))
	}
	if len(found) != 7 || len(g.Warnings) > 0 {
		t.Errorf("found %v, warned of %v", found, g.Warnings)
	}
	root := g.Root
	if root.Digest != w.index || len(root.Children) != 2 || len(root.Tagged) != 1 || len(root.Referrers) != 1 ||
		root.Children[0].Tagged[0].Digest != w.signatures || root.Referrers[0].Referrers[0].Kind != Signature {
		t.Errorf("the tree is %+v", root)
	}
	one, err := Find(t.Context(), w, nil, "v1", Options{Platform: &v1.Platform{OS: "linux", Architecture: "cpu0"}})
	if err != nil || one.Root.Digest != w.child || len(one.Root.Tagged) != 1 {
		t.Errorf("the image of one platform: %+v, %v", one, err)
	}
}

func TestEvidenceElsewhereIsFoundToo(t *testing.T) {
	w, elsewhere := newWorld(t), newMemory("elsewhere")
	elsewhere.signatures(t, w.index, "d")
	g, err := Find(t.Context(), w, []Place{elsewhere}, "v1", Options{Alone: true})
	if err != nil || len(g.Root.Tagged) != 2 || g.Root.Tagged[1].From != Place(elsewhere) || len(g.Root.Children) != 0 {
		t.Errorf("%+v, %v", g, err)
	}
}

// What a list says is nobody's word, and what cannot be told is no absence.
func TestListsAreNotBelieved(t *testing.T) {
	for _, row := range []struct {
		name    string
		prepare func(t *testing.T, w world)
		warning string
		err     string
	}{
		{"a referrer of another subject", func(t *testing.T, w world) { w.list(t, w.index, w.aboutArtifact) }, "which is not its subject", ""},
		{"a referrer that is missing", func(t *testing.T, w world) { w.list(t, w.index, digestOf(nil)) }, "does not have it", ""},
		{"itself", func(t *testing.T, w world) { w.list(t, w.index, w.index) }, "which is not its subject", ""},
		{"a tag that is forbidden", func(_ *testing.T, w world) {
			w.fault = func(what, reference string) error {
				if strings.HasSuffix(reference, ".att") {
					return fs.ErrPermission
				}
				return nil
			}
		}, "does not say whether there is a tag", ""},
		{"a tag that cannot be read", func(_ *testing.T, w world) {
			w.fault = func(what, reference string) error {
				if strings.HasSuffix(reference, ".att") {
					return errBroken
				}
				return nil
			}
		}, "", "broken"},
		{"an API that fails", func(_ *testing.T, w world) {
			w.fault = func(what, _ string) error {
				if what == "referrers" {
					return errBroken
				}
				return nil
			}
		}, "", "broken"},
		{"a child that is missing", func(_ *testing.T, w world) { delete(w.manifests, w.other.String()) }, "", "--platform"},
		{"other bytes for a child", func(_ *testing.T, w world) { w.manifests[w.other.String()] = w.manifests[w.child.String()] }, "", "other bytes"},
		{"other bytes for a referrer", func(_ *testing.T, w world) {
			w.manifests[w.artifact.String()] = w.manifests[w.aboutArtifact.String()]
		}, "", "other bytes"},
		{"an index and an image in one", func(_ *testing.T, w world) {
			w.manifests["v1"] = Manifest{Data: []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"layers":[],"config":{}}`)}
		}, "", "ambiguous"},
		{"the same name twice", func(_ *testing.T, w world) {
			w.manifests["v1"] = Manifest{Data: []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"Manifests":[]}`)}
		}, "", "anifests"},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWorld(t)
			row.prepare(t, w)
			g, err := Find(t.Context(), w, nil, "v1", Options{})
			switch {
			case row.err != "" && (err == nil || !strings.Contains(err.Error(), row.err)):
				t.Errorf("error %v, want %q", err, row.err)
			case row.err == "" && (err != nil || !strings.Contains(fmt.Sprint(g.Warnings), row.warning)):
				t.Errorf("%v, warned of %v, want %q", err, g.Warnings, row.warning)
			}
		})
	}
}

// Who names whom may go in a circle: an index can list an image, and be its referrer.
func TestACircleEnds(t *testing.T) {
	m := newMemory("circle")
	image := m.image(t, "image")
	fields := indexFields([]v1.Hash{image})
	fields["subject"] = v1.Descriptor{MediaType: "application/vnd.oci.image.manifest.v1+json", Size: 1, Digest: image}
	index := m.put(t, fields, "v1")
	m.list(t, image, index)
	done := make(chan error, 1)
	go func() {
		g, err := Find(t.Context(), m, nil, "v1", Options{})
		if err == nil {
			target := newMemory("target")
			_, err = Copy(t.Context(), g, Plan{Image: target, Tag: "v1"})
		}
		if err == nil {
			_, err = Save(t.Context(), g, t.TempDir(), "v1", nil)
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it goes on in circles")
	}
}

func TestWhatGrowsWithoutEndIsCutOff(t *testing.T) {
	m := newMemory("deep")
	digest := m.image(t, "image", "v1")
	for range MaxDepth + 1 {
		digest = m.refer(t, digest, "application/vnd.example")
	}
	if _, err := Find(t.Context(), m, nil, "v1", Options{}); err == nil || !strings.Contains(err.Error(), "nested deeper") {
		t.Errorf("a chain of referrers: %v", err)
	}
	wide := newMemory("wide")
	var children []v1.Hash
	for i := range MaxManifests + 1 {
		children = append(children, wide.put(t, map[string]any{
			"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []any{}, "annotations": map[string]string{"n": fmt.Sprint(i)},
		}))
	}
	wide.index(t, children, "v1")
	if _, err := Find(t.Context(), wide, nil, "v1", Options{}); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("too many manifests: %v", err)
	}
}
