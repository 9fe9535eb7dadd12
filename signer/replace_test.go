package signer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/verifier/envelope"
)

const (
	scanType   = "https://scan.example/v1"
	sourceType = "https://source.example/v1"
)

// attested asks for an attestation that says what.
func attested(subject v1.Hash, predicateType, what string) Request {
	r := request(subject)
	r.PredicateType, r.Predicate = predicateType, json.RawMessage(`{"says":"`+what+`"}`)
	return r
}

// said returns what the attestations say that are there, each as its type and predicate,
// under the tag and among the referrers, sorted. Signatures are "signed".
func (r *testRegistry) said(t *testing.T, subject v1.Hash) (tagged, referring []string) {
	t.Helper()
	quiet := &testRegistry{handler: r.handler, lists: r.lists}
	tell := func(statement []byte) string {
		parsed, err := envelope.ParseStatement(statement)
		if err != nil {
			t.Fatal(err)
		}
		var p struct{ Predicate struct{ Says string } }
		if err := json.Unmarshal(statement, &p); err != nil {
			t.Fatal(err)
		}
		if parsed.PredicateType == envelope.PredicateCosignSign {
			return "signed"
		}
		return strings.Split(parsed.PredicateType, "/")[2] + " " + p.Predicate.Says
	}
	if data, err := quiet.Manifest(t.Context(), testRepository, AttestationTag(subject)); err == nil {
		img, err := parseSignatureImage(data)
		if err != nil {
			t.Fatal(err)
		}
		m := new(v1.Manifest)
		if err := json.Unmarshal(data, m); err != nil {
			t.Fatal(err)
		}
		r.checkConfig(t, m)
		for _, layer := range img.layers {
			digest, err := v1.NewHash(layer.digest)
			if err != nil {
				t.Fatal(err)
			}
			parsed, err := envelope.ParseEnvelope(r.blob(t, digest))
			if err != nil {
				tagged = append(tagged, "unreadable")
				continue
			}
			tagged = append(tagged, tell(parsed.Statement))
		}
	}
	listed, err := quiet.Referrers(t.Context(), testRepository, subject)
	if err != nil {
		t.Fatal(err)
	}
	for _, desc := range listed {
		data, err := quiet.Manifest(t.Context(), testRepository, desc.Digest.String())
		if err != nil {
			t.Fatalf("listed, and gone: %s", desc.Digest)
		}
		var m referrer
		if err := json.Unmarshal(data, &m); err != nil {
			t.Fatal(err)
		}
		b, err := envelope.ParseBundle(envelope.MediaTypeBundle, r.blob(t, m.Layers[0].Digest))
		if err != nil {
			t.Fatal(err)
		}
		referring = append(referring, tell(b.Statement))
	}
	slices.Sort(tagged)
	slices.Sort(referring)
	return tagged, referring
}

