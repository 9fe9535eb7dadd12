package verifier_test

import (
	"crypto/elliptic"
	"encoding/base64"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/e2e/notary"
	"vidimus/verifier"
)

// envelopeBody is the body of a v1 entry about an envelope, of one of the types that cosign
// has used: dsse, and intoto of two versions.
func envelopeBody(tb testing.TB, kind string, whole []byte, e object, owner []byte) []byte {
	tb.Helper()
	payload, signature := e["payload"].([]byte), part(e, "signatures")["sig"].([]byte)
	hash := func(data []byte) object { return object{"algorithm": "sha256", "value": digestOf(data).Hex} }
	spec := object{}
	switch kind {
	case "dsse 0.0.1":
		spec = object{"envelopeHash": hash(whole), "payloadHash": hash(payload), "signatures": []any{object{
			"signature": base64.StdEncoding.EncodeToString(signature), "verifier": owner,
		}}}
	case "intoto 0.0.1":
		spec = object{"content": object{"hash": hash(whole), "payloadHash": hash(payload)}, "publicKey": owner}
	case "intoto 0.0.2":
		spec = object{"content": object{"hash": hash(whole), "payloadHash": hash(payload), "envelope": object{
			"payloadType": inTotoType, "signatures": []any{object{
				"sig": []byte(base64.StdEncoding.EncodeToString(signature)), "publicKey": owner,
			}},
		}}}
	default:
		tb.Fatal(kind)
	}
	name, version, _ := strings.Cut(kind, " ")
	return encode(tb, object{"apiVersion": version, "kind": name, "spec": spec})
}

func (s *sigstore) attachStamp(data []byte) string {
	s.tb.Helper()
	return string(encode(s.tb, object{"SignedRFC3161Timestamp": s.Stamp(data)}))
}

// envelope stores an envelope and returns its layer, as cosign annotates it.
func (r *registry) envelope(tb testing.TB, e any, annotations map[string]string) layer {
	tb.Helper()
	data := encode(tb, e)
	r.blobs[digestOf(data)] = data
	return layer{
		"mediaType": dsseType, "digest": digestOf(data).String(), "size": len(data),
		"annotations": map[string]string{"predicateType": "https://a.hint/that/is/not/signed", annotation: ""},
	}.annotated(annotations)
}

func (s *sigstore) attestations(t *testing.T, r *registry, authorities ...verifier.Authority) verifier.Report {
	t.Helper()
	about := attested
	about.Now = s.Now
	return look(t, r, about, authorities, verifier.Sources(), nil)
}

const (
	certificateName = "dev.sigstore.cosign/certificate"
	entryName       = "dev.sigstore.cosign/bundle"
	stampName       = "dev.sigstore.cosign/rfc3161timestamp"
)

var entryKinds = []string{"dsse 0.0.1", "intoto 0.0.1", "intoto 0.0.2"}

