package verifier

import (
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"testing"

	"github.com/c2sp/wycheproof"
)

// vectors is the part of a Wycheproof file that is used here.
type vectors struct {
	TestGroups []struct {
		PublicKeyPEM string `json:"publicKeyPem"`
		Tests        []struct {
			ID      int `json:"tcId"`
			Comment string
			Msg     string
			Sig     string
			Result  string
		}
	}
}

func load(t *testing.T, name string) vectors {
	t.Helper()
	data, err := fs.ReadFile(wycheproof.TestVectors, name)
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// verdicts calls judge for each vector of a file with our verdict on it, and
// fails when there are fewer than least.
func verdicts(t *testing.T, name string, least int, judge func(result string, verified bool) bool) {
	t.Helper()
	seen := 0
	for _, group := range load(t, name).TestGroups {
		key, err := ParseKey([]byte(group.PublicKeyPEM))
		if err != nil {
			t.Fatalf("%v\n%s", err, group.PublicKeyPEM)
		}
		for _, test := range group.Tests {
			message, err := hex.DecodeString(test.Msg)
			if err != nil {
				t.Fatal(err)
			}
			signature, err := hex.DecodeString(test.Sig)
			if err != nil {
				t.Fatal(err)
			}
			if verified := key.verifies(newMessage(message), signature); !judge(test.Result, verified) {
				t.Errorf("vector %d (%s, %s): verified = %v", test.ID, test.Comment, test.Result, verified)
			}
			seen++
		}
	}
	if seen < least {
		t.Errorf("%d vectors, where there were %d once", seen, least)
	}
}

func TestWycheproofIsAgreedWith(t *testing.T) {
	for _, tt := range []struct {
		file  string
		least int
	}{
		{"ecdsa_secp256r1_sha256_test.json", 484},
		{"ecdsa_secp384r1_sha384_test.json", 400},
		{"ecdsa_secp384r1_sha256_test.json", 400},
		{"ecdsa_secp521r1_sha512_test.json", 400},
		{"ed25519_test.json", 150},
		{"rsa_signature_2048_sha256_test.json", 250},
		{"rsa_signature_3072_sha256_test.json", 250},
		{"rsa_signature_4096_sha256_test.json", 200},
		{"rsa_signature_8192_sha256_test.json", 200},
	} {
		t.Run(tt.file, func(t *testing.T) {
			t.Parallel()
			verdicts(t, tt.file, tt.least, func(result string, verified bool) bool {
				return result == "acceptable" || verified == (result == "valid")
			})
		})
	}
}

func TestWhatIsValidUnderOtherHashesAndEncodingsIsNot(t *testing.T) {
	for _, file := range []string{
		"ecdsa_secp256r1_sha512_test.json", "ecdsa_secp256r1_sha3_256_test.json", "ecdsa_secp256r1_sha256_p1363_test.json",
		"ecdsa_secp384r1_sha512_test.json", "ecdsa_secp384r1_sha384_p1363_test.json",
		"ecdsa_secp521r1_sha512_p1363_test.json",
		"rsa_signature_2048_sha512_test.json", "rsa_signature_2048_sha3_256_test.json",
		"rsa_pss_2048_sha256_mgf1_32_test.json",
	} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			verdicts(t, file, 50, func(result string, verified bool) bool {
				return result != "valid" || !verified
			})
		})
	}
}

func TestTheZeroKeyVerifiesNothing(t *testing.T) {
	if (Key{}).verifies(newMessage(nil), nil) {
		t.Error("it did")
	}
}
