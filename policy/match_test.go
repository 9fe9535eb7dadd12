package policy

import (
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
)

func mustMatch(t testing.TB, patterns ...string) Match {
	t.Helper()
	m, err := ParseMatch(patterns)
	if err != nil {
		t.Fatalf("ParseMatch(%q): %v", patterns, err)
	}
	return m
}

func TestMatch(t *testing.T) {
	for _, test := range []struct {
		patterns string // separated by spaces
		fits     string
		not      string
	}{
		{"ghcr.io/acme/web", "ghcr.io/acme/web", "ghcr.io/acme/web2 ghcr.io/acme ghcr.io/acme/web/x quay.io/acme/web"},
		{"ghcr.io/acme/*", "ghcr.io/acme/web ghcr.io/acme/x", "ghcr.io/acme ghcr.io/acme/web/x"},
		{"ghcr.io/acme/web*", "ghcr.io/acme/web ghcr.io/acme/web-1", "ghcr.io/acme/webs/x ghcr.io/acme/we"},
		{"ghcr.io/acme/*web", "ghcr.io/acme/web ghcr.io/acme/my-web", "ghcr.io/acme/x/web ghcr.io/acme/webx"},
		{"ghcr.io/acme/a*b*c", "ghcr.io/acme/abc ghcr.io/acme/axbxc ghcr.io/acme/abcbc", "ghcr.io/acme/acb ghcr.io/acme/ab/c ghcr.io/acme/ac"},
		{"ghcr.io/acme/ab*ba", "ghcr.io/acme/abba", "ghcr.io/acme/aba"},
		{"ghcr.io/acme/**", "ghcr.io/acme/x ghcr.io/acme/x/y ghcr.io/acme/x/y/z", "ghcr.io/acme ghcr.io/acme2/x"},
		{"ghcr.io/**/web", "ghcr.io/web ghcr.io/a/web ghcr.io/a/b/web", "ghcr.io/a/web/b ghcr.io/aweb"},
		{"ghcr.io/**/a/*/b/**", "ghcr.io/a/x/b/y ghcr.io/q/a/x/b/y/z ghcr.io/a/a/a/b/b", "ghcr.io/a/b/c ghcr.io/a/x/b ghcr.io/a/x/y/b/z"},
		{"ghcr.io/a/**/a/b", "ghcr.io/a/a/b ghcr.io/a/x/a/b", "ghcr.io/a/b ghcr.io/a/a/b/b"},
		{"ghcr.io/**/*", "ghcr.io/a ghcr.io/a/b", "quay.io/a"},
		{"**", "ghcr.io/x docker.io/library/nginx local/a/b/c localhost:5000/x", "nginx"},
		{"**/web", "ghcr.io/web ghcr.io/a/web", "web"},
		{"*/acme/**", "ghcr.io/acme/x local/acme/x/y", "ghcr.io/acme ghcr.io/x/acme/y"},
		{"*.example.com/**", "a.example.com/x", "example.com/x a.example.org/x"},
		{"docker.io/library/*", "docker.io/library/nginx", "docker.io/nginx docker.io/acme/nginx"},
		{"docker.io/**", "docker.io/library/nginx docker.io/acme/x", "docker.io/nginx index.docker.io/library/nginx"},
		{"localhost:5000/**", "localhost:5000/x", "localhost/x localhost:5001/x"},
		{"ghcr.io/acme/** !ghcr.io/acme/secret", "ghcr.io/acme/x ghcr.io/acme/secret/y", "ghcr.io/acme/secret"},
		{"!ghcr.io/acme/secret/** ghcr.io/acme/**", "ghcr.io/acme/secret", "ghcr.io/acme/secret/x"},
		{"ghcr.io/acme/** !ghcr.io/acme/a/** ghcr.io/acme/a/b", "ghcr.io/acme/x", "ghcr.io/acme/a/b"},
		{"ghcr.io/a/* ghcr.io/b/*", "ghcr.io/a/x ghcr.io/b/x", "ghcr.io/c/x"},
		{"ghcr.io/acme/{repo}", "ghcr.io/acme/web", "ghcr.io/acme ghcr.io/acme/a/b"},
	} {
		m := mustMatch(t, strings.Fields(test.patterns)...)
		for _, name := range strings.Fields(test.fits) {
			if !m.Matches(name) {
				t.Errorf("%s does not match %s", test.patterns, name)
			}
		}
		for _, name := range strings.Fields(test.not) {
			if m.Matches(name) {
				t.Errorf("%s matches %s", test.patterns, name)
			}
		}
	}
}

