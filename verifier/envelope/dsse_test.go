package envelope

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzParseEnvelope: what is read and written again says the same, and a signature is
// over the payload that is returned.
func FuzzParseEnvelope(f *testing.F) {
	f.Add([]byte(dsse(statement(subject(digest)))))
	f.Add([]byte(`{"payload":"e30","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":null,"sig":"_-8="},{"keyid":"k","sig":"AA=="}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		first, err := ParseEnvelope(data)
		if err != nil {
			return
		}
		if n := len(first.Signatures); n == 0 || n > MaxEnvelopeSignatures {
			t.Fatalf("%d signatures", n)
		}
		if !strings.HasSuffix(string(first.Signed), " "+string(first.Statement)) {
			t.Errorf("signed %q is not over %q", first.Signed, first.Statement)
		}
		encoded, err := EncodeEnvelope(first)
		if err != nil {
			t.Fatal(err)
		}
		second, err := ParseEnvelope(encoded)
		if diff := cmp.Diff(first, second); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
	})
}

func TestAPredicateTypeIsAnAliasOrAURI(t *testing.T) {
	for name, want := range map[string]string{
		"slsaprovenance":          "https://slsa.dev/provenance/v0.2",
		"slsaprovenance1":         "https://slsa.dev/provenance/v1",
		"custom":                  "https://cosign.sigstore.dev/attestation/v1",
		"https://example.com/a":   "https://example.com/a",
		"urn:example:b":           "urn:example:b",
		"slsaprovenance2":         "",
		"":                        "",
		"https://example.com/a b": "",
		PredicateCosignSign:       "",
	} {
		if got, err := PredicateType(name); got != want || (err == nil) != (want != "") {
			t.Errorf("PredicateType(%q) = %q, %v, want %q", name, got, err, want)
		}
	}
	for _, alias := range PredicateAliases() {
		uri, err := PredicateType(alias)
		if err != nil || !strings.HasSuffix(PredicateName(uri), " ("+uri+")") {
			t.Errorf("%s: %q, %v", alias, PredicateName(uri), err)
		}
	}
	if got := PredicateName("https://example.com/a"); got != "https://example.com/a" {
		t.Errorf("a type without an alias is called %q", got)
	}
}
