package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vidimus/policy"
)

// situation is an image in a state, a configuration, and what explain makes of it.
type situation struct {
	name   string
	reason string // of the denial; empty: allowed
	set    func(w *situated)
	config string   // besides the upstream, keys and authorities; with $REGISTRY
	args   []string // of explain, with $IMAGE for the digest; by default the tag v1
	code   int
	stderr bool // the explanation is an error: there is nothing to decide about
}

const requires = "policies: [{match: \"local/**\", name: production, require: release}]\n"

// situations are one for each reason at least, which TestEveryReasonIsExplained sees to.
func situations() []situation {
	by := func(key string) func(*situated) {
		return func(w *situated) { w.sign(key, w.host+"/acme/web", nil) }
	}
	env := func(value string) func(*situated) {
		return func(w *situated) { w.sign("release", w.host+"/acme/web", map[string]any{"env": value}) }
	}
	signed := by("release")
	return []situation{
		{name: "allowed", set: signed, config: requires},
		{name: "allowed by all that is asked", set: env("prod"), config: "policies:\n" +
			"  - {match: \"local/other/**\", name: others, deny: \"moved\"}\n" +
			"  - {match: \"local/**\", name: production, require: release, signedAs: repository, annotations: {env: prod}}\n"},
		{name: "allowed unverified", set: signed, config: "policies: [{match: \"local/**\", name: open, allow: unverified}]\n"},
		{name: "no policy", reason: policy.ReasonNoPolicy, config: "policies: [{match: \"local/other/**\", require: release}]\n", code: 1},
		{name: "no policy, signed", reason: policy.ReasonNoPolicy, set: signed, config: "policies: [{match: \"local/other/**\", require: release}]\n", code: 1},
		{name: "no policy, observed, keyless", reason: policy.ReasonNoPolicy, set: (*situated).certify, code: 1,
			config: "enforcement: observe\ntrustedRoot: root.json\npolicies: [{match: \"local/other/**\", require: release}]\n"},
		{name: "no policy, observed, no trust root", reason: policy.ReasonNoPolicy, set: (*situated).certify, code: 1,
			config: "enforcement: observe\npolicies: [{match: \"local/other/**\", require: release}]\n"},
		{name: "denied by policy", reason: policy.ReasonPolicyDeny, config: "policies: [{match: \"local/**\", name: old, deny: \"moved to ghcr.io/acme\"}]\n", code: 1},
		{name: "revoked", reason: policy.ReasonRevoked, set: signed, config: requires + "revoked: [\"$IMAGE\"]\n", code: 1},
		{name: "unsigned", reason: policy.ReasonUnsigned, config: requires, code: 1},
		{name: "unsigned, warned of", reason: policy.ReasonUnsigned, config: "enforcement: warn\n" + requires, code: 1},
		{name: "untrusted, by a known key", reason: policy.ReasonUntrusted, set: by("ci"), config: requires, code: 1},
		{name: "untrusted, by a key of nobody", reason: policy.ReasonUntrusted, set: by("stranger"), config: requires, code: 1},
		{name: "untrusted, by another workflow", reason: policy.ReasonUntrusted, set: (*situated).certify, code: 1,
			config: "trustedRoot: root.json\npolicies: [{match: \"local/**\", name: production, require: workflow}]\n"},
		{name: "keyless", set: (*situated).certify,
			config: "trustedRoot: root.json\npolicies: [{match: \"local/**\", name: production, require: right}]\n"},
		{name: "payload invalid", reason: policy.ReasonPayloadInvalid, set: func(w *situated) { w.signBytes("release", `{"critical":1}`) }, config: requires, code: 1},
		{name: "digest mismatch", reason: policy.ReasonDigestMismatch, set: (*situated).transplant, config: requires, code: 1},
		{name: "identity mismatch", reason: policy.ReasonIdentityMismatch, set: func(w *situated) { w.sign("release", "ghcr.io/acme/original", nil) }, config: requires, code: 1},
		{name: "annotation mismatch", reason: policy.ReasonAnnotationMismatch, set: env("test"), code: 1,
			config: "policies: [{match: \"local/**\", name: production, require: release, annotations: {env: prod}}]\n"},
		{name: "threshold", reason: policy.ReasonThreshold, set: signed, config: "policies: [{match: \"local/**\", name: production, require: {all: [release, ci]}}]\n", code: 1},
		{name: "expired", reason: policy.ReasonExpired, set: by("ended"), code: 1,
			config: "policies: [{match: \"local/**\", name: production, require: retired}]\n"},
		{name: "too many signatures", reason: policy.ReasonTooManySignatures, set: func(w *situated) { w.strangers(70) }, config: requires, code: 1},
		{name: "attested, not signed", reason: policy.ReasonAttestedNotSigned, set: func(w *situated) { w.attest("release", "vuln", `{}`) }, code: 1,
			config: "policies: [{match: \"local/**\", name: production, require: release, rego: image.rego}]\n"},
		{name: "attestation missing", reason: policy.ReasonAttestationMissing, set: func(w *situated) { signed(w); w.attest("ci", "spdxjson", `{}`) }, code: 1,
			config: "policies: [{match: \"local/**\", name: production, require: release, attestations: [{predicateType: slsaprovenance1, require: ci}]}]\n"},
		{name: "denied by an attestation's rego", reason: policy.ReasonRego, set: func(w *situated) { signed(w); w.attest("ci", "vuln", `{"bad":true}`) }, code: 1,
			config: "policies: [{match: \"local/**\", name: production, require: release, attestations: [{predicateType: vuln, require: ci, rego: attested.rego}]}]\n"},
		{name: "denied by rego", reason: policy.ReasonRego, set: signed, code: 1,
			config: "policies: [{match: \"local/**\", name: production, require: release, rego: image.rego}]\n"},
		{name: "inconclusive, forbidden", reason: policy.ReasonInconclusive, set: func(w *situated) { w.answer("/referrers/"+w.digest, http.StatusUnauthorized) }, config: requires, code: 3},
		{name: "inconclusive, failing", reason: policy.ReasonInconclusive, set: func(w *situated) { w.answer(".sig", http.StatusInternalServerError) }, config: requires, code: 3},
		{name: "no upstream", reason: reasonNoUpstream, config: requires, args: []string{"quay.io/acme/web:v1"}, code: 1, stderr: true},
		{name: "a child of an index, by itself", reason: policy.ReasonUnsigned, set: (*situated).index, config: requires, args: []string{"local/acme/web@$IMAGE"}, code: 1},
		{name: "a child of an index, through it", set: (*situated).index, config: requires, args: []string{"--via", "index", "local/acme/web@$IMAGE"}},
	}
}

