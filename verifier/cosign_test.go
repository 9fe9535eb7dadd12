package verifier_test

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/rogpeppe/go-internal/txtar"

	"vidimus/verifier"
)

// fixture is a signature image that a real cosign wrote.
type fixture struct {
	key       []byte
	manifest  []byte
	payload   []byte
	subject   v1.Hash
	reference string
}

func readFixture(t *testing.T, path string) fixture {
	t.Helper()
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var f fixture
	for _, file := range archive.Files {
		// The archive ends each file with a line feed that cosign did not write.
		data := bytes.TrimSuffix(file.Data, []byte("\n"))
		switch file.Name {
		case "key.pub":
			f.key = data
		case "manifest.json":
			f.manifest = data
		case "payload.json":
			f.payload = data
		}
	}
	_, digest, _ := strings.Cut(string(archive.Comment), "subject: ")
	if f.subject, err = v1.NewHash(strings.TrimSpace(digest)); err != nil {
		t.Fatal(err)
	}
	name := strings.TrimSuffix(filepath.Base(path), ".txtar")
	f.reference = "127.0.0.1:5917/acme/" + strings.Replace(name, "cosign", "v", 1)
	return f
}

func (f fixture) registry() *registry {
	r := newRegistry()
	r.manifests["sha256-"+f.subject.Hex+".sig"] = f.manifest
	r.blobs[digestOf(f.payload)] = f.payload
	return r
}

func TestWhatCosignSignsIsVerified(t *testing.T) {
	paths, err := filepath.Glob("testdata/cosign/*.txtar")
	if err != nil || len(paths) != 14 {
		t.Fatalf("%d fixtures, %v", len(paths), err)
	}
	stranger := authority(t, "stranger", newEd25519(t))
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			f := readFixture(t, path)
			key, err := verifier.ParseKey(f.key)
			if err != nil {
				t.Fatal(err)
			}
			release := verifier.Authority{Name: "release", Keys: []verifier.Key{key}}
			asked := verifier.Subject{Repository: repository, Digest: f.subject}
			verify := func(r *registry, s verifier.Subject, a ...verifier.Authority) verifier.Report {
				return look(t, r, s, a, verifier.Tags(), anyVerified)
			}

			report := verify(f.registry(), asked, stranger, release)
			if len(report.Evidence) != 1 || !report.Evidence[0].Verified() {
				t.Fatalf("not verified: %+v", report)
			}
			e := report.Evidence[0]
			if got := e.Authorities(); !slices.Equal(got, []string{"release"}) || e.KeyID() != key.ID() {
				t.Errorf("verified by %v with key %s", got, e.KeyID())
			}
			if e.ClaimedName() != f.reference || e.Digest() != digestOf(f.payload) || e.Form() != verifier.FormSimpleSigning {
				t.Errorf("evidence of %s, %s, %s", e.ClaimedName(), e.Digest(), e.Form())
			}
			if strings.HasSuffix(path, "p256.txtar") {
				if diff := cmp.Diff(map[string]any{"env": "prod"}, e.Annotations()); diff != "" {
					t.Error(diff)
				}
			}

			if report := verify(f.registry(), asked, stranger); anyVerified(report.Evidence) {
				t.Error("verified by a stranger")
			}
			changed := f
			changed.manifest = bytes.ReplaceAll(changed.manifest, []byte(f.subject.Hex), []byte(other.Hex))
			changed.payload = bytes.ReplaceAll(f.payload, []byte(f.subject.Hex), []byte(other.Hex))
			if report := verify(reannounced(t, changed), asked, release); anyVerified(report.Evidence) {
				t.Error("a changed payload is verified")
			}
			moved := f.registry()
			moved.manifests["sha256-"+other.Hex+".sig"] = f.manifest
			report = verify(moved, verifier.Subject{Repository: repository, Digest: other}, release)
			if len(report.Evidence) != 1 || report.Evidence[0].Reason() != verifier.ReasonDigestMismatch {
				t.Errorf("at another manifest's tag: %+v", report)
			}
		})
	}
}

// reannounced is f in a registry, with the layer's digest that of its payload.
func reannounced(t *testing.T, f fixture) *registry {
	t.Helper()
	var manifest map[string]any
	if err := json.Unmarshal(f.manifest, &manifest); err != nil {
		t.Fatal(err)
	}
	manifest["layers"].([]any)[0].(map[string]any)["digest"] = digestOf(f.payload).String()
	data, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	f.manifest = data
	return f.registry()
}
