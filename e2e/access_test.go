package e2e_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"vidimus/e2e/lying"
	"vidimus/e2e/real"
)

// The passwords of the users of a guarded proxy. They may be seen nowhere.
const (
	pullerPassword = "c4nary-puller-33d1"
	otherPassword  = "c4nary-other-8a02"
)

// htpasswd is a file of user, password, user, password...
func htpasswd(t *testing.T, pairs ...string) string {
	t.Helper()
	var file strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		hash, err := bcrypt.GenerateFromPassword([]byte(pairs[i+1]), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&file, "%s:%s\n", pairs[i], hash)
	}
	return file.String()
}

// guarded is a proxy before a real registry with two signed images, acme/web and
// open/web, to which list says who may do what.
func guarded(t *testing.T, list string) (*real.Vidimus, string) {
	t.Helper()
	addr, key, dir := real.StartDistribution(t), lying.P256(), real.Dir(t)
	for _, repository := range []string{"acme/web", "open/web"} {
		web := real.Busybox(t, real.OCI, "signed")
		real.Push(t, addr, repository, web, "v1")
		real.Sign(t, addr, repository, web, key)
	}
	key.WritePublic(t, dir, "release.pub")
	real.Write(t, dir, "users", htpasswd(t, "puller", pullerPassword, "other", otherPassword))
	return real.StartVidimus(t, built(t, racing), dir, fmt.Sprintf(`
upstreams: {docker.io: {url: "http://%s"}}
authorities: {release: {keys: [release.pub]}}
policies: [{match: "docker.io/**", require: release}]
auth: {htpasswd: users, access: [%s]}
decisions: {path: decisions.json}
`, addr, list)), dir
}

const (
	pullerPulls = `{subjects: [puller], match: "docker.io/acme/**", actions: [pull]}`
	otherPulls  = `{subjects: [other], match: "docker.io/other/**", actions: [pull]}`
	allPullOpen = `{subjects: [anonymous, authenticated], match: "docker.io/open/**", actions: [pull]}`
)

// credentials writes what docker and its kin remember of a login at addr, and
// returns its directory.
func credentials(t *testing.T, addr string, l login) string {
	t.Helper()
	dir := t.TempDir()
	if l.user == "" {
		real.Write(t, dir, "config.json", `{"auths": {}}`)
		return dir
	}
	real.Write(t, dir, "config.json", fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, addr, base64.StdEncoding.EncodeToString([]byte(l.user+":"+l.password))))
	return dir
}

// login is a user and password for one pull; both empty for nobody.
type login struct{ user, password string }

// puller is a client that pulls a repository of docker.io through a proxy as
// somebody.
type puller func(l login, repository string) real.Result

// pullers start the clients that pull from v.
func pullers(v *real.Vidimus) map[string]func(*testing.T) puller {
	authfile := func(t *testing.T, l login) string { return filepath.Join(credentials(t, v.Addr, l), "config.json") }
	return map[string]func(*testing.T) puller{
		"docker": func(t *testing.T) puller {
			docker := real.StartDocker(t, v.Addr)
			return func(l login, repository string) real.Result {
				return docker.Command(t, []string{"DOCKER_CONFIG=" + credentials(t, v.Addr, l)}, "pull", v.Addr+"/docker.io/"+repository+":v1")
			}
		},
		"containerd": func(t *testing.T) puller {
			containerd := real.StartContainerd(t, v.Addr, "docker.io")
			return func(l login, repository string) real.Result {
				var flags []string
				if l.user != "" {
					flags = []string{"--user", l.user + ":" + l.password}
				}
				return containerd.PullWith(t, "docker.io/"+repository+":v1", flags...)
			}
		},
		"podman": func(t *testing.T) puller {
			podman := real.NewPodman(t, v.Addr, "docker.io")
			return func(l login, repository string) real.Result {
				return podman.PullWith(t, "docker.io/"+repository+":v1", "--authfile", authfile(t, l))
			}
		},
		"skopeo": func(t *testing.T) puller {
			skopeo := real.NewSkopeo(t, v.Addr, "docker.io")
			return func(l login, repository string) real.Result {
				return skopeo.Command(t, "copy", "--src-authfile", authfile(t, l), "docker://docker.io/"+repository+":v1", "dir:"+t.TempDir())
			}
		},
	}
}

