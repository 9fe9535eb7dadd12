package envelope

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	digest = "sha256:952c72015ac15831df04feaae5f33dde7a538bae74ea1a73c9453e12934ef2c2"

	// As cosign v3.1.3 and v0.1.0 wrote them.
	modern = `{"critical":{"identity":{"docker-reference":"127.0.0.1:5917/acme/v3-p256"},"image":{"docker-manifest-digest":"` + digest + `"},"type":"cosign container image signature"},"optional":{"env":"prod"}}`
	legacy = `{"Critical":{"Identity":{"docker-reference":""},"Image":{"Docker-manifest-digest":"` + digest + `"},"Type":"cosign container signature"},"Optional":null}`
)

func TestPayloadIsReadAndWrittenAsCosignDoes(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       Payload
	}{
		{"the modern form", modern, Payload{
			Form: Modern, Reference: "127.0.0.1:5917/acme/v3-p256", Digest: digest, Annotations: map[string]any{"env": "prod"}}},
		{"the modern form without annotations", strings.Replace(modern, `{"env":"prod"}`, "null", 1), Payload{
			Form: Modern, Reference: "127.0.0.1:5917/acme/v3-p256", Digest: digest}},
		{"the modern form with no annotation", strings.Replace(modern, `{"env":"prod"}`, "{}", 1), Payload{
			Form: Modern, Reference: "127.0.0.1:5917/acme/v3-p256", Digest: digest, Annotations: map[string]any{}}},
		{"the modern form as podman annotates it", strings.Replace(modern, `{"env":"prod"}`, `{"creator":"containers/image","timestamp":1458239713}`, 1), Payload{
			Form: Modern, Reference: "127.0.0.1:5917/acme/v3-p256", Digest: digest,
			Annotations: map[string]any{"creator": "containers/image", "timestamp": json.Number("1458239713")}}},
		{"characters that cosign escapes", strings.Replace(modern, `prod`, `\u003ca\u0026b\u003e`, 1), Payload{
			Form: Modern, Reference: "127.0.0.1:5917/acme/v3-p256", Digest: digest, Annotations: map[string]any{"env": "<a&b>"}}},
		{"the form of v0.1", legacy, Payload{Form: Legacy, Digest: digest}},
		{"the form of v0.1 with annotations", strings.Replace(legacy, "null", `{"a":"b"}`, 1), Payload{
			Form: Legacy, Digest: digest, Annotations: map[string]any{"a": "b"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParsePayload([]byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("parsed (-want +got):\n%s", diff)
			}
			encoded, err := EncodePayload(got)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.text, string(encoded)); diff != "" {
				t.Errorf("encoded (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("in another order and with white space", func(t *testing.T) {
		text := ` { "optional" : null, "critical": {"type":"cosign container image signature","image":{"docker-manifest-digest":"` + digest + "\"},\n\"identity\":{\"docker-reference\":\"a\"}}} "
		if _, err := ParsePayload([]byte(text)); err != nil {
			t.Error(err)
		}
	})
}

func TestPayloadThatIsNotOfOneFormIsRefused(t *testing.T) {
	replace := func(of, old, new string) string {
		if !strings.Contains(of, old) {
			t.Fatalf("%q is not in the payload", old)
		}
		return strings.Replace(of, old, new, 1)
	}
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", ``, "ends where"},
		{"null", `null`, "the payload is null, not an object"},
		{"a list", `[]`, "the payload is a list, not an object"},
		{"an empty object", `{}`, `the payload has no "critical"`},
		{"another type", replace(modern, "cosign container image signature", "atomic container signature"), `type is "atomic container signature", not "cosign container image signature"`},
		{"the type of v0.1 in the modern form", replace(modern, "container image signature", "container signature"), `type is "cosign container signature"`},
		{"the modern type in the form of v0.1", replace(legacy, "container signature", "container image signature"), `Type is "cosign container image signature"`},
		{"no type", replace(modern, `,"type":"cosign container image signature"`, ""), `critical has no "type"`},
		{"a type that is null", replace(modern, `"cosign container image signature"`, "null"), "type is null, not a string"},
		{"a mix of the forms", replace(modern, `"optional"`, `"Optional"`), `the payload has no "optional"`},
		{"a mix of the forms, inside", replace(modern, `"image"`, `"Image"`), `critical has no "image"`},
		{"the digest's name of v0.1 in the modern form", replace(modern, `"docker-manifest`, `"Docker-manifest`), `image has no "docker-manifest-digest"`},
		{"both forms at once", replace(modern, `{"critical"`, `{"Critical":{},"critical"`), "two letter cases"},
		{"no optional", replace(modern, `,"optional":{"env":"prod"}`, ""), `the payload has no "optional"`},
		{"an optional that is a list", replace(modern, `{"env":"prod"}`, "[]"), "optional is a list, not an object or null"},
		{"an optional that is a string", replace(modern, `{"env":"prod"}`, `"x"`), "optional is a string, not an object or null"},
		{"an annotation of v0.1 that is no string", replace(legacy, "null", `{"a":1}`), "not a string"},
		{"an extra name at the top", replace(modern, `,"optional"`, `,"extra":1,"optional"`), `has "extra", which does not belong there`},
		{"an extra critical name", replace(modern, `,"type"`, `,"mustunderstand":1,"type"`), `critical has "mustunderstand"`},
		{"an extra name in the image", replace(modern, `"image":{`, `"image":{"size":1,`), `image has "size"`},
		{"an extra name in the identity", replace(modern, `"identity":{`, `"identity":{"name":"x",`), `identity has "name"`},
		{"a critical that is null", replace(legacy, `{"Identity":{"docker-reference":""},"Image":{"Docker-manifest-digest":"`+digest+`"},"Type":"cosign container signature"}`, "null"), "Critical is null, not an object"},
		{"a reference that is null", replace(legacy, `"docker-reference":""`, `"docker-reference":null`), "docker-reference is null, not a string"},
		{"a reference with an escape sequence", replace(legacy, `"docker-reference":""`, `"docker-reference":"a\u001b[2J"`), "characters that no name has"},
		{"a reference with a line feed", replace(legacy, `"docker-reference":""`, `"docker-reference":"a\nb"`), "characters that no name has"},
		{"an empty digest", replace(modern, digest, ""), "digest is empty"},
		{"a digest of another algorithm", replace(modern, digest, "md5:0"), "is not a sha256 digest"},
		{"a digest without algorithm", replace(modern, digest, digest[7:]), "is not a sha256 digest"},
		{"a short digest", replace(modern, digest, digest[:70]), "64 lower-case hexadecimal digits"},
		{"a long digest", replace(modern, digest, digest+"0"), "64 lower-case hexadecimal digits"},
		{"a digest in capitals", replace(modern, digest, "sha256:"+strings.ToUpper(digest[7:])), "64 lower-case hexadecimal digits"},
		{"a digest that is a path", replace(modern, digest, "sha256:../../x"), "64 lower-case hexadecimal digits"},
		{"a digest that is a number", replace(modern, `"`+digest+`"`, "1"), "docker-manifest-digest is a number, not a string"},
		{"trailing data", modern + "x", "data after the value"},
		{"a second payload", modern + modern, "data after the value"},
		{"a byte order mark", "\ufeff" + modern, "where a value should be"},
		{"invalid UTF-8", replace(modern, "prod", "\xff"), "not valid UTF-8"},
		{"critical twice", replace(modern, `{"critical"`, `{"critical":{},"critical"`), "twice in one object"},
		{"the digest twice", replace(modern, `"docker-manifest-digest"`, `"docker-manifest-digest":"x","docker-manifest-digest"`), "twice in one object"},
		{"the digest under a Kelvin sign", replace(modern, `"docker-manifest-digest"`, "\"doc\u212aer-manifest-digest\":\"x\",\"docker-manifest-digest\""), "two letter cases"},
		{"only a Kelvin sign", replace(modern, `"docker-manifest-digest"`, "\"doc\u212aer-manifest-digest\""), `image has no "docker-manifest-digest"`},
		{"annotations in two cases", replace(modern, `"env":"prod"`, `"env":"prod","ENV":"dev"`), "two letter cases"},
		{"deep nesting", replace(modern, `"prod"`, strings.Repeat("[", 64)+strings.Repeat("]", 64)), "nested deeper than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParsePayload([]byte(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("ParsePayload = %v, want an error with %q", err, tt.want)
			}
			if diff := cmp.Diff(Payload{}, got); diff != "" {
				t.Errorf("a refused payload still says something:\n%s", diff)
			}
		})
	}
}

