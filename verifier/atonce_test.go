package verifier_test

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/verifier"
)

// signed returns the layer of a signature by key over a payload that has to be
// fetched; n tells one from another.
func signed(t *testing.T, r *registry, key crypto.Signer, n int) layer {
	t.Helper()
	p := payload(t, subject.Digest, map[string]any{"n": n})
	return r.layer(p, sign(t, key, crypto.SHA256, p))
}

// garbage returns layers of n signatures that are by nobody, without one that is
// the same for another from.
func garbage(r *registry, from, n int) []layer {
	layers := make([]layer, n)
	for i := range layers {
		layers[i] = r.layer([]byte("garbage"), fmt.Appendf(nil, "signature %d", from+i))
	}
	return layers
}

func TestWhatIsLikelyIsAskedAtOnceAndThenTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		r.onManifest = func(context.Context, string) { time.Sleep(100 * time.Millisecond) }
		begun := time.Now()
		report := verifier.Verify(t.Context(), r, subject, nil, verifier.Sources(), anyVerified)
		if took := time.Since(begun); took != 200*time.Millisecond {
			t.Errorf("a tag, and then two tags at once, of 100 ms each took %v", took)
		}
		want(t, report)
		fallback := strings.TrimSuffix(sigTag, ".sig")
		for _, tag := range []string{sigTag, oldTag, fallback} {
			if !slices.Contains(r.asked(), "manifest "+tag) {
				t.Errorf("%s was not asked for: %v", tag, r.asked())
			}
		}
	})
}

func TestNobodyWaitsForASourceOnceThePolicyIsSatisfied(t *testing.T) {
	key := newECDSA(t, elliptic.P256())
	release := []verifier.Authority{authority(t, "release", key)}
	for _, tt := range []struct {
		name  string
		tag   string // where the signature is
		slow  func(reference string) bool
		delay func(ctx context.Context)
		took  time.Duration
	}{
		{"a tag that is slow", sigTag, func(s string) bool { return s == oldTag }, func(ctx context.Context) { <-ctx.Done() }, 0},
		// the tag of old has its turn a second later
		{"the first tag", oldTag, func(s string) bool { return s == sigTag }, func(ctx context.Context) { <-ctx.Done() }, time.Second},
		{"a registry that does not know of cancelling", sigTag, func(s string) bool { return s == oldTag }, func(context.Context) { time.Sleep(time.Hour) }, 0},
		{"a payload that is slow", sigTag, func(s string) bool { return s == digestOf([]byte("garbage")).String() }, func(ctx context.Context) { <-ctx.Done() }, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRegistry()
				r.tag(t, sigTag, garbage(r, 0, 10)...)
				r.tag(t, oldTag, garbage(r, 10, 10)...)
				r.tag(t, tt.tag, append([]layer{signed(t, r, key, 0)}, garbage(r, 20, 10)...)...)
				var entered, cancelled atomic.Bool // what comes too late is not asked at all
				wait := func(ctx context.Context, what string) {
					if tt.slow(what) {
						entered.Store(true)
						tt.delay(ctx)
						cancelled.Store(ctx.Err() != nil)
					}
				}
				r.onManifest = wait
				r.onBlob = func(ctx context.Context, digest v1.Hash) { wait(ctx, digest.String()) }
				begun := time.Now()
				report := verifier.Verify(t.Context(), r, subject, release, verifier.Tags(), anyVerified)
				if took := time.Since(begun); took != tt.took {
					t.Errorf("it took %v", took)
				}
				want(t, report, outcome{Source: tt.tag, Authorities: []string{"release"}})
				synctest.Wait()
				before := len(r.asked())
				time.Sleep(2 * time.Hour)
				if entered.Load() != cancelled.Load() || len(r.asked()) != before || len(report.Evidence) != 1 {
					t.Errorf("cancelled %v, requests %v, report %+v", cancelled.Load(), r.asked(), report)
				}
			})
		})
	}
	t.Run("and nothing more is fetched than the first signature needs", func(t *testing.T) {
		r := newRegistry()
		var layers []layer
		for i := range 10 {
			layers = append(layers, signed(t, r, key, i))
		}
		r.tag(t, sigTag, layers...)
		want(t, verify(t, r, release...), outcome{Source: sigTag, Authorities: []string{"release"}})
		if diff := cmp.Diff([]string{"blob " + layers[0]["digest"].(string)}, r.fetched()); diff != "" {
			t.Errorf("payloads (-want +got):\n%s", diff)
		}
	})
}

func TestWhatDoesNotSatisfyWaitsForAllSources(t *testing.T) {
	down := errors.New("upstream example: 503")
	stranger, key := newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P256())
	for _, slow := range []string{sigTag, oldTag} {
		synctest.Test(t, func(t *testing.T) {
			r := newRegistry()
			r.tag(t, sigTag, signed(t, r, stranger, 0))
			r.errs[oldTag] = down
			r.onManifest = func(_ context.Context, reference string) {
				if reference == slow {
					time.Sleep(time.Minute)
				}
			}
			report := verifier.Verify(t.Context(), r, subject, []verifier.Authority{authority(t, "release", key)}, verifier.Tags(), anyVerified)
			if diff := cmp.Diff([]outcome{{Source: sigTag, Reason: "untrusted"}}, outcomes(report)); diff != "" {
				t.Errorf("%s is slow: evidence (-want +got):\n%s", slow, diff)
			}
			if !slices.Equal(report.Failures, []verifier.SourceFailure{{Source: ".cosign tag", Err: down}}) {
				t.Errorf("%s is slow: failures %v", slow, report.Failures)
			}
		})
	}
}

