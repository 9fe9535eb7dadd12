package main

import (
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/spf13/cobra"

	"vidimus/signer"
)

// TestCosignsFlagsPassOrAreRefusedByName gives the commands each flag of
// cosign's, with a key that is missing: that is what a flag that passed meets.
func TestCosignsFlagsPassOrAreRefusedByName(t *testing.T) {
	isolate(t)
	for command, make := range map[string]func() *cobra.Command{"sign": newSignCommand, "verify": newVerifyCommand, "verify-attestation": newVerifyAttestationCommand} {
		meets := func(t *testing.T, want string, args ...string) {
			t.Helper()
			var out output
			code, err := out.execute(t.Context(), make(), strings.NewReader(""), append(args, "--key", "missing.key", "reg.test/a:b")...)
			if code != exitMisuse || !strings.Contains(err.Error(), want) {
				t.Errorf("%s %v: exit %d, %v; want %q", command, args, code, err, want)
			}
		}
		for _, f := range cosignFlags() {
			if !slices.Contains(f.on, command) {
				continue
			}
			other := map[flagKind]string{textFlag: "x", boolFlag: "true", numberFlag: "1"}[f.kind]
			if f.harmless == "true" {
				other = "false"
			}
			meets(t, "missing.key", "--"+f.name+"="+f.harmless)
			if f.accepted {
				meets(t, "missing.key", "--"+f.name+"="+other)
			} else {
				meets(t, f.asked()+" is not supported yet", "--"+f.name+"="+other)
			}
		}
		meets(t, "unknown flag", "--no-such-flag")
	}
	for _, args := range [][]string{
		{"--offline", "--private-infrastructure", "--max-workers", "3", "-d", "--check-claims=true"},
		{"--insecure-ignore-tlog", "--new-bundle-format=false", "-t", "5s"},
		{"--new-bundle-format", "--experimental-oci11"},
	} {
		var out output
		if _, err := out.execute(t.Context(), newVerifyCommand(), nil, append(args, "--key", "missing.key", "reg.test/a:b")...); err == nil || !strings.Contains(err.Error(), "missing.key") {
			t.Errorf("%v: %v", args, err)
		}
	}
}

// TestEveryFlagOfCosignsIsKnown types each flag that cosign v2 or v3 lists for a command:
// a flag that is not known is a script that fails at a syntax error.
func TestEveryFlagOfCosignsIsKnown(t *testing.T) {
	const (
		all      = "output-file timeout verbose"
		registry = " allow-http-registry allow-insecure-registry attachment-tag-prefix k8s-keychain registry-cacert registry-client-cert" +
			" registry-client-key registry-password registry-server-name registry-token registry-username"
	)
	for command, flags := range map[string]string{
		"attach signature":     all + registry + " bundle certificate certificate-chain payload rekor-response signature tsr",
		"attach attestation":   all + registry + " attestation",
		"attach sbom":          all + registry + " input-format registry-referrers-mode sbom type",
		"download signature":   all + registry,
		"download attestation": all + registry + " platform predicate-type",
		"download sbom":        all + registry + " platform",
		"copy":                 all + registry + " force only platform sig-only",
		"save":                 all + registry + " dir",
		"load":                 all + registry + " dir",
		"tree":                 all + registry + " experimental-oci11 registry-referrers-mode",
		"clean":                all + registry + " force type",
		"generate":             all + registry + " annotations",
		"triangulate":          all + registry + " type",
		"sign":                 all + registry,
		"verify":               all + registry,
		"verify-attestation":   all + registry,
		"attest":               all + registry,
		"sign-blob":            all + " signing-algorithm",
		"verify-blob":          all + " experimental-oci11 signature-digest-algorithm",
		"generate-key-pair":    all + " kms output-key-prefix",
		"import-key-pair":      all + " key output-key-prefix yes",
		"public-key":           all + " key kms outfile sk slot",
	} {
		cmd, _, err := newRootCommand().Find(strings.Fields(command))
		if err != nil {
			t.Fatal(err)
		}
		for _, flag := range strings.Fields(flags) {
			if cmd.Flags().Lookup(flag) == nil {
				t.Errorf("%s does not know --%s", command, flag)
			}
		}
		if short := cmd.Flags().ShorthandLookup("d"); short == nil || short.Name != "verbose" {
			t.Errorf("%s: -d is %v, want --verbose", command, short)
		}
	}
}

