package policy

import (
	"errors"
	"fmt"
	"strings"
)

var errAlphabet = errors.New("no repository has such a character: a pattern is made of a-z 0-9 . - _ / and of *, ** and {repo}")

// parsePattern parses a pattern without its "!". The checks stand in the order
// in which their advice helps: each may rely on those before it.
func parsePattern(text string) (pattern, error) {
	for _, check := range []func(string) error{
		checkShape, checkReference, checkAlphabet, checkComponents, checkUpstream,
	} {
		if err := check(text); err != nil {
			return pattern{}, err
		}
	}
	p := buildPattern(text)
	if !p.possible() {
		return pattern{}, errors.New("no repository can have such a name: a component is letters and digits, joined by one '.', one or two '_', or '-'")
	}
	return p, nil
}

func checkShape(text string) error {
	if text == "" {
		return errors.New("the pattern is empty: write ** for everything")
	}
	if len(text) > maxName {
		return fmt.Errorf("the pattern is longer than %d bytes, and so than any repository", maxName)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return errAlphabet
	}
	if strings.HasPrefix(text, "!") {
		return errors.New("one ! excludes: remove the others")
	}
	if scheme, rest, ok := strings.Cut(text, "://"); ok {
		return fmt.Errorf("a match begins with an upstream's name, not with %s: write %s", scheme+"://", rest)
	}
	return nil
}

// checkReference refuses what names one image rather than repositories.
func checkReference(text string) error {
	if name, _, ok := strings.Cut(text, "@"); ok {
		return fmt.Errorf("a match names repositories, never a digest: write %s", name)
	}
	if colon := strings.LastIndexByte(text, ':'); colon >= 0 && colon > strings.IndexByte(text, '/') {
		if !strings.Contains(text, "/") {
			return fmt.Errorf("the pattern names no upstream: write docker.io/library/%s, or %s/**", text[:colon], text)
		}
		return fmt.Errorf("a match names repositories, never a tag: write %s", text[:colon])
	}
	return nil
}

func checkAlphabet(text string) error {
	if lower := strings.ToLower(text); lower != text {
		return fmt.Errorf("repositories are in lower case: write %s", lower)
	}
	for i := range len(text) {
		b := text[i]
		switch {
		case 'a' <= b && b <= 'z', '0' <= b && b <= '9', strings.IndexByte("./-_:*{}", b) >= 0:
		case b == '?':
			return errors.New("? has no meaning here: write * for any text within a component")
		case b == '!':
			return errors.New("! excludes only in front of a whole pattern: write the exclusion as its own entry")
		default:
			return errAlphabet
		}
	}
	return nil
}

func checkComponents(text string) error {
	components := strings.Split(text, "/")
	for i, c := range components {
		if c == "" {
			return emptyComponent(text)
		}
		if err := checkWildcards(c, text); err != nil {
			return err
		}
		if c == "**" && i > 0 && components[i-1] == "**" {
			return fmt.Errorf("one ** crosses components already: write %s", strings.ReplaceAll(text, "**/**", "**"))
		}
	}
	return checkBraces(components)
}

func emptyComponent(text string) error {
	kept := strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '/' }), "/")
	if kept == "" {
		return errors.New("the pattern has no component: write ** for everything")
	}
	if strings.HasSuffix(text, "/") {
		return fmt.Errorf("a component is empty: write %s for that repository, %s/** for those below it", kept, kept)
	}
	return fmt.Errorf("a component is empty: write %s", kept)
}

func checkWildcards(component, text string) error {
	if strings.Contains(component, "**") && component != "**" {
		return fmt.Errorf("** is a component of its own: in %s write * for any text within the component, or put / around **", text)
	}
	rest := strings.ReplaceAll(component, "{repo}", "")
	if strings.ContainsAny(rest, "{}") {
		return errors.New("the only name in braces is {repo}, which captures one component; write * for one that need not be captured")
	}
	if rest != component && rest != "" {
		return fmt.Errorf("{repo} captures a whole component: put it between slashes, or write %s", strings.ReplaceAll(component, "{repo}", "*"))
	}
	if component == "{repo}{repo}" {
		return errors.New("{repo} captures a whole component: put it between slashes")
	}
	return nil
}

// checkBraces makes sure that there is never a choice of what {repo} is.
func checkBraces(components []string) error {
	count, before, after := 0, false, false
	for _, c := range components {
		switch c {
		case "{repo}":
			count++
		case "**":
			before = before || count == 0
			after = after || count > 0
		}
	}
	if count > 1 {
		return errors.New("{repo} may stand once: write * for the other component")
	}
	if count == 1 && before && after {
		return errors.New("with ** on both sides it is open which component {repo} is: remove one **")
	}
	if count == 1 && components[0] == "{repo}" {
		return errors.New("{repo} captures a component of the repository, not the upstream: write the upstream's name first")
	}
	return nil
}

// checkUpstream gives the advice for names that docker completes by itself.
func checkUpstream(text string) error {
	first, rest, deep := strings.Cut(text, "/")
	if !deep {
		switch {
		case first == "**":
			return nil
		case first == "*":
			return errors.New("* is one component, and every repository has an upstream in front: write ** for everything")
		case strings.ContainsAny(first, ".:") || first == "localhost":
			return fmt.Errorf("the pattern names no repository: write %s/** for all of that upstream", first)
		}
		return fmt.Errorf("the pattern names no upstream: write docker.io/library/%s, or %s/** when that is an upstream", first, first)
	}
	switch {
	case first == "library":
		return fmt.Errorf("the pattern names no upstream: write docker.io/%s", text)
	case first != hub && (first == hubNames[1] || first == hubNames[2]):
		canonical := hub + "/" + rest
		if name, ok := Canonical(text); ok {
			canonical = name
		}
		return fmt.Errorf("%s goes by the name docker.io: write %s", first, canonical)
	case first == hub && rest != "**" && !strings.Contains(rest, "/"):
		return fmt.Errorf("one-component repositories of docker.io are in library: write docker.io/library/%s", rest)
	}
	return nil
}

// buildPattern makes a pattern of a text that has passed all checks.
func buildPattern(text string) pattern {
	p := pattern{text: text, prefix: text, repo: -1, blocks: [][]component{nil}}
	if wild := strings.IndexAny(text, "*{"); wild >= 0 {
		p.prefix = text[:wild]
	}
	components := strings.Split(text, "/")
	for i, c := range components {
		switch c {
		case "**":
			p.blocks = append(p.blocks, nil)
			continue
		case "{repo}":
			p.repo, p.fromEnd = i, len(p.blocks) > 1
			if p.fromEnd {
				p.repo = len(components) - 1 - i
			}
			c = "*"
		}
		last := len(p.blocks) - 1
		p.blocks[last] = append(p.blocks[last], component{parts: strings.Split(c, "*")})
	}
	return p
}
