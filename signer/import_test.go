package signer

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
)

func TestImportPrivateKey(t *testing.T) {
	for name, key := range testKeys(t) {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		files := map[string][]byte{"PKCS#8": pemOf("PRIVATE KEY", der)}
		switch key := key.(type) {
		case *ecdsa.PrivateKey:
			if der, err = x509.MarshalECPrivateKey(key); err != nil {
				t.Fatal(err)
			}
			files["SEC 1"] = pemOf("EC PRIVATE KEY", der)
			files["as openssl writes it"] = append(pemOf("EC PARAMETERS", []byte{6, 1, 0}), pemOf("EC PRIVATE KEY", der)...)
		case *rsa.PrivateKey:
			files["PKCS#1"] = pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
		}
		for form, data := range files {
			got, err := ImportPrivateKey(data)
			if err != nil {
				t.Errorf("%s, %s: %v", name, form, err)
				continue
			}
			if equal, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !equal.Equal(got.Public()) {
				t.Errorf("%s, %s: another key", name, form)
			}
		}
	}
}

func TestImportPrivateKeyRefuses(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	agreement, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	agreementDER, err := x509.MarshalPKCS8PrivateKey(agreement)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := EncodePrivateKey(mustKey(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	good, err := x509.MarshalPKCS8PrivateKey(mustKey(t))
	if err != nil {
		t.Fatal(err)
	}
	legacy := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"DEK-Info": "AES-128-CBC,00"}, Bytes: []byte("secret")})
	for name, tt := range map[string]struct {
		data []byte
		is   error
		want string
	}{
		"nothing":          {nil, ErrNotPlainKey, ""},
		"a public key":     {pemOf("PUBLIC KEY", good), ErrNotPlainKey, ""},
		"one of cosign's":  {ours, ErrNotPlainKey, "cosign's already"},
		"encrypted":        {pemOf("ENCRYPTED PRIVATE KEY", good), ErrNotPlainKey, "openssl pkey"},
		"encrypted of old": {legacy, ErrNotPlainKey, "openssl pkey"},
		"two":              {append(pemOf("PRIVATE KEY", good), pemOf("PRIVATE KEY", good)...), ErrNotPlainKey, "more in the file"},
		"damaged":          {pemOf("PRIVATE KEY", []byte("secret")), ErrUnsupportedKey, "cannot be read"},
		"a short RSA key":  {pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(small)), ErrUnsupportedKey, ""},
		"X25519":           {pemOf("PRIVATE KEY", agreementDER), ErrUnsupportedKey, ""},
		"a large file":     {make([]byte, MaxKeyFileSize+1), ErrNotPlainKey, "larger"},
	} {
		_, err := ImportPrivateKey(tt.data)
		if !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
