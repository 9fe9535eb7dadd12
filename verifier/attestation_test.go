package verifier_test

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/verifier"
)

const (
	dsseType   = "application/vnd.dsse.envelope.v1+json"
	inTotoType = "application/vnd.in-toto+json"
)

var (
	attTag   = "sha256-" + subject.Digest.Hex + ".att"
	attested = verifier.Subject{Repository: repository, Digest: subject.Digest, Attestations: true}
)

// dsse is an envelope around a statement that keys have signed.
func dsse(tb testing.TB, said any, keys ...crypto.Signer) object {
	tb.Helper()
	data := encode(tb, said)
	pae := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(inTotoType), inTotoType, len(data), data)
	signatures := []any{}
	for _, key := range keys {
		signatures = append(signatures, object{"keyid": "", "sig": sign(tb, key, crypto.SHA256, pae)})
	}
	return object{"payload": data, "payloadType": inTotoType, "signatures": signatures}
}

// envelopes puts an attestation image with envelopes under the tag.
func (r *registry) envelopes(tb testing.TB, envelopes ...any) {
	tb.Helper()
	var layers []layer
	for _, e := range envelopes {
		data := encode(tb, e)
		r.blobs[digestOf(data)] = data
		layers = append(layers, layer{
			"mediaType": dsseType, "digest": digestOf(data).String(), "size": len(data),
			"annotations": map[string]string{"predicateType": "https://a.hint/that/is/not/signed", annotation: ""},
		})
	}
	r.tag(tb, attTag, layers...)
}

func attestations(t *testing.T, r *registry, authorities ...verifier.Authority) verifier.Report {
	t.Helper()
	return look(t, r, attested, authorities, verifier.Sources(), nil)
}

func TestAnEnvelopeAtTheTagIsAnAttestation(t *testing.T) {
	key, second, stranger := newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P256())
	release, ci := authority(t, "release", key), authority(t, "ci", second)
	said := statement(subject.Digest, predicateSLSA)
	said["predicate"] = object{"buildType": "make"}

	r := newRegistry()
	r.envelopes(t, dsse(t, said, stranger, second, key, key), dsse(t, said, stranger))
	report := attestations(t, r, release, ci)
	want(t, report, outcome{Source: attTag, Authorities: []string{"ci", "release"}}, outcome{Source: attTag, Reason: "untrusted"})
	e := report.Evidence[0]
	if e.Form() != verifier.FormAttestation || e.IsSignature() || e.PredicateType() != predicateSLSA {
		t.Errorf("form %s, predicate type %s", e.Form(), e.PredicateType())
	}
	if ids := []string{keyOf(t, second).ID(), keyOf(t, key).ID()}; !slices.Equal(e.KeyIDs(), ids) || e.KeyID() != ids[0] {
		t.Errorf("keys %v, want %v", e.KeyIDs(), ids)
	}
	if got := string(e.Predicate()); got != `{"buildType":"make"}` || e.PredicateSize() != len(got) {
		t.Errorf("predicate %s of %d bytes", got, e.PredicateSize())
	}
	e.Predicate()[0] = '!'
	if got := string(e.Predicate()); got[0] != '{' {
		t.Errorf("the predicate was changed to %s", got)
	}
	held, ok := e.Envelope()
	if !ok || len(held.Signatures) != 2 || !bytes.Equal(held.Statement, encode(t, said)) {
		t.Errorf("envelope %+v", held)
	}
	if brief := e.Brief(); brief.Predicate() != nil || brief.PredicateType() != predicateSLSA || e.Predicate() == nil {
		t.Errorf("brief evidence has the predicate %s", brief.Predicate())
	}
	if report.Evidence[1].IsSignature() {
		t.Error("an envelope by a stranger may be a signature")
	}
}

func TestTheTagOfAttestationsIsAskedForWhereTheyAreWantedOnly(t *testing.T) {
	key := newECDSA(t, elliptic.P256())
	r := newRegistry()
	r.envelopes(t, dsse(t, statement(subject.Digest, predicateSLSA), key))
	r.listed = []v1.Descriptor{retyped(r.artifact(t, dsseType, encode(t, dsse(t, statement(subject.Digest, predicateSLSA), key))), inTotoType)}
	listed := "manifest " + r.listed[0].Digest.String()
	want(t, find(t, r, authority(t, "release", key)))
	if asked := r.asked(); slices.Contains(asked, "manifest "+attTag) || slices.Contains(asked, listed) {
		t.Errorf("asked for %q", asked)
	}
	r.forget()
	report := attestations(t, r, authority(t, "release", key))
	want(t, report, outcome{Source: source(r.listed[0]), Authorities: []string{"release"}}, outcome{Source: attTag, Authorities: []string{"release"}})
	if asked := r.asked(); !slices.Contains(asked, "manifest "+attTag) || !slices.Contains(asked, listed) {
		t.Errorf("asked for %q", asked)
	}
}