func TestAnEnvelopeCountsByTheCertificateThatIsAttached(t *testing.T) {
	s := newSigstore(t)
	h, stranger := s.Issue(githubIssuer, workflow), s.Issue(githubIssuer, "https://github.com/evil/web/.github/workflows/release.yml@refs/tags/v1")
	said := statement(subject.Digest, predicateSLSA)
	said["predicate"] = object{"buildType": "make"}
	e := dsse(t, said, h.Key)
	whole := encode(t, e)
	signature := part(e, "signatures")["sig"].([]byte)
	at := s.Now.Add(-30 * time.Second).Truncate(time.Second)
	logs, stamps, both := notary.Has{Logs: true}, notary.Has{Stamps: true}, notary.Has{Logs: true, Stamps: true}
	certificate := map[string]string{certificateName: string(h.PEM())}
	with := func(name, value string) map[string]string {
		all := maps.Clone(certificate)
		all[name] = value
		return all
	}
	type test struct {
		name     string
		trust    notary.Has
		attached map[string]string
		at       time.Time
	}
	tests := []test{
		{"a timestamp of the envelope, as cosign has it", stamps, with(stampName, s.attachStamp(whole)), s.Now},
		{"a timestamp of the signature", stamps, with(stampName, s.attachStamp(signature)), s.Now},
		{"an entry and a timestamp", both, func() map[string]string {
			all := with(stampName, s.attachStamp(whole))
			all[entryName] = s.Annotation(envelopeBody(t, "dsse 0.0.1", whole, e, h.PEM()), at)
			return all
		}(), at},
	}
	for _, kind := range entryKinds {
		tests = append(tests, test{"an entry of type " + kind, logs, with(entryName, s.Annotation(envelopeBody(t, kind, whole, e, h.PEM()), at)), at})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			trust := s.trust(tt.trust)
			ci, release := keyless(t, "ci", trust, githubIssuer, workflow), authority(t, "release", newECDSA(t, elliptic.P256()))
			check := func(r *registry, source string) {
				t.Helper()
				report := s.attestations(t, r, release, ci)
				want(t, report, outcome{Source: source, Authorities: []string{"ci"}})
				found := report.Evidence[0]
				issuer, name := found.Identity()
				signedAt, proven := found.SignedAt()
				if found.Form() != verifier.FormAttestation || found.IsSignature() || found.KeyID() != "" || issuer != githubIssuer || name != workflow || !found.Certified() {
					t.Errorf("%s by %q of %q, key %q", found.Form(), name, issuer, found.KeyID())
				}
				if !proven || signedAt.Sub(tt.at).Abs() > 10*time.Second {
					t.Errorf("signed at %v, %v", signedAt, proven)
				}
				if held, ok := found.Envelope(); !ok || len(held.Signatures) != 1 || string(found.Predicate()) != `{"buildType":"make"}` || found.PredicateType() != predicateSLSA {
					t.Errorf("%+v of %s says %s", held, found.PredicateType(), found.Predicate())
				}
			}
			r := newRegistry()
			r.tag(t, attTag, r.envelope(t, e, tt.attached))
			check(r, attTag)

			r = newRegistry()
			desc := r.referrer(t, object{
				"schemaVersion": 2, "mediaType": ociManifest, "artifactType": inTotoType,
				"config":  object{"mediaType": "application/vnd.oci.empty.v1+json", "size": 2, "digest": digestOf([]byte("{}")).String()},
				"layers":  []any{r.envelope(t, e, tt.attached)},
				"subject": object{"mediaType": ociManifest, "size": 7, "digest": subject.Digest.String()},
			})
			r.listed = []v1.Descriptor{retyped(desc, inTotoType)}
			check(r, source(desc))

			// The same for who is not wanted.
			r = newRegistry()
			r.tag(t, attTag, r.envelope(t, e, tt.attached))
			want(t, s.attestations(t, r, release, keyless(t, "ci", trust, githubIssuer, "https://github.com/evil/**")), outcome{Source: attTag, Reason: "untrusted"})
			want(t, s.attestations(t, r, release, keyless(t, "ci", trust, "https://accounts.example", workflow)), outcome{Source: attTag, Reason: "untrusted"})
			want(t, s.attestations(t, r, release), outcome{Source: attTag, Reason: "untrusted"})
		})
	}
	t.Run("beside a signature of a stranger's", func(t *testing.T) {
		two := dsse(t, said, stranger.Key, h.Key)
		r := newRegistry()
		r.tag(t, attTag, r.envelope(t, two, with(stampName, s.attachStamp(encode(t, two)))))
		report := s.attestations(t, r, keyless(t, "ci", s.trust(stamps), githubIssuer, workflow))
		want(t, report, outcome{Source: attTag, Authorities: []string{"ci"}})
		if held, _ := report.Evidence[0].Envelope(); len(held.Signatures) != 1 || string(held.Signatures[0].Signature) != string(part(object{"s": two["signatures"].([]any)[1:]}, "s")["sig"].([]byte)) {
			t.Errorf("the signatures that hold are %d", len(held.Signatures))
		}
	})
}

