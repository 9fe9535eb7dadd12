package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"vidimus/e2e/lying"
	"vidimus/e2e/real"
)

// matrix is everything that evidence is made with, once for all forms.
type matrix struct {
	registry      string
	two, three    *real.Cosign
	sigstore      *real.Sigstore
	old           rekorOne
	key, stranger keyPair
	predicate     string
}

const (
	dev = "dev@acme.example"
	ops = "ops@acme.example"
)

// forms are the ways in which an image can be signed or attested.
var forms = []struct {
	name string
	make func(m *matrix, t *testing.T, image string)
}{
	{"unsigned", func(*matrix, *testing.T, string) {}},
	{"v2-tag-key", func(m *matrix, t *testing.T, image string) { must(t, m.two.Sign(t, m.key.private, image)) }},
	{"v2-tag-stranger", func(m *matrix, t *testing.T, image string) { must(t, m.two.Sign(t, m.stranger.private, image)) }},
	{"v2-tag-key-logged", func(m *matrix, t *testing.T, image string) {
		must(t, m.two.Run(t, "", "sign", "--key", m.key.private, "--rekor-url", m.old.URL, "--yes", image))
	}},
	{"v2-tag-keyless", func(m *matrix, t *testing.T, image string) { m.signTwo(t, dev, image) }},
	{"v2-tag-keyless-ops", func(m *matrix, t *testing.T, image string) { m.signTwo(t, ops, image) }},
	{"v2-oci11-key", func(m *matrix, t *testing.T, image string) { must(t, m.two.SignReferrer(t, m.key.private, image)) }},
	{"v2-bundle-keyless", func(m *matrix, t *testing.T, image string) {
		must(t, m.two.Run(t, "", "sign", "--new-bundle-format", "--signing-config", m.old.SigningConfig, "--trusted-root", m.old.TrustedRoot,
			"--identity-token", m.token(t, dev), "--yes", image))
	}},
	{"v3-bundle-key", func(m *matrix, t *testing.T, image string) { must(t, m.three.SignBundle(t, m.key.private, image)) }},
	{"v3-bundle-key-logged", func(m *matrix, t *testing.T, image string) {
		must(t, m.three.Run(t, "", "sign", "--key", m.key.private, "--signing-config", m.sigstore.SigningConfig, "--trusted-root", m.old.TrustedRoot, "--yes", image))
	}},
	{"v3-bundle-keyless", func(m *matrix, t *testing.T, image string) {
		must(t, m.sigstore.Keyless(t, m.three, m.token(t, dev), image))
	}},
	{"v3-bundle-rekor1", func(m *matrix, t *testing.T, image string) {
		must(t, m.three.Run(t, "", "sign", "--identity-token", m.token(t, dev), "--signing-config", m.old.SigningConfig, "--trusted-root", m.old.TrustedRoot, "--yes", image))
	}},
	{"v3-bundle-workflow", func(m *matrix, t *testing.T, image string) { m.workflow(t, "acme/v3-bundle-workflow", image) }},
	{"v3-bundle-elsewhere", func(m *matrix, t *testing.T, image string) { m.workflow(t, "acme/other", image) }},
	{"v3-tag-key", func(m *matrix, t *testing.T, image string) { must(t, m.three.Sign(t, m.key.private, image)) }},
	{"v3-tag-keyless", func(m *matrix, t *testing.T, image string) {
		must(t, m.three.Run(t, "", "sign", "--new-bundle-format=false", "--use-signing-config=false", "--fulcio-url", m.sigstore.Fulcio,
			"--rekor-url", m.old.URL, "--insecure-skip-verify", "--identity-token", m.token(t, dev), "--yes", image))
	}},
	{"v2-att-key", func(m *matrix, t *testing.T, image string) {
		must(t, m.two.AttestTag(t, m.key.private, image, "slsaprovenance1", m.predicate))
	}},
	{"v2-att-keyless", func(m *matrix, t *testing.T, image string) { m.attestTwo(t, image) }},
	{"v2-att-intoto", func(m *matrix, t *testing.T, image string) { m.attestTwo(t, image, "--rekor-entry-type", "intoto") }},
	{"v3-att-key", func(m *matrix, t *testing.T, image string) {
		must(t, m.three.Attest(t, m.key.private, image, "slsaprovenance1", m.predicate))
	}},
	{"v3-att-keyless", func(m *matrix, t *testing.T, image string) { m.attestThree(t, image) }},
	{"v2-tag-and-att", func(m *matrix, t *testing.T, image string) {
		m.signTwo(t, dev, image)
		m.attestTwo(t, image)
	}},
	{"v3-bundle-and-att", func(m *matrix, t *testing.T, image string) {
		must(t, m.three.SignBundle(t, m.key.private, image))
		m.attestThree(t, image)
	}},
	{"v2-tag-v3-bundle", func(m *matrix, t *testing.T, image string) { // neither hides the other
		must(t, m.two.Sign(t, m.key.private, image))
		must(t, m.sigstore.Keyless(t, m.three, m.token(t, dev), image))
	}},
	{"vidimus-key", func(m *matrix, t *testing.T, image string) {
		must(t, vidimus(t, "", password, "sign", "--key", m.key.private, image))
	}},
	{"vidimus-keyless", func(m *matrix, t *testing.T, image string) { must(t, m.vidimus(t, "sign", image)) }},
	{"vidimus-attest", func(m *matrix, t *testing.T, image string) {
		must(t, m.vidimus(t, "attest", "--type", "slsaprovenance1", "--predicate", m.predicate, image))
	}},
}

