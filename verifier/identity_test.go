package verifier

import (
	"errors"
	"strings"
	"testing"
)

func TestAnIdentityFitsWhomItNamesAndNobodyElse(t *testing.T) {
	const issuer = "https://token.actions.githubusercontent.com"
	const tagged = "https://github.com/acme/web/.github/workflows/release.yml@refs/tags/v*"
	for _, tt := range []struct {
		name                    string
		issuer, subject, source string
		by, who                 string
		sources                 []string
		fits                    bool
	}{
		{"both alike", "https://a.example", "dev@a.example", "", "https://a.example", "dev@a.example", nil, true},
		{"another issuer", "https://a.example", "dev@a.example", "", "https://b.example", "dev@a.example", nil, false},
		{"an issuer with a slash more", "https://a.example", "dev@a.example", "", "https://a.example/", "dev@a.example", nil, false},
		{"an issuer in another letter case", "https://a.example", "dev@a.example", "", "https://A.example", "dev@a.example", nil, false},
		{"no issuer", "https://a.example", "dev@a.example", "", "", "dev@a.example", nil, false},
		{"any issuer", "", "dev@a.example", "", "", "dev@a.example", nil, true},

		{"a domain", "https://a.example", "*@a.example", "", "https://a.example", "dev@a.example", nil, true},
		{"a domain and something after", "https://a.example", "*@a.example", "", "https://a.example", "evil@a.example.attacker", nil, false},
		{"a domain and something before", "https://a.example", "dev@a.example", "", "https://a.example", "evil-dev@a.example", nil, false},
		{"a dot is a dot", "https://a.example", "dev@a.example", "", "https://a.example", "dev@a-example", nil, false},
		{"a line break after", "https://a.example", "*@a.example", "", "https://a.example", "dev@a.example\nx", nil, false},
		{"a tag", issuer, tagged, "", issuer, strings.Replace(tagged, "*", "1.2", 1), nil, true},
		{"a branch", issuer, tagged, "", issuer, strings.Replace(tagged, "tags/v*", "heads/main", 1), nil, false},
		{"a tag with a slash", issuer, tagged, "", issuer, strings.Replace(tagged, "*", "1/2", 1), nil, false},
		{"two stars cross slashes", issuer, tagged + "*", "", issuer, strings.Replace(tagged, "*", "1/2", 1), nil, true},
		{"a branch that is called like a file on another", issuer, "https://github.com/acme/web/.github/workflows/*@refs/heads/main", "", issuer,
			"https://github.com/acme/web/.github/workflows/x.yml@refs/heads/x@refs/heads/main", nil, false},
		{"a star in a component stays there", issuer, "https://github.com/acme/*/x", "", issuer, "https://github.com/acme/web/evil/x", nil, false},
		{"a source that is the right one", issuer, "who", "https://github.com/acme/web", issuer, "who", []string{"https://github.com/acme/web"}, true},
		{"a source that is another", issuer, "who", "https://github.com/acme/web", issuer, "who", []string{"https://github.com/evil/web"}, false},
		{"no source", issuer, "who", "https://github.com/acme/web", issuer, "who", nil, true},
		{"{repo} that is not filled in", issuer, "x/{repo}", "", issuer, "x/{repo}", nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id, err := ParseIdentity(tt.issuer, tt.subject, tt.source)
			if err != nil {
				t.Fatal(err)
			}
			if got := id.fits(certifiedSigner{tt.by, tt.who, tt.sources}); got != tt.fits {
				t.Errorf("fits: %v", got)
			}
		})
	}
	if (Identity{}).fits(certifiedSigner{}) || (Identity{}).fits(certifiedSigner{issuer: "a", subject: "b"}) {
		t.Error("the zero identity fits")
	}
}

func TestWhatIsCapturedStandsForItself(t *testing.T) {
	id, err := ParseIdentity("i", "https://github.com/acme/{repo}/.github/workflows/*.yml@**", "https://github.com/acme/{repo}")
	if err != nil || !id.Captures() {
		t.Fatal(id.Captures(), err)
	}
	at := func(repo string) certifiedSigner {
		return certifiedSigner{"i", "https://github.com/acme/" + repo + "/.github/workflows/a.yml@refs/heads/main", []string{"https://github.com/acme/" + repo}}
	}
	web := id.With("web")
	if web.Captures() || !web.fits(at("web")) || web.fits(at("api")) || id.fits(at("web")) || id.fits(at("{repo}")) {
		t.Error("{repo} is not web alone")
	}
	for _, repo := range []string{".*", "*", "w?b", "w.b", `\w`, "{repo}"} {
		if filled := id.With(repo); filled.fits(at("web")) || !filled.fits(at(repo)) {
			t.Errorf("%q does not stand for itself", repo)
		}
	}
}

