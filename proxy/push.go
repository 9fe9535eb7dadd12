package proxy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/policy"
	"vidimus/proxy/access"
	"vidimus/verifier"
)

// A push is a short path of its own:
//
//	authorise  the caller (before this), and the policy's push rule
//	relay      blobs, hashed as they pass (upload.go, relay.go, session.go)
//	check      the manifest: one plain document, as its Content-Type and digest say
//	put        it by digest, where no tag shows it
//	sign       it, and what it lists, when the rule says so, and see that it stays
//	tag        put the tag
//
// Whatever fails, and wherever the process dies, a tag under a rule that signs is
// not there without its signature, and the same push again mends the rest.
//
// Evidence is not signed: what is proven to be it by its bytes, by digest or under
// the tag that is made of its subject's digest. Such a tag is never replaced, only
// added to (union.go).

// push answers what changes something.
func (q *request) push(v *view) error {
	rule, err := v.pushRule(q.route.endpoint)
	if err != nil {
		return err
	}
	if err := q.refuseStrangers(rule); err != nil {
		return err
	}
	switch {
	case q.route.endpoint == endpointUpload:
		return q.serveUpload(v)
	case q.r.Method == http.MethodPut:
		return q.putManifest(v, rule)
	default:
		return q.deleteManifest(v, rule)
	}
}

// refuseStrangers refuses, from who has not logged in, what a web page may have its
// reader's browser send; and a push that signs unless it is for this very host.
// Whoever reaches the port may push; but nobody should be made to.
func (q *request) refuseStrangers(rule *policy.Push) error {
	if q.caller.Kind != access.Anonymous {
		return nil
	}
	if _, from := q.r.Header["Origin"]; from {
		return &Error{Status: http.StatusForbidden, Code: codeDenied, Message: "a push with an Origin header, as browsers send it, is refused from who has not logged in"}
	}
	if rule.Sign != "" && !isLoopbackHost(q.r.Host) {
		return &Error{
			Status: http.StatusForbidden, Code: codeDenied,
			Message: "pushes that are signed are refused by another name than localhost from who has not logged in: configure auth and log in, or push to localhost",
		}
	}
	return nil
}

// putManifest takes a manifest by tag or digest.
func (q *request) putManifest(v *view, rule *policy.Push) error {
	ctx := q.r.Context()
	leave, err := q.proxy.enterPush(ctx)
	if err != nil {
		return err
	}
	defer leave()
	m, err := q.readManifest()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, pushTime)
	defer cancel()
	p := &pushed{view: v, rule: rule, manifest: m, tag: q.route.tag, asker: q.asker(), pusher: strings.ToValidUTF8(q.exactCaller(), "?"), began: q.begin}
	p.named, p.suffix, _ = subjectOfTag(p.tag)
	if err := p.classify(ctx); err != nil {
		return pushError(err, q.wanted())
	}
	if p.kind == pushedImage && !q.may(v.name, access.Push) {
		return q.authorise(v.name, access.Push)
	}
	if err := p.begin(ctx); err != nil {
		return err
	}
	stored, err := p.store(ctx)
	if err != nil {
		p.failed(ctx, err)
		return pushError(err, q.wanted())
	}
	q.sendManifestStored(p, stored)
	return nil
}

// enterPush waits until there is room for one more manifest; what waits has not been
// read.
func (p *Proxy) enterPush(ctx context.Context) (leave func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, pushPatience)
	defer cancel()
	select {
	case p.pushing <- struct{}{}:
		return func() { <-p.pushing }, nil
	case <-ctx.Done():
		return nil, &Error{
			Status: http.StatusTooManyRequests, Code: codeTooManyRequests,
			Message: "too many manifests are pushed through Vidimus at once", RetryAfter: retryAfterDefault,
		}
	}
}

