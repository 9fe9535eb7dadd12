package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// A shape is one kind of value of the configuration. From the same tables of
// shapes and fields (config_fields.go) come the decoder, the JSON schema, the
// defaults and the test of the example, so that they cannot differ.
type shape[T any] struct {
	schema schema
	// decode returns false when n has not this shape, which it has then
	// reported.
	decode func(d *decoder, n node) (T, bool)
}

// schema is a JSON schema as encoding/json writes it.
type schema map[string]any

// decoder collects what is wrong, and knows where relative paths begin.
type decoder struct {
	base   string // directory of the file that is decoded
	faults faults
}

func (d *decoder) fail(at interface{ position() pos }, what, fix string) {
	d.faults.add(at.position().fault(what, fix))
}

// is reports whether n is of kind k, and says so when it is not.
func (d *decoder) is(n node, k kind, fix string) bool {
	switch {
	case n.bad:
		return false
	case n.isNull():
		d.fail(n, "has no value", k.instead())
		return false
	case n.kind != k:
		d.fail(n, fmt.Sprintf("is %s, not %s", n.kind, k), fix)
		return false
	}
	return true
}

// field is one key of an object of type T.
type field[T any] struct {
	name   string
	doc    string
	def    string // the value of an absent key, as YAML; "" when it stays zero
	must   bool   // the key may not be absent
	schema schema
	decode func(d *decoder, n node, into *T)
}

// key makes the field name, whose value has the shape s and goes to where place
// says. def is the YAML of what an absent key means.
func key[T, V any](name, def string, s shape[V], place func(*T) *V, doc string) field[T] {
	return field[T]{
		name: name, doc: doc, def: def, schema: s.schema,
		decode: func(d *decoder, n node, into *T) {
			if v, ok := s.decode(d, n); ok {
				*place(into) = v
			}
		},
	}
}

// required marks a field that may not be absent.
func required[T any](f field[T]) field[T] {
	f.must = true
	return f
}

// object is a mapping with exactly these fields. The keys of later belong to a
// version to come and are refused as such. A T that embeds pos learns where it
// stands. What is wrong inside is reported and leaves the field zero.
func object[T any](fields []field[T], later ...string) shape[T] {
	return shape[T]{
		schema: objectSchema(fields),
		decode: func(d *decoder, n node) (T, bool) {
			var out T
			if placed, ok := any(&out).(interface{ place(pos) }); ok {
				placed.place(n.pos)
			}
			if !d.is(n, mapping, "write key: value, or {}") {
				return out, false
			}
			given := make(map[string]bool)
			for _, p := range n.pairs {
				given[p.key] = true
				decodePair(d, p, fields, later, &out)
			}
			for _, f := range fields {
				if !given[f.name] {
					decodeAbsent(d, n, f, &out)
				}
			}
			return out, true
		},
	}
}

func decodePair[T any](d *decoder, p pair, fields []field[T], later []string, into *T) {
	i := slices.IndexFunc(fields, func(f field[T]) bool { return f.name == p.key })
	switch {
	case i >= 0:
		fields[i].decode(d, p.value, into)
	case slices.Contains(later, p.key):
		d.fail(p.at, "is not supported yet", "remove it")
	default:
		names := make([]string, len(fields))
		for i, f := range fields {
			names[i] = f.name
		}
		d.fail(p.at, "is not a key that is known here", suggest(p.key, names))
	}
}

func decodeAbsent[T any](d *decoder, n node, f field[T], into *T) {
	if f.must {
		at := n.pos
		at.Path = joinKey(n.Path, f.name)
		d.fail(at, "is missing", "add it: "+f.doc)
		return
	}
	if f.def != "" {
		f.decode(d, f.absent(n), into)
	}
}

// absent is the value of the field when its key is not written in n.
func (f field[T]) absent(n node) node {
	value, _ := parseYAML(n.File, []byte(f.def))
	value.pos = n.pos
	value.Path = joinKey(n.Path, f.name)
	return value
}

// listOf is a list of values of the shape s.
func listOf[T any](s shape[T]) shape[[]T] {
	return shape[[]T]{
		schema: schema{"type": "array", "items": s.schema},
		decode: func(d *decoder, n node) ([]T, bool) {
			if !d.is(n, sequence, "write [first, second]") {
				return nil, false
			}
			var out []T
			for _, item := range n.items {
				if v, ok := s.decode(d, item); ok {
					out = append(out, v)
				}
			}
			return out, true
		},
	}
}

