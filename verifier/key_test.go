package verifier_test

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"vidimus/verifier"
)

func pkixOf(tb testing.TB, public crypto.PublicKey) []byte {
	tb.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func newRSA(tb testing.TB, bits int) *rsa.PrivateKey {
	tb.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// modulus returns an RSA key that is only good for its size.
func modulus(bits, exponent int, low uint) *rsa.PublicKey {
	n := new(big.Int).SetBit(new(big.Int), bits-1, 1)
	return &rsa.PublicKey{N: n.SetBit(n, 0, low), E: exponent}
}

func TestParseKeyTakesTheKeysThatCosignWrites(t *testing.T) {
	for _, tt := range []struct {
		name, algorithm string
		public          crypto.PublicKey
	}{
		{"ECDSA on P-256", "ECDSA P-256", newECDSA(t, elliptic.P256()).Public()},
		{"ECDSA on P-384", "ECDSA P-384", newECDSA(t, elliptic.P384()).Public()},
		{"ECDSA on P-521", "ECDSA P-521", newECDSA(t, elliptic.P521()).Public()},
		{"Ed25519", "Ed25519", newEd25519(t).Public()},
		{"RSA of 2048 bits", "RSA 2048", newRSA(t, 2048).Public()},
		{"RSA of 8192 bits", "RSA 8192", modulus(8192, 65537, 1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			der := pkixOf(t, tt.public)
			sum := sha256.Sum256(der)
			text := block("PUBLIC KEY", der)
			body := base64.StdEncoding.EncodeToString(der)
			for _, spelling := range []string{
				text, "\n\t " + text + "\n\n", strings.ReplaceAll(text, "\n", "\r\n"),
				body, body + "\n", strings.Join(strings.Split(text, "\n")[1:strings.Count(text, "\n")-1], "\n"),
			} {
				key, err := verifier.ParseKey([]byte(spelling))
				if err != nil {
					t.Fatalf("%v, for\n%s", err, spelling)
				}
				if got, want := key.ID(), hex.EncodeToString(sum[:]); got != want {
					t.Errorf("ID is %s, want %s", got, want)
				}
				if got := key.Algorithm(); got != tt.algorithm {
					t.Errorf("algorithm is %s, want %s", got, tt.algorithm)
				}
				if !key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(tt.public) {
					t.Error("another key came back")
				}
			}
		})
	}
}

func TestParseKeyNamesWhatItFoundInstead(t *testing.T) {
	signer := newECDSA(t, elliptic.P256())
	der := pkixOf(t, signer.Public())
	good := block("PUBLIC KEY", der)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(signer)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey := newRSA(t, 2048)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "evil"}, NotAfter: time.Now().Add(time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	headers := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der, Headers: map[string]string{"a": "b"}}))
	base64Of := base64.StdEncoding.EncodeToString

	for _, tt := range []struct{ name, text, want string }{
		{"nothing", "", "empty"},
		{"white space", " \n\t", "empty"},
		{"prose", "not a key", "neither a PEM block nor the base64 body of one"},
		{"DER", string(der), "neither a PEM block nor the base64 body of one"},
		{"a file that is too large", strings.Repeat("A", verifier.MaxKeySize+1), "more than 65536 bytes"},
		{"a certificate", block("CERTIFICATE", certificate), "a certificate, where a public key is wanted"},
		{"a certificate in base64", base64Of(certificate), "a certificate, where a public key is wanted"},
		{"a certificate called a public key", block("PUBLIC KEY", certificate), "a certificate, where a public key is wanted"},
		{"a certificate request", block("CERTIFICATE REQUEST", der), "a certificate request"},
		{"a PKCS #8 private key", block("PRIVATE KEY", pkcs8), `a private key, where its public key is wanted: keep it away from here ("PRIVATE KEY")`},
		{"an EC private key", block("EC PRIVATE KEY", sec1), "a private key"},
		{"an RSA private key", block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)), "a private key"},
		{"cosign's private key", block("ENCRYPTED SIGSTORE PRIVATE KEY", []byte("{}")), `("ENCRYPTED SIGSTORE PRIVATE KEY")`},
		{"an OpenSSH private key", block("OPENSSH PRIVATE KEY", pkcs8), "a private key"},
		{"a private key in base64", base64Of(pkcs8), "a private key"},
		{"an EC private key in base64", base64Of(sec1), "a private key"},
		{"a private key called a public key", block("PUBLIC KEY", pkcs8), "a private key"},
		{"an RSA public key of PKCS #1", block("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey)), "PKCS #1"},
		{"an RSA public key of PKCS #1 in base64", base64Of(x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey)), "PKCS #1"},
		{"an OpenSSH public key", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== me@example", "neither a PEM block"},
		{"another type", block("EC PARAMETERS", der), `a PEM block of type "EC PARAMETERS"`},
		{"a hostile type", block("X\x1b[2J", der), `a PEM block of type "X\x1b[2J"`},
		{"two keys", good + good, "several PEM blocks"},
		{"a key and a certificate", good + block("CERTIFICATE", certificate), "several PEM blocks"},
		{"a broken block before a key", "-----BEGIN PUBLIC KEY-----\n*\n-----END PUBLIC KEY-----\n" + good, "several PEM blocks"},
		{"a cut block", good[:60], "a PEM block that cannot be decoded"},
		{"a block with another end", strings.Replace(good, "END PUBLIC", "END PRIVATE", 1), "a PEM block that cannot be decoded"},
		{"text before", "key:\n" + good, "text before the PEM block"},
		{"a byte order mark", "\ufeff" + good, "text before the PEM block"},
		{"text after", good + "x", "text after the PEM block"},
		{"a PEM header", headers, "a PEM block with headers"},
		{"trailing bytes in the DER", block("PUBLIC KEY", append(bytes.Clone(der), 0)), "not a PKIX public key"},
		{"an empty block", block("PUBLIC KEY", nil), "not a PKIX public key"},
		{"ECDSA on P-224", block("PUBLIC KEY", pkixOf(t, newECDSA(t, elliptic.P224()).Public())), "an ECDSA key on P-224, where P-256, P-384 or P-521 is wanted"},
		{"X25519", block("PUBLIC KEY", pkixOf(t, x25519.Public())), "an X25519 key, which cannot sign"},
		{"RSA of 1024 bits", block("PUBLIC KEY", pkixOf(t, modulus(1024, 65537, 1))), "an RSA key of 1024 bits, where 2048 are the least"},
		{"RSA of 2047 bits", block("PUBLIC KEY", pkixOf(t, modulus(2047, 65537, 1))), "an RSA key of 2047 bits"},
		{"RSA of 8193 bits", block("PUBLIC KEY", pkixOf(t, modulus(8193, 65537, 1))), "an RSA key of 8193 bits, where 8192 are the most"},
		{"RSA with exponent 1", block("PUBLIC KEY", pkixOf(t, modulus(2048, 1, 1))), "an RSA key with exponent 1"},
		{"RSA with an even exponent", block("PUBLIC KEY", pkixOf(t, modulus(2048, 4, 1))), "an RSA key with exponent 4"},
		{"RSA with an even modulus", block("PUBLIC KEY", pkixOf(t, modulus(2048, 65537, 0))), "an RSA key with an even modulus"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			key, err := verifier.ParseKey([]byte(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("ParseKey = %v, want an error with %q", err, tt.want)
			}
			if key.ID() != "" || key.Public() != nil {
				t.Error("a key came with the error")
			}
			secret := base64Of(pkcs8)
			if strings.Contains(err.Error(), secret[40:60]) {
				t.Errorf("the error quotes the key: %v", err)
			}
		})
	}
}

