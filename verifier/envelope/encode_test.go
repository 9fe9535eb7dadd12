package envelope

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Byte for byte what cosign v3.1.3 signs, but for the order of annotations, which it
// leaves to chance.
func TestSignatureStatementIsCosigns(t *testing.T) {
	got, err := SignatureStatement(digest, "ghcr.io/acme/web", map[string]any{"env": "<prod>", "by": "ci"})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"` + strings.TrimPrefix(digest, "sha256:") +
		`"},"annotations":{"by":"ci","docker-reference":"ghcr.io/acme/web","env":"\u003cprod\u003e"}}],` +
		`"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
	statement, err := ParseStatement(got)
	if err != nil {
		t.Fatal(err)
	}
	name, annotations, err := statement.Subjects[0].Claims()
	if err != nil || name != "ghcr.io/acme/web" {
		t.Errorf("claims %q, %v", name, err)
	}
	if diff := cmp.Diff(map[string]any{"by": "ci", "env": "<prod>", "docker-reference": name}, annotations); diff != "" {
		t.Error(diff)
	}
	if got, err = SignatureStatement(digest, "", nil); err != nil || strings.Contains(string(got), "annotations") {
		t.Errorf("nothing claimed: %s, %v", got, err)
	}
}

func TestEncodeStatementWritesAnAttestation(t *testing.T) {
	subject, err := NewSubject(digest, "ghcr.io/acme/web", nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := EncodeStatement(Statement{PredicateType: "https://slsa.dev/provenance/v1", Subjects: []StatementSubject{subject}},
		json.RawMessage(`{ "buildDefinition": {"x": 1.50} }`))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"ghcr.io/acme/web","digest":{"sha256":"` +
		strings.TrimPrefix(digest, "sha256:") + `"}}],"predicateType":"https://slsa.dev/provenance/v1","predicate":{"buildDefinition":{"x":1.50}}}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}

func TestEncodersRefuseWhatWouldNotBeReadBack(t *testing.T) {
	subjects := func(digest, name string, annotations map[string]any) []StatementSubject {
		s, err := NewSubject(digest, name, annotations)
		if err != nil {
			t.Fatal(err)
		}
		return []StatementSubject{s}
	}
	const predicateType = "https://example.com/p"
	deep := strings.Repeat(`{"a":`, MaxDepth) + "1" + strings.Repeat("}", MaxDepth)
	for name, encode := range map[string]func() ([]byte, error){
		"a claim by annotation": func() ([]byte, error) {
			return SignatureStatement(digest, "x", map[string]any{"docker-reference": "y"})
		},
		"annotations that differ in case": func() ([]byte, error) {
			return SignatureStatement(digest, "x", map[string]any{"a": "1", "A": "2"})
		},
		"a name that is none": func() ([]byte, error) { return SignatureStatement(digest, "a b", nil) },
		"a name that is no text": func() ([]byte, error) {
			return EncodeStatement(Statement{PredicateType: predicateType, Subjects: subjects(digest, "\xff", nil)}, json.RawMessage(`{}`))
		},
		"a digest without algorithm": func() ([]byte, error) { return SignatureStatement(strings.TrimPrefix(digest, "sha256:"), "x", nil) },
		"another algorithm":          func() ([]byte, error) { return SignatureStatement("sha512:"+strings.Repeat("a", 128), "x", nil) },
		"no predicate type": func() ([]byte, error) {
			return EncodeStatement(Statement{Subjects: subjects(digest, "", nil)}, json.RawMessage(`{}`))
		},
		"no subject": func() ([]byte, error) {
			return EncodeStatement(Statement{PredicateType: predicateType}, json.RawMessage(`{}`))
		},
		"a predicate that is a list": func() ([]byte, error) {
			return EncodeStatement(Statement{PredicateType: predicateType, Subjects: subjects(digest, "", nil)}, json.RawMessage(`[]`))
		},
		"a predicate with a name twice": func() ([]byte, error) {
			return EncodeStatement(Statement{PredicateType: predicateType, Subjects: subjects(digest, "", nil)}, json.RawMessage(`{"a":1,"A":2}`))
		},
		"a predicate that is too deep": func() ([]byte, error) {
			return EncodeStatement(Statement{PredicateType: predicateType, Subjects: subjects(digest, "", nil)}, json.RawMessage(deep))
		},
		"a predicate that is no JSON": func() ([]byte, error) {
			return EncodeStatement(Statement{PredicateType: predicateType, Subjects: subjects(digest, "", nil)}, json.RawMessage(`{"a":}`))
		},
		"a bundle without a signature": func() ([]byte, error) { return EncodeBundle(Sealed{Statement: []byte("x")}) },
		"a bundle over a short digest": func() ([]byte, error) { return EncodeBundle(Sealed{Digest: []byte("x"), Signature: []byte("x")}) },
		"an entry that is none": func() ([]byte, error) {
			return EncodeBundle(Sealed{Statement: []byte("x"), Signature: []byte("x"), Entries: []json.RawMessage{[]byte(`{}`)}})
		},
	} {
		if data, err := encode(); err == nil {
			t.Errorf("%s: %s", name, data)
		}
	}
}

func TestEncodeBundleGoldens(t *testing.T) {
	said := statement(subject(digest))
	entry := `{"logIndex":"7","logId":{"keyId":"eA=="},"kindVersion":{"kind":"dsse","version":"0.0.1"},` +
		`"inclusionProof":{"checkpoint":{"envelope":"x"}},"canonicalizedBody":"e30="}`
	const head = `{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":`
	for name, tt := range map[string]struct {
		sealed Sealed
		want   string
	}{
		"key": {
			Sealed{KeyHint: "aGludA==", Statement: []byte(said), Signature: []byte{0x30, 0x44}},
			head + `{"publicKey":{"hint":"aGludA=="}},` + `"dsseEnvelope":{"payload":"` + encode64(said) +
				`","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"MEQ="}]}}`,
		},
		"everything": {
			Sealed{
				Certificate: []byte{1}, Entries: []json.RawMessage{json.RawMessage(entry)}, Timestamps: [][]byte{{2}},
				Digest: make([]byte, 32), Signature: []byte{0x30, 0x44},
			},
			head + `{"certificate":{"rawBytes":"AQ=="},"tlogEntries":[` + entry + `],` +
				`"timestampVerificationData":{"rfc3161Timestamps":[{"signedTimestamp":"Ag=="}]}},` +
				`"messageSignature":{"messageDigest":{"algorithm":"SHA2_256","digest":"` + encode64(string(make([]byte, 32))) + `"},"signature":"MEQ="}}`,
		},
	} {
		got, err := EncodeBundle(tt.sealed)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(tt.want, string(got)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func encode64(s string) string {
	data, _ := json.Marshal([]byte(s)) // bytes can be encoded
	return strings.Trim(string(data), `"`)
}

// FuzzEncode: whatever the encoders write says, read back, what they were given.
func FuzzEncode(f *testing.F) {
	f.Add("ghcr.io/acme/web", "env", "prod", `{"a":[1,{"b":null}]}`, []byte{1})
	f.Add("", "", "<&>\u2028", `{}`, []byte{0xff, 0})
	f.Fuzz(func(t *testing.T, name, key, value, predicate string, signature []byte) {
		subject, err := NewSubject(digest, name, map[string]any{key: value})
		if err != nil {
			t.Fatal(err)
		}
		want := Statement{PredicateType: "https://example.com/p", Subjects: []StatementSubject{subject}}
		said, err := EncodeStatement(want, json.RawMessage(predicate))
		if err != nil {
			return
		}
		got, err := ParseStatement(said)
		if err != nil || fmt.Sprint(got.Digests()) != fmt.Sprint(want.Digests()) || got.Subjects[0].Name != name {
			t.Fatalf("%+v, %v of %s", got, err, said)
		}
		_, annotations, err := got.Subjects[0].Claims()
		if encoded, _ := json.Marshal(value); err != nil || json.Unmarshal(encoded, &value) != nil || len(annotations) != 1 {
			t.Fatalf("claims %v, %v of %s", annotations, err, said)
		}
		for _, got := range annotations {
			if got != value {
				t.Fatalf("annotation %q of %s", got, said)
			}
		}
		data, err := EncodeBundle(Sealed{KeyHint: "x", Statement: said, Signature: signature})
		if err != nil {
			if len(signature) > 0 {
				t.Fatal(err)
			}
			return
		}
		b, err := ParseBundle(MediaTypeBundle, data)
		if err != nil || string(b.Statement) != string(said) || string(b.Signature) != string(signature) ||
			string(b.Signed) != string(SignedStatement(said)) {
			t.Fatalf("%+v, %v of %s", b, err, data)
		}
		enveloped, err := EncodeEnvelope(Envelope{Statement: said, Signatures: []EnvelopeSignature{{Signature: signature}}})
		if err != nil {
			t.Fatal(err)
		}
		if subjects, err := Subjects(MediaTypeDSSE, enveloped); err != nil || len(subjects) != 1 || subjects[0] != digest {
			t.Fatalf("%v, %v of %s", subjects, err, enveloped)
		}
	})
}
