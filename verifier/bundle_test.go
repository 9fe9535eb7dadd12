package verifier_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/verifier"
)

const (
	bundleType    = "application/vnd.dev.sigstore.bundle.v0.3+json"
	predicateSign = "https://sigstore.dev/cosign/sign/v1"
	predicateSLSA = "https://slsa.dev/provenance/v1"
)

// object is a JSON object for tests to change.
type object = map[string]any

// statement is an in-toto statement about digest, as cosign v3.1.3 writes it.
func statement(digest v1.Hash, predicateType string) object {
	return object{
		"_type":         "https://in-toto.io/Statement/v1",
		"subject":       []any{object{"digest": object{"sha256": digest.Hex}}},
		"predicateType": predicateType,
		"predicate":     object{},
	}
}

func encode(tb testing.TB, value any) []byte {
	tb.Helper()
	if data, ok := value.([]byte); ok {
		return data
	}
	data, err := json.Marshal(value)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

// bundle is a sigstore bundle around a statement that key has signed under hash.
func bundle(tb testing.TB, key crypto.Signer, hash crypto.Hash, said any) object {
	tb.Helper()
	data := encode(tb, said)
	const kind = "application/vnd.in-toto+json"
	pae := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(kind), kind, len(data), data)
	return object{
		"mediaType":            bundleType,
		"verificationMaterial": object{"publicKey": object{"hint": "aGludA=="}},
		"dsseEnvelope": object{
			"payload": data, "payloadType": kind,
			"signatures": []any{object{"sig": sign(tb, key, hash, pae)}},
		},
	}
}

// overMessage is a sigstore bundle with a signature over message itself.
func overMessage(tb testing.TB, key crypto.Signer, hash crypto.Hash, message []byte) object {
	tb.Helper()
	sum := sha256.Sum256(message)
	return object{
		"mediaType":            bundleType,
		"verificationMaterial": object{"publicKey": object{"hint": ""}},
		"messageSignature": object{
			"messageDigest": object{"algorithm": "SHA2_256", "digest": sum[:]},
			"signature":     sign(tb, key, hash, message),
		},
	}
}

// logEntry is a log entry that proves nothing.
func logEntry() object {
	return object{
		"logIndex": "7", "logId": object{"keyId": "AAAA"}, "kindVersion": object{"kind": "dsse", "version": "0.0.1"},
		"integratedTime": "1700000000", "canonicalizedBody": "e30=",
		"inclusionProof": object{"checkpoint": object{"envelope": "nobody's"}},
	}
}

// part returns the object in o at the end of a path of names, or of a list's first.
func part(o object, path ...string) object {
	for _, name := range path {
		if list, ok := o[name].([]any); ok {
			o = list[0].(object)
			continue
		}
		o = o[name].(object)
	}
	return o
}

// artifact stores a referrer of the subject with a layer of a media type, and returns
// its descriptor as a list has it.
func (r *registry) artifact(tb testing.TB, mediaType string, layer []byte) v1.Descriptor {
	tb.Helper()
	r.blobs[digestOf(layer)] = layer
	return r.referrer(tb, object{
		"schemaVersion": 2, "mediaType": ociManifest, "artifactType": mediaType,
		"config":  object{"mediaType": "application/vnd.oci.empty.v1+json", "size": 2, "digest": digestOf([]byte("{}")).String()},
		"layers":  []any{object{"mediaType": mediaType, "size": len(layer), "digest": digestOf(layer).String()}},
		"subject": object{"mediaType": ociManifest, "size": 7, "digest": subject.Digest.String()},
	})
}

// referrer stores a manifest and returns its descriptor as a list has it.
func (r *registry) referrer(tb testing.TB, fields object) v1.Descriptor {
	tb.Helper()
	manifest := encode(tb, fields)
	digest := digestOf(manifest)
	r.manifests[digest.String()] = manifest
	desc := v1.Descriptor{MediaType: ociManifest, Digest: digest, Size: int64(len(manifest))}
	desc.ArtifactType, _ = fields["artifactType"].(string)
	return desc
}

// list puts a bundle among what the referrers API lists, and returns its source.
func (r *registry) list(tb testing.TB, fields object) string {
	tb.Helper()
	mediaType := bundleType
	if own, ok := fields["mediaType"].(string); ok {
		mediaType = own
	}
	desc := r.artifact(tb, mediaType, encode(tb, fields))
	r.listed = append(r.listed, desc)
	return "referrer " + desc.Digest.String()
}

