package access

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"vidimus/policy"
)

func match(t testing.TB, patterns ...string) policy.Match {
	t.Helper()
	m, err := policy.ParseMatch(patterns)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func entry(t testing.TB, subjects, patterns string, actions ...Action) Entry {
	t.Helper()
	return Entry{Subjects: strings.Fields(subjects), Match: match(t, strings.Fields(patterns)...), Actions: actions}
}

func control(t testing.TB, p *Passwords, entries ...Entry) *Control {
	t.Helper()
	c, err := New(Config{Passwords: p, Entries: entries})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTheFirstEntryThatFitsDecides(t *testing.T) {
	c := control(t, nil,
		entry(t, "anonymous", "docker.io/library/**", Pull),
		entry(t, "ci bob", "ghcr.io/acme/** !ghcr.io/acme/secret", Pull, Push),
		entry(t, "bob", "ghcr.io/acme/**", Delete),
		entry(t, "cert:node.example", "ghcr.io/**", Pull),
		entry(t, "authenticated", "quay.io/**", Inspect),
	)
	anonymous := Caller{}
	user := func(name string) Caller { return Caller{Kind: User, Name: name} }
	node := Caller{Kind: Certificate, Name: "first.example", names: []string{"first.example", "node.example"}}
	for _, s := range []struct {
		caller     Caller
		repository string
		want       []Action
	}{
		{anonymous, "docker.io/library/alpine", []Action{Pull}},
		{anonymous, "docker.io/library", nil},
		{anonymous, "ghcr.io/acme/web", nil},
		{anonymous, "quay.io/x", nil},
		{user("ci"), "docker.io/library/alpine", nil}, // anonymous is who showed nothing
		{user("ci"), "ghcr.io/acme/web", []Action{Pull, Push}},
		{user("ci"), "ghcr.io/acme/secret", nil},
		{user("bob"), "ghcr.io/acme/web", []Action{Pull, Push}}, // not what a later entry says
		{user("bob"), "ghcr.io/acme/secret", []Action{Delete}},
		{user("carol"), "ghcr.io/acme/web", nil},
		{user("carol"), "quay.io/x", []Action{Inspect}},
		{user("cert:node.example"), "ghcr.io/x", nil},
		{user("node.example"), "ghcr.io/x", nil},
		{user("authenticated"), "ghcr.io/x", nil},
		{node, "ghcr.io/x", []Action{Pull}},
		{node, "quay.io/x", []Action{Inspect}},
		{node, "docker.io/library/alpine", nil},
		{Caller{Kind: Certificate, Name: "ci", names: []string{"ci"}}, "ghcr.io/acme/web", nil}, // no user
		{user("ci"), "GHCR.io/acme/web", nil},                                                   // not canonical
		{user("ci"), "", nil},
	} {
		var got []Action
		for _, action := range Actions() {
			if c.Allows(s.caller, s.repository, action) {
				got = append(got, action)
			}
		}
		if !slices.Equal(got, s.want) {
			t.Errorf("%s in %q: %v, want %v", s.caller, s.repository, got, s.want)
		}
	}
}

func TestWhoMayDoAnythingAtAll(t *testing.T) {
	c := control(t, nil, entry(t, "ci", "ghcr.io/**", Pull), entry(t, "cert:node", "ghcr.io/**", Pull))
	for _, s := range []struct {
		caller Caller
		want   bool
	}{
		{Caller{}, false},
		{Caller{Kind: User, Name: "ci"}, true},
		{Caller{Kind: User, Name: "bob"}, false},
		{Caller{Kind: Certificate, Name: "node", names: []string{"node"}}, true},
		{Caller{Kind: Certificate, Name: "other", names: []string{"other"}}, false},
	} {
		if got := c.AllowsSome(s.caller); got != s.want {
			t.Errorf("%s: %v", s.caller, got)
		}
	}
	if empty := control(t, nil); empty.AllowsSome(Caller{}) || empty.Allows(Caller{}, "ghcr.io/x", Pull) {
		t.Error("an empty list allows")
	}
}

func TestAnEntryIsAboutSomebodyAndSomething(t *testing.T) {
	for _, e := range []Entry{entry(t, "", "**", Pull), entry(t, "anonymous", "**")} {
		if _, err := New(Config{Entries: []Entry{e}}); err == nil {
			t.Errorf("%+v is accepted", e)
		}
	}
}

func TestWhoACallerIs(t *testing.T) {
	c := control(t, passwords(t, "alice"))
	chain := func(leaf x509.Certificate) *tls.ConnectionState {
		return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{&leaf}, VerifiedChains: [][]*x509.Certificate{{&leaf, {Subject: pkix.Name{CommonName: "the CA"}}}}}
	}
	uri, err := url.Parse("spiffe://example/ci")
	if err != nil {
		t.Fatal(err)
	}
	named := x509.Certificate{Subject: pkix.Name{CommonName: "admin"}, DNSNames: []string{"node.example"}, EmailAddresses: []string{"ops@example"}, URIs: []*url.URL{uri}}
	unverified := chain(named)
	unverified.VerifiedChains = nil
	basic := func(user, password string) []string {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.SetBasicAuth(user, password)
		return r.Header["Authorization"]
	}
	good := basic("alice", "alice-secret")
	for name, s := range map[string]struct {
		authorization []string
		tls           *tls.ConnectionState
		want          string // of the caller
		names         string
		err           error
	}{
		"nobody":                        {want: "anonymous"},
		"a user":                        {authorization: good, want: "alice"},
		"a wrong password":              {authorization: basic("alice", "x"), err: ErrCredentials},
		"no user":                       {authorization: basic("", "alice-secret"), err: ErrCredentials},
		"no user and no password":       {authorization: basic("", ""), want: "anonymous"},
		"and a certificate":             {authorization: basic("", ""), tls: chain(named), want: "cert:node.example", names: "node.example ops@example spiffe://example/ci"},
		"who does not exist":            {authorization: basic("bob", "alice-secret"), err: ErrCredentials},
		"a token":                       {authorization: []string{"Bearer eyJhbGciOiJub25lIn0.e30."}, err: ErrCredentials},
		"an empty header":               {authorization: []string{""}, err: ErrCredentials},
		"no base64":                     {authorization: []string{"Basic !"}, err: ErrCredentials},
		"two headers":                   {authorization: append(slices.Clone(good), good...), err: ErrCredentials},
		"a certificate":                 {tls: chain(named), want: "cert:node.example", names: "node.example ops@example spiffe://example/ci"},
		"with a common name alone":      {tls: chain(x509.Certificate{Subject: pkix.Name{CommonName: "node"}}), want: "cert:node", names: "node"},
		"without a name":                {tls: chain(x509.Certificate{}), want: "anonymous"},
		"that nobody verified":          {tls: unverified, want: "anonymous"},
		"TLS alone":                     {tls: &tls.ConnectionState{}, want: "anonymous"},
		"a user with a certificate":     {authorization: good, tls: chain(named), want: "alice"},
		"a wrong one and a certificate": {authorization: basic("alice", "x"), tls: chain(named), err: ErrCredentials},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/v2/", nil)
			if s.authorization != nil {
				r.Header["Authorization"] = s.authorization
			}
			r.TLS = s.tls
			caller, err := c.Identify(r)
			if !errors.Is(err, s.err) || s.err == nil && (err != nil || caller.String() != s.want || strings.Join(caller.names, " ") != s.names) {
				t.Errorf("%v %v, %v", caller, caller.names, err)
			}
		})
	}
}

