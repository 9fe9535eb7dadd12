package carrier

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"

	"vidimus/signer"
)

// ErrExists says that the tag at the target names another image.
var ErrExists = errors.New("exists already, as another image")

// Plan says where a Graph goes, and what of it.
type Plan struct {
	// Image is where the image goes, and what was found beside it.
	Image Target
	// Evidence is where that goes which was found elsewhere; nil for Image.
	Evidence Target
	// Apart sends all evidence there, wherever it was found.
	Apart bool

	// Tag is what names the image at the target in the end; empty for none.
	Tag string
	// Overwrite moves a tag that names another image.
	Overwrite bool
	// Only takes evidence of these kinds and no image; empty for all.
	Only []Kind

	// Locker is what writers on this host take turns by; nil for none.
	Locker signer.Locker

	// Progress, when set, is told how many bytes of how many have been dealt with.
	// It is called by several goroutines.
	Progress func(done, of int64)
}

// Copied says what was done.
type Copied struct {
	Manifests int   // that were written, under a digest or a tag
	Blobs     int   // that were written
	Bytes     int64 // of them
	Mounted   int   // blobs that the target took over from where they were
	Present   int   // blobs that were there already
}

// Copy carries g to where p says. Blobs go first, then manifests, then evidence,
// and the tag last. On an error the tag is as it was, and what was written before
// harms nobody: the copy can be made again, and goes on where it ended.
func Copy(ctx context.Context, g *Graph, p Plan) (Copied, error) {
	c := &copying{Plan: p, root: g.Root, put: make(map[v1.Hash]bool), lists: make(map[listKey][]json.RawMessage)}
	if c.Evidence == nil {
		c.Evidence = p.Image
	}
	if err := c.checkTag(ctx); err != nil {
		return c.done, err
	}
	chosen := c.chosen(g)
	if err := c.blobs(ctx, chosen); err != nil {
		return c.done, err
	}
	if len(p.Only) == 0 {
		if err := c.image(ctx, g.Root); err != nil {
			return c.done, err
		}
	}
	if err := c.evidence(ctx, chosen); err != nil {
		return c.done, err
	}
	if p.Tag == "" || len(p.Only) > 0 {
		return c.done, nil
	}
	return c.done, c.tag(ctx)
}

// copying is one Copy at work.
type copying struct {
	Plan
	root *Node

	mu    sync.Mutex
	done  Copied
	moved int64
	total int64
	put   map[v1.Hash]bool // manifests that were written under their digest
	// lists are the fallback tags that must list referrers, which the target did not
	// say that it lists itself.
	lists map[listKey][]json.RawMessage
}

type listKey struct {
	target Target
	tag    string
}

// to is where a node goes.
func (c *copying) to(n *Node) Target {
	if n.From == c.root.From && (n.Kind == "" || !c.Apart) {
		return c.Image
	}
	return c.Evidence
}

func (c *copying) checkTag(ctx context.Context) error {
	if c.Tag == "" || c.Overwrite || len(c.Only) > 0 {
		return nil
	}
	_, digest, err := fetch(ctx, c.Image, c.Tag)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case digest != c.root.Digest:
		return fmt.Errorf("%s:%s %w (%s)", c.Image.Name(), c.Tag, ErrExists, digest)
	}
	return nil
}

// chosen returns the nodes to be carried. With Only these are the evidence of the
// kinds that were asked for, and what is said about that.
func (c *copying) chosen(g *Graph) map[*Node]bool {
	chosen := make(map[*Node]bool)
	var take func(n *Node, all bool)
	seen := make(map[*Node]bool)
	take = func(n *Node, all bool) {
		if all {
			if chosen[n] {
				return
			}
			chosen[n] = true
		} else if seen[n] {
			return
		}
		seen[n] = true
		for _, child := range n.Children {
			take(child, all)
		}
		for _, tagged := range n.Tagged {
			take(tagged.Node, all || c.wanted(tagged.Node))
		}
		for _, referrer := range n.Referrers {
			take(referrer, all || c.wanted(referrer))
		}
	}
	take(g.Root, len(c.Only) == 0)
	return chosen
}

