package identity

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// issuer is an OpenID issuer that signs everybody in. Its fields may be changed before
// it is used.
type issuer struct {
	url       string
	key       *rsa.PrivateKey
	methods   []string       // of PKCE
	claims    map[string]any // that its tokens have instead of the right ones
	answer    string         // of the token endpoint, instead of a token
	pending   int            // how often a device is told to wait
	secret    string         // that a client has to know
	refuses   string         // what it says to a browser instead of a code
	discovery map[string]any // instead of what is right

	mu    sync.Mutex
	codes map[string]url.Values // what was asked for each code
}

func startIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key, methods: []string{"S256"}, codes: make(map[string]url.Values)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		said := map[string]any{
			"issuer": i.url, "jwks_uri": i.url + "/keys", "authorization_endpoint": i.url + "/auth", "token_endpoint": i.url + "/token",
			"device_authorization_endpoint": i.url + "/device", "id_token_signing_alg_values_supported": []string{"RS256"},
			"code_challenge_methods_supported": i.methods,
		}
		maps.Copy(said, i.discovery)
		answerJSON(w, said)
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, map[string]any{"keys": []any{map[string]string{
			"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "k", "n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()),
			"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes()),
		}}})
	})
	mux.HandleFunc("GET /auth", i.authorize)
	mux.HandleFunc("POST /device", func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		answerJSON(w, map[string]any{
			"device_code": i.code(r.PostForm), "user_code": "ABCD-EFGH", "verification_uri": i.url + "/activate", "expires_in": 60, "interval": 1,
		})
	})
	mux.HandleFunc("POST /token", i.token)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	i.url = server.URL
	return i
}

func answerJSON(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value)
}

// code remembers what was asked for.
func (i *issuer) code(asked url.Values) string {
	code := rand.Text()
	i.mu.Lock()
	defer i.mu.Unlock()
	i.codes[code] = asked
	return code
}

func (i *issuer) authorize(w http.ResponseWriter, r *http.Request) {
	asked := r.URL.Query()
	back, err := url.Parse(asked.Get("redirect_uri"))
	if err != nil || asked.Get("response_type") != "code" || asked.Get("client_id") != "sigstore" {
		http.Error(w, "not asked for a code", http.StatusBadRequest)
		return
	}
	query := url.Values{"state": asked["state"]}
	if i.refuses != "" {
		query.Set("error", "access_denied")
		query.Set("error_description", i.refuses)
	} else {
		query.Set("code", i.code(asked))
	}
	back.RawQuery = query.Encode()
	http.Redirect(w, r, back.String(), http.StatusFound)
}

func (i *issuer) token(w http.ResponseWriter, r *http.Request) {
	refuse := func(why string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": why})
	}
	_ = r.ParseForm()
	_, secret, _ := r.BasicAuth()
	i.mu.Lock()
	defer i.mu.Unlock()
	code := r.PostForm.Get("code") + r.PostForm.Get("device_code")
	asked, known := i.codes[code]
	sum := sha256.Sum256([]byte(r.PostForm.Get("code_verifier")))
	switch {
	case i.answer != "":
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, i.answer)
		return
	case i.secret != "" && secret != i.secret && r.PostForm.Get("client_secret") != i.secret:
		refuse("invalid_client")
		return
	case r.PostForm.Get("grant_type") == "client_credentials":
		asked = url.Values{}
	case !known:
		refuse("invalid_grant")
		return
	case asked.Get("code_challenge_method") != "S256" || asked.Get("code_challenge") != base64.RawURLEncoding.EncodeToString(sum[:]):
		refuse("pkce")
		return
	case i.pending > 0 && r.PostForm.Get("device_code") != "":
		i.pending--
		refuse("authorization_pending")
		return
	}
	delete(i.codes, code)
	answerJSON(w, map[string]any{"access_token": "access", "token_type": "Bearer", "id_token": i.sign(asked.Get("nonce"))})
}

// sign makes a token.
func (i *issuer) sign(nonce string) string {
	now := time.Now().Unix()
	claims := map[string]any{"iss": i.url, "aud": "sigstore", "sub": "me", "email": "me@acme.example", "email_verified": true, "iat": now, "exp": now + 300}
	if nonce != "" {
		claims["nonce"] = nonce
	}
	maps.Copy(claims, i.claims)
	encode := func(value any) string {
		data, _ := json.Marshal(value)
		return base64.RawURLEncoding.EncodeToString(data)
	}
	text := encode(map[string]string{"alg": "RS256", "kid": "k"}) + "." + encode(claims)
	sum := sha256.Sum256([]byte(text))
	signature, _ := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, sum[:])
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// client is one that is told things through a channel.
func (i *issuer) client() (Client, chan string) {
	told := make(chan string, 4)
	return Client{Issuer: i.url, ID: "sigstore", Tell: func(text string) { told <- text }}, told
}

var address = regexp.MustCompile(`https?://\S+`)

// browse does what a browser does with what a person is told, and returns the last page.
func browse(t *testing.T, told string) (status int, page string) {
	t.Helper()
	resp, err := http.Get(address.FindString(told))
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(body))
}
