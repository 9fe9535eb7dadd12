package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"vidimus/signer"
	"vidimus/signer/sigstore"
)

// withFlags reads a command as far as its flags.
func withFlags(t *testing.T, f *signedByFlags, args ...string) *cobra.Command {
	t.Helper()
	cmd := new(cobra.Command)
	f.register(cmd)
	if err := cmd.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	return cmd
}

const signingConfig = `{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json",
"caUrls":[{"url":"https://ca.example","majorApiVersion":1,"validFor":{"start":"2020-01-01T00:00:00Z"},"operator":"x"}],
"rekorTlogUrls":[{"url":"https://log.example","majorApiVersion":2,"validFor":{"start":"2020-01-01T00:00:00Z"},"operator":"x"}],
"rekorTlogConfig":{"selector":"ANY"}}`

func TestServicesAreThoseThatAreAskedFor(t *testing.T) {
	isolate(t)
	writeFile(t, "sc.json", signingConfig)
	one := func(url string, version uint32) []sigstore.Log { return []sigstore.Log{{URL: url, Version: version}} }
	for name, tt := range map[string]struct {
		env  map[string]string
		args []string
		want sigstore.Services
	}{
		"nothing":            {nil, nil, sigstore.Services{Authority: publicFulcio}},
		"the log":            {nil, []string{"--tlog-upload"}, sigstore.Services{Authority: publicFulcio, Logs: one(publicRekor, 1)}},
		"the log by TLOG":    {map[string]string{"TLOG": "1"}, nil, sigstore.Services{Authority: publicFulcio, Logs: one(publicRekor, 1)}},
		"TLOG that says no":  {map[string]string{"TLOG": "false"}, nil, sigstore.Services{Authority: publicFulcio}},
		"a flag over TLOG":   {map[string]string{"TLOG": "1"}, []string{"--tlog-upload=false"}, sigstore.Services{Authority: publicFulcio}},
		"another log":        {map[string]string{"TLOG": "1"}, []string{"--rekor-url", "https://a.example"}, sigstore.Services{Authority: publicFulcio, Logs: one("https://a.example", 1)}},
		"a log by variable":  {map[string]string{"REKOR_SERVER": "https://b.example"}, []string{"--tlog-upload"}, sigstore.Services{Authority: publicFulcio, Logs: one("https://b.example", 1)}},
		"a timestamp":        {nil, []string{"--timestamp-server-url", "https://tsa.example/x"}, sigstore.Services{Authority: publicFulcio, Stampers: []string{"https://tsa.example/x"}}},
		"a file":             {nil, []string{"--signing-config", "sc.json"}, sigstore.Services{Authority: "https://ca.example", Logs: one("https://log.example", 2)}},
		"a file, and no log": {nil, []string{"--signing-config", "sc.json", "--tlog-upload=false"}, sigstore.Services{Authority: "https://ca.example"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, variable := range []string{"TLOG", "REKOR_SERVER"} {
				t.Setenv(variable, tt.env[variable])
			}
			var f signedByFlags
			got, err := f.services(withFlags(t, &f, tt.args...))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	for want, args := range map[string][]string{
		"one of them names the services": {"--signing-config", "sc.json", "--rekor-url", "https://x.example"},
		"--signing-config":               {"--signing-config", "missing"},
		"--trusted-root":                 {"--trusted-root", "missing"},
		"--trusted-root sc.json":         {"--trusted-root", "sc.json"},
		"want a URL of https or http":    {"--timestamp-server-url", "file:///x"},
		"transparency log":               {"--tlog-upload", "--rekor-url", "x"},
	} {
		var f signedByFlags
		if got, err := f.services(withFlags(t, &f, args...)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %+v, %v", args, got, err)
		}
	}
}

// nowhere is an issuer that nobody is at.
const nowhere = "http://127.0.0.1:1"

func TestWhoSignsWithoutAKey(t *testing.T) {
	isolate(t)
	writeFile(t, "token", "e30.e30.c2ln\n")
	for name, tt := range map[string]struct {
		env  string
		args []string
	}{
		"a token":                       {"", []string{"--identity-token", "e30.e30.c2ln"}},
		"a file":                        {"", []string{"--identity-token", "token"}},
		"the environment":               {"e30.e30.c2ln", nil},
		"and by its name":               {"e30.e30.c2ln", []string{"--oidc-provider", "envvar"}},
		"a flag before it":              {"x.y.z", []string{"--identity-token", "token"}},
		"a flag by itself":              {"x.y.z", []string{"--identity-token", "token", "--oidc-disable-ambient-providers"}},
		"what the flow says":            {"", []string{"--identity-token", "token", "--fulcio-auth-flow", "token"}},
		"the environment before a flow": {"e30.e30.c2ln", []string{"--fulcio-auth-flow", "device"}},
	} {
		t.Setenv("SIGSTORE_ID_TOKEN", tt.env)
		var f signedByFlags
		if got, err := f.token(t.Context(), withFlags(t, &f, tt.args...), nowhere); err != nil || got != "e30.e30.c2ln" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for want, tt := range map[string]struct {
		env  string
		args []string
	}{
		"neither a token nor a file":  {"", []string{"--identity-token", "damaged-token"}},
		"SIGSTORE_ID_TOKEN is not":    {"damaged-token", nil},
		"github-actions: there is no": {"x.y.z", []string{"--oidc-provider", "github-actions"}},
		"OpenID issuer " + nowhere:    {"", nil},
		"issuer " + nowhere:           {"x.y.z", []string{"--oidc-disable-ambient-providers"}},
		nowhere:                       {"x.y.z", []string{"--fulcio-auth-flow", "device", "--oidc-disable-ambient-providers"}},
		"--oidc-client-secret-file":   {"", []string{"--oidc-client-secret-file", "missing"}},
	} {
		t.Setenv("SIGSTORE_ID_TOKEN", tt.env)
		var f signedByFlags
		if _, err := f.token(t.Context(), withFlags(t, &f, tt.args...), nowhere); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "damaged-token") {
			t.Errorf("%v: %v, want %q", tt.args, err, want)
		}
	}
	t.Setenv("SIGSTORE_ID_TOKEN", "")
	t.Setenv("BUILDKITE_AGENT_ACCESS_TOKEN", "x")
	var f signedByFlags
	if _, err := f.token(t.Context(), withFlags(t, &f), nowhere); err == nil || !strings.Contains(err.Error(), "buildkite-agent oidc request-token") {
		t.Errorf("at Buildkite: %v", err)
	}
}

func TestFlagsAboutIdentitiesThatAreRefused(t *testing.T) {
	isolate(t)
	writeFile(t, "no-ca.json", signingConfig[:strings.Index(signingConfig, `"caUrls"`)]+signingConfig[strings.Index(signingConfig, `"rekorTlogUrls"`):])
	for want, args := range map[string][]string{
		"--key and --identity-token":                             {"--key", "k", "--identity-token", "x.y.z"},
		"say which private key with --key":                       nil,
		"ten minutes":                                            {"--identity-token", "x.y.z"},
		"no certificate authority":                               {"--signing-config", "no-ca.json", "--identity-token", "x.y.z"},
		"give the token with --identity-token":                   {"--fulcio-auth-flow", "token"},
		`--fulcio-auth-flow "oob"`:                               {"--fulcio-auth-flow", "oob"},
		"spire-agent":                                            {"--oidc-provider", "spiffe"},
		"gcloud auth print-identity-token --audiences=sigstore)": {"--oidc-provider", "google"},
		`--oidc-provider "travis"`:                               {"--oidc-provider", "travis"},
		"contradict":                                             {"--oidc-provider", "envvar", "--oidc-disable-ambient-providers"},
	} {
		var f signedByFlags
		_, err := f.open(t.Context(), withFlags(t, &f, args...))
		if exit, ok := errors.AsType[*exitError](err); !ok || exit.code != exitMisuse || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
}

func TestFormats(t *testing.T) {
	key, certified := signedBy{}, signedBy{chain: [][]byte{{1}}, services: sigstore.Services{Logs: []sigstore.Log{{Version: 2}}}}
	stamped, promised := certified, certified
	stamped.services.Stampers = []string{"x"}
	promised.services.Logs = []sigstore.Log{{Version: 1}}
	tag, bundle, both := []signer.Format{signer.FormatTag}, []signer.Format{signer.FormatBundle}, []signer.Format{signer.FormatTag, signer.FormatBundle}
	for _, tt := range []struct {
		by   signedBy
		args []string
		want []signer.Format
	}{
		{key, nil, both},
		{key, []string{"--format", "tag"}, tag},
		{key, []string{"--format", "bundle"}, bundle},
		{key, []string{"--new-bundle-format"}, bundle},
		{key, []string{"--new-bundle-format=false"}, tag},
		{key, []string{"--new-bundle-format=false", "--format", "both"}, both},
		{certified, nil, bundle},
		{certified, []string{"--format", "tag"}, nil},
		{certified, []string{"--new-bundle-format=false"}, nil},
		{stamped, nil, both},
		{promised, nil, both},
		{key, []string{"--format", "x"}, nil},
	} {
		var f formatFlag
		cmd := new(cobra.Command)
		cmd.SetErr(new(strings.Builder))
		f.register(cmd)
		if err := cmd.ParseFlags(tt.args); err != nil {
			t.Fatal(err)
		}
		got, err := f.formats(cmd, tt.by)
		if (err == nil) != (tt.want != nil) || cmp.Diff(tt.want, got) != "" {
			t.Errorf("%v: %v, %v, want %v", tt.args, got, err, tt.want)
		}
	}
}

func TestAttestWritesBothFormats(t *testing.T) {
	isolate(t)
	t.Setenv("COSIGN_PASSWORD", "hunter2")
	reg := newOffline()
	digest := reg.image(t, "reg.test/acme/web:v1")
	writeFile(t, "p.json", `{"a":1}`)
	writeFile(t, "list.json", `[]`)
	var out output
	if code, err := out.execute(t.Context(), newGenerateKeyPairCommand(), nil); code != exitHolds {
		t.Fatal(code, err)
	}
	attest := func(args ...string) (int, *output, error) {
		var out output
		f := &attestFlags{writerFlags: writerFlags{base: reg}}
		code, err := out.execute(t.Context(), f.command(), nil, append(args, "--key", "cosign.key", "reg.test/acme/web@"+digest.String())...)
		return code, &out, err
	}
	code, done, err := attest("--type", "slsaprovenance1", "--predicate", "p.json")
	if code != exitHolds || !strings.Contains(done.stdout.String(), "cosign verify-attestation --type slsaprovenance1 --key cosign.pub") {
		t.Fatalf("exit %d, %v, %s", code, err, done.stdout.String())
	}
	if !strings.Contains(done.stderr.String(), signer.AttestationTag(digest)) || strings.Count(done.stderr.String(), " attested: ") != 2 {
		t.Errorf("said %s", done.stderr.String())
	}
	for want, args := range map[string][]string{
		"--predicate":             {"--type", "vuln"},
		"is a JSON object":        {"--type", "vuln", "--predicate", "list.json"},
		"predicate type \"x\" is": {"--type", "x", "--predicate", "p.json"},
		"not an attestation's":    {"--type", "https://sigstore.dev/cosign/sign/v1", "--predicate", "p.json"},
		"--statement is not":      {"--statement", "p.json", "--predicate", "p.json"},
	} {
		if code, _, err := attest(args...); code == exitHolds || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: exit %d, %v", args, code, err)
		}
	}
}

// A registry that understands preconditions is told which tag is replaced, and its
// refusal is one only once.
func TestWritesNameWhatTheyReplace(t *testing.T) {
	isolate(t)
	var conditions []string
	refuse := true
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPut:
			conditions = append(conditions, r.Header.Get("If-Match")+r.Header.Get("If-None-Match"))
			if refuse {
				w.WriteHeader(http.StatusPreconditionFailed)
				return
			}
			w.Header().Set("OCI-Subject", "sha256:x")
			w.WriteHeader(http.StatusCreated)
		case strings.HasSuffix(r.URL.Path, "/none"):
			w.WriteHeader(http.StatusNotFound)
		case strings.HasSuffix(r.URL.Path, "/tag"):
			w.Header().Set("ETag", `"abc"`)
		}
	}))
	t.Cleanup(server.Close)
	f := writerFlags{registryFlags: registryFlags{allowHTTP: true}}
	repository := ref(t, strings.TrimPrefix(server.URL, "http://")+"/acme/web:v1").Context()
	registry, err := f.registry(repository)
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range []string{"none", "tag"} {
		if _, err := registry.Manifest(t.Context(), repository.Name(), tag); err != nil && tag == "tag" {
			t.Fatal(err)
		}
		if _, err := registry.PutManifest(t.Context(), repository.Name(), tag, "x", nil); err != signer.ErrChanged {
			t.Errorf("%s: %v", tag, err)
		}
		if _, err := registry.PutManifest(t.Context(), repository.Name(), tag, "x", nil); err == nil || err == signer.ErrChanged {
			t.Errorf("%s, again: %v", tag, err)
		}
	}
	refuse = false
	if listed, err := registry.PutManifest(t.Context(), repository.Name(), "sha256:aa", "x", nil); err != nil || !listed {
		t.Errorf("%v, %v", listed, err)
	}
	if diff := cmp.Diff([]string{"*", "", `"abc"`, "", ""}, conditions); diff != "" {
		t.Error(diff)
	}
}

func TestNextQueryStaysInItsList(t *testing.T) {
	for link, want := range map[string]string{
		`</v2/a/referrers/sha256:x?n=2&last=y>; rel="next"`: "n=2&last=y", `<http://evil.test/x?n=1>; rel=next`: "n=1",
		`</v2/a?n=1>; rel="prev"`: "", "": "", "nonsense": "", "<%zz>; rel=next": "",
	} {
		if got := nextQuery(link); got != want {
			t.Errorf("%s: %q, want %q", link, got, want)
		}
	}
}
