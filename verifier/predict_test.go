package verifier_test

import (
	"crypto"
	"crypto/elliptic"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vidimus/e2e/lying"
	"vidimus/verifier"
	"vidimus/verifier/envelope"
)

// named is subject under its likely names.
var named = verifier.Subject{Repository: repository, Digest: subject.Digest, Names: []string{
	repository, "127.0.0.1:5000/acme/web", "index.docker.io/acme/web", repository + ":v1", repository + "@" + subject.Digest.String(),
}}

// TestAPlainPayloadIsNotFetched: lying writes payloads as cosign does, with
// nothing of ours.
func TestAPlainPayloadIsNotFetched(t *testing.T) {
	key := newECDSA(t, elliptic.P256())
	release := []verifier.Authority{authority(t, "release", key)}
	modern := func(name string, optional map[string]any) []byte {
		return lying.Payload(name, subject.Digest, optional)
	}
	for _, tt := range []struct {
		name    string
		payload []byte
		fetched bool
	}{
		{"the repository's name", modern(repository, nil), false},
		{"its name by another host", modern("127.0.0.1:5000/acme/web", nil), false},
		{"go-containerregistry's name for Docker Hub", modern("index.docker.io/acme/web", nil), false},
		{"with a tag", modern(repository+":v1", nil), false},
		{"with a digest", modern(repository+"@"+subject.Digest.String(), nil), false},
		{"no name", modern("", nil), false},
		{"no annotations, said otherwise", modern(repository, map[string]any{}), false},
		{"cosign v0.1's", lying.LegacyPayload("", subject.Digest, nil), false},
		{"annotations", modern(repository, map[string]any{"env": "prod"}), true},
		{"another name", modern("ghcr.io/acme/web", nil), true},
		{"a name in cosign v0.1's form, which wrote none", lying.LegacyPayload(repository, subject.Digest, nil), true},
		{"a line feed at the end", append(modern(repository, nil), '\n'), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistry()
			r.tag(t, sigTag, r.layer(tt.payload, sign(t, key, crypto.SHA256, tt.payload)))
			report := look(t, r, named, release, verifier.Tags(), anyVerified)
			want(t, report, outcome{Source: sigTag, Authorities: []string{"release"}})
			if fetched := r.fetched(); (len(fetched) == 1) != tt.fetched || len(fetched) > 1 {
				t.Errorf("fetched %v", fetched)
			}
			said, err := envelope.ParsePayload(tt.payload)
			if err != nil {
				t.Fatal(err)
			}
			if e := report.Evidence[0]; e.ClaimedName() != said.Reference || e.Digest() != digestOf(tt.payload) {
				t.Errorf("evidence of %s, %s", e.ClaimedName(), e.Digest())
			}
		})
	}
}

func TestWhatCosignSignsIsNotFetched(t *testing.T) {
	paths, err := filepath.Glob("testdata/cosign/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("%d fixtures, %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			f := readFixture(t, path)
			said, err := envelope.ParsePayload(f.payload)
			if err != nil {
				t.Fatal(err)
			}
			key, err := verifier.ParseKey(f.key)
			if err != nil {
				t.Fatal(err)
			}
			asked := verifier.Subject{Repository: repository, Digest: f.subject, Names: []string{"ghcr.io/acme/web", f.reference}}
			r := f.registry()
			report := look(t, r, asked, []verifier.Authority{{Name: "release", Keys: []verifier.Key{key}}}, verifier.Tags(), anyVerified)
			if !anyVerified(report.Evidence) {
				t.Fatalf("not verified: %+v", report)
			}
			if fetched := r.fetched(); (len(fetched) > 0) != (len(said.Annotations) > 0) {
				t.Errorf("fetched %v of a payload with annotations %v", fetched, said.Annotations)
			}
		})
	}
}