func TestAnAttestationReplacesThoseOfItsTypeAlone(t *testing.T) {
	for _, lists := range []bool{false, true} {
		for name, tt := range map[string]struct {
			formats           []Format
			tagged, referring []string
		}{
			"both":   {nil, []string{"scan.example new", "source.example old"}, []string{"scan.example new", "signed", "source.example old"}},
			"tag":    {[]Format{FormatTag}, []string{"scan.example new", "source.example old"}, []string{"signed", "source.example old"}},
			"bundle": {[]Format{FormatBundle}, []string{"source.example old"}, []string{"scan.example new", "signed", "source.example old"}},
		} {
			t.Run(fmt.Sprintf("%s, lists %t", name, lists), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					reg := newTestRegistry()
					reg.lists = lists
					subject, other := reg.image(t, "v1"), reg.image(t, "v2")
					both := []Format{FormatTag, FormatBundle}
					for _, says := range []string{"old", "older"} { // two signers
						s := mustSigner(t, Config{Registry: reg, Formats: both})
						if _, err := s.Sign(t.Context(), attested(subject, scanType, says), attested(other, scanType, says)); err != nil {
							t.Fatal(err)
						}
					}
					s := mustSigner(t, Config{Registry: reg, Formats: both})
					if _, err := s.Sign(t.Context(), attested(subject, sourceType, "old"), request(subject)); err != nil {
						t.Fatal(err)
					}
					signed, _ := reg.signatures(t, subject)

					r := attested(subject, scanType, "new")
					r.Replace = true
					s = mustSigner(t, Config{Registry: reg, Formats: append([]Format{}, slices.DeleteFunc(slices.Clone(both), func(f Format) bool {
						return tt.formats != nil && !slices.Contains(tt.formats, f)
					})...)})
					results, err := s.Sign(t.Context(), r)
					if err != nil {
						t.Fatal(err)
					}
					for _, result := range results {
						if result.Replaced != 4 || result.Kept {
							t.Errorf("%v: %d replaced, kept %t", result.Format, result.Replaced, result.Kept)
						}
					}
					tagged, referring := reg.said(t, subject)
					if diff := cmp.Diff(tt.tagged, tagged); diff != "" {
						t.Error("under the tag", diff)
					}
					if diff := cmp.Diff(tt.referring, referring); diff != "" {
						t.Error("among the referrers", diff)
					}
					if tagged, referring := reg.said(t, other); len(tagged) != 2 || len(referring) != 2 {
						t.Errorf("of another image: %v, %v", tagged, referring)
					}
					if after, _ := reg.signatures(t, subject); len(after.Layers) != len(signed.Layers) {
						t.Error("a signature went with them")
					}
					results, err = s.Sign(t.Context(), r)
					if err != nil || slices.ContainsFunc(results, func(r Result) bool { return !r.Kept || r.Replaced != 0 }) {
						t.Errorf("again: %+v, %v", results, err)
					}
				})
			})
		}
	}
}

// What is called so and is not stays: the statement tells, not what is written beside it.
func TestOnlyWhatASignedStatementSaysIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newTestRegistry()
		subject, other := reg.image(t, "v1"), reg.image(t, "v2")
		elsewhere := mustSigner(t, Config{Registry: reg})
		if _, err := elsewhere.Sign(t.Context(), attested(other, scanType, "elsewhere")); err != nil {
			t.Fatal(err)
		}
		strange, err := parseSignatureImage(must(reg.Manifest(t.Context(), testRepository, AttestationTag(other))))
		if err != nil {
			t.Fatal(err)
		}
		mislabelled, blob, err := Layer(envelope.MediaTypeDSSE, map[string]string{predicateAnnotation: scanType}, []byte(`{"payloadType":"x"}`))
		if err != nil {
			t.Fatal(err)
		}
		_, err = Add(t.Context(), Config{Registry: reg}, Addition{
			Repository: testRepository, Tag: AttestationTag(subject),
			Descriptors: []json.RawMessage{mislabelled, strange.layers[0].raw}, Blobs: []Blob{blob},
		})
		if err != nil {
			t.Fatal(err)
		}
		r := attested(subject, scanType, "new")
		r.Replace = true
		results, err := mustSigner(t, Config{Registry: reg}).Sign(t.Context(), r)
		if err != nil || results[0].Replaced != 0 {
			t.Errorf("%+v, %v", results, err)
		}
		tagged, _ := reg.said(t, subject)
		if diff := cmp.Diff([]string{"scan.example elsewhere", "scan.example new", "unreadable"}, tagged); diff != "" {
			t.Error(diff)
		}
	})
}