func (m *matrix) token(t *testing.T, who string) string { return m.sigstore.Issuer.Token(t, who) }

// signTwo signs as cosign 2 does by default: a certificate and an entry of the old log, at
// the tag.
func (m *matrix) signTwo(t *testing.T, who, image string) {
	must(t, m.two.Run(t, "", "sign", "--fulcio-url", m.sigstore.Fulcio, "--rekor-url", m.old.URL, "--insecure-skip-verify",
		"--identity-token", m.token(t, who), "--yes", image))
}

func (m *matrix) attestTwo(t *testing.T, image string, more ...string) {
	must(t, m.two.Run(t, "", append(append([]string{"attest", "--fulcio-url", m.sigstore.Fulcio, "--rekor-url", m.old.URL, "--insecure-skip-verify",
		"--identity-token", m.token(t, dev), "--yes", "--type", "slsaprovenance1", "--predicate", m.predicate}, more...), image)...))
}

func (m *matrix) attestThree(t *testing.T, image string) {
	must(t, m.three.Run(t, "", "attest", "--identity-token", m.token(t, dev), "--signing-config", m.sigstore.SigningConfig,
		"--trusted-root", m.old.TrustedRoot, "--yes", "--type", "slsaprovenance1", "--predicate", m.predicate, image))
}

func (m *matrix) workflow(t *testing.T, repository, image string) {
	token, _ := m.sigstore.Issuer.Workflow(t, repository, "release.yml", "refs/tags/v1")
	must(t, m.sigstore.Keyless(t, m.three, token, image))
}

func (m *matrix) vidimus(t *testing.T, command string, args ...string) real.Result {
	return vidimus(t, "", []string{"SIGSTORE_ID_TOKEN=" + m.token(t, dev)},
		append([]string{command, "--signing-config", m.sigstore.SigningConfig, "--trusted-root", m.old.TrustedRoot}, args...)...)
}

// judges are the policies, each for what one name of the registry holds.
var judges = []struct{ name, match, rest string }{
	{"key", "**", "require: release"},
	{"exact", "**", "require: dev"},
	{"glob", "**", "require: acme"},
	{"repo", "acme/{repo}", "require: ci"},
	{"issuer", "**", "require: elsewhere"},
	{"subject", "**", "require: nobody"},
	{"other", "**", "require: other"},
	{"either", "**", "require: {any: [release, acme]}"},
	{"both", "**", "require: {all: [release, dev]}"},
	{"maxage", "**", "require: {any: [release, acme]}, maxAge: 1h"},
	{"minage", "**", "require: {any: [release, acme]}, minAge: 1h"},
	{"attested", "**", "attestations: [{predicateType: slsaprovenance1, require: {any: [release, dev]}}]"},
	{"signed+att", "**", "require: {any: [release, dev]}, attestations: [{predicateType: slsaprovenance1, require: dev}]"},
	{"other-att", "**", "attestations: [{predicateType: spdx, require: {any: [release, dev]}}]"},
}

// host is the name under which a proxy has the registry for a policy.
func host(judge string) string { return strings.ReplaceAll(judge, "+", "-") + ".test" }

