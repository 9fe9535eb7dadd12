// Package kms opens keys that stay in a key management service: AWS KMS (awskms://),
// Google Cloud KMS (gcpkms://), Azure Key Vault (azurekms://) and the transit engine of
// HashiCorp Vault (hashivault://), each named as cosign names it. The services find
// their credentials and addresses themselves, where their own tools do.
//
// These four schemes are all there is: an unknown one is an error, where sigstore's
// library would look for a program of that name and run it. Nothing here starts a
// program; what a cloud's own credential chain does is configured there.
//
// Every call ends within Timeout, and its error names the key. A key that was opened
// signs with its context forgotten: crypto.Signer has none.
package kms

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	sigstorekms "github.com/sigstore/sigstore/pkg/signature/kms"
	"github.com/sigstore/sigstore/pkg/signature/kms/aws"
	"github.com/sigstore/sigstore/pkg/signature/kms/azure"
	"github.com/sigstore/sigstore/pkg/signature/kms/gcp"
	"github.com/sigstore/sigstore/pkg/signature/kms/hashivault"
	"github.com/sigstore/sigstore/pkg/signature/options"

	"vidimus/signer/bounded"
)

// Timeout is how long a service may take to answer one call.
const Timeout = 15 * time.Second

// ErrReference says that a reference names no key in a service that is known here.
var ErrReference = errors.New("not a key in a KMS that is known here: want awskms://, gcpkms://, azurekms:// or hashivault://")

// provider is one of the services.
type provider struct {
	scheme string
	valid  func(reference string) error
	open   func(ctx context.Context, reference string) (sigstorekms.SignerVerifier, error)
}

func providers() []provider {
	return []provider{
		{aws.ReferenceScheme, aws.ValidReference, func(ctx context.Context, reference string) (sigstorekms.SignerVerifier, error) {
			return aws.LoadSignerVerifier(ctx, reference)
		}},
		{gcp.ReferenceScheme, gcp.ValidReference, func(ctx context.Context, reference string) (sigstorekms.SignerVerifier, error) {
			return gcp.LoadSignerVerifier(ctx, reference)
		}},
		{azure.ReferenceScheme, azure.ValidReference, func(ctx context.Context, reference string) (sigstorekms.SignerVerifier, error) {
			return azure.LoadSignerVerifier(ctx, reference)
		}},
		{hashivault.ReferenceScheme, hashivault.ValidReference, openVault},
	}
}

// openVault takes the token itself: the library would run the helper that Vault's
// configuration names, and print about it.
func openVault(_ context.Context, reference string) (sigstorekms.SignerVerifier, error) {
	token, err := vaultToken()
	if err != nil {
		return nil, err
	}
	return hashivault.LoadSignerVerifier(reference, crypto.SHA256, options.WithRPCAuthOpts(options.RPCAuth{Token: token}))
}

func vaultToken() (string, error) {
	for _, variable := range []string{"VAULT_TOKEN", "BAO_TOKEN"} {
		if token := os.Getenv(variable); token != "" {
			return token, nil
		}
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", errors.New("VAULT_TOKEN is not set")
	}
	data, err := os.ReadFile(filepath.Join(home, ".vault-token"))
	if err != nil || len(bytes.TrimSpace(data)) == 0 {
		return "", errors.New("VAULT_TOKEN is not set, and there is no token in ~/.vault-token")
	}
	return string(bytes.TrimSpace(data)), nil
}

// Check reports what is wrong with a reference, without asking anybody. The error
// matches ErrReference when its scheme is none of ours.
func Check(reference string) error {
	_, err := find(reference)
	return err
}

// IsReference reports whether a name of a key has the scheme of a service.
func IsReference(name string) bool {
	for _, p := range providers() {
		if strings.HasPrefix(name, p.scheme) {
			return true
		}
	}
	return false
}

func find(reference string) (provider, error) {
	for _, p := range providers() {
		if strings.HasPrefix(reference, p.scheme) {
			if err := p.valid(reference); err != nil {
				return provider{}, fmt.Errorf("%s: %w", reference, err)
			}
			return p, nil
		}
	}
	return provider{}, fmt.Errorf("%s: %w", reference, ErrReference)
}