// readManifest reads and checks the manifest that is pushed.
func (q *request) readManifest() (*manifest, error) {
	tooLarge := &Error{
		Status: http.StatusRequestEntityTooLarge, Code: codeSizeInvalid,
		Message: "a manifest may have at most " + strconv.Itoa(verifier.MaxManifestSize) + " bytes",
	}
	if q.r.ContentLength > verifier.MaxManifestSize {
		q.hearOut()
		return nil, tooLarge
	}
	content, err := readAtMost(q.body(pushPatience), verifier.MaxManifestSize)
	switch {
	case errors.Is(err, errMismatch):
		q.hearOut()
		return nil, tooLarge
	case err != nil:
		return nil, &Error{Status: http.StatusBadRequest, Code: codeManifestInvalid, Message: "the manifest broke off", Err: err}
	}
	m, err := parseManifest(content, q.r.Header.Get("Content-Type"))
	if err != nil {
		return nil, &Error{Status: http.StatusBadRequest, Code: codeManifestInvalid, Message: whyUnfit(err), Err: err}
	}
	if q.route.tag == "" && m.digest != q.route.digest {
		return nil, invalidDigest(q.route.reference, "the manifest's bytes hash to "+m.digest.String())
	}
	if q.Gate.Revoked(m.digest) {
		return nil, revoked(m.digest)
	}
	return m, nil
}

// sendManifestStored tells what is stored, which is more than was pushed when it
// was merged.
func (q *request) sendManifestStored(p *pushed, stored *manifest) {
	q.id = []string{p.id}
	q.setID()
	h := q.w.Header()
	h.Set("Location", q.located("manifests/"+stored.digest.String()))
	h["Docker-Content-Digest"] = stored.digestHeader
	if p.manifest.subject != nil {
		h.Set("Oci-Subject", p.manifest.subject.Digest.String())
	}
	h.Set("Content-Length", "0")
	q.w.WriteHeader(http.StatusCreated)
}

// kindOfPush is what a manifest is put as.
type kindOfPush int

const (
	pushedImage    kindOfPush = iota // signed where the rule says so
	pushedEvidence                   // proven by its bytes
	pushedListing                    // a list of referrers under the fallback tag
)

// pushed is a manifest on its way to the upstream.
type pushed struct {
	*view
	*manifest
	rule   *policy.Push
	tag    string // empty: by digest
	named  v1.Hash
	suffix string // of a tag that is made of the digest named
	kind   kindOfPush
	about  v1.Hash // the subject of evidence
	asker  asker
	pusher string // as the access list would name him; empty where nobody is known
	began  time.Time
	id     string
	told   bool // by the upstream that has it: nobody pushes it here
}

// classify finds out what is pushed, from its bytes and never from its name alone.
func (p *pushed) classify(ctx context.Context) error {
	lists, err := p.listsReferrers(ctx)
	switch {
	case err != nil:
		return err
	case lists:
		p.kind, p.about = pushedListing, p.named
	case p.tag == "" || !isZero(p.named):
		subject, err := p.subjectOf(ctx, p.manifest, p.named)
		if err != nil {
			return err
		}
		if !isZero(subject) {
			p.kind, p.about = pushedEvidence, subject
		}
	}
	if p.kind == pushedImage && holdsSignatures(p.suffix) {
		why := "what is pushed is none of it"
		if p.isEvidenceShaped() && len(p.differentLayers()) > verifier.MaxSignatures {
			why = fmt.Sprintf("at most %d different ones of them are read: delete those under the tag that are not needed, then sign again", verifier.MaxSignatures)
		}
		return &Error{
			Status: http.StatusBadRequest, Code: codeManifestInvalid,
			Message: "a tag that ends in " + p.suffix + " holds signatures and attestations of the manifest that it names, and " + why,
		}
	}
	return nil
}

// listsReferrers reports whether the manifest is a list of referrers under the tag
// for it: all that it lists and that is there says that it refers to the subject.
func (p *pushed) listsReferrers(ctx context.Context) (bool, error) {
	if isZero(p.named) || p.suffix != "" || p.named == p.digest || !p.manifest.isListing() || len(p.manifests) > verifier.MaxChildren {
		return false, nil
	}
	for _, desc := range p.manifests {
		if _, err := parseDigest(desc.Digest.String()); err != nil {
			return false, nil
		}
		m, err := p.byDigest(ctx, desc.Digest)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, err
		}
		if m.subject == nil || m.subject.Digest != p.named {
			return false, nil
		}
	}
	return true, nil
}

