package verifier_test

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/verifier"
)

const (
	emptyType = "application/vnd.oci.empty.v1+json"
	ociIndex  = "application/vnd.oci.image.index.v1+json"
)

var fallbackTag = "sha256-" + subject.Digest.Hex

// fallback puts a list of referrers under the fallback tag.
func (r *registry) fallback(tb testing.TB, listed ...v1.Descriptor) {
	tb.Helper()
	r.manifests[fallbackTag] = encode(tb, object{"schemaVersion": 2, "mediaType": ociIndex, "manifests": listed})
}

// signedBundle stores a signature by key and returns its referrer; n tells one from
// another.
func signedBundle(t *testing.T, r *registry, key crypto.Signer, n int) v1.Descriptor {
	t.Helper()
	said := statement(subject.Digest, predicateSign)
	part(said, "subject")["annotations"] = object{"n": n}
	return r.artifact(t, bundleType, encode(t, bundle(t, key, crypto.SHA256, said)))
}

func source(desc v1.Descriptor) string { return "referrer " + desc.Digest.String() }

func retyped(desc v1.Descriptor, artifactType string) v1.Descriptor {
	desc.ArtifactType = artifactType
	return desc
}

func TestBundlesAreFoundByBothLists(t *testing.T) {
	key, second := newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P256())
	both := []verifier.Authority{authority(t, "release", key), authority(t, "ci", second)}
	down := errors.New("upstream example: 503")
	for _, tt := range []struct {
		name     string
		put      func(r *registry, one, two v1.Descriptor)
		found    []int
		failures int
	}{
		{"the API alone", func(r *registry, one, two v1.Descriptor) { r.listed = []v1.Descriptor{one, two} }, []int{0, 1}, 0},
		{"the fallback tag alone, without the API", func(r *registry, one, two v1.Descriptor) { r.fallback(t, one, two) }, []int{0, 1}, 0},
		{"the fallback tag, where the API lists nothing", func(r *registry, one, two v1.Descriptor) {
			r.listed = []v1.Descriptor{}
			r.fallback(t, one, two)
		}, []int{0, 1}, 0},
		{"one in each", func(r *registry, one, two v1.Descriptor) {
			r.listed = []v1.Descriptor{one}
			r.fallback(t, two)
		}, []int{0, 1}, 0},
		{"each in both, once", func(r *registry, one, two v1.Descriptor) {
			r.listed = []v1.Descriptor{one, two, one}
			r.fallback(t, two, one)
		}, []int{0, 1}, 0},
		{"the fallback tag, with the API down", func(r *registry, one, two v1.Descriptor) {
			r.listErr = down
			r.fallback(t, one, two)
		}, []int{0, 1}, 1},
		{"the API, with the fallback tag down", func(r *registry, one, two v1.Descriptor) {
			r.listed = []v1.Descriptor{one, two}
			r.errs[fallbackTag] = down
		}, []int{0, 1}, 1},
		{"one of which cannot be read", func(r *registry, one, two v1.Descriptor) {
			r.listed = []v1.Descriptor{one, two}
			r.errs[one.Digest.String()] = down
		}, []int{1}, 1},
		{"a fallback tag with wrong types", func(r *registry, one, two v1.Descriptor) {
			r.fallback(t, retyped(one, emptyType), retyped(two, ""))
		}, []int{0, 1}, 0},
		{"a fallback tag with foreign types", func(r *registry, one, two v1.Descriptor) {
			r.fallback(t, retyped(one, "application/spdx+json"), retyped(two, "text/plain"))
		}, []int{0, 1}, 0},
		{"the API with types that are not told", func(r *registry, one, two v1.Descriptor) {
			r.listed = []v1.Descriptor{retyped(one, ""), retyped(two, emptyType)}
		}, []int{0, 1}, 0},
		{"what the API calls something else is not opened", func(r *registry, one, two v1.Descriptor) {
			r.listed = []v1.Descriptor{one, retyped(two, "application/spdx+json")}
		}, []int{0}, 0},
		{"what is listed and missing, and not said to be one", func(r *registry, one, two v1.Descriptor) {
			r.fallback(t, retyped(one, ""), two)
			delete(r.manifests, one.Digest.String())
		}, []int{1}, 0},
		{"among what is no descriptor", func(r *registry, one, two v1.Descriptor) {
			r.manifests[fallbackTag] = encode(t, object{"schemaVersion": 2, "manifests": []any{
				nil, 1, []any{}, object{}, object{"digest": "sha512:" + strings.Repeat("0", 128)}, object{"digest": "sha256:../.."}, one, two,
			}})
		}, []int{0, 1}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistry()
			made := []v1.Descriptor{signedBundle(t, r, key, 1), signedBundle(t, r, second, 2)}
			tt.put(r, made[0], made[1])
			report := find(t, r, both...)
			var want []outcome
			for _, i := range tt.found {
				want = append(want, outcome{Source: source(made[i]), Authorities: []string{both[i].Name}})
			}
			if diff := cmp.Diff(want, outcomes(report)); diff != "" {
				t.Errorf("evidence (-want +got):\n%s", diff)
			}
			if len(report.Failures) != tt.failures || tt.failures > 0 && (report.Failures[0].Source != "referrers" || !errors.Is(report.Failures[0].Err, down)) {
				t.Errorf("failures %v", report.Failures)
			}
		})
	}
}

