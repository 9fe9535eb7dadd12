package verifier_test

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/verifier"
	"vidimus/verifier/envelope"
)

// verify runs Verify over the tags until somebody has signed.
func verify(t *testing.T, r *registry, authorities ...verifier.Authority) verifier.Report {
	t.Helper()
	return look(t, r, subject, authorities, verifier.Tags(), anyVerified)
}

// want fails unless report is of the given outcomes, and of nothing else.
func want(t *testing.T, report verifier.Report, outcomes_ ...outcome) {
	t.Helper()
	if diff := cmp.Diff(outcomes_, outcomes(report)); diff != "" {
		t.Errorf("evidence (-want +got):\n%s", diff)
	}
	if len(report.Failures) > 0 || report.TooMany {
		t.Errorf("failures %v, too many %v", report.Failures, report.TooMany)
	}
}

func TestVerifiedEvidenceSaysWhatWasSigned(t *testing.T) {
	r, key := newRegistry(), newECDSA(t, elliptic.P256())
	p := payload(t, subject.Digest, map[string]any{"env": "prod"})
	r.tag(t, sigTag, r.layer(p, sign(t, key, crypto.SHA256, p)))
	report := verify(t, r, authority(t, "release", key))
	want(t, report, outcome{Source: sigTag, Authorities: []string{"release"}})
	e := report.Evidence[0]
	got := []string{e.Form(), e.Source(), e.Digest().String(), e.KeyID(), e.ClaimedName(), e.Detail()}
	if diff := cmp.Diff([]string{"simple-signing", sigTag, digestOf(p).String(), keyOf(t, key).ID(), repository, ""}, got); diff != "" {
		t.Error(diff)
	}
}

