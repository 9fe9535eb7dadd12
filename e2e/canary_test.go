package e2e_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vidimus/e2e/lying"
	"vidimus/e2e/real"
)

// secret is a password that must show up nowhere but at its upstream.
type secret struct{ username, password string }

// spellings are the forms in which it could leak.
func (s secret) spellings() []string {
	return []string{s.password, base64.StdEncoding.EncodeToString([]byte(s.username + ":" + s.password))}
}

// outputs collects what a process and a person next to it can see.
type outputs map[string]string

func (o outputs) get(t *testing.T, url string) int {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	o["the answer to "+url] = fmt.Sprint(resp.Header, string(body))
	return resp.StatusCode
}

func (o outputs) files(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		o["the file "+path] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (o outputs) command(t *testing.T, env []string, args ...string) real.Result {
	t.Helper()
	r := vidimus(t, "", env, args...)
	o["what vidimus "+args[0]+" prints"] += r.Output()
	return r
}

// Credentials of every kind are used, with success and in vain, by upstreams
// that behave and by such that want to learn them; then everything that anyone
// can see is searched for them.
func TestSecretsStayWhereTheyBelong(t *testing.T) {
	t.Parallel()
	basic := secret{"robot", "canary-basic-5b1f"}
	bearer := secret{"robot", "canary-bearer-9c07"}
	docker := secret{"robot", "canary-docker-e2d4"}
	wrong := secret{"robot", "canary-wrong-77aa"}
	lured := secret{"robot", "canary-lured-31c8"}
	phrase := secret{"", "canary-phrase-a90b"}

	attacker := lying.StartAt(t, "127.0.0.2:0")
	key, web := lying.P256(), lying.Image("web")
	start := func(access lying.Access) *lying.Registry {
		up := lying.Start(t)
		up.PushSigned("acme/web", web, key, "v1")
		up.Require(access)
		return up
	}
	layer := lying.Digest(web.Blobs[1]).String()
	asks := func(s secret, bearer bool) lying.Access {
		return lying.Access{Username: s.username, Password: s.password, Bearer: bearer}
	}
	good := []*lying.Registry{start(asks(basic, false)), start(asks(bearer, true)), start(asks(docker, true))}
	refusing := start(asks(basic, true))
	realm := start(lying.Access{Username: lured.username, Password: lured.password, Bearer: true, Realm: attacker.URL + "/token"})
	redirecting := start(asks(lured, false))
	redirecting.Lie(lying.Blob("", lying.Digest(web.Blobs[1])), lying.When(200, lying.Redirect(307, attacker.URL+"/stolen")))

	dir := real.Dir(t)
	key.WritePublic(t, dir, "release.pub")
	real.Write(t, dir, "secrets/basic", basic.password+"\n")
	real.Write(t, dir, "secrets/lured", lured.password)
	real.Write(t, dir, "secrets/docker.json", fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`,
		good[2].Host, docker.spellings()[1]))
	env := []string{"BEARER=" + bearer.password, "WRONG=" + wrong.password}
	v := real.StartVidimus(t, built(t, racing), dir, fmt.Sprintf(`
cache: {directory: cache}
upstreams:
  basic.test: {url: %q, username: robot, passwordFile: secrets/basic}
  bearer.test: {url: %q, username: robot, passwordEnv: BEARER}
  docker.test: {url: %q, credentials: {dockerConfig: secrets/docker.json}}
  wrong.test: {url: %q, username: robot, passwordEnv: WRONG}
  realm.test: {url: %q, username: robot, passwordFile: secrets/lured}
  redirect.test: {url: %q, username: robot, passwordFile: secrets/lured}
authorities: {release: {keys: [release.pub]}}
policies:
  - {match: "*.test/**", require: release}
decisions: {path: decisions.json}
log: {level: debug}
`, good[0].URL, good[1].URL, good[2].URL, refusing.URL, realm.URL, redirecting.URL), env...)

	seen := outputs{}
	api := "http://" + v.Addr + "/v2/"
	for _, name := range []string{"basic.test", "bearer.test", "docker.test"} {
		for _, what := range []string{"manifests/v1", "blobs/" + layer} {
			if code := seen.get(t, api+name+"/acme/web/"+what); code != http.StatusOK {
				t.Errorf("%s of %s: status %d: the credentials do not work", what, name, code)
			}
		}
		if code := seen.get(t, api+name+"/acme/absent/manifests/v1"); code == http.StatusOK {
			t.Errorf("%s serves what is not there", name)
		}
	}
	for _, name := range []string{"wrong.test", "realm.test"} {
		if code := seen.get(t, api+name+"/acme/web/manifests/v1"); code == http.StatusOK {
			t.Errorf("%s is served", name)
		}
	}
	if code := seen.get(t, api+"redirect.test/acme/web/manifests/v1"); code != http.StatusOK {
		t.Errorf("redirect.test: status %d", code)
	}
	seen.get(t, api+"redirect.test/acme/web/blobs/"+layer)
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		seen.get(t, "http://"+v.Metrics+path)
	}
	seen.command(t, env, "config", "check", "--config", v.Config)
	for _, name := range []string{"basic.test", "wrong.test", "realm.test"} {
		seen.command(t, env, "explain", "--config", v.Config, name+"/acme/web:v1")
	}
	pair := newKeyPair(t)
	if r := seen.command(t, []string{"COSIGN_PASSWORD=" + phrase.password}, "sign", "--key", pair.private, good[0].Host+"/acme/web:v1"); r.Code == 0 {
		t.Error("sign takes a wrong password")
	}
	seen.command(t, append(password, "DOCKER_CONFIG="+filepath.Join(dir, "secrets")), "sign", "--key", pair.private, refusing.Host+"/acme/web:v1")

	t.Run("nobody but the upstream gets them", func(t *testing.T) {
		lured := attacker.Requests()
		if len(lured) == 0 {
			t.Error("not even the redirect was followed: nothing was tried")
		}
		for _, q := range lured {
			for name, values := range q.Header {
				if name == "Authorization" || name == "Cookie" || strings.Contains(strings.Join(values, " "), "canary") {
					t.Errorf("the attacker was sent %s: %s with %s", name, values, q)
				}
			}
			if strings.Contains(q.String(), "canary") {
				t.Errorf("the attacker was sent %s", q)
			}
		}
	})

	if code := v.Stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	seen["what serve prints"] = v.Output()
	seen.files(t, filepath.Join(dir, "cache"))
	seen.files(t, filepath.Join(dir, "decisions.json"))
	t.Run("nothing shows them", func(t *testing.T) {
		for _, s := range []secret{basic, bearer, docker, wrong, lured, phrase, {"", "lying-token-"}, {"", real.Password}} {
			for _, spelling := range s.spellings() {
				for where, text := range seen {
					if strings.Contains(text, spelling) {
						t.Errorf("%s is in %s:\n%.2000s", spelling, where, text)
					}
				}
			}
		}
		if !strings.Contains(seen["what serve prints"], "acme/web") || seen["the file "+filepath.Join(dir, "decisions.json")] == "" {
			t.Error("the search saw no log or no decisions")
		}
	})
}
