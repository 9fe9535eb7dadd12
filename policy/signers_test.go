package policy

import (
	"slices"
	"strings"
	"testing"
	"time"

	"vidimus/verifier"
)

var noon = time.Date(2026, 6, 15, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return noon.Add(-d) }

const oneDay = 24 * time.Hour

func TestTheAgeOfASignatureDecides(t *testing.T) {
	n := newProving(t)
	for _, tt := range []struct {
		name           string
		maxAge, minAge time.Duration
		from, until    time.Time // when the key of release counts
		signed         []time.Time
		reason, text   string
		command        string // of the hint
		expires        time.Time
	}{
		{name: "young enough", maxAge: 30 * oneDay, signed: []time.Time{ago(29 * oneDay)}, expires: noon.Add(oneDay)},
		{name: "just too old", maxAge: 30 * oneDay, signed: []time.Time{ago(30 * oneDay)}, reason: "expired",
			text: "signed by release, but on 2026-05-16, longer ago than 30d", command: "cosign sign --yes --key cosign.key ghcr.io"},
		{name: "a second younger", maxAge: 30 * oneDay, signed: []time.Time{ago(30*oneDay - time.Second)}, expires: noon.Add(time.Second)},
		{name: "no proven time", maxAge: 30 * oneDay, signed: []time.Time{{}}, reason: "expired", text: "without a proven time, which the policy asks for: it has neither",
			command: "vidimus sign --key cosign.key --tlog-upload ghcr.io"},
		{name: "an old one and a young one", maxAge: 30 * oneDay, signed: []time.Time{ago(90 * oneDay), {}, ago(oneDay)}, expires: noon.Add(29 * oneDay)},
		{name: "two young ones: the younger lasts", maxAge: 30 * oneDay, signed: []time.Time{ago(10 * oneDay), ago(oneDay)}, expires: noon.Add(20 * oneDay)},
		{name: "old enough", minAge: 7 * oneDay, signed: []time.Time{ago(7 * oneDay)}},
		{name: "too young", minAge: 7 * oneDay, signed: []time.Time{ago(6 * oneDay)}, reason: "expired",
			text: "on 2026-06-09T12:00:00Z, less than 7d ago: it counts from 2026-06-16T12:00:00Z on"},
		{name: "of no known age", minAge: time.Hour, signed: []time.Time{{}}, reason: "expired", text: "without a proven time"},
		{name: "between both", maxAge: 30 * oneDay, minAge: 7 * oneDay, signed: []time.Time{ago(8 * oneDay)}, expires: noon.Add(22 * oneDay)},
		{name: "within the key's window", from: ago(20 * oneDay), until: ago(oneDay), signed: []time.Time{ago(5 * oneDay)}},
		{name: "when the window begins", from: ago(5 * oneDay), signed: []time.Time{ago(5 * oneDay)}},
		{name: "before the window", from: ago(5 * oneDay), signed: []time.Time{ago(6 * oneDay)}, reason: "expired", text: "on 2026-06-09, with a key that counts from 2026-06-10 on"},
		{name: "when the window ends", until: ago(5 * oneDay), signed: []time.Time{ago(5 * oneDay)}, reason: "expired", text: "with a key that counts until 2026-06-10"},
		{name: "no time, and the window has ended", until: ago(oneDay), signed: []time.Time{{}}, reason: "expired", text: "with a key that counts until 2026-06-14, and at no proven time"},
		{name: "no time, and the window is open", from: ago(oneDay), until: noon.Add(oneDay), signed: []time.Time{{}}, expires: noon.Add(oneDay)},
		{name: "a time in an open window does not end", from: ago(oneDay), until: noon.Add(oneDay), signed: []time.Time{ago(time.Hour)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			authorities := w.authorities()
			for i := range authorities {
				authorities[i].Root = n.trust()
			}
			if !tt.from.IsZero() || !tt.until.IsZero() {
				authorities[0].Windows = map[string]verifier.Window{w.key("release").ID(): {From: tt.from, Until: tt.until}}
			}
			var layers []any
			for _, at := range tt.signed {
				layers = append(layers, n.byKey(w, "release", at))
			}
			w.attach(web, layers)
			e := w.evaluator(Config{Authorities: authorities, Policies: []Policy{{Match: mustMatch(t, "**"), Require: one("release"), MaxAge: tt.maxAge, MinAge: tt.minAge}}},
				Options{Now: func() time.Time { return noon }})
			if tt.reason != "" {
				if d := deny(t, e, w, subject(), tt.reason); !strings.Contains(d.Explained, tt.text) || !strings.Contains(d.Hint, tt.command) {
					t.Errorf("explained: %s\nhint: %s", d.Explained, d.Hint)
				}
				return
			}
			if d := allow(t, e, w, subject()); !d.Expires.Equal(tt.expires) {
				t.Errorf("expires %v, want %v", d.Expires, tt.expires)
			}
		})
	}
}

