package envelope

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// predicateAliases are cosign's short names of predicate types, in the order in which
// people are told of them. Source: cosign cmd/cosign/cli/options/predicate.go.
var predicateAliases = []struct{ alias, uri string }{
	{"slsaprovenance", "https://slsa.dev/provenance/v0.2"},
	{"slsaprovenance02", "https://slsa.dev/provenance/v0.2"},
	{"slsaprovenance1", "https://slsa.dev/provenance/v1"},
	{"link", "https://in-toto.io/Link/v1"},
	{"spdx", "https://spdx.dev/Document"},
	{"spdxjson", "https://spdx.dev/Document"},
	{"cyclonedx", "https://cyclonedx.org/bom"},
	{"vuln", "https://cosign.sigstore.dev/attestation/vuln/v1"},
	{"openvex", "https://openvex.dev/ns"},
	{"custom", "https://cosign.sigstore.dev/attestation/v1"},
}

// PredicateAliases returns the short names that PredicateType knows.
func PredicateAliases() []string {
	var names []string
	for _, known := range predicateAliases {
		names = append(names, known.alias)
	}
	return names
}

// PredicateType returns the predicate type that a person means by name: an alias of
// cosign's, or the URI itself. The type of a signature of an image is refused, for no
// attestation has it.
func PredicateType(name string) (string, error) {
	for _, known := range predicateAliases {
		if known.alias == name {
			return known.uri, nil
		}
	}
	parsed, err := url.Parse(name)
	switch {
	case err != nil || parsed.Scheme == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return "", fmt.Errorf("predicate type %s is neither a URI nor one of %s", quote(name), strings.Join(PredicateAliases(), ", "))
	case name == PredicateCosignSign:
		return "", fmt.Errorf("predicate type %s is a signature's, not an attestation's", name)
	}
	return name, nil
}

// PredicateName returns what people call a predicate type: the alias, and the URI
// behind it; or the URI alone.
func PredicateName(uri string) string {
	i := slices.IndexFunc(predicateAliases, func(known struct{ alias, uri string }) bool { return known.uri == uri })
	if i < 0 {
		return uri
	}
	return predicateAliases[i].alias + " (" + uri + ")"
}
