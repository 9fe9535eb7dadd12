package envelope

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// CheckJSON reports whether data is one JSON text (RFC 8259) that every parser
// reads alike. Beyond the grammar it refuses:
//
//   - a byte order mark, invalid UTF-8, and escapes of lone surrogates,
//   - anything but white space after the value,
//   - two names in one object that are equal, or equal but for letter case, as
//     encoding/json folds it (so U+212A is "k" and U+017F is "s"),
//   - nesting deeper than maxDepth; a lone scalar has depth zero.
//
// It holds no more than the names of the objects that are open.
func CheckJSON(data []byte, maxDepth int) error {
	if !utf8.Valid(data) {
		return errors.New("json: not valid UTF-8")
	}
	c := checker{data: data, maxDepth: maxDepth}
	c.space()
	if err := c.value(0); err != nil {
		return fmt.Errorf("json: %w", err)
	}
	c.space()
	if c.at < len(c.data) {
		return fmt.Errorf("json: data after the value, at byte %d", c.at)
	}
	return nil
}

// checker is a recursive descent over data; the depth of the recursion is
// bounded by maxDepth.
type checker struct {
	data     []byte
	at       int
	maxDepth int
	names    [][]byte // of all open objects, innermost last
}

// manyNames is from how many names on an object's names are kept in a map.
const manyNames = 16

func (c *checker) space() {
	for c.at < len(c.data) {
		switch c.data[c.at] {
		case ' ', '\t', '\r', '\n':
			c.at++
		default:
			return
		}
	}
}

// peek returns the next byte, or 0 at the end: no JSON value begins with it.
func (c *checker) peek() byte {
	if c.at < len(c.data) {
		return c.data[c.at]
	}
	return 0
}

func (c *checker) unexpected(want string) error {
	if c.at >= len(c.data) {
		return fmt.Errorf("ends where %s should be", want)
	}
	return fmt.Errorf("%+q at byte %d where %s should be", c.data[c.at], c.at, want)
}

func (c *checker) value(depth int) error {
	switch b := c.peek(); {
	case b == '{' || b == '[':
		if depth >= c.maxDepth {
			return fmt.Errorf("nested deeper than %d levels, at byte %d", c.maxDepth, c.at)
		}
		if b == '{' {
			return c.object(depth + 1)
		}
		return c.array(depth + 1)
	case b == '"':
		_, err := c.string()
		return err
	case b == '-' || '0' <= b && b <= '9':
		return c.number()
	default:
		return c.literal()
	}
}

func (c *checker) object(depth int) error {
	base := len(c.names)
	var many map[string]bool
	defer func() { c.names = c.names[:base] }()
	c.at++
	c.space()
	if c.peek() == '}' {
		c.at++
		return nil
	}
	for {
		if c.peek() != '"' {
			return c.unexpected("a name")
		}
		name, err := c.string()
		if err != nil {
			return err
		}
		if many, err = c.claim(base, many, name); err != nil {
			return err
		}
		c.space()
		if c.peek() != ':' {
			return c.unexpected("a colon")
		}
		c.at++
		c.space()
		if err := c.value(depth); err != nil {
			return err
		}
		if done, err := c.next('}'); done || err != nil {
			return err
		}
	}
}

// claim records a raw name of the object whose names begin at base. A few
// names are compared one by one, many are moved to a map.
func (c *checker) claim(base int, many map[string]bool, raw []byte) (map[string]bool, error) {
	name, err := unescape(raw)
	if err != nil {
		return many, fmt.Errorf("%w, before byte %d", err, c.at)
	}
	if many == nil && len(c.names)-base == manyNames {
		many = make(map[string]bool, 2*manyNames)
		for _, other := range c.names[base:] {
			many[fold(other)] = true
		}
	}
	if many != nil {
		folded := fold(name)
		if many[folded] {
			return many, twice(raw)
		}
		many[folded] = true
		return many, nil
	}
	for _, other := range c.names[base:] {
		if bytes.EqualFold(name, other) {
			return nil, twice(raw)
		}
	}
	c.names = append(c.names, name)
	return nil, nil
}

func twice(raw []byte) error {
	return fmt.Errorf("name %s twice in one object, or in two letter cases", quote(string(raw)))
}

func (c *checker) array(depth int) error {
	c.at++
	c.space()
	if c.peek() == ']' {
		c.at++
		return nil
	}
	for {
		if err := c.value(depth); err != nil {
			return err
		}
		if done, err := c.next(']'); done || err != nil {
			return err
		}
	}
}

