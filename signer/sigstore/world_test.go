package sigstore

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
	"github.com/sigstore/rekor/pkg/generated/models"
	"github.com/sigstore/rekor/pkg/types"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"

	"vidimus/signer"
)

const who = "dev@acme.example"

// world is an instance of Sigstore in this process. It is trusted by whoever takes it
// as a trust root.
type world struct {
	*ca.VirtualSigstore // its log of version 1

	authority    *root.FulcioCertificateAuthority
	authorityKey *ecdsa.PrivateKey
	stamper      *root.SigstoreTimestampingAuthority
	stamperKey   *ecdsa.PrivateKey

	// Handlers that a test puts in the place of the honest ones.
	certify, enter, stamp http.HandlerFunc

	url     string
	mu      sync.Mutex
	entries map[string]models.LogEntry // by what was proposed
}

// FulcioCertificateAuthorities implements root.TrustedMaterial.
func (w *world) FulcioCertificateAuthorities() []root.CertificateAuthority {
	return []root.CertificateAuthority{w.authority}
}

// TimestampingAuthorities implements root.TrustedMaterial.
func (w *world) TimestampingAuthorities() []root.TimestampingAuthority {
	return []root.TimestampingAuthority{w.stamper}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	virtual, err := ca.NewVirtualSigstore()
	check(t, err)
	first, firstKey, err := ca.GenerateRootCa()
	check(t, err)
	w := &world{VirtualSigstore: virtual, entries: make(map[string]models.LogEntry)}
	since := time.Now().Add(-time.Minute)
	intermediate, key, err := ca.GenerateFulcioIntermediate(first, firstKey)
	check(t, err)
	w.authorityKey = key
	w.authority = &root.FulcioCertificateAuthority{Root: first, Intermediates: []*x509.Certificate{intermediate}, ValidityPeriodStart: since}
	between, betweenKey, err := ca.GenerateTSAIntermediate(first, firstKey)
	check(t, err)
	w.stamperKey, err = newKey()
	check(t, err)
	leaf, err := ca.GenerateTSALeafCert(since, w.stamperKey, between, betweenKey)
	check(t, err)
	w.stamper = &root.SigstoreTimestampingAuthority{
		Root: first, Intermediates: []*x509.Certificate{between}, Leaf: leaf, ValidityPeriodStart: since,
	}
	w.certify, w.enter, w.stamp = w.honestCertify, w.honestEnter, w.honestStamp
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v2/signingCert", func(rw http.ResponseWriter, r *http.Request) { w.certify(rw, r) })
	mux.HandleFunc("POST /api/v1/log/entries", func(rw http.ResponseWriter, r *http.Request) { w.enter(rw, r) })
	mux.HandleFunc("GET /api/v1/log/entries/{uuid}", func(rw http.ResponseWriter, r *http.Request) {
		for _, entry := range w.entries {
			if _, ok := entry[r.PathValue("uuid")]; ok {
				answerJSON(rw, http.StatusOK, entry)
			}
		}
	})
	mux.HandleFunc("POST /stamp", func(rw http.ResponseWriter, r *http.Request) { w.stamp(rw, r) })
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	w.url = server.URL
	return w
}

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := signer.GenerateKey()
	if err != nil {
		return nil, err
	}
	return key.(*ecdsa.PrivateKey), nil
}

// services are the world's, trusted.
func (w *world) services() Services {
	return Services{Authority: w.url, Logs: []Log{{w.url, 1}}, Stampers: []string{w.url + "/stamp"}, Trusted: w, Timeout: 5 * time.Second}
}

// publicOnly stands for a key of which only the public half is known.
type publicOnly struct {
	crypto.Signer
	public crypto.PublicKey
}

func (p publicOnly) Public() crypto.PublicKey { return p.public }

