package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"vidimus/signer"
)

// startVault is the transit engine of a Vault with the public key of one fixture, which
// answers only while it is up.
func startVault(t *testing.T, public string) (up *atomic.Bool, asked *atomic.Int64) {
	t.Helper()
	up, asked = new(atomic.Bool), new(atomic.Int64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		if !up.Load() {
			http.Error(w, fmt.Sprintf(`{"errors":["sealed, attempt %d"]}`, asked.Load()), http.StatusBadRequest)
			return
		}
		key, _ := json.Marshal(public)
		fmt.Fprintf(w, `{"data":{"latest_version":1,"keys":{"1":{"name":"P-256","public_key":%s}}}}`, key)
	}))
	server.Config.SetKeepAlivesEnabled(false) // a bubble of synctest waits for connections
	t.Cleanup(server.Close)
	t.Setenv("VAULT_ADDR", server.URL)
	t.Setenv("VAULT_TOKEN", "token")
	return up, asked
}

const kmsConfig = `
version: 1
upstreams: {docker.io: {}}
authorities: {release: {keys: ["hashivault://release"]}, other: {keys: [other.pub]}}
policies:
  - {match: "docker.io/a/**", require: release}
  - {match: "docker.io/b/**", require: other}
`

func TestAKMSThatIsOutSuspendsItsAuthorityUntilItAnswers(t *testing.T) {
	up, _ := startVault(t, readFixture(t, "release.pub"))
	reload(t, map[string]string{"vidimus.yaml": kmsConfig}, func(r *reloading) {
		r.wantSuspended("release")
		if !strings.Contains(r.log.String(), "hashivault://release") {
			r.Errorf("the log does not name the key:\n%s", &r.log)
		}
		r.pass(time.Minute) // it is asked again, and nothing happens
		r.wantRevisions(0)

		up.Store(true)
		r.pass(retryEvery + time.Second)
		r.wantRevisions(1)
		r.wantSuspended()

		up.Store(false)
		writeFile(r.T, "vidimus.yaml", strings.Replace(kmsConfig, "docker.io/b/**", "docker.io/c/**", 1))
		r.pass(withinPromise)
		r.wantRevisions(2) // a key that was known once is not missed
		r.wantSuspended()

		os.Remove("other.pub")
		r.pass(withinPromise)
		r.wantSuspended("other")
	})
}

func TestConfigCheckAsksNoKMS(t *testing.T) {
	_, asked := startVault(t, "")
	inDirectory(t, map[string]string{"vidimus.yaml": kmsConfig})
	var out output
	code, err := out.execute(t.Context(), newConfigCheckCommand(), nil, "--config", "vidimus.yaml")
	if code != exitHolds || asked.Load() != 0 || !strings.Contains(out.stdout.String(), "release, 0 keys, and what is in a KMS, which was not asked") {
		t.Errorf("exit %d, %v, asked %d times\n%s", code, err, asked.Load(), out.stdout.String())
	}
}

func TestCommandsWithAKeyInAKMS(t *testing.T) {
	isolate(t)
	public, err := signer.EncodePublicKey(generateKey(t).Public())
	if err != nil {
		t.Fatal(err)
	}
	up, _ := startVault(t, string(public))
	var out output
	code, err := out.execute(t.Context(), newPublicKeyCommand(), nil, "--key", "hashivault://release")
	if code != exitUnknown || !strings.Contains(err.Error(), "hashivault://release") {
		t.Errorf("while it is out: exit %d, %v", code, err)
	}
	up.Store(true)
	if code, err = out.execute(t.Context(), newPublicKeyCommand(), nil, "--key", "hashivault://release"); code != exitHolds || out.stdout.String() != string(public) {
		t.Errorf("exit %d, %v, %s", code, err, out.stdout.String())
	}
	up.Store(false)
	code, err = out.execute(t.Context(), newVerifyCommand(), nil, "--key", "hashivault://release", "reg.test/a:b")
	if code != exitUnknown || !strings.Contains(err.Error(), "could not tell: --key: hashivault://release") {
		t.Errorf("verify while it is out: exit %d, %v", code, err)
	}
	for _, key := range []string{"evil://release", "k8s://ns/secret"} {
		for _, args := range [][]string{{"public-key"}, {"verify", "reg.test/a:b"}, {"sign", "reg.test/a:b"}} {
			root := newRootCommand()
			code, err := out.execute(t.Context(), root, strings.NewReader(""), append(args, "--key", key)...)
			if code != exitMisuse || !strings.Contains(err.Error(), "are not supported") {
				t.Errorf("%v --key %s: exit %d, %v", args, key, code, err)
			}
		}
	}
}
