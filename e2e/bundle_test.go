package e2e_test

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/e2e/lying"
	"vidimus/e2e/real"
)

// What cosign 3 makes by default is found and admitted, where the registry has a
// referrers API and where it has none; and what it attests is not.
func TestBundlesOfCosign3(t *testing.T) {
	t.Parallel()
	for _, registry := range []struct {
		name  string
		start func(testing.TB) string
	}{
		{"distribution, which has no referrers API", real.StartDistribution},
		{"go-containerregistry, which has one", real.StartGGCR},
	} {
		t.Run(registry.name, func(t *testing.T) {
			t.Parallel()
			cosign := real.NewCosign(t, 3)
			addr := registry.start(t)
			keys := keysIn(t.TempDir())
			if r := cosign.Run(t, filepath.Dir(keys.private), "generate-key-pair"); r.Code != 0 {
				t.Fatal(r.Output())
			}
			x := exchange{cosign, addr, proxyFor(t, addr, keys.public), keys}
			predicate := real.Write(t, t.TempDir(), "predicate.json", `{"buildDefinition": {}}`)
			attest := func(t *testing.T, image string) {
				must(t, cosign.Attest(t, keys.private, image, "slsaprovenance1", predicate))
			}

			t.Run("a signature is admitted, and verified as cosign does", func(t *testing.T) {
				repository, digest, image := x.push(t)
				must(t, cosign.SignBundle(t, x.private, image, "-a", "env=prod"))
				if code, body := status(t, x.proxy, repository, "v1"); code != http.StatusOK {
					t.Errorf("the proxy answers %d %s", code, body)
				}
				want := must(t, cosign.Verify(t, x.public, image, "-a", "env=prod"))
				got := must(t, vidimus(t, "", nil, "verify", "--key", x.public, "-a", "env=prod", image))
				if diff := cmp.Diff(payloads(t, want.Stdout), payloads(t, got.Stdout)); diff != "" {
					t.Errorf("vidimus verify prints other payloads than cosign verify:\n%s", diff)
				}
				if r := vidimus(t, "", nil, "verify", "--key", x.public, "-a", "env=test", image); r.Code != 1 {
					t.Errorf("verify with another annotation: exit code %d, want 1\n%s", r.Code, r.Output())
				}
				through := x.proxy.Addr + "/docker.io/" + repository
				must(t, cosign.Verify(t, x.public, through+":v1"))
				must(t, cosign.Verify(t, x.public, through+"@"+digest.String()))
			})
			t.Run("a signature among attestations, and beside one of another form", func(t *testing.T) {
				repository, _, image := x.push(t)
				attest(t, image)
				must(t, cosign.SignBundle(t, x.private, image))
				attest(t, image)
				must(t, cosign.SignBundle(t, newKeyPair(t).private, image))
				must(t, cosign.Sign(t, newKeyPair(t).private, image))
				if code, body := status(t, x.proxy, repository, "v1"); code != http.StatusOK {
					t.Errorf("the proxy answers %d %s", code, body)
				}
			})
			t.Run("an old signature beside a bundle by a stranger", func(t *testing.T) {
				repository, _, image := x.push(t)
				must(t, cosign.Sign(t, x.private, image))
				must(t, cosign.SignBundle(t, newKeyPair(t).private, image))
				if code, body := status(t, x.proxy, repository, "v1"); code != http.StatusOK {
					t.Errorf("the proxy answers %d %s", code, body)
				}
			})
			for _, tt := range []struct {
				name, reason string
				make         func(t *testing.T, image string)
			}{
				{"attested only", "attested-not-signed", attest},
				{"signed by a stranger", "untrusted", func(t *testing.T, image string) {
					must(t, cosign.SignBundle(t, newKeyPair(t).private, image))
				}},
			} {
				t.Run(tt.name, func(t *testing.T) {
					repository, digest, image := x.push(t)
					tt.make(t, image)
					for _, reference := range []string{"v1", digest.String()} {
						if code, body := status(t, x.proxy, repository, reference); code != http.StatusForbidden || !strings.Contains(body, `"reason":"`+tt.reason+`"`) {
							t.Errorf("the proxy answers %d %s", code, body)
						}
					}
					if r := vidimus(t, "", nil, "verify", "--key", x.public, image); r.Code != 1 {
						t.Errorf("verify: exit code %d, want 1\n%s", r.Code, r.Output())
					}
					if r := cosign.Verify(t, x.public, image); r.Code == 0 && tt.reason != "attested-not-signed" {
						t.Errorf("cosign verifies it:\n%s", r.Output()) // an attestation it takes for a signature
					}
				})
			}
			t.Run("a name in an annotation", func(t *testing.T) {
				repository, _, image := x.push(t)
				must(t, cosign.SignBundle(t, x.private, image, "-a", "docker-reference=docker.io/"+repository))
				if code, body := status(t, x.proxy, repository, "v1"); code != http.StatusOK {
					t.Errorf("the proxy answers %d %s", code, body)
				}
				repository, image = x.pushCalled(t, "elsewhere")
				must(t, cosign.SignBundle(t, x.private, image, "-a", "docker-reference=docker.io/acme/other"))
				if code, body := status(t, x.proxy, repository, "v1"); code != http.StatusForbidden || !strings.Contains(body, "identity-mismatch") {
					t.Errorf("the proxy answers %d %s", code, body)
				}
			})
		})
	}
}