// config has one registry under many names, each with a policy of its own. other is a key
// that has signed nothing.
func (m *matrix) config(other string) string {
	var b strings.Builder
	b.WriteString("upstreams:\n")
	for _, j := range judges {
		fmt.Fprintf(&b, "  %s: {url: \"http://%s\"}\n", host(j.name), m.registry)
	}
	email, github := m.sigstore.Issuer.Email(), m.sigstore.Issuer.GitHub()
	fmt.Fprintf(&b, `trustedRoot: %q
authorities:
  release: {keys: [%q]}
  other: {keys: [%q]}
  dev: {keyless: {issuer: %q, subject: %q}}
  acme: {keyless: {issuer: %q, subject: "*@acme.example"}}
  ci: {keyless: {issuer: %q, subject: "https://github.com/acme/{repo}/.github/workflows/release.yml@refs/tags/v*"}}
  elsewhere: {keyless: {issuer: %q, subject: %q}}
  nobody: {keyless: {issuer: %q, subject: "nobody@acme.example"}}
policies:
`, m.old.TrustedRoot, m.key.public, other, email, dev, email, github, github, dev, email)
	for _, j := range judges {
		fmt.Fprintf(&b, "  - {match: %q, %s}\n", host(j.name)+"/"+j.match, j.rest)
	}
	return b.String()
}

// verdicts is what becomes of each form under each policy: ok, or the reason of the denial,
// which is 403 always. The tag of attestations is asked for only by policies that want them:
// for the others an image with nothing else is unsigned.
const verdicts = `
                     key   exact glob  repo  issuer subject other either both  maxage minage attested signed+att other-att
unsigned             unsig unsig unsig unsig unsig  unsig   unsig unsig  unsig unsig  unsig  miss     unsig      miss
v2-tag-key           ok    untr  untr  untr  untr   untr    untr  ok     thres exp    exp    miss     miss       miss
v2-tag-stranger      untr  untr  untr  untr  untr   untr    untr  untr   untr  untr   untr   miss     untr       miss
v2-tag-key-logged    ok    untr  untr  untr  untr   untr    untr  ok     thres ok     exp    miss     miss       miss
v2-tag-keyless       untr  ok    ok    untr  untr   untr    untr  ok     thres ok     exp    miss     miss       miss
v2-tag-keyless-ops   untr  untr  ok    untr  untr   untr    untr  ok     untr  ok     exp    miss     untr       miss
v2-oci11-key         ok    untr  untr  untr  untr   untr    untr  ok     thres exp    exp    miss     miss       miss
v2-bundle-keyless    untr  ok    ok    untr  untr   untr    untr  ok     thres ok     exp    miss     miss       miss
v3-bundle-key        ok    untr  untr  untr  untr   untr    untr  ok     thres exp    exp    miss     miss       miss
v3-bundle-key-logged ok    untr  untr  untr  untr   untr    untr  ok     thres ok     exp    miss     miss       miss
v3-bundle-keyless    untr  ok    ok    untr  untr   untr    untr  ok     thres ok     exp    miss     miss       miss
v3-bundle-rekor1     untr  ok    ok    untr  untr   untr    untr  ok     thres ok     exp    miss     miss       miss
v3-bundle-workflow   untr  untr  untr  ok    untr   untr    untr  untr   untr  untr   untr   miss     untr       miss
v3-bundle-elsewhere  untr  untr  untr  untr  untr   untr    untr  untr   untr  untr   untr   miss     untr       miss
v3-tag-key           ok    untr  untr  untr  untr   untr    untr  ok     thres exp    exp    miss     miss       miss
v3-tag-keyless       untr  ok    ok    untr  untr   untr    untr  ok     thres ok     exp    miss     miss       miss
v2-att-key           unsig unsig unsig unsig unsig  unsig   unsig unsig  unsig unsig  unsig  ok       att        miss
v2-att-keyless       unsig unsig unsig unsig unsig  unsig   unsig unsig  unsig unsig  unsig  ok       att        miss
v2-att-intoto        unsig unsig unsig unsig unsig  unsig   unsig unsig  unsig unsig  unsig  ok       att        miss
v3-att-key           att   untr  untr  untr  untr   untr    untr  att    att   att    att    ok       att        miss
v3-att-keyless       untr  att   att   untr  untr   untr    untr  att    att   att    att    ok       att        miss
v2-tag-and-att       untr  ok    ok    untr  untr   untr    untr  ok     thres ok     exp    ok       ok         miss
v3-bundle-and-att    ok    att   att   untr  untr   untr    untr  ok     thres exp    exp    ok       ok         miss
v2-tag-v3-bundle     ok    ok    ok    untr  untr   untr    untr  ok     ok    ok     exp    miss     miss       miss
vidimus-key          ok    untr  untr  untr  untr   untr    untr  ok     thres exp    exp    miss     miss       miss
vidimus-keyless      untr  ok    ok    untr  untr   untr    untr  ok     thres ok     exp    miss     miss       miss
vidimus-attest       untr  att   att   untr  untr   untr    untr  att    att   att    att    ok       att        miss
`

