package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/policy"
	"vidimus/proxy"
	"vidimus/verifier"
)

func TestEvidenceIsShownUnderWhereItWasFound(t *testing.T) {
	key := strings.Repeat("3f2a51c0", 8)
	pieces, err := parseEvidence([]byte(`[
		{"form":"simple-signing","source":"sha256-aa.sig","verified":true,"keyID":"` + key + `","authorities":["release","ci"],
		 "claimedName":"ghcr.io/acme/web","annotations":{"env":"prod","by":"a\u001b[31m"}},
		{"form":"simple-signing","source":"sha256-aa.cosign","verified":false,"reason":"payload-invalid","detail":"not JSON"},
		{"form":"simple-signing","source":"sha256-aa.sig","verified":false,"reason":"digest-mismatch","keyID":"` + key + `",
		 "claimedName":"ghcr.io/acme/old","detail":"key 3f2a51c03f2a signed ghcr.io/acme/old@sha256:bb"},
		{"form":"bundle-dsse","source":"referrer sha256:cc","verified":true,"issuer":"https://a.example","subject":"dev@a.example","authorities":["ci"],
		 "signedAt":"2026-06-15T12:00:00Z"}]`))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"sha256-aa.sig",
		"├─ verified: simple-signing by release, ci (key 3f2a51c0…), for ghcr.io/acme/web; annotations by=a [31m, env=prod",
		"└─ rejected (digest-mismatch): simple-signing; key 3f2a51c03f2a signed ghcr.io/acme/old@sha256:bb",
		"sha256-aa.cosign",
		"└─ rejected (payload-invalid): simple-signing; not JSON",
		"referrer sha256:cc",
		"└─ verified: bundle-dsse by ci (dev@a.example, by https://a.example) at 2026-06-15T12:00:00Z",
	}
	if diff := cmp.Diff(want, evidenceTree(pieces)); diff != "" {
		t.Error(diff)
	}
	if pieces, err := parseEvidence(nil); pieces != nil || err != nil {
		t.Errorf("of nothing: %v, %v", pieces, err)
	}
	if _, err := parseEvidence([]byte(`{}`)); err == nil {
		t.Error("what is no list of evidence was read")
	}
}