func TestMatchFitsNoNameThatIsNotCanonical(t *testing.T) {
	everything := mustMatch(t, "**")
	for _, name := range []string{
		"", "/", "ghcr.io", "ghcr.io/", "/acme/web", "ghcr.io//web", "ghcr.io/acme/web/", "ghcr.io/Acme/web", "GHCR.io/acme/web",
		"ghcr.io/../web", "ghcr.io/./web", "ghcr.io/a..b", "ghcr.io/-a", "ghcr.io/a-", "ghcr.io/a___b", "ghcr.io/a._b", "ghcr.io./web",
		"ghcr.io/acme/web:v1", "ghcr.io/acme/web@sha256:00", "ghcr.io/acme/wéb", "ghcr.io/acme/web\x00", "ghcr.io/acme/web\n", "ghcr.io/a%2fb",
		"docker.io/nginx", "index.docker.io/library/nginx", "registry-1.docker.io/library/nginx", "https://ghcr.io/acme", "ghcr.io:/acme",
		"ghcr.io/" + strings.Repeat("a", maxName),
	} {
		if everything.Matches(name) {
			t.Errorf("** matches %q", name)
		}
	}
}

func TestZeroMatchMatchesNothing(t *testing.T) {
	if (Match{}).Matches("ghcr.io/acme/web") || (Match{}).Captures("ghcr.io/acme/web") != nil {
		t.Error("the zero Match matches")
	}
}

func TestCaptures(t *testing.T) {
	for _, test := range []struct {
		patterns, name, repo string // repo empty: nothing is captured
	}{
		{"ghcr.io/acme/{repo}", "ghcr.io/acme/web", "web"},
		{"ghcr.io/acme/{repo}/**", "ghcr.io/acme/web/a/b", "web"},
		{"ghcr.io/**/{repo}", "ghcr.io/a/b/web", "web"},
		{"ghcr.io/**/{repo}", "ghcr.io/web", "web"},
		{"ghcr.io/**/{repo}/image", "ghcr.io/a/b/web/image", "web"},
		{"ghcr.io/acme/{repo}", "ghcr.io/other/web", ""},
		{"ghcr.io/acme/*", "ghcr.io/acme/web", ""},
		{"ghcr.io/acme/{repo} !ghcr.io/acme/web", "ghcr.io/acme/web", ""},
		{"ghcr.io/acme/{repo}/x ghcr.io/acme/y/{repo}", "ghcr.io/acme/y/x", "y"},
		{"ghcr.io/acme/** ghcr.io/acme/{repo}", "ghcr.io/acme/web", ""},
	} {
		var want map[string]string
		if test.repo != "" {
			want = map[string]string{"repo": test.repo}
		}
		if got := mustMatch(t, strings.Fields(test.patterns)...).Captures(test.name); !maps.Equal(got, want) {
			t.Errorf("%s captures %v of %s, want %v", test.patterns, got, test.name, want)
		}
	}
}