// What a signature's statement says in an envelope of its own is an attestation, and a
// bundle's attestation has its predicate where it is asked for.
func TestOnlyABundleMakesAStatementASignature(t *testing.T) {
	key := newECDSA(t, elliptic.P256())
	r := newRegistry()
	r.envelopes(t, dsse(t, statement(subject.Digest, predicateSign), key))
	report := attestations(t, r, authority(t, "release", key))
	want(t, report, outcome{Source: attTag, Authorities: []string{"release"}})
	if e := report.Evidence[0]; e.IsSignature() || e.PredicateType() != predicateSign {
		t.Errorf("form %s of %s", e.Form(), e.PredicateType())
	}
	r = newRegistry()
	r.listed = []v1.Descriptor{r.artifact(t, bundleType, encode(t, bundle(t, key, crypto.SHA256, statement(subject.Digest, predicateSLSA))))}
	if e := attestations(t, r, authority(t, "release", key)).Evidence[0]; string(e.Predicate()) != "{}" {
		t.Errorf("predicate %s", e.Predicate())
	}
	if e := find(t, r, authority(t, "release", key)).Evidence[0]; e.Predicate() != nil || e.PredicateType() != predicateSLSA {
		t.Errorf("predicate %s, though it was not asked for", e.Predicate())
	}
}

func TestAnAttestationThatIsNotAsItShouldBeIsRejected(t *testing.T) {
	key := newECDSA(t, elliptic.P256())
	slsa := func() object { return statement(subject.Digest, predicateSLSA) }
	with := func(name string, value any) object {
		said := slsa()
		said[name] = value
		return said
	}
	changed := func(name string, value any) object {
		e := dsse(t, slsa(), key)
		e[name] = value
		return e
	}
	subjects := func(n int) []any {
		return slices.Repeat([]any{object{"name": "a", "digest": object{"sha256": subject.Digest.Hex}}}, n)
	}
	good := string(encode(t, dsse(t, slsa(), key)))
	signedText := func(said string) object { return dsse(t, []byte(said), key) }
	text := string(encode(t, slsa()))
	for _, tt := range []struct {
		name   string
		layer  any
		reason string
		detail string
	}{
		{"about another digest", dsse(t, statement(other, predicateSLSA), key), "digest-mismatch", "signed"},
		{"no subject at all", dsse(t, with("subject", nil), key), "payload-invalid", "subject of the statement is null"},
		{"an empty list of subjects", dsse(t, with("subject", []any{}), key), "payload-invalid", "names no subject"},
		{"a subject that is null", dsse(t, with("subject", []any{nil}), key), "payload-invalid", "a subject of the statement is null"},
		{"more subjects than are read", dsse(t, with("subject", subjects(5_000)), key), "payload-invalid", "more than 1024 elements"},
		{"a hundred thousand subjects", dsse(t, with("subject", subjects(100_000)), key), "payload-invalid", "of which at most 1048576 are read"},
		{"another type of statement", dsse(t, with("_type", "https://in-toto.io/Statement/v2"), key), "payload-invalid", "not an in-toto statement"},
		{"a payload that is no JSON, validly signed", signedText("hello"), "payload-invalid", "statement: json"},
		{"a payload with data behind it", signedText(text + "{}"), "payload-invalid", "data after the value"},
		{"a name twice in the predicate", signedText(strings.Replace(text, `"predicate":{}`, `"predicate":{"a":1,"A":2}`, 1)), "payload-invalid", "twice in one object"},
		{"the subject twice", signedText(strings.Replace(text, `"subject":`, `"Subject":[],"subject":`, 1)), "payload-invalid", "twice in one object"},
		{"another type of payload", changed("payloadType", "text/plain"), "payload-invalid", `payloadType of the envelope is "text/plain"`},
		{"no signatures", changed("signatures", []any{}), "payload-invalid", "no signature"},
		{"signatures that are null", changed("signatures", nil), "payload-invalid", "null, not a list"},
		{"seventeen signatures", changed("signatures", slices.Repeat([]any{object{"sig": "MEQ="}}, 17)), "payload-invalid", "more than 16"},
		{"a signature that is not base64", changed("signatures", []any{object{"sig": "%"}}), "payload-invalid", "not base64"},
		{"a signature larger than any key makes", changed("signatures", []any{object{"sig": make([]byte, verifier.MaxSignatureSize+1)}}), "untrusted", "by none of the keys"},
		{"a payload that was not signed", changed("payload", encode(t, with("predicate", object{"x": 1}))), "untrusted", "by none of the keys"},
		{"data after the envelope", []byte(good + good), "payload-invalid", "data after the value"},
		{"the payload twice", []byte(strings.Replace(good, `"payload":`, `"payload":"","payload":`, 1)), "payload-invalid", "twice in one object"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistry()
			r.envelopes(t, tt.layer)
			report := attestations(t, r, authority(t, "release", key))
			want(t, report, outcome{Source: attTag, Reason: tt.reason})
			if e := report.Evidence[0]; e.IsSignature() || e.Predicate() != nil || !strings.Contains(e.Detail(), tt.detail) {
				t.Errorf("signature %v, predicate %s, detail %q", e.IsSignature(), e.Predicate(), e.Detail())
			}
		})
	}
	for _, tt := range []struct {
		name  string
		layer any
	}{
		{"under several names", dsse(t, with("subject", subjects(3)), key)},
		{"beside others", dsse(t, with("subject", append([]any{object{"digest": object{"sha256": other.Hex}}}, subjects(1)...)), key)},
		{"statement v0.1", dsse(t, with("_type", "https://in-toto.io/Statement/v0.1"), key)},
		{"with names that DSSE does not know", changed("extra", 1)},
		{"in an envelope with white space", []byte(spaced(t, good))},
	} {
		t.Run("accepted: "+tt.name, func(t *testing.T) {
			r := newRegistry()
			r.envelopes(t, tt.layer)
			want(t, attestations(t, r, authority(t, "release", key)), outcome{Source: attTag, Authorities: []string{"release"}})
		})
	}
}

