package sigstore

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/sigstore/sigstore/pkg/oauthflow"
)

// maxChain is how many certificates an authority may send.
const maxChain = 10

// ErrToken says that an identity token is none.
var ErrToken = errors.New("not an identity token (a JSON web token with a subject)")

// Certify has the authority certify key for whoever token is of. The key is on an
// elliptic curve. The chain is the certificate first, each in DER.
//
// Source: fulcio.proto of github.com/sigstore/fulcio, CreateSigningCertificate.
func (s Services) Certify(ctx context.Context, key crypto.Signer, token string) (chain [][]byte, err error) {
	request, err := certificateRequest(key, token)
	if err != nil {
		return nil, err
	}
	return within(ctx, s.timeout(), "certificate authority "+s.Authority, func(ctx context.Context) ([][]byte, error) {
		u := strings.TrimSuffix(s.Authority, "/") + "/api/v2/signingCert"
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, u, bytes.NewReader(request))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", "application/json")
		resp, body, err := answer(req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusCreated {
			return nil, refused(resp, body)
		}
		return parseChain(body, key.Public())
	})
}

// certificateRequest proves that we have the key by a signature over the token's
// subject.
func certificateRequest(key crypto.Signer, token string) ([]byte, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, ErrToken
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, ErrToken
	}
	subject, err := oauthflow.SubjectFromUnverifiedToken(claims)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrToken, err)
	}
	digest := sha256.Sum256([]byte(subject))
	proof, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{"publicKeyRequest": map[string]any{
		"publicKey": map[string]string{
			"algorithm": "ECDSA",
			"content":   string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
		},
		"proofOfPossession": proof,
	}})
}

// parseChain reads what the authority answers, and wants a certificate of our key.
func parseChain(body []byte, public crypto.PublicKey) ([][]byte, error) {
	type certified struct {
		Chain struct {
			Certificates []string `json:"certificates"`
		} `json:"chain"`
	}
	var said struct {
		Embedded certified `json:"signedCertificateEmbeddedSct"`
		Detached certified `json:"signedCertificateDetachedSct"`
	}
	if err := json.Unmarshal(body, &said); err != nil {
		return nil, fmt.Errorf("its answer: %w", err)
	}
	texts := said.Embedded.Chain.Certificates
	if len(texts) == 0 {
		texts = said.Detached.Chain.Certificates
	}
	if len(texts) == 0 || len(texts) > maxChain {
		return nil, fmt.Errorf("its answer has %d certificates, where 1 to %d are wanted", len(texts), maxChain)
	}
	var chain [][]byte
	for _, text := range texts {
		block, _ := pem.Decode([]byte(text))
		if block == nil || block.Type != "CERTIFICATE" {
			return nil, errors.New("its answer has no certificate in PEM")
		}
		chain = append(chain, block.Bytes)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, fmt.Errorf("its certificate: %w", err)
	}
	if certified, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || !certified.Equal(public) {
		return nil, errors.New("its certificate is of another key")
	}
	return chain, nil
}
