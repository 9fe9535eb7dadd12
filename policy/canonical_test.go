package policy

import "testing"

func TestCanonical(t *testing.T) {
	for _, test := range []struct{ name, want string }{
		{"docker.io/nginx", "docker.io/library/nginx"},
		{"index.docker.io/nginx", "docker.io/library/nginx"},
		{"registry-1.docker.io/library/nginx", "docker.io/library/nginx"},
		{"docker.io/acme/web", "docker.io/acme/web"},
		{"ghcr.io/nginx", "ghcr.io/nginx"},
		{"localhost:5000/web", "localhost:5000/web"},
		{"local/acme/web", "local/acme/web"},
		{"ghcr.io/a__b/c-d--e.f_g", "ghcr.io/a__b/c-d--e.f_g"},
		{"nginx", ""}, {"", ""}, {"docker.io/", ""}, {"DOCKER.IO/nginx", ""}, {"docker.io./nginx", ""},
		{"ghcr.io/acme/web:v1", ""}, {"ghcr.io/acme//web", ""}, {"ghcr.io/acme/web@sha256:12", ""},
	} {
		if isCanonical(test.name) != accepts(test.name) {
			t.Errorf("isCanonical(%q) and its automaton differ", test.name)
		}
		got, ok := Canonical(test.name)
		if ok != (test.want != "") || ok && got != test.want {
			t.Errorf("Canonical(%q) = %q, %v, want %q", test.name, got, ok, test.want)
		}
	}
}

// accepts runs the automaton over a whole name.
func accepts(name string) bool {
	var c canon
	for i := range len(name) {
		var ok bool
		if c, ok = c.step(name[i]); !ok {
			return false
		}
	}
	return c.complete() && len(name) <= maxName
}

func FuzzCanonicalIsIdempotent(f *testing.F) {
	for _, seed := range []string{"docker.io/nginx", "index.docker.io/a/b", "ghcr.io/acme/web", "registry-1.docker.io/library", "localhost:5000/x"} {
		f.Add(seed)
	}
	everything := Match{include: []pattern{buildPattern("**")}}
	f.Fuzz(func(t *testing.T, name string) {
		if got, want := isCanonical(name), accepts(name); got != want {
			t.Fatalf("isCanonical(%q) = %v, the automaton says %v", name, got, want)
		}
		once, ok := Canonical(name)
		if ok != isCanonical(once) && ok {
			t.Fatalf("Canonical(%q) = %q, which is not canonical", name, once)
		}
		if !ok {
			return
		}
		if twice, ok := Canonical(once); !ok || twice != once {
			t.Fatalf("Canonical(%q) = %q, again: %q, %v", name, once, twice, ok)
		}
		if isCanonical(name) && name != once {
			t.Fatalf("%q is canonical and became %q", name, once)
		}
		if !everything.Matches(once) {
			t.Fatalf("** does not match %q", once)
		}
		if c, ok := parseClaim(name + ":v1"); !ok || c.repository != once || c.tag != "v1" {
			t.Fatalf("the claim %q:v1 became %+v, %v", name, c, ok)
		}
	})
}

func TestParseClaim(t *testing.T) {
	const digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for _, test := range []struct {
		name string
		want claim // zero: names nothing
	}{
		{"ghcr.io/acme/web", claim{repository: "ghcr.io/acme/web"}},
		{"ghcr.io/acme/web:v1", claim{repository: "ghcr.io/acme/web", tag: "v1"}},
		{"ghcr.io/acme/web@" + digest, claim{repository: "ghcr.io/acme/web", digest: digest}},
		{"ghcr.io/acme/web:v1@" + digest, claim{repository: "ghcr.io/acme/web", tag: "v1", digest: digest}},
		{"localhost:5000/web", claim{repository: "localhost:5000/web"}},
		{"localhost:5000/web:V_1.0-x", claim{repository: "localhost:5000/web", tag: "V_1.0-x"}},
		{"index.docker.io/nginx:1", claim{repository: "docker.io/library/nginx", tag: "1"}},
		{"nginx", claim{}}, {"nginx:1", claim{}}, {"", claim{}}, {":", claim{}}, {"@", claim{}}, {"/", claim{}},
		{"ghcr.io/acme/Web", claim{}}, {"GHCR.io/acme/web", claim{}}, {" ghcr.io/acme/web", claim{}}, {"ghcr.io/acme/web ", claim{}},
		{"ghcr.io/acme/web:", claim{}}, {"ghcr.io/acme/web:-v1", claim{}}, {"ghcr.io/acme/web:v1:v2", claim{}}, {"ghcr.io/acme/web:v1/x", claim{}},
		{"ghcr.io/acme/web@", claim{}}, {"ghcr.io/acme/web@sha256:12", claim{}}, {"ghcr.io/acme/web@" + digest + "@" + digest, claim{}},
		{"ghcr.io/acme/web@SHA256" + digest[6:], claim{}}, {"https://ghcr.io/acme/web", claim{}}, {"ghcr.io/acme/web\x00", claim{}},
	} {
		got, ok := parseClaim(test.name)
		if ok != (test.want != claim{}) || ok && got != test.want {
			t.Errorf("parseClaim(%q) = %+v, %v, want %+v", test.name, got, ok, test.want)
		}
	}
}
