package store

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"slices"
)

// chunkSize is the unit in which content is tagged, read back and passed on.
const chunkSize = 256 << 10

// tag authenticates one chunk of content between two reads of it by this
// process.
type tag [16]byte

// tagger makes tags under a key that never leaves the process: GMAC, which is
// GCM (NIST SP 800-38D) without a plaintext, several times as fast as SHA-256.
// A tag says that bytes are those that were tagged, not that these were right.
type tagger struct{ mac cipher.AEAD }

func newTagger() (tagger, error) {
	var secret [16]byte
	rand.Read(secret[:]) // never fails, it ends the process instead
	block, err := aes.NewCipher(secret[:])
	if err != nil {
		return tagger{}, fmt.Errorf("store: %w", err)
	}
	mac, err := cipher.NewGCM(block)
	if err != nil {
		return tagger{}, fmt.Errorf("store: %w", err)
	}
	return tagger{mac}, nil
}

// tag returns the tag of data as chunk number index of the content of k. The
// nonce binds it to its place. That a nonce comes twice when content is tagged
// again gives nothing away, for nobody outside sees a tag.
func (g tagger) tag(k key, index int64, data []byte) (t tag) {
	var nonce [12]byte
	copy(nonce[:8], k[:8])
	binary.LittleEndian.PutUint32(nonce[8:], uint32(index))
	g.mac.Seal(t[:0], nonce[:], nil, data)
	return t
}

// holds reports whether data is what t was made of.
func (g tagger) holds(t tag, k key, index int64, data []byte) bool {
	got := g.tag(k, index, data)
	return subtle.ConstantTimeCompare(got[:], t[:]) == 1
}

// all returns the tags of the chunks of data.
func (g tagger) all(k key, data []byte) []tag {
	tags := make([]tag, 0, len(data)/chunkSize+1)
	for chunk := range slices.Chunk(data, chunkSize) {
		tags = append(tags, g.tag(k, int64(len(tags)), chunk))
	}
	return tags
}
