package signer

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"
)

// testKeys returns a key of every kind that is supported.
func testKeys(t testing.TB) map[string]crypto.Signer {
	t.Helper()
	keys := make(map[string]crypto.Signer)
	for name, curve := range map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys[name] = key
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys["Ed25519"] = ed
	if keys["RSA"], err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	return keys
}

func samePublic(a, b crypto.PublicKey) bool {
	eq, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && eq.Equal(b)
}

// seal makes a key file with go-securesystemslib's own code.
func seal(t testing.TB, pemType string, key crypto.Signer, password string, strength encrypted.KDFParameterStrength) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	body, err := encrypted.EncryptWithCustomKDFParameters(der, []byte(password), strength)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: body})
}

// One run of scrypt takes a second under the race detector, so that the tests
// below run it where it matters and look behind it elsewhere.

func TestAPrivateKeyComesBackAsItWasWritten(t *testing.T) {
	key := mustKey(t)
	data, err := EncodePrivateKey(key, []byte("pw"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(data, []byte("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n")) {
		t.Errorf("file begins with %.50q", data)
	}
	back, err := ParsePrivateKey(data, []byte("pw"))
	if err != nil {
		t.Fatal(err)
	}
	if !samePublic(back.Public(), key.Public()) {
		t.Error("another key came back")
	}
	block, _ := pem.Decode(data)
	der, err := encrypted.Decrypt(block.Bytes, []byte("pw"))
	if err != nil {
		t.Fatalf("go-securesystemslib cannot open it: %v", err)
	}
	if _, err := x509.ParsePKCS8PrivateKey(der); err != nil {
		t.Errorf("not PKCS#8: %v", err)
	}
}

func TestEveryKindOfKeyIsRead(t *testing.T) {
	for name, key := range testKeys(t) {
		t.Run(name, func(t *testing.T) {
			der, err := x509.MarshalPKCS8PrivateKey(key)
			if err != nil {
				t.Fatal(err)
			}
			back, err := parsePKCS8(der)
			if err != nil {
				t.Fatal(err)
			}
			if !samePublic(back.Public(), key.Public()) {
				t.Error("another key came back")
			}
		})
	}
}

func TestParsePrivateKeyReadsWhatOthersWrote(t *testing.T) {
	key := mustKey(t)
	legacy := seal(t, pemTypeCosign, key, "pw", encrypted.Legacy)
	for name, data := range map[string][]byte{
		"cosign v0.1 to v1":       legacy,
		"sigstore, as OWASP says": seal(t, pemTypeSigstore, key, "pw", encrypted.OWASP),
		"white space around":      slices.Concat([]byte("\r\n \n"), legacy, []byte("\n\t\n")),
	} {
		t.Run(name, func(t *testing.T) {
			back, err := ParsePrivateKey(data, []byte("pw"))
			if err != nil {
				t.Fatal(err)
			}
			if !samePublic(back.Public(), key.Public()) {
				t.Error("another key came back")
			}
		})
	}
	for _, name := range []string{"p256", "ed25519"} {
		t.Run("cosign v3, "+name, func(t *testing.T) {
			key, err := ParsePrivateKey(golden(t, "cosign-"+name+".key"), []byte("pw"))
			if err != nil {
				t.Fatal(err)
			}
			pub, err := EncodePublicKey(key.Public())
			if err != nil {
				t.Fatal(err)
			}
			if want := golden(t, "cosign-"+name+".pub"); !bytes.Equal(pub, want) {
				t.Errorf("public key\n%s, cosign wrote\n%s", pub, want)
			}
		})
	}
}

func TestAnEmptyPasswordIsAPassword(t *testing.T) {
	data := seal(t, pemTypeCosign, mustKey(t), "", encrypted.Legacy)
	if _, err := ParsePrivateKey(data, nil); err != nil {
		t.Error(err)
	}
}

// TestHostileKeyFiles is attacks E1 and E2. Those that must fail before any
// work are held to the memory that the smallest scrypt would take many times
// over.
func TestHostileKeyFiles(t *testing.T) {
	good := seal(t, pemTypeSigstore, mustKey(t), "pw", encrypted.Legacy)
	block, _ := pem.Decode(good)
	edit := func(change func(*keyBox)) []byte {
		var box keyBox
		if err := json.Unmarshal(block.Bytes, &box); err != nil {
			t.Fatal(err)
		}
		change(&box)
		body, err := json.Marshal(box)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: pemTypeSigstore, Bytes: body})
	}
	raw := func(body string) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: pemTypeSigstore, Bytes: []byte(body)})
	}
	params := func(n, r, p int) []byte {
		return edit(func(b *keyBox) { b.KDF.Params = scryptParams{n, r, p} })
	}
	tests := map[string]struct {
		data []byte
		want error
		work bool // scrypt has to run to find out
	}{
		"N is 2^30":                  {params(1<<30, 8, 1), ErrKeyParameters, false},
		"N is 2^62":                  {params(1<<62, 8, 1), ErrKeyParameters, false},
		"N is no power of two":       {params(32769, 8, 1), ErrKeyParameters, false},
		"N is negative":              {params(-32768, 8, 1), ErrKeyParameters, false},
		"N is cheap":                 {params(2, 8, 1), ErrKeyParameters, false},
		"r is huge":                  {params(32768, 1<<29, 1), ErrKeyParameters, false},
		"p is huge":                  {params(32768, 8, 1<<29), ErrKeyParameters, false},
		"N does not fit":             {raw(strings.Replace(string(block.Bytes), "32768", "1e99", 1)), ErrNotKeyFile, false},
		"parameters are missing":     {raw(`{"kdf":{"name":"scrypt"},"cipher":{"name":"nacl/secretbox"}}`), ErrKeyParameters, false},
		"another key derivation":     {edit(func(b *keyBox) { b.KDF.Name = "pbkdf2" }), ErrKeyParameters, false},
		"another cipher":             {edit(func(b *keyBox) { b.Cipher.Name = "none" }), ErrKeyParameters, false},
		"short nonce":                {edit(func(b *keyBox) { b.Cipher.Nonce = b.Cipher.Nonce[:23] }), ErrKeyParameters, false},
		"long nonce":                 {edit(func(b *keyBox) { b.Cipher.Nonce = append(b.Cipher.Nonce, 0) }), ErrKeyParameters, false},
		"no nonce":                   {edit(func(b *keyBox) { b.Cipher.Nonce = nil }), ErrKeyParameters, false},
		"no salt":                    {edit(func(b *keyBox) { b.KDF.Salt = nil }), ErrKeyParameters, false},
		"no ciphertext":              {edit(func(b *keyBox) { b.Ciphertext = nil }), ErrNotKeyFile, false},
		"only the authenticator":     {edit(func(b *keyBox) { b.Ciphertext = b.Ciphertext[:16] }), ErrNotKeyFile, false},
		"truncated ciphertext":       {edit(func(b *keyBox) { b.Ciphertext = b.Ciphertext[:40] }), ErrPassword, true},
		"a flipped bit":              {edit(func(b *keyBox) { b.Ciphertext[20] ^= 1 }), ErrPassword, true},
		"empty":                      {nil, ErrNotKeyFile, false},
		"not PEM":                    {[]byte("hunter2"), ErrNotKeyFile, false},
		"a public key":               {golden(t, "cosign-p256.pub"), ErrNotKeyFile, false},
		"a plain private key":        {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}), ErrNotKeyFile, false},
		"two keys":                   {append(bytes.Clone(good), good...), ErrNotKeyFile, false},
		"text after the key":         {append(bytes.Clone(good), "trailing"...), ErrNotKeyFile, false},
		"text before the key":        {append([]byte("leading\n"), good...), ErrNotKeyFile, false},
		"a broken block before":      {append([]byte("-----BEGIN X-----\n!\n-----END X-----\n"), good...), ErrNotKeyFile, false},
		"PEM headers":                {bytes.Replace(good, []byte("KEY-----\n"), []byte("KEY-----\nProc-Type: 4,ENCRYPTED\n\n"), 1), ErrNotKeyFile, false},
		"not JSON":                   {raw("{"), ErrNotKeyFile, false},
		"JSON of another shape":      {raw(`[1]`), ErrNotKeyFile, false},
		"a field that nobody writes": {raw(`{"kdf":{},"cipher":{},"ciphertext":"","n":1}`), ErrNotKeyFile, false},
		"data after the JSON":        {raw(string(block.Bytes) + "{}"), ErrNotKeyFile, false},
		"larger than any key":        {raw(strings.Repeat(" ", MaxKeyFileSize)), ErrNotKeyFile, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			key, err := ParsePrivateKey(tt.data, []byte("hunter2"))
			runtime.ReadMemStats(&after)
			if !errors.Is(err, tt.want) || key != nil {
				t.Fatalf("key %v, error %v, want %v", key != nil, err, tt.want)
			}
			if spent := after.TotalAlloc - before.TotalAlloc; !tt.work && spent > 4<<20 {
				t.Errorf("spent %d bytes before it refused", spent)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error shows the password: %v", err)
			}
		})
	}
	t.Run("another password", func(t *testing.T) {
		if _, err := ParsePrivateKey(good, []byte("hunter2")); !errors.Is(err, ErrPassword) {
			t.Errorf("error %v", err)
		}
	})
}

