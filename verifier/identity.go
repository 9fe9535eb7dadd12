package verifier

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// maxPattern is how many bytes of a pattern of an identity, and of an issuer or a
// subject in a certificate, are looked at.
const maxPattern = 2048

// repoCapture stands in a pattern for what a policy's match captures.
const repoCapture = "{repo}"

// Identity is who may sign with a certificate: the issuer who vouched for a name,
// and the name. The zero Identity fits nobody. It is immutable.
//
// Issuer, subject and source are patterns over the whole text: "*" is any text
// without a slash, "**" is any text, and "{repo}" one component that With fills in;
// everything else is itself.
type Identity struct {
	issuer, subject, source pattern
	anyIssuer               bool // the issuer is not looked at
	anyone                  bool // everybody fits: for claims, which count for nothing
}

// ParseIdentity makes the identity of patterns of an issuer and of a subject. source,
// when not empty, is one of the repository that the signer ran for: where a
// certificate names that (Fulcio's extensions 1.3.6.1.4.1.57264.1.12 and .1.5), it must
// fit, so that a workflow that others call does not sign for their repositories. An
// error says which pattern is wrong, and how.
//
// An empty issuer is not looked at; that suits a private PKI, whose certificates have
// none, and nobody else.
func ParseIdentity(issuer, subject, source string) (Identity, error) {
	id := Identity{anyIssuer: issuer == ""}
	for _, part := range []struct {
		name, text string
		into       *pattern
		optional   bool
	}{{"issuer", issuer, &id.issuer, true}, {"subject", subject, &id.subject, false}, {"source", source, &id.source, true}} {
		if part.text == "" && part.optional {
			continue
		}
		p, err := parsePattern(part.text)
		if err != nil {
			return Identity{}, fmt.Errorf("%s %s: %w", part.name, shorten(part.text), err)
		}
		*part.into = p
	}
	return id, nil
}

// ParseIdentityRegexp makes the identity of regular expressions (RE2), each over the
// whole text, whether or not it says so itself: an expression that fits somewhere
// inside would take evil@example.com.attacker for example.com. An empty issuer is not
// looked at.
func ParseIdentityRegexp(issuer, subject string) (Identity, error) {
	id := Identity{anyIssuer: issuer == ""}
	for _, part := range []struct {
		name, text string
		into       *pattern
	}{{"issuer", issuer, &id.issuer}, {"subject", subject, &id.subject}} {
		if part.text == "" && part.name == "issuer" {
			continue
		}
		if part.text == "" || len(part.text) > maxPattern {
			return Identity{}, fmt.Errorf("%s: an expression of 1 to %d bytes is wanted", part.name, maxPattern)
		}
		// by itself first: "a)|(?:b" would end our group
		if _, err := regexp.Compile(part.text); err != nil {
			return Identity{}, fmt.Errorf("%s: %w", part.name, err)
		}
		expression, err := regexp.Compile(`\A(?:` + part.text + `)\z`)
		if err != nil {
			return Identity{}, fmt.Errorf("%s: %w", part.name, err)
		}
		*part.into = pattern{text: part.text, expression: expression}
	}
	return id, nil
}

// Issuer returns the issuer's pattern as it was written; empty for one that is not
// looked at.
func (id Identity) Issuer() string { return id.issuer.text }

// Subject returns the subject's pattern as it was written.
func (id Identity) Subject() string { return id.subject.text }

// String returns issuer and subject as they were written.
func (id Identity) String() string { return signerName(id.issuer.text, id.subject.text) }

// Captures reports whether a pattern has {repo} in it. Until With has filled it in,
// such an identity fits nobody.
func (id Identity) Captures() bool {
	return id.issuer.captures || id.subject.captures || id.source.captures
}

// With returns id with {repo} being repo, which stands for itself whatever it holds.
func (id Identity) With(repo string) Identity {
	for _, p := range []*pattern{&id.issuer, &id.subject, &id.source} {
		if p.captures {
			*p = buildPattern(p.text, repo)
		}
	}
	return id
}

// Overlaps reports whether a signer is known who would be both: the two are written
// alike, or the one is a plain text that fits the other. That none is known does not
// mean that there is none.
func (id Identity) Overlaps(other Identity) bool {
	return overlap(id.issuer, other.issuer) && overlap(id.subject, other.subject) && overlap(id.source, other.source)
}

func overlap(a, b pattern) bool {
	return a.text == b.text || a.text == "" || b.text == "" || a.plain() && b.fits(a.text) || b.plain() && a.fits(b.text)
}

// fits reports whether a certificate's signer is id.
func (id Identity) fits(s certifiedSigner) bool {
	if id.anyone {
		return s.subject != ""
	}
	if !(id.anyIssuer || id.issuer.fits(s.issuer)) || !id.subject.fits(s.subject) {
		return false
	}
	if id.source.text == "" {
		return true
	}
	for _, source := range s.sources {
		if !id.source.fits(source) {
			return false
		}
	}
	return true
}

// pattern is one pattern of an identity. Of the zero pattern nothing fits.
type pattern struct {
	text       string
	captures   bool           // {repo} is not filled in: nothing fits
	expression *regexp.Regexp // over the whole text; nil for a plain one
}

func (p pattern) plain() bool { return p.expression == nil && !p.captures }

func (p pattern) fits(text string) bool {
	switch {
	case text == "" || p.captures || len(text) > maxPattern:
		return false
	case p.expression == nil:
		return p.text == text
	}
	return p.expression.MatchString(text)
}

func parsePattern(text string) (pattern, error) {
	rest := strings.ReplaceAll(text, repoCapture, "")
	switch {
	case text == "":
		return pattern{}, errors.New("is empty")
	case len(text) > maxPattern:
		return pattern{}, fmt.Errorf("has more than %d bytes", maxPattern)
	case !utf8.ValidString(text):
		return pattern{}, errors.New("is not UTF-8")
	case strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return pattern{}, errors.New("has blanks or control characters")
	case strings.ContainsAny(rest, "{}"):
		return pattern{}, errors.New("has braces: the only name in them is {repo}, what the policy's match captures")
	case strings.Contains(rest, "***"):
		return pattern{}, errors.New("has three stars in a row: one stays between slashes, two cross them")
	case strings.Trim(rest, "*") == "" && rest == text:
		return pattern{}, errors.New("is anybody: write who may sign")
	}
	if strings.Contains(text, repoCapture) {
		return pattern{text: text, captures: true}, nil
	}
	return buildPattern(text, ""), nil
}

// buildPattern makes the pattern of a sound text in which {repo} is repo. With a repo
// that nothing is called, nothing fits.
func buildPattern(text, repo string) pattern {
	if !utf8.ValidString(repo) {
		return pattern{text: text, captures: true}
	}
	if !strings.Contains(text, "*") {
		return pattern{text: strings.ReplaceAll(text, repoCapture, repo)}
	}
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	for i, part := range strings.Split(text, repoCapture) {
		if i > 0 {
			b.WriteString(regexp.QuoteMeta(repo))
		}
		for j, crossing := range strings.Split(part, "**") {
			if j > 0 {
				b.WriteString(`.*`)
			}
			for k, literal := range strings.Split(crossing, "*") {
				if k > 0 {
					b.WriteString(`[^/]*`)
				}
				b.WriteString(regexp.QuoteMeta(literal))
			}
		}
	}
	b.WriteString(`\z`)
	return pattern{text: text, expression: regexp.MustCompile(b.String())}
}

// signerName is what the holder of a certificate goes by: issuer and subject.
func signerName(issuer, subject string) string {
	if issuer == "" {
		return subject
	}
	return issuer + " " + subject
}
