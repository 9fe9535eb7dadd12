package carrier

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// copyTo copies a world's v1 to a target under v2.
func (w world) copyTo(t *testing.T, p Plan) (Copied, error) {
	t.Helper()
	g, err := Find(t.Context(), w, nil, "v1", Options{})
	if err != nil {
		return Copied{}, err
	}
	p.Tag = "v2"
	return Copy(t.Context(), g, p)
}

func TestACopyIsTheSameToTheByteAndTaggedLast(t *testing.T) {
	for _, api := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w, target := newWorld(t), newMemory("target")
			target.api = api
			done, err := w.copyTo(t, Plan{Image: target})
			if err != nil {
				t.Fatal(err)
			}
			if last := target.written[len(target.written)-1]; last != "v2" || slices.Index(target.written, "v2") != len(target.written)-1 {
				t.Errorf("written in the order %v", target.written)
			}
			want := map[string]string{"v1": "v2", Tag(w.child, ".sig"): Tag(w.child, ".sig"), Tag(w.index, ".sig"): Tag(w.index, ".sig")}
			for from, to := range want {
				if string(target.manifests[to].Data) != string(w.manifests[from].Data) {
					t.Errorf("%s is %s, want %s", to, target.manifests[to].Data, w.manifests[from].Data)
				}
			}
			g, err := Find(t.Context(), target, nil, "v2", Options{})
			if err != nil || len(g.Root.Referrers) != 1 || len(g.Root.Referrers[0].Referrers) != 1 {
				t.Errorf("the copy is %+v, %v", g, err)
			}
			if _, ok := target.manifests[Tag(w.index, "")]; ok == api {
				t.Errorf("with an API %t there is a fallback tag: %t", api, ok)
			}
			if done.Blobs == 0 || done.Present != 0 {
				t.Errorf("%+v", done)
			}
			again, err := w.copyTo(t, Plan{Image: target})
			if err != nil || again.Blobs != 0 || again.Present != done.Blobs {
				t.Errorf("again: %+v, %v", again, err)
			}
		})
	}
}

func TestWhatIsAtTheTargetStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, target := newWorld(t), newMemory("target")
		target.signatures(t, w.child, "theirs", "b")
		theirs := target.refer(t, w.index, "application/vnd.theirs")
		if _, err := w.copyTo(t, Plan{Image: target}); err != nil {
			t.Fatal(err)
		}
		g, err := Find(t.Context(), target, nil, "v2", Options{})
		if err != nil {
			t.Fatal(err)
		}
		var signatures []string
		for _, layer := range g.Root.Children[0].Tagged[0].Layers {
			signatures = append(signatures, layer.Annotations["dev.cosignproject.cosign/signature"])
		}
		if !slices.Equal(signatures, []string{"theirs", "b", "a"}) {
			t.Errorf("signatures %v", signatures)
		}
		if len(g.Root.Referrers) != 2 || !slices.ContainsFunc(g.Root.Referrers, func(n *Node) bool { return n.Digest == theirs }) {
			t.Errorf("referrers %+v", g.Root.Referrers)
		}
	})
}

// A source that lies about anything, and a target that takes not all, leave the target
// without the tag; and no blob that is not what its digest says ever was there whole.
func TestNothingIsTaggedWhenAnythingIsWrong(t *testing.T) {
	layer := digestOf([]byte("layer of child"))
	payload := digestOf([]byte("payload a"))
	for _, row := range []struct {
		name    string
		prepare func(w world, target *memory)
	}{
		{"other bytes of a layer", func(w world, _ *memory) { w.blobs[layer] = []byte("layer of chilD") }},
		{"a layer cut off", func(w world, _ *memory) { w.blobs[layer] = []byte("layer of chil") }},
		{"other bytes of a payload", func(w world, _ *memory) { w.blobs[payload] = []byte("payload b") }},
		{"a layer missing", func(w world, _ *memory) { delete(w.blobs, layer) }},
		{"a blob that is not taken", func(_ world, target *memory) {
			target.fault = func(what, reference string) error {
				if what == "put blob" && reference == layer.String() {
					return errBroken
				}
				return nil
			}
		}},
		{"a child that is not taken", func(w world, target *memory) {
			target.fault = refusing(w.child.String())
		}},
		{"signatures that are not taken", func(w world, target *memory) {
			target.fault = refusing(Tag(w.child, ".sig"))
		}},
		{"a referrer that is not taken", func(w world, target *memory) {
			target.fault = refusing(w.aboutArtifact.String())
		}},
		{"a list of referrers that is not taken", func(w world, target *memory) {
			target.fault = refusing(Tag(w.index, ""))
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, target := newWorld(t), newMemory("target")
				row.prepare(w, target)
				if _, err := w.copyTo(t, Plan{Image: target}); err == nil {
					t.Error("no error")
				}
				if _, ok := target.manifests["v2"]; ok {
					t.Error("it was tagged")
				}
			})
		})
	}
}