var reasons = map[string]string{
	"unsig": "unsigned", "untr": "untrusted", "thres": "threshold", "exp": "expired", "miss": "attestation-missing", "att": "attested-not-signed",
}

// Everything that cosign of both versions and we make of an image, with keys and without,
// with logs of both versions, comes through a proxy where, and only where, its policy says
// so, and is refused for the right reason elsewhere.
func TestEveryFormUnderEveryPolicy(t *testing.T) {
	t.Parallel()
	m := &matrix{two: real.NewCosign(t, 2), three: real.NewCosign(t, 3), registry: real.StartDistribution(t), key: newKeyPair(t), stranger: newKeyPair(t)}
	crane := real.Program(t, "crane")
	m.sigstore = real.StartSigstore(t)
	m.old = startRekorOne(t, m.sigstore)
	m.predicate = real.Write(t, t.TempDir(), "provenance.json", `{"buildDefinition":{"buildType":"https://example.com/b","externalParameters":{}},"runDetails":{"builder":{"id":"https://example.com/x"}}}`)
	t.Run("made", func(t *testing.T) {
		for _, form := range forms {
			t.Run(form.name, func(t *testing.T) {
				t.Parallel()
				content := lying.Image(form.name)
				form.make(m, t, m.registry+"/acme/"+form.name+"@"+real.Push(t, m.registry, "acme/"+form.name, content, "v1"))
			})
		}
	})
	proxy := real.StartVidimus(t, built(t, racing), real.Dir(t), m.config(newKeyPair(t).public))
	image := func(judge, form string) string { return host(judge) + "/acme/" + form }
	pull := func(t *testing.T, judge, form string) real.Result {
		return real.Run(t, real.Command{Path: crane, Args: []string{
			"pull", "--format", "oci", proxy.Addr + "/" + image(judge, form) + ":v1", filepath.Join(t.TempDir(), "image"),
		}})
	}
	lines := strings.Split(strings.Trim(verdicts, "\n"), "\n")
	names := strings.Fields(lines[0])
	if len(names) != len(judges) || len(lines) != len(forms)+1 {
		t.Fatalf("the table has %d policies and %d forms, where there are %d and %d", len(names), len(lines)-1, len(judges), len(forms))
	}
	t.Run("judged", func(t *testing.T) {
		for i, form := range forms {
			t.Run(form.name, func(t *testing.T) {
				t.Parallel()
				cells := strings.Fields(lines[i+1])
				if cells[0] != form.name || len(cells) != len(judges)+1 {
					t.Fatalf("the table has %q", lines[i+1])
				}
				pulled := map[bool]bool{} // one that is served and one that is refused, each by a client
				for j, judge := range judges {
					want, served := cells[j+1], cells[j+1] == "ok"
					if got := verdict(t, proxy, image(judge.name, form.name)); got != want || names[j] != judge.name {
						t.Errorf("%s: %s, want %s", judge.name, got, want)
					}
					if pulled[served] {
						continue
					}
					pulled[served] = true
					if r := pull(t, judge.name, form.name); (r.Code == 0) != served || !served && !strings.Contains(r.Stderr, "DENIED: Vidimus refused") {
						t.Errorf("%s: crane ends with %d\n%s", judge.name, r.Code, r.Output())
					}
				}
			})
		}
	})
	t.Run("cosign verifies through the proxy", func(t *testing.T) {
		through := proxy.Addr + "/" + image("exact", "v3-bundle-keyless")
		must(t, m.sigstore.VerifyKeyless(t, m.three, m.sigstore.Issuer.Email(), dev, through+":v1"))
		through = proxy.Addr + "/" + image("exact", "v2-tag-keyless")
		must(t, m.two.Run(t, "", append(m.who(dev), "verify", "--insecure-ignore-sct", through+":v1")...))
	})
	t.Run("our commands", m.commands)
}