func TestAPatternThatIsNoneIsRefused(t *testing.T) {
	for _, tt := range []struct{ issuer, subject, source, want string }{
		{"a", "", "", "subject \"\": is empty"},
		{"*", "x", "", "issuer \"*\": is anybody"},
		{"a", "**", "", "is anybody"},
		{"a", "x***", "", "three stars"},
		{"a", "{name}", "", "braces"},
		{"a", "x y", "", "blanks"},
		{"a", "x\n", "", "blanks"},
		{"a", strings.Repeat("x", 3000), "", "more than"},
		{"a", "x", "{", "source"},
		{"a", "x\xb7*", "", "UTF-8"},
	} {
		if _, err := ParseIdentity(tt.issuer, tt.subject, tt.source); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q, %q: %v, want %q", tt.issuer, tt.subject, err, tt.want)
		}
	}
}

func TestExpressionsAreAnchoredByUs(t *testing.T) {
	id, err := ParseIdentityRegexp(`https://a\.example|https://b\.example`, `.*@x\.com`)
	if err != nil {
		t.Fatal(err)
	}
	for who, fits := range map[string]bool{
		"dev@x.com": true, "evil@x.com.attacker": false, "dev@x.com\n": false, "dev@xxcom": false,
	} {
		if got := id.fits(certifiedSigner{issuer: "https://b.example", subject: who}); got != fits {
			t.Errorf("%q: %v", who, got)
		}
	}
	if id.fits(certifiedSigner{issuer: "https://b.example.evil", subject: "dev@x.com"}) {
		t.Error("the alternative is not anchored")
	}
	for _, bad := range []string{"", "(", `a)|(?:b`, strings.Repeat("a", 3000)} {
		if _, err := ParseIdentityRegexp("a", bad); err == nil {
			t.Errorf("%.20q is taken", bad)
		}
	}
}

func TestIdentitiesOverlapWhereSomebodyIsBoth(t *testing.T) {
	parse := func(subject string) Identity {
		id, err := ParseIdentity("i", subject, "")
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"dev@a.example", "dev@a.example", true}, {"*@a.example", "dev@a.example", true}, {"dev@a.example", "*@a.example", true},
		{"*@a.example", "*@a.example", true}, {"*@a.example", "dev@b.example", false}, {"x/{repo}", "x/{repo}", true}, {"x/{repo}", "x/web", false},
	} {
		if got := parse(tt.a).Overlaps(parse(tt.b)); got != tt.want {
			t.Errorf("%s and %s: %v", tt.a, tt.b, got)
		}
	}
}

func TestAPanicInALibraryIsAnError(t *testing.T) {
	if err := guarded(func() error { var entry *struct{ body []byte }; return errors.New(string(entry.body)) }); err == nil || !strings.Contains(err.Error(), "panicked") {
		t.Errorf("error %v", err)
	}
	if err := guarded(func() error { return nil }); err != nil {
		t.Error(err)
	}
}

// FuzzIdentity: a pattern fits what it fits whatever stands around, only if that fits,
// too; and a plain text fits itself alone.
func FuzzIdentity(f *testing.F) {
	f.Add("https://github.com/acme/*/x@**", "https://github.com/acme/web/x@refs/tags/v1", "web")
	f.Add("a*b", "axb", "")
	f.Fuzz(func(t *testing.T, text, who, repo string) {
		id, err := ParseIdentity("i", text, "")
		if err != nil {
			return
		}
		id = id.With(repo)
		plain := !strings.Contains(text, "*")
		if fits := id.fits(certifiedSigner{issuer: "i", subject: who}); fits && plain && who != strings.ReplaceAll(text, "{repo}", repo) {
			t.Errorf("%q with %q fits %q", text, repo, who)
		}
		prefix, _, _ := strings.Cut(strings.ReplaceAll(text, "{repo}", repo), "*")
		if id.fits(certifiedSigner{issuer: "i", subject: who}) && !strings.Contains(repo, "*") && !strings.HasPrefix(who, prefix) {
			t.Errorf("%q with %q fits %q", text, repo, who)
		}
		if id.fits(certifiedSigner{issuer: "j", subject: who}) {
			t.Error("another issuer fits")
		}
	})
}