// What cosign 2 makes in its experimental mode is found where it lists it.
func TestSignatureImagesWithASubjectOfCosign2(t *testing.T) {
	t.Parallel()
	for _, registry := range []struct {
		name  string
		start func(testing.TB) string
	}{
		{"distribution", real.StartDistribution},
		{"go-containerregistry", real.StartGGCR},
	} {
		t.Run(registry.name, func(t *testing.T) {
			t.Parallel()
			cosign, addr, keys := real.NewCosign(t, 2), registry.start(t), newKeyPair(t)
			x := exchange{cosign, addr, proxyFor(t, addr, keys.public), keys}
			repository, _, image := x.push(t)
			must(t, cosign.SignReferrer(t, x.private, image))
			if code, body := status(t, x.proxy, repository, "v1"); code != http.StatusOK {
				t.Errorf("the proxy answers %d %s", code, body)
			}
			repository, image = x.pushCalled(t, "by a stranger")
			must(t, cosign.SignReferrer(t, newKeyPair(t).private, image))
			if code, body := status(t, x.proxy, repository, "v1"); code != http.StatusForbidden || !strings.Contains(body, `"reason":"untrusted"`) {
				t.Errorf("the proxy answers %d %s", code, body)
			}
		})
	}
}

// pushCalled is push for a second image of a test.
func (x exchange) pushCalled(t *testing.T, name string) (repository, image string) {
	t.Helper()
	content := lying.Image(t.Name() + name)
	repository = "acme/" + content.Digest().Hex[:12]
	real.Push(t, x.registry, repository, content, "v1")
	return repository, x.registry + "/" + repository + "@" + content.Digest().String()
}

// A bundle in the repository of COSIGN_REPOSITORY is found there, where the image is not.
func TestABundleInAnotherRepositoryIsVerified(t *testing.T) {
	t.Parallel()
	addr := real.StartGGCR(t)
	key := lying.P256()
	public := key.WritePublic(t, t.TempDir(), "cosign.pub")
	content := lying.Image("bundled elsewhere")
	image := addr + "/acme/web@" + real.Push(t, addr, "acme/web", content)
	for name, bundle := range map[string]map[string]any{
		"over a statement":    lying.BundleFields(lying.Bundle03, key, lying.Statement(content.Digest(), lying.PredicateSign, nil)),
		"over the manifest":   lying.MessageFields(key, content.Body),
		"of the first format": lying.BundleFields(lying.Bundle01, key, lying.Statement(content.Digest(), lying.PredicateSign, nil)),
	} {
		t.Run(name, func(t *testing.T) {
			mediaType := bundle["mediaType"].(types.MediaType)
			repository := "acme/" + lying.Digest([]byte(name)).Hex[:12]
			real.Push(t, addr, repository, lying.BundleArtifact(content.Descriptor(), mediaType, lying.Encode(bundle), ""))
			must(t, vidimus(t, "", []string{"COSIGN_REPOSITORY=" + addr + "/" + repository}, "verify", "--key", public, image))
			if r := vidimus(t, "", nil, "verify", "--key", public, image); r.Code != 1 {
				t.Errorf("without COSIGN_REPOSITORY: exit code %d, want 1\n%s", r.Code, r.Output())
			}
		})
	}
}