// verdict is what the proxy answers for an image, in the words of the table.
func verdict(t *testing.T, proxy *real.Vidimus, image string) string {
	t.Helper()
	resp, err := http.Get("http://" + proxy.Addr + "/v2/" + image + "/manifests/v1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var said struct {
		Errors []struct{ Detail struct{ Reason string } }
	}
	switch err := json.NewDecoder(resp.Body).Decode(&said); {
	case resp.StatusCode == http.StatusOK && err == nil:
		return "ok"
	case resp.StatusCode != http.StatusForbidden || len(said.Errors) != 1:
		return fmt.Sprintf("%s %+v", resp.Status, said)
	}
	for short, reason := range reasons {
		if reason == said.Errors[0].Detail.Reason {
			return short
		}
	}
	return said.Errors[0].Detail.Reason
}

// who are the flags about who has signed.
func (m *matrix) who(subject string) []string {
	return []string{"--trusted-root", m.old.TrustedRoot, "--certificate-identity", subject, "--certificate-oidc-issuer", m.sigstore.Issuer.Email()}
}

// commands verifies with our commands what cosign has made: attestations in every form, and
// files in both kinds of bundle.
func (m *matrix) commands(t *testing.T) {
	for _, form := range []string{"v2-att-keyless", "v2-att-intoto", "v3-att-keyless", "vidimus-attest"} {
		image := m.registry + "/acme/" + form + ":v1"
		run := func(subject, predicateType string) real.Result {
			return vidimus(t, "", nil, append(append([]string{"verify-attestation"}, m.who(subject)...), "--type", predicateType, image)...)
		}
		r := must(t, run(dev, "slsaprovenance1"))
		if len(envelopes(t, r.Stdout)) == 0 {
			t.Errorf("%s: nothing is printed", form)
		}
		for _, wrong := range [][2]string{{ops, "slsaprovenance1"}, {dev, "spdx"}} {
			if r := run(wrong[0], wrong[1]); r.Code != 1 || r.Stdout != "" {
				t.Errorf("%s by %s: exit code %d\n%s", wrong[1], wrong[0], r.Code, r.Output())
			}
		}
	}
	dir := t.TempDir()
	file, other := real.Write(t, dir, "release.tar", "released\n"), real.Write(t, dir, "other.tar", "something else\n")
	old, sealed := filepath.Join(dir, "old"), filepath.Join(dir, "new")
	signature, certificate := filepath.Join(dir, "sig"), filepath.Join(dir, "cert")
	must(t, m.two.Run(t, "", "sign-blob", "--fulcio-url", m.sigstore.Fulcio, "--rekor-url", m.old.URL, "--insecure-skip-verify",
		"--identity-token", m.token(t, dev), "--yes", "--bundle", old, "--output-signature", signature, "--output-certificate", certificate, file))
	must(t, m.three.Run(t, "", "sign-blob", "--identity-token", m.token(t, dev), "--signing-config", m.sigstore.SigningConfig,
		"--trusted-root", m.old.TrustedRoot, "--yes", "--bundle", sealed, file))
	for _, args := range [][]string{
		{"--bundle", old}, {"--bundle", sealed}, {"--bundle", old, "--signature", signature, "--certificate", certificate},
	} {
		run := func(subject, file string) real.Result {
			return vidimus(t, "", nil, append(append(append([]string{"verify-blob"}, m.who(subject)...), args...), file)...)
		}
		must(t, run(dev, file))
		for _, wrong := range [][2]string{{ops, file}, {dev, other}} {
			if r := run(wrong[0], wrong[1]); r.Code != 1 {
				t.Errorf("%v, %v: exit code %d\n%s", args, wrong, r.Code, r.Output())
			}
		}
	}
	// By themselves they have no time.
	if r := vidimus(t, "", nil, append(append([]string{"verify-blob"}, m.who(dev)...), "--signature", signature, "--certificate", certificate, file)...); r.Code != 1 {
		t.Errorf("exit code %d\n%s", r.Code, r.Output())
	}
}
