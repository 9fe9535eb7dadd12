package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vidimus/e2e/real"
)

// attestingProxy starts a proxy that asks for a signature by the key and for provenance
// by it that its Rego does not deny.
func attestingProxy(t *testing.T, registry, public string) *real.Vidimus {
	t.Helper()
	rules := real.Write(t, t.TempDir(), "provenance.rego", `package vidimus
deny contains sprintf("built by %s", [input.predicate.runDetails.builder.id]) if input.predicate.runDetails.builder.id != "https://ci.example"
`)
	return real.StartVidimus(t, built(t, racing), real.Dir(t), fmt.Sprintf(`
upstreams: {docker.io: {url: "http://%s"}}
authorities: {release: {keys: [%q]}}
policies:
  - match: docker.io/**
    require: release
    attestations: [{predicateType: slsaprovenance1, require: release, rego: %q}]
`, registry, public, rules))
}

// attester is one way in which cosign attests.
type attester func(t *testing.T, key, image, predicateType, predicate string)

// What cosign attests with a key is found and counts as what it is, whatever version
// made it, and cosign prints of it what we print.
func TestAttestationsOfCosign(t *testing.T) {
	t.Parallel()
	two, three := real.NewCosign(t, 2), real.NewCosign(t, 3)
	addr := real.StartDistribution(t)
	keys, stranger := newKeyPair(t), newKeyPair(t)
	proxy := attestingProxy(t, addr, keys.public)
	dir := t.TempDir()
	provenance := func(builder string) string {
		return real.Write(t, dir, builder+".json", fmt.Sprintf(`{"buildDefinition": {"buildType": "https://example.com/make", "externalParameters": {}}, "runDetails": {"builder": {"id": "https://%s.example"}}}`, builder))
	}
	ci, laptop := provenance("ci"), provenance("laptop")
	sbom := real.Write(t, dir, "sbom.json", `{"spdxVersion": "SPDX-2.3"}`)
	for _, version := range []struct {
		name   string
		cosign *real.Cosign
		attest attester
	}{
		{"cosign 2 at the tag", two, func(t *testing.T, key, image, kind, predicate string) {
			must(t, two.AttestTag(t, key, image, kind, predicate))
		}},
		{"cosign 3 at the tag", three, func(t *testing.T, key, image, kind, predicate string) {
			must(t, three.AttestTag(t, key, image, kind, predicate))
		}},
		{"cosign 3 in a bundle", three, func(t *testing.T, key, image, kind, predicate string) {
			must(t, three.Attest(t, key, image, kind, predicate))
		}},
	} {
		t.Run(version.name, func(t *testing.T) {
			t.Parallel()
			x := exchange{version.cosign, addr, proxy, keys}
			for _, tt := range []struct {
				name   string
				make   func(t *testing.T, image string)
				reason string // empty: served
			}{
				{"attested and signed", func(t *testing.T, image string) {
					must(t, two.Sign(t, keys.private, image))
					version.attest(t, keys.private, image, "slsaprovenance1", ci)
				}, ""},
				{"signed, and attested twice", func(t *testing.T, image string) {
					must(t, three.SignBundle(t, keys.private, image))
					version.attest(t, keys.private, image, "slsaprovenance1", laptop)
					version.attest(t, keys.private, image, "slsaprovenance1", ci)
				}, ""},
				{"attested only", func(t *testing.T, image string) {
					version.attest(t, keys.private, image, "slsaprovenance1", ci)
				}, "attested-not-signed"},
				{"signed only", func(t *testing.T, image string) {
					must(t, two.Sign(t, keys.private, image))
				}, "attestation-missing"},
				{"signed, and attested otherwise", func(t *testing.T, image string) {
					must(t, two.Sign(t, keys.private, image))
					version.attest(t, keys.private, image, "spdxjson", sbom)
				}, "attestation-missing"},
				{"signed, and attested by a stranger", func(t *testing.T, image string) {
					must(t, two.Sign(t, keys.private, image))
					version.attest(t, stranger.private, image, "slsaprovenance1", ci)
				}, "attestation-missing"},
				{"signed, and built elsewhere", func(t *testing.T, image string) {
					must(t, two.Sign(t, keys.private, image))
					version.attest(t, keys.private, image, "slsaprovenance1", laptop)
				}, "rego"},
			} {
				t.Run(tt.name, func(t *testing.T) {
					repository, _, image := x.push(t)
					tt.make(t, image)
					code, body := status(t, proxy, repository, "v1")
					if tt.reason == "" && code != http.StatusOK || tt.reason != "" && (code != http.StatusForbidden || !strings.Contains(body, `"reason":"`+tt.reason+`"`)) {
						t.Errorf("the proxy answers %d %s, want %q", code, body, tt.reason)
					}
				})
			}
			t.Run("verify-attestation prints what cosign prints", func(t *testing.T) {
				_, _, image := x.push(t)
				version.attest(t, keys.private, image, "slsaprovenance1", ci)
				theirs := must(t, version.cosign.VerifyAttestation(t, keys.public, image, "slsaprovenance1"))
				ours := must(t, vidimus(t, "", nil, "verify-attestation", "--key", keys.public, "--type", "slsaprovenance1", image))
				if diff := cmp.Diff(envelopes(t, theirs.Stdout), envelopes(t, ours.Stdout)); diff != "" {
					t.Errorf("(-cosign +vidimus)\n%s", diff)
				}
				for _, args := range [][]string{
					{"--key", stranger.public, "--type", "slsaprovenance1"}, {"--key", keys.public, "--type", "spdx"}, {"--key", keys.public},
				} {
					if r := vidimus(t, "", nil, append(append([]string{"verify-attestation"}, args...), image)...); r.Code != 1 || r.Stdout != "" {
						t.Errorf("%v: exit code %d, want 1\n%s", args, r.Code, r.Output())
					}
				}
				rules := real.Write(t, t.TempDir(), "ci.rego", "package signature\n\nimport rego.v1\n\nallow if input.predicate.runDetails.builder.id == \"https://ci.example\"\n")
				must(t, version.cosign.VerifyAttestation(t, keys.public, image, "slsaprovenance1", "--policy", rules))
				must(t, vidimus(t, "", nil, "verify-attestation", "--key", keys.public, "--type", "slsaprovenance1", "--policy", rules, image))
				version.attest(t, keys.private, image, "slsaprovenance1", laptop)
				if r := version.cosign.VerifyAttestation(t, keys.public, image, "slsaprovenance1", "--policy", rules); r.Code == 0 {
					t.Errorf("cosign takes one that does not satisfy the policy:\n%s", r.Output())
				}
				if r := vidimus(t, "", nil, "verify-attestation", "--key", keys.public, "--type", "slsaprovenance1", "--policy", rules, image); r.Code != 1 {
					t.Errorf("exit code %d, want 1\n%s", r.Code, r.Output())
				}
			})
		})
	}
}

// envelopes are those that a command has printed, a line each, in the order of their
// texts.
func envelopes(t *testing.T, stdout string) []string {
	t.Helper()
	var all []string
	for decoder := json.NewDecoder(strings.NewReader(stdout)); decoder.More(); {
		var e struct {
			PayloadType string `json:"payloadType"`
			Payload     []byte `json:"payload"`
			Signatures  []struct {
				KeyID string `json:"keyid"`
				Sig   []byte `json:"sig"`
			} `json:"signatures"`
		}
		if err := decoder.Decode(&e); err != nil {
			t.Fatalf("%v\n%s", err, stdout)
		}
		encoded, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(bytes.TrimSpace(encoded)))
	}
	slices.Sort(all)
	return all
}
