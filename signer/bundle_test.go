package signer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/verifier/envelope"
)

var bundleOnly = []Format{FormatBundle}

// referrers returns the manifests that the registry, or the fallback tag, lists of
// subject.
func (r *testRegistry) referrers(t *testing.T, subject v1.Hash) []referrer {
	t.Helper()
	quiet := &testRegistry{handler: r.handler, lists: r.lists}
	listed, err := quiet.Referrers(t.Context(), testRepository, subject)
	if err != nil {
		t.Fatal(err)
	}
	var all []referrer
	for _, desc := range listed {
		data, err := quiet.Manifest(t.Context(), testRepository, desc.Digest.String())
		if err != nil || int64(len(data)) != desc.Size || !r.lists && desc.ArtifactType != envelope.MediaTypeBundle {
			t.Fatalf("%+v: %v", desc, err)
		}
		var m referrer
		if err := json.Unmarshal(data, &m); err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

func TestSignIntoABundle(t *testing.T) {
	for _, lists := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			reg := newTestRegistry()
			reg.lists = lists
			subject := reg.image(t, "v1")
			key := mustKey(t)
			s := mustSigner(t, Config{Registry: reg, Key: key, Formats: bundleOnly})
			r := Request{Subject: subject, Repository: testRepository, Reference: "reg.test/acme/web", Annotations: map[string]string{"env": "prod"}}
			results, err := s.Sign(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			listedIn := ""
			if !lists {
				listedIn = "sha256-" + subject.Hex
			}
			if got := results[0]; got.Kept || got.Tag != listedIn || got.Digest == (v1.Hash{}) {
				t.Errorf("result %+v", got)
			}
			found := reg.referrers(t, subject)
			if len(found) != 1 {
				t.Fatalf("%d referrers", len(found))
			}
			bundle := reg.blob(t, found[0].Layers[0].Digest)
			want := referrer{
				SchemaVersion: 2, MediaType: types.OCIManifestSchema1, ArtifactType: envelope.MediaTypeBundle,
				Config:  describe(emptyConfig, []byte("{}")),
				Layers:  []v1.Descriptor{describe(envelope.MediaTypeBundle, bundle)},
				Subject: v1.Descriptor{MediaType: types.OCIManifestSchema1, Size: int64(len(imageManifest("v1"))), Digest: subject},
				Annotations: map[string]string{
					"org.opencontainers.image.created":  "2000-01-01T00:00:00Z",
					"dev.sigstore.bundle.content":       "dsse-envelope",
					"dev.sigstore.bundle.predicateType": "https://sigstore.dev/cosign/sign/v1",
				},
			}
			want.Config.ArtifactType = envelope.MediaTypeBundle
			if diff := cmp.Diff(want, found[0]); diff != "" {
				t.Error(diff)
			}
			b, err := envelope.ParseBundle(envelope.MediaTypeBundle, bundle)
			if err != nil || !verifies(key.Public(), b.Signed, b.Signature, hashOf(key)) {
				t.Fatalf("%+v, %v", b, err)
			}
			statement, err := envelope.SignatureStatement(subject.String(), "reg.test/acme/web", map[string]any{"env": "prod"})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(statement), string(b.Statement)); diff != "" {
				t.Error(diff)
			}

			t.Log("the same again is kept, and nothing is written")
			before := len(reg.requests)
			if results, err = s.Sign(t.Context(), r); err != nil || !results[0].Kept || results[0].Digest == (v1.Hash{}) {
				t.Fatalf("%+v, %v", results, err)
			}
			if slices.ContainsFunc(reg.requests[before:], func(r string) bool { return !strings.HasPrefix(r, "GET ") }) {
				t.Errorf("requests %q", reg.requests[before:])
			}

			t.Log("another claim, and another key, are added")
			r.Annotations = nil
			for _, s := range []*Signer{s, mustSigner(t, Config{Registry: reg, Formats: bundleOnly})} {
				if results, err = s.Sign(t.Context(), r); err != nil || results[0].Kept {
					t.Fatalf("%+v, %v", results, err)
				}
			}
			if found := reg.referrers(t, subject); len(found) != 3 {
				t.Errorf("%d referrers", len(found))
			}
		})
	}
}

func TestSignWritesBothFormatsUnlessTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newTestRegistry()
		a, b := reg.image(t, "a"), reg.image(t, "b")
		s, err := New(Config{Registry: reg, Key: mustKey(t)})
		if err != nil {
			t.Fatal(err)
		}
		results, err := s.Sign(t.Context(), request(a), request(b))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range results {
			got = append(got, r.Subject.String()+" "+r.Format.String())
		}
		want := []string{a.String() + " tag", a.String() + " bundle", b.String() + " tag", b.String() + " bundle"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		for _, subject := range []v1.Hash{a, b} {
			if m, _ := reg.signatures(t, subject); len(m.Layers) != 1 || len(reg.referrers(t, subject)) != 1 {
				t.Errorf("%s has %d layers and %d referrers", subject, len(m.Layers), len(reg.referrers(t, subject)))
			}
		}
	})
	for _, formats := range [][]Format{{FormatTag, FormatTag}, {Format(7)}} {
		if _, err := New(Config{Registry: newTestRegistry(), Key: mustKey(t), Formats: formats}); err == nil {
			t.Errorf("formats %v are taken", formats)
		}
	}
}

func TestOthersReferrersAreKeptByteForByte(t *testing.T) {
	const foreign = `{ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
  "manifests": [ {"mediaType":"application/vnd.oci.image.manifest.v1+json", "size":7, "digest":"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","x":"\u003c"} ],
  "annotations": {"org.example": "kept"}, "unknown": [1.0] }`
	index, err := parseReferrersIndex([]byte(foreign))
	if err != nil {
		t.Fatal(err)
	}
	add := &listing{desc: describe(types.OCIManifestSchema1, []byte("new"))}
	if add.in(index) {
		t.Error("it is there before it is added")
	}
	merged, err := add.to(index)
	if err != nil {
		t.Fatal(err)
	}
	manifest, config, err := merged.encode()
	if err != nil || config != nil {
		t.Fatal(config, err)
	}
	for _, kept := range []string{
		`"digest":"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","x":"\u003c"}`,
		`"annotations":{"org.example": "kept"},"unknown":[1.0]}`, add.desc.Digest.String(),
	} {
		if !strings.Contains(string(manifest), kept) {
			t.Errorf("%s\nis not in\n%s", kept, manifest)
		}
	}
	again, err := parseReferrersIndex(manifest)
	if err != nil || !add.in(again) || again.size() != 2 {
		t.Errorf("%+v, %v", again, err)
	}
	for name, data := range map[string]string{
		"an image":                  string(imageManifest("v1")),
		"no JSON":                   "{",
		"a list of no objects":      `{"schemaVersion":2,"manifests":[1]}`,
		"a descriptor of nothing":   `{"schemaVersion":2,"manifests":[{}]}`,
		"names that are read alike": `{"schemaVersion":2,"manifests":[],"Manifests":[]}`,
		"a list with a subject":     `{"schemaVersion":2,"manifests":[],"subject":{}}`,
	} {
		if _, err := parseReferrersIndex([]byte(data)); err == nil {
			t.Errorf("%s is taken for an index of referrers", name)
		}
		if listed := ReferrersIndex([]byte(data)); len(listed) != 0 && name != "a list with a subject" {
			t.Errorf("%s lists %v", name, listed)
		}
	}
}

// Everything that is needed is written before what refers to it.
func TestABundleSurvivesFailuresOfItsRegistry(t *testing.T) {
	broken := errors.New("broken pipe")
	for _, method := range []string{http.MethodPost, http.MethodPut} {
		for nth := 1; nth <= 3; nth++ {
			synctest.Test(t, func(t *testing.T) {
				reg := newTestRegistry()
				subject := reg.image(t, "v1")
				seen := 0
				reg.before = func(m, _ string) error {
					if m == method {
						if seen++; seen == nth {
							return broken
						}
					}
					return nil
				}
				s := mustSigner(t, Config{Registry: reg, Formats: bundleOnly})
				if _, err := s.Sign(t.Context(), request(subject)); err != nil && !errors.Is(err, broken) {
					t.Errorf("%s %d: %v", method, nth, err)
				}
				if _, err := s.Sign(t.Context(), request(subject)); err != nil {
					t.Errorf("%s %d, again: %v", method, nth, err)
				}
				if found := reg.referrers(t, subject); len(found) != 1 {
					t.Errorf("%s %d: %d referrers", method, nth, len(found))
				}
			})
		}
	}
}

// Two that add to one fallback tag, without a lock, both find their own in the end.
func TestConcurrentBundlesLoseNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newTestRegistry()
		subject := reg.image(t, "v1")
		const signers = 50
		done := make(chan error, signers)
		for range signers {
			s := mustSigner(t, Config{Registry: reg, Formats: bundleOnly})
			go func() {
				_, err := s.Sign(t.Context(), request(subject))
				done <- err
			}()
		}
		for range signers {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if found := reg.referrers(t, subject); len(found) != signers {
			t.Errorf("%d of %d referrers", len(found), signers)
		}
	})
}

