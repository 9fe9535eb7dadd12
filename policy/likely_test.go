package policy

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTheNamesThatSignersAreLikelyToClaim(t *testing.T) {
	at := "@" + image.String()
	for _, test := range []struct {
		name    string
		policy  Policy
		subject Subject
		want    []string
	}{
		{"a repository", Policy{}, Subject{Repository: web, Digest: image}, []string{web, web + at}},
		{"a tag", Policy{}, subject(), []string{web, web + ":v1", web + at}},
		{"aliases", Policy{}, Subject{Repository: "local/web", Tag: "v1", Digest: image, Aliases: []string{"127.0.0.1:5002/web", "proxy.example/local/web"}},
			[]string{"local/web", "127.0.0.1:5002/web", "proxy.example/local/web", "local/web:v1", "local/web" + at,
				"127.0.0.1:5002/web:v1", "127.0.0.1:5002/web" + at, "proxy.example/local/web:v1", "proxy.example/local/web" + at}},
		{"Docker Hub, as go-containerregistry has it", Policy{}, Subject{Repository: "docker.io/library/nginx", Digest: image, Aliases: []string{"registry-1.docker.io/library/nginx"}},
			[]string{"docker.io/library/nginx", "index.docker.io/library/nginx", "registry-1.docker.io/library/nginx",
				"docker.io/library/nginx" + at, "index.docker.io/library/nginx" + at, "registry-1.docker.io/library/nginx" + at}},
		{"copies, which are signed as their originals", Policy{SignedAs: Remapped, Remap: Remap{"ghcr.io/acme", "docker.io/acme"}, originals: []string{"hub.example:5000"}}, Subject{Repository: web, Digest: image},
			[]string{"docker.io/acme/web", "index.docker.io/acme/web", "registry-1.docker.io/acme/web", "hub.example:5000/acme/web",
				"docker.io/acme/web" + at, "index.docker.io/acme/web" + at, "registry-1.docker.io/acme/web" + at, "hub.example:5000/acme/web" + at}},
		{"what is beside the copies", Policy{SignedAs: Remapped, Remap: Remap{"quay.io/acme", "docker.io/acme"}}, Subject{Repository: web, Digest: image}, []string{web, web + at}},
	} {
		t.Run(test.name, func(t *testing.T) {
			about := about(&test.policy, test.subject)
			if diff := cmp.Diff(test.want, about.Names); diff != "" {
				t.Errorf("names (-want +got):\n%s", diff)
			}
			if about.Repository != test.subject.Repository || about.Digest != test.subject.Digest {
				t.Errorf("about %+v", about)
			}
			for _, name := range about.Names {
				if !nameHolds(&test.policy, test.subject, name) {
					t.Errorf("%s would not hold", name)
				}
			}
		})
	}
}

// What is signed as signers sign it is decided without reading a payload, under
// each policy about names; what is predicted is no nearer to being accepted.
func TestAPredictedPayloadIsJudgedAsAFetchedOne(t *testing.T) {
	remap := Policy{SignedAs: Remapped, Remap: Remap{"ghcr.io/acme", "docker.io/acme"}}
	for _, test := range []struct {
		policy    Policy
		signature string
		fetched   bool
		reason    string
	}{
		{Policy{}, "release", false, ""},
		{Policy{}, "release @", false, ""},
		{Policy{SignedAs: Repository}, "release", false, ""},
		{Policy{SignedAs: Repository}, "release @", false, ReasonIdentityMismatch},
		{Policy{SignedAs: Exact}, "release @ghcr.io/acme/web:v1", false, ""},
		{Policy{SignedAs: Exact}, "release @ghcr.io/acme/web@" + image.String(), false, ""},
		{Policy{SignedAs: Exact}, "release", false, ReasonIdentityMismatch},
		{Policy{SignedAs: Exact}, "release @ghcr.io/acme/web:v2", true, ReasonIdentityMismatch},
		{remap, "release @index.docker.io/acme/web", false, ""},
		{remap, "release", true, ReasonIdentityMismatch},
		{Policy{}, "release @ghcr.io/other/web", true, ReasonIdentityMismatch},
		{Policy{}, "stranger", false, ReasonUntrusted},
		{Policy{}, "release ~", false, ReasonUntrusted},
		{Policy{}, "release +env=prod", true, ""},
		{Policy{Annotations: map[string]string{"env": "prod"}}, "release", false, ReasonAnnotationMismatch},
		{Policy{}, "release #other", true, ReasonDigestMismatch},
	} {
		w := newWorld(t)
		w.sign(web, test.signature)
		p := test.policy
		p.Match, p.Require = mustMatch(t, "**"), one("release")
		e := w.evaluator(Config{Policies: []Policy{p}}, Options{})
		if test.reason == "" {
			allow(t, e, w, subject())
		} else {
			deny(t, e, w, subject(), test.reason)
		}
		w.failWith(func(reference string) error {
			if strings.Contains(reference, "@sha256:") {
				return errors.New("503")
			}
			return nil
		})
		switch {
		case test.fetched:
			cannotTell(t, e, w, subject())
		case test.reason == "":
			allow(t, e, w, subject())
		default:
			deny(t, e, w, subject(), test.reason)
		}
	}
}
