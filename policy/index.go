package policy

import (
	"cmp"
	"slices"
	"strings"
)

// prefixTree files the indices of policies under the texts that everything that
// they match begins with, so that a lookup among ten thousand policies looks at
// the few whose text fits.
type prefixTree struct {
	label    string // follows the parent's text
	policies []int  // filed under exactly this text, ascending
	children []*prefixTree
}

// add files index under text. Indices come in ascending order.
func (t *prefixTree) add(text string, index int) {
	for text != "" {
		at, found := t.child(text[0])
		if !found {
			t.children = slices.Insert(t.children, at, &prefixTree{label: text})
			t, text = t.children[at], ""
			continue
		}
		next := t.children[at]
		if common := commonPrefix(next.label, text); common < len(next.label) {
			rest := *next
			rest.label = next.label[common:]
			*next = prefixTree{label: next.label[:common], children: []*prefixTree{&rest}}
		}
		t, text = next, text[len(next.label):]
	}
	if n := len(t.policies); n == 0 || t.policies[n-1] != index {
		t.policies = append(t.policies, index)
	}
}

func (t *prefixTree) child(first byte) (int, bool) {
	return slices.BinarySearchFunc(t.children, first, func(c *prefixTree, b byte) int {
		return cmp.Compare(c.label[0], b)
	})
}

func commonPrefix(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// first returns the smallest index filed under a beginning of name for which
// fits holds, or -1.
func (t *prefixTree) first(name string, fits func(index int) bool) int {
	best := -1
	for {
		for _, index := range t.policies {
			if best >= 0 && index >= best {
				break
			}
			if fits(index) {
				best = index
				break
			}
		}
		if name == "" {
			return best
		}
		at, found := t.child(name[0])
		if !found || !strings.HasPrefix(name, t.children[at].label) {
			return best
		}
		t = t.children[at]
		name = name[len(t.label):]
	}
}

// near returns, ascending, the indices filed under a beginning of text or under
// a text that begins with it: no other policy matches what this one might.
func (t *prefixTree) near(text string) []int {
	var found []int
	for text != "" {
		found = append(found, t.policies...)
		at, ok := t.child(text[0])
		if !ok {
			return sorted(found)
		}
		t = t.children[at]
		common := commonPrefix(t.label, text)
		if common < len(t.label) && common < len(text) {
			return sorted(found)
		}
		text = text[common:]
	}
	return sorted(t.all(found))
}

func (t *prefixTree) all(found []int) []int {
	found = append(found, t.policies...)
	for _, child := range t.children {
		found = child.all(found)
	}
	return found
}

func sorted(indices []int) []int {
	slices.Sort(indices)
	return slices.Compact(indices)
}
