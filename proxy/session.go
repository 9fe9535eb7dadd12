package proxy

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"net/http"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// session is an upload as our Location carries it, sealed: a client can neither
// read nor change it, and nothing about it is kept here. A replica with the same
// key goes on with it; after a restart with another key the client has to begin
// anew.
//
// The SHA-256 of what has passed goes along, so that an upload is committed only
// when this program has hashed all of it to the digest, whoever of its replicas saw
// which part.
type session struct {
	ID         string    `json:"id"`
	Repository string    `json:"repository"` // canonical
	Caller     string    `json:"caller"`     // who began it
	Begun      time.Time `json:"begun"`
	Location   string    `json:"location"` // the upstream's
	Offset     int64     `json:"offset"`   // bytes that were hashed
	// Held is how many bytes the upstream holds. It is more than Offset after a
	// piece broke off: then the client sends from Offset on, and what the upstream
	// has already is hashed and not sent again.
	Held int64  `json:"held"`
	Hash []byte `json:"hash"` // the state of SHA-256 at Offset
}

// sealer seals sessions with AES-256-GCM.
type sealer struct{ aead cipher.AEAD }

// sessionPurpose binds what is sealed to what it is for.
const sessionPurpose = "vidimus upload session 1"

// newSealer takes a key of at least 32 bytes; nil is a random one.
func newSealer(key []byte) (sealer, error) {
	if key == nil {
		key = make([]byte, sha256.Size)
		rand.Read(key)
	}
	if len(key) < sha256.Size {
		return sealer{}, errors.New("proxy: UploadKey has less than 32 bytes")
	}
	derived := sha256.Sum256(append([]byte(sessionPurpose+"\x00"), key...))
	block, err := aes.NewCipher(derived[:])
	if err != nil {
		return sealer{}, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return sealer{}, err
	}
	return sealer{aead}, nil
}

func (s sealer) seal(u session) (string, error) {
	plain, err := json.Marshal(u)
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(s.aead.Seal(nil, nil, plain, []byte(sessionPurpose))), nil
}

// maxSession bounds the text of a session in a path.
const maxSession = 16 << 10

func (s sealer) open(text string) (session, bool) {
	sealed, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(text) > maxSession {
		return session{}, false
	}
	plain, err := s.aead.Open(nil, nil, sealed, []byte(sessionPurpose))
	if err != nil {
		return session{}, false
	}
	var u session
	return u, json.Unmarshal(plain, &u) == nil
}

// newSession is an upload of nothing yet, which is nowhere yet.
func newSession(repository, caller string, now time.Time) session {
	id := make([]byte, 16)
	rand.Read(id)
	u := session{ID: hex.EncodeToString(id), Repository: repository, Caller: caller, Begun: now}
	u.setHash(sha256.New())
	return u
}

// hash returns a hash of the bytes up to Offset.
func (u *session) hash() (hash.Hash, error) {
	h := sha256.New()
	state, ok := h.(encoding.BinaryUnmarshaler)
	if !ok {
		return nil, errors.New("SHA-256 cannot be resumed")
	}
	if err := state.UnmarshalBinary(u.Hash); err != nil {
		return nil, fmt.Errorf("resume SHA-256: %w", err)
	}
	return h, nil
}

func (u *session) setHash(h hash.Hash) {
	u.Hash, _ = h.(encoding.BinaryMarshaler).MarshalBinary() // SHA-256 always can
}

// digest is that of the bytes up to Offset.
func (u *session) digest() (v1.Hash, error) {
	h, err := u.hash()
	if err != nil {
		return v1.Hash{}, err
	}
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}, nil
}

// uploadsUnderWay keeps two requests from going on with one upload at a time, and
// bounds how many do with any. The zero value is ready.
type uploadsUnderWay struct {
	mu   sync.Mutex
	busy map[string]chan struct{} // closed when the upload is given back
}

// uploadPatience is how long a request waits for the one before it. Who asks where a
// broken piece goes on may be faster than the news that its connection is gone.
const uploadPatience = 2 * time.Second

// begin takes the upload id; the function that it returns gives it back.
func (b *uploadsUnderWay) begin(ctx context.Context, id string) (end func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, uploadPatience)
	defer cancel()
	for {
		end, before, err := b.take(id)
		if before == nil {
			return end, err
		}
		select {
		case <-before:
		case <-ctx.Done():
			return nil, &Error{Status: http.StatusConflict, Code: codeBlobUploadInvalid, Message: "another request goes on with this upload at the moment"}
		}
	}
}

// take is begin without patience: before is closed when who has the upload gives it back,
// and nil when nobody has it.
func (b *uploadsUnderWay) take(id string) (end func(), before <-chan struct{}, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if busy, taken := b.busy[id]; taken {
		return nil, busy, nil
	}
	if len(b.busy) >= maxUploads {
		return nil, nil, &Error{
			Status: http.StatusTooManyRequests, Code: codeTooManyRequests,
			Message: "too many uploads go through Vidimus at once", RetryAfter: retryAfterDefault,
		}
	}
	if b.busy == nil {
		b.busy = make(map[string]chan struct{})
	}
	given := make(chan struct{})
	b.busy[id] = given
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.busy, id)
		close(given)
	}, nil, nil
}