func (w *world) honestCertify(rw http.ResponseWriter, r *http.Request) {
	var asked struct {
		Request struct {
			Key struct {
				Content string `json:"content"`
			} `json:"publicKey"`
			Proof []byte `json:"proofOfPossession"`
		} `json:"publicKeyRequest"`
	}
	body, _ := io.ReadAll(r.Body)
	if json.Unmarshal(body, &asked) != nil || r.Header.Get("Authorization") != "Bearer "+token(who) {
		http.Error(rw, "no such token", http.StatusUnauthorized)
		return
	}
	block, _ := pem.Decode([]byte(asked.Request.Key.Content))
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil || !ecdsa.VerifyASN1(public.(*ecdsa.PublicKey), digestOf(crypto.SHA256, []byte(who)), asked.Request.Proof) {
		http.Error(rw, "no proof of possession", http.StatusBadRequest)
		return
	}
	w.sendCertificate(rw, public)
}

func (w *world) sendCertificate(rw http.ResponseWriter, public crypto.PublicKey) {
	leaf, err := ca.GenerateLeafCert(who, "https://issuer.example", time.Now().Add(-time.Second), publicOnly{public: public}, w.authority.Intermediates[0], w.authorityKey)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusInternalServerError)
		return
	}
	var texts []string
	for _, certificate := range append([]*x509.Certificate{leaf}, w.authority.Intermediates...) {
		texts = append(texts, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})))
	}
	answerJSON(rw, http.StatusOK, map[string]any{"signedCertificateEmbeddedSct": map[string]any{"chain": map[string]any{"certificates": texts}}})
}

func (w *world) honestEnter(rw http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.mu.Lock()
	defer w.mu.Unlock()
	if stored, ok := w.entries[string(body)]; ok {
		for uuid := range stored {
			rw.Header().Set("Location", "/api/v1/log/entries/"+uuid)
		}
		rw.WriteHeader(http.StatusConflict)
		return
	}
	entry, err := w.entry(r, body)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	w.entries[string(body)] = entry
	answerJSON(rw, http.StatusCreated, entry)
}

// entry makes an entry as Rekor does.
func (w *world) entry(r *http.Request, body []byte) (models.LogEntry, error) {
	proposed, err := models.UnmarshalProposedEntry(newReader(body), jsonConsumer{})
	if err != nil {
		return nil, err
	}
	entry, err := types.CreateVersionedEntry(proposed)
	if err != nil {
		return nil, err
	}
	canonical, err := types.CanonicalizeEntry(r.Context(), entry)
	if err != nil {
		return nil, err
	}
	id, err := w.RekorLogID()
	if err != nil {
		return nil, err
	}
	encoded := base64.StdEncoding.EncodeToString(canonical)
	at, index := time.Now().Unix(), int64(0)
	promised, err := w.RekorSignPayload(tlog.RekorPayload{Body: encoded, IntegratedTime: at, LogIndex: index, LogID: id})
	if err != nil {
		return nil, err
	}
	proof, err := w.GetInclusionProof(canonical)
	if err != nil {
		return nil, err
	}
	return models.LogEntry{hex.EncodeToString(digestOf(crypto.SHA256, canonical)): models.LogEntryAnon{
		Body: encoded, IntegratedTime: &at, LogIndex: &index, LogID: &id,
		Verification: &models.LogEntryAnonVerification{SignedEntryTimestamp: promised, InclusionProof: proof},
	}}, nil
}

func (w *world) honestStamp(rw http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	asked, err := timestamp.ParseRequest(body)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	w.sendStamp(rw, asked.HashedMessage)
}

func (w *world) sendStamp(rw http.ResponseWriter, digest []byte) {
	stamp := timestamp.Timestamp{HashAlgorithm: crypto.SHA256, HashedMessage: digest, Time: time.Now(), Policy: []int{1, 2, 3}}
	answer, err := stamp.CreateResponseWithOpts(w.stamper.Leaf, w.stamperKey, crypto.SHA256)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = rw.Write(answer)
}

func answerJSON(rw http.ResponseWriter, status int, value any) {
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(status)
	_ = json.NewEncoder(rw).Encode(value)
}

// token is one for subject, which the world takes without a signature.
func token(subject string) string {
	claims, _ := json.Marshal(map[string]any{"sub": subject, "iss": "https://issuer.example"})
	return "e30." + base64.RawURLEncoding.EncodeToString(claims) + ".c2ln"
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
