package e2e_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"github.com/sigstore/rekor/pkg/generated/models"
	"github.com/sigstore/rekor/pkg/types"
	_ "github.com/sigstore/rekor/pkg/types/dsse/v0.0.1"         // how Rekor keeps entries of this type
	_ "github.com/sigstore/rekor/pkg/types/hashedrekord/v0.0.1" // and of this
	_ "github.com/sigstore/rekor/pkg/types/intoto/v0.0.1"       // and of this
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"

	"vidimus/e2e/real"
)

// rekorOne is a transparency log of version 1, which the tag of signatures needs: it
// promises to take an entry and tells the time. The real one wants a Trillian and a
// database; entries are made here by its own code, and promised and proven by sigstore-go's
// log for tests.
type rekorOne struct {
	URL string

	TrustedRoot   string // of the instance of Sigstore, with this log as well
	SigningConfig string // of the instance, with this log in place of its own
}

func startRekorOne(t *testing.T, s *real.Sigstore) rekorOne {
	t.Helper()
	virtual, err := ca.NewVirtualSigstore()
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v1/log/entries", func(w http.ResponseWriter, r *http.Request) {
		entry, err := entryOf(r, virtual)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		for uuid := range entry {
			w.Header().Set("ETag", uuid)
			w.Header().Set("Location", r.URL.Path+"/"+uuid)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(entry) // a client that has gone needs no answer
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	o := rekorOne{URL: server.URL}

	theirs, err := root.NewTrustedRootFromPath(s.TrustedRoot)
	if err != nil {
		t.Fatal(err)
	}
	logs := theirs.RekorLogs()
	for id, log := range virtual.RekorLogs() {
		if log.ID, err = hex.DecodeString(id); err != nil {
			t.Fatal(err)
		}
		logs[id] = log
	}
	both, err := root.NewTrustedRoot(root.TrustedRootMediaType01, theirs.FulcioCertificateAuthorities(), nil, theirs.TimestampingAuthorities(), logs)
	if err != nil {
		t.Fatal(err)
	}
	o.TrustedRoot = saved(t, "trusted_root.json", both)
	service := func(url string, version uint32) []root.Service {
		return []root.Service{{URL: url, MajorAPIVersion: version, Operator: "e2e", ValidityPeriodStart: time.Now().Add(-time.Hour)}}
	}
	anyOne := root.ServiceConfiguration{Selector: prototrustroot.ServiceSelector_ANY}
	config, err := root.NewSigningConfig(root.SigningConfigMediaType02,
		service(s.Fulcio, 1), service(s.Issuer.Email(), 1), service(o.URL, 1), anyOne, service(s.Timestamps, 1), anyOne)
	if err != nil {
		t.Fatal(err)
	}
	o.SigningConfig = saved(t, "signing_config.json", config)
	return o
}

func saved(t *testing.T, name string, value json.Marshaler) string {
	t.Helper()
	data, err := value.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return real.Write(t, t.TempDir(), name, string(data))
}

// entryOf makes the entry that a client proposes.
func entryOf(r *http.Request, virtual *ca.VirtualSigstore) (models.LogEntry, error) {
	proposed, err := models.UnmarshalProposedEntry(r.Body, jsonConsumer{})
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
	id, err := virtual.RekorLogID()
	if err != nil {
		return nil, err
	}
	encoded := base64.StdEncoding.EncodeToString(canonical)
	at, index := time.Now().Unix(), int64(0)
	promised, err := virtual.RekorSignPayload(tlog.RekorPayload{Body: encoded, IntegratedTime: at, LogIndex: index, LogID: id})
	if err != nil {
		return nil, err
	}
	proof, err := virtual.GetInclusionProof(canonical)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(append([]byte{0}, canonical...))
	return models.LogEntry{hex.EncodeToString(sum[:]): models.LogEntryAnon{
		Body: encoded, IntegratedTime: &at, LogIndex: &index, LogID: &id,
		Verification: &models.LogEntryAnonVerification{SignedEntryTimestamp: promised, InclusionProof: proof},
	}}, nil
}

// jsonConsumer reads JSON for models.UnmarshalProposedEntry.
type jsonConsumer struct{}

func (jsonConsumer) Consume(r io.Reader, into any) error { return json.NewDecoder(r).Decode(into) }
