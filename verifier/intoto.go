package verifier

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
)

// inTotoEntry is a log entry of the type intoto v0.0.1, by which cosign logged
// attestations before v2.3, and does still when it is asked to. It is about the bytes of
// an envelope and the owner of its signature. sigstore-go does not read it, and so the
// log's promise is checked here. Source: rekor pkg/types/intoto/v0.0.1.
type inTotoEntry struct {
	entry *protorekor.TransparencyLogEntry
	owner *pem.Block // a certificate or a public key
}

func isOldInToto(entry *protorekor.TransparencyLogEntry) bool {
	return entry.GetKindVersion().GetKind() == "intoto" && entry.GetKindVersion().GetVersion() == "0.0.1"
}

// maxExact is from where on JSON's numbers are not exact everywhere.
const maxExact = 1 << 53

// parseInToto reads an entry that must be about an envelope, of these bytes. Its body
// has been checked to name nothing twice.
func parseInToto(entry *protorekor.TransparencyLogEntry, data []byte) (*inTotoEntry, error) {
	var body struct {
		Spec struct {
			Content struct {
				Hash struct{ Algorithm, Value string }
			}
			PublicKey []byte
		}
	}
	if err := json.Unmarshal(entry.GetCanonicalizedBody(), &body); err != nil {
		return nil, errors.New("body: not that of an entry of type intoto v0.0.1")
	}
	if hash := body.Spec.Content.Hash; hash.Algorithm != "sha256" || hash.Value != hashOf(data).Hex {
		return nil, errors.New("it is about another envelope: " + shorten(hash.Algorithm+":"+hash.Value))
	}
	owner, rest := pem.Decode(body.Spec.PublicKey)
	if owner == nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("its publicKey is not one PEM block")
	}
	if at, index := entry.GetIntegratedTime(), entry.GetLogIndex(); at <= 0 || at >= maxExact || index < 0 || index >= maxExact {
		return nil, errors.New("its time or its index is none")
	}
	return &inTotoEntry{entry, owner}, nil
}

// promised returns the time at which a log of r promises to have taken the entry.
func (o *inTotoEntry) promised(r *Root) (time.Time, error) {
	id := hex.EncodeToString(o.entry.GetLogId().GetKeyId())
	log, ok := r.material.RekorLogs()[id]
	if !ok {
		return time.Time{}, errors.New("its log entry is of no log of the trust root")
	}
	at := time.Unix(o.entry.GetIntegratedTime(), 0)
	if log.ValidityPeriodStart.IsZero() || at.Before(log.ValidityPeriodStart) || !log.ValidityPeriodEnd.IsZero() && at.After(log.ValidityPeriodEnd) {
		return time.Time{}, errors.New("its log entry is of a time at which the log's key does not count")
	}
	public, ok := log.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return time.Time{}, errors.New("its log entry is of a log that makes no promises")
	}
	// RFC 8785's form, in which the names are in this order and nothing is escaped
	said, err := json.Marshal(struct {
		Body  []byte `json:"body"`
		At    int64  `json:"integratedTime"`
		ID    string `json:"logID"`
		Index int64  `json:"logIndex"`
	}{o.entry.GetCanonicalizedBody(), o.entry.GetIntegratedTime(), id, o.entry.GetLogIndex()})
	if err != nil {
		return time.Time{}, err
	}
	sum := sha256.Sum256(said)
	if !ecdsa.VerifyASN1(public, sum[:], o.entry.GetInclusionPromise().GetSignedEntryTimestamp()) {
		return time.Time{}, errors.New("its log entry is not promised by its log")
	}
	return at, nil
}

// time returns when the entry proves that p was there: signed by material's key, or by
// the holder of its certificate.
func (o *inTotoEntry) time(p *proven, r *Root, material root.TrustedMaterial) (time.Time, error) {
	var owned bool
	if keyed, ok := material.(keyMaterial); ok {
		public, err := x509.ParsePKIXPublicKey(o.owner.Bytes)
		if err == nil && o.owner.Type == publicKeyType {
			owner, err := NewKey(public)
			owned = err == nil && owner.id == keyed.key.id
		}
	} else {
		leaf, _, err := p.certificates()
		owned = err == nil && o.owner.Type == "CERTIFICATE" && bytes.Equal(o.owner.Bytes, leaf.Raw)
	}
	if !owned {
		return time.Time{}, errors.New("its log entry is of another signer")
	}
	return o.promised(r)
}

// certified is time for the holder of a certificate of r's authorities, which must have
// been valid then.
func (o *inTotoEntry) certified(p *proven, r *Root, leaf *x509.Certificate, others []*x509.Certificate, now time.Time) (datum, error) {
	at, err := o.time(p, r, r.material)
	if err != nil {
		return datum{}, err
	}
	chains, _, err := r.chains(leaf, others, at)
	if err == nil {
		err = r.promised(chains)
	}
	if err != nil {
		return datum{}, fmt.Errorf("at the time of its log entry: %w", err)
	}
	return earliest([]datum{loggedAt(at)}, now)
}