func TestKeysThatAreNotSupported(t *testing.T) {
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GODEBUG", "rsa1024min=0")
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"P-224": p224, "RSA 1024": small} {
		t.Run(name, func(t *testing.T) {
			_, err := EncodePrivateKey(key, nil)
			if !errors.Is(err, ErrUnsupportedKey) {
				t.Errorf("encode private: %v", err)
			}
			if _, err := EncodePublicKey(key.Public()); !errors.Is(err, ErrUnsupportedKey) {
				t.Errorf("encode public: %v", err)
			}
			der, err := x509.MarshalPKCS8PrivateKey(key)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := parsePKCS8(der); !errors.Is(err, ErrUnsupportedKey) {
				t.Errorf("parse: %v", err)
			}
			if _, err := New(Config{Registry: newTestRegistry(), Key: key}); !errors.Is(err, ErrUnsupportedKey) {
				t.Errorf("new signer: %v", err)
			}
		})
	}
	t.Run("what is encrypted is no key", func(t *testing.T) {
		body, err := encrypted.EncryptWithCustomKDFParameters([]byte("my secret diary"), nil, encrypted.Legacy)
		if err != nil {
			t.Fatal(err)
		}
		_, err = ParsePrivateKey(pem.EncodeToMemory(&pem.Block{Type: pemTypeSigstore, Bytes: body}), nil)
		if !errors.Is(err, ErrUnsupportedKey) || strings.Contains(err.Error(), "diary") {
			t.Errorf("error %v", err)
		}
	})
}

