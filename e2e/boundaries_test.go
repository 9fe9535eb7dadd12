package e2e_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// rooms says which of our packages each of our packages may import. A package
// that is not listed fails the test: a new room is a decision.
var rooms = map[string]struct {
	imports []string
	why     string
}{
	"vidimus/verifier/envelope": {nil, "the formats that are signed are read by nothing but the standard library"},
	"vidimus/verifier":          {[]string{"vidimus/verifier/envelope"}, "evidence is judged without knowing of policies or HTTP"},
	"vidimus/policy":            {[]string{"vidimus/verifier", "vidimus/verifier/envelope"}, "a decision is pure: it knows evidence, and not who serves it"},
	"vidimus/proxy":             {[]string{"vidimus/policy", "vidimus/proxy/access", "vidimus/proxy/hook", "vidimus/verifier", "vidimus/verifier/envelope"}, "the proxy sees stores and upstreams as interfaces of its own; of access it takes the words for callers and actions, of hook those for what registries tell"},
	"vidimus/proxy/access":      {[]string{"vidimus/policy"}, "who may do what is told by names alone, without knowing what is served"},
	"vidimus/proxy/hook":        {nil, "what registries tell is read and kept without knowing what comes of it"},
	"vidimus/policy/rego":       {nil, "a module sees its input and nothing else, and policy sees a module as an interface of its own"},
	"vidimus/proxy/store":       {nil, "a store is not trusted, so it need not know what for"},
	"vidimus/proxy/upstream":    {nil, "an upstream's client holds credentials and has nothing to decide"},
	"vidimus/signer":            {[]string{"vidimus/verifier/envelope"}, "who signs and who verifies share formats and no code"},
	"vidimus/signer/bounded":    {nil, "that a service may hang is all that is known of it"},
	"vidimus/signer/identity":   {nil, "who signs without a key is found out in one place, which knows of no signature"},
	"vidimus/signer/kms":        {[]string{"vidimus/signer/bounded"}, "keys in a KMS are opened in one place, which knows which schemes there are"},
	"vidimus/signer/sigstore":   {[]string{"vidimus/signer", "vidimus/signer/bounded", "vidimus/verifier/envelope"}, "the services of Sigstore prove signatures, and know nothing of registries"},
	"vidimus/carrier": {[]string{"vidimus/signer", "vidimus/verifier/envelope"},
		"evidence is carried as bytes and merged as a signer does it; what it is worth is not asked"},
	"vidimus/cmd/vidimus": {[]string{
		"vidimus/carrier", "vidimus/policy", "vidimus/policy/rego", "vidimus/proxy", "vidimus/proxy/access", "vidimus/proxy/hook", "vidimus/proxy/store", "vidimus/proxy/upstream",
		"vidimus/signer", "vidimus/signer/identity", "vidimus/signer/kms", "vidimus/signer/sigstore", "vidimus/verifier", "vidimus/verifier/envelope",
	}, "the only place that knows every part"},
	"vidimus/e2e":        {nil, "tests only"},
	"vidimus/e2e/bench":  {[]string{"vidimus/signer"}, "what is measured is measured from outside, as a process; images are signed as vidimus sign does"},
	"vidimus/e2e/lying":  {nil, "an upstream for tests signs by itself, so that our own faults cannot hide each other"},
	"vidimus/e2e/notary": {nil, "who proves signatures for tests knows nothing of what is to be proven by them"},
	"vidimus/e2e/real":   {[]string{"vidimus/e2e/lying"}, "real components are told about nothing of ours but the binary"},
}

