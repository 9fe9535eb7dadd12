package main

import (
	"os"
	"testing"
)

// A file with Rego is part of the configuration: what it says now counts, and while it
// does not hold what it said before.
func TestRegoThatChangesTakesEffectInTime(t *testing.T) {
	files := map[string]string{
		"vidimus.yaml": `
version: 1
upstreams: {docker.io: {}}
authorities: {release: {keys: [release.pub]}}
policies:
  - {match: "docker.io/a/**", require: release, rego: policy.rego}
  - match: docker.io/b/**
    attestations: [{predicateType: slsaprovenance1, require: release, rego: provenance.rego}]
`,
		"policy.rego":     "package vidimus\nallow if input.image.repository\n",
		"provenance.rego": "package vidimus\nallow if input.predicate.a\n",
	}
	for _, name := range []string{"policy.rego", "provenance.rego"} {
		t.Run(name, func(t *testing.T) {
			reload(t, files, func(r *reloading) {
				before := r.Revision()
				writeFile(r.T, name, "package vidimus\ndeny contains \"no\" if input.image.tag == \"x\"\n")
				r.pass(withinPromise)
				r.wantRevisions(1)
				now := r.Revision()
				if now.ID == before.ID {
					r.Error("the revision kept its id")
				}
				for _, repository := range []string{"docker.io/a/x", "docker.io/b/x"} {
					reads := (repository == "docker.io/a/x") == (name == "policy.rego")
					if got := now.Gate.Scope(repository).ReadsTag; got != reads || before.Gate.Scope(repository).ReadsTag {
						r.Errorf("%s: the tag is read: %v", repository, got)
					}
				}
				writeFile(r.T, name, "package vidimus\nallow if {\n")
				r.pass(withinPromise)
				r.wantRevisions(1)
				if r.Status().Successful() {
					r.Error("a module that does not compile took effect")
				}
				os.Remove(name)
				r.pass(withinPromise)
				r.wantRevisions(1)
				r.wantSuspended()
				writeFile(r.T, name, files[name])
				r.pass(withinPromise)
				r.wantRevisions(2)
			})
		})
	}
}
