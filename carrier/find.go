package carrier

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
)

// Options say what Find looks for.
type Options struct {
	// Platform takes the manifest that an index lists for it instead of the index;
	// nil for the index and all that it lists.
	Platform *v1.Platform
	// Alone leaves out what an index lists, and evidence about evidence: what is
	// said of the image itself.
	Alone bool
}

// Graph is an image with everything that belongs to it.
type Graph struct {
	Root *Node
	// Warnings are what was passed over: lists that name what is not there, and
	// tags of which the place does not say whether they exist.
	Warnings []string
}

// Find returns what reference names in the place image, and everything that
// belongs to it there and in the other places, where evidence is kept elsewhere.
// Of each manifest the bytes were hashed. Where a place cannot tell, that is an
// error, not an absence; but a tag of evidence that a registry forbids to read,
// which some do for those that do not exist, is a warning.
func Find(ctx context.Context, image Place, elsewhere []Place, reference string, o Options) (*Graph, error) {
	f := &finder{
		image: image, places: append([]Place{image}, elsewhere...), alone: o.Alone,
		known: make(map[v1.Hash]*found), turns: make(chan struct{}, workers),
	}
	f.group, ctx = errgroup.WithContext(ctx)
	root, err := f.node(ctx, image, reference)
	if err != nil {
		return nil, err
	}
	if o.Platform != nil && root.IsIndex() {
		if root, err = f.platform(ctx, root, *o.Platform); err != nil {
			return nil, err
		}
	}
	entry := new(found)
	entry.once.Do(func() { entry.node = root })
	f.known[root.Digest] = entry
	f.group.Go(func() error { return f.grow(ctx, root, 1, true) })
	if err := f.group.Wait(); err != nil {
		return nil, err
	}
	slices.Sort(f.warnings)
	return &Graph{Root: root, Warnings: slices.Compact(f.warnings)}, nil
}

// finder is one Find at work.
type finder struct {
	image  Place
	places []Place
	alone  bool
	group  *errgroup.Group // of all that is under way
	turns  chan struct{}   // one for each request under way

	mu       sync.Mutex
	known    map[v1.Hash]*found
	count    int // manifests that were read
	bytes    int // of them
	warnings []string
}

// found is a manifest that was asked for, once however often it is named.
type found struct {
	once sync.Once
	node *Node
	err  error
}

func (f *finder) warn(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.warnings = append(f.warnings, fmt.Sprintf(format, args...))
}