// fences says which packages may be imported directly by which of ours, outside
// tests. A path ending in "/..." means all below it as well.
var fences = []struct {
	path string
	by   []string
	why  string
}{
	{"gopkg.in/yaml.v3", []string{"vidimus/cmd/vidimus"}, "configuration is read in one place"},
	{"net/http/pprof", []string{"vidimus/cmd/vidimus"}, "profiles are shown on the metrics listener only"},
	{"go.etcd.io/bbolt", []string{"vidimus/proxy/store"}, "the index is the store's affair"},
	{"github.com/open-policy-agent/opa/...", []string{"vidimus/policy/rego"}, "what a module may call is decided in one place"},
	{"github.com/spf13/cobra", []string{"vidimus/cmd/vidimus"}, "a library has no command line"},
	{"log", []string{"vidimus/cmd/vidimus", "vidimus/e2e/..."}, "libraries return errors; only cmd prints"},
	{"github.com/vbauerster/mpb/...", []string{"vidimus/cmd/vidimus"}, "progress is for a terminal, and only cmd has one"},
	{"os/exec", []string{"vidimus/proxy/upstream", "vidimus/cmd/vidimus", "vidimus/e2e/..."},
		"docker's credential helpers are the only programs that are started, and a browser for a person at a terminal who signs in"},
	{"github.com/coreos/go-oidc/...", []string{"vidimus/signer/identity"}, "OpenID issuers are asked in one place"},
	{"golang.org/x/oauth2/...", []string{"vidimus/signer/identity"}, "OpenID issuers are asked in one place"},
	{"compress/...", []string{"vidimus/cmd/vidimus", "vidimus/e2e/..."},
		"signed bytes are never decompressed: a bomb stays packed; only oci.file of policy eval unpacks layers, within bounds, for a person"},
	{"github.com/klauspost/compress/...", []string{"vidimus/cmd/vidimus"}, "as compress: only oci.file of policy eval unpacks layers"},
	{"github.com/sigstore/sigstore-go/pkg/testing/...", []string{"vidimus/e2e/notary"}, "test code stays out of the program"},
	{"github.com/sigstore/sigstore-go/pkg/tuf", []string{"vidimus/cmd/vidimus"}, "a trust root is fetched by who may use the network; a library is given it"},
	{"github.com/theupdateframework/...", []string{"vidimus/cmd/vidimus"}, "a trust root is fetched by who may use the network; a library is given it"},
	{"github.com/distribution/distribution/v3/registry/handlers", []string{}, "its proxy serves what it did not verify"},
	{"github.com/distribution/distribution/v3/registry/proxy/...", []string{}, "it serves what it did not verify"},
	{"github.com/google/go-containerregistry/pkg/v1/remote/...", []string{"vidimus/cmd/vidimus", "vidimus/proxy/upstream", "vidimus/signer", "vidimus/e2e/..."},
		"it believes the digest header and any schema 1 body: the proxy hashes by itself"},
	{"github.com/google/go-containerregistry/pkg/name", []string{"vidimus/cmd/vidimus", "vidimus/proxy/upstream", "vidimus/signer", "vidimus/e2e/..."},
		"it accepts a..b and fills in Docker Hub and latest: never on a client's input"},
	{"github.com/sigstore/sigstore-go/pkg/sign/...", []string{"vidimus/signer/sigstore"}, "it speaks with the services of Sigstore, which nothing that verifies does"},
	{"github.com/sigstore/sigstore/pkg/signature/kms/...", []string{"vidimus/signer/kms"}, "it runs a program for a scheme that it does not know"},
	{"github.com/sigstore/rekor/...", []string{"vidimus/signer/sigstore"}, "it speaks with the services of Sigstore, which nothing that verifies does"},
	{"golang.org/x/crypto/bcrypt", []string{"vidimus/proxy/access"}, "what anybody can have computed is bounded in one place"},
	{"crypto/md5", []string{}, "broken"},
	{"crypto/sha1", []string{}, "broken"},
	{"crypto/dsa", []string{}, "no key of cosign's is one"},
	{"math/rand/...", []string{"vidimus/proxy/upstream", "vidimus/signer", "vidimus/e2e/..."}, "jitter and free ports only; identifiers come from crypto/rand"},
	{"testing/...", []string{"vidimus/e2e/..."}, "test code stays out of the program"},
	{"vidimus/e2e/...", []string{"vidimus/e2e/..."}, "test code stays out of the program"},
	{"vidimus/e2e/notary", []string{}, "only tests import what makes proof for them"},
}

