package policy

import "strings"

// pattern is one parsed pattern of a Match.
type pattern struct {
	text string
	// prefix is the text that everything that fits begins with.
	prefix string
	// blocks are the components between the "**". A pattern without "**" is one
	// block; an empty first or last block means that it begins or ends in "**".
	blocks [][]component
	// repo is the place of {repo}, counted from the end of the name when a "**"
	// stands before it; -1 when there is none.
	repo    int
	fromEnd bool
}

// component is one component of a pattern: its literal parts, between which
// any text may stand. One part is a literal; two empty ones fit everything.
type component struct {
	parts []string
}

// fits reports whether a canonical name fits. Blocks are laid out leftmost
// first, which never has to be taken back: an earlier end leaves more for the
// rest.
func (p pattern) fits(name string) bool {
	if !strings.HasPrefix(name, p.prefix) {
		return false
	}
	name, ok := takeBlock(p.blocks[0], name)
	if !ok || len(p.blocks) == 1 {
		return ok && name == ""
	}
	last := len(p.blocks) - 1
	for _, block := range p.blocks[1:last] {
		if name, ok = findBlock(block, name); !ok {
			return false
		}
	}
	if len(p.blocks[last]) == 0 {
		return name != ""
	}
	name, ok = lastComponents(name, len(p.blocks[last]))
	if !ok {
		return false
	}
	_, ok = takeBlock(p.blocks[last], name)
	return ok
}

// findBlock takes the first components of name, in whatever place, that fit
// block, and returns what follows them.
func findBlock(block []component, name string) (string, bool) {
	for name != "" {
		if rest, ok := takeBlock(block, name); ok {
			return rest, true
		}
		_, name, _ = strings.Cut(name, "/")
	}
	return "", false
}

// takeBlock takes the components that fit block from the front of name.
func takeBlock(block []component, name string) (string, bool) {
	for _, c := range block {
		if name == "" {
			return "", false
		}
		var first string
		if first, name, _ = strings.Cut(name, "/"); !c.fits(first) {
			return "", false
		}
	}
	return name, true
}

// lastComponents returns the last n components of name; n is at least 1.
func lastComponents(name string, n int) (string, bool) {
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] == '/' {
			if n--; n == 0 {
				return name[i+1:], true
			}
		}
	}
	return name, n == 1 && name != ""
}

func (c component) fits(text string) bool {
	if len(c.parts) == 1 {
		return text == c.parts[0]
	}
	first, last := c.parts[0], c.parts[len(c.parts)-1]
	if len(text) < len(first)+len(last) || !strings.HasPrefix(text, first) || !strings.HasSuffix(text, last) {
		return false
	}
	text = text[len(first) : len(text)-len(last)]
	for _, part := range c.parts[1 : len(c.parts)-1] {
		at := strings.Index(text, part)
		if at < 0 {
			return false
		}
		text = text[at+len(part):]
	}
	return true
}

// captured returns the component in the place of {repo}. The name fits.
func (p pattern) captured(name string) string {
	components := strings.Split(name, "/")
	if p.fromEnd {
		return components[len(components)-1-p.repo]
	}
	return components[p.repo]
}