// find looks in all sources for what satisfies nobody, so that all is looked at.
func find(t *testing.T, r *registry, authorities ...verifier.Authority) verifier.Report {
	t.Helper()
	return look(t, r, subject, authorities, verifier.Sources(), nil)
}

func TestABundleByATrustedKeyIsASignature(t *testing.T) {
	p256 := newECDSA(t, elliptic.P256())
	p384, p521 := newECDSA(t, elliptic.P384()), newECDSA(t, elliptic.P521())
	ed, rsa := newEd25519(t), newRSA(t, 2048)
	good := func() object { return statement(subject.Digest, predicateSign) }
	without := good()
	delete(without, "predicate")
	proofs := bundle(t, p256, crypto.SHA256, good())
	part(proofs, "verificationMaterial")["tlogEntries"] = []any{logEntry()}
	part(proofs, "verificationMaterial")["timestampVerificationData"] = object{"rfc3161Timestamps": []any{object{"signedTimestamp": "AAAA"}}}
	many := good()
	many["subject"] = append([]any{object{"digest": object{"sha256": other.Hex}}}, many["subject"].([]any)...)
	version := func(mediaType string) object {
		b := bundle(t, p256, crypto.SHA256, good())
		b["mediaType"] = mediaType
		return b
	}
	for _, tt := range []struct {
		name   string
		key    crypto.Signer
		bundle object
		form   string
	}{
		{"as cosign v3 makes it", p256, bundle(t, p256, crypto.SHA256, good()), verifier.FormBundleDSSE},
		{"without a predicate, as cosign 3.0.4", p256, bundle(t, p256, crypto.SHA256, without), verifier.FormBundleDSSE},
		{"v0.1", p256, version("application/vnd.dev.sigstore.bundle+json;version=0.1"), verifier.FormBundleDSSE},
		{"v0.2", p256, version("application/vnd.dev.sigstore.bundle+json;version=0.2"), verifier.FormBundleDSSE},
		{"v0.3 as it was first called", p256, version("application/vnd.dev.sigstore.bundle+json;version=0.3"), verifier.FormBundleDSSE},
		{"with a log entry and a timestamp that prove nothing", p256, proofs, verifier.FormBundleDSSE},
		{"one of several subjects", p256, bundle(t, p256, crypto.SHA256, many), verifier.FormBundleDSSE},
		{"P-384", p384, bundle(t, p384, crypto.SHA384, good()), verifier.FormBundleDSSE},
		{"P-384 over SHA-256", p384, bundle(t, p384, crypto.SHA256, good()), verifier.FormBundleDSSE},
		{"P-521", p521, bundle(t, p521, crypto.SHA512, good()), verifier.FormBundleDSSE},
		{"Ed25519", ed, bundle(t, ed, 0, good()), verifier.FormBundleDSSE},
		{"RSA", rsa, bundle(t, rsa, crypto.SHA256, good()), verifier.FormBundleDSSE},
		{"a message signature", p256, overMessage(t, p256, crypto.SHA256, []byte("subject")), verifier.FormBundleMessage},
		{"a message signature by Ed25519", ed, overMessage(t, ed, 0, []byte("subject")), verifier.FormBundleMessage},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistry()
			r.manifests[subject.Digest.String()] = []byte("subject")
			source := r.list(t, tt.bundle)
			report := find(t, r, authority(t, "release", tt.key))
			want(t, report, outcome{Source: source, Authorities: []string{"release"}})
			if e := report.Evidence[0]; e.Form() != tt.form || e.KeyID() != keyOf(t, tt.key).ID() || e.ClaimedName() != "" || !e.IsSignature() || e.PredicateType() != "" {
				t.Errorf("form %s, key %s, name %q, predicate %q", e.Form(), e.KeyID(), e.ClaimedName(), e.PredicateType())
			}
		})
	}
}