// absent says what may not be in the binary at all, however it would come in.
var absent = []struct{ path, why string }{
	{"github.com/sigstore/cosign/...", "495 modules and an API made for its own command line; its binaries are what we test against"},
	{"github.com/spf13/viper/...", "one file is the configuration, and nothing overrides it from elsewhere"},
	{"sigs.k8s.io/yaml", "one YAML package"},
	{"github.com/goccy/go-yaml", "one YAML package"},
	{"github.com/google/go-cmp/...", "test code stays out of the program"},
	{"github.com/rogpeppe/go-internal/...", "test code stays out of the program"},
	{"go.uber.org/goleak/...", "test code stays out of the program"},
	{"github.com/c2sp/wycheproof/...", "test code stays out of the program"},
	{"plugin", "nothing is loaded at run time"},
}

// withTesting lists the libraries that link package testing for helpers of their
// own, which nothing of ours calls. No flag of theirs reaches our command line:
// testing registers them only when asked to.
var withTesting = []string{
	"github.com/digitorus/pkcs7",                 // timestamps, by sigstore-go
	"github.com/hashicorp/vault/api/tokenhelper", // keys in Vault, by sigstore
}

// singleFile lists what exactly one file of the module may import, so that its
// replacement is one line away, or its exposure is seen at once.
var singleFile = []string{"gopkg.in/yaml.v3", "net/http/pprof"}

// listed is what go list says of a package.
type listed struct {
	ImportPath string
	Dir        string
	Standard   bool
	GoFiles    []string
	Imports    []string
}

func goList(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json=ImportPath,Dir,Standard,GoFiles,Imports"}, args...)...)
	cmd.Dir = ".."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var packages []listed
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

// under reports whether path is what pattern says.
func under(pattern, path string) bool {
	prefix, below := strings.CutSuffix(pattern, "/...")
	return path == prefix || below && strings.HasPrefix(path, prefix+"/")
}

func underAny(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return under(pattern, path) })
}

func TestImportBoundaries(t *testing.T) {
	packages := goList(t, "./...")
	if len(packages) < len(rooms)-1 {
		t.Fatalf("go list sees %d packages", len(packages))
	}
	for _, p := range packages {
		room, known := rooms[p.ImportPath]
		if !known {
			t.Errorf("%s is a new room: say in this test what it may import and why", p.ImportPath)
			continue
		}
		for _, imported := range p.Imports {
			if strings.HasPrefix(imported, "vidimus/") && !slices.Contains(room.imports, imported) {
				t.Errorf("%s imports %s: %s", p.ImportPath, imported, room.why)
			}
			for _, fence := range fences {
				if under(fence.path, imported) && !underAny(fence.by, p.ImportPath) {
					t.Errorf("%s imports %s: %s", p.ImportPath, imported, fence.why)
				}
			}
			if p.ImportPath == "vidimus/verifier/envelope" && strings.Contains(strings.Split(imported, "/")[0], ".") {
				t.Errorf("%s imports %s: %s", p.ImportPath, imported, room.why)
			}
		}
	}
}

func TestNothingUnwantedIsInTheBinary(t *testing.T) {
	for _, p := range goList(t, "-deps", "./cmd/vidimus") {
		for _, ban := range absent {
			if under(ban.path, p.ImportPath) {
				t.Errorf("%s is in the binary: %s", p.ImportPath, ban.why)
			}
		}
		if !p.Standard && slices.Contains(p.Imports, "testing") && !slices.Contains(withTesting, p.ImportPath) {
			t.Errorf("%s, which links testing, is in the binary: test code stays out of the program", p.ImportPath)
		}
	}
}

func TestSomeImportsAreInOneFileOnly(t *testing.T) {
	files := map[string][]string{}
	for _, p := range goList(t, "./...") {
		for _, file := range p.GoFiles {
			path := filepath.Join(p.Dir, file)
			parsed, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, spec := range parsed.Imports {
				imported, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					t.Fatal(err)
				}
				files[imported] = append(files[imported], path)
			}
		}
	}
	for _, imported := range singleFile {
		if len(files[imported]) != 1 {
			t.Errorf("%s is imported by %d files, want 1: %q", imported, len(files[imported]), files[imported])
		}
	}
}
