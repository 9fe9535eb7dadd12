package identity

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// signIn has a person sign in with a browser, which is what person does.
func signIn(t *testing.T, c Client, told chan string, person func(told string)) (string, error) {
	t.Helper()
	type answer struct {
		token string
		err   error
	}
	done := make(chan answer, 1)
	// Whoever is believed wrongly and sends nobody back is not waited for till the end of the tests.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() {
		token, err := c.Browser(ctx)
		done <- answer{token, err}
	}()
	select {
	case text := <-told:
		person(text)
	case got := <-done:
		return got.token, got.err
	}
	got := <-done
	return got.token, got.err
}

func TestSignInWithABrowser(t *testing.T) {
	i := startIssuer(t)
	for _, redirect := range []string{"", "http://127.0.0.1:0/back", "http://localhost/"} {
		c, told := i.client()
		c.Redirect = redirect
		var opened atomic.Value
		c.Open = func(url string) error {
			opened.Store(url)
			return errors.New("no display")
		}
		token, err := signIn(t, c, told, func(text string) {
			if status, page := browse(t, text); status != http.StatusOK || !strings.Contains(page, "You are signed in") {
				t.Errorf("%d %s", status, page)
			}
			if shown := opened.Load(); shown != address.FindString(text) {
				t.Errorf("opened %v, told %s", shown, text)
			}
		})
		if err != nil || !IsToken(token) {
			t.Errorf("%q: %q, %v", redirect, token, err)
		}
		if text := <-told; !strings.Contains(text, "no display") {
			t.Errorf("told %q", text)
		}
	}
}

// What comes to the listener and is not the browser that was sent changes nothing.
func TestOnlyTheBrowserThatWasSentIsListenedTo(t *testing.T) {
	i := startIssuer(t)
	c, told := i.client()
	token, err := signIn(t, c, told, func(text string) {
		sent, err := url.Parse(address.FindString(text))
		if err != nil {
			t.Error(err)
			return
		}
		query := sent.Query()
		back := query.Get("redirect_uri")
		if !strings.HasPrefix(back, "http://localhost:") || query.Get("code_challenge_method") != "S256" || query.Get("nonce") == "" || len(query.Get("state")) < 20 {
			t.Errorf("sent to %s", sent)
		}
		for _, more := range []string{"?code=evil", "?code=evil&state=x", "/more?code=evil&state=" + query.Get("state")} {
			if status, _ := browse(t, back+more); status == http.StatusOK {
				t.Errorf("%s is taken", more)
			}
		}
		resp, err := http.PostForm(back+"?code=evil&state="+query.Get("state"), nil)
		if err != nil || resp.StatusCode == http.StatusOK {
			t.Errorf("a form is taken: %v, %v", resp, err)
		}
		browse(t, text)
	})
	if err != nil || !IsToken(token) {
		t.Errorf("%q, %v", token, err)
	}
}