// Of what proves an envelope one thing is wrong, and it does not count; the key's does,
// without a time.
func TestAnEnvelopeWhoseProofIsNotItsOwnIsRejected(t *testing.T) {
	s := newSigstore(t)
	elsewhere := newSigstoreElsewhere(t)
	h, twin := s.Issue(githubIssuer, workflow), s.Issue(githubIssuer, workflow)
	key := newECDSA(t, elliptic.P256())
	ended := s.Issue(githubIssuer, workflow)
	// an envelope by both: as the key's it counts in any case, and as the certificate's never
	for _, kind := range entryKinds {
		said := statement(subject.Digest, predicateSLSA)
		another := dsse(t, statement(other, predicateSLSA), h.Key)
		type entry struct {
			name string
			make func(e object, whole, owner []byte) string
		}
		for _, tt := range []entry{
			{"no entry at all", func(object, []byte, []byte) string { return "" }},
			{"an entry of another envelope", func(_ object, _, owner []byte) string {
				return s.Annotation(envelopeBody(t, kind, encode(t, another), another, owner), s.Now)
			}},
			{"an entry of another owner", func(e object, whole, _ []byte) string {
				return s.Annotation(envelopeBody(t, kind, whole, e, twin.PEM()), s.Now)
			}},
			{"an entry of another log", func(e object, whole, owner []byte) string {
				return elsewhere.Annotation(envelopeBody(t, kind, whole, e, owner), s.Now)
			}},
			{"another time than the log promised", func(e object, whole, owner []byte) string {
				said := s.Annotation(envelopeBody(t, kind, whole, e, owner), s.Now)
				return strings.Replace(said, fmt.Sprint(s.Now.Unix()), fmt.Sprint(s.Now.Unix()-1), 1)
			}},
			{"a time to come", func(e object, whole, owner []byte) string {
				return s.Annotation(envelopeBody(t, kind, whole, e, owner), s.Now.Add(5*time.Minute))
			}},
			{"an entry that is none", func(object, []byte, []byte) string { return `{"SignedEntryTimestamp":"AA==","Payload":{}}` }},
			{"an entry of no known type", func(e object, whole, owner []byte) string {
				text := string(envelopeBody(t, kind, whole, e, owner))
				return s.Annotation([]byte(strings.Replace(text, `"apiVersion":"0.0.`, `"apiVersion":"9.0.`, 1)), s.Now)
			}},
		} {
			t.Run(kind+", "+tt.name, func(t *testing.T) {
				trust := s.trust(notary.Has{Logs: true})
				e := dsse(t, said, h.Key)
				r := newRegistry()
				r.tag(t, attTag, r.envelope(t, e, map[string]string{certificateName: string(h.PEM()), entryName: tt.make(e, encode(t, e), h.PEM())}))
				report := s.attestations(t, r, keyless(t, "ci", trust, githubIssuer, workflow))
				if found := report.Evidence; len(found) != 1 || found[0].Verified() || found[0].Predicate() != nil {
					t.Errorf("%+v", found)
				}
				e = dsse(t, said, key)
				r = newRegistry()
				r.tag(t, attTag, r.envelope(t, e, map[string]string{entryName: tt.make(e, encode(t, e), public(t, key))}))
				release := authority(t, "release", key)
				release.Root = trust
				report = s.attestations(t, r, release)
				want(t, report, outcome{Source: attTag, Authorities: []string{"release"}})
				if at, ok := report.Evidence[0].SignedAt(); ok || report.Evidence[0].Untimed() == "" {
					t.Errorf("signed at %v: %s", at, report.Evidence[0].Untimed())
				}
			})
		}
		t.Run(kind+", the certificate had ended", func(t *testing.T) {
			e := dsse(t, said, ended.Key)
			whole := encode(t, e)
			r := newRegistry()
			r.tag(t, attTag, r.envelope(t, e, map[string]string{
				certificateName: string(ended.PEM()),
				entryName:       s.Annotation(envelopeBody(t, kind, whole, e, ended.PEM()), s.Now.Add(-10*time.Minute)),
			}))
			want(t, s.attestations(t, r, keyless(t, "ci", s.trust(notary.Has{Logs: true}), githubIssuer, workflow)), outcome{Source: attTag, Reason: "untrusted"})
		})
		t.Run(kind+", about another image", func(t *testing.T) {
			r := newRegistry()
			r.tag(t, attTag, r.envelope(t, another, map[string]string{
				certificateName: string(h.PEM()),
				entryName:       s.Annotation(envelopeBody(t, kind, encode(t, another), another, h.PEM()), s.Now),
			}))
			want(t, s.attestations(t, r, keyless(t, "ci", s.trust(notary.Has{Logs: true}), githubIssuer, workflow)), outcome{Source: attTag, Reason: "digest-mismatch"})
		})
	}
}