func TestWhatIsNoListOfReferrersListsNothing(t *testing.T) {
	key := newECDSA(t, elliptic.P256())
	for _, tt := range []struct {
		name string
		put  func(r *registry, desc v1.Descriptor) []byte
	}{
		{"an image, as a copy by digest leaves it", func(r *registry, desc v1.Descriptor) []byte { return manifestOf(t) }},
		{"a document that is both", func(r *registry, desc v1.Descriptor) []byte {
			return encode(t, object{"schemaVersion": 2, "layers": []any{}, "manifests": []any{desc}})
		}},
		{"no JSON", func(*registry, v1.Descriptor) []byte { return []byte("hello") }},
		{"manifests that are no list", func(r *registry, desc v1.Descriptor) []byte {
			return encode(t, object{"schemaVersion": 2, "manifests": object{"0": desc}})
		}},
		{"manifests in two cases", func(r *registry, desc v1.Descriptor) []byte {
			return fmt.Appendf(nil, `{"schemaVersion":2,"Manifests":[],"manifests":[%s]}`, encode(t, desc))
		}},
		{"an index of indexes", func(r *registry, desc v1.Descriptor) []byte {
			desc.MediaType = ociIndex
			return encode(t, object{"schemaVersion": 2, "manifests": []any{desc}})
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistry()
			r.manifests[fallbackTag] = tt.put(r, signedBundle(t, r, key, 1))
			want(t, find(t, r, authority(t, "release", key)))
		})
	}
	t.Run("the subject itself", func(t *testing.T) {
		r := newRegistry()
		r.fallback(t, signedBundle(t, r, key, 1))
		itself := verifier.Subject{Repository: repository, Digest: digestOf(r.manifests[fallbackTag])}
		r.manifests["sha256-"+itself.Digest.Hex] = r.manifests[fallbackTag]
		want(t, look(t, r, itself, []verifier.Authority{authority(t, "release", key)}, verifier.Sources(), nil))
		if slices.ContainsFunc(r.asked(), func(s string) bool { return strings.HasPrefix(s, "manifest sha256:") }) {
			t.Errorf("what a signed index lists was opened as its referrers: %v", r.asked())
		}
	})
}