func TestTheClaimsOfABundleAreThoseOfItsSubject(t *testing.T) {
	key := newECDSA(t, elliptic.P256())
	for _, tt := range []struct {
		name    string
		subject object
		claimed string
		env     any
		why     string // it is rejected
	}{
		{"annotations", object{"annotations": object{"env": "prod"}}, "", "prod", ""},
		{"a name, as simple signing calls it", object{"annotations": object{"docker-reference": repository, "env": true}}, repository, true, ""},
		{"a name, as in-toto calls it", object{"name": repository}, repository, nil, ""},
		{"both names: the annotation", object{"name": "x", "annotations": object{"docker-reference": repository}}, repository, nil, ""},
		{"annotations that are null", object{"annotations": nil, "name": nil}, "", nil, ""},
		{"a name that is a number", object{"annotations": object{"docker-reference": 1}}, "", nil, "docker-reference of the subject is not a string"},
		{"a name that is none", object{"name": "a b"}, "", nil, "characters that no name has"},
		{"annotations that are a list", object{"annotations": []any{}}, "", nil, "annotations of the subject is a list"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			said := statement(subject.Digest, predicateSign)
			for name, value := range tt.subject {
				part(said, "subject")[name] = value
			}
			r := newRegistry()
			r.list(t, bundle(t, key, crypto.SHA256, said))
			e := find(t, r, authority(t, "release", key)).Evidence[0]
			if tt.why != "" {
				if e.Verified() || e.Reason() != "payload-invalid" || !strings.Contains(e.Detail(), tt.why) || e.KeyID() == "" {
					t.Errorf("verified %v, %s: %s", e.Verified(), e.Reason(), e.Detail())
				}
				return
			}
			if !e.Verified() || e.ClaimedName() != tt.claimed || e.Annotations()["env"] != tt.env {
				t.Errorf("verified %v (%s), name %q, annotations %v", e.Verified(), e.Detail(), e.ClaimedName(), e.Annotations())
			}
		})
	}
}