func TestEncodePayloadRefusesWhatWouldNotBeAccepted(t *testing.T) {
	for _, tt := range []struct {
		name string
		p    Payload
	}{
		{"the zero value", Payload{}},
		{"an unknown form", Payload{Form: 7, Digest: digest}},
		{"a bad digest", Payload{Digest: "sha256:0"}},
		{"a reference that is not UTF-8", Payload{Digest: digest, Reference: "\xff"}},
		{"a reference with a blank", Payload{Digest: digest, Reference: "a b"}},
		{"annotations in two cases", Payload{Digest: digest, Annotations: map[string]any{"a": 1, "A": 2}}},
		{"an annotation that is not JSON", Payload{Digest: digest, Annotations: map[string]any{"a": func() {}}}},
		{"a legacy annotation that is no string", Payload{Form: Legacy, Digest: digest, Annotations: map[string]any{"a": 1}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if data, err := EncodePayload(tt.p); err == nil {
				t.Errorf("encoded as %s", data)
			}
		})
	}
}

func TestCopyAnnotationsSharesNothing(t *testing.T) {
	original := map[string]any{"a": map[string]any{"b": []any{"c"}}, "n": json.Number("1")}
	copied := CopyAnnotations(original)
	if diff := cmp.Diff(original, copied); diff != "" {
		t.Fatal(diff)
	}
	copied["a"].(map[string]any)["b"].([]any)[0] = "changed"
	copied["n"] = nil
	want := map[string]any{"a": map[string]any{"b": []any{"c"}}, "n": json.Number("1")}
	if diff := cmp.Diff(want, original); diff != "" {
		t.Errorf("the original changed with the copy:\n%s", diff)
	}
	if CopyAnnotations(nil) != nil {
		t.Error("nothing was copied to something")
	}
}