// TestALieAboutAPredictablePayloadGainsNothing: what a registry says of a layer
// is compared with bytes of ours, and a key decides as for bytes of its.
func TestALieAboutAPredictablePayloadGainsNothing(t *testing.T) {
	key, stranger := newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P256())
	p, otherPayload := payload(t, subject.Digest, nil), payload(t, other, nil)
	signature := sign(t, key, crypto.SHA256, p)
	evil := payload(t, subject.Digest, map[string]any{"env": "prod"})
	for _, tt := range []struct {
		name    string
		layer   func(r *registry) layer
		reason  string // empty: verified; "?": nobody could tell
		fetched bool
	}{
		{"a signature by another key", func(r *registry) layer { return r.layer(p, sign(t, stranger, crypto.SHA256, p)) }, "untrusted", false},
		{"a signature over other bytes", func(r *registry) layer { return r.layer(p, sign(t, key, crypto.SHA256, evil)) }, "untrusted", false},
		{"a signature over this manifest's sibling", func(r *registry) layer {
			return r.layer(otherPayload, sign(t, key, crypto.SHA256, otherPayload))
		}, "digest-mismatch", true},
		{"another size", func(r *registry) layer { return r.layer(p, signature).with("size", len(p)+1) }, "?", true},
		{"another size that is predicted", func(r *registry) layer { return r.layer(p, signature).with("size", len(p)+len(":v1")) }, "?", true},
		{"another digest", func(r *registry) layer {
			l := r.layer(evil, signature)
			r.blobs[digestOf(evil)] = p
			return l.with("size", len(p))
		}, "?", true},
		{"other bytes behind the digest", func(r *registry) layer {
			l := r.layer(p, signature)
			r.blobs[digestOf(p)] = evil
			return l
		}, "", false},
		{"nothing behind the digest", func(r *registry) layer {
			l := r.layer(p, signature)
			delete(r.blobs, digestOf(p))
			return l
		}, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistry()
			r.tag(t, sigTag, tt.layer(r))
			report := look(t, r, named, []verifier.Authority{authority(t, "release", key)}, verifier.Tags(), anyVerified)
			switch {
			case tt.reason == "?":
				if len(report.Evidence) > 0 || len(report.Failures) != 1 {
					t.Errorf("report %+v", report)
				}
			case tt.reason == "":
				want(t, report, outcome{Source: sigTag, Authorities: []string{"release"}})
			default:
				want(t, report, outcome{Source: sigTag, Reason: tt.reason})
			}
			if fetched := r.fetched(); (len(fetched) > 0) != tt.fetched {
				t.Errorf("fetched %v", fetched)
			}
		})
	}
}

// TestNamesChangeNothingButRequests: with the names of a subject or without, all
// that is reported of a payload is the same.
func TestNamesChangeNothingButRequests(t *testing.T) {
	key, stranger := newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P256())
	r := newRegistry()
	var layers []layer
	for i, by := range []crypto.Signer{stranger, key, stranger, key} {
		for _, name := range append(slices.Clone(named.Names), "", "ghcr.io/acme/web") {
			p := lying.Payload(name, subject.Digest, nil)
			if i > 1 {
				p = lying.Payload(name, subject.Digest, map[string]any{"n": i})
			}
			layers = append(layers, r.layer(p, sign(t, by, crypto.SHA256, p)))
		}
	}
	r.tag(t, sigTag, layers...)
	release := []verifier.Authority{authority(t, "release", key)}
	many := named
	for i := range 10_000 {
		many.Names = append(many.Names, fmt.Sprintf("registry-%d.example/acme/web", i))
	}
	odd := named
	odd.Names = append([]string{"", `a"b`, "a\nb", "é", "<&>", strings.Repeat("x", 1<<20)}, named.Names...)
	told := func(s verifier.Subject) []string {
		var all []string
		for _, e := range look(t, r, s, release, verifier.Tags(), nil).Evidence {
			text, err := e.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, string(text))
		}
		return all
	}
	want := told(subject)
	if len(want) != len(layers) {
		t.Fatalf("%d pieces of evidence", len(want))
	}
	for _, s := range []verifier.Subject{named, many, odd} {
		if diff := cmp.Diff(want, told(s)); diff != "" {
			t.Errorf("with %d names (-without +with):\n%s", len(s.Names), diff)
		}
	}
}