func TestIssuersThatAreNotBelieved(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*issuer)
		want   string
	}{
		"a token for another client":  {func(i *issuer) { i.claims = map[string]any{"aud": "other"} }, "audience"},
		"of another issuer":           {func(i *issuer) { i.claims = map[string]any{"iss": "https://other.example"} }, "issuer"},
		"for another question":        {func(i *issuer) { i.claims = map[string]any{"nonce": "other"} }, "nonce"},
		"of the past":                 {func(i *issuer) { i.claims = map[string]any{"exp": 1} }, "expired"},
		"by another key":              {func(i *issuer) { i.key = startIssuer(t).key }, "identity token"},
		"with another access token":   {func(i *issuer) { i.claims = map[string]any{"at_hash": "x"} }, "access token"},
		"none":                        {func(i *issuer) { i.answer = `{"access_token":"a","token_type":"Bearer"}` }, "no identity token"},
		"more than is read":           {func(i *issuer) { i.answer = `{"x":"` + strings.Repeat("x", 2*maxAnswer) + `"}` }, "issuer"},
		"no PKCE":                     {func(i *issuer) { i.methods = nil }, "PKCE"},
		"plain PKCE":                  {func(i *issuer) { i.methods = []string{"plain"} }, "PKCE"},
		"its name is another":         {func(i *issuer) { i.discovery = map[string]any{"issuer": "https://other.example"} }, "issuer"},
		"its page is no web page":     {func(i *issuer) { i.discovery = map[string]any{"authorization_endpoint": "file:///etc/passwd"} }, "authorization endpoint"},
		"its tokens come in the open": {func(i *issuer) { i.discovery = map[string]any{"token_endpoint": "http://token.example/"} }, "token endpoint"},
		"its keys come in the open":   {func(i *issuer) { i.discovery = map[string]any{"jwks_uri": "http://keys.example/"} }, "want a URL of https"},
		"its page is for no browser":  {func(i *issuer) { i.discovery = map[string]any{"authorization_endpoint": i.url + "/?a=\u009b31m"} }, "authorization endpoint"},
		"it refuses":                  {func(i *issuer) { i.refuses = "not \x1b[31mtoday\nnor tomorrow" }, `access_denied: not \x1b[31mtoday nor tomorrow`},
		"it wants a secret":           {func(i *issuer) { i.secret = "s" }, "invalid_client"},
	} {
		i := startIssuer(t)
		tt.change(i)
		c, told := i.client()
		token, err := signIn(t, c, told, func(text string) { browse(t, text) })
		if err == nil || token != "" || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), i.url) || len(err.Error()) > 500 || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %q, %v", name, token, err)
		}
	}
	for _, bad := range []string{"", "http://issuer.example", "file:///x", "https://me@issuer.example"} {
		if _, err := (Client{Issuer: bad, ID: "x"}).Browser(t.Context()); err == nil || !strings.Contains(err.Error(), "URL") {
			t.Errorf("issuer %q: %v", bad, err)
		}
	}
	i := startIssuer(t)
	for _, bad := range []string{"http://0.0.0.0:0/", "https://localhost/", "http://issuer.example/", "http://localhost:0/?a=b", "http://localhost:port/"} {
		c, _ := i.client()
		c.Redirect = bad
		if _, err := c.Browser(t.Context()); err == nil || !strings.Contains(err.Error(), "redirect URL") {
			t.Errorf("redirect to %q: %v", bad, err)
		}
	}
}

// What goes to the token endpoint, a client's secret among it, goes nowhere else, and what
// an issuer says goes to no terminal as it is.
func TestAnIssuerThatSendsElsewhere(t *testing.T) {
	i := startIssuer(t)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("somebody else is asked for a token") }))
	t.Cleanup(elsewhere.Close)
	sends := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	t.Cleanup(sends.Close)
	i.discovery = map[string]any{"token_endpoint": sends.URL}
	c, _ := i.client()
	c.Secret = "s3cret"
	if _, err := c.Credentials(t.Context()); err == nil || !strings.Contains(err.Error(), "redirect") {
		t.Errorf("error %v", err)
	}
	open := httptest.NewServer(http.RedirectHandler("http://issuer.example/", http.StatusFound))
	t.Cleanup(open.Close)
	if _, err := (Client{Issuer: open.URL, ID: "x"}).Browser(t.Context()); err == nil || !strings.Contains(err.Error(), "want a URL of https") {
		t.Errorf("error %v", err)
	}
	colours := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "\x1b[31mred", http.StatusNotFound) }))
	t.Cleanup(colours.Close)
	if _, err := (Client{Issuer: colours.URL, ID: "x"}).Browser(t.Context()); err == nil || strings.Contains(err.Error(), "\x1b") || !strings.Contains(err.Error(), `\x1b[31mred`) {
		t.Errorf("error %q", err)
	}
}

func TestNobodySignsIn(t *testing.T) {
	i := startIssuer(t)
	c, told := i.client()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := c.Browser(ctx)
		done <- err
	}()
	back, err := url.Parse(address.FindString(<-told))
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "nobody has signed in") {
		t.Errorf("error %v", err)
	}
	if _, err := http.Get(back.Query().Get("redirect_uri")); err == nil {
		t.Error("it is listened still")
	}
}

func TestSignInOnAnotherDevice(t *testing.T) {
	i := startIssuer(t)
	i.pending = 1
	c, told := i.client()
	token, err := c.Device(t.Context())
	if err != nil || !IsToken(token) {
		t.Fatalf("%q, %v", token, err)
	}
	if text := <-told; !strings.Contains(text, "ABCD-EFGH") || !strings.Contains(text, i.url+"/activate") || !strings.Contains(text, "within 1m0s") {
		t.Errorf("told %q", text)
	}
	i.discovery = map[string]any{"device_authorization_endpoint": ""}
	if _, err := c.Device(t.Context()); err == nil || !strings.Contains(err.Error(), "no sign-in on another device") {
		t.Errorf("error %v", err)
	}
	i.discovery, i.methods = nil, nil
	if _, err := c.Device(t.Context()); err == nil || !strings.Contains(err.Error(), "PKCE") {
		t.Errorf("error %v", err)
	}
	i.methods, i.claims = []string{"S256"}, map[string]any{"aud": "other"}
	if token, err := c.Device(t.Context()); err == nil || token != "" {
		t.Errorf("a token for another: %q, %v", token, err)
	}
}

