package envelope

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// logBundle is what cosign keeps of an entry with this body.
func logBundle(body string) string {
	return `{"SignedEntryTimestamp":"MEQ=","Payload":{"body":"` + base64.StdEncoding.EncodeToString([]byte(body)) +
		`","integratedTime":1,"logIndex":2,"logID":"ab"}}`
}

func entryBody(kind, digest, signature, signer string) string {
	return fmt.Sprintf(`{"apiVersion":"0.0.1","kind":%q,"spec":{"data":{"hash":{"algorithm":"sha256","value":%q}},`+
		`"signature":{"content":%q,"publicKey":{"content":%q}}}}`, kind, digest, signature, signer)
}

func TestLocalBundlesGoBothWays(t *testing.T) {
	for _, b := range []LocalBundle{
		{Signature: []byte{0x30, 0x44}},
		{Signature: []byte{1}, Certificate: []byte("UEVN"), Log: json.RawMessage(logBundle("{}"))},
	} {
		data, err := EncodeLocalBundle(b)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseLocalBundle(data)
		if err != nil {
			t.Fatal(err)
		}
		if b.Certificate != nil { // cosign puts the PEM text into base64
			b.Certificate = []byte(base64.StdEncoding.EncodeToString(b.Certificate))
		}
		if diff := cmp.Diff(b, got); diff != "" {
			t.Errorf("%s: %s", data, diff)
		}
	}
	data, err := EncodeLocalBundle(LocalBundle{Signature: []byte{0x30, 0x44}})
	if want := `{"base64Signature":"MEQ="}`; err != nil || string(data) != want {
		t.Errorf("%s, %v, want %s", data, err, want)
	}
}

func TestParseLocalBundleRefuses(t *testing.T) {
	for name, data := range map[string]string{
		"nothing":             ``,
		"no signature":        `{}`,
		"an empty one":        `{"base64Signature":""}`,
		"no base64":           `{"base64Signature":"!"}`,
		"one that is no text": `{"base64Signature":1}`,
		"a name twice":        `{"base64Signature":"MEQ=","Base64Signature":"AAAA"}`,
		"an unknown name":     `{"base64Signature":"MEQ=","key":"x"}`,
		"a log that is none":  `{"base64Signature":"MEQ=","rekorBundle":[]}`,
		"a cert that is none": `{"base64Signature":"MEQ=","cert":{}}`,
		"more than one":       `{"base64Signature":"MEQ="}{}`,
		"a bundle of v0.3":    bundle(MediaTypeBundle, message(messageDigest)),
	} {
		if b, err := ParseLocalBundle([]byte(data)); err == nil {
			t.Errorf("%s: %+v", name, b)
		}
	}
}

func TestParseLogBundle(t *testing.T) {
	hex := strings.TrimPrefix(digest, "sha256:")
	for _, kind := range []string{"hashedrekord", "rekord"} {
		got, err := ParseLogBundle([]byte(logBundle(entryBody(kind, hex, "MEQ=", "UEVN"))))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(Entry{Digest: digest, Signature: []byte{0x30, 0x44}, Signer: []byte("PEM")}, got); diff != "" {
			t.Error(diff)
		}
	}
	for name, data := range map[string]string{
		"nothing":             ``,
		"no promise":          strings.Replace(logBundle(entryBody("rekord", hex, "MEQ=", "")), "MEQ=", "", 1),
		"no payload":          `{"SignedEntryTimestamp":"MEQ="}`,
		"a body that is none": logBundle("x"),
		"another kind":        logBundle(entryBody("intoto", hex, "MEQ=", "UEVN")),
		"another algorithm":   logBundle(strings.Replace(entryBody("rekord", hex, "MEQ=", "UEVN"), "sha256", "sha1", 1)),
		"a short digest":      logBundle(entryBody("rekord", "ab", "MEQ=", "UEVN")),
		"no signature":        logBundle(entryBody("rekord", hex, "!", "UEVN")),
		"no key":              logBundle(entryBody("rekord", hex, "MEQ=", "!")),
		"a name twice":        logBundle(strings.Replace(entryBody("rekord", hex, "MEQ=", "UEVN"), `"kind"`, `"Kind":"rekord","kind"`, 1)),
	} {
		if e, err := ParseLogBundle([]byte(data)); err == nil {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

func TestBundleMediaType(t *testing.T) {
	for data, want := range map[string]string{
		bundle(mediaTypeBundle01, message(messageDigest)): mediaTypeBundle01, `{"base64Signature":"MEQ="}`: "", `{"mediaType":"x"}`: "", `[`: "",
	} {
		if got := BundleMediaType([]byte(data)); got != want {
			t.Errorf("%s: %q, want %q", data, got, want)
		}
	}
}