func (c *copying) wanted(n *Node) bool {
	for _, kind := range c.Only {
		if n.Kind == kind {
			return true
		}
	}
	return false
}

// blobs carries the blobs of all nodes, several at once, each once.
func (c *copying) blobs(ctx context.Context, chosen map[*Node]bool) error {
	type move struct {
		desc     v1.Descriptor
		from     Place
		to       Target
		optional bool
	}
	type key struct {
		to     Target
		digest v1.Hash
	}
	moves := make(map[key]move)
	for n := range chosen {
		for _, desc := range n.Blobs {
			k := key{c.to(n), desc.Digest}
			if _, ok := moves[k]; !ok && desc.Size >= 0 {
				c.total += desc.Size
			}
			moves[k] = move{desc, n.From, k.to, !desc.MediaType.IsDistributable()}
		}
	}
	c.report(0)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(workers)
	for _, m := range moves {
		g.Go(func() error {
			err := c.blob(ctx, m.desc, m.from, m.to)
			if m.optional && errors.Is(err, fs.ErrNotExist) {
				return nil // of a layer that is fetched from elsewhere
			}
			return err
		})
	}
	return g.Wait()
}

func (c *copying) report(n int64) {
	if c.Progress == nil {
		return
	}
	c.mu.Lock()
	c.moved += n
	moved := c.moved
	c.mu.Unlock()
	c.Progress(moved, c.total)
}

func (c *copying) blob(ctx context.Context, desc v1.Descriptor, from Place, to Target) error {
	there, err := to.HasBlob(ctx, desc.Digest)
	if err != nil {
		return fmt.Errorf("look for blob %s in %s: %w", desc.Digest, to.Name(), err)
	}
	if there {
		c.count(func(d *Copied) { d.Present++ })
		c.report(desc.Size)
		return nil
	}
	var last *counted
	mounted, err := to.PutBlob(ctx, desc, from, func() (io.ReadCloser, error) {
		body, err := openBlob(ctx, from, desc)
		if err != nil {
			return nil, err
		}
		if last != nil {
			c.report(-last.n) // it begins again
		}
		last = &counted{ReadCloser: body, report: c.report}
		return last, nil
	})
	if err != nil {
		return fmt.Errorf("copy blob %s to %s: %w", desc.Digest, to.Name(), err)
	}
	if mounted {
		c.count(func(d *Copied) { d.Mounted++ })
		c.report(desc.Size)
		return nil
	}
	c.count(func(d *Copied) { d.Blobs++; d.Bytes += desc.Size })
	return nil
}

func (c *copying) count(add func(*Copied)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	add(&c.done)
}

// counted reports what is read of a blob.
type counted struct {
	io.ReadCloser
	n      int64
	report func(int64)
}

// Read implements io.Reader.
func (r *counted) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.n += int64(n)
	r.report(int64(n))
	return n, err
}

// image writes a manifest after all that it lists.
func (c *copying) image(ctx context.Context, n *Node) error {
	for _, child := range n.Children {
		if err := c.image(ctx, child); err != nil {
			return err
		}
	}
	return c.manifest(ctx, n)
}

// manifest writes one under its digest, once. One that points at a subject is put
// on the list of its referrers, where the target does not do that itself.
func (c *copying) manifest(ctx context.Context, n *Node) error {
	c.mu.Lock()
	before := c.put[n.Digest]
	c.put[n.Digest] = true
	c.mu.Unlock()
	if before {
		return nil
	}
	to := c.to(n)
	took, err := to.PutManifest(ctx, n.Digest.String(), Manifest{n.Data, n.MediaType})
	if err != nil {
		return fmt.Errorf("write %s to %s: %w", n.Digest, to.Name(), err)
	}
	c.count(func(d *Copied) { d.Manifests++ })
	if n.Subject == (v1.Hash{}) || took {
		return nil
	}
	raw, err := json.Marshal(n.Descriptor())
	if err != nil {
		return err
	}
	key := listKey{to, Tag(n.Subject, "")}
	c.mu.Lock()
	c.lists[key] = append(c.lists[key], raw)
	c.mu.Unlock()
	return nil
}