// The real program explains each situation in these words: they are looked at when they
// change (go test ./cmd/vidimus -run Situations -update).
func TestSituationsAreExplained(t *testing.T) {
	for _, s := range situations() {
		t.Run(s.name, func(t *testing.T) {
			w := newSituated(t)
			if s.set != nil {
				s.set(w)
			}
			w.configure(s.config)
			args := s.args
			if args == nil {
				args = []string{"local/acme/web:v1"}
			}
			for i, arg := range args {
				args[i] = strings.ReplaceAll(arg, "$IMAGE", w.digest)
			}
			text, code := w.vidimus(append([]string{"explain"}, args...)...)
			if code != s.code {
				t.Errorf("exit code %d, want %d", code, s.code)
			}
			if !s.stderr {
				var said struct {
					Allowed  bool
					Reason   string
					Remedies []policy.Remedy
				}
				encoded := w.here(append([]string{"explain", "--output", "json"}, args...)...)
				if err := json.Unmarshal([]byte(encoded), &said); err != nil {
					t.Fatalf("%v\n%s", err, encoded)
				}
				if said.Reason != s.reason || said.Allowed != (s.reason == "") {
					t.Errorf("reason %q, want %q", said.Reason, s.reason)
				}
				if s.reason != "" && len(said.Remedies) == 0 {
					t.Error("nothing is said to mend it")
				}
			}
			golden := filepath.Join(w.golden, strings.NewReplacer(" ", "-", ",", "", "'", "").Replace(s.name)+".txt")
			got := w.plain(text)
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", golden, diff)
			}
		})
	}
}

