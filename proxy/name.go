package proxy

import (
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// maxNameLength is the longest repository name that is accepted, with its
// registry; the distribution specification names 255 as what clients may rely
// on.
const maxNameLength = 255

// parseDigest parses a digest as it stands in a path. Only sha256 is served:
// for another algorithm the bytes would have to be hashed twice to be the same
// content in the store and in a signature.
func parseDigest(s string) (v1.Hash, error) {
	algorithm, hex, ok := strings.Cut(s, ":")
	if !ok {
		return v1.Hash{}, invalidDigest(s, "want algorithm:hex")
	}
	if algorithm != "sha256" {
		return v1.Hash{}, invalidDigest(s, "only sha256 is supported")
	}
	if len(hex) != 64 || strings.Trim(hex, "0123456789abcdef") != "" {
		return v1.Hash{}, invalidDigest(s, "want 64 lower-case hexadecimal digits")
	}
	return v1.Hash{Algorithm: algorithm, Hex: hex}, nil
}

// validTag reports whether s is a tag by the distribution specification:
// [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}.
func validTag(s string) bool {
	if s == "" || len(s) > 128 || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isAlnum(c) && (c < 'A' || c > 'Z') && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

// validRepository reports whether s is a repository name by the distribution
// specification: components of [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)* joined by
// slashes.
func validRepository(s string) bool {
	if s == "" || len(s) > maxNameLength {
		return false
	}
	for component := range strings.SplitSeq(s, "/") {
		if !validComponent(component) {
			return false
		}
	}
	return true
}

func validComponent(s string) bool {
	if s == "" || !isAlnum(s[0]) || !isAlnum(s[len(s)-1]) {
		return false
	}
	for i := 0; i < len(s); {
		if isAlnum(s[i]) {
			i++
			continue
		}
		start := i
		for i < len(s) && !isAlnum(s[i]) {
			i++
		}
		switch separator := s[start:i]; {
		case separator == ".", separator == "_", separator == "__":
		case strings.Trim(separator, "-") == "":
		default:
			return false
		}
	}
	return true
}

func isAlnum(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

// looksLikeRegistry reports whether the first component of a path can only be
// meant as a registry: it has a dot or a colon, or is localhost.
func looksLikeRegistry(component string) bool {
	return component == "localhost" || strings.ContainsAny(component, ".:")
}

// validRegistry reports whether s may name a registry: lower-case host with an
// optional port, nothing that a URL would read differently.
func validRegistry(s string) bool {
	host, port, hasPort := strings.Cut(s, ":")
	if hasPort && (port == "" || len(port) > 5 || strings.Trim(port, "0123456789") != "") {
		return false
	}
	if host == "" || len(host) > 253 || !isAlnum(host[0]) || !isAlnum(host[len(host)-1]) {
		return false
	}
	for i := range len(host) {
		if c := host[i]; !isAlnum(c) && c != '.' && c != '-' {
			return false
		}
	}
	return !strings.Contains(host, "..")
}

// dockerHub is the name under which Docker Hub's repositories are known to
// policies, logs and metrics.
const dockerHub = "docker.io"

// canonicalRegistry maps the spellings of Docker Hub to its one name.
func canonicalRegistry(registry string) string {
	switch registry {
	case "index.docker.io", "registry-1.docker.io":
		return dockerHub
	}
	return registry
}

// canonicalRepository returns the repository's name on its upstream: Docker
// Hub's official images live under library/.
func canonicalRepository(upstream, repository string) string {
	if upstream == dockerHub && !strings.Contains(repository, "/") {
		return "library/" + repository
	}
	return repository
}

// subjectOfTag returns the subject that a tag of the form sha256-<hex><suffix>
// belongs to, for the suffixes of signature artifacts and for the referrers
// fallback tag, whose suffix is empty.
func subjectOfTag(tag string) (subject v1.Hash, suffix string, ok bool) {
	rest, ok := strings.CutPrefix(tag, "sha256-")
	if !ok || len(rest) < 64 {
		return v1.Hash{}, "", false
	}
	hex, suffix := rest[:64], rest[64:]
	switch suffix {
	case "", ".sig", ".cosign", ".att", ".sbom":
	default:
		return v1.Hash{}, "", false
	}
	subject, err := parseDigest("sha256:" + hex)
	return subject, suffix, err == nil
}

// fallbackTag is the tag under which a registry without a referrers API lists
// the referrers of digest (distribution specification, referrers tag schema).
func fallbackTag(digest v1.Hash) string { return digest.Algorithm + "-" + digest.Hex }
