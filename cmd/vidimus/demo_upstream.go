package main

import (
	"bytes"
	"context"
	"crypto"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sync/errgroup"

	"vidimus/signer"
)

// demoUpstream is a registry in memory that lies about one blob.
type demoUpstream struct {
	http.Handler
	tampered string // digest of the blob that is not what it was
}

func newDemoUpstream() *demoUpstream {
	return &demoUpstream{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true))}
}

// ServeHTTP answers as the registry does, but for the tampered blob, in which
// one byte differs.
func (u *demoUpstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if u.tampered == "" || r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, "/blobs/"+u.tampered) {
		u.Handler.ServeHTTP(w, r)
		return
	}
	u.Handler.ServeHTTP(&flippingWriter{ResponseWriter: w}, r)
}

// flippingWriter changes the first byte that is written.
type flippingWriter struct {
	http.ResponseWriter
	done bool
}

func (w *flippingWriter) Write(p []byte) (int, error) {
	if w.done || len(p) == 0 {
		return w.ResponseWriter.Write(p)
	}
	w.done = true
	changed := bytes.Clone(p)
	changed[0] ^= 1
	return w.ResponseWriter.Write(changed)
}

// demoImage is one case of the demonstration.
type demoImage struct {
	repository string
	what       string
	served     bool
}

// demoImages are pushed to the upstream and pulled through the proxy.
var demoImages = []demoImage{
	{"acme/signed", "signed with the key that the policy requires", true},
	{"acme/multi", "an index of two platforms, signed", true},
	{"acme/unsigned", "not signed at all", false},
	{"acme/wrongkey", "signed, with somebody else's key", false},
	{"acme/moved", "the tag was moved after signing, the signature copied along", false},
	{"acme/tampered", "signed, but a layer was changed in the registry", false},
}

// fill pushes the images of the demonstration to the upstream at host.
func (u *demoUpstream) fill(ctx context.Context, host string, key, other crypto.Signer) error {
	p := demoPusher{ctx: ctx, host: host}
	signed, unsigned, wrong := p.image(), p.image(), p.image()
	before, after, tampered := p.image(), p.image(), p.image()
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: p.imageFor("amd64"), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
		mutate.IndexAddendum{Add: p.imageFor("arm64"), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}},
	)
	p.push("acme/signed", signed)
	p.pushIndex("acme/multi", index)
	p.push("acme/unsigned", unsigned)
	p.push("acme/wrongkey", wrong)
	p.push("acme/moved", before)
	p.push("acme/tampered", tampered)
	p.sign(
		signature{other, []signer.Request{p.request("acme/wrongkey", wrong)}},
		signature{key, []signer.Request{
			p.request("acme/signed", signed), p.request("acme/multi", index),
			p.request("acme/moved", before), p.request("acme/tampered", tampered),
		}},
	)
	p.push("acme/moved", after)
	p.copySignature("acme/moved", before, after)
	if p.err != nil {
		return fmt.Errorf("fill the upstream: %w", p.err)
	}
	layers, err := tampered.Layers()
	if err != nil {
		return err
	}
	digest, err := layers[0].Digest()
	if err != nil {
		return err
	}
	u.tampered = digest.String()
	return nil
}

// digestible is what has a digest: an image or an index.
type digestible interface{ Digest() (v1.Hash, error) }

// demoPusher pushes until the first error, which it keeps.
type demoPusher struct {
	ctx  context.Context
	host string
	err  error
}

func (p *demoPusher) image() v1.Image { return p.imageFor("amd64") }

// imageFor makes a small image that a client can unpack.
func (p *demoPusher) imageFor(architecture string) v1.Image {
	image, err := random.Image(2048, 2)
	if err != nil {
		p.err = err
		return empty.Image
	}
	config, err := image.ConfigFile()
	if err != nil {
		p.err = err
		return empty.Image
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", architecture
	config.Created = v1.Time{Time: time.Unix(0, 0)}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		p.err = err
		return empty.Image
	}
	return image
}

func (p *demoPusher) reference(repository, tag string) name.Reference {
	reference, err := name.ParseReference(p.host+"/"+repository+":"+tag, name.Insecure)
	if err != nil && p.err == nil {
		p.err = err
	}
	return reference
}

func (p *demoPusher) push(repository string, image v1.Image) {
	if reference := p.reference(repository, "v1"); p.err == nil {
		p.err = remote.Write(reference, image, remote.WithContext(p.ctx))
	}
}

func (p *demoPusher) pushIndex(repository string, index v1.ImageIndex) {
	if reference := p.reference(repository, "v1"); p.err == nil {
		p.err = remote.WriteIndex(reference, index, remote.WithContext(p.ctx))
	}
}

func (p *demoPusher) request(repository string, subject digestible) signer.Request {
	digest, err := subject.Digest()
	if err != nil && p.err == nil {
		p.err = err
	}
	in := p.host + "/" + repository
	return signer.Request{Subject: digest, Repository: in, Reference: in}
}

// signature is what one key is to sign.
type signature struct {
	key      crypto.Signer
	requests []signer.Request
}

// sign makes the signatures of all keys at the same time: each of them waits to
// see that its own stayed.
func (p *demoPusher) sign(signatures ...signature) {
	if p.err != nil {
		return
	}
	writer := writerFlags{registryFlags: registryFlags{allowHTTP: true}}
	registry, err := writer.registry(name.Repository{})
	if err != nil {
		p.err = err
		return
	}
	group, ctx := errgroup.WithContext(p.ctx)
	for _, s := range signatures {
		group.Go(func() error {
			by, err := signer.New(signer.Config{Registry: registry, Key: s.key, Formats: []signer.Format{signer.FormatTag}})
			if err == nil {
				_, err = by.Sign(ctx, s.requests...)
			}
			return err
		})
	}
	p.err = group.Wait()
}

func (p *demoPusher) copySignature(repository string, from, to digestible) {
	if p.err != nil {
		return
	}
	source, err := from.Digest()
	if err != nil {
		p.err = err
		return
	}
	target, err := to.Digest()
	if err != nil {
		p.err = err
		return
	}
	signature, err := remote.Image(p.reference(repository, signer.Tag(source)), remote.WithContext(p.ctx))
	if err != nil {
		p.err = err
		return
	}
	p.err = remote.Write(p.reference(repository, signer.Tag(target)), signature, remote.WithContext(p.ctx))
}

// listenLoopback listens at addr, or at any free port when it is taken or empty.
func listenLoopback(addr string) (net.Listener, error) {
	if addr != "" {
		if l, err := net.Listen("tcp", addr); err == nil {
			return l, nil
		}
	}
	return net.Listen("tcp", "127.0.0.1:0")
}