// Everybody who is needed must be of the age that is asked for, and the first to expire
// ends it.
func TestEachSignatureThatIsNeededHasAnAge(t *testing.T) {
	n := newProving(t)
	w := newWorld(t)
	authorities := w.authorities()
	for i := range authorities {
		authorities[i].Root = n.trust()
	}
	e := w.evaluator(Config{Authorities: authorities, Policies: []Policy{{Match: mustMatch(t, "**"), Require: some(2, "release", "ci", "vendor"), MaxAge: 30 * oneDay}}},
		Options{Now: func() time.Time { return noon }})
	w.attach(web, []any{n.byKey(w, "release", ago(oneDay)), n.byKey(w, "ci", ago(40*oneDay))})
	if d := deny(t, e, w, subject(), ReasonThreshold); !strings.Contains(d.Explained, "longer ago than 30d") {
		t.Errorf("explained: %s", d.Explained)
	}
	w.attach(web, []any{n.byKey(w, "release", ago(oneDay)), n.byKey(w, "ci", ago(10*oneDay))})
	if d := allow(t, e, w, subject()); !d.Expires.Equal(noon.Add(20 * oneDay)) {
		t.Errorf("expires %v", d.Expires)
	}
}

func TestOneLineBindsEveryRepositoryToItsOwnWorkflow(t *testing.T) {
	n := newProving(t)
	w := newWorld(t)
	const workflow = "https://github.com/acme/%/.github/workflows/release.yml@refs/tags/v1"
	of := func(repo string) string { return strings.Replace(workflow, "%", repo, 1) }
	ci := n.named("ci", strings.Replace(of("{repo}"), "v1", "v*", 1))
	e := w.evaluator(Config{Authorities: []verifier.Authority{ci}, Policies: []Policy{{Match: mustMatch(t, "ghcr.io/acme/{repo}"), Require: one("ci")}}},
		Options{Now: func() time.Time { return noon }})
	about := func(repository string) Subject { return Subject{Repository: repository, Tag: "v1", Digest: image} }
	for _, repo := range []string{"web", "api"} {
		w.attach("ghcr.io/acme/"+repo, []any{n.byName(w, "ghcr.io/acme/"+repo, of("web"), noon)})
	}
	d := allow(t, e, w, about("ghcr.io/acme/web"))
	if got := d.Evidence[0].Signer(); got != testIssuer+" "+of("web") {
		t.Errorf("signer %s", got)
	}
	d = deny(t, e, w, about("ghcr.io/acme/api"), ReasonUntrusted)
	if !strings.Contains(d.Explained, "signed, but not by ci; nearest: its certificate names") || !strings.Contains(d.Hint, "have it signed by ci (https://github.com/acme/{repo}/") {
		t.Errorf("explained: %s; %s", d.Explained, d.Hint)
	}
}