// some is a list that may not be empty.
func some[T any](s shape[T], fix string) shape[[]T] {
	all := listOf(s)
	return shape[[]T]{
		schema: schema{"type": "array", "items": s.schema, "minItems": 1},
		decode: func(d *decoder, n node) ([]T, bool) {
			if n.isNull() {
				d.fail(n, "has no value", fix)
				return nil, false
			}
			out, ok := all.decode(d, n)
			if ok && len(n.items) == 0 {
				d.fail(n, "is an empty list", fix)
				return nil, false
			}
			return out, ok
		},
	}
}

// oneOrSome is one value of the shape s, or a list of them that is not empty.
func oneOrSome[T any](s shape[T], fix string) shape[[]T] {
	several := some(s, fix)
	return shape[[]T]{
		schema: schema{"anyOf": []any{s.schema, several.schema}},
		decode: func(d *decoder, n node) ([]T, bool) {
			if n.kind == sequence {
				return several.decode(d, n)
			}
			v, ok := s.decode(d, n)
			return []T{v}, ok
		},
	}
}

// named is one entry of a mapping whose keys are chosen by people.
type named[T any] struct {
	pos
	Name  string
	Value T
}

// entries is a mapping from names to values of the shape s, in the order of the
// file. check says what is wrong with a name, and the fix; what is "" when
// nothing is.
func entries[T any](s shape[T], check func(name string) (what, fix string)) shape[[]named[T]] {
	return shape[[]named[T]]{
		schema: schema{"type": "object", "additionalProperties": s.schema},
		decode: func(d *decoder, n node) ([]named[T], bool) {
			if !d.is(n, mapping, "write name: value, or {}") {
				return nil, false
			}
			var out []named[T]
			for _, p := range n.pairs {
				if what, fix := check(p.key); what != "" {
					d.fail(p.at, what, fix)
				}
				v, _ := s.decode(d, p.value) // stays with its faults, so that the name is known
				out = append(out, named[T]{p.at, p.key, v})
			}
			return out, true
		},
	}
}

// someEntries are entries of which there is at least one.
func someEntries[T any](s shape[T], check func(name string) (what, fix string), fix string) shape[[]named[T]] {
	all := entries(s, check)
	several := maps.Clone(all.schema)
	several["minProperties"] = 1
	return shape[[]named[T]]{
		schema: several,
		decode: func(d *decoder, n node) ([]named[T], bool) {
			if n.isNull() {
				d.fail(n, "has no value", fix)
				return nil, false
			}
			out, ok := all.decode(d, n)
			if ok && len(n.pairs) == 0 {
				d.fail(n, "is empty", fix)
			}
			return out, ok
		},
	}
}

// located is a value that knows where it stands.
type located[T any] struct {
	pos
	Value T
}

func placed[T any](s shape[T]) shape[located[T]] {
	return shape[located[T]]{
		schema: s.schema,
		decode: func(d *decoder, n node) (located[T], bool) {
			v, ok := s.decode(d, n)
			return located[T]{n.pos, v}, ok
		},
	}
}

// optional is nil when the key is absent.
func optional[T any](s shape[T]) shape[*T] {
	return shape[*T]{
		schema: s.schema,
		decode: func(d *decoder, n node) (*T, bool) {
			v, ok := s.decode(d, n)
			return &v, ok
		},
	}
}

// suggest names the known key nearest to what was written, or all of them.
func suggest(written string, known []string) string {
	best, distance := "", max(2, len(written)/2)+1
	for _, k := range known {
		if d := editDistance(written, k); d < distance {
			best, distance = k, d
		}
	}
	if best != "" {
		return "did you mean " + best + "?"
	}
	return "known are " + enumerate(known)
}

func enumerate(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	last := len(names) - 1
	if last == 0 {
		return names[0]
	}
	return strings.Join(names[:last], ", ") + " and " + names[last]
}

// editDistance is Levenshtein's, over letters without their case, of words that
// are short; longer ones are far from everything.
func editDistance(a, b string) int {
	const longest = 40
	if len(a) > longest || len(b) > longest {
		return longest
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i]|0x20 != b[j]|0x20 {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func quote(s string) string {
	const longest = 80
	if len(s) > longest {
		s = s[:longest] + "..."
	}
	return strconv.Quote(s)
}