func TestAKeysEnvelopeHasTheTimeThatATrustRootProves(t *testing.T) {
	s := newSigstore(t)
	key, second := newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P256())
	at := s.Now.Add(-30 * time.Minute).Truncate(time.Second)
	release := authority(t, "release", key, second)
	release.Root = s.trust(notary.Has{Logs: true, Stamps: true})
	timed := func(e object, attached map[string]string) (time.Time, bool, string) {
		t.Helper()
		r := newRegistry()
		r.tag(t, attTag, r.envelope(t, e, attached))
		report := s.attestations(t, r, release)
		want(t, report, outcome{Source: attTag, Authorities: []string{"release"}})
		got, ok := report.Evidence[0].SignedAt()
		return got, ok, report.Evidence[0].Untimed()
	}
	e := dsse(t, statement(subject.Digest, predicateSLSA), key)
	whole := encode(t, e)
	for _, kind := range entryKinds {
		if got, ok, why := timed(e, map[string]string{entryName: s.Annotation(envelopeBody(t, kind, whole, e, public(t, key)), at)}); !ok || !got.Equal(at) {
			t.Errorf("%s: signed at %v: %s", kind, got, why)
		}
	}
	for _, stamped := range [][]byte{whole, part(e, "signatures")["sig"].([]byte)} {
		if got, ok, why := timed(e, map[string]string{stampName: s.attachStamp(stamped)}); !ok || got.Sub(s.Now).Abs() > 10*time.Second {
			t.Errorf("signed at %v: %s", got, why)
		}
	}
	if got, ok, why := timed(e, map[string]string{stampName: s.attachStamp([]byte("other"))}); ok || why == "" {
		t.Errorf("signed at %v by a timestamp of something else", got)
	}
	if _, ok, why := timed(e, nil); ok || !strings.Contains(why, "neither") {
		t.Errorf("without a proof: %s", why)
	}
	// What proves the one's signature does not prove the other's.
	both := dsse(t, statement(subject.Digest, predicateSLSA), key, second)
	whole = encode(t, both)
	if got, ok, why := timed(both, map[string]string{entryName: s.Annotation(envelopeBody(t, "dsse 0.0.1", whole, both, public(t, key)), at)}); ok || !strings.Contains(why, "more than one") {
		t.Errorf("two signers, signed at %v: %s", got, why)
	}
}

// FuzzAttachedToAnEnvelope: whatever is attached to an envelope, nobody is named whom the
// certificate does not prove, and nothing panics.
func FuzzAttachedToAnEnvelope(f *testing.F) {
	s := newSigstore(f)
	h, key := s.Issue(githubIssuer, workflow), newECDSA(f, elliptic.P256())
	e := dsse(f, statement(subject.Digest, predicateSLSA), key) // not by the certificate's
	whole := encode(f, e)
	for _, kind := range entryKinds {
		f.Add(string(h.PEM()), s.Annotation(envelopeBody(f, kind, whole, e, h.PEM()), s.Now), s.attachStamp(whole))
	}
	ci := []verifier.Authority{keyless(f, "ci", s.trust(notary.Has{Logs: true, Stamps: true}), githubIssuer, workflow)}
	about := attested
	about.Now = s.Now
	f.Fuzz(func(t *testing.T, certificate, entry, stamp string) {
		r := newRegistry()
		r.tag(t, attTag, r.envelope(t, e, map[string]string{certificateName: certificate, entryName: entry, stampName: stamp}))
		for _, found := range verifier.Verify(t.Context(), r, about, ci, verifier.Sources(), nil).Evidence {
			if found.Verified() {
				t.Errorf("%+v", found)
			}
		}
	})
}

// Whom the certificate beside an envelope names is told though nobody asked for him, and
// proven where the trust root proves it.
func TestAnEnvelopesCertificateIsAClaim(t *testing.T) {
	s := newSigstore(t)
	h := s.Issue(githubIssuer, workflow)
	e := dsse(t, statement(subject.Digest, predicateSLSA), h.Key)
	whole := encode(t, e)
	release := authority(t, "release", newECDSA(t, elliptic.P256()))
	for _, kind := range entryKinds {
		for _, tt := range []struct {
			roots    []*verifier.Root
			attached map[string]string
			proven   bool
		}{
			{[]*verifier.Root{s.trust(notary.Has{Logs: true})}, map[string]string{entryName: s.Annotation(envelopeBody(t, kind, whole, e, h.PEM()), s.Now)}, true},
			{[]*verifier.Root{s.trust(notary.Has{Logs: true})}, map[string]string{}, false},
			{nil, map[string]string{entryName: s.Annotation(envelopeBody(t, kind, whole, e, h.PEM()), s.Now)}, false},
		} {
			tt.attached[certificateName] = string(h.PEM())
			r := newRegistry()
			r.tag(t, attTag, r.envelope(t, e, tt.attached))
			about := attested
			about.Now, about.Claims, about.ClaimRoots = s.Now, true, tt.roots
			report := look(t, r, about, []verifier.Authority{release}, verifier.Sources(), nil)
			want(t, report, outcome{Source: attTag, Reason: "untrusted"})
			said, ok := report.Evidence[0].Claimed()
			if !ok || said.Subject != workflow || said.Issuer != githubIssuer || said.Proven != tt.proven || said.Logged != tt.proven || (said.Detail == "") != tt.proven || tt.proven && said.PredicateType != predicateSLSA {
				t.Errorf("%s: %v %+v", kind, ok, said)
			}
		}
	}
}
