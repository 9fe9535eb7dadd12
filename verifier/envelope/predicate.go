package envelope

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// PredicateCustom is the predicate type of an attestation whose predicate is text of
// any kind. Source: cosign specs/COSIGN_PREDICATE_SPEC.md.
const PredicateCustom = "https://cosign.sigstore.dev/attestation/v1"

// predicateAliases returns the short names that cosign gives predicate types. Source:
// cosign cmd/cosign/cli/options/predicate.go.
func predicateAliases() map[string]string {
	const slsa02 = "https://slsa.dev/provenance/v0.2"
	const spdx = "https://spdx.dev/Document"
	return map[string]string{
		"custom":           PredicateCustom,
		"cyclonedx":        "https://cyclonedx.org/bom",
		"link":             "https://in-toto.io/Link/v1",
		"openvex":          "https://openvex.dev/ns",
		"slsaprovenance":   slsa02,
		"slsaprovenance02": slsa02,
		"slsaprovenance1":  "https://slsa.dev/provenance/v1",
		"spdx":             spdx,
		"spdxjson":         spdx,
		"vuln":             "https://cosign.sigstore.dev/attestation/vuln/v1",
	}
}

// PredicateType returns the predicate type that alias means: one of cosign's short
// names, or a predicate type itself, which is a URI with a scheme.
func PredicateType(alias string) (string, error) {
	aliases := predicateAliases()
	if predicateType, ok := aliases[alias]; ok {
		return predicateType, nil
	}
	parsed, err := url.Parse(alias)
	if err != nil || parsed.Scheme == "" || parsed.Opaque == "" && parsed.Host == "" {
		return "", fmt.Errorf("predicate type %s is none of %s, and no URI", quote(alias),
			strings.Join(slices.Sorted(maps.Keys(aliases)), ", "))
	}
	return alias, nil
}
