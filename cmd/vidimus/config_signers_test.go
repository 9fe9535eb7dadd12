package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"vidimus/verifier"
)

const keylessConfig = `
version: 1
upstreams: {ghcr.io: {}}
trustedRoot: root.json
authorities:
  ci: {github: {repository: "acme/{repo}", workflow: release.yml, ref: "refs/tags/v*"}}
  open: {github: [{repository: acme/web}, {repository: acme/api, workflow: "*", ref: "refs/**"}]}
  lab: {gitlab: {repository: acme/web, ref: refs/heads/main}}
  mine: {gitlab: {repository: acme/sub/web, workflow: ci/x.yml, url: "https://gitlab.example/"}, transparencyLog: false}
  vendor: {keyless: {issuer: "https://accounts.google.com", subject: "*@vendor.example"}, trustedRoot: sigstore}
  acme: {keyless: {subject: dev@acme.example}, privatePKI: true, trustedRoot: tls.crt}
  old: {keys: [other.pub, {key: release.pub, until: 2025-06-01}]}
  release: {keys: [release.pub]}
policies:
  - {match: "ghcr.io/acme/{repo}", require: ci, maxAge: 30d, minAge: 1h}
  - {match: "ghcr.io/b/**", require: release}
`

// keylessFiles are what keylessConfig names.
func keylessFiles(t *testing.T) map[string]string {
	files := map[string]string{"vidimus.yaml": keylessConfig, "root.json": string(verifier.PublicRoot())}
	files["tls.crt"], _ = selfSigned(t)
	return files
}

func TestIdentitiesAreWhatTheirFormsMean(t *testing.T) {
	inDirectory(t, keylessFiles(t))
	l := mustLoad(t, keylessConfig, nil)
	const github, gitlab = "https://token.actions.githubusercontent.com ", "https://gitlab.com "
	for i, want := range []struct {
		identities        string
		private, unlogged bool
	}{
		{github + "https://github.com/acme/{repo}/.github/workflows/release.yml@refs/tags/v*", false, false},
		{github + "https://github.com/acme/web/.github/workflows/*@** or " + github + "https://github.com/acme/api/.github/workflows/*@refs/**", false, false},
		{gitlab + "https://gitlab.com/acme/web//.gitlab-ci.yml@refs/heads/main", false, false},
		{"https://gitlab.example https://gitlab.example/acme/sub/web//ci/x.yml@**", false, true},
		{"https://accounts.google.com *@vendor.example", false, false},
		{"dev@acme.example", true, false},
		{"2 keys", false, false},
		{"1 key", false, false},
	} {
		a := l.Policy.Authorities[i]
		if got := vouches(a); got != want.identities || a.PrivatePKI != want.private || a.Unlogged != want.unlogged || a.Root == nil || a.Suspended != "" {
			t.Errorf("%s: %s; private %v, unlogged %v, root %v, suspended %q", a.Name, got, a.PrivatePKI, a.Unlogged, a.Root, a.Suspended)
		}
	}
	if root := l.Policy.Authorities[5].Root; root.HasTimes() || !root.HasAuthorities() {
		t.Errorf("the root of a private PKI: %s", root)
	}
	window := l.Policy.Authorities[6].Windows[l.Policy.Authorities[7].Keys[0].ID()]
	if !window.From.IsZero() || !window.Until.Equal(time.Date(2025, 6, 1, 0, 0, 0, 0, time.UTC)) || len(l.Policy.Authorities[6].Windows) != 1 {
		t.Errorf("windows %v", l.Policy.Authorities[6].Windows)
	}
	if p := l.Policy.Policies[0]; p.MaxAge != 30*24*time.Hour || p.MinAge != time.Hour {
		t.Errorf("ages %v and %v", p.MaxAge, p.MinAge)
	}
}

func TestConfigCheckWarnsOfAnIdentityThatIsAnyWorkflow(t *testing.T) {
	inDirectory(t, keylessFiles(t))
	l := mustLoad(t, keylessConfig, nil)
	if len(l.Warnings) != 1 || l.Warnings[0].Path != "authorities.open.github[0]" {
		t.Errorf("warnings %v", l.Warnings)
	}
	var b bytes.Buffer
	if err := l.summarize(&b, "vidimus.yaml", clock); err != nil {
		t.Fatal(err)
	}
	if text := b.String(); !strings.Contains(text, "warning") || !strings.Contains(text, "takes every workflow on every ref") || !strings.Contains(text, "maxAge 720h0m0s") {
		t.Errorf("summary:\n%s", text)
	}
}