func TestWithoutAnHtpasswdFileNoPasswordHolds(t *testing.T) {
	c := control(t, nil, entry(t, "anonymous", "**", Pull))
	r := httptest.NewRequest(http.MethodGet, "/v2/", nil)
	r.SetBasicAuth("alice", "x")
	if _, err := c.Identify(r); !errors.Is(err, ErrCredentials) {
		t.Error(err)
	}
}

func TestEntriesThatNeverDecide(t *testing.T) {
	for name, c := range map[string]struct {
		entries []Entry
		want    []string // index and subject
	}{
		"none": {[]Entry{
			entry(t, "anonymous", "**", Pull), entry(t, "ci", "ghcr.io/acme/**", Push), entry(t, "authenticated", "**", Pull),
		}, nil},
		"the same again":          {[]Entry{entry(t, "ci", "ghcr.io/**", Pull), entry(t, "ci", "ghcr.io/acme/**", Push)}, []string{"1 ci"}},
		"after all who are known": {[]Entry{entry(t, "authenticated", "**", Pull), entry(t, "ci cert:node anonymous", "ghcr.io/acme/**", Push)}, []string{"1 ci", "1 cert:node"}},
		"a wider one":             {[]Entry{entry(t, "ci", "ghcr.io/acme/**", Pull), entry(t, "ci", "ghcr.io/**", Push)}, nil},
		"one of two":              {[]Entry{entry(t, "ci", "**", Pull), entry(t, "ci bob", "ghcr.io/**", Push)}, []string{"1 ci"}},
		"a subject twice":         {[]Entry{entry(t, "ci ci", "**", Pull)}, []string{"0 ci"}},
		"nobody before known":     {[]Entry{entry(t, "anonymous", "**", Pull), entry(t, "authenticated", "**", Pull)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, f := range Lint(c.entries) {
				got = append(got, string(rune('0'+f.Index))+" "+f.Subject)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