// holdsSignatures reports whether tags with this suffix are added to, not replaced.
func holdsSignatures(suffix string) bool {
	return suffix == ".sig" || suffix == ".cosign" || suffix == ".att"
}

// store puts the manifest where it belongs, and returns what its reference names
// then.
func (p *pushed) store(ctx context.Context) (*manifest, error) {
	switch {
	case p.kind == pushedListing:
		return p.putUnion(ctx, unionOfListings(p.tag, p.manifest))
	case p.kind == pushedEvidence && holdsSignatures(p.suffix):
		return p.putUnion(ctx, p.unionOfSignatures)
	case p.tag == "":
		return p.manifest, p.putByDigest(ctx)
	case p.kind == pushedImage && p.rule.Sign != "":
		return p.manifest, p.putSigned(ctx)
	}
	return p.manifest, p.putTag(ctx)
}

// putByDigest stores the manifest where no tag shows it, and lists it among the
// referrers of its subject.
func (p *pushed) putByDigest(ctx context.Context) error {
	listed, err := p.registered.Push.PutManifest(ctx, p.repository, p.digest.String(), string(p.mediaType), p.bytes)
	if err != nil {
		return err
	}
	if p.subject != nil && !listed {
		if err := p.list(ctx, p.manifest); err != nil {
			return err
		}
	}
	p.changed(ctx)
	return nil
}

// putTag makes the tag name the manifest. By digest it comes first where it refers
// to a subject, whose list must have it before.
func (p *pushed) putTag(ctx context.Context) error {
	if p.subject != nil {
		if err := p.putByDigest(ctx); err != nil {
			return err
		}
	}
	unlock, err := p.proxy.locks.Lock(ctx, tagLock(p.name, p.tag))
	if err != nil {
		return err
	}
	defer unlock()
	var refused string // a version that the upstream would not take for the tag's
	for range maxMerges {
		version, err := p.spares(ctx)
		if err != nil {
			return err
		}
		if version == refused {
			version = ""
		}
		_, err = p.registered.Push.PutManifestOver(ctx, p.repository, p.tag, string(p.mediaType), p.bytes, version)
		p.moved(ctx, p.tag) // also when it failed, for it may have happened
		if !isZero(p.named) {
			p.reconsider(p.named) // what stood there may have been evidence
		}
		if version != "" && preconditionFailed(err) {
			refused = version // another wrote it since, and that may be spared
			continue
		}
		if err != nil {
			return fmt.Errorf("put tag %s: %w", p.tag, err)
		}
		p.changed(ctx)
		return nil
	}
	return overwritten(p.tag, nil)
}

// spares refuses to put an image where a list of referrers is, as a copy by digest
// would that is tagged with its digest; and evidence where an image is, for who may put
// evidence may not move an image's tag. It returns what the upstream calls what it found
// there, empty where nothing has to be spared.
func (p *pushed) spares(ctx context.Context) (version string, err error) {
	if isZero(p.named) {
		return "", nil
	}
	held, version, err := p.heldBy(ctx, p.tag)
	if err != nil || held == nil || held.digest == p.digest {
		return version, err
	}
	if p.suffix == "" && held.listsReferrersOf(p.tag) {
		return "", conflict("the tag " + p.tag + " holds the list of what refers to " + p.named.String() + ", and is not replaced: push it under another tag")
	}
	if p.kind != pushedEvidence {
		return version, nil
	}
	if about, err := p.subjectOf(ctx, held, p.named); err != nil || !isZero(about) {
		return version, err
	}
	return "", inTheWay(p.tag, "an image, which evidence about "+p.about.String()+" does not take the place of", nil)
}