// turn waits for a turn to send a request.
func (f *finder) turn(ctx context.Context) (func(), error) {
	select {
	case f.turns <- struct{}{}:
		return func() { <-f.turns }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// node fetches and reads a manifest.
func (f *finder) node(ctx context.Context, place Place, reference string) (*Node, error) {
	free, err := f.turn(ctx)
	if err != nil {
		return nil, err
	}
	m, digest, err := fetch(ctx, place, reference)
	free()
	if err != nil {
		return nil, err
	}
	n, err := parse(m, digest, place)
	if err != nil {
		return nil, fmt.Errorf("%s of %s: %w", reference, place.Name(), err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count++
	f.bytes += len(m.Data)
	if f.count > MaxManifests || f.bytes > MaxBytes {
		return nil, fmt.Errorf("the image and its evidence have more than %d manifests, or %d bytes of them", MaxManifests, MaxBytes)
	}
	return n, nil
}

// once is node for a digest that may be named several times. What belongs to it is
// looked for besides, and not waited for: who names whom may go in a circle.
func (f *finder) once(ctx context.Context, place Place, digest v1.Hash, depth int) (*Node, error) {
	f.mu.Lock()
	entry, ok := f.known[digest]
	if !ok {
		entry = new(found)
		f.known[digest] = entry
	}
	f.mu.Unlock()
	entry.once.Do(func() {
		if entry.node, entry.err = f.node(ctx, place, digest.String()); entry.err != nil {
			return
		}
		if entry.node.Subject != (v1.Hash{}) {
			entry.node.classify(ctx)
		}
		if !f.alone {
			f.group.Go(func() error { return f.grow(ctx, entry.node, depth, true) })
		}
	})
	return entry.node, entry.err
}

// platform returns what an index lists for a platform.
func (f *finder) platform(ctx context.Context, index *Node, want v1.Platform) (*Node, error) {
	var have []string
	for _, desc := range index.Listed {
		if desc.Platform == nil {
			continue
		}
		if desc.Platform.Satisfies(want) {
			child, err := f.node(ctx, f.image, desc.Digest.String())
			if err == nil {
				child.Platform = desc.Platform
			}
			return child, err
		}
		have = append(have, desc.Platform.String())
	}
	return nil, fmt.Errorf("%s lists nothing for %s, only for %v: %w", index.Digest, want, have, ErrNoPlatform)
}

// ErrNoPlatform says that an index lists nothing for the platform that was asked for.
var ErrNoPlatform = errors.New("no such platform")

// grow adds what belongs to a node. tags says whether images of evidence about it
// may be under tags.
func (f *finder) grow(ctx context.Context, n *Node, depth int, tags bool) error {
	if depth > MaxDepth {
		return fmt.Errorf("%s: nested deeper than %d", n.Digest, MaxDepth)
	}
	if n.Digest.Algorithm != "sha256" {
		return fmt.Errorf("%s: only sha256 digests are supported", n.Digest)
	}
	g := new(errgroup.Group)
	if n.IsIndex() && !f.alone {
		n.Children = make([]*Node, len(n.Listed))
		for i, desc := range n.Listed {
			g.Go(func() (err error) {
				n.Children[i], err = f.once(ctx, n.From, desc.Digest, depth+1)
				if errors.Is(err, fs.ErrNotExist) {
					return fmt.Errorf("%w: the index %s lists it; name one of its platforms with --platform to leave out the others", err, n.Digest)
				}
				if err == nil && desc.Platform != nil {
					f.mu.Lock()
					n.Children[i].Platform = desc.Platform
					f.mu.Unlock()
				}
				return err
			})
		}
	}
	tagged := make([]*Tagged, len(f.places)*len(suffixes))
	for p, place := range f.places {
		for s := range suffixes {
			if tags {
				g.Go(func() (err error) {
					tagged[p*len(suffixes)+s], err = f.tagged(ctx, place, n, s, depth)
					return err
				})
			}
		}
	}
	g.Go(func() (err error) {
		n.Referrers, err = f.referrers(ctx, n, depth)
		return err
	})
	if err := g.Wait(); err != nil {
		return err
	}
	for _, t := range tagged {
		if t != nil {
			n.Tagged = append(n.Tagged, *t)
		}
	}
	return nil
}

// tagged returns the image of evidence under one of the tags; nil for none.
func (f *finder) tagged(ctx context.Context, place Place, n *Node, s, depth int) (*Tagged, error) {
	tag := Tag(n.Digest, suffixes[s].suffix)
	image, err := f.node(ctx, place, tag)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case errors.Is(err, fs.ErrPermission):
		f.warn("%s does not say whether there is a tag %s: taken as absent", place.Name(), tag)
		return nil, nil
	case err != nil:
		return nil, err
	}
	image.Kind = suffixes[s].kind
	// An SBOM may be signed as an image is; what is under the other tags changes
	// with every signature that is added, and has referrers at most.
	if !f.alone {
		f.group.Go(func() error { return f.grow(ctx, image, depth+1, image.Kind == SBOM) })
	}
	return &Tagged{tag, image}, nil
}

// referrers returns the manifests whose subject a node is, those of the API first.
func (f *finder) referrers(ctx context.Context, n *Node, depth int) ([]*Node, error) {
	var referrers []*Node
	seen := make(map[v1.Hash]bool)
	for _, place := range f.places {
		listed, err := f.listed(ctx, place, n)
		if err != nil {
			return nil, err
		}
		var fresh []v1.Descriptor
		for _, desc := range listed {
			if !seen[desc.Digest] {
				seen[desc.Digest] = true
				fresh = append(fresh, desc)
			}
		}
		nodes := make([]*Node, len(fresh))
		g := new(errgroup.Group)
		for i, desc := range fresh {
			g.Go(func() (err error) {
				nodes[i], err = f.referrer(ctx, place, n, desc, depth)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return nil, err
		}
		for _, node := range nodes {
			if node != nil {
				referrers = append(referrers, node)
			}
		}
	}
	return referrers, nil
}

// referrer returns one that is listed; nil for what is not there, or has another
// subject: a list is nobody's word.
func (f *finder) referrer(ctx context.Context, place Place, n *Node, desc v1.Descriptor, depth int) (*Node, error) {
	node, err := f.once(ctx, place, desc.Digest, depth+1)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.warn("%s lists %s as a referrer of %s and does not have it", place.Name(), desc.Digest, n.Digest)
		return nil, nil
	case err != nil:
		return nil, err
	case node.Subject != n.Digest:
		f.warn("%s lists %s as a referrer of %s, which is not its subject", place.Name(), desc.Digest, n.Digest)
		return nil, nil
	}
	return node, nil
}

// listed returns what the referrers API and the fallback tag list, each once.
func (f *finder) listed(ctx context.Context, place Place, n *Node) ([]v1.Descriptor, error) {
	free, err := f.turn(ctx)
	if err != nil {
		return nil, err
	}
	listed, err := place.Referrers(ctx, n.Digest)
	free()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the referrers of %s in %s: %w", n.Digest, place.Name(), err)
	}
	list, err := f.node(ctx, place, Tag(n.Digest, ""))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return listed, nil
	case errors.Is(err, fs.ErrPermission):
		f.warn("%s does not say whether there is a tag %s: taken as absent", place.Name(), Tag(n.Digest, ""))
		return listed, nil
	case err != nil:
		return nil, err
	case list.Digest == n.Digest, !list.IsIndex():
		return listed, nil // the image itself, as cosign copy tags it
	}
	return append(listed, list.Listed...), nil
}

// All yields every node once, what a node says something about, or lists, after it.
func (g *Graph) All() iter.Seq[*Node] {
	return func(yield func(*Node) bool) {
		seen := make(map[*Node]bool)
		var visit func(n *Node) bool
		visit = func(n *Node) bool {
			if seen[n] {
				return true
			}
			seen[n] = true
			if !yield(n) {
				return false
			}
			for _, child := range n.Children {
				if !visit(child) {
					return false
				}
			}
			for _, tagged := range n.Tagged {
				if !visit(tagged.Node) {
					return false
				}
			}
			for _, referrer := range n.Referrers {
				if !visit(referrer) {
					return false
				}
			}
			return true
		}
		visit(g.Root)
	}
}