// FuzzParsePayload: what is accepted is encoded to bytes that mean the same,
// has one encoding, and is read alike by encoding/json, case folding and all.
func FuzzParsePayload(f *testing.F) {
	for _, seed := range []string{modern, legacy,
		strings.Replace(modern, `"prod"`, `{"n":[1e400,-0,"\u003c"]}`, 1), strings.Replace(modern, `critical"`, `Critical"`, 1)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParsePayload(data)
		if err != nil {
			return
		}
		encoded, err := EncodePayload(p)
		if err != nil {
			t.Fatalf("accepted %q, cannot encode it: %v", data, err)
		}
		again, err := ParsePayload(encoded)
		if err != nil {
			t.Fatalf("encoded to %q, which is refused: %v", encoded, err)
		}
		if diff := cmp.Diff(p, again); diff != "" {
			t.Fatalf("%q changed by encoding:\n%s", data, diff)
		}
		if twice, err := EncodePayload(again); err != nil || string(twice) != string(encoded) {
			t.Fatalf("two encodings: %q and %q, %v", encoded, twice, err)
		}
		var other struct {
			Critical struct {
				Identity struct {
					Reference string `json:"docker-reference"`
				}
				Image struct {
					Digest string `json:"docker-manifest-digest"`
				}
				Type string
			}
		}
		if err := json.Unmarshal(data, &other); err != nil {
			t.Fatalf("encoding/json refuses %q: %v", data, err)
		}
		s, _ := p.Form.spelling()
		got := [3]string{other.Critical.Identity.Reference, other.Critical.Image.Digest, other.Critical.Type}
		if want := [3]string{p.Reference, p.Digest, s.kindValue}; got != want {
			t.Fatalf("encoding/json reads %q, we read %q in %q", got, want, data)
		}
	})
}

func BenchmarkParsePayload(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParsePayload([]byte(modern)); err != nil {
			b.Fatal(err)
		}
	}
}