func TestUnsignedPullAsksForBothTags(t *testing.T) {
	r := newRegistry()
	want(t, verify(t, r, authority(t, "release", newECDSA(t, elliptic.P256()))))
	if diff := cmp.Diff([]string{"manifest " + oldTag, "manifest " + sigTag}, r.asked()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestEveryKindOfKeyVouches(t *testing.T) {
	p := payload(t, subject.Digest, nil)
	for _, tt := range []struct {
		name string
		key  crypto.Signer
		hash crypto.Hash
		ok   bool
	}{
		{"P-256 over SHA-256", newECDSA(t, elliptic.P256()), crypto.SHA256, true},
		{"P-256 over SHA-512, which cosign does not write", newECDSA(t, elliptic.P256()), crypto.SHA512, false},
		{"P-256 over SHA-1", newECDSA(t, elliptic.P256()), crypto.SHA1, false},
		{"P-384 over SHA-384, as cosign v2.6 and v3", newECDSA(t, elliptic.P384()), crypto.SHA384, true},
		{"P-384 over SHA-256, as cosign v1", newECDSA(t, elliptic.P384()), crypto.SHA256, true},
		{"P-521 over SHA-512, as cosign v2.6 and v3", newECDSA(t, elliptic.P521()), crypto.SHA512, true},
		{"P-521 over SHA-256, as cosign v1", newECDSA(t, elliptic.P521()), crypto.SHA256, true},
		{"P-521 over SHA-384, which cosign does not write", newECDSA(t, elliptic.P521()), crypto.SHA384, false},
		{"Ed25519", newEd25519(t), 0, true},
		{"Ed25519ph", newEd25519(t), crypto.SHA512, true},
		{"RSA over SHA-256", newRSA(t, 2048), crypto.SHA256, true},
		{"RSA over SHA-512, which cosign does not write", newRSA(t, 2048), crypto.SHA512, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistry()
			r.tag(t, sigTag, r.layer(p, sign(t, tt.key, tt.hash, p)))
			expected := outcome{Source: sigTag, Reason: "untrusted"}
			if tt.ok {
				expected = outcome{Source: sigTag, Authorities: []string{"release"}}
			}
			want(t, verify(t, r, authority(t, "release", tt.key)), expected)
		})
	}
}

func TestALegacySignatureInTheLegacyTagIsVerified(t *testing.T) {
	key := newECDSA(t, elliptic.P256())
	p, err := envelope.EncodePayload(envelope.Payload{Form: envelope.Legacy, Digest: subject.Digest.String()})
	if err != nil {
		t.Fatal(err)
	}
	r := newRegistry()
	r.tag(t, oldTag, r.layer(p, sign(t, key, crypto.SHA256, p)))
	want(t, verify(t, r, authority(t, "release", key)), outcome{Source: oldTag, Authorities: []string{"release"}})
}

func TestOnePayloadInBothTagsIsFetchedOnce(t *testing.T) {
	key, stranger := newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P256())
	p := payload(t, subject.Digest, map[string]any{"env": "prod"})
	r := newRegistry()
	r.tag(t, sigTag, r.layer(p, sign(t, stranger, crypto.SHA256, p)))
	r.tag(t, oldTag, r.layer(p, sign(t, key, crypto.SHA256, p)))
	want(t, look(t, r, subject, []verifier.Authority{authority(t, "release", key)}, verifier.Tags(), nil),
		outcome{Source: sigTag, Reason: "untrusted"}, outcome{Source: oldTag, Authorities: []string{"release"}})
	if diff := cmp.Diff([]string{"blob " + digestOf(p).String(), "manifest " + oldTag, "manifest " + sigTag}, r.asked()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestAKeyVouchesForEveryAuthorityThatHoldsIt(t *testing.T) {
	key, unused := newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P256())
	p := payload(t, subject.Digest, map[string]any{"env": "prod"})
	r := newRegistry()
	r.tag(t, sigTag, r.layer(p, sign(t, key, crypto.SHA256, p)))
	suspended := authority(t, "gone", key)
	suspended.Suspended = "gone.pub does not exist"
	report := verify(t, r, authority(t, "other", unused), authority(t, "b", unused, key, key), suspended, authority(t, "a", key))
	want(t, report, outcome{Source: sigTag, Authorities: []string{"b", "a"}})

	t.Run("a suspended authority's keys vouch for nothing", func(t *testing.T) {
		want(t, verify(t, r, suspended), outcome{Source: sigTag, Reason: "untrusted"})
		want(t, verify(t, r, suspended, authority(t, "other", unused)), outcome{Source: sigTag, Reason: "untrusted"})
	})
	t.Run("no authority, an empty one and a zero key vouch for nothing, and nothing is fetched for them", func(t *testing.T) {
		r.forget()
		want(t, verify(t, r), outcome{Source: sigTag, Reason: "untrusted"})
		want(t, verify(t, r, verifier.Authority{Name: "empty"}), outcome{Source: sigTag, Reason: "untrusted"})
		want(t, verify(t, r, verifier.Authority{Name: "zero", Keys: []verifier.Key{{}}}), outcome{Source: sigTag, Reason: "untrusted"})
		if fetched := r.fetched(); len(fetched) > 0 {
			t.Errorf("requests: %v", fetched)
		}
	})
}

func TestCopiesOfASignatureCostOneCheck(t *testing.T) {
	key := newECDSA(t, elliptic.P256())
	p := payload(t, subject.Digest, map[string]any{"env": "prod"})
	signature := sign(t, key, crypto.SHA256, p)
	r := newRegistry()
	copies := slices.Repeat([]layer{r.layer(p, signature)}, 500)
	r.tag(t, sigTag, append(copies, r.layer(p, malleate(t, key, signature)))...)
	report := look(t, r, subject, []verifier.Authority{authority(t, "release", key)}, verifier.Tags(), nil)
	// A11: a malleated copy is a second signature by the same key, and no more.
	want(t, report, outcome{Source: sigTag, Authorities: []string{"release"}}, outcome{Source: sigTag, Authorities: []string{"release"}})
	if report.Evidence[0].KeyID() != report.Evidence[1].KeyID() {
		t.Error("one key counts as two")
	}
	if diff := cmp.Diff([]string{"blob " + digestOf(p).String()}, r.fetched()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestAtMost64SignaturesAreTried(t *testing.T) {
	key, stranger := newECDSA(t, elliptic.P256()), newEd25519(t)
	p := payload(t, subject.Digest, nil)
	good := sign(t, key, crypto.SHA256, p)
	garbage := func(r *registry, n int) []layer {
		layers := make([]layer, n)
		for i := range layers {
			signature := sign(t, stranger, 0, []byte{byte(i), byte(i >> 8)})
			layers[i] = r.layer(p, signature)
		}
		return layers
	}
	for _, tt := range []struct {
		name             string
		before, after    int
		verified, toMany bool
	}{
		{"the last of 64 counts", 63, 0, true, false},
		{"the last of 64 counts when there are more", 63, 100, true, false},
		{"one among more than 64 counts", 30, 100, true, false},
		{"the first of many counts", 0, 2000, true, false},
		{"64 that do not satisfy are not too many", 64, -1, false, false},
		{"the 65th is not tried", 64, 0, false, true},
		{"one good after 999 bad", 999, 0, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistry()
			layers := garbage(r, tt.before)
			if tt.after >= 0 {
				layers = append(append(layers, r.layer(p, good)), garbage(r, tt.before+tt.after)[tt.before:]...)
			}
			r.tag(t, sigTag, layers...)
			report := verify(t, r, authority(t, "release", key))
			if anyVerified(report.Evidence) != tt.verified || report.TooMany != tt.toMany {
				t.Errorf("verified %v, too many %v", anyVerified(report.Evidence), report.TooMany)
			}
			if len(report.Evidence) > verifier.MaxSignatures || len(report.Failures) > 0 {
				t.Errorf("%d pieces of evidence, failures %v", len(report.Evidence), report.Failures)
			}
		})
	}
}

func TestWhatCannotBeReadIsAFailureAndMasksNothing(t *testing.T) {
	key := newECDSA(t, elliptic.P256())
	release := authority(t, "release", key)
	down := errors.New("upstream example: 503")
	first, second := payload(t, subject.Digest, map[string]any{"n": "1"}), payload(t, subject.Digest, map[string]any{"n": "2"})
	build := func() *registry {
		r := newRegistry()
		r.tag(t, sigTag, r.layer(first, sign(t, key, crypto.SHA256, first)))
		r.tag(t, oldTag, r.layer(second, sign(t, key, crypto.SHA256, second)))
		return r
	}
	t.Run("a tag that cannot be read, and one that can", func(t *testing.T) {
		r := build()
		r.errs[sigTag] = down
		report := verify(t, r, release)
		if !anyVerified(report.Evidence) {
			t.Errorf("not verified: %+v", report)
		}
	})
	t.Run("both tags", func(t *testing.T) {
		r := build()
		r.errs[sigTag], r.errs[oldTag] = down, fs.ErrPermission
		report := verify(t, r, release)
		failures := []verifier.SourceFailure{{Source: ".sig tag", Err: down}, {Source: ".cosign tag", Err: fs.ErrPermission}}
		if len(report.Evidence) > 0 || !slices.Equal(report.Failures, failures) {
			t.Fatalf("report %+v", report)
		}
	})
	t.Run("a tag that cannot be read after one that does not satisfy", func(t *testing.T) {
		r := build()
		r.errs[oldTag] = down
		report := verify(t, r, authority(t, "other", newECDSA(t, elliptic.P256())))
		if len(report.Evidence) != 1 || len(report.Failures) != 1 || !errors.Is(report.Failures[0].Err, down) {
			t.Errorf("report %+v", report)
		}
	})
	t.Run("a payload that cannot be read, and one that can", func(t *testing.T) {
		r := build()
		r.errs[digestOf(first).String()] = down
		report := look(t, r, subject, []verifier.Authority{release}, verifier.Tags(), nil)
		if !anyVerified(report.Evidence) || len(report.Failures) != 1 || !errors.Is(report.Failures[0].Err, down) {
			t.Errorf("report %+v", report)
		}
	})
}

func TestPayloadsAreFetchedTogetherAndReportedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, key := newRegistry(), newECDSA(t, elliptic.P256())
		var layers []layer
		var order []string
		for i := range 17 {
			p := payload(t, subject.Digest, map[string]any{"n": i})
			layers = append(layers, r.layer(p, sign(t, key, crypto.SHA256, p)))
			order = append(order, digestOf(p).String())
		}
		r.tag(t, sigTag, layers...)
		// The first is fetched alone, then eight at a time: each of these waits
		// for its seven companions, and time passes only when all do.
		var running, most atomic.Int32
		r.onBlob = func(context.Context, v1.Hash) {
			most.Store(max(most.Load(), running.Add(1)))
			time.Sleep(time.Second)
			running.Add(-1)
		}
		start := time.Now()
		report := verifier.Verify(t.Context(), r, subject, []verifier.Authority{authority(t, "release", key)}, verifier.Tags(), nil)
		var got []string
		for _, e := range report.Evidence {
			got = append(got, e.Digest().String())
		}
		if diff := cmp.Diff(order, got); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
		if took := time.Since(start); most.Load() != 8 || took != 3*time.Second {
			t.Errorf("%d fetches at once, in %v", most.Load(), took)
		}
	})
}

