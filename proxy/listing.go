package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/verifier"
)

// listing is what the referrers API lists for one manifest.
type listing struct {
	referrers []v1.Descriptor
	cut       bool // there are more
}

// listingName is what the list of digest's referrers goes by beside the tags of the
// repository, of which no one is called so.
func listingName(digest v1.Hash) string { return "referrers:" + digest.String() }

// askReferrers asks the upstream's referrers API about digest, once for all who ask
// at the same time, and goes on when they leave. What it lists is kept, to serve while
// the upstream cannot be asked.
func (v *view) askReferrers(ctx context.Context, digest v1.Hash) (listing, error) {
	name := listingName(digest)
	return flight(ctx, &v.fetches, "referrers\x00"+v.tagKey(name)+v.sincePush(), fetchTime, func(ctx context.Context) (listing, error) {
		asked := v.proxy.now()
		found, err := v.registered.Upstream.Referrers(ctx, v.repository, digest, "")
		cut := err != nil && len(found) > 0
		switch {
		case err == nil, cut:
			v.keepListing(ctx, digest, found, asked)
			v.doubts.remove(v.tagKey(name))
			return listing{found, cut}, nil
		case errors.Is(err, fs.ErrNotExist):
			v.keepListing(ctx, digest, nil, asked)
			v.doubts.remove(v.tagKey(name))
		case len(v.lastListed(ctx, digest)) > 0:
			v.doubtTag(name, err)
		}
		return listing{}, err
	})
}

// keepListing keeps the list of digest's referrers while the answer goes on, or forgets
// it when there are none. It is no manifest that the upstream delivered, and nobody can
// pull it.
func (v *view) keepListing(ctx context.Context, digest v1.Hash, referrers []v1.Descriptor, asked time.Time) {
	name := listingName(digest)
	if len(referrers) == 0 {
		if _, _, err := v.proxy.index.Tag(ctx, v.name, name); err == nil {
			v.setTag(ctx, name, v1.Hash{}, time.Time{})
		}
		return
	}
	content, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: referrers})
	if err != nil {
		v.proxy.logger.Warn("cannot store a list of referrers", "repository", v.name, "digest", digest.String(), "err", err)
		return
	}
	ctx = context.WithoutCancel(ctx)
	v.proxy.aside(func() {
		if err := v.proxy.store.Put(ctx, digestOf(content), content); err != nil {
			v.proxy.logger.Warn("cannot store a list of referrers", "repository", v.name, "digest", digest.String(), "err", err)
			return
		}
		v.setTag(ctx, name, digestOf(content), asked)
	})
}

// lastListed returns what the upstream last listed as digest's referrers; nothing
// when that is not known or was nothing.
func (v *view) lastListed(ctx context.Context, digest v1.Hash) []v1.Descriptor {
	kept, _, err := v.proxy.index.Tag(ctx, v.name, listingName(digest))
	if err != nil || isZero(kept) {
		return nil
	}
	content, err := v.proxy.readHeld(ctx, kept, verifier.MaxListSize)
	if err != nil {
		return nil
	}
	var list v1.IndexManifest
	if json.Unmarshal(content, &list) != nil {
		return nil
	}
	return list.Manifests
}
