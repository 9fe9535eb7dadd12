package upstream

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPickChallenge(t *testing.T) {
	const realm, service = "https://auth.test/token", "svc"
	bearer := func(scope string) challenge {
		return challenge{scheme: "bearer", realm: realm, service: service, scope: scope}
	}
	for _, tt := range []struct {
		name   string
		header []string
		want   challenge // zero: none
	}{
		{"bearer", []string{`Bearer realm="https://auth.test/token",service="svc",scope="repository:acme/web:pull"`}, bearer("repository:acme/web:pull")},
		{"spaces, another case and order", []string{`  bEARER   SCOPE = "x:y" , Service="svc",	REALM="https://auth.test/token" ,`}, bearer("x:y")},
		{"without quotes", []string{`Bearer realm=https://auth.test/token,service=svc,scope=x`}, bearer("x")},
		{"no scope", []string{`Bearer realm="https://auth.test/token",service="svc"`}, bearer("repository:acme/web:pull")},
		{"rights that are not needed", []string{`Bearer realm="https://auth.test/token",service="svc",scope="repository:acme/web:pull,push,delete repository:a/b:* registry:catalog:*"`}, bearer("repository:acme/web:pull repository:a/b:pull registry:catalog:*")},
		{"bearer comes before basic", []string{`Basic realm="x", Bearer realm="https://auth.test/token",service="svc",scope="x"`}, bearer("x")},
		{"bearer in another field", []string{`Negotiate`, `Basic realm="x"`, `Bearer realm="https://auth.test/token",service="svc",scope="x"`}, bearer("x")},
		{"an escaped quote", []string{`Bearer realm="https://auth.test/token",service="s\vc",scope="\x"`}, bearer("x")},
		{"basic", []string{`Basic realm="x"`}, challenge{scheme: "basic"}},
		{"basic alone", []string{`Basic`}, challenge{scheme: "basic"}},
		{"after a token68", []string{`NTLM TlRMTVNTUAAB==, Basic realm="x"`}, challenge{scheme: "basic"}},
		{"bearer without a realm is none", []string{`Bearer service="svc"`, `Basic realm="x"`}, challenge{scheme: "basic"}},
		{"nothing", nil, challenge{}},
		{"another scheme", []string{`Digest realm="x", nonce="y"`}, challenge{}},
		{"two realms", []string{`Bearer realm="https://auth.test/token",service="svc",realm="https://evil.test/token"`}, challenge{}},
		{"two realms in two cases", []string{`Bearer realm="https://auth.test/token",service="svc",REALM="https://evil.test/token"`}, challenge{}},
		{"a quote that does not end", []string{`Bearer realm="https://auth.test/token`}, challenge{}},
		{"a control character", []string{"Bearer realm=\"https://auth.test/\x01\""}, challenge{}},
		{"parameters without a scheme", []string{`realm="https://auth.test/token"`}, challenge{}},
		{"rubbish", []string{`Bearer realm="a" "b"`}, challenge{}},
		{"too many challenges", slices.Repeat([]string{"Basic"}, maxChallenges+1), challenge{}},
		{"too many in one field", []string{strings.Repeat("Basic,", 1000)}, challenge{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := pickChallenge(http.Header{"Www-Authenticate": tt.header}, need{repository: "acme/web"})
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(challenge{})); diff != "" || ok != (tt.want != challenge{}) {
				t.Errorf("%v (-want +got):\n%s", ok, diff)
			}
		})
	}
	many := `Bearer realm="a"`
	for i := range maxParameters {
		many += ",p" + strconv.Itoa(i) + "=1"
	}
	if got := parseChallenges(many); got != nil {
		t.Errorf("%d parameters are accepted", maxParameters+1)
	}
}