// evidence writes referrers, and then what is under tags: all that is merged in one
// go, since each merge is watched for a while.
func (c *copying) evidence(ctx context.Context, chosen map[*Node]bool) error {
	additions := make(map[Target][]signer.Addition)
	seen := make(map[*Node]bool)
	var visit func(n *Node) error
	visit = func(n *Node) error {
		if seen[n] {
			return nil
		}
		seen[n] = true
		for _, child := range n.Children {
			if err := visit(child); err != nil {
				return err
			}
		}
		for _, referrer := range n.Referrers {
			if chosen[referrer] {
				// A referrer that is an index comes with what it lists.
				if err := c.image(ctx, referrer); err != nil {
					return err
				}
			}
			if err := visit(referrer); err != nil {
				return err
			}
		}
		for _, t := range n.Tagged {
			if chosen[t.Node] {
				to := c.to(t.Node)
				additions[to] = append(additions[to], signer.Addition{
					Repository: to.Name(), Tag: t.Tag, Descriptors: t.RawLayers, Exact: t.Data,
				})
			}
			if err := visit(t.Node); err != nil {
				return err
			}
		}
		return nil
	}
	if err := visit(c.root); err != nil {
		return err
	}
	for key, descriptors := range c.lists {
		additions[key.target] = append(additions[key.target], signer.Addition{
			Repository: key.target.Name(), Tag: key.tag, List: true, Descriptors: descriptors,
		})
	}
	for to, all := range additions {
		config := signer.Config{Registry: Registry{to}, Locker: c.Locker}
		added, err := signer.Add(ctx, config, all...)
		if err != nil {
			return err
		}
		for _, a := range added {
			if !a.Kept {
				c.done.Manifests++
			}
		}
	}
	return nil
}

// tag makes the tag name the image, and looks whether it does.
func (c *copying) tag(ctx context.Context) error {
	if _, err := c.Image.PutManifest(ctx, c.Tag, Manifest{c.root.Data, c.root.MediaType}); err != nil {
		return fmt.Errorf("tag %s:%s: %w", c.Image.Name(), c.Tag, err)
	}
	_, digest, err := fetch(ctx, c.Image, c.Tag)
	if err != nil {
		return fmt.Errorf("tagged, but not seen to have stayed: %w", err)
	}
	if digest != c.root.Digest {
		return fmt.Errorf("%s:%s names %s right after %s was tagged so: another writer, or the registry changed it",
			c.Image.Name(), c.Tag, digest, c.root.Digest)
	}
	return nil
}

// Registry is a Target as package signer sees it. What it calls the repository is
// the target's affair.
type Registry struct{ Target }

// Manifest implements signer.Registry.
func (r Registry) Manifest(ctx context.Context, _, reference string) ([]byte, error) {
	m, err := r.Target.Manifest(ctx, reference)
	return m.Data, err
}

// PutBlob implements signer.Registry.
func (r Registry) PutBlob(ctx context.Context, _ string, digest v1.Hash, data []byte) error {
	there, err := r.Target.HasBlob(ctx, digest)
	if err != nil || there {
		return err
	}
	desc := v1.Descriptor{Digest: digest, Size: int64(len(data))}
	_, err = r.Target.PutBlob(ctx, desc, nil, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
	return err
}

// PutManifest implements signer.Registry.
func (r Registry) PutManifest(ctx context.Context, _, reference string, mediaType types.MediaType, data []byte) (listed bool, err error) {
	return r.Target.PutManifest(ctx, reference, Manifest{data, mediaType})
}

// Blob implements signer.Registry.
func (r Registry) Blob(ctx context.Context, _ string, digest v1.Hash, limit int64) ([]byte, error) {
	body, err := r.Target.Blob(ctx, digest)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("blob %s: %w: more than %d bytes", digest, signer.ErrTooLarge, limit)
	}
	return data, err
}

// Referrers implements signer.Registry.
func (r Registry) Referrers(ctx context.Context, _ string, digest v1.Hash) ([]v1.Descriptor, error) {
	listed, err := r.Target.Referrers(ctx, digest)
	if !errors.Is(err, fs.ErrNotExist) {
		return listed, err
	}
	m, err := r.Target.Manifest(ctx, Tag(digest, ""))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return signer.ReferrersIndex(m.Data), nil
}
