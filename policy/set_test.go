package policy

import (
	"fmt"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func TestScope(t *testing.T) {
	w := newWorld(t)
	set, err := New(Config{
		Enforcement: Warn,
		Authorities: w.authorities(),
		Policies: []Policy{
			{Name: "tagged", Match: mustMatch(t, "ghcr.io/acme/tagged/**"), Require: one("ci"), SignedAs: Exact},
			{Match: mustMatch(t, "ghcr.io/acme/**", "!ghcr.io/acme/secret"), Require: one("ci"), Enforcement: new(Observe)},
			{Match: mustMatch(t, "docker.io/library/**"), AllowUnverified: true},
			{Match: mustMatch(t, "quay.io/old/**"), Deny: "moved"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for repository, want := range map[string]Scope{
		"ghcr.io/acme/tagged/x":         {Policy: "tagged", Enforcement: Warn, ReadsTag: true},
		"ghcr.io/acme/web":              {Policy: "ghcr.io/acme/**", Enforcement: Observe},
		"docker.io/library/nginx":       {Policy: "docker.io/library/**", Enforcement: Warn, Unverified: true},
		"ghcr.io/acme/secret":           {Enforcement: Warn, Denied: true},
		"docker.io/nginx":               {Enforcement: Warn, Denied: true}, // not canonical
		"index.docker.io/library/nginx": {Enforcement: Warn, Denied: true},
		"ghcr.io/acme/../web":           {Enforcement: Warn, Denied: true},
		"":                              {Enforcement: Warn, Denied: true},
		"quay.io/old/x":                 {Policy: "quay.io/old/**", Enforcement: Warn, Denied: true},
	} {
		if got := set.Scope(repository); got != want {
			t.Errorf("%s: %+v, want %+v", repository, got, want)
		}
	}
}

// The index finds what asking each policy in turn finds.
func TestFindAgreesWithAskingInTurn(t *testing.T) {
	r := newRand()
	for range 100 {
		var list []Policy
		for i := range 30 {
			if m, ok := randomMatch(r); ok {
				list = append(list, Policy{Name: string(rune('A' + i)), Match: m, AllowUnverified: true})
			}
		}
		set, err := New(Config{Policies: list})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names() {
			want := ""
			for _, p := range list {
				if p.Match.Matches(name) {
					want = p.Name
					break
				}
			}
			if got := set.Scope(name).Policy; got != want {
				t.Fatalf("%s: %q, want %q of %v", name, got, want, list)
			}
		}
	}
}

func TestASetKeepsACopyOfItsConfig(t *testing.T) {
	w := newWorld(t)
	w.sign(web, "release +env=prod")
	config := Config{Authorities: w.authorities(), Policies: []Policy{{
		Match: mustMatch(t, "**"), Require: one("release"), Annotations: map[string]string{"env": "prod"}, Enforcement: new(Enforce),
	}}, Revoked: []v1.Hash{otherImage}}
	e := w.evaluator(config, Options{})
	config.Policies[0].Annotations["env"] = "dev"
	config.Policies[0].Require.Of[0] = "dev"
	*config.Policies[0].Enforcement = Observe
	config.Authorities[0].Keys[0] = w.key("stranger")
	config.Revoked[0] = image
	if d := allow(t, e, w, subject()); d.Enforcement != Enforce {
		t.Errorf("enforcement %v", d.Enforcement)
	}
}

func BenchmarkFindAmong10000Policies(b *testing.B) {
	for _, bench := range []struct{ name, format, repository string }{
		{"by literal prefix", "ghcr.io/acme/team-%04d/**", "ghcr.io/acme/team-9999/web"},
		{"by upstream", "r%04d.example.com/{repo}/*", "r5000.example.com/acme/web"},
	} {
		b.Run(bench.name, func(b *testing.B) {
			config := Config{}
			for i := range 10_000 {
				config.Policies = append(config.Policies, Policy{Match: mustMatch(b, fmt.Sprintf(bench.format, i)), AllowUnverified: true})
			}
			set, err := New(config)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := set.find(bench.repository); !ok {
					b.Fatal("nothing found")
				}
			}
		})
	}
}