func TestEveryReasonIsExplained(t *testing.T) {
	var explained []string
	for _, s := range situations() {
		explained = append(explained, s.reason)
	}
	for _, reason := range append(declaredReasons(t), reasonNoUpstream) {
		if !slices.Contains(explained, reason) {
			t.Errorf("no situation explains %s", reason)
		}
	}
}

// The commands that are to mend a denial do.
func TestTheRemediesMend(t *testing.T) {
	for _, row := range []struct {
		reason string
		set    func(*situated)
		config string
	}{
		{policy.ReasonUnsigned, func(*situated) {}, requires},
		{policy.ReasonUntrusted, func(w *situated) { w.sign("stranger", "", nil) }, requires},
		{policy.ReasonAnnotationMismatch, func(w *situated) { w.sign("release", "", nil) }, "policies: [{match: \"local/**\", require: release, annotations: {env: \"it's prod\"}}]\n"},
		{policy.ReasonIdentityMismatch, func(w *situated) { w.sign("release", "", nil) }, "policies: [{match: \"local/**\", require: release, signedAs: exact}]\n"},
		{policy.ReasonThreshold, func(w *situated) { w.sign("ci", "", nil) }, "policies: [{match: \"local/**\", require: {all: [release, ci]}}]\n"},
	} {
		w := newSituated(t)
		row.set(w)
		w.configure(row.config)
		encoded := w.here("explain", "--output", "json", "local/acme/web:v1")
		var said struct {
			Reason   string
			Remedies []policy.Remedy
		}
		if err := json.Unmarshal([]byte(encoded), &said); err != nil || said.Reason != row.reason || len(said.Remedies) == 0 {
			t.Fatalf("%s: %v, %s", row.reason, err, encoded)
		}
		w.use("release") // the command runs the program itself
		if out, err := exec.Command("sh", "-c", said.Remedies[0].Command).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", said.Remedies[0].Command, err, out)
		}
		if out := w.here("explain", "local/acme/web:v1"); !strings.Contains(out, "decision  allowed") {
			t.Errorf("%s is not mended by %s\n%s", row.reason, said.Remedies[0].Command, out)
		}
	}
}

// The lines of the configuration that are to let a signer vouch do, and it is a
// configuration that holds.
func TestALineForWhatIsSeenHolds(t *testing.T) {
	w := newSituated(t)
	w.certify()
	w.configure("enforcement: observe\ntrustedRoot: root.json\npolicies: [{match: \"local/other/**\", require: release}]\n")
	encoded := w.here("explain", "--output", "json", "local/acme/web:v1")
	var said struct{ Remedies []policy.Remedy }
	if err := json.Unmarshal([]byte(encoded), &said); err != nil || len(said.Remedies) != 2 {
		t.Fatalf("%v, %s", err, encoded)
	}
	w.authorities += "  " + said.Remedies[1].Config + "\n"
	w.configure("trustedRoot: root.json\npolicies:\n  " + said.Remedies[0].Config + "\n")
	if out, code := w.vidimus("explain", "local/acme/web:v1"); code != 0 {
		t.Errorf("exit code %d\n%s", code, out)
	}
}

// here runs a command in this process, which is sooner done, and returns its output.
func (w *situated) here(args ...string) string {
	w.t.Helper()
	var out output
	code, err := out.execute(w.t.Context(), newRootCommand(), strings.NewReader(""), args...)
	if code == exitMisuse || out.stdout.Len() == 0 && err != nil {
		w.t.Fatalf("%v: exit code %d: %v\n%s", args, code, err, &out.stderr)
	}
	return out.stdout.String()
}

// vidimus runs the program and returns what it says, on standard error when it fails
// without an explanation.
func (w *situated) vidimus(args ...string) (string, int) {
	w.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command("vidimus", args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		w.t.Fatal(err)
	} else if ok && stdout.Len() == 0 {
		return stderr.String(), exit.ExitCode()
	} else if ok {
		return stdout.String(), exit.ExitCode()
	}
	return stdout.String(), 0
}
