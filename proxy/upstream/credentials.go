package upstream

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/docker/cli/cli/config"
	"github.com/google/go-containerregistry/pkg/authn"
)

// Credential is what proves to a registry who asks. Its zero value is nobody.
// It prints as "redacted" through fmt and log/slog.
type Credential struct {
	Username string
	Password string
	// IdentityToken is an OAuth2 refresh token; it is exchanged at the token
	// host instead of Username and Password.
	IdentityToken string
	// RegistryToken is a bearer token for the registry itself.
	RegistryToken string
}

// Format keeps the fields out of whatever is printed.
func (Credential) Format(state fmt.State, _ rune) { _, _ = state.Write([]byte("redacted")) }

// LogValue keeps the fields out of logs.
func (Credential) LogValue() slog.Value { return slog.StringValue("redacted") }

// MarshalJSON keeps the fields out of records.
func (Credential) MarshalJSON() ([]byte, error) { return []byte(`"redacted"`), nil }

// identity tells credentials apart without holding them.
func (c Credential) identity() [sha256.Size]byte {
	hash := sha256.New()
	for _, field := range []string{c.Username, c.Password, c.IdentityToken, c.RegistryToken} {
		_ = binary.Write(hash, binary.BigEndian, uint64(len(field)))
		hash.Write([]byte(field))
	}
	return [sha256.Size]byte(hash.Sum(nil))
}

// Credentials returns the credential for a registry, whose host[:port] is given.
// It is called often and concurrently; the zero Credential means anonymous.
type Credentials func(ctx context.Context, host string) (Credential, error)

// Static returns one credential always.
func Static(username, password string) Credentials {
	credential := Credential{Username: username, Password: password}
	return func(context.Context, string) (Credential, error) { return credential, nil }
}

// Bearer returns one token for the registry itself always.
func Bearer(token string) Credentials {
	credential := Credential{RegistryToken: token}
	return func(context.Context, string) (Credential, error) { return credential, nil }
}

// dockerFresh is how long an answer of the docker configuration is used again,
// for a credential helper is a program that is run.
const dockerFresh = 30 * time.Second

// DockerConfig returns the credential that docker would use: of the docker
// configuration file at path with its credential helpers, or, when path is
// empty, of the file where docker or podman looks for it. The file is read
// again after half a minute. A registry that it does not name is anonymous.
//
// A helper that hangs blocks whoever waits for it until their context ends, and
// no second one is started meanwhile.
func DockerConfig(path string) Credentials {
	d := &dockerConfig{
		turn:   make(chan struct{}, 1),
		known:  map[string]knownCredential{},
		lookup: func(host string) (Credential, error) { return dockerLookup(path, host) },
	}
	return d.credential
}

type dockerConfig struct {
	turn   chan struct{} // holds one element while a lookup runs
	lookup func(host string) (Credential, error)

	mu    sync.Mutex
	known map[string]knownCredential // one host for each upstream that shares this
}

type knownCredential struct {
	credential Credential
	until      time.Time
}

func (d *dockerConfig) credential(ctx context.Context, host string) (Credential, error) {
	if known, ok := d.recall(host); ok {
		return known, nil
	}
	select {
	case d.turn <- struct{}{}:
	case <-ctx.Done():
		return Credential{}, transportFault(ctx, ctx.Err())
	}
	if known, ok := d.recall(host); ok {
		<-d.turn
		return known, nil
	}
	type answer struct {
		credential Credential
		err        error
	}
	done := make(chan answer, 1)
	go func() {
		defer func() { <-d.turn }()
		credential, err := guarded(func() (Credential, error) { return d.lookup(host) })
		if err == nil {
			d.keep(host, credential)
		}
		done <- answer{credential, err}
	}()
	select {
	case a := <-done:
		return a.credential, a.err
	case <-ctx.Done():
		return Credential{}, transportFault(ctx, ctx.Err())
	}
}

func (d *dockerConfig) recall(host string) (Credential, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	known, ok := d.known[host]
	return known.credential, ok && time.Now().Before(known.until)
}

func (d *dockerConfig) keep(host string, credential Credential) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known[host] = knownCredential{credential, time.Now().Add(dockerFresh)}
}

func dockerLookup(path, host string) (Credential, error) {
	var found authn.AuthConfig
	var err error
	if path == "" {
		found, err = lookupDefault(host)
	} else {
		found, err = lookupFile(path, host)
	}
	if err != nil {
		return Credential{}, fault(KindUnavailable, "docker's credentials cannot be read: %s", storeText(err))
	}
	return Credential{
		Username:      found.Username,
		Password:      found.Password,
		IdentityToken: found.IdentityToken,
		RegistryToken: found.RegistryToken,
	}, nil
}

// hubKey is under what docker keeps the credential of Docker Hub, whatever its
// registry's host is called.
const hubKey = authn.DefaultAuthKey

func isHub(host string) bool {
	return host == "registry-1.docker.io" || host == "index.docker.io" || host == "docker.io"
}

func lookupDefault(host string) (authn.AuthConfig, error) {
	if isHub(host) {
		host = "index.docker.io" // which the keychain turns into hubKey
	}
	authenticator, err := authn.DefaultKeychain.Resolve(keychainResource(host))
	if err != nil {
		return authn.AuthConfig{}, err
	}
	found, err := authenticator.Authorization()
	if err != nil {
		return authn.AuthConfig{}, err
	}
	return *found, nil
}

// keychainResource is a registry's host as an authn.Resource.
type keychainResource string

func (r keychainResource) String() string      { return string(r) }
func (r keychainResource) RegistryStr() string { return string(r) }

func lookupFile(path, host string) (authn.AuthConfig, error) {
	file, err := os.Open(path)
	if err != nil {
		return authn.AuthConfig{}, err
	}
	defer file.Close()
	parsed, err := config.LoadFromReader(file)
	if err != nil {
		return authn.AuthConfig{}, err
	}
	key := host
	if isHub(host) {
		key = hubKey
	}
	found, err := parsed.GetAuthConfig(key)
	if err != nil {
		return authn.AuthConfig{}, err
	}
	return authn.AuthConfig{
		Username:      found.Username,
		Password:      found.Password,
		IdentityToken: found.IdentityToken,
		RegistryToken: found.RegistryToken,
	}, nil
}

// storeText describes why a credential store did not answer. A helper's error
// holds what the helper printed, which may be the secret: it stays out.
func storeText(err error) string {
	if missing, ok := errors.AsType[*exec.Error](err); ok {
		return fmt.Sprintf("credential helper %q cannot be run", missing.Name)
	}
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Error()
	}
	if _, ok := errors.AsType[*json.SyntaxError](err); ok {
		return "the file is not JSON"
	}
	return "the file is not docker's, or its credential helper gave no answer"
}