// What the registry holds decides; who answers first does not.
func TestTheOutcomeDoesNotDependOnWhoIsFaster(t *testing.T) {
	key := newECDSA(t, elliptic.P256())
	release := []verifier.Authority{authority(t, "release", key)}
	const mebi = verifier.MaxPayloadSize
	for _, tt := range []struct {
		name              string
		sig, old          int    // pieces of garbage in each tag; below zero: over payloads of 1 MiB
		place             string // the tag of the good one
		at, size          int    // its place among the garbage, and the size of its payload
		verified, tooMany bool
	}{
		{"nothing good", 10, 10, "", 0, 0, false, false},
		{"nothing good in as many as are tried", 32, 32, "", 0, 0, false, false},
		{"nothing good in more", 33, 32, "", 0, 0, false, true},
		{"a good one behind garbage in the other tag", 1000, 0, oldTag, 0, 0, true, false},
		{"the last of a tag's part", 1000, 1000, sigTag, 31, 0, true, false},
		{"the last of the other tag's part", 1000, 1000, oldTag, 31, 0, true, false},
		{"one beyond a tag's part", 1000, 1000, sigTag, 32, 0, false, true},
		{"one beyond the other tag's part", 1000, 1000, oldTag, 32, 0, false, true},
		{"in what the other tag leaves over", 1000, 10, sigTag, 53, 0, true, false},
		{"beyond what the other tag leaves over", 1000, 10, sigTag, 54, 0, false, true},
		{"in what the first tag leaves over", 10, 1000, oldTag, 53, 0, true, false},
		{"beyond what the first tag leaves over", 10, 1000, oldTag, 54, 0, false, true},
		{"a good one behind large garbage in the other tag", -64, 0, oldTag, 0, 0, true, false},
		{"a large good one behind large garbage in the other tag", -64, 0, oldTag, 0, mebi, true, false},
		{"the last bytes of a part", -64, -64, oldTag, 27, mebi, true, false},
		{"bytes beyond a part", -64, -64, oldTag, 28, mebi, false, true},
		{"a few bytes beyond a part", -64, -64, oldTag, 28, 0, false, true},
		{"bytes that the other tag leaves over", -64, 3, sigTag, 54, mebi, true, false},
		{"bytes beyond what the other tag leaves over", -64, 3, sigTag, 55, mebi, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistry()
			for tag, n := range map[string]int{sigTag: tt.sig, oldTag: tt.old} {
				layers := garbage(r, 0, max(n, 0))
				for i := range -n {
					layers = append(layers, r.layer(append(make([]byte, mebi-1), byte(i)), []byte(tag)))
				}
				if tag == tt.place {
					p := payload(t, subject.Digest, map[string]any{"pad": ""})
					p = payload(t, subject.Digest, map[string]any{"pad": strings.Repeat("x", max(0, tt.size-len(p)))})
					layers = slices.Insert(layers, tt.at, r.layer(p, sign(t, key, crypto.SHA256, p)))
				}
				r.tag(t, tag, layers...)
			}
			var reported [][]outcome
			for _, slow := range []string{sigTag, oldTag} {
				r.onManifest = func(_ context.Context, reference string) {
					if reference == slow {
						time.Sleep(time.Minute)
					}
				}
				report := look(t, r, subject, release, verifier.Tags(), anyVerified)
				if anyVerified(report.Evidence) != tt.verified || report.TooMany != tt.tooMany || len(report.Failures) > 0 {
					t.Errorf("%s is slow: verified %v, too many %v, failures %v", slow, anyVerified(report.Evidence), report.TooMany, report.Failures)
				}
				if len(report.Evidence) > verifier.MaxSignatures {
					t.Errorf("%s is slow: %d pieces of evidence", slow, len(report.Evidence))
				}
				reported = append(reported, outcomes(report))
			}
			if diff := cmp.Diff(reported[0], reported[1]); !tt.verified && diff != "" {
				t.Errorf("what is reported depends on who is slow:\n%s", diff)
			}
		})
	}
}

