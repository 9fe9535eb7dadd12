package envelope

import (
	"strings"
	"testing"
)

// What is predicted is what is written, or a prediction would never hold.
func TestPlainPayloadsAreWhatEncodePayloadWrites(t *testing.T) {
	for _, form := range []Form{Modern, Legacy} {
		for i, annotations := range []map[string]any{nil, {}} {
			plain := form.Plain(digest)[i]
			for _, reference := range []string{
				"", "ghcr.io/acme/web", "index.docker.io/library/nginx", "127.0.0.1:5917/acme/v3-p256", "localhost:5000/a_b/c__d.e-f:V1",
				"ghcr.io/acme/web@" + digest,
			} {
				want, err := EncodePayload(Payload{Form: form, Reference: reference, Digest: digest, Annotations: annotations})
				if err != nil {
					t.Fatal(err)
				}
				if got := plain.Payload(reference); string(got) != string(want) || plain.Size(reference) != int64(len(want)) || !IsPlain(reference) {
					t.Errorf("got %s of %d bytes\nwant %s of %d", got, plain.Size(reference), want, len(want))
				}
			}
		}
	}
	if got := Form(7).Plain(digest); got != nil {
		t.Errorf("a form that is none: %v", got)
	}
}

// FuzzPlain: a plain reference makes the payload that the encoder makes of it.
func FuzzPlain(f *testing.F) {
	for _, reference := range []string{"", "ghcr.io/acme/web:v1", `a"b`, "a<b", "a\nb", "é", "a\\b", " "} {
		f.Add(reference)
	}
	f.Fuzz(func(t *testing.T, reference string) {
		if !IsPlain(reference) {
			if !strings.ContainsFunc(reference, func(r rune) bool {
				return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/:@", r)
			}) {
				t.Fatalf("%q is not plain", reference)
			}
			return
		}
		want, err := EncodePayload(Payload{Reference: reference, Digest: digest})
		if err != nil {
			t.Fatal(err)
		}
		if got := Modern.Plain(digest)[0].Payload(reference); string(got) != string(want) {
			t.Fatalf("got %s, want %s", got, want)
		}
	})
}