func TestAReferrerThatIsNotWhatItsListSaysIsRejected(t *testing.T) {
	key := newECDSA(t, elliptic.P256())
	data := encode(t, bundle(t, key, crypto.SHA256, statement(subject.Digest, predicateSign)))
	layer := object{"mediaType": bundleType, "size": len(data), "digest": digestOf(data).String()}
	about := object{"digest": subject.Digest.String()}
	for _, tt := range []struct {
		name, want string // want: nothing is found when it is empty
		fields     object
	}{
		{"another subject", "has another subject", object{"layers": []any{layer}, "subject": object{"digest": other.String()}}},
		{"no subject", `has another subject: ""`, object{"layers": []any{layer}}},
		{"a subject in capitals", `has another subject: ""`, object{"layers": []any{layer}, "SUBJECT": about}},
		{"an index", "is not an image manifest's", object{"mediaType": ociIndex, "manifests": []any{layer}, "subject": about}},
		{"an index and an image", "it is an index, or both", object{"manifests": []any{}, "layers": []any{layer}, "subject": about}},
		{"no layers", "it has no list of layers", object{"subject": about}},
		{"a layer that is too large", "declares 1048577 bytes", object{"subject": about, "layers": []any{
			object{"mediaType": bundleType, "size": 1<<20 + 1, "digest": digestOf(data).String()}}}},
		{"a layer whose size is another", "", object{"subject": about, "layers": []any{
			object{"mediaType": bundleType, "size": len(data) - 1, "digest": digestOf(data).String()}}}},
		{"a layer that is missing", "is missing", object{"subject": about, "layers": []any{
			object{"mediaType": bundleType, "size": 3, "digest": other.String()}}}},
		{"a compressed layer", "", object{"subject": about, "layers": []any{
			object{"mediaType": bundleType + "+gzip", "size": len(data), "digest": digestOf(data).String()}}}},
		{"too large", "of which at most 1048576 are read", object{"layers": []any{layer}, "subject": about, "x": strings.Repeat("x", 1<<20)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistry()
			r.blobs[digestOf(data)] = data
			fields := object{"schemaVersion": 2, "mediaType": ociManifest, "artifactType": bundleType}
			for name, value := range tt.fields {
				fields[name] = value
			}
			r.listed = []v1.Descriptor{r.referrer(t, fields)}
			report := find(t, r, authority(t, "release", key))
			if anyVerified(report.Evidence) {
				t.Fatalf("verified: %+v", report)
			}
			if tt.want == "" {
				if len(report.Evidence) > 0 {
					t.Errorf("evidence %+v", report.Evidence)
				}
				return
			}
			if len(report.Evidence) != 1 || report.Evidence[0].Reason() != "payload-invalid" || !strings.Contains(report.Evidence[0].Detail(), tt.want) {
				t.Errorf("report %+v", report)
			}
		})
	}
	t.Run("missing", func(t *testing.T) {
		r := newRegistry()
		r.listed = []v1.Descriptor{{MediaType: ociManifest, ArtifactType: bundleType, Digest: other, Size: 9}}
		report := find(t, r, authority(t, "release", key))
		want(t, report, outcome{Source: "referrer " + other.String(), Reason: "payload-invalid"})
	})
	t.Run("other bytes", func(t *testing.T) {
		r := newRegistry()
		r.listed = []v1.Descriptor{signedBundle(t, r, key, 1)}
		r.manifests[r.listed[0].Digest.String()] = manifestOf(t)
		report := find(t, r, authority(t, "release", key))
		if len(report.Evidence) > 0 || len(report.Failures) != 1 || !strings.Contains(report.Failures[0].Err.Error(), "delivered other bytes") {
			t.Errorf("report %+v", report)
		}
	})
}

func TestASignatureImageWithASubjectIsFound(t *testing.T) {
	key := newECDSA(t, elliptic.P256())
	r := newRegistry()
	p := payload(t, subject.Digest, nil)
	const config = "application/vnd.dev.cosign.artifact.sig.v1+json"
	desc := r.referrer(t, object{
		"schemaVersion": 2, "mediaType": ociManifest,
		"config":  object{"mediaType": config, "size": 2, "digest": other.String()},
		"layers":  []any{r.layer(p, sign(t, key, crypto.SHA256, p))},
		"subject": object{"digest": subject.Digest.String()},
	})
	r.listed = []v1.Descriptor{retyped(desc, config)}
	report := find(t, r, authority(t, "release", key))
	want(t, report, outcome{Source: source(desc), Authorities: []string{"release"}})
	if e := report.Evidence[0]; e.Form() != verifier.FormSimpleSigning || e.ClaimedName() != repository {
		t.Errorf("form %s, name %s", e.Form(), e.ClaimedName())
	}
}