// What is listed, and gone or too large to be read, is not in the way of a new attestation,
// as it is not of a signature. What could not be asked for is.
func TestWhatCannotBeReadIsNotReplaced(t *testing.T) {
	for name, test := range map[string]struct {
		blob  error
		fails bool
	}{
		"gone":      {fs.ErrNotExist, false},
		"too large": {ErrTooLarge, false},
		"not told":  {errors.New("status 503"), true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reg := newTestRegistry()
				subject := reg.image(t, "v1")
				both := []Format{FormatTag, FormatBundle}
				if _, err := mustSigner(t, Config{Registry: reg, Formats: both}).Sign(t.Context(), attested(subject, scanType, "old")); err != nil {
					t.Fatal(err)
				}
				reg.before = func(method, path string) error {
					if method == http.MethodGet && strings.Contains(path, "/blobs/") {
						return test.blob
					}
					return nil
				}
				r := attested(subject, scanType, "new")
				r.Replace = true
				results, err := mustSigner(t, Config{Registry: reg, Formats: both}).Sign(t.Context(), r)
				if (err != nil) != test.fails {
					t.Fatalf("error %v", err)
				}
				if !test.fails && results[0].Replaced != 0 {
					t.Errorf("%d are replaced", results[0].Replaced)
				}
			})
		})
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// Another writer that read before what is replaced was taken away, and writes after,
// brings it back for a moment and loses nothing of its own.
func TestWhatAnotherWriterBringsBackIsReplacedAgain(t *testing.T) {
	for _, after := range []time.Duration{0, 100 * time.Millisecond, SettleFloor * 9 / 10} {
		synctest.Test(t, func(t *testing.T) {
			reg := newTestRegistry()
			subject := reg.image(t, "v1")
			for _, r := range []Request{attested(subject, scanType, "old"), attested(subject, sourceType, "theirs")} {
				if _, err := mustSigner(t, Config{Registry: reg}).Sign(t.Context(), r); err != nil {
					t.Fatal(err)
				}
			}
			tag := AttestationTag(subject)
			path := "/v2/" + testRepository + "/manifests/" + tag
			var writes int
			var theirs []byte
			reg.after = func(method, at string) error {
				if method != http.MethodPut || at != path {
					return nil
				}
				if writes++; writes == 1 { // ours is added; they read
					quiet := &testRegistry{handler: reg.handler}
					theirs = must(quiet.Manifest(context.Background(), testRepository, tag))
				}
				if writes == 2 { // the old one is gone; they write what they read
					go func() {
						time.Sleep(after)
						reg.put(t, tag, types.OCIManifestSchema1, theirs)
					}()
				}
				return nil
			}
			r := attested(subject, scanType, "new")
			r.Replace = true
			if _, err := mustSigner(t, Config{Registry: reg}).Sign(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			reg.after = nil
			tagged, _ := reg.said(t, subject)
			if diff := cmp.Diff([]string{"scan.example new", "source.example theirs"}, tagged); diff != "" {
				t.Errorf("%v after: %s", after, diff)
			}
		})
	}
}

// Several that replace at once lose nobody else's, and what was there before is gone.
func TestManyReplaceAtOnce(t *testing.T) {
	for _, lists := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			reg := newTestRegistry()
			reg.lists = lists
			delay := func(string, string) error {
				time.Sleep(5 * time.Millisecond)
				return nil
			}
			subject := reg.image(t, "v1")
			both := []Format{FormatTag, FormatBundle}
			if _, err := mustSigner(t, Config{Registry: reg, Formats: both}).Sign(t.Context(), attested(subject, scanType, "old")); err != nil {
				t.Fatal(err)
			}
			reg.before, reg.after = delay, delay
			var all sync.WaitGroup
			for i := range 6 {
				says, kind := fmt.Sprint("new", i), scanType
				if i%2 == 1 {
					kind = sourceType // and others that only attest
				}
				r := attested(subject, kind, says)
				r.Replace = kind == scanType
				s := mustSigner(t, Config{Registry: reg, Formats: both})
				all.Go(func() {
					if _, err := s.Sign(t.Context(), r); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			reg.before, reg.after = nil, nil
			tagged, referring := reg.said(t, subject)
			for _, found := range [][]string{tagged, referring} {
				want := []string{"source.example new1", "source.example new3", "source.example new5"}
				theirs := slices.DeleteFunc(slices.Clone(found), func(s string) bool { return !strings.HasPrefix(s, "source") })
				if diff := cmp.Diff(want, theirs); diff != "" {
					t.Error(diff)
				}
				if slices.Contains(found, "scan.example old") || len(found) == len(theirs) {
					t.Errorf("lists %t: %v", lists, found)
				}
			}
		})
	}
}

// A registry that deletes nothing is told of, unless nobody finds any more what it keeps.
func TestReplacingWhereNothingIsDeleted(t *testing.T) {
	for _, lists := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			reg := newTestRegistry()
			reg.lists, reg.keeps = lists, true
			subject := reg.image(t, "v1")
			both := []Format{FormatTag, FormatBundle}
			if _, err := mustSigner(t, Config{Registry: reg, Formats: both}).Sign(t.Context(), attested(subject, scanType, "old")); err != nil {
				t.Fatal(err)
			}
			r := attested(subject, scanType, "new")
			r.Replace = true
			_, err := mustSigner(t, Config{Registry: reg, Formats: both}).Sign(t.Context(), r)
			tagged, referring := reg.said(t, subject)
			want := []string{"scan.example new"}
			if diff := cmp.Diff(want, tagged); diff != "" {
				t.Error(diff)
			}
			if lists {
				want = append(want, "scan.example old")
			}
			if diff := cmp.Diff(want, referring); diff != "" {
				t.Error(diff)
			}
			if lists != errors.Is(err, ErrNoDelete) || !lists && err != nil {
				t.Errorf("lists %t: %v", lists, err)
			}
		})
	}
}