func TestTheTokenOfAClientItself(t *testing.T) {
	i := startIssuer(t)
	i.secret = "s3cret"
	c, _ := i.client()
	if _, err := c.Credentials(t.Context()); err == nil || !strings.Contains(err.Error(), "invalid_client") {
		t.Errorf("without its secret: %v", err)
	}
	c.Secret = "s3cret"
	if token, err := c.Credentials(t.Context()); err != nil || !IsToken(token) {
		t.Errorf("%q, %v", token, err)
	}
}

func TestAmbientTokens(t *testing.T) {
	const good = "e30.e30.c2ln"
	var failures atomic.Int64
	actions := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch query := r.URL.Query(); {
		case r.Header.Get("Authorization") != "Bearer runner-secret":
			w.WriteHeader(http.StatusUnauthorized)
		case failures.Add(-1) >= 0:
			w.WriteHeader(http.StatusBadGateway)
		case query.Get("api-version") != "2" || query.Get("audience") != "sigstore":
			w.WriteHeader(http.StatusBadRequest)
		default:
			_, _ = io.WriteString(w, `{"count":1,"value":"`+good+`"}`)
		}
	}))
	t.Cleanup(actions.Close)
	github := map[string]string{"ACTIONS_ID_TOKEN_REQUEST_URL": actions.URL + "/?api-version=2", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "runner-secret"}
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file, spoilt, none := write("token", good+"\n"), write("spoilt", "secret"), filepath.Join(dir, "none")
	for name, tt := range map[string]struct {
		env            map[string]string
		file, provider string
		failures       int64
		want           string // of the error; empty for the token
	}{
		"the variable":          {map[string]string{"SIGSTORE_ID_TOKEN": good}, none, "", 0, ""},
		"GitHub":                {github, none, "", 0, ""},
		"GitHub after failures": {github, none, GitHub, 2, ""},
		"GitHub that fails":     {github, none, GitHub, 9, "GitHub's identity token: 502"},
		"GitHub to others":      {map[string]string{"ACTIONS_ID_TOKEN_REQUEST_URL": actions.URL, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "other-secret"}, none, "", 0, "401"},
		"GitHub in the open":    {map[string]string{"ACTIONS_ID_TOKEN_REQUEST_URL": "http://actions.example", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "secret"}, none, "", 0, "ACTIONS_ID_TOKEN_REQUEST_URL: want a URL of https"},
		"a file":                {nil, file, "", 0, ""},
		"a file by name":        {github, file, Filesystem, 0, ""},
		"a file of else":        {nil, spoilt, "", 0, "holds no identity token"},
		"a variable of else":    {map[string]string{"SIGSTORE_ID_TOKEN": "secret"}, file, "", 0, "SIGSTORE_ID_TOKEN is not"},
		"none":                  {nil, none, "", 0, ErrNone.Error()},
		"none of this":          {map[string]string{"SIGSTORE_ID_TOKEN": good}, none, Filesystem, 0, "filesystem: " + ErrNone.Error()},
	} {
		failures.Store(tt.failures)
		a := Ambient{File: tt.file, Audience: "sigstore", LookupEnv: func(name string) (string, bool) {
			value, ok := tt.env[name]
			return value, ok
		}}
		token, err := a.Token(t.Context(), tt.provider)
		if tt.want == "" && (err != nil || token != good) {
			t.Errorf("%s: %q, %v", name, token, err)
		}
		if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%s: %q, %v; want %q", name, token, err, tt.want)
		}
		if strings.HasPrefix(tt.want, "there is no") != (err != nil && errors.Is(err, ErrNone) && tt.provider == "") && tt.provider == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestATokenIsNotShown(t *testing.T) {
	i := startIssuer(t)
	i.claims = map[string]any{"aud": "other", "email": "canary@acme.example"}
	c, told := i.client()
	_, err := signIn(t, c, told, func(text string) { browse(t, text) })
	data, _ := json.Marshal(err.Error())
	if strings.Contains(string(data), "eyJ") {
		t.Errorf("error %s", data)
	}
}