// With the same key and the same claim a bundle is admitted when cosign verify takes it,
// and else not, but for what a rule says.
func TestBundlesAreJudgedAsCosignJudgesThem(t *testing.T) {
	t.Parallel()
	cosign, addr := real.NewCosign(t, 3), real.StartGGCR(t)
	key, stranger := lying.P256(), lying.P256()
	public := key.WritePublic(t, t.TempDir(), "cosign.pub")
	proxy := proxyFor(t, addr, public)
	type fields = map[string]any
	other := lying.Digest([]byte("other"))
	for _, tt := range []struct {
		name    string
		bundle  func(content lying.Content) fields
		differs string // the rule by which we decide otherwise, if we do
	}{
		{"v0.1", statementBy(lying.Bundle01, key, nil), "older versions are taken, for which cosign does not look"},
		{"v0.2", statementBy(lying.Bundle02, key, nil), "older versions are taken, for which cosign does not look"},
		{"v0.3", statementBy(lying.Bundle03, key, nil), ""},
		{"by a stranger", statementBy(lying.Bundle03, stranger, nil), ""},
		{"over the manifest", func(content lying.Content) fields { return lying.MessageFields(key, content.Body) },
			"a message signature over the manifest is a signature"},
		{"over other bytes", func(lying.Content) fields { return lying.MessageFields(key, []byte("other")) }, ""},
		{"another hint", statementBy(lying.Bundle03, key, func(f fields) {
			f["verificationMaterial"] = fields{"publicKey": fields{"hint": "eA=="}}
		}), ""},
		{"a log entry that is none", statementBy(lying.Bundle03, key, func(f fields) {
			f["verificationMaterial"].(fields)["tlogEntries"] = []any{fields{"logIndex": "7"}}
		}), ""},
		{"a timestamp that is none", statementBy(lying.Bundle03, key, func(f fields) {
			f["verificationMaterial"].(fields)["timestampVerificationData"] = fields{"rfc3161Timestamps": []any{fields{"signedTimestamp": "AAAA"}}}
		}), ""},
		{"no material", statementBy(lying.Bundle03, key, func(f fields) { f["verificationMaterial"] = fields{} }), ""},
		{"a name that is unknown", statementBy(lying.Bundle03, key, func(f fields) { f["x"] = 1 }), ""},
		{"another version", statementBy(lying.Bundle03, key, func(f fields) { f["mediaType"] = "application/vnd.dev.sigstore.bundle.v0.9+json" }), ""},
		{"two signatures", statementBy(lying.Bundle03, key, func(f fields) {
			e := f["dsseEnvelope"].(fields)
			e["signatures"] = append(e["signatures"].([]any), e["signatures"].([]any)...)
		}), ""},
		{"another payload type", statementBy(lying.Bundle03, key, func(f fields) { f["dsseEnvelope"].(fields)["payloadType"] = "text/plain" }), ""},
		{"about another manifest", func(lying.Content) fields {
			return lying.BundleFields(lying.Bundle03, key, lying.Statement(other, lying.PredicateSign, nil))
		}, ""},
		{"an attestation", func(content lying.Content) fields {
			return lying.BundleFields(lying.Bundle03, key, lying.Statement(content.Digest(), lying.PredicateSLSA, nil))
		}, "an attestation is no signature"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			content := lying.Image(t.Name())
			repository := "acme/" + content.Digest().Hex[:12]
			real.Push(t, addr, repository, content, "v1")
			bundle := tt.bundle(content)
			mediaType, ok := bundle["mediaType"].(types.MediaType)
			if !ok {
				mediaType = lying.Bundle03
			}
			real.Push(t, addr, repository, lying.BundleArtifact(content.Descriptor(), mediaType, lying.Encode(bundle), ""))
			theirs := cosign.Verify(t, public, addr+"/"+repository+"@"+content.Digest().String())
			code, body := status(t, proxy, repository, "v1")
			if ours := code == http.StatusOK; ours == (theirs.Code == 0) != (tt.differs == "") {
				t.Errorf("cosign ends with %d and says\n%s\nwe answer %d %s", theirs.Code, theirs.Output(), code, body)
			}
		})
	}
}

func statementBy(mediaType types.MediaType, key lying.Key, change func(map[string]any)) func(lying.Content) map[string]any {
	return func(content lying.Content) map[string]any {
		fields := lying.BundleFields(mediaType, key, lying.Statement(content.Digest(), lying.PredicateSign, nil))
		if change != nil {
			change(fields)
		}
		return fields
	}
}