func TestVerifyEndsWithItsContext(t *testing.T) {
	release := []verifier.Authority{authority(t, "release", newECDSA(t, elliptic.P256()))}
	for _, hang := range []func(ctx context.Context){
		func(ctx context.Context) { <-ctx.Done() },
		func(context.Context) { time.Sleep(time.Hour) },
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRegistry()
			r.tag(t, sigTag, garbage(r, 0, 3)...)
			r.onManifest = func(ctx context.Context, reference string) {
				if reference == oldTag {
					hang(ctx)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			begun := time.Now()
			report := verifier.Verify(ctx, r, subject, release, verifier.Tags(), anyVerified)
			if took := time.Since(begun); took != time.Second {
				t.Errorf("it took %v", took)
			}
			if len(report.Evidence) != 3 || !slices.Equal(report.Failures, []verifier.SourceFailure{{Source: ".cosign tag", Err: context.DeadlineExceeded}}) {
				t.Errorf("report %+v", report)
			}
			time.Sleep(2 * time.Hour)
		})
	}
	t.Run("or at once when that has ended before", func(t *testing.T) {
		r, key := newRegistry(), newECDSA(t, elliptic.P256())
		r.tag(t, sigTag, signed(t, r, key, 0))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		report := verifier.Verify(ctx, r, subject, []verifier.Authority{authority(t, "release", key)}, verifier.Tags(), anyVerified)
		failed := slices.ContainsFunc(report.Failures, func(f verifier.SourceFailure) bool {
			return f.Source == ".sig tag" && errors.Is(f.Err, context.Canceled)
		})
		if len(report.Evidence) > 0 || !failed {
			t.Errorf("report %+v", report)
		}
	})
}

func TestAPanicReachesTheCaller(t *testing.T) {
	key := newECDSA(t, elliptic.P256())
	broken := func(what string) { panic("broken " + what) }
	for _, tt := range []struct {
		name      string
		break_    func(r *registry)
		satisfied func([]verifier.Evidence) bool
	}{
		{"tag", func(r *registry) { r.onManifest = func(context.Context, string) { broken("tag") } }, nil},
		{"payload", func(r *registry) {
			r.onBlob = func(_ context.Context, digest v1.Hash) {
				if digest == digestOf(payload(t, subject.Digest, map[string]any{"n": 5})) { // one of eight at once
					broken("payload")
				}
			}
		}, nil},
		{"policy", func(*registry) {}, func([]verifier.Evidence) bool { broken("policy"); return false }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRegistry()
				var layers []layer
				for i := range 6 {
					layers = append(layers, signed(t, r, key, i))
				}
				r.tag(t, sigTag, layers...)
				tt.break_(r)
				defer func() {
					p, ok := recover().(*verifier.Panic)
					if !ok || p.Value != "broken "+tt.name || !strings.Contains(string(p.Stack), "atonce_test.go") {
						t.Errorf("recovered %v", p)
					}
				}()
				verifier.Verify(t.Context(), r, subject, []verifier.Authority{authority(t, "release", key)}, verifier.Tags(), tt.satisfied)
				t.Error("it returned")
			})
		})
	}
	t.Run("unless it has gone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRegistry()
			r.tag(t, sigTag, signed(t, r, key, 0))
			r.onManifest = func(ctx context.Context, reference string) {
				if reference == oldTag {
					<-ctx.Done()
					broken("tag")
				}
			}
			want(t, verifier.Verify(t.Context(), r, subject, []verifier.Authority{authority(t, "release", key)}, verifier.Tags(), anyVerified),
				outcome{Source: sigTag, Authorities: []string{"release"}})
		})
	})
}

// expectant is a registry that is told of the first candidate.
type expectant struct {
	*registry
	told chan []string // what had been asked for by then
}

func (e expectant) CandidateFound() { e.told <- e.asked() }

func TestTheRegistryIsToldOfTheFirstCandidateBeforeAnythingElse(t *testing.T) {
	key := newECDSA(t, elliptic.P256())
	release := authority(t, "release", key)
	good := func(r *registry) layer { return signed(t, r, key, 0) }
	for _, tt := range []struct {
		name        string
		layers      func(r *registry) []layer
		authorities []verifier.Authority
		told        bool
	}{
		{"a signature", func(r *registry) []layer { return []layer{good(r)} }, []verifier.Authority{release}, true},
		{"several", func(r *registry) []layer { return append(garbage(r, 0, 20), good(r)) }, []verifier.Authority{release}, true},
		{"one behind what is malformed", func(r *registry) []layer { return []layer{good(r).with("size", 0), good(r)} }, []verifier.Authority{release}, true},
		{"only what is malformed", func(r *registry) []layer { return []layer{good(r).with("size", 0)} }, []verifier.Authority{release}, false},
		{"layers of another kind", func(r *registry) []layer { return []layer{good(r).with("mediaType", "text/plain")} }, []verifier.Authority{release}, false},
		{"a signature that no key can be tried on", func(r *registry) []layer { return []layer{good(r)} }, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := expectant{newRegistry(), make(chan []string, 10)}
			layers := tt.layers(r.registry)
			r.tag(t, sigTag, layers...)
			r.tag(t, oldTag, layers...)
			look(t, r, subject, tt.authorities, verifier.Tags(), nil)
			if told := len(r.told); told > 1 || (told == 1) != tt.told {
				t.Fatalf("told %d times", told)
			}
			if tt.told {
				if asked := <-r.told; slices.ContainsFunc(asked, func(s string) bool { return strings.HasPrefix(s, "blob") }) {
					t.Errorf("told after %v", asked)
				}
			}
		})
	}
}
