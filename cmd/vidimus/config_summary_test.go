package main

import (
	"strings"
	"testing"
)

func TestSummaryNamesWhatIsNotTheDefault(t *testing.T) {
	inDirectory(t, map[string]string{
		"provenance.rego": "package vidimus\nallow if input.predicate", "policy.rego": "package vidimus\nallow if input.image",
	})
	digest := `"sha256:` + strings.Repeat("0", 64) + `"`
	l := mustLoad(t, `version: 1
upstreams: {quay.io: {}}
authorities: {release: {keys: [release.pub]}}
policies:
  - match: [quay.io/prod/**, "!quay.io/prod/x"]
    name: production
    require: release
    signedAs: exact
    annotations: {tier: "1", env: prod}
    enforcement: warn
  - {match: quay.io/copies/**, require: release, signedAs: {prefix: quay.io/copies, signedPrefix: ghcr.io/acme}}
  - match: quay.io/attested/**
    require: release
    attestations:
      - {predicateType: slsaprovenance1, require: {any: [release]}, rego: provenance.rego}
      - {predicateType: "https://example.com/review", require: release}
    rego: policy.rego
  - {match: quay.io/built/**, attestations: [{predicateType: spdx, require: release}]}
  - {match: quay.io/**, require: release, signedAs: ifPresent, enforcement: enforce}
exceptions:
  - {match: quay.io/a/b, digests: [`+digest+`], until: 2026-12-01, reason: INC-1}
  - {match: quay.io/a/c, digests: [`+digest+`], until: 2026-11-15T12:00:00Z, reason: INC-2}
`, nil)
	var out strings.Builder
	if err := l.summarize(&out, "vidimus.yaml", clock); err != nil {
		t.Fatal(err)
	}
	got := out.String()
	for _, want := range []string{
		"\npolicy        production, for quay.io/prod/** !quay.io/prod/x: require release; signedAs exact; annotations env=prod, tier=1; warn\n",
		"\npolicy        quay.io/copies/**: require release; signedAs {prefix: quay.io/copies, signedPrefix: ghcr.io/acme}\n",
		"\npolicy        quay.io/attested/**: require release; require slsaprovenance1 (https://slsa.dev/provenance/v1) by release that provenance.rego does not deny; require https://example.com/review by release; unless policy.rego denies\n",
		"\npolicy        quay.io/built/**: require spdx (https://spdx.dev/Document) by release\n",
		"\npolicy        quay.io/**: require release\n",
		"\nexception     quay.io/a/b: active until 2026-12-01 for 1 digest, INC-1\n",
		"\nexception     quay.io/a/c: ended on 2026-11-15T12:00:00Z, remove it (vidimus.yaml:22)\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the summary does not say %q:\n%s", want, got)
		}
	}
}

func TestSummarySaysHowManyMustAgree(t *testing.T) {
	for _, row := range []struct {
		atLeast int
		names   []string
		want    string
	}{
		{1, []string{"release"}, "release"},
		{2, []string{"ci", "release"}, "all of ci, release"},
		{1, []string{"ci", "release"}, "1 of ci, release"},
		{2, []string{"ci", "release", "vendor"}, "2 of ci, release, vendor"},
	} {
		if got := requireSummary(row.atLeast, row.names); got != row.want {
			t.Errorf("got %q, want %q", got, row.want)
		}
	}
}