// next consumes what follows a member or element: the end, or a comma.
func (c *checker) next(end byte) (done bool, err error) {
	c.space()
	switch c.peek() {
	case end:
		c.at++
		return true, nil
	case ',':
		c.at++
		c.space()
		return false, nil
	}
	return false, c.unexpected(fmt.Sprintf("a comma or %q", end))
}

// string consumes a string and returns what is between its quotes, escaped as
// it was.
func (c *checker) string() ([]byte, error) {
	c.at++
	start := c.at
	for c.at < len(c.data) {
		switch b := c.data[c.at]; {
		case b == '"':
			raw := c.data[start:c.at]
			c.at++
			return raw, nil
		case b < 0x20:
			return nil, fmt.Errorf("control character in a string, at byte %d", c.at)
		case b == '\\':
			if err := c.escape(); err != nil {
				return nil, err
			}
		default:
			c.at++
		}
	}
	return nil, c.unexpected("a closing quote")
}

func (c *checker) escape() error {
	c.at++
	switch c.peek() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		c.at++
		return nil
	case 'u':
	default:
		return c.unexpected("an escape")
	}
	high, err := c.hex()
	if err != nil {
		return err
	}
	if high < 0xd800 || high > 0xdfff {
		return nil
	}
	if high > 0xdbff || c.peek() != '\\' || c.at+1 >= len(c.data) || c.data[c.at+1] != 'u' {
		return fmt.Errorf("escape of a lone surrogate before byte %d", c.at)
	}
	c.at++
	low, err := c.hex()
	if err != nil {
		return err
	}
	if low < 0xdc00 || low > 0xdfff {
		return fmt.Errorf("escape of a lone surrogate before byte %d", c.at)
	}
	return nil
}

// hex consumes the u of an escape and its four digits.
func (c *checker) hex() (uint32, error) {
	c.at++
	var v uint32
	for range 4 {
		switch b := c.peek(); {
		case '0' <= b && b <= '9':
			v = v<<4 | uint32(b-'0')
		case 'a' <= b|0x20 && b|0x20 <= 'f':
			v = v<<4 | uint32(b|0x20-'a'+10)
		default:
			return 0, c.unexpected("a hexadecimal digit")
		}
		c.at++
	}
	return v, nil
}

func (c *checker) number() error {
	if c.peek() == '-' {
		c.at++
	}
	if c.peek() == '0' {
		c.at++
	} else if err := c.digits(); err != nil {
		return err
	}
	if c.peek() == '.' {
		c.at++
		if err := c.digits(); err != nil {
			return err
		}
	}
	if c.peek()|0x20 == 'e' {
		c.at++
		if b := c.peek(); b == '+' || b == '-' {
			c.at++
		}
		return c.digits()
	}
	return nil
}

func (c *checker) digits() error {
	start := c.at
	for '0' <= c.peek() && c.peek() <= '9' {
		c.at++
	}
	if c.at == start {
		return c.unexpected("a digit")
	}
	return nil
}

func (c *checker) literal() error {
	for _, word := range [...]string{"null", "true", "false"} {
		if end := c.at + len(word); end <= len(c.data) && string(c.data[c.at:end]) == word {
			c.at += len(word)
			return nil
		}
	}
	return c.unexpected("a value")
}

// unescape returns the name that raw spells.
func unescape(raw []byte) ([]byte, error) {
	if !bytes.ContainsRune(raw, '\\') {
		return raw, nil
	}
	var name string
	if err := json.Unmarshal(slices.Concat([]byte{'"'}, raw, []byte{'"'}), &name); err != nil {
		return nil, err
	}
	return []byte(name), nil
}

// fold maps a name to one spelling for all names that bytes.EqualFold, and
// encoding/json, take as the same.
func fold(name []byte) string {
	return strings.Map(foldRune, string(name))
}

// foldRune returns the smallest of the runes that are r but for letter case.
func foldRune(r rune) rune {
	switch {
	case 'a' <= r && r <= 'z':
		return r - 'a' + 'A'
	case r < utf8.RuneSelf:
		return r
	}
	smallest := r
	for other := unicode.SimpleFold(r); other != r; other = unicode.SimpleFold(other) {
		smallest = min(smallest, other)
	}
	return smallest
}