// No form masks another, and one key is one signer in all of them.
func TestAllFormsCount(t *testing.T) {
	key, stranger := newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P256())
	r := newRegistry()
	r.tag(t, sigTag, signed(t, r, key, 1))
	foreign, own := signedBundle(t, r, stranger, 1), signedBundle(t, r, key, 2)
	r.listed = []v1.Descriptor{foreign, own}
	report := find(t, r, authority(t, "release", key))
	want(t, report,
		outcome{Source: sigTag, Authorities: []string{"release"}},
		outcome{Source: source(foreign), Reason: "untrusted"},
		outcome{Source: source(own), Authorities: []string{"release"}})
	for _, e := range []verifier.Evidence{report.Evidence[0], report.Evidence[2]} {
		if e.KeyID() != keyOf(t, key).ID() {
			t.Errorf("key %s", e.KeyID())
		}
	}
}

// A layer that calls a good bundle something else does not stand in for one that
// does not.
func TestABundleUnderAnotherMediaTypeMasksNothing(t *testing.T) {
	key := newECDSA(t, elliptic.P256())
	r := newRegistry()
	data := encode(t, bundle(t, key, crypto.SHA256, statement(subject.Digest, predicateSign)))
	wrong := r.artifact(t, "application/vnd.dev.sigstore.bundle+json;version=0.1", data)
	good := r.artifact(t, bundleType, data)
	r.listed = []v1.Descriptor{wrong, good}
	want(t, find(t, r, authority(t, "release", key)),
		outcome{Source: source(wrong), Reason: "payload-invalid"},
		outcome{Source: source(good), Authorities: []string{"release"}})
}

func TestTenThousandReferrersAreBounded(t *testing.T) {
	key, stranger := newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P256())
	release := authority(t, "release", key)
	fill := func(t *testing.T, r *registry, n int) []v1.Descriptor {
		listed := make([]v1.Descriptor, n)
		for i := range listed {
			if i < verifier.MaxReferrers+10 {
				listed[i] = signedBundle(t, r, stranger, i)
			} else {
				listed[i] = v1.Descriptor{ArtifactType: bundleType, Digest: digestOf(fmt.Append(nil, i))}
			}
		}
		return listed
	}
	opened := func(r *registry) int {
		return len(slices.DeleteFunc(r.asked(), func(s string) bool { return !strings.HasPrefix(s, "manifest sha256:") }))
	}
	for _, tt := range []struct {
		name string
		put  func(r *registry, listed []v1.Descriptor)
	}{
		{"by the API", func(r *registry, listed []v1.Descriptor) { r.listed = listed }},
		{"by the API, cut", func(r *registry, listed []v1.Descriptor) { r.listed, r.listErr = listed[:1000], verifier.ErrMore }},
		{"by the fallback tag", func(r *registry, listed []v1.Descriptor) { r.fallback(t, listed...) }},
		{"by both", func(r *registry, listed []v1.Descriptor) {
			r.listed = listed[:40]
			r.fallback(t, listed[40:]...)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistry()
			tt.put(r, fill(t, r, 10_000))
			report := find(t, r, release)
			if !report.TooMany || len(report.Failures) > 0 || opened(r) != verifier.MaxReferrers || len(report.Evidence) > verifier.MaxSignatures {
				t.Errorf("too many %v, failures %v, %d opened, %d pieces of evidence", report.TooMany, report.Failures, opened(r), len(report.Evidence))
			}
		})
	}
	t.Run("what lies within the limit is evaluated", func(t *testing.T) {
		r := newRegistry()
		r.listed = append(fill(t, r, 50), signedBundle(t, r, key, 0))
		report := look(t, r, subject, []verifier.Authority{release}, verifier.Sources(), anyVerified)
		if !anyVerified(report.Evidence) || report.TooMany {
			t.Errorf("report %+v", report)
		}
	})
	t.Run("what says that it is a signature comes first", func(t *testing.T) {
		r := newRegistry()
		good := signedBundle(t, r, key, 0)
		good.Annotations = map[string]string{"dev.sigstore.bundle.predicateType": predicateSign}
		r.listed = append(fill(t, r, 1000), good)
		report := look(t, r, subject, []verifier.Authority{release}, verifier.Sources(), anyVerified)
		want(t, report, outcome{Source: source(good), Authorities: []string{"release"}})
	})
	t.Run("a signature tag has its own part", func(t *testing.T) {
		r := newRegistry()
		r.listed = fill(t, r, 10_000)
		r.tag(t, sigTag, append(garbage(r, 0, 10), signed(t, r, key, 0))...)
		report := look(t, r, subject, []verifier.Authority{release}, verifier.Sources(), anyVerified)
		if !anyVerified(report.Evidence) {
			t.Errorf("report %+v", report)
		}
	})
	t.Run("and so has the fallback tag", func(t *testing.T) {
		r := newRegistry()
		r.fallback(t, signedBundle(t, r, key, 0))
		r.tag(t, sigTag, garbage(r, 0, 1000)...)
		report := look(t, r, subject, []verifier.Authority{release}, verifier.Sources(), anyVerified)
		if !anyVerified(report.Evidence) {
			t.Errorf("report %+v", report)
		}
	})
	t.Run("large ones are few", func(t *testing.T) {
		r := newRegistry()
		for i := range verifier.MaxReferrers {
			r.listed = append(r.listed, retyped(r.referrer(t, object{"n": i, "x": strings.Repeat("x", 3<<20)}), bundleType))
		}
		if report := find(t, r, release); !report.TooMany || opened(r) > 8 {
			t.Errorf("too many %v, %d opened", report.TooMany, opened(r))
		}
	})
}