// A bundle from which one thing was taken or in which one was added is rejected, with
// a word about it.
func TestABundleThatIsNotAsItShouldBeIsRejected(t *testing.T) {
	key, stranger := newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P256())
	good := func() object { return bundle(t, key, crypto.SHA256, statement(subject.Digest, predicateSign)) }
	changed := func(change func(b object)) object {
		b := good()
		change(b)
		return b
	}
	signed := func(change func(said object)) object {
		said := statement(subject.Digest, predicateSign)
		change(said)
		return bundle(t, key, crypto.SHA256, said)
	}
	material := func(name string, value any) object {
		return changed(func(b object) { part(b, "verificationMaterial")[name] = value })
	}
	attackers := object{"rawBytes": encode(t, pkixOf(t, stranger.Public()))}
	for _, tt := range []struct {
		name, reason, detail string
		bundle               object
	}{
		{"by a stranger", "untrusted", "by none of the keys", bundle(t, stranger, crypto.SHA256, statement(subject.Digest, predicateSign))},
		{"another payload under the signature", "untrusted", "by none of the keys", changed(func(b object) {
			part(b, "dsseEnvelope")["payload"] = encode(t, statement(other, predicateSign))
		})},
		{"the payload itself under the signature, not its encoding", "untrusted", "by none of the keys", changed(func(b object) {
			part(b, "dsseEnvelope", "signatures")["sig"] = sign(t, key, crypto.SHA256, encode(t, statement(subject.Digest, predicateSign)))
		})},
		{"no signature", "payload-invalid", "the envelope has no signature", changed(func(b object) { part(b, "dsseEnvelope")["signatures"] = []any{} })},
		{"two signatures", "payload-invalid", "signatures of the envelope has more than 1", changed(func(b object) {
			e := part(b, "dsseEnvelope")
			e["signatures"] = append(e["signatures"].([]any), e["signatures"].([]any)...)
		})},
		{"an empty signature", "payload-invalid", "the signature is not base64", changed(func(b object) { part(b, "dsseEnvelope", "signatures")["sig"] = "" })},
		{"a huge signature", "payload-invalid", "more than 2048 bytes", changed(func(b object) { part(b, "dsseEnvelope", "signatures")["sig"] = make([]byte, 3000) })},
		{"a certificate beside the signature", "payload-invalid", `has "cert"`, changed(func(b object) { part(b, "dsseEnvelope", "signatures")["cert"] = attackers["rawBytes"] })},
		{"another payload type", "payload-invalid", "payloadType of the envelope is", changed(func(b object) { part(b, "dsseEnvelope")["payloadType"] = "text/plain" })},
		{"a certificate", "untrusted", "signed with a certificate", changed(func(b object) { b["verificationMaterial"] = object{"certificate": attackers} })},
		{"a chain of certificates", "untrusted", "signed with a certificate", changed(func(b object) {
			b["verificationMaterial"] = object{"x509CertificateChain": object{"certificates": []any{attackers}}}
		})},
		{"a certificate beside the key", "payload-invalid", `has "certificate"`, material("certificate", attackers)},
		{"neither key nor certificate", "payload-invalid", "has none of publicKey", changed(func(b object) { b["verificationMaterial"] = object{} })},
		{"33 log entries", "payload-invalid", "tlogEntries has more than 32", material("tlogEntries", slices.Repeat([]object{logEntry()}, 33))},
		{"33 timestamps", "payload-invalid", "rfc3161Timestamps has more than 32", material("timestampVerificationData", object{"rfc3161Timestamps": make([]object, 33)})},
		{"a log entry that is null", "payload-invalid", "a log entry is null", material("tlogEntries", []any{nil})},
		{"a log entry that is none", "payload-invalid", `a log entry has no "logId"`, material("tlogEntries", []any{object{"logIndex": "7"}})},
		{"a log entry without a proof", "payload-invalid", "no proof of the kind", material("tlogEntries", []any{func() object {
			e := logEntry()
			delete(e, "inclusionProof")
			e["inclusionPromise"] = object{}
			return e
		}()})},
		{"a proof without a checkpoint", "payload-invalid", "checkpoint of a log entry is missing", material("tlogEntries", []any{func() object {
			e := logEntry()
			e["inclusionProof"] = object{}
			return e
		}()})},
		{"log entries that are no list", "payload-invalid", "tlogEntries is an object", material("tlogEntries", object{})},
		{"material in a second spelling", "payload-invalid", `has "tlog_entries"`, material("tlog_entries", []any{})},
		{"both kinds of content", "payload-invalid", `has "dsseEnvelope"`, changed(func(b object) { b["messageSignature"] = object{} })},
		{"about another manifest", "digest-mismatch", other.String(), bundle(t, key, crypto.SHA256, statement(other, predicateSign))},
		{"about this manifest twice", "payload-invalid", "more than once", signed(func(said object) {
			said["subject"] = append(said["subject"].([]any), said["subject"].([]any)...)
		})},
		{"about nothing", "payload-invalid", "names no subject", signed(func(said object) { said["subject"] = []any{} })},
		{"about null", "payload-invalid", "a subject of the statement is null", signed(func(said object) { said["subject"] = []any{nil} })},
		{"about 1025 things", "payload-invalid", "more than 1024 elements", signed(func(said object) { said["subject"] = make([]object, 1025) })},
		{"a digest in capitals", "payload-invalid", "64 lower-case", signed(func(said object) {
			part(said, "subject", "digest")["sha256"] = strings.ToUpper(subject.Digest.Hex)
		})},
		{"a statement of another version", "payload-invalid", "_type of the statement", signed(func(said object) { said["_type"] = "https://in-toto.io/Statement/v9" })},
		{"a predicate that is text", "payload-invalid", "predicate of the statement is a string", signed(func(said object) { said["predicate"] = "" })},
		{"a statement with a second predicate type", "payload-invalid", `has "predicate_type"`, signed(func(said object) { said["predicate_type"] = predicateSLSA })},
		{"a payload that is no statement", "payload-invalid", "statement: json", bundle(t, key, crypto.SHA256, []byte("x"))},
		{"a statement with two subjects", "payload-invalid", "two letter cases", bundle(t, key, crypto.SHA256,
			[]byte(strings.Replace(string(encode(t, statement(subject.Digest, predicateSign))), `"subject"`, `"Subject":[],"subject"`, 1)))},
		{"a message signature by a stranger", "untrusted", "by none of the keys", overMessage(t, stranger, crypto.SHA256, []byte("subject"))},
		{"a message signature over another message", "untrusted", "over other bytes than the manifest's", overMessage(t, key, crypto.SHA256, []byte("other"))},
		{"a message signature over another message, moved here", "untrusted", "by none of the keys", func() object {
			b := overMessage(t, key, crypto.SHA256, []byte("other"))
			part(b, "messageSignature")["messageDigest"] = part(overMessage(t, key, crypto.SHA256, []byte("subject")), "messageSignature")["messageDigest"]
			return b
		}()},
		{"a message digest by another algorithm", "payload-invalid", "not SHA2_256", func() object {
			b := overMessage(t, key, crypto.SHA256, []byte("subject"))
			part(b, "messageSignature", "messageDigest")["algorithm"] = "SHA2_512"
			return b
		}()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistry()
			r.manifests[subject.Digest.String()] = []byte("subject")
			source := r.list(t, tt.bundle)
			report := find(t, r, authority(t, "release", key))
			want(t, report, outcome{Source: source, Reason: tt.reason})
			if got := report.Evidence[0].Detail(); !strings.Contains(got, tt.detail) {
				t.Errorf("detail %q, want %q in it", got, tt.detail)
			}
		})
	}
	raw := string(encode(t, good()))
	for _, tt := range []struct{ name, detail, text string }{
		{"trailing data", "data after the value", raw + "{}"},
		{"two payloads", "two letter cases", strings.Replace(raw, `"payload"`, `"Payload":"","payload"`, 1)},
		{"a name with the Kelvin sign", "two letter cases", strings.Replace(raw, `"publicKey"`, "\"public\u212aey\":{},\"publicKey\"", 1)},
		{"a byte order mark", "where a value should be", "\ufeff" + raw},
		{"UTF-16", "not valid UTF-8", "\xff\xfe{"},
		{"nested too deep", "nested deeper", strings.Replace(raw, `"mediaType":`, `"x":`+strings.Repeat("[", 40)+strings.Repeat("]", 40)+`,"mediaType":`, 1)},
		{"a gzip stream", "not valid UTF-8", "\x1f\x8b\x08\x00"},
		{"another version within", "not that of its blob", strings.Replace(raw, "v0.3+json", "v0.2+json", 1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistry()
			r.listed = append(r.listed, r.artifact(t, bundleType, []byte(tt.text)))
			report := find(t, r, authority(t, "release", key))
			if len(report.Evidence) != 1 || report.Evidence[0].Reason() != "payload-invalid" || !strings.Contains(report.Evidence[0].Detail(), tt.detail) {
				t.Errorf("report %+v", report)
			}
			if got := report.Evidence[0].Form(); got != verifier.FormBundle {
				t.Errorf("form %s", got)
			}
		})
	}
}