// Where what is written is joined with what is there, as Vidimus does it, nothing goes so:
// that is told soon, and what is new stays.
func TestReplacingWhereWhatIsWrittenIsAddedTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newTestRegistry()
		subject := reg.image(t, "v1")
		tag := "/v2/" + testRepository + "/manifests/" + AttestationTag(subject)
		inner := reg.handler
		reg.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			held := httptest.NewRecorder()
			inner.ServeHTTP(held, httptest.NewRequest(http.MethodGet, tag, nil))
			if r.Method == http.MethodPut && r.URL.Path == tag && held.Code == http.StatusOK {
				union, _, err := Union(must(io.ReadAll(r.Body)), held.Body.Bytes())
				if err != nil {
					t.Error(err)
				}
				r.Body = io.NopCloser(bytes.NewReader(union))
			}
			inner.ServeHTTP(w, r)
		})
		if _, err := mustSigner(t, Config{Registry: reg}).Sign(t.Context(), attested(subject, scanType, "old")); err != nil {
			t.Fatal(err)
		}
		r := attested(subject, scanType, "new")
		r.Replace = true
		began := time.Now()
		_, err := mustSigner(t, Config{Registry: reg}).Sign(t.Context(), r)
		if err == nil || !strings.Contains(err.Error(), "takes nothing away") {
			t.Errorf("error %v", err)
		}
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("told after %v", took)
		}
		tagged, _ := reg.said(t, subject)
		if diff := cmp.Diff([]string{"scan.example new", "scan.example old"}, tagged); diff != "" {
			t.Error(diff)
		}
	})
}

func TestASignatureReplacesNothing(t *testing.T) {
	reg := newTestRegistry()
	r := request(reg.image(t, "v1"))
	r.Replace = true
	if _, err := mustSigner(t, Config{Registry: reg}).Sign(t.Context(), r); err == nil || !strings.Contains(err.Error(), "only an attestation") {
		t.Errorf("error %v", err)
	}
	// What cannot delete is told of before anything is written.
	kept := struct{ Registry }{reg}
	r = attested(r.Subject, scanType, "new")
	r.Replace = true
	if _, err := mustSigner(t, Config{Registry: kept}).Sign(t.Context(), r); err == nil || reg.count(http.MethodPut, "/v2/"+testRepository+"/manifests/"+AttestationTag(r.Subject)) > 0 {
		t.Errorf("error %v", err)
	}
}