// TestClientsWhereSomeIsForEverybody pulls what is for everybody as nobody and as
// a user, and what is for users as a user: with the clients that log in where they
// were not asked to at first.
func TestClientsWhereSomeIsForEverybody(t *testing.T) {
	t.Parallel()
	v, _ := guarded(t, allPullOpen+","+pullerPulls)
	for name, start := range pullers(v) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pull := start(t)
			for _, c := range []struct {
				login
				repository string
				may        bool
			}{
				{login{}, "open/web", true},
				{login{}, "acme/web", false},
				{login{"puller", otherPassword}, "acme/web", false},
				{login{"puller", pullerPassword}, "open/web", true},
				{login{"puller", pullerPassword}, "acme/web", true},
			} {
				if name == "docker" && c.may && c.repository == "acme/web" {
					continue // its version decides: docs/access.md
				}
				if r := pull(c.login, c.repository); (r.Code == 0) != c.may {
					t.Errorf("%q pulls %s: exit code %d\n%s", c.user, c.repository, r.Code, r.Output())
				}
			}
		})
	}
}

// TestClientsThatLogIn pulls with the real programs as a user who may, as one who
// may not, as nobody, and with a wrong password.
func TestClientsThatLogIn(t *testing.T) {
	t.Parallel()
	v, dir := guarded(t, pullerPulls+","+otherPulls)
	t.Run("docker login", func(t *testing.T) { dockerLogsIn(t, real.StartDocker(t, v.Addr), v.Addr) })
	t.Run("clients", func(t *testing.T) {
		for name, start := range pullers(v) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				pull := start(t)
				for _, who := range []struct {
					login
					may  bool
					says string
				}{
					{login{"other", otherPassword}, false, "other may not pull from docker.io/acme/web"},
					{login{"puller", otherPassword}, false, ""},
					{login{}, false, ""},
					{login{"puller", pullerPassword}, true, ""},
				} {
					if name == "containerd" {
						who.says = "" // it shows a status
					}
					if r := pull(who.login, "acme/web"); (r.Code == 0) != who.may || !strings.Contains(r.Output(), who.says) {
						t.Errorf("%+v: exit code %d\n%s", who.login, r.Code, r.Output())
					}
				}
			})
		}
	})
	seen := outputs{"the log": v.Output()}
	if status := seen.get(t, "http://"+v.Metrics+"/metrics"); status != http.StatusOK {
		t.Error(status)
	}
	record, err := os.ReadFile(filepath.Join(dir, "decisions.json"))
	if err != nil {
		t.Fatal(err)
	}
	seen["the record"] = string(record)
	if !strings.Contains(seen["the record"], `"caller":"puller"`) || !strings.Contains(seen["the log"], `"caller":"other"`) {
		t.Error("callers are not named")
	}
	for where, text := range seen {
		for _, s := range []secret{{"puller", pullerPassword}, {"other", otherPassword}, {"puller", otherPassword}} {
			for _, spelling := range s.spellings() {
				if strings.Contains(text, spelling) {
					t.Errorf("%s shows %s", where, spelling)
				}
			}
		}
		if strings.Contains(text, "$2a$") {
			t.Errorf("%s shows a hash", where)
		}
	}
}

// dockerLogsIn: docker login tells a right password from a wrong one.
func dockerLogsIn(t *testing.T, docker *real.Docker, addr string) {
	t.Helper()
	config := []string{"DOCKER_CONFIG=" + t.TempDir()}
	if r := docker.Command(t, config, "login", "-u", "puller", "-p", otherPassword, addr); r.Code == 0 || !strings.Contains(r.Output(), "401 Unauthorized") {
		t.Errorf("a wrong password: exit code %d\n%s", r.Code, r.Output())
	}
	if r := docker.Command(t, config, "login", "-u", "puller", "-p", pullerPassword, addr); r.Code != 0 || !strings.Contains(r.Output(), "Login Succeeded") {
		t.Errorf("the right password: exit code %d\n%s", r.Code, r.Output())
	}
}