// There is no bit of a bundle that could be another one, but for the hint.
func TestABundleWithAnyByteChangedIsRejected(t *testing.T) {
	key := newECDSA(t, elliptic.P256())
	for _, fields := range []object{
		bundle(t, key, crypto.SHA256, statement(subject.Digest, predicateSign)),
		overMessage(t, key, crypto.SHA256, []byte("subject")),
	} {
		part(fields, "verificationMaterial")["publicKey"] = object{}
		data := encode(t, fields)
		for i := range data {
			changed := slices.Clone(data)
			changed[i] ^= 1
			r := newRegistry()
			r.manifests[subject.Digest.String()] = []byte("subject")
			r.listed = []v1.Descriptor{r.artifact(t, bundleType, changed)}
			report := verifier.Verify(t.Context(), r, subject, []verifier.Authority{authority(t, "release", key)}, verifier.Sources(), nil)
			if len(report.Evidence) != 1 || report.Evidence[0].Verified() || report.Evidence[0].Detail() == "" {
				t.Fatalf("byte %d, %s: %+v", i, changed[max(0, i-10):min(len(changed), i+10)], report)
			}
		}
	}
}

func TestAnAttestationIsNoSignature(t *testing.T) {
	key, stranger := newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P256())
	r := newRegistry()
	source := r.list(t, bundle(t, key, crypto.SHA256, statement(subject.Digest, predicateSLSA)))
	report := find(t, r, authority(t, "release", key))
	want(t, report, outcome{Source: source, Authorities: []string{"release"}})
	e := report.Evidence[0]
	if e.Form() != verifier.FormAttestation || e.IsSignature() || e.PredicateType() != predicateSLSA {
		t.Errorf("form %s, signature %v, predicate %q", e.Form(), e.IsSignature(), e.PredicateType())
	}
	if text := string(encode(t, e)); !strings.Contains(text, `"form":"attestation"`) || !strings.Contains(text, `"predicateType":"`+predicateSLSA+`"`) {
		t.Errorf("as JSON: %s", text)
	}
	want(t, find(t, r, authority(t, "release", stranger)), outcome{Source: source, Reason: "untrusted"})
}

// FuzzBundle: whatever a bundle holds, nothing is verified that the one signature of
// the key does not cover.
func FuzzBundle(f *testing.F) {
	key := newECDSA(f, elliptic.P256())
	f.Add(encode(f, bundle(f, key, crypto.SHA256, statement(other, predicateSign)))) // all that the key has signed
	f.Add(encode(f, overMessage(f, key, crypto.SHA256, []byte("other"))))
	f.Add([]byte(`{"mediaType":"` + bundleType + `","verificationMaterial":{"certificate":{}},"dsseEnvelope":{}}`))
	release := verifier.Authority{Name: "release", Keys: []verifier.Key{keyOf(f, key)}}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 {
			return
		}
		r := newRegistry()
		r.manifests[subject.Digest.String()] = []byte("subject")
		r.listed = append(r.listed, r.artifact(t, bundleType, data))
		report := verifier.Verify(t.Context(), r, subject, []verifier.Authority{release}, verifier.Sources(), nil)
		if anyVerified(report.Evidence) || len(report.Evidence) != 1 || len(report.Failures) > 0 {
			t.Fatalf("report %+v of %q", report, data)
		}
	})
}