// Who is in two authorities has signed once, and which authority that is for does not
// matter.
func TestOneSignerCountsForOneAuthority(t *testing.T) {
	n := newProving(t)
	w := newWorld(t)
	authorities := []verifier.Authority{n.named("a", "https://a.example/*"), n.named("b", "https://a.example/x*")}
	e := w.evaluator(Config{Authorities: authorities, Policies: []Policy{{Match: mustMatch(t, "**"), Require: allOf("a", "b")}}},
		Options{Now: func() time.Time { return noon }})
	w.attach(web, []any{n.byName(w, web, "https://a.example/xy", noon)})
	deny(t, e, w, subject(), ReasonThreshold)
	w.attach(web, []any{n.byName(w, web, "https://a.example/xy", noon), n.byName(w, web, "https://a.example/xy", noon)})
	deny(t, e, w, subject(), ReasonThreshold)
	for _, second := range []string{"https://a.example/xz", "https://a.example/z"} {
		w.attach(web, []any{n.byName(w, web, "https://a.example/xy", noon), n.byName(w, web, second, noon)})
		if d := allow(t, e, w, subject()); !slices.Equal(d.Satisfied, []string{"a", "b"}) {
			t.Errorf("satisfied %v", d.Satisfied)
		}
	}
}

func TestSignersAreAssignedToAsManyAuthoritiesAsCanBe(t *testing.T) {
	for _, tt := range []struct {
		name string
		ways string // signer>authority
		want string
	}{
		{"nobody", "", ""},
		{"one for two", "x>a x>b", "a"},
		{"two for two", "x>a y>b", "a b"},
		{"the first has to give way", "x>a x>b y>a", "a b"},
		{"a chain of three", "x>a x>b y>b y>c z>c", "a b c"},
		{"two for three", "x>a x>b x>c y>a y>b y>c", "a b"},
		{"one thrice", "x>a x>a x>a", "a"},
	} {
		var ways []counting
		for _, w := range strings.Fields(tt.ways) {
			signer, authority, _ := strings.Cut(w, ">")
			ways = append(ways, counting{signer: signer, authority: authority})
		}
		if got := strings.Join(assign(ways), " "); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
		slices.Reverse(ways)
		if got := len(assign(ways)); got != len(strings.Fields(tt.want)) {
			t.Errorf("%s, from behind: %d", tt.name, got)
		}
	}
}

