package main

import (
	"testing"

	"vidimus/policy"
)

func TestAttestationsAreWhatIsWritten(t *testing.T) {
	inDirectory(t, map[string]string{
		"policies.d/a.yaml": `policies:
  - match: docker.io/a/b
    require: release
    attestations:
      - {predicateType: slsaprovenance1, require: {all: [release, other]}, rego: rules/a.rego}
      - {predicateType: "https://example.com/review", require: other}
    rego: rules/a.rego
`,
		"policies.d/rules/a.rego": "package vidimus\nallow if input.image.tag\n",
	})
	l := mustLoad(t, `
version: 1
upstreams: {docker.io: {}}
authorities: {release: {keys: [release.pub]}, other: {keys: [other.pub]}}
include: [{files: "policies.d/*.yaml", scope: "docker.io/a/**"}]
`, nil)
	p := l.Policy.Policies[0]
	if len(p.Attestations) != 2 || p.Rego == nil || p.Attestations[0].Rego == nil || p.Attestations[1].Rego != nil {
		t.Fatalf("%+v", p)
	}
	if p.Rego == p.Attestations[0].Rego {
		t.Error("one module is about the image and about one attestation")
	}
	first, second := p.Attestations[0], p.Attestations[1]
	if first.PredicateType != "https://slsa.dev/provenance/v1" || first.Require.AtLeast != 2 || len(first.Require.Of) != 2 {
		t.Errorf("%+v", first)
	}
	if second.PredicateType != "https://example.com/review" || second.Require.AtLeast != 1 || second.Require.Of[0] != "other" {
		t.Errorf("%+v", second)
	}
	if set, err := policy.New(l.Policy); err != nil || !set.Scope("docker.io/a/b").ReadsTag {
		t.Errorf("the tag is not read: %v", err)
	}
}

// One module is compiled once, however many policies name its file.
func TestAModuleIsCompiledOnce(t *testing.T) {
	inDirectory(t, map[string]string{"a.rego": "package vidimus\nallow if input.image.tag\n"})
	l := mustLoad(t, `
version: 1
upstreams: {docker.io: {}}
authorities: {release: {keys: [release.pub]}}
policies:
  - {match: docker.io/a/a, require: release, rego: a.rego}
  - {match: docker.io/a/b, require: release, rego: ./a.rego}
`, nil)
	if l.Policy.Policies[0].Rego != l.Policy.Policies[1].Rego {
		t.Error("it was compiled twice")
	}
}
