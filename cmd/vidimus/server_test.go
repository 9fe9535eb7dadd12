package main

import (
	"bytes"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

// startServer makes a server without running it.
func startServer(t *testing.T, from source, stderr *bytes.Buffer) (*server, error) {
	t.Helper()
	s, err := newServer(serverConfig{From: from, Lookup: lookupIn(nil), Stdout: &bytes.Buffer{}, Stderr: stderr, Drain: time.Second})
	if err == nil {
		t.Cleanup(s.close)
	}
	return s, err
}

const quietConfig = "http: {addr: '127.0.0.1:0'}\nmetrics: {addr: '127.0.0.1:0'}\n"

func TestReadinessTellsWhatDoesNotCountAndWhatIsLetThrough(t *testing.T) {
	until := time.Now().Add(48 * time.Hour).UTC().Format(time.DateOnly)
	digest := "sha256:" + strings.Repeat("0", 64)
	inDirectory(t, map[string]string{"vidimus.yaml": plainConfig + quietConfig + `
exceptions:
  - {match: [docker.io/a/x, docker.io/a/y], digests: ["` + digest + `"], until: ` + until + `, reason: INC-1}
  - {match: docker.io/a/z, digests: ["` + digest + `"], until: 2020-01-01, reason: INC-2}
`})
	s, err := startServer(t, fromFile("vidimus.yaml"), &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	s.reloader.use = func(r *revision) error { return s.proxy.Use(r.Proxy) }
	s.reloader.suspend(map[string]string{"release": "release.pub: public key: no key"})

	answer := httptest.NewRecorder()
	s.health().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	body := answer.Body.String()
	if answer.Code != http.StatusOK {
		t.Errorf("status is %d", answer.Code)
	}
	for _, want := range []string{
		"authority release is suspended: release.pub: public key: no key\n",
		"exception until " + until + " for docker.io/a/x docker.io/a/y: INC-1\n",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("/readyz does not say %q:\n%s", want, body)
		}
	}
	if strings.Contains(body, "INC-2") {
		t.Errorf("/readyz tells of an exception that has ended:\n%s", body)
	}
}

func TestStartSaysWhatStarts(t *testing.T) {
	inDirectory(t, map[string]string{"vidimus.yaml": plainConfig + quietConfig})
	var log bytes.Buffer
	s, err := startServer(t, fromFile("vidimus.yaml"), &log)
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(log.String(), "\n")
	for _, want := range []string{`"msg":"starting"`, `"version":"` + version() + `"`, `"revision":"` + s.reloader.Revision().ID + `"`} {
		if !strings.Contains(first, want) {
			t.Errorf("the first line of the log lacks %s: %s", want, first)
		}
	}
}

func TestAddressThatIsTakenSaysWhatToDo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken, free := l.Addr().String(), "127.0.0.1:0"
	flags := func(api, metrics, admin string) source {
		return fromFlags(quickFlags{AllowRest: true, Addr: api, MetricsAddr: optionalText{metrics, true}, AdminAddr: optionalText{admin, true}})
	}
	file := func(api, metrics, admin string) source {
		writeFile(t, "vidimus.yaml", "version: 1\nupstreams: {docker.io: {}}\nhttp: {addr: '"+api+"'}\nmetrics: {addr: '"+metrics+"'}\nadmin: {addr: '"+admin+"'}\n")
		return fromFile("vidimus.yaml")
	}
	inDirectory(t, nil)
	const remedy = "end what listens there, or write another address"
	for name, row := range map[string]struct {
		from        source
		begin, fits string
	}{
		"the API by flag":   {flags(taken, free, ""), "--addr: ", remedy},
		"metrics by flag":   {flags(free, taken, ""), "--metrics-addr: ", remedy + `, or "" for none`},
		"admin by flag":     {flags(free, "", taken), "--admin-addr: ", remedy + `, or "" for none`},
		"the API of a file": {file(taken, free, ""), "http.addr: ", remedy},
	} {
		_, err := startServer(t, row.from, &bytes.Buffer{})
		if err == nil || !strings.HasPrefix(err.Error(), row.begin) || !strings.HasSuffix(err.Error(), "; "+row.fits) {
			t.Errorf("%s: the error is %v, want %s ...; %s", name, err, row.begin, row.fits)
		}
	}
	if _, err := startServer(t, file(free, taken, ""), &bytes.Buffer{}); err == nil || !strings.HasPrefix(err.Error(), "metrics.addr: ") {
		t.Errorf("metrics of a file: the error is %v", err)
	}
}

func TestListenersThatAreSwitchedOffAreNotOpened(t *testing.T) {
	inDirectory(t, nil)
	s, err := startServer(t, fromFlags(quickFlags{AllowRest: true, Addr: "127.0.0.1:0", MetricsAddr: optionalText{"", true}}), &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.listeners) != 1 || s.listeners[0].name != "registry" {
		t.Errorf("%d listeners are open, want the registry API's alone", len(s.listeners))
	}
}

func TestRecordThatCannotBeWrittenEndsTheStart(t *testing.T) {
	for name, path := range map[string]string{"in no directory": "nowhere/decisions.json", "a directory": "directory"} {
		t.Run(name, func(t *testing.T) {
			inDirectory(t, map[string]string{"vidimus.yaml": plainConfig + quietConfig + "decisions: {required: true, path: " + path + "}\n"})
			if err := os.Mkdir("directory", 0o700); err != nil {
				t.Fatal(err)
			}
			_, err := startServer(t, fromFile("vidimus.yaml"), &bytes.Buffer{})
			if err == nil || !strings.HasPrefix(err.Error(), "decisions.path: ") || !strings.Contains(err.Error(), "let this process write it, or name another file") {
				t.Errorf("the error is %v", err)
			}
		})
	}
}