// FuzzParseChallenges: what is understood has the form of the grammar, written
// out in that form it is understood the same, and it is bounded.
func FuzzParseChallenges(f *testing.F) {
	for _, seed := range []string{
		``, `Basic`, `Bearer realm="https://auth.test/token",service="svc",scope="a b"`, `NTLM abc==, Basic realm="x"`, `Bearer a=b, c="d\"e"`,
		`Negotiate`, `a=b`, `Bearer realm=a realm=b`, "Bearer realm=\"\xff\"", `Bearer a=""`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		parsed := parseChallenges(value)
		if len(parsed) > maxChallenges+1 {
			t.Fatalf("%d challenges", len(parsed))
		}
		var fields []string
		for _, p := range parsed {
			if !isToken(p.scheme) || p.scheme != strings.ToLower(p.scheme) || len(p.parameters) > maxParameters {
				t.Fatalf("scheme %q with %d parameters", p.scheme, len(p.parameters))
			}
			var parameters []string
			for _, name := range slices.Sorted(maps.Keys(p.parameters)) {
				if !isToken(name) || name != strings.ToLower(name) || strings.ContainsAny(p.parameters[name], "\r\n\x00") {
					t.Fatalf("parameter %q=%q", name, p.parameters[name])
				}
				parameters = append(parameters, name+`="`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(p.parameters[name])+`"`)
			}
			fields = append(fields, p.scheme+" "+strings.Join(parameters, ", "))
		}
		again := parseChallenges(strings.Join(fields, ", "))
		if diff := cmp.Diff(parsed, again, cmp.AllowUnexported(parsedChallenge{})); diff != "" {
			t.Errorf("written out as %q it is another (-first +second):\n%s", fields, diff)
		}
	})
}

func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 || !isTokenChar(byte(r)) })
}

func TestNextLink(t *testing.T) {
	for value, want := range map[string]string{ // "-" malformed, "" none
		``:                                      "",
		`</v2/a/tags/list?n=1>; rel="next"`:     "/v2/a/tags/list?n=1",
		`</x>;rel=next`:                         "/x",
		`</x> ; REL = "NEXT"`:                   "/x",
		`</x>; rel="prev next"`:                 "/x",
		`</x>; rel="nextish"`:                   "",
		`</x>`:                                  "",
		`</x>; title="a, <b>; rel=next"`:        "",
		`</a>; rel="prev", </b>; rel="next"`:    "/b",
		`</a>; rel=prev; rel=next, </b>;rel=up`: "", // the first rel counts, RFC 8288 section 3.3
		`/x; rel=next`:                          "-",
		`</x; rel=next`:                         "-",
		`</x>; rel="next`:                       "-",
		`</x> rel=next`:                         "-",
		"</x\r\n>; rel=next":                    "-",
		`</ x>; rel=next`:                       "-",
	} {
		target, found, ok := nextLink(value)
		got := target
		if !ok {
			got = "-"
		}
		if got != want || found != (want != "" && want != "-") {
			t.Errorf("%s: got %q, %v, %v, want %q", value, target, found, ok, want)
		}
	}
}

// FuzzNextLink: a target holds nothing that could end it, and a link that is
// written out with it is understood the same.
func FuzzNextLink(f *testing.F) {
	for _, seed := range []string{
		``, `</v2/a/tags/list?n=1>; rel="next"`, `</x>;rel=next`, `</a>; rel="prev", </b>; rel="next"`, `</x>; title="a, <b>; rel=next"`, `<x>;;rel=next`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		target, found, ok := nextLink(value)
		if !ok && found || !found && target != "" {
			t.Fatalf("%q: %q, %v, %v", value, target, found, ok)
		}
		if !found {
			return
		}
		if strings.ContainsAny(target, "<>\r\n \x00") || !strings.Contains(value, "<"+target+">") {
			t.Fatalf("%q: target %q", value, target)
		}
		if again, found, ok := nextLink("<" + target + `>; rel="next"`); again != target || !found || !ok {
			t.Errorf("%q: written out it is %q, %v, %v", value, again, found, ok)
		}
	})
}