func TestAttest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newTestRegistry()
		subject := reg.image(t, "v1")
		key := mustKey(t)
		s, err := New(Config{Registry: reg, Key: key})
		if err != nil {
			t.Fatal(err)
		}
		r := Request{
			Subject: subject, Repository: testRepository, Reference: "reg.test/acme/web",
			PredicateType: "https://slsa.dev/provenance/v1", Predicate: json.RawMessage(`{"a":1}`),
		}
		if _, err := s.Sign(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		data, err := reg.Manifest(t.Context(), testRepository, AttestationTag(subject))
		if err != nil {
			t.Fatal(err)
		}
		img, err := parseSignatureImage(data)
		if err != nil || len(img.layers) != 1 || img.layers[0].mediaType != envelope.MediaTypeDSSE {
			t.Fatalf("%s, %v", data, err)
		}
		want := map[string]string{"dev.cosignproject.cosign/signature": "", "predicateType": r.PredicateType}
		if diff := cmp.Diff(want, img.layers[0].annotations); diff != "" {
			t.Error(diff)
		}
		if found := reg.referrers(t, subject); len(found) != 1 || found[0].Annotations[bundleTypeAnnotation] != r.PredicateType {
			t.Errorf("referrers %+v", found)
		}
		if _, err := reg.Manifest(t.Context(), testRepository, Tag(subject)); err == nil {
			t.Error("an attestation is among the signatures")
		}
		results, err := s.Sign(t.Context(), r)
		if err != nil || !results[0].Kept || !results[1].Kept {
			t.Errorf("attested again: %+v, %v", results, err)
		}
		r.Predicate = json.RawMessage(`{"a":2}`)
		if results, err = s.Sign(t.Context(), r); err != nil || results[0].Kept || results[1].Kept {
			t.Errorf("another predicate: %+v, %v", results, err)
		}
		for name, change := range map[string]func(*Request){
			"annotations":                 func(r *Request) { r.Annotations = map[string]string{"a": "b"} },
			"a signature's predicateType": func(r *Request) { r.PredicateType = envelope.PredicateCosignSign },
			"a predicate that is none":    func(r *Request) { r.Predicate = json.RawMessage(`1`) },
			"a predicate without end":     func(r *Request) { r.Predicate = json.RawMessage(`{"a":"` + strings.Repeat("x", maxPayloadSize) + `"}`) },
		} {
			bad := r
			change(&bad)
			if _, err := s.Sign(t.Context(), bad); err == nil {
				t.Errorf("%s: no error", name)
			}
		}
	})
}

func TestSealWithEveryKindOfKey(t *testing.T) {
	for name, key := range testKeys(t) {
		sealed, err := Seal(t.Context(), Config{Key: key}, Content{Statement: []byte(`{"x":1}`)})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		data := sealed.Bundle
		b, err := envelope.ParseBundle(envelope.MediaTypeBundle, data)
		if err != nil || !verifies(key.Public(), b.Signed, b.Signature, hashOf(key)) {
			t.Errorf("%s: %+v, %v", name, b, err)
		}
		hint, err := keyHint(key.Public())
		if err != nil || !strings.Contains(string(data), `"publicKey":{"hint":"`+hint+`"}`) {
			t.Errorf("%s: no hint %s in %s", name, hint, data)
		}
	}
}

func TestAnnotationsOfAKeylessLayer(t *testing.T) {
	s := mustSigner(t, Config{Registry: newTestRegistry(), Chain: [][]byte{{1}, {2}, {3}}})
	got := s.annotations(Proof{LogBundle: []byte(`{"x":1}`), Timestamps: [][]byte{{4}}})
	text := func(bodies ...string) string {
		var all strings.Builder
		for _, body := range bodies {
			all.WriteString("-----BEGIN CERTIFICATE-----\n" + body + "\n-----END CERTIFICATE-----\n")
		}
		return all.String()
	}
	want := map[string]string{
		"dev.sigstore.cosign/certificate":      text("AQ=="),
		"dev.sigstore.cosign/chain":            text("Ag==", "Aw=="),
		"dev.sigstore.cosign/bundle":           `{"x":1}`,
		"dev.sigstore.cosign/rfc3161timestamp": `{"SignedRFC3161Timestamp":"` + base64.StdEncoding.EncodeToString([]byte{4}) + `"}`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// BenchmarkSeal is what a signature costs, without a registry: with the key of a file
// as cosign makes it.
func BenchmarkSeal(b *testing.B) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	statement, err := envelope.SignatureStatement("sha256:"+strings.Repeat("a", 64), "reg.test/acme/web", nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Seal(b.Context(), Config{Key: key}, Content{Statement: statement}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "signatures/s")
}
