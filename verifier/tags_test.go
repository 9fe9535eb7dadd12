package verifier_test

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"vidimus/verifier"
)

func TestASignatureTagThatIsNoSignatureImageIsRejected(t *testing.T) {
	key := newECDSA(t, elliptic.P256())
	r := newRegistry()
	p := payload(t, subject.Digest, nil)
	good := string(manifestOf(t, r.layer(p, sign(t, key, crypto.SHA256, p))))
	replaced := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%q is not in the manifest", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	for _, tt := range []struct{ name, manifest, want string }{
		{"nothing", "", "json: ends where a value should be"},
		{"no JSON", "hello", "json: "},
		{"null", "null", "not a JSON object"},
		{"a list", "[]", "not a JSON object"},
		{"trailing data", good + good, "data after the value"},
		{"layers twice", replaced(`"layers"`, `"layers":[],"layers"`), "twice in one object"},
		{"layers in two cases", replaced(`"layers"`, `"Layers":[],"layers"`), "two letter cases"},
		{"an index", replaced(ociManifest, "application/vnd.oci.image.index.v1+json"), "is not an image manifest's"},
		{"an index by its content", replaced(`"layers"`, `"manifests"`), "it is an index"},
		{"both at once", replaced(`"layers"`, `"manifests":[],"layers"`), "it is an index, or both"},
		{"a media type that is null", replaced(`"`+ociManifest+`"`, "null"), "is not an image manifest's"},
		{"schema 1", replaced(`"schemaVersion":2`, `"schemaVersion":1`), "schemaVersion is not 2"},
		{"no schema version", replaced(`"schemaVersion":2`, `"x":2`), "schemaVersion is not 2"},
		{"no layers", replaced(`"layers"`, `"LAYERS"`), "no list of layers"},
		{"layers that are an object", `{"schemaVersion":2,"layers":{}}`, "no list of layers"},
		{"a manifest that is too large", strings.Repeat(" ", verifier.MaxManifestSize) + good, "more than 4194304 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.manifests[sigTag] = []byte(tt.manifest)
			report := verify(t, r, authority(t, "release", key))
			want(t, report, outcome{Source: sigTag, Reason: "payload-invalid"})
			e := report.Evidence[0]
			if !strings.Contains(e.Detail(), tt.want) || e.Digest() != digestOf([]byte(tt.manifest)) {
				t.Errorf("detail %q, digest %s", e.Detail(), e.Digest())
			}
		})
	}

	for _, tt := range []struct{ name, manifest string }{
		{"as it is", good},
		{"docker's media type", replaced(ociManifest, "application/vnd.docker.distribution.manifest.v2+json")},
		{"no media type, which OCI allows", replaced(`"mediaType":"`+ociManifest+`",`, "")},
		{"unknown members", replaced(`"layers"`, `"annotations":{"a":"b"},"layers"`)},
		{"white space", spaced(t, good)},
	} {
		t.Run("accepted: "+tt.name, func(t *testing.T) {
			r.manifests[sigTag] = []byte(tt.manifest)
			want(t, verify(t, r, authority(t, "release", key)), outcome{Source: sigTag, Authorities: []string{"release"}})
		})
	}
}

func spaced(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Indent(&b, []byte(text), " ", "\r\n\t "); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestLayersOfOtherMediaTypesAreNotSignatures(t *testing.T) {
	key := newECDSA(t, elliptic.P256())
	p := payload(t, subject.Digest, nil)
	for _, name := range []string{
		"application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.dsse.envelope.v1+json",
		mediaType + "; charset=utf-8", strings.ToUpper(mediaType), "",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRegistry()
			l := r.layer(p, sign(t, key, crypto.SHA256, p))
			r.tag(t, sigTag, l.with("mediaType", name), l.with("mediaType", nil), l.with("mediaType", nil).with("MediaType", mediaType))
			want(t, verify(t, r, authority(t, "release", key)))
		})
	}
	t.Run("what is no descriptor is rejected", func(t *testing.T) {
		r := newRegistry()
		r.manifests[sigTag] = []byte(`{"schemaVersion":2,"layers":[null,1,"x",[]]}`)
		report := verify(t, r, authority(t, "release", key))
		if len(report.Evidence) != 4 || report.Evidence[3].Detail() != sigTag+": layer 3 is not a JSON object" {
			t.Errorf("report %+v", report)
		}
	})
}