func TestTheTraceNamesEveryPolicy(t *testing.T) {
	for want, step := range map[string]policy.Step{
		"passed over  staging, for a/**, !a/b, does not match: require ci; warn": {
			Policy: "staging", Match: []string{"a/**", "!a/b"}, Rule: "require ci", Enforcement: policy.Warn,
		},
		"decides      a/**: deny: moved; enforce":         {Policy: "a/**", Match: []string{"a/**"}, Matches: true, Rule: "deny: moved"},
		"decides      no policy matches: denied; observe": {Rule: "no policy matches: denied", Enforcement: policy.Observe},
	} {
		if got := stepLine(step); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	var out strings.Builder
	e := explained{image: "x/y:v1", trace: []policy.Step{{Rule: "no policy matches: denied", Omitted: 7}}}
	if err := e.print(&out); err != nil || !strings.Contains(out.String(), "\n  passed over  7 more\n  decides      no policy") {
		t.Errorf("%v\n%s", err, &out)
	}
}

// TestTheNoteIsAboutDigestsThatAnIndexMayLetPass pins down when explain may say
// no where a running proxy says yes.
func TestTheNoteIsAboutDigestsThatAnIndexMayLetPass(t *testing.T) {
	byDigest := "ghcr.io/acme/web@sha256:aa"
	for _, row := range []struct {
		what  string
		image string
		d     policy.Decision
		want  bool
	}{
		{"denied by digest", byDigest, policy.Decision{Reason: policy.ReasonUnsigned}, true},
		{"undecided by digest", byDigest, policy.Decision{Reason: policy.ReasonInconclusive}, true},
		{"denied by tag", "ghcr.io/acme/web:v1", policy.Decision{Reason: policy.ReasonUnsigned}, false},
		{"allowed", byDigest, policy.Decision{Allowed: true}, false},
		{"served all the same", byDigest, policy.Decision{Reason: policy.ReasonUnsigned, Enforcement: policy.Warn}, false},
		{"revoked", byDigest, policy.Decision{Reason: policy.ReasonRevoked}, false},
	} {
		e := explained{Explanation: proxy.Explanation{Decision: row.d}, image: row.image}
		if got := e.note() != ""; got != row.want {
			t.Errorf("%s: noted %v, want %v", row.what, got, row.want)
		}
	}
}

func TestEvidenceAboutSomethingElseSaysWhat(t *testing.T) {
	own, other := v1.Hash{Algorithm: "sha256", Hex: "aa"}, v1.Hash{Algorithm: "sha256", Hex: "bb"}
	for want, d := range map[string]policy.Decision{
		"":                             {Subject: policy.Subject{Digest: own}},
		" about its subject sha256:bb": {Subject: policy.Subject{Digest: own}, About: other.String()},
		" about the index sha256:cc":   {Subject: policy.Subject{Digest: own}, Via: "sha256:cc"},
	} {
		if got := (explained{Explanation: proxy.Explanation{Decision: d, Digest: own}}).about(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestOneDecisionForManyReferences(t *testing.T) {
	record := func(id, reference string) proxy.Record { return proxy.Record{ID: id, Reference: reference} }
	told, err := oneDecision([]proxy.Record{record("7f3c", "v1"), record("7f3c", "v2"), record("7f3c", "v1"), record("7f3c", "latest")}, "7f")
	if err != nil || told.Reference != "latest" || !slices.Equal(told.OtherReferences, []string{"v1", "v2"}) {
		t.Errorf("%+v, %v", told, err)
	}
	var out strings.Builder
	if err := told.print(&out); err != nil || !strings.Contains(out.String(), "also for  v1, v2\n") || !strings.HasSuffix(out.String(), "evidence\n  none\n") {
		t.Errorf("%v\n%s", err, &out)
	}
	if _, err := oneDecision([]proxy.Record{record("7f3c", "v1"), record("7f3d", "v1")}, "7f"); err == nil || !strings.Contains(err.Error(), "2 decisions") {
		t.Errorf("two decisions: %v", err)
	}
	if got := imageOf(proxy.Record{Repository: "a/b", Reference: "sha256:aa"}); got != "a/b@sha256:aa" {
		t.Errorf("a digest is written like a tag: %s", got)
	}
	if _, err := oneDecision(nil, "7f3c"); err == nil {
		t.Error("no decision is no error")
	}
}

func TestCausesAreToldOnce(t *testing.T) {
	gone := "authority release is suspended: release.pub is gone"
	for _, row := range []struct {
		explained string
		causes    []string
		want      string
	}{
		{gone, []string{gone}, ""},
		{gone + "; " + "authority ci is suspended: x", []string{gone, "authority ci is suspended: x"}, ""},
		{"could not look for signatures", []string{"tags: 503", "could not look", "referrers: 429"}, "tags: 503; referrers: 429"},
		{"could not look for signatures", nil, ""},
	} {
		if got := causesBeside(row.explained, row.causes); got != row.want {
			t.Errorf("%q beside %q: %q, want %q", row.causes, row.explained, got, row.want)
		}
	}
}

func TestTheServerOfDecisions(t *testing.T) {
	for server, want := range map[string]string{
		"http://127.0.0.1:5082/":        "http://127.0.0.1:5082",
		"127.0.0.1:5082":                "http://127.0.0.1:5082",
		"localhost:5082":                "http://localhost:5082",
		"[::1]:5082":                    "http://[::1]:5082",
		"http://vidimus.example":        "http://vidimus.example",
		"https://vidimus.example/admin": "https://vidimus.example/admin",
		"vidimus.example:5082":          "",
		"127.0.0.1.example:5082":        "",
		"10.0.0.1:5082":                 "",
		"ftp://127.0.0.1":               "",
		"http://":                       "",
		"http://127.0.0.1:5082/?id=x":   "",
		"127.0.0.1:port":                "",
	} {
		got, err := serverURL(server)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v; want %q", server, got, err, want)
		}
	}
}

// TestEveryReasonIsKnown reads the reasons of denials from where they are
// declared, so that --reason takes each of them.
func TestEveryReasonIsKnown(t *testing.T) {
	for _, reason := range declaredReasons(t) {
		if !slices.Contains(decisionWords(), reason) {
			t.Errorf("--reason does not take %s", reason)
		}
	}
}

// declaredReasons are those that package policy declares.
func declaredReasons(t *testing.T) []string {
	t.Helper()
	var reasons []string
	files, err := filepath.Glob("../../policy/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			value, ok := n.(*ast.ValueSpec)
			if !ok || len(value.Values) != 1 || !strings.HasPrefix(value.Names[0].Name, "Reason") {
				return true
			}
			literal, ok := value.Values[0].(*ast.BasicLit)
			if !ok {
				return true
			}
			reason, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Fatal(name, err)
			}
			reasons = append(reasons, reason)
			return true
		})
	}
	if len(reasons) < 10 {
		t.Fatalf("found %v", reasons)
	}
	return reasons
}

// The record of what is only observed says who has signed, so that a first policy can be
// written from it.
func TestDecisionsTellWhoHasSignedWhatIsObserved(t *testing.T) {
	evidence := []byte(`[
		{"form":"bundle-dsse","verified":true,"authorities":["release"]},
		{"form":"bundle-dsse","claimed":{"issuer":"https://i.example","subject":"a\u202e","proven":false,"detail":"no trust root"}},
		{"form":"simple-signing","claimed":{"issuer":"https://i.example","subject":"ci","proven":true,"signedAt":"2026-01-31T15:04:05Z","provenBy":"timestamp","logged":true}},
		{"form":"bundle-message","claimed":{"key":"3f2a","proven":false}},
		{"form":"simple-signing"},{"form":"simple-signing"}]`)
	r := proxy.Record{Decision: "denied", Enforcement: "observe", Evidence: evidence}
	want := `seen: bundle-dsse by release, bundle-dsse by "a\u202e" by https://i.example; not proven: no trust root, ` +
		"simple-signing by ci by https://i.example; proven by the trust root, 2026-01-31T15:04:05Z by a timestamp, in a log, " +
		"bundle-message by key 3f2a, which is a hint that anybody can write, and 1 more"
	if got := summary(r); !strings.HasSuffix(got, want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if r.Enforcement = "enforce"; strings.Contains(summary(r), "seen") {
		t.Errorf("got %s", summary(r))
	}
}

func TestPiecesThatAreAlikeAreShownOnce(t *testing.T) {
	a := piece{Written: verifier.Written{Form: "simple-signing", Source: "x.sig", Reason: "untrusted"}}
	b := a
	b.Nearest = true
	want := []string{"x.sig", "└─ rejected (untrusted): simple-signing (3 of them)", "     nearest  to what is missing"}
	if diff := cmp.Diff(want, evidenceTree([]piece{a, b, a})); diff != "" {
		t.Error(diff)
	}
}