func TestParseMatchSaysTheFix(t *testing.T) {
	for _, test := range []struct{ pattern, want string }{
		{"", "write ** for everything"},
		{"/", "write ** for everything"},
		{"*", "write ** for everything"},
		{"nginx", "write docker.io/library/nginx"},
		{"nginx:1.25", "write docker.io/library/nginx"},
		{"library/nginx", "write docker.io/library/nginx"},
		{"ghcr.io", "write ghcr.io/**"},
		{"docker.io/nginx", "write docker.io/library/nginx"},
		{"docker.io/*", "write docker.io/library/*"},
		{"docker.io/{repo}", "write docker.io/library/{repo}"},
		{"index.docker.io/nginx", "write docker.io/library/nginx"},
		{"index.docker.io/acme/**", "write docker.io/acme/**"},
		{"registry-1.docker.io/library/*", "write docker.io/library/*"},
		{"https://ghcr.io/acme/**", "write ghcr.io/acme/**"},
		{"ghcr.io/Acme/**", "write ghcr.io/acme/**"},
		{"GHCR.IO/acme/**", "write ghcr.io/acme/**"},
		{"ghcr.io//acme", "write ghcr.io/acme"},
		{"/ghcr.io/acme", "write ghcr.io/acme"},
		{"ghcr.io/acme/", "ghcr.io/acme/** for those below it"},
		{"ghcr.io/acme/web:v1", "write ghcr.io/acme/web"},
		{"localhost:5000/web:v1", "write localhost:5000/web"},
		{"ghcr.io/acme/web@sha256:1234", "write ghcr.io/acme/web"},
		{"ghcr.io/acme**", "** is a component of its own"},
		{"ghcr.io/**acme", "** is a component of its own"},
		{"ghcr.io/***", "** is a component of its own"},
		{"ghcr.io/**/**", "write ghcr.io/**"},
		{"ghcr.io/{name}", "the only name in braces is {repo}"},
		{"ghcr.io/{repo", "the only name in braces is {repo}"},
		{"ghcr.io/web-{repo}", "write web-*"},
		{"ghcr.io/{repo}{repo}", "put it between slashes"},
		{"ghcr.io/{repo}/{repo}", "{repo} may stand once"},
		{"ghcr.io/**/{repo}/**", "remove one **"},
		{"{repo}/acme/web", "write the upstream's name first"},
		{"!ghcr.io/{repo}", "write * in place of {repo}"},
		{"!!ghcr.io/acme/**", "remove the others"},
		{"ghcr.io/acme/!web", "as its own entry"},
		{"ghcr.io/acme/we?", "write * for any text"},
		{"ghcr.io/acme/[ab]", "no repository has such a character"},
		{"ghcr.io/acme/ web", "no repository has such a character"},
		{"ghcr.io/acme/wéb", "no repository has such a character"},
		{"ghcr.io/acme/web\n", "no repository has such a character"},
		{"ghcr.io/acme/-web", "no repository can have such a name"},
		{"ghcr.io/acme/*-", "no repository can have such a name"},
		{"ghcr.io/acme/a..b", "no repository can have such a name"},
		{"ghcr.io/../acme", "no repository can have such a name"},
		{"ghcr.io./acme/**", "no repository can have such a name"},
		{"ghcr.io/acme/a___b", "no repository can have such a name"},
		{"ghcr.io/" + strings.Repeat("a", maxName), "longer than"},
	} {
		_, err := ParseMatch([]string{test.pattern, "**"})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v, want a text with %q", test.pattern, err, test.want)
		}
	}
	for _, test := range []struct {
		patterns []string
		want     string
	}{
		{nil, "the match is empty"},
		{[]string{"!ghcr.io/acme/**"}, "exclusions alone"},
	} {
		if _, err := ParseMatch(test.patterns); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v, want a text with %q", test.patterns, err, test.want)
		}
	}
}

func TestParseMatchReturnsAllFaults(t *testing.T) {
	_, err := ParseMatch([]string{"nginx", "ghcr.io/acme/**", "GHCR.io/x/y"})
	if err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("got %v, want two faults", err)
	}
}

// The advice is right: what an error says to write can be written.
func TestAdviceParses(t *testing.T) {
	for _, pattern := range []string{
		"nginx", "library/nginx", "docker.io/nginx", "docker.io/*", "index.docker.io/nginx", "registry-1.docker.io/a/**",
		"https://ghcr.io/acme/**", "ghcr.io/Acme", "ghcr.io//acme", "ghcr.io/acme/web:v1", "ghcr.io/acme/web@sha256:12", "ghcr.io/**/**",
	} {
		_, err := ParseMatch([]string{pattern})
		if err == nil {
			t.Errorf("%q parses", pattern)
			continue
		}
		_, advice, _ := strings.Cut(err.Error(), "write ")
		advice, _, _ = strings.Cut(advice, ",")
		if _, err := ParseMatch([]string{advice}); err != nil {
			t.Errorf("the advice for %q does not parse: %v", pattern, err)
		}
	}
}

// naive is a matcher that is slow and plainly right: it tries everything.
func naive(pattern, name []string) bool {
	if len(pattern) == 0 {
		return len(name) == 0
	}
	if pattern[0] == "**" {
		least := 0
		if len(pattern) == 1 {
			least = 1
		}
		for n := least; n <= len(name); n++ {
			if naive(pattern[1:], name[n:]) {
				return true
			}
		}
		return false
	}
	return len(name) > 0 && naiveComponent(pattern[0], name[0]) && naive(pattern[1:], name[1:])
}

func naiveComponent(pattern, text string) bool {
	switch {
	case pattern == "{repo}":
		return true
	case pattern == "":
		return text == ""
	case pattern[0] == '*':
		for n := 0; n <= len(text); n++ {
			if naiveComponent(pattern[1:], text[n:]) {
				return true
			}
		}
		return false
	}
	return text != "" && pattern[0] == text[0] && naiveComponent(pattern[1:], text[1:])
}

