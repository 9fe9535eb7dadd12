package verifier

import (
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/verifier/envelope"
)

// predictions are the payloads that are known without fetching them: those of
// signers who add no annotations, under the names that a subject is likely to
// be signed for. Nothing is believed about a payload because it is predicted. It
// is bytes of a digest that a registry named, as fetched ones are, and a key has
// to vouch for it as for these.
//
// Sources: cosign since v0.3 writes go-containerregistry's name of the
// repository, without a tag, or what --sign-container-identity says
// (cmd/cosign/cli/sign/sign.go at v2.6.5 and v3.1.3), v0.1 and v0.2 write no name
// in the legacy form (pkg/cosign/sign.go at v0.1.0).
type predictions struct {
	plain []named

	mu   sync.Mutex
	made map[int64]map[v1.Hash][]byte // those that were asked for, by size
}

// named is a payload and the names that it may be about.
type named struct {
	envelope.Plain
	names []string
}

func newPredictions(subject Subject) *predictions {
	names := []string{""}
	for _, name := range subject.Names[:min(len(subject.Names), maxNames)] {
		if envelope.IsPlain(name) {
			names = append(names, name)
		}
	}
	p := &predictions{made: make(map[int64]map[v1.Hash][]byte)}
	for _, plain := range envelope.Modern.Plain(subject.Digest.String()) {
		p.plain = append(p.plain, named{plain, names})
	}
	for _, plain := range envelope.Legacy.Plain(subject.Digest.String()) {
		p.plain = append(p.plain, named{plain, names[:1]})
	}
	return p
}

// payload returns the prediction that blob describes, or nil when none does. It
// hashes only those of blob's size, and each of them once.
func (p *predictions) payload(blob v1.Descriptor) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	made, ok := p.made[blob.Size]
	if !ok {
		made = p.ofSize(blob.Size)
		p.made[blob.Size] = made
	}
	return made[blob.Digest]
}

func (p *predictions) ofSize(size int64) map[v1.Hash][]byte {
	made := make(map[v1.Hash][]byte)
	for _, plain := range p.plain {
		for _, name := range plain.names {
			if plain.Size(name) == size {
				data := plain.Payload(name)
				made[hashOf(data)] = data
			}
		}
	}
	return made
}