func TestEvidenceIsImmutableAndRecorded(t *testing.T) {
	if (verifier.Evidence{}).Verified() {
		t.Error("the zero evidence is verified")
	}
	r, key := newRegistry(), newECDSA(t, elliptic.P256())
	p := payload(t, subject.Digest, map[string]any{"list": []any{"a"}, "n": 1})
	r.tag(t, sigTag, r.layer(p, sign(t, key, crypto.SHA256, p)))
	e := verify(t, r, authority(t, "release", key)).Evidence[0]
	e.Annotations()["list"].([]any)[0] = "changed"
	e.Authorities()[0] = "changed"
	got, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	expected := `{"form":"simple-signing","source":"` + sigTag + `","digest":"` + digestOf(p).String() + `","verified":true,"keyID":"` +
		keyOf(t, key).ID() + `","untimed":"it has neither a log entry nor a timestamp","authorities":["release"],"claimedName":"` + repository + `","annotations":{"list":["a"],"n":1}}`
	if diff := cmp.Diff(expected, string(got)); diff != "" {
		t.Error(diff)
	}
	got, err = json.Marshal(verifier.Evidence{})
	if want := `{"form":"","source":"","verified":false}`; err != nil || string(got) != want {
		t.Errorf("the zero evidence is %s, %v", got, err)
	}
}

func TestOnlySha256SubjectsHaveSignatureTags(t *testing.T) {
	r := newRegistry()
	long := verifier.Subject{Repository: repository, Digest: v1.Hash{Algorithm: "sha512", Hex: strings.Repeat("0", 128)}}
	for _, s := range []verifier.Subject{long, {Repository: repository}} {
		report := look(t, r, s, nil, verifier.Tags(), nil)
		if len(report.Evidence) > 0 || len(report.Failures) > 0 || len(r.asked()) > 0 {
			t.Errorf("report %+v after %v", report, r.asked())
		}
	}
}