func TestTheZeroKeyIsNone(t *testing.T) {
	var key verifier.Key
	if key.ID() != "" || key.Public() != nil || key.Algorithm() != "none" {
		t.Errorf("the zero key is something: %v", key)
	}
}

// FuzzParseKey: a key that is taken is one of the kinds we verify with, and
// comes back from its own PEM encoding as the same.
func FuzzParseKey(f *testing.F) {
	f.Add([]byte(block("PUBLIC KEY", pkixOf(f, newECDSA(f, elliptic.P256()).Public()))))
	f.Add([]byte(block("PUBLIC KEY", pkixOf(f, newEd25519(f).Public()))))
	f.Add([]byte(base64.StdEncoding.EncodeToString(pkixOf(f, modulus(2048, 3, 1)))))
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----"))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := verifier.ParseKey(data)
		if err != nil {
			if key.ID() != "" || key.Public() != nil {
				t.Fatal("a key came with an error")
			}
			return
		}
		switch key.Public().(type) {
		case *ecdsa.PublicKey, ed25519.PublicKey, *rsa.PublicKey:
		default:
			t.Fatalf("took a %T", key.Public())
		}
		again, err := verifier.ParseKey([]byte(block("PUBLIC KEY", pkixOf(t, key.Public()))))
		if err != nil || again.ID() != key.ID() {
			t.Fatalf("key %s came back as %s, %v", key.ID(), again.ID(), err)
		}
	})
}
