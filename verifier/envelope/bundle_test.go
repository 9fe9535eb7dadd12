package envelope

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseBundleReturnsWhatIsSigned(t *testing.T) {
	said := statement(subject(digest))
	for _, mediaType := range []string{MediaTypeBundle, mediaTypeBundle01, mediaTypeBundle02, mediaTypeBundle03} {
		got, err := ParseBundle(mediaType, []byte(bundle(mediaType, `"dsseEnvelope":`+dsse(said))))
		if err != nil {
			t.Fatal(err)
		}
		want := Bundle{
			Signed:    fmt.Appendf(nil, "DSSEv1 28 application/vnd.in-toto+json %d %s", len(said), said),
			Statement: []byte(said),
			Signature: []byte{0x30, 0x44},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", mediaType, diff)
		}
	}
	got, err := ParseBundle(MediaTypeBundle, []byte(bundle(MediaTypeBundle, message(messageDigest))))
	if err != nil {
		t.Fatal(err)
	}
	want := Bundle{Digest: fmt.Sprintf("sha256:%x", mustDecode(messageDigest)), Signature: []byte{0x30, 0x44}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("a message (-want +got):\n%s", diff)
	}
	certified := strings.Replace(bundle(MediaTypeBundle, message(messageDigest)), `"publicKey":{"hint":"x"}`, `"certificate":{"rawBytes":""}`, 1)
	if got, err := ParseBundle(MediaTypeBundle, []byte(certified)); err != nil || !got.Certificate {
		t.Errorf("a certificate: %+v, %v", got, err)
	}
}

func TestParseBundleTakesBothAlphabetsOfBase64(t *testing.T) {
	for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
		signature := encoding.EncodeToString([]byte{0xfb, 0xff, 0xfe})
		text := bundle(MediaTypeBundle, `"dsseEnvelope":`+strings.Replace(dsse(statement(subject(digest))), "MEQ=", signature, 1))
		got, err := ParseBundle(MediaTypeBundle, []byte(text))
		if err != nil || string(got.Signature) != "\xfb\xff\xfe" {
			t.Errorf("%s: %x, %v", signature, got.Signature, err)
		}
	}
}

// FuzzParseBundle: what is accepted says what is signed, and bears no addition.
func FuzzParseBundle(f *testing.F) {
	f.Add([]byte(bundle(MediaTypeBundle, `"dsseEnvelope":`+dsse(statement(subject(digest))))))
	f.Add([]byte(bundle(MediaTypeBundle, message(messageDigest))))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := ParseBundle(MediaTypeBundle, data)
		if err != nil {
			return
		}
		if len(b.Signature) == 0 || (b.Digest == "") == (b.Signed == nil) || (b.Signed == nil) != (b.Statement == nil) {
			t.Fatalf("%+v of %q", b, data)
		}
		if b.Signed != nil && !strings.HasSuffix(string(b.Signed), " "+string(b.Statement)) {
			t.Fatalf("what is signed is not the statement: %q", b.Signed)
		}
		if _, err := ParseBundle(MediaTypeBundle, append(data[:len(data):len(data)], '0')); err == nil {
			t.Fatalf("trailing data after %q is accepted", data)
		}
		if _, err := Subjects(MediaTypeBundle, data); err != nil && b.Digest != "" {
			t.Fatalf("a bundle over a message that is about nothing: %v", err)
		}
	})
}
