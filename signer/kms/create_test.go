package kms

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestVaultMakesAKeyOnce(t *testing.T) {
	v, reference := startVault(t, p256(t))
	v.absent.Store(true)
	if _, err := Public(t.Context(), reference); err == nil {
		t.Fatal("there is a key before it is made")
	}
	public, err := Create(t.Context(), reference)
	if err != nil || !v.key.Public().(*ecdsa.PublicKey).Equal(public) {
		t.Fatalf("%v, %v", public, err)
	}
	if made := v.made.Load(); made != "ecdsa-p256" {
		t.Errorf("made as %v", made)
	}
	if opened, err := Open(t.Context(), reference); err != nil || !v.key.Public().(*ecdsa.PublicKey).Equal(opened.Public()) {
		t.Errorf("what was made does not open: %v", err)
	}
}

func TestAWSMakesAKeyUnderAnAlias(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var asked []string
	absent := true
	reference := startAWSWith(t, key, func(operation string, w http.ResponseWriter) bool {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, operation)
		switch {
		case operation == "CreateKey":
			io.WriteString(w, `{"KeyMetadata":{"KeyId":"1234abcd-12ab-34cd-56ef-1234567890ab"}}`)
		case operation == "CreateAlias":
			absent = false
			io.WriteString(w, `{}`)
		case absent:
			w.WriteHeader(http.StatusBadRequest)
			io.WriteString(w, `{"__type":"NotFoundException","message":"there is no such alias"}`)
		default:
			return false
		}
		return true
	})
	for range 2 { // the second time it is there
		public, err := Create(t.Context(), reference)
		if err != nil || !key.PublicKey.Equal(public) {
			t.Fatalf("%v, %v", public, err)
		}
	}
	if n := len(slices.DeleteFunc(asked, func(s string) bool { return s != "CreateKey" })); n != 1 {
		t.Errorf("made %d keys: %v", n, asked)
	}
	if _, err := Create(t.Context(), strings.Replace(reference, "alias/release", "1234abcd-12ab-34cd-56ef-1234567890ab", 1)); err == nil || !strings.Contains(err.Error(), "alias") {
		t.Errorf("without an alias: %v", err)
	}
}

func TestAKeyThatCannotBeMade(t *testing.T) {
	v, reference := startVault(t, p256(t))
	v.down.Store(true)
	if _, err := Create(t.Context(), reference); err == nil || !strings.HasPrefix(err.Error(), reference) {
		t.Errorf("error %v", err)
	}
	if _, err := Create(t.Context(), "pkcs11:x"); err == nil {
		t.Error("made where nobody is")
	}
}
