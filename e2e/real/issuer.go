package real

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"
)

// Issuer is an OpenID issuer, two in fact with one key, that gives a token to
// everybody for whatever they say.
type Issuer struct {
	url string
	key *rsa.PrivateKey

	mu     sync.Mutex
	asked  map[string]url.Values // by the code that was given for it
	waits  map[string]string     // codes of devices by what people enter
	people map[string]string     // who has entered it
}

// StartIssuer starts one in this process.
func StartIssuer(tb testing.TB) *Issuer {
	tb.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		tb.Fatal(err)
	}
	i := &Issuer{key: key, asked: make(map[string]url.Values), waits: make(map[string]string), people: make(map[string]string)}
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	tb.Cleanup(server.Close)
	i.url = server.URL
	for _, issuer := range []string{"/email", "/github"} {
		mux.HandleFunc("GET "+issuer+"/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
			answerJSON(w, map[string]any{
				"issuer": i.url + issuer, "jwks_uri": i.url + "/keys", "authorization_endpoint": i.url + "/auth",
				"token_endpoint": i.url + "/token", "device_authorization_endpoint": i.url + "/device",
				"code_challenge_methods_supported": []string{"S256"}, "response_types_supported": []string{"code"},
				"subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"RS256"},
			})
		})
	}
	mux.HandleFunc("GET /auth", i.authorize)
	mux.HandleFunc("POST /device", i.device)
	mux.HandleFunc("GET /activate", i.activate)
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) { i.exchange(tb, w, r) })
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, map[string]any{"keys": []any{map[string]string{
			"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "e2e", "n": base64URL(key.N.Bytes()),
			"e": base64URL(big.NewInt(int64(key.E)).Bytes()),
		}}})
	})
	return i
}

func answerJSON(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value) // a client that has gone needs no answer
}

func base64URL(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

// code gives a code for what was asked for.
func (i *Issuer) code(asked url.Values) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	code := rand.Text()
	i.asked[code] = asked
	return code
}

// authorize is the page at which a person signs in with a browser: as whoever the
// parameter "as" says, which the browser adds.
func (i *Issuer) authorize(w http.ResponseWriter, r *http.Request) {
	asked := r.URL.Query()
	back, err := url.Parse(asked.Get("redirect_uri"))
	if err != nil || asked.Get("response_type") != "code" || asked.Get("as") == "" {
		http.Error(w, "no sign-in", http.StatusBadRequest)
		return
	}
	back.RawQuery = url.Values{"state": asked["state"], "code": {i.code(asked)}}.Encode()
	http.Redirect(w, r, back.String(), http.StatusFound)
}

// device begins a sign-in that ends elsewhere.
func (i *Issuer) device(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	code, short := i.code(r.PostForm), rand.Text()[:8]
	i.mu.Lock()
	i.waits[short] = code
	i.mu.Unlock()
	answerJSON(w, map[string]any{
		"device_code": code, "user_code": short, "verification_uri": i.url + "/activate", "expires_in": 60, "interval": 1,
	})
}

// activate is the page at which a person enters a device's code, as whoever "as" says.
func (i *Issuer) activate(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	code, ok := i.waits[r.FormValue("code")]
	if !ok {
		http.Error(w, "no such code", http.StatusNotFound)
		return
	}
	i.people[code] = r.FormValue("as")
}

// exchange gives a token for a code to whoever has asked for it.
func (i *Issuer) exchange(tb testing.TB, w http.ResponseWriter, r *http.Request) {
	refuse := func(why string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": why})
	}
	if err := r.ParseForm(); err != nil {
		refuse("invalid_request")
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	code := r.PostForm.Get("code") + r.PostForm.Get("device_code")
	asked, known := i.asked[code]
	who := asked.Get("as")
	if r.PostForm.Get("device_code") != "" {
		who = i.people[code]
	}
	proof := sha256.Sum256([]byte(r.PostForm.Get("code_verifier")))
	switch {
	case !known:
		refuse("invalid_grant")
	case asked.Get("code_challenge_method") != "S256" || asked.Get("code_challenge") != base64URL(proof[:]):
		refuse("invalid_grant")
	case who == "":
		refuse("authorization_pending")
	default:
		delete(i.asked, code)
		claims := map[string]any{"sub": who, "email": who, "email_verified": true}
		if nonce := asked.Get("nonce"); nonce != "" {
			claims["nonce"] = nonce
		}
		answerJSON(w, map[string]any{"access_token": rand.Text(), "token_type": "Bearer", "id_token": i.token(tb, i.Email(), claims)})
	}
}

// Email is the issuer of people, named by their addresses.
func (i *Issuer) Email() string { return i.url + "/email" }

// GitHub is the issuer of workflows, as GitHub's is.
func (i *Issuer) GitHub() string { return i.url + "/github" }

// Token returns a token for the owner of an address, for the audience "sigstore".
func (i *Issuer) Token(tb testing.TB, email string) string {
	tb.Helper()
	return i.token(tb, i.Email(), map[string]any{"sub": email, "email": email, "email_verified": true})
}

// Workflow returns a token for a run of a workflow of a repository ("acme/web") at a
// ref ("refs/tags/v1"), as GitHub's issuer would give it. workflow is the name of its
// file in .github/workflows. The identity in the certificate is identity.
func (i *Issuer) Workflow(tb testing.TB, repository, workflow, ref string) (token, identity string) {
	tb.Helper()
	const commit = "0123456789abcdef0123456789abcdef01234567"
	path := repository + "/.github/workflows/" + workflow + "@" + ref
	return i.token(tb, i.GitHub(), map[string]any{
		"sub": "repo:" + repository + ":ref:" + ref, "repository": repository, "repository_id": "1", "repository_owner": "acme",
		"repository_owner_id": "2", "repository_visibility": "public", "ref": ref, "sha": commit, "event_name": "push",
		"workflow": "release", "workflow_ref": path, "workflow_sha": commit, "job_workflow_ref": path, "job_workflow_sha": commit,
		"runner_environment": "github-hosted", "run_id": "3", "run_attempt": "1",
	}), "https://github.com/" + path
}

func (i *Issuer) token(tb testing.TB, issuer string, claims map[string]any) string {
	tb.Helper()
	now := time.Now()
	all := map[string]any{"iss": issuer, "aud": "sigstore", "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(10 * time.Minute).Unix()}
	maps.Copy(all, claims)
	encode := func(value any) string {
		data, err := json.Marshal(value)
		if err != nil {
			tb.Fatal(err)
		}
		return base64URL(data)
	}
	signed := encode(map[string]string{"alg": "RS256", "kid": "e2e", "typ": "JWT"}) + "." + encode(all)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, sum[:])
	if err != nil {
		tb.Fatal(err)
	}
	return signed + "." + base64URL(signature)
}