func TestWhatIsAnyWorkflow(t *testing.T) {
	for subject, want := range map[string]bool{
		"https://github.com/acme/web/.github/workflows/**@**":                  true,
		"https://github.com/acme/web/.github/workflows/*@*":                    true,
		"https://github.com/acme/**":                                           true,
		"https://gitlab.com/acme/web//*@**":                                    true,
		"https://github.com/acme/web/.github/workflows/release.yml@**":         false,
		"https://github.com/acme/web/.github/workflows/**@refs/tags/v*":        false,
		"https://github.com/acme/*/.github/workflows/release.yml@refs/tags/v1": false,
		"*@acme.example": false, "dev@acme.example": false, "spiffe://acme/**": false,
	} {
		if got := (identityConfig{Subject: subject}).open(); got != want {
			t.Errorf("%s: %v", subject, got)
		}
	}
}

// Who may push a branch may call it x@refs/heads/main. A workflow that is any file is not
// therefore one on any ref.
func TestARefIsNotCrossedByTheFileOfAWorkflow(t *testing.T) {
	inDirectory(t, keylessFiles(t))
	writeFile(t, "vidimus.yaml", strings.Replace(keylessConfig, "release.yml, ref", `"**", ref`, 1))
	if _, err := load(fromFile("vidimus.yaml"), lookupIn(nil), clock); err == nil || !strings.Contains(err.Error(), `authorities.ci.github.workflow: "**" crosses the @`) {
		t.Errorf("two stars for a workflow: %v", err)
	}
	for subject, want := range map[string]bool{
		"https://github.com/acme/web/.github/workflows/**@refs/heads/main":         true,
		"https://github.com/acme/**@refs/heads/main":                               true,
		"https://github.com/acme/**/workflows/release.yml@refs/heads/main":         true,
		"https://github.com/acme/**/.github/workflows/release.yml@refs/heads/main": false,
		"https://gitlab.com/acme/**//.gitlab-ci.yml@refs/heads/main":               false,
		"https://github.com/acme/web/.github/workflows/*@refs/heads/**":            false,
		"**@acme.example": false, "https://acme.example/**": false,
	} {
		if got := (identityConfig{Subject: subject}).crosses(); got != want {
			t.Errorf("%s: %v", subject, got)
		}
	}
	l := mustLoad(t, strings.Replace(keylessConfig, `"*@vendor.example"`, `"https://github.com/acme/web/**@refs/heads/main"`, 1), nil)
	if len(l.Warnings) != 2 || !strings.Contains(l.Warnings[1].What, "two stars that cross the @") {
		t.Errorf("warnings %v", l.Warnings)
	}
}

func TestATrustRootThatIsGoneSuspendsWhoDependsOnIt(t *testing.T) {
	reload(t, keylessFiles(t), func(r *reloading) {
		before := r.Revision().ID
		os.Remove("root.json")
		r.pass(lookEvery)
		dependent := []string{"ci", "lab", "mine", "old", "open"} // not release, which needs none, nor who has its own
		r.wantSuspended(dependent...)
		r.pass(time.Minute)
		r.wantSuspended(dependent...)
		if r.Revision().ID == before {
			r.Error("the revision keeps its id")
		}
		writeFile(r.T, "root.json", "{}")
		r.pass(withinPromise)
		r.wantSuspended(dependent...)
		writeFile(r.T, "root.json", string(verifier.PublicRoot()))
		r.pass(withinPromise)
		r.wantSuspended()
		if r.Revision().ID != before {
			r.Error("the files are as they were, and the revision is another")
		}
		changed := strings.Replace(string(verifier.PublicRoot()), "https://ctfe.sigstore.dev/test", "https://ctfe.sigstore.dev/other", 1)
		writeFile(r.T, "root.json", changed)
		r.pass(withinPromise)
		r.wantSuspended()
		if r.Revision().ID == before {
			r.Error("another trust root is no new revision")
		}
		writeFile(r.T, "root.json", string(verifier.PublicRoot()))
		writeFile(r.T, "vidimus.yaml", keylessConfig+"\nx: y\n")
		r.pass(withinPromise)
		r.wantSuspended(dependent...) // the one that runs is withdrawn, and what the new one may do is open
	})
}