func naiveMatch(patterns []string, name string) bool {
	if !isCanonical(name) {
		return false
	}
	matched := false
	for _, p := range patterns {
		body, excluding := strings.CutPrefix(p, "!")
		fits := naive(strings.Split(body, "/"), strings.Split(name, "/"))
		if fits && excluding {
			return false
		}
		matched = matched || fits
	}
	return matched
}

func FuzzMatchAgreesWithNaive(f *testing.F) {
	for _, seed := range [][2]string{
		{"ghcr.io/acme/**", "ghcr.io/acme/web"},
		{"ghcr.io/**/a*b*/x !ghcr.io/y/**", "ghcr.io/y/ab/x"},
		{"**/{repo}", "docker.io/library/nginx"},
		{"docker.io/**/a/**/b", "docker.io/a/b"},
		{"a*/**", "a/a"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		if strings.Count(text, "*") > 8 || len(text) > 80 || len(name) > 60 {
			return // the naive matcher would take all day
		}
		patterns := strings.Fields(text)
		m, err := ParseMatch(patterns)
		if err != nil {
			return
		}
		if got, want := m.Matches(name), naiveMatch(patterns, name); got != want {
			t.Fatalf("%q matches %q: %v, want %v", patterns, name, got, want)
		}
		if m.Matches(name) && !isCanonical(name) {
			t.Fatalf("%q matches %q, which is not canonical", patterns, name)
		}
		if captured := m.Captures(name); captured != nil && strings.ContainsAny(captured["repo"], "/") {
			t.Fatalf("%q captures %q of %q", patterns, captured, name)
		}
		// What parses can match: the search finds a name, and it is matched.
		steps := searchBound
		if found, outcome := witness([]Match{{include: m.include}}, nil, &steps); outcome == searchEmpty || outcome == searchFound && !(Match{include: m.include}).Matches(found) {
			t.Fatalf("%q: found %q, %v", patterns, found, outcome)
		}
	})
}

func newRand() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

// randomPattern makes patterns over few letters, so that they meet.
func randomPattern(r *rand.Rand) string {
	components := []string{[]string{"a", "b", "a*", "*"}[r.IntN(4)]}
	for range 1 + r.IntN(3) {
		components = append(components, []string{"a", "b", "ab", "a*", "*b", "*", "**", "a*b"}[r.IntN(8)])
	}
	return strings.Join(components, "/")
}

// names are all canonical names of up to four short components over two letters.
func names() []string {
	var all []string
	level := []string{"a", "b", "ab"}
	for range 3 {
		var next []string
		for _, name := range level {
			for _, c := range []string{"a", "b", "ab", "ba", "x"} {
				next = append(next, name+"/"+c)
			}
		}
		all = append(all, next...)
		level = next
	}
	return all
}

func TestSearchAgreesWithMatching(t *testing.T) {
	r := newRand()
	all := names()
	contained := 0
	for range 3000 {
		one, ok := randomMatch(r)
		if !ok {
			continue
		}
		other, ok := randomMatch(r)
		if !ok {
			continue
		}
		within := Within(one, other)
		if within {
			contained++
		}
		for _, name := range all {
			if within && one.Matches(name) && !other.Matches(name) {
				t.Fatalf("(%s) is said to lie within (%s), but %s does not", one, other, name)
			}
		}
		example, outside := Outside(one, other)
		if outside == within {
			t.Fatalf("(%s) within (%s): %v, and outside: %v", one, other, within, outside)
		}
		if outside && (!one.Matches(example) || other.Matches(example)) {
			t.Fatalf("%q is no example of (%s) outside (%s)", example, one, other)
		}
	}
	if contained < 100 {
		t.Errorf("only %d pairs were contained: the test shows little", contained)
	}
}

func randomMatch(r *rand.Rand) (Match, bool) {
	patterns := []string{randomPattern(r)}
	if r.IntN(3) == 0 {
		patterns = append(patterns, randomPattern(r))
	}
	if r.IntN(3) == 0 {
		patterns = append(patterns, "!"+randomPattern(r))
	}
	m, err := ParseMatch(patterns)
	return m, err == nil
}

func TestMatchingTakesLinearTime(t *testing.T) {
	m := mustMatch(t, "a/"+strings.Repeat("**/a/", 60)+"b", "a/"+strings.Repeat("*a", 200)+"b")
	name := "a/" + strings.Repeat("a/", 200) + "c"
	long := "a/" + strings.Repeat("a", 400) + "c"
	allocs := testing.AllocsPerRun(100, func() {
		if m.Matches(name) || m.Matches(long) {
			t.Error("matches")
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}
