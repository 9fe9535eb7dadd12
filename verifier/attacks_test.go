package verifier_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/asn1"
	"encoding/json"
	"math/big"
	"slices"
	"strings"
	"testing"

	"vidimus/verifier"
)

// TestAttacksOnASignature names its rows by the project's catalogue of attacks.
func TestAttacksOnASignature(t *testing.T) {
	release, attacker := newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P256())
	good := payload(t, subject.Digest, nil)
	signature := sign(t, release, crypto.SHA256, good)
	signed := func(r *registry, p []byte) layer { return r.layer(p, sign(t, release, crypto.SHA256, p)) }
	replaced := func(old, new string) []byte { return []byte(strings.Replace(string(good), old, new, 1)) }
	pub, err := json.Marshal(string(pkixOf(t, attacker.Public())))
	if err != nil {
		t.Fatal(err)
	}
	otherPayload := payload(t, other, nil)

	for _, tt := range []struct {
		name   string
		layer  func(r *registry) layer
		reason string // empty: verified
		detail string
	}{
		{"A2: signed by another key", func(r *registry) layer {
			return r.layer(good, sign(t, attacker, crypto.SHA256, good))
		}, "untrusted", "by none of the keys asked for (1)"},
		{"A3: a signature over another digest at our tag", func(r *registry) layer {
			return signed(r, otherPayload)
		}, "digest-mismatch", "signed " + repository + "@" + other.String()},
		{"A6: the attacker's key in every annotation", func(r *registry) layer {
			extra := map[string]string{}
			for _, name := range []string{"dev.sigstore.cosign/certificate", "dev.sigstore.cosign/chain", "dev.sigstore.cosign/bundle",
				"dev.sigstore.cosign/rfc3161timestamp", "dev.sigstore.cosign/publicKey", "dev.cosignproject.cosign/key"} {
				extra[name] = block("PUBLIC KEY", pkixOf(t, attacker.Public())) + string(pub)
			}
			return r.layer(good, sign(t, attacker, crypto.SHA256, good)).annotated(extra)
		}, "untrusted", ""},
		{"A9: an Ed25519 key's signature for a P-256 key", func(r *registry) layer {
			return r.layer(good, sign(t, newEd25519(t), 0, good))
		}, "untrusted", ""},
		{"A9: a P-384 key's signature for a P-256 key", func(r *registry) layer {
			return r.layer(good, sign(t, newECDSA(t, elliptic.P384()), crypto.SHA256, good))
		}, "untrusted", ""},
		{"A9: an RSA key's signature for a P-256 key", func(r *registry) layer {
			return r.layer(good, sign(t, newRSA(t, 2048), crypto.SHA256, good))
		}, "untrusted", ""},
		{"A10: a signature with a trailing byte", func(r *registry) layer {
			return r.layer(good, append(slices.Clone(signature), 0))
		}, "untrusted", ""},
		{"A10: a signature with a long length", func(r *registry) layer {
			return r.layer(good, slices.Concat([]byte{0x30, 0x81, signature[1]}, signature[2:]))
		}, "untrusted", ""},
		{"A10: r and s of zero", func(r *registry) layer {
			return r.layer(good, []byte{0x30, 6, 2, 1, 0, 2, 1, 0})
		}, "untrusted", ""},
		{"A10: r and s as they are, without DER", func(r *registry) layer {
			return r.layer(good, slices.Concat(make([]byte, 32), make([]byte, 32)))
		}, "untrusted", ""},
		{"A10: r and n-s, which is a signature too", func(r *registry) layer {
			return r.layer(good, malleate(t, release, signature))
		}, "", ""},
		{"A13: another type", func(r *registry) layer {
			return signed(r, replaced("cosign container image signature", "atomic container signature"))
		}, "payload-invalid", `type is "atomic container signature"`},
		{"A13: a critical field that nobody knows", func(r *registry) layer {
			return signed(r, replaced(`"critical":{`, `"critical":{"x":1,`))
		}, "payload-invalid", `critical has "x"`},
		{"A13: an empty digest", func(r *registry) layer {
			return signed(r, replaced(subject.Digest.String(), ""))
		}, "payload-invalid", "digest is empty"},
		{"A13: a payload that is no JSON", func(r *registry) layer {
			return signed(r, []byte("hello"))
		}, "payload-invalid", "json"},
		{"A14: the payload's digest is another", func(r *registry) layer {
			l := r.layer(good, signature)
			r.blobs[other] = good
			return l.with("digest", other.String())
		}, "?", "the registry delivered other bytes"},
		{"A14: the payload is shorter than declared", func(r *registry) layer {
			return r.layer(good, signature).with("size", len(good)+1)
		}, "?", "the registry delivered other bytes"},
		{"A14: the payload is longer than declared", func(r *registry) layer {
			return r.layer(good, signature).with("size", len(good)-1)
		}, "?", "the registry delivered other bytes"},
		{"B10: a digest twice", func(r *registry) layer {
			return signed(r, replaced(`"docker-manifest-digest"`, `"docker-manifest-digest":"`+other.String()+`","docker-manifest-digest"`))
		}, "payload-invalid", "twice in one object"},
		{"B10: a digest in two letter cases", func(r *registry) layer {
			return signed(r, replaced(`"docker-manifest-digest"`, `"Docker-manifest-digest":"`+other.String()+`","docker-manifest-digest"`))
		}, "payload-invalid", "two letter cases"},
		{"B10: a digest under a Kelvin sign", func(r *registry) layer {
			return signed(r, replaced(`"docker-manifest-digest"`, "\"doc\u212aer-manifest-digest\":\""+other.String()+`","docker-manifest-digest"`))
		}, "payload-invalid", "two letter cases"},
		{"B10: trailing data", func(r *registry) layer {
			return signed(r, append(slices.Clone(good), otherPayload...))
		}, "payload-invalid", "data after the value"},
		{"B10: a byte order mark", func(r *registry) layer {
			return signed(r, append([]byte("\ufeff"), good...))
		}, "payload-invalid", "json"},
		{"B10: UTF-16", func(r *registry) layer {
			return signed(r, []byte("\xff\xfe{\x00}\x00"))
		}, "payload-invalid", "UTF-8"},
		{"B10: NaN", func(r *registry) layer {
			return signed(r, replaced(`"optional":null`, `"optional":{"x":NaN}`))
		}, "payload-invalid", "json"},
		{"B10: deep nesting", func(r *registry) layer {
			return signed(r, replaced("null", strings.Repeat(`{"a":`, 1000)+"1"+strings.Repeat("}", 1000)))
		}, "payload-invalid", "nested deeper"},
		{"B17: a compressed payload is not decompressed", func(r *registry) layer {
			return signed(r, []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00"))
		}, "payload-invalid", "UTF-8"},
		{"a payload of two gigabytes", func(r *registry) layer {
			return r.layer(good, signature).with("size", int64(2)<<30)
		}, "payload-invalid", "declares 2147483648 bytes"},
		{"a payload of one byte too many", func(r *registry) layer {
			return r.layer(good, signature).with("size", verifier.MaxPayloadSize+1)
		}, "payload-invalid", "declares 1048577 bytes"},
		{"a payload of negative size", func(r *registry) layer {
			return r.layer(good, signature).with("size", -1)
		}, "payload-invalid", "no size"},
		{"a payload without a size", func(r *registry) layer {
			return r.layer(good, signature).with("size", nil)
		}, "payload-invalid", "no size"},
		{"a payload whose size is a fraction", func(r *registry) layer {
			return r.layer(good, signature).with("size", 1.5)
		}, "payload-invalid", "no size"},
		{"a payload without a digest", func(r *registry) layer {
			return r.layer(good, signature).with("digest", nil)
		}, "payload-invalid", "no digest"},
		{"a payload whose digest is a path", func(r *registry) layer {
			return r.layer(good, signature).with("digest", "sha256:../../x")
		}, "payload-invalid", "which is not sha256"},
		{"a payload whose digest is of another algorithm", func(r *registry) layer {
			return r.layer(good, signature).with("digest", "sha512:"+strings.Repeat("0", 128))
		}, "payload-invalid", "which is not sha256"},
		{"a layer without annotations", func(r *registry) layer {
			return r.layer(good, signature).with("annotations", nil)
		}, "payload-invalid", "no annotation dev.cosignproject.cosign/signature"},
		{"a layer whose annotations are a list", func(r *registry) layer {
			return r.layer(good, signature).with("annotations", []string{annotation})
		}, "payload-invalid", "no annotation dev.cosignproject.cosign/signature"},
		{"an empty signature", func(r *registry) layer { return r.layer(good, nil) }, "payload-invalid", "not base64"},
		{"a signature that is not base64", func(r *registry) layer {
			return r.layer(good, signature).annotated(map[string]string{annotation: "***"})
		}, "payload-invalid", "not base64"},
		{"a signature that is too large", func(r *registry) layer {
			return r.layer(good, make([]byte, verifier.MaxSignatureSize+1))
		}, "payload-invalid", "a signature of more than 2048 bytes"},
		{"a payload that is missing", func(r *registry) layer {
			l := r.layer(good, signature)
			delete(r.blobs, digestOf(good))
			return l
		}, "payload-invalid", "is missing"},
	} {
		attack := func(t *testing.T, asked verifier.Subject) {
			verify := func(r *registry) verifier.Report {
				return look(t, r, asked, []verifier.Authority{authority(t, "release", release)}, verifier.Tags(), anyVerified)
			}
			r := newRegistry()
			r.tag(t, sigTag, tt.layer(r))
			report := verify(r)
			if tt.reason == "?" {
				if len(report.Evidence) > 0 || len(report.Failures) != 1 || !strings.Contains(report.Failures[0].Err.Error(), tt.detail) {
					t.Fatalf("report %+v, want a failure with %q", report, tt.detail)
				}
			} else {
				expected := outcome{Source: sigTag, Reason: tt.reason}
				if tt.reason == "" {
					expected.Authorities = []string{"release"}
				}
				want(t, report, expected)
				if e := report.Evidence[0]; !strings.Contains(e.Detail(), tt.detail) || strings.ContainsAny(e.Detail(), "\n\r\x1b") {
					t.Errorf("detail %q does not say %q on one line", e.Detail(), tt.detail)
				}
			}

			// Whatever the first layer is, it does not mask a good one.
			r = newRegistry()
			r.tag(t, sigTag, tt.layer(r), signed(r, payload(t, subject.Digest, map[string]any{"second": "one"})))
			if report := verify(r); !anyVerified(report.Evidence) {
				t.Errorf("the signature after it is not found: %+v", report)
			}
		}
		t.Run(tt.name, func(t *testing.T) { attack(t, subject) })
		if tt.detail != "is missing" { // it is not asked for
			t.Run("with a predicted payload: "+tt.name, func(t *testing.T) { attack(t, named) })
		}
	}
}

// malleate returns the other signature of the same key over the same bytes.
func malleate(t *testing.T, key *ecdsa.PrivateKey, signature []byte) []byte {
	t.Helper()
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(signature, &rs); err != nil {
		t.Fatal(err)
	}
	rs.S.Sub(key.Curve.Params().N, rs.S)
	changed, err := asn1.Marshal(rs)
	if err != nil {
		t.Fatal(err)
	}
	return changed
}