func TestAnAuthorityThatCannotVouchIsRefused(t *testing.T) {
	n := newProving(t)
	w := newWorld(t)
	key := w.key("release")
	with := func(a verifier.Authority, change func(*verifier.Authority)) verifier.Authority {
		change(&a)
		return a
	}
	good := n.named("ci", "https://a.example/x")
	free, err := verifier.ParseIdentity("", "x", "")
	if err != nil {
		t.Fatal(err)
	}
	captures := n.named("ci", "https://a.example/{repo}")
	match := func(patterns ...string) Policy { return Policy{Match: mustMatch(t, patterns...), Require: one("ci")} }
	for _, tt := range []struct {
		name, want  string
		authorities []verifier.Authority
		policy      Policy
	}{
		{"identities", "", []verifier.Authority{good}, match("**")},
		{"no trust root", "no trust root", []verifier.Authority{with(good, func(a *verifier.Authority) { a.Root = nil })}, match("**")},
		{"keys and identities", "two authorities", []verifier.Authority{with(good, func(a *verifier.Authority) { a.Keys = []verifier.Key{key} })}, match("**")},
		{"no issuer", "has no issuer", []verifier.Authority{with(good, func(a *verifier.Authority) { a.Identities = []verifier.Identity{free} })}, match("**")},
		{"no issuer in a private PKI", "", []verifier.Authority{with(good, func(a *verifier.Authority) { a.Identities, a.PrivatePKI = []verifier.Identity{free}, true })}, match("**")},
		{"a window that is none", "which is never", []verifier.Authority{{Name: "ci", Keys: []verifier.Key{key},
			Windows: map[string]verifier.Window{key.ID(): {From: noon, Until: noon}}}}, match("**")},
		{"a capture", "", []verifier.Authority{captures}, match("ghcr.io/acme/{repo}")},
		{"a capture of nothing", "does not capture it everywhere", []verifier.Authority{captures}, match("ghcr.io/acme/*")},
		{"a capture of nothing here and there", "does not capture it everywhere", []verifier.Authority{captures}, match("ghcr.io/acme/{repo}", "ghcr.io/other/x")},
		{"a capture of nothing, for an attestation", "attestations[0] require names ci, which has {repo}", []verifier.Authority{captures},
			Policy{Match: mustMatch(t, "ghcr.io/acme/*"), Attestations: []Attestation{{PredicateType: slsa, Require: one("ci")}}}},
		{"the same identity twice, for an attestation", "attestations[0] require counts distinct signers", []verifier.Authority{good, n.named("b", "https://a.example/x")},
			Policy{Match: mustMatch(t, "**"), Attestations: []Attestation{{PredicateType: slsa, Require: allOf("ci", "b")}}}},
		{"the same identity twice", "may be both ci and b", []verifier.Authority{good, n.named("b", "https://a.example/x")}, Policy{Match: mustMatch(t, "**"), Require: allOf("ci", "b")}},
		{"an identity that fits another's", "may be both", []verifier.Authority{good, n.named("b", "https://a.example/*")}, Policy{Match: mustMatch(t, "**"), Require: allOf("ci", "b")}},
		{"two that differ", "", []verifier.Authority{good, n.named("b", "https://a.example/y")}, Policy{Match: mustMatch(t, "**"), Require: allOf("ci", "b")}},
		{"an age that nothing proves", "nothing can prove when ci has signed", []verifier.Authority{{Name: "ci", Keys: []verifier.Key{key}}}, Policy{Match: mustMatch(t, "**"), Require: one("ci"), MaxAge: time.Hour}},
		{"ages that exclude each other", "nothing could meet both", []verifier.Authority{good}, Policy{Match: mustMatch(t, "**"), Require: one("ci"), MaxAge: time.Hour, MinAge: time.Hour}},
		{"an age without require", "only a policy with require", []verifier.Authority{good}, Policy{Match: mustMatch(t, "**"), AllowUnverified: true, MaxAge: time.Hour}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New(Config{Authorities: tt.authorities, Policies: []Policy{tt.policy}})
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// A certificate that could be a suspended authority's leaves it open.
func TestASuspendedTrustRootLeavesItOpen(t *testing.T) {
	n := newProving(t)
	w := newWorld(t)
	w.attach(web, []any{n.byName(w, web, "https://a.example/x", noon)})
	ci := n.named("ci", "https://a.example/x")
	ci.Suspended, ci.Root = "trusted_root.json does not exist", nil
	e := w.evaluator(Config{Authorities: []verifier.Authority{ci}, Policies: []Policy{{Match: mustMatch(t, "**"), Require: one("ci")}}},
		Options{Now: func() time.Time { return noon }})
	if d, _ := cannotTell(t, e, w, subject()); !strings.Contains(d.Explained, "trusted_root.json does not exist") || d.Hint != "put the trust root of ci back" {
		t.Errorf("explained: %s", d.Explained)
	}
}

// Where no time is proven, what a certificate of a private PKI allows ends with it.
func TestADecisionEndsWithAPrivateCertificate(t *testing.T) {
	n := newProving(t)
	w := newWorld(t)
	w.attach(web, []any{n.byName(w, web, "https://a.example/x", noon)})
	acme := n.named("acme", "https://a.example/x")
	acme.PrivatePKI = true
	var err error
	if acme.Root, err = verifier.ParseCAs(n.CAs()); err != nil {
		t.Fatal(err)
	}
	now := noon
	e := w.evaluator(Config{Authorities: []verifier.Authority{acme}, Policies: []Policy{{Match: mustMatch(t, "**"), Require: one("acme")}}},
		Options{Now: func() time.Time { return now }})
	if d := allow(t, e, w, subject()); !d.Expires.Equal(noon.Add(9 * time.Minute)) {
		t.Errorf("expires %v", d.Expires)
	}
	now = noon.Add(9*time.Minute + time.Second)
	if d := deny(t, e, w, subject(), ReasonUntrusted); !strings.Contains(d.Explained, "does not hold: now, for no time is proven") {
		t.Errorf("explained: %s", d.Explained)
	}
}

func TestDurationsAreWrittenAsTheConfigurationHasThem(t *testing.T) {
	for d, want := range map[time.Duration]string{
		30 * oneDay: "30d", time.Hour: "1h", 90 * time.Minute: "1h30m", 30 * time.Second: "30s", 36 * time.Hour: "36h", time.Minute: "1m", 0: "0s",
	} {
		if got := span(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}