// Public asks for the public half of a key.
func Public(ctx context.Context, reference string) (crypto.PublicKey, error) {
	return public(ctx, reference, Timeout)
}

func public(ctx context.Context, reference string, timeout time.Duration) (crypto.PublicKey, error) {
	key, err := open(ctx, reference, timeout)
	if err != nil {
		return nil, err
	}
	return key.public, nil
}

// Open opens a key to sign with. What is returned signs by one hash alone, and says
// which (Hash), where the service would sign by no other.
func Open(ctx context.Context, reference string) (crypto.Signer, error) {
	return openSigner(ctx, reference, Timeout)
}

// openSigner is Open, with as long as each call may take until the key is open.
func openSigner(ctx context.Context, reference string, timeout time.Duration) (crypto.Signer, error) {
	key, err := open(ctx, reference, timeout)
	if err != nil {
		return nil, err
	}
	defer func() { key.timeout = Timeout }()
	if _, edwards := key.public.(ed25519.PublicKey); edwards || strings.HasPrefix(reference, hashivault.ReferenceScheme) {
		return key, nil
	}
	opts, err := within(ctx, key, func(ctx context.Context) (crypto.SignerOpts, error) {
		_, opts, err := key.service.CryptoSigner(ctx, func(error) {})
		return opts, err
	})
	if err != nil {
		return nil, err
	}
	return fixedKey{key, opts.HashFunc()}, nil
}

func open(ctx context.Context, reference string, timeout time.Duration) (*Key, error) {
	p, err := find(reference)
	if err != nil {
		return nil, err
	}
	unopened := &Key{reference: reference, timeout: timeout}
	return within(ctx, unopened, func(ctx context.Context) (*Key, error) {
		// The service may keep what it is opened with.
		service, err := p.open(context.WithoutCancel(ctx), reference)
		if err != nil {
			return nil, err
		}
		public, err := service.PublicKey(options.WithContext(ctx))
		if err != nil {
			return nil, err
		}
		switch public.(type) {
		case *ecdsa.PublicKey, *rsa.PublicKey, ed25519.PublicKey:
			return &Key{reference, service, public, timeout}, nil
		}
		return nil, fmt.Errorf("a key of type %T, which signs nothing here", public)
	})
}

// Key is a key in a service. It implements crypto.Signer.
type Key struct {
	reference string
	service   sigstorekms.SignerVerifier
	public    crypto.PublicKey
	timeout   time.Duration
}

// Public implements crypto.Signer.
func (k *Key) Public() crypto.PublicKey { return k.public }

// Sign implements crypto.Signer. message is a digest unless opts say that there is no
// hash.
func (k *Key) Sign(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	return within(context.Background(), k, func(ctx context.Context) ([]byte, error) {
		all := []signature.SignOption{options.WithContext(ctx), options.WithCryptoSignerOpts(opts.HashFunc())}
		if opts.HashFunc() != 0 {
			all = append(all, options.WithDigest(message))
		}
		return k.service.SignMessage(bytes.NewReader(message), all...)
	})
}

// fixedKey is a key that signs by one hash.
type fixedKey struct {
	*Key
	hash crypto.Hash
}

// Hash is what it signs by.
func (k fixedKey) Hash() crypto.Hash { return k.hash }

// within asks the service of k, and gives up when it takes longer than a service may.
func within[T any](ctx context.Context, k *Key, do func(context.Context) (T, error)) (T, error) {
	value, err := bounded.Call(ctx, k.timeout, do)
	if err == nil {
		return value, nil
	}
	if errors.Is(err, bounded.ErrLate) {
		err = fmt.Errorf("the KMS did not answer within %v", k.timeout)
	}
	return value, fmt.Errorf("%s: %w", k.reference, oneLine{err})
}

// oneLine is an error whose text, which libraries spread over several lines, is on one.
type oneLine struct{ error }

func (e oneLine) Error() string { return strings.Join(strings.Fields(e.error.Error()), " ") }
func (e oneLine) Unwrap() error { return e.error }
