package envelope

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCheckJSONAccepts(t *testing.T) {
	for _, text := range []string{
		`null`, `true`, `false`, `0`, `-0`, `12.50e+3`, `1E-7`, `""`, `"é\n\u00e9\ud83d\ude00"`,
		`{}`, `[]`, ` { "a" : [ 1 , { "a" : null } ] , "b" : { } } ` + "\n",
		`{"a":{"x":1},"b":{"x":1}}`, `{"k":1,"l":1}`, `[[[[]]]]`,
		`{"":0}`, "{\"\u00df\":1,\"ss\":2}",
	} {
		t.Run(text, func(t *testing.T) {
			if err := CheckJSON([]byte(text), 4); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestCheckJSONRefuses(t *testing.T) {
	many := func(last string) string {
		var b strings.Builder
		for i := range 40 {
			fmt.Fprintf(&b, "%q:0,", fmt.Sprintf("name%d", i))
		}
		return "{" + b.String() + last + "}"
	}
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", ``, "ends where a value should be"},
		{"white space alone", " \n", "ends where a value should be"},
		{"a byte order mark", "\ufeff{}", "where a value should be"},
		{"UTF-16", "{\x00}\x00", "where a name should be"},
		{"invalid UTF-8 in a string", "{\"a\":\"\xff\"}", "not valid UTF-8"},
		{"an encoded surrogate", "\"\xed\xa0\x80\"", "not valid UTF-8"},
		{"trailing data", `{} {}`, "data after the value, at byte 3"},
		{"a trailing NUL", "{}\x00", "data after the value"},
		{"a trailing comma in an object", `{"a":1,}`, "where a name should be"},
		{"a trailing comma in a list", `[1,]`, "where a value should be"},
		{"no comma", `[1 2]`, "where a comma or"},
		{"the wrong bracket", `[1}`, "where a comma or"},
		{"no colon", `{"a" 1}`, "where a colon should be"},
		{"a name that is not a string", `{a:1}`, "where a name should be"},
		{"an open object", `{"a":1`, "ends where a comma or"},
		{"an open string", `"a`, "ends where a closing quote"},
		{"a control character", "\"a\nb\"", "control character"},
		{"an unknown escape", `"\x41"`, "where an escape should be"},
		{"a short escape", `"\u12"`, "where a hexadecimal digit should be"},
		{"a lone high surrogate", `"\ud800"`, "lone surrogate"},
		{"a lone low surrogate", `"\udc00"`, "lone surrogate"},
		{"two high surrogates", `"\ud800\ud800"`, "lone surrogate"},
		{"NaN", `NaN`, "where a value should be"},
		{"Infinity", `-Infinity`, "where a digit should be"},
		{"a leading zero", `01`, "data after the value"},
		{"a leading plus", `+1`, "where a value should be"},
		{"no digit after the point", `1.`, "where a digit should be"},
		{"no digit in the exponent", `1e`, "where a digit should be"},
		{"a comment", `{} // x`, "data after the value"},
		{"a name twice", `{"a":1,"a":2}`, "twice in one object"},
		{"a name twice, inside", `[{"b":{"a":1,"a":2}}]`, "twice in one object"},
		{"a name in two cases", `{"critical":1,"Critical":2}`, "two letter cases"},
		{"a name with the Kelvin sign", "{\"docker\":1,\"doc\u212aer\":2}", "two letter cases"},
		{"a name with the long s", "{\"sig\":1,\"\u017fig\":2}", "two letter cases"},
		{"a name escaped", `{"a":1,"\u0061":2}`, "twice in one object"},
		{"a Kelvin sign escaped", `{"k":1,"\u212a":2}`, "two letter cases"},
		{"an object between equal names", `{"a":{"b":1},"a":1}`, "twice in one object"},
		{"a name twice among many", many(`"name3":0`), "twice in one object"},
		{"the last name twice among many", many(`"NAME39":0`), "two letter cases"},
		{"nesting", `[[[[[]]]]]`, "nested deeper than 4 levels"},
		{"endless nesting", strings.Repeat("[", 1<<20), "nested deeper than 4 levels"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := CheckJSON([]byte(tt.text), 4)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("CheckJSON = %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestCheckJSONOfAMillionObjectsAllocatesLittle(t *testing.T) {
	data := []byte(`{"layers":[` + strings.Repeat(`{"a":1},`, 500_000) + `{}]}`)
	var err error
	got := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			err = CheckJSON(data, 4)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if bytes := got.AllocedBytesPerOp(); bytes > 4*int64(len(data)) {
		t.Errorf("checking %d bytes allocated %d", len(data), bytes)
	}
}

// FuzzCheckJSON holds CheckJSON against encoding/json: what it accepts is valid
// and has no two names that encoding/json would take for one field; what is
// valid and refused has a reason that can be found independently.
func FuzzCheckJSON(f *testing.F) {
	for _, seed := range []string{
		`{"a":[1,2.5e3,"x",null,true],"b":{"c":{}}}`, `{"a":1,"A":2}`, "{\"k\":1,\"\u212a\":2}",
		`"\ud83d\ude00"`, `"\ud800"`, `[[[[[[]]]]]]`, ` 1 `, `{"a":1}{`, "\ufeff1", `{"\u0061":1,"a":2}`,
	} {
		f.Add([]byte(seed))
	}
	const depth = 5
	f.Fuzz(func(t *testing.T, data []byte) {
		err := CheckJSON(data, depth)
		if err != nil && !json.Valid(data) {
			return
		}
		if !json.Valid(data) {
			t.Fatalf("accepted what encoding/json refuses: %q", data)
		}
		doubt := doubtful(data, depth)
		if err == nil && doubt != "" {
			t.Fatalf("accepted %q in spite of %s", data, doubt)
		}
		if err != nil && doubt == "" {
			t.Fatalf("refused %q without a reason: %v", data, err)
		}
	})
}

// doubtful says why valid JSON is not to be relied on, by encoding/json's own
// tokens and strings.EqualFold.
func doubtful(data []byte, maxDepth int) string {
	if !utf8.Valid(data) {
		return "invalid UTF-8"
	}
	// Where encoding/json reads a replacement character that the text does not
	// have, there was a lone surrogate.
	clean := strings.ReplaceAll(string(data), "\ufffd", "?")
	clean = regexp.MustCompile(`(?i)(\\u)fffd`).ReplaceAllString(clean, "${1}0041")
	decoder := json.NewDecoder(strings.NewReader(clean))
	decoder.UseNumber()
	for token, err := decoder.Token(); err == nil; token, err = decoder.Token() {
		if text, ok := token.(string); ok && strings.ContainsRune(text, '\ufffd') {
			return "a lone surrogate"
		}
	}
	return walk(json.NewDecoder(bytes.NewReader(data)), maxDepth)
}

func walk(decoder *json.Decoder, maxDepth int) string {
	decoder.UseNumber()
	type level struct {
		object, value bool
		names         []string
	}
	var open []level
	for {
		token, err := decoder.Token()
		if err == io.EOF {
			return ""
		}
		if err != nil {
			return err.Error()
		}
		if token == json.Delim('}') || token == json.Delim(']') {
			open = open[:len(open)-1]
			continue
		}
		if n := len(open); n > 0 && open[n-1].object {
			if top := &open[n-1]; !top.value {
				name := token.(string)
				for _, other := range top.names {
					if strings.EqualFold(name, other) {
						return "equal names " + name + " and " + other
					}
				}
				top.names, top.value = append(top.names, name), true
				continue
			}
			open[n-1].value = false
		}
		if token == json.Delim('{') || token == json.Delim('[') {
			if open = append(open, level{object: token == json.Delim('{')}); len(open) > maxDepth {
				return "nesting"
			}
		}
	}
}

func BenchmarkCheckJSON(b *testing.B) {
	manifest := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[` +
		strings.Repeat(`{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","size":253,"digest":"sha256:9b172924c7e12323aea309c3a1d8084da88c21c15ba72c2c40691bed6738dbf0"},`, 20) + `{}]}`)
	b.SetBytes(int64(len(manifest)))
	b.ReportAllocs()
	for b.Loop() {
		if err := CheckJSON(manifest, MaxDepth); err != nil {
			b.Fatal(err)
		}
	}
}