func TestWhatIsNoAttestationImageIsNoSignatureEither(t *testing.T) {
	key := newECDSA(t, elliptic.P256())
	p := payload(t, subject.Digest, nil)
	r := newRegistry()
	r.tag(t, attTag, r.layer(p, sign(t, key, crypto.SHA256, p)))
	want(t, attestations(t, r, authority(t, "release", key))) // a signature in the wrong place is not looked at
	r.manifests[attTag] = []byte(`{"schemaVersion":2,"layers":[null]}`)
	report := attestations(t, r, authority(t, "release", key))
	want(t, report, outcome{Source: attTag, Reason: "payload-invalid"})
	if report.Evidence[0].IsSignature() {
		t.Error("it may be a signature")
	}
	r.manifests[attTag] = []byte(`no manifest`)
	if report := attestations(t, r, authority(t, "release", key)); report.Evidence[0].IsSignature() {
		t.Error("what is no image may be a signature")
	}
	r.errs[attTag] = fmt.Errorf("no answer")
	if report := attestations(t, r, authority(t, "release", key)); len(report.Failures) != 1 || report.Failures[0].Source != ".att tag" {
		t.Errorf("failures %v", report.Failures)
	}
}

func TestTenThousandAttestationsAreBounded(t *testing.T) {
	key := newECDSA(t, elliptic.P256())
	r := newRegistry()
	stranger := newECDSA(t, elliptic.P256())
	layers := make([]json.RawMessage, 10_000)
	for i := range layers {
		data := encode(t, dsse(t, statement(subject.Digest, fmt.Sprintf("https://example.com/%d", i)), stranger))
		r.blobs[digestOf(data)] = data
		layers[i] = encode(t, layer{"mediaType": dsseType, "digest": digestOf(data).String(), "size": len(data)})
	}
	r.manifests[attTag] = encode(t, object{"schemaVersion": 2, "layers": layers})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	report := verifier.Verify(t.Context(), r, attested, []verifier.Authority{authority(t, "release", key)}, verifier.Sources(), nil)
	runtime.ReadMemStats(&after)
	if len(report.Evidence) > verifier.MaxSignatures || !report.TooMany || len(r.asked()) > verifier.MaxSignatures+10 {
		t.Errorf("%d pieces of evidence, too many %v, %d requests", len(report.Evidence), report.TooMany, len(r.asked()))
	}
	if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 32<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
}

// FuzzEnvelope: whatever an envelope holds, nothing is verified that the key has not
// signed about this manifest.
func FuzzEnvelope(f *testing.F) {
	key := newECDSA(f, elliptic.P256())
	signed := dsse(f, statement(other, predicateSLSA), key) // all that the key has signed
	f.Add(encode(f, signed))
	f.Add(encode(f, object{"payload": encode(f, statement(subject.Digest, predicateSLSA)), "payloadType": inTotoType, "signatures": signed["signatures"]}))
	f.Add([]byte(`{"payload":"","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"AA=="},{}]}`))
	release := []verifier.Authority{authority(f, "release", key)}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := newRegistry()
		r.blobs[digestOf(data)] = data
		r.tag(t, attTag, layer{"mediaType": dsseType, "digest": digestOf(data).String(), "size": max(len(data), 1)})
		for _, e := range verifier.Verify(t.Context(), r, attested, release, verifier.Sources(), nil).Evidence {
			if e.Verified() || e.IsSignature() || e.Predicate() != nil || e.Reason() == "" {
				t.Errorf("%+v", e)
			}
		}
	})
}