// TestARegistryWithACertificateOfItsOwn walks the whole way with a registry that
// only --registry-cacert vouches for, on loopback, where HTTP is allowed too.
func TestARegistryWithACertificateOfItsOwn(t *testing.T) {
	isolate(t)
	t.Setenv("COSIGN_PASSWORD", "hunter2")
	server := httptest.NewTLSServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of those who refuse its certificate
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "https://")
	image := host + "/acme/web:v1"
	content, err := random.Image(16, 1)
	if err != nil {
		t.Fatal(err)
	}
	reference, err := name.ParseReference(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(reference, content, remote.WithTransport(server.Client().Transport)); err != nil {
		t.Fatal(err)
	}
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	writeFile(t, "ca.pem", string(authority))
	writeFile(t, "none.pem", "no certificate\n")

	var out output
	if code, err := out.execute(t.Context(), newGenerateKeyPairCommand(), strings.NewReader("")); code != exitHolds {
		t.Fatal(code, err)
	}
	for _, row := range []struct {
		what string
		cmd  *cobra.Command
		args []string
		code int
		want string // of the output, or of the error
	}{
		{"sign does not trust it", newSignCommand(), []string{"--key", "cosign.key"}, exitUnknown, "certificate"},
		{"sign needs certificates", newSignCommand(), []string{"--key", "cosign.key", "--registry-cacert", "none.pem"}, exitMisuse, "none.pem holds no certificate"},
		{"sign needs the file", newSignCommand(), []string{"--key", "cosign.key", "--registry-cacert", "missing.pem"}, exitMisuse, "--registry-cacert: open missing.pem"},
		{"sign with its authority", newSignCommand(), []string{"--key", "cosign.key", "--registry-cacert", "ca.pem"}, exitHolds, "--registry-cacert ca.pem " + host},
		{"sign whoever it is", newSignCommand(), []string{"--key", "cosign.key", "--allow-insecure-registry"}, exitHolds, "--allow-insecure-registry " + host},
		{"triangulate with its authority", newTriangulateCommand(), []string{"--registry-cacert", "ca.pem"}, exitHolds, "/acme/web:sha256-"},
		{"verify does not trust it", newVerifyCommand(), []string{"--key", "cosign.pub"}, exitUnknown, "unknown authority"},
		{"verify checks always", newVerifyCommand(), []string{"--key", "cosign.pub", "--allow-insecure-registry"}, exitMisuse, "--registry-cacert"},
		{"verify with its authority", newVerifyCommand(), []string{"--key", "cosign.pub", "--registry-cacert", "ca.pem"}, exitHolds, "docker-manifest-digest"},
		{"verify, HTTP allowed", newVerifyCommand(), []string{"--key", "cosign.pub", "--registry-cacert", "ca.pem", "--allow-http-registry"}, exitHolds, "docker-manifest-digest"},
		{"verify asks in time", newVerifyCommand(), []string{"--key", "cosign.pub", "--registry-cacert", "ca.pem", "-t", "1ns"}, exitUnknown, ""},
	} {
		var out output
		code, err := out.execute(t.Context(), row.cmd, strings.NewReader(""), append(row.args, image)...)
		text := out.stdout.String()
		if err != nil {
			text = err.Error()
		}
		if code != row.code || !strings.Contains(text, row.want) {
			t.Errorf("%s: exit %d, %v; want %d with %q\n%s", row.what, code, err, row.code, row.want, out.stdout.String())
		}
	}
}

func TestVerifySaysWhichKey(t *testing.T) {
	isolate(t)
	writeFile(t, "release.pub", "")
	writeFile(t, "keys/ci.pub", "")
	for key, want := range map[string]string{
		"release.pub": "release.pub", "keys/ci.pub": "ci.pub", "env://KEY": "env://KEY", "MFkwEwYHKoZIzj0CAQ": "the given key",
	} {
		if got := keyName(key); got != want {
			t.Errorf("--key %s is called %s, want %s", key, got, want)
		}
	}
}

// TestVerifyThroughAVidimusThatRefuses says where the reason is, since what a
// registry says itself is not shown.
func TestVerifyThroughAVidimusThatRefuses(t *testing.T) {
	isolate(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, `{"errors":[{"code":"DENIED","message":"Vidimus refused it"}]}`)
	}))
	t.Cleanup(server.Close)
	public, err := signer.EncodePublicKey(generateKey(t).Public())
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, "cosign.pub", string(public))
	var out output
	code, err := out.execute(t.Context(), newVerifyCommand(), nil, "--key", "cosign.pub", strings.TrimPrefix(server.URL, "http://")+"/acme/web:v1")
	if code != exitUnknown || !strings.Contains(err.Error(), "vidimus decisions --image acme/web says why") || strings.Contains(err.Error(), "refused it") {
		t.Errorf("exit %d, %v", code, err)
	}
}