// The fallback tag is asked for when the rest does not suffice, or is slow.
func TestTheFallbackTagIsAskedForLast(t *testing.T) {
	key := newECDSA(t, elliptic.P256())
	release := []verifier.Authority{authority(t, "release", key)}
	for _, tt := range []struct {
		name  string
		sig   time.Duration // or of the API, when it is less than nothing
		put   func(t *testing.T, r *registry)
		asked bool
		took  time.Duration
	}{
		{"a signature that comes soon", 900 * time.Millisecond, func(t *testing.T, r *registry) { r.tag(t, sigTag, signed(t, r, key, 1)) }, false, 900 * time.Millisecond},
		{"a bundle of the API's", 0, func(t *testing.T, r *registry) { r.listed = []v1.Descriptor{signedBundle(t, r, key, 1)} }, false, 0},
		{"no signature", 300 * time.Millisecond, func(*testing.T, *registry) {}, true, 300 * time.Millisecond},
		{"a tag that hangs", time.Hour, func(t *testing.T, r *registry) { r.fallback(t, signedBundle(t, r, key, 1)) }, true, time.Second},
		{"an API that hangs", -time.Hour, func(t *testing.T, r *registry) { r.fallback(t, signedBundle(t, r, key, 1)) }, true, verifier.DecisionTime / 2},
		{"more signatures than a part", 0, func(t *testing.T, r *registry) {
			r.tag(t, sigTag, garbage(r, 0, 60)...)
			r.fallback(t, signedBundle(t, r, key, 1))
		}, true, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRegistry()
				tt.put(t, r)
				r.onManifest = func(ctx context.Context, reference string) {
					delay := time.Duration(0)
					switch reference {
					case sigTag:
						delay = tt.sig
					case "referrers":
						delay = -tt.sig
					}
					select {
					case <-time.After(delay):
					case <-ctx.Done():
					}
				}
				begun := time.Now()
				verifier.Verify(t.Context(), r, subject, release, verifier.Sources(), anyVerified)
				if took := time.Since(begun); took != tt.took {
					t.Errorf("it took %v, want %v", took, tt.took)
				}
				synctest.Wait()
				if asked := slices.Contains(r.asked(), "manifest "+fallbackTag); asked != tt.asked {
					t.Errorf("asked for the fallback tag: %v", asked)
				}
			})
		})
	}
}

func TestAPanicWhileReferrersAreOpenedReachesTheCaller(t *testing.T) {
	r := newRegistry()
	r.listed = []v1.Descriptor{signedBundle(t, r, newECDSA(t, elliptic.P256()), 1), signedBundle(t, r, newECDSA(t, elliptic.P256()), 2)}
	r.onManifest = func(_ context.Context, reference string) {
		if reference == r.listed[1].Digest.String() {
			panic("boom")
		}
	}
	defer func() {
		if p, ok := recover().(*verifier.Panic); !ok || p.Value != "boom" {
			t.Errorf("recovered %v", p)
		}
	}()
	verifier.Verify(t.Context(), r, subject, []verifier.Authority{authority(t, "release", newEd25519(t))}, verifier.Sources(), nil)
	t.Error("no panic")
}