func refusing(reference string) func(what, reference string) error {
	return func(what, asked string) error {
		if what == "put manifest" && asked == reference {
			return errBroken
		}
		return nil
	}
}

func TestATagThatNamesAnotherImageIsMovedWhenAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, target := newWorld(t), newMemory("target")
		target.image(t, "another", "v2")
		if _, err := w.copyTo(t, Plan{Image: target}); !errors.Is(err, ErrExists) {
			t.Errorf("error %v", err)
		}
		if len(target.written) > 0 {
			t.Errorf("written: %v", target.written)
		}
		if _, err := w.copyTo(t, Plan{Image: target, Overwrite: true}); err != nil || digestOf(target.manifests["v2"].Data) != w.index {
			t.Errorf("asked for: %v", err)
		}
	})
}

func TestEvidenceAloneAndApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, target := newWorld(t), newMemory("target")
		if _, err := w.copyTo(t, Plan{Image: target, Only: []Kind{Signature}}); err != nil {
			t.Fatal(err)
		}
		for _, reference := range target.written {
			if reference == "v2" || reference == w.index.String() || reference == w.artifact.String() {
				t.Errorf("%s was written", reference)
			}
		}
		if _, ok := target.manifests[Tag(w.child, ".sig")]; !ok {
			t.Errorf("written: %v", target.written)
		}
		image, evidence := newMemory("image"), newMemory("evidence")
		if _, err := w.copyTo(t, Plan{Image: image, Evidence: evidence, Apart: true}); err != nil {
			t.Fatal(err)
		}
		if _, ok := image.manifests[Tag(w.child, ".sig")]; ok || len(evidence.manifests[Tag(w.child, ".sig")].Data) == 0 {
			t.Error("signatures are not where evidence goes")
		}
	})
}

func TestProgressEndsWithAllBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, target := newWorld(t), newMemory("target")
		progress := make(chan [2]int64, 1000)
		done, err := w.copyTo(t, Plan{Image: target, Progress: func(done, of int64) { progress <- [2]int64{done, of} }})
		if err != nil {
			t.Fatal(err)
		}
		close(progress)
		var most int64
		for p := range progress {
			if most = max(most, p[0]); p[1] != done.Bytes || p[0] > p[1] {
				t.Errorf("%d of %d, and %d were written", p[0], p[1], done.Bytes)
			}
		}
		if most != done.Bytes {
			t.Errorf("ends at %d of %d", most, done.Bytes)
		}
	})
}

func TestASmallBlobIsReadWholeOrNotAtAll(t *testing.T) {
	m := newMemory("m")
	desc := m.blob("x", "content")
	for name, change := range map[string]func(*v1.Descriptor){
		"too large":    func(d *v1.Descriptor) { d.Size = maxSmall + 1 },
		"negative":     func(d *v1.Descriptor) { d.Size = -1 },
		"shorter":      func(d *v1.Descriptor) { d.Size-- },
		"longer":       func(d *v1.Descriptor) { d.Size++ },
		"of no digest": func(d *v1.Descriptor) { d.Digest = v1.Hash{} },
	} {
		wrong := desc
		change(&wrong)
		if data, err := ReadBlob(t.Context(), m, wrong, maxSmall); err == nil {
			t.Errorf("%s: read %q", name, data)
		}
	}
	if data, err := ReadBlob(t.Context(), m, desc, maxSmall); err != nil || !strings.Contains(string(data), "content") {
		t.Errorf("%q, %v", data, err)
	}
}
