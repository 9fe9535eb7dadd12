package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// TokenFile is where a token is put for whoever runs there, in a pod for example.
const TokenFile = "/var/run/sigstore/cosign/oidc-token"

// The providers of ambient tokens, by cosign's names.
const (
	Variable   = "envvar"         // SIGSTORE_ID_TOKEN
	GitHub     = "github-actions" // of a workflow with the permission id-token: write
	Filesystem = "filesystem"     // TokenFile
)

// ErrNone says that where the program runs there is no token for it.
var ErrNone = errors.New("there is no identity token here")

const (
	maxToken = 64 << 10
	tries    = 3
	between  = 500 * time.Millisecond
)

// Ambient finds the token that is there for whoever runs here. Its zero value looks at
// the environment and the file of this process.
type Ambient struct {
	LookupEnv func(string) (string, bool)
	File      string
	Audience  string // of tokens that are made when they are asked for
}

// Token returns the token of a provider, or, when provider is empty, of the first that
// has one. The error matches ErrNone when there is none.
func (a Ambient) Token(ctx context.Context, provider string) (string, error) {
	if a.LookupEnv == nil {
		a.LookupEnv = os.LookupEnv
	}
	if a.File == "" {
		a.File = TokenFile
	}
	for _, p := range []struct {
		name string
		get  func(context.Context) (string, error)
	}{{Variable, a.variable}, {GitHub, a.github}, {Filesystem, a.file}} {
		if provider != "" && provider != p.name {
			continue
		}
		token, err := p.get(ctx)
		if err == nil || !errors.Is(err, ErrNone) {
			return token, err
		}
	}
	if provider != "" {
		return "", fmt.Errorf("%s: %w", provider, ErrNone)
	}
	return "", ErrNone
}

func (a Ambient) env(name string) string {
	value, _ := a.LookupEnv(name)
	return value
}

func (a Ambient) variable(context.Context) (string, error) {
	token := a.env("SIGSTORE_ID_TOKEN")
	if token == "" {
		return "", ErrNone
	}
	if !IsToken(token) {
		return "", errors.New("SIGSTORE_ID_TOKEN is not an identity token")
	}
	return token, nil
}

// IsToken reports whether text has the form of a JSON web token.
func IsToken(text string) bool {
	return strings.Count(text, ".") == 2 && !strings.ContainsAny(text, "/\\ \n")
}

func (a Ambient) file(context.Context) (string, error) {
	file, err := os.Open(a.File)
	if errors.Is(err, fs.ErrNotExist) {
		return "", ErrNone
	}
	if err != nil {
		return "", err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxToken))
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(data))
	if !IsToken(token) {
		return "", fmt.Errorf("%s holds no identity token", a.File)
	}
	return token, nil
}

// github asks the service that GitHub names to its workflows, with the credential that
// it gives them for that.
//
// Source: docs.github.com, "OpenID Connect reference", requesting the JWT.
func (a Ambient) github(ctx context.Context) (string, error) {
	address, secret := a.env("ACTIONS_ID_TOKEN_REQUEST_URL"), a.env("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
	if address == "" || secret == "" {
		return "", ErrNone
	}
	u, err := url.Parse(address)
	if err == nil {
		err = checkURL(address)
	}
	if err != nil {
		return "", fmt.Errorf("ACTIONS_ID_TOKEN_REQUEST_URL: %w", err)
	}
	query := u.Query()
	query.Set("audience", a.Audience)
	u.RawQuery = query.Encode()
	var last error
	for try := range tries {
		if try > 0 {
			if err := pause(ctx, between); err != nil {
				return "", err
			}
		}
		token, again, err := askGitHub(ctx, u.String(), secret)
		if err == nil {
			return token, nil
		}
		last = fmt.Errorf("GitHub's identity token: %w", err)
		if !again {
			break
		}
	}
	return "", last
}

// askGitHub asks once. again says that it may be worth to ask once more.
func askGitHub(ctx context.Context, address, secret string) (token string, again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", false, err
	}
	req.Header.Set("Authorization", "Bearer "+secret)
	req.Header.Set("Accept", "application/json")
	client := http.Client{Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error {
		return errors.New("it redirects, which is not followed")
	}}
	resp, err := client.Do(req)
	if err != nil {
		return "", ctx.Err() == nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxToken))
	if err != nil {
		return "", true, err
	}
	if resp.StatusCode != http.StatusOK {
		return "", resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests, errors.New(resp.Status)
	}
	var answer struct {
		Value string `json:"value"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || !IsToken(answer.Value) {
		return "", false, errors.New("its answer has none")
	}
	return answer.Value, false, nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