func TestSignaturesVerify(t *testing.T) {
	payload := []byte("payload")
	keys := testKeys(t)
	for name, key := range keys {
		t.Run(name, func(t *testing.T) {
			signature, err := signMessage(key, payload, hashOf(key))
			if err != nil {
				t.Fatal(err)
			}
			if !verifies(key.Public(), payload, signature, crypto.SHA256) {
				t.Error("does not verify")
			}
			if verifies(key.Public(), []byte("payloae"), signature, crypto.SHA256) {
				t.Error("verifies over other bytes")
			}
			for other, k := range keys {
				if other != name && verifies(k.Public(), payload, signature, crypto.SHA256) {
					t.Errorf("verifies under the %s key", other)
				}
			}
		})
	}
	t.Run("a key that signs wrongly is found out", func(t *testing.T) {
		broken := mismatched{keys["P-256"], keys["P-384"].Public()}
		if _, err := signMessage(broken, payload, crypto.SHA256); err == nil {
			t.Error("no error")
		}
	})
}

// mismatched has another public key than it signs with.
type mismatched struct {
	crypto.Signer
	public crypto.PublicKey
}

func (m mismatched) Public() crypto.PublicKey { return m.public }

// FuzzParseKeyFile: whatever the file, no panic, and what passes the checks has
// parameters from the list and means the same when it is written again.
func FuzzParseKeyFile(f *testing.F) {
	key := mustKey(f)
	for _, pemType := range []string{pemTypeCosign, pemTypeSigstore} {
		f.Add(seal(f, pemType, key, "pw", encrypted.Legacy))
	}
	f.Add([]byte("-----BEGIN ENCRYPTED COSIGN PRIVATE KEY-----\ne30=\n-----END ENCRYPTED COSIGN PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		box, err := parseKeyFile(data)
		if err != nil {
			if !errors.Is(err, ErrNotKeyFile) && !errors.Is(err, ErrKeyParameters) {
				t.Errorf("an error of no kind: %v", err)
			}
			return
		}
		if p := box.KDF.Params; p.N > 131072 || p.N < 32768 || p.R != 8 || p.P != 1 {
			t.Errorf("accepted %+v", p)
		}
		body, err := json.Marshal(box)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseKeyFile(pem.EncodeToMemory(&pem.Block{Type: pemTypeSigstore, Bytes: body}))
		if err != nil {
			t.Fatalf("written again: %v", err)
		}
		twice, err := json.Marshal(again)
		if err != nil || !bytes.Equal(body, twice) {
			t.Errorf("%s became %s, %v", body, twice, err)
		}
	})
}

// FuzzPrivateKeyRoundTrip: for every password, what is written is read back
// with it, and with no other.
func FuzzPrivateKeyRoundTrip(f *testing.F) {
	f.Add([]byte("pw"), []byte("pw\n"), []byte("seed"))
	f.Fuzz(func(t *testing.T, password, other, seed []byte) {
		var full [ed25519.SeedSize]byte
		copy(full[:], seed)
		key := ed25519.NewKeyFromSeed(full[:])
		data, err := EncodePrivateKey(key, password)
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParsePrivateKey(data, password)
		if err != nil {
			t.Fatal(err)
		}
		if !key.Equal(back) {
			t.Error("another key came back")
		}
		if bytes.Equal(pad(password), pad(other)) {
			return
		}
		if _, err := ParsePrivateKey(data, other); !errors.Is(err, ErrPassword) {
			t.Errorf("opened by another password, or an error of another kind: %v", err)
		}
	})
}

// pad is how HMAC, and so scrypt, sees a short password: zeros at its end do
// not count.
func pad(password []byte) []byte { return bytes.TrimRight(password, "\x00") }

func golden(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}
