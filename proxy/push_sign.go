package proxy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/policy"
	"vidimus/verifier"
)

// putSigned stores the manifest by digest, signs it and what it lists, and only then
// makes the tag name it.
func (p *pushed) putSigned(ctx context.Context) error {
	key := p.registered.Signers[p.rule.Sign]
	if key == nil {
		return unavailable("the key of authority "+p.rule.Sign+" that signs pushes is not available; the tag was not put, and the same push again will", retryAfterDefault, nil)
	}
	leave, err := p.proxy.signings.sign(ctx, p.name)
	if err != nil {
		return err
	}
	defer leave()
	if err := p.putByDigest(ctx); err != nil {
		return err
	}
	request, err := p.toSign(ctx)
	if err != nil {
		return err
	}
	if err := p.sign(ctx, key, request); err != nil {
		return err
	}
	return p.putTag(ctx)
}

// sign makes the signatures, and forgets what was known without them: the denials that
// they turn, and what the tags named where they are. Whatever goes wrong, the client can
// try again, but for what is in the way.
func (v *view) sign(ctx context.Context, key Signer, request SignRequest) error {
	ctx, cancel := context.WithTimeout(ctx, signTime)
	defer cancel()
	_, err := guarded(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, key.Sign(ctx, request) })
	for _, subject := range request.Subjects { // also when it failed, for some may be there
		v.moved(ctx, fallbackTag(subject.Digest)+".sig")
		v.moved(ctx, fallbackTag(subject.Digest))
		v.forget(subject.Digest)
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("sign: %w", err)
	if b, ok := errors.AsType[Blocked](err); ok {
		e := conflict("the tag " + printable(b.BlockedBy()) + " holds what no signature can be added to, so that the tag was not put: " +
			printableText(b.Error()) + "; remove what is in the way at the upstream, then push again")
		e.Err = err
		return e
	}
	return unavailable("what was pushed could not be signed, so that the tag was not put; the same push again will", retryAfter(err), err)
}

// toSign is what of the push is signed, and as what.
func (p *pushed) toSign(ctx context.Context) (SignRequest, error) {
	request := SignRequest{
		Repository: p.name, Formats: p.rule.Formats,
		Annotations: map[string]string{annotationPushed: p.began.UTC().Format(time.RFC3339)},
		Passing:     []string{annotationPushed},
	}
	if p.told {
		request.Passing = append(request.Passing, annotationPusher) // who pushed it through here has his name on it
	}
	if p.pusher != "" {
		request.Annotations[annotationPusher] = p.pusher
	}
	for name, value := range p.rule.Annotations {
		request.Annotations[name] = value
	}
	root := SignSubject{p.digest, p.name}
	if p.Gate.Scope(p.name).ReadsTag {
		root.Reference += ":" + p.tag
	}
	request.Subjects = []SignSubject{root}
	if !p.rule.Recursive || !p.index {
		return request, nil
	}
	found := map[v1.Hash]bool{p.digest: true}
	if err := p.children(ctx, p.manifest, 1, found, &request.Subjects); err != nil {
		return SignRequest{}, err
	}
	return request, nil
}

// The annotations that Vidimus adds to what it signs when it is pushed.
const (
	annotationPusher = policy.ReservedAnnotation + "pusher" // who pushed, as auth.access would name him
	annotationPushed = policy.ReservedAnnotation + "pushed" // when, RFC 3339
)

// children adds what an index lists, fetched and hashed, at any depth.
func (p *pushed) children(ctx context.Context, index *manifest, depth int, found map[v1.Hash]bool, subjects *[]SignSubject) error {
	invalid := func(why string) error {
		return &Error{Status: http.StatusBadRequest, Code: codeManifestInvalid, Message: why}
	}
	if depth > verifier.MaxIndexDepth {
		return invalid(fmt.Sprintf("the index nests deeper than %d", verifier.MaxIndexDepth))
	}
	for _, desc := range index.manifests {
		if found[desc.Digest] {
			continue
		}
		if found[desc.Digest] = true; len(found) > verifier.MaxChildren {
			return invalid(fmt.Sprintf("the index lists more than %d manifests", verifier.MaxChildren))
		}
		if _, err := parseDigest(desc.Digest.String()); err != nil {
			return err
		}
		if p.Gate.Revoked(desc.Digest) {
			return revoked(desc.Digest)
		}
		child, err := p.byDigest(ctx, desc.Digest)
		if errors.Is(err, fs.ErrNotExist) {
			return &Error{
				Status: http.StatusBadRequest, Code: codeManifestBlobUnknown, Err: err,
				Message: "the index lists " + desc.Digest.String() + ", which is not there to be signed: push it first",
			}
		}
		if err != nil {
			return err
		}
		if !index.lists(child) {
			return invalid("the index lists " + desc.Digest.String() + " with another size or media type than it has")
		}
		*subjects = append(*subjects, SignSubject{child.digest, p.name})
		if child.index {
			if err := p.children(ctx, child, depth+1, found, subjects); err != nil {
				return err
			}
		}
	}
	return nil
}