func TestAMillionLayersTakeLittleMemory(t *testing.T) {
	key := newECDSA(t, elliptic.P256())
	p := payload(t, subject.Digest, nil)
	real, err := json.Marshal(newRegistry().layer(p, sign(t, key, crypto.SHA256, p)))
	if err != nil {
		t.Fatal(err)
	}
	fill := func(layer string) string {
		n := (verifier.MaxManifestSize - 100) / (len(layer) + 1)
		return strings.Repeat(layer+",", n-1) + layer
	}
	for _, tt := range []struct {
		name, layers, last string
		toMany             bool
	}{
		{"a million empty ones", fill("{}"), "it has more than 4096 layers, of which the others are not read", false},
		{"a million numbers", fill("0"), "layer 63 is not a JSON object", true},
		{"copies of one that is signed", fill(string(real)), "it has more than 4096 layers, of which the others are not read", false},
		{"nameless ones", fill(fmt.Sprintf(`{"mediaType":%q}`, mediaType)), "layer 63 has no digest", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistry()
			r.blobs[digestOf(p)] = p
			r.manifests[sigTag] = []byte(`{"schemaVersion":2,"layers":[` + tt.layers + `]}`)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			report := verifier.Verify(t.Context(), r, subject, []verifier.Authority{authority(t, "stranger", newEd25519(t))}, verifier.Tags(), nil)
			runtime.ReadMemStats(&after)
			if len(report.Evidence) > verifier.MaxSignatures || report.TooMany != tt.toMany || len(r.asked()) > 3 {
				t.Errorf("%d pieces of evidence, too many %v, %d requests", len(report.Evidence), report.TooMany, len(r.asked()))
			}
			if got := report.Evidence[len(report.Evidence)-1].Detail(); got != sigTag+": "+tt.last {
				t.Errorf("the last one says %q", got)
			}
			// HeapSys is what was ever needed at once; the manifest is 4 MiB.
			if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 64<<20 {
				t.Errorf("the heap grew by %d MiB", grown>>20)
			}
		})
	}
}

// FuzzVerify: whatever a registry holds, nothing is verified that the one
// signature of the key does not cover; and what is reported adds up.
func FuzzVerify(f *testing.F) {
	key := newECDSA(f, elliptic.P256())
	signed := payload(f, other, nil) // all that the key has signed: another manifest
	signature := sign(f, key, crypto.SHA256, signed)
	r := newRegistry()
	f.Add(manifestOf(f, r.layer(signed, signature)), signed)
	f.Add(manifestOf(f, r.layer(payload(f, subject.Digest, nil), signature)), payload(f, subject.Digest, nil))
	f.Add([]byte(`{"schemaVersion":2,"layers":[null,{},{"mediaType":"`+mediaType+`","size":1e9}]}`), []byte("{}"))
	release := verifier.Authority{Name: "release", Keys: []verifier.Key{keyOf(f, key)}}
	f.Fuzz(func(t *testing.T, manifest, blob []byte) {
		r := newRegistry()
		r.manifests[sigTag] = manifest
		r.blobs[digestOf(blob)], r.blobs[digestOf(signed)] = blob, signed
		report := verifier.Verify(t.Context(), r, subject, []verifier.Authority{release}, verifier.Tags(), nil)
		if anyVerified(report.Evidence) {
			t.Fatalf("verified without a signature: %q over %q", manifest, blob)
		}
		if len(report.Evidence)+len(report.Failures) > verifier.MaxSignatures {
			t.Fatalf("%d pieces of evidence", len(report.Evidence))
		}
		for _, e := range report.Evidence {
			if e.Reason() == "" || e.Detail() == "" || len(e.Authorities()) > 0 || strings.ContainsFunc(e.Detail(), func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Fatalf("evidence %q, %q, %v", e.Reason(), e.Detail(), e.Authorities())
			}
		}
	})
}
