package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// This file is the only one that knows YAML. It turns text into nodes that
// carry their file, line and key, and refuses whatever could mean two things:
// a second document, duplicate keys, aliases, merge keys and tags of one's own.

// maxDepth is how deep a configuration may nest; the tables need half of it.
const maxDepth = 16

type kind int

const (
	scalar kind = iota
	mapping
	sequence
)

func (k kind) String() string {
	return [...]string{"a single value", "a mapping", "a list"}[k]
}

// instead is what to write where a value of kind k is missing.
func (k kind) instead() string {
	return [...]string{"give it one, or remove the key", "write {}, or remove the key", "write [], or remove the key"}[k]
}

// pos says where something stands. Path is the key, like policies[2].match.
type pos struct {
	File string
	Line int // 0: the whole file, or something that is not in a file
	Path string
}

func (p pos) position() pos { return p }

func (p *pos) place(at pos) { *p = at }

// node is one YAML value.
type node struct {
	pos
	kind  kind
	tag   string // of a scalar: what YAML takes it for, like !!int
	value string // of a scalar
	pairs []pair // of a mapping, without duplicates
	items []node // of a sequence
	bad   bool   // refused already; nothing more is said of it
}

// isNull reports whether n is a key that nothing follows, or null written out.
func (n node) isNull() bool { return !n.bad && n.kind == scalar && n.tag == "!!null" }

type pair struct {
	key   string
	at    pos
	value node
}

// parseYAML returns the one document of data.
func parseYAML(file string, data []byte) (node, faults) {
	at := pos{File: file}
	refused := node{pos: at, bad: true}
	if !utf8.Valid(data) {
		return refused, faults{at.fault("is not UTF-8", "save it as UTF-8")}
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document, second yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF), err == nil && isEmpty(document):
		return refused, faults{at.fault("is empty", "write version: 1 and what follows (in an included file: {}), see vidimus config example")}
	case err != nil:
		return refused, faults{syntaxFault(at, data, err)}
	}
	var found faults
	switch err := decoder.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		return refused, faults{syntaxFault(at, data, err)}
	default:
		at.Line = second.Line
		found = append(found, at.fault("a second document begins here", "keep one document in a file"))
		at.Line = 0
	}
	root := convert(document.Content[0], at, 0, &found)
	return root, found
}

func isEmpty(document yaml.Node) bool {
	return len(document.Content) != 1 || document.Content[0].ShortTag() == "!!null"
}

var syntaxLine = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?`)

func syntaxFault(at pos, data []byte, err error) fault {
	text := err.Error()
	match := syntaxLine.FindStringSubmatch(text)
	at.Line, _ = strconv.Atoi(match[1]) // 0 when the parser did not tell
	what := "is not YAML: " + strings.TrimPrefix(text, match[0])
	if strings.HasSuffix(text, "found character that cannot start any token") && indentsWithTab(data, at.Line) {
		return at.fault(what, "indent with blanks, YAML takes no tabs there")
	}
	return at.fault(what, "mend the syntax; a text that begins with * & ! % @ or [ needs quotes")
}

// convert copies n and reports what is refused on the way.
func convert(n *yaml.Node, at pos, depth int, found *faults) node {
	at.Line = n.Line
	out := node{pos: at}
	switch {
	case n.Kind == yaml.AliasNode:
		found.add(at.fault("aliases are not used here", "write the value out"))
		return node{pos: at, bad: true}
	case depth > maxDepth:
		found.add(at.fault("nests too deeply", "nothing here needs more than a few levels"))
		return node{pos: at, bad: true}
	case !isCoreTag(n):
		found.add(at.fault("the tag "+quote(n.Tag)+" is not used here", "remove the tag"))
		return node{pos: at, bad: true}
	}
	switch n.Kind {
	case yaml.MappingNode:
		out.kind = mapping
		out.pairs = convertPairs(n, at, depth, found)
	case yaml.SequenceNode:
		out.kind = sequence
		for i, item := range n.Content {
			inside := at
			inside.Path = fmt.Sprintf("%s[%d]", at.Path, i)
			out.items = append(out.items, convert(item, inside, depth+1, found))
		}
	default:
		out.tag, out.value = n.ShortTag(), n.Value
	}
	return out
}

func convertPairs(n *yaml.Node, at pos, depth int, found *faults) []pair {
	var pairs []pair
	first := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		inside := pos{File: at.File, Line: k.Line, Path: joinKey(at.Path, k.Value)}
		switch line, seen := first[k.Value]; {
		case k.Kind != yaml.ScalarNode:
			inside.Path = at.Path
			found.add(inside.fault("a key must be a single word", "write key: value"))
		case k.ShortTag() == "!!merge":
			inside.Path = at.Path
			found.add(inside.fault("merge keys are not used here", "write the keys out"))
		case seen:
			found.add(inside.fault(fmt.Sprintf("stands here a second time, first in line %d", line), "keep one of the two"))
		default:
			first[k.Value] = k.Line
			pairs = append(pairs, pair{k.Value, inside, convert(n.Content[i+1], inside, depth+1, found)})
		}
	}
	return pairs
}

func isCoreTag(n *yaml.Node) bool {
	switch n.ShortTag() {
	case "!!str", "!!int", "!!float", "!!bool", "!!null", "!!timestamp", "!!map", "!!seq", "!!merge":
		return true
	}
	return false
}

// joinKey is the path of key in path. What would not print plainly is quoted.
func joinKey(path, key string) string {
	if key == "" || len(key) > 80 || strings.ContainsFunc(key, func(r rune) bool { return !unicode.IsPrint(r) }) {
		key = quote(key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// indentsWithTab reports whether there is a tab before what the line, counted from 1,
// begins with.
func indentsWithTab(data []byte, line int) bool {
	lines := bytes.Split(data, []byte("\n"))
	if line < 1 || line > len(lines) {
		return false
	}
	text := lines[line-1]
	return bytes.ContainsRune(text[:len(text)-len(bytes.TrimLeft(text, " \t"))], '\t')
}
