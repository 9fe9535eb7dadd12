package main

import (
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"vidimus/carrier"
	"vidimus/signer"
	"vidimus/verifier"
	"vidimus/verifier/envelope"
)

type resignFlags struct {
	imageFlags
	from, key string
	dryRun    bool
	output    string
}

func newResignCommand() *cobra.Command {
	var f resignFlags
	cmd := &cobra.Command{
		Use:   "resign --from OLD.pub --key NEW.key REPOSITORY...",
		Short: "Sign with a new key everything that an old key signed",
		Long: `Add a new key's signature to everything in repositories that an old key signed, over
the same bytes: the same digest, name and annotations. Old signatures stay.

All tags of a repository are listed. What is signed by a tag sha256-<hex>.sig or by a
bundle that refers to a tagged manifest, or to one that a tagged index lists, is
verified with the old key, and signed when the new one has not signed the same yet.
So a run that was interrupted goes on where it ended when it is made again, and a
second run does nothing. Attestations are not signed again: they are made anew.

Exit code 0: all that the old key signed is signed by the new one; 2: misuse; 3:
something could not be read or signed, which is said, while all else was.`,
		Example: `  vidimus resign --dry-run --from old.pub --key new.key ghcr.io/acme/web
  vidimus resign --from old.pub --key new.key ghcr.io/acme/web ghcr.io/acme/api`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("name at least one repository")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	f.register(cmd, 24*time.Hour)
	flags := cmd.Flags()
	flags.StringVar(&f.from, "from", "", "the old public key: file, KMS URI, env://NAME, or base64 body")
	flags.StringVar(&f.key, "key", "", "the new private key: file, KMS URI, or env://NAME")
	flags.BoolVar(&f.dryRun, "dry-run", false, "say what would be signed, and sign nothing")
	flags.StringVarP(&f.output, "output", "o", "text", "text or json")
	flags.BoolP("yes", "y", false, "accepted; nothing is asked")
	flags.Lookup("attachment-tag-prefix").Hidden = true // it is refused
	return cmd
}

// resigned is the summary, of one repository or all.
type resigned struct {
	Repository string `json:"repository,omitempty"`
	Images     int    `json:"images"`  // that were looked at
	Signed     int    `json:"signed"`  // signatures that were made, or would be
	Already    int    `json:"already"` // that the new key had made before
	Failed     int    `json:"failed"`  // images that could not be dealt with
	DryRun     bool   `json:"dryRun"`
}

func (f *resignFlags) run(cmd *cobra.Command, repositories []string) error {
	if err := checkOutput(f.output); err != nil {
		return err
	}
	if f.tagPrefix != "" {
		return misuse(errors.New("--attachment-tag-prefix is not supported: signatures are found by their tags, which have no prefix"))
	}
	if f.from == "" {
		return misuse(errors.New("say which key signed so far with --from"))
	}
	old, err := loadPublicKey(cmd.Context(), "--from", f.from)
	if err != nil {
		return err
	}
	repos := make([]name.Repository, len(repositories))
	for i, repository := range repositories {
		if repos[i], err = name.NewRepository(repository, f.nameOptions()...); err != nil {
			return misuse(err)
		}
	}
	key, err := loadPrivateKey(cmd.Context(), newPrompter(cmd), f.key)
	if err != nil {
		return err
	}
	public, err := verifier.NewKey(key.Public())
	if err != nil {
		return misuse(fmt.Errorf("--key: %w", err))
	}
	if public.ID() == old.ID() {
		return misuse(errors.New("--from and --key are the same key"))
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	failed := 0
	for _, repo := range repos {
		r := resigning{flags: f, cmd: cmd, key: key, old: old, new: public}
		sum, err := r.repository(ctx, repo)
		if err != nil {
			return err
		}
		failed += sum.Failed
		if err := f.print(cmd, sum); err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d images could not be dealt with; run it again for them", failed)
	}
	return nil
}

func (f *resignFlags) print(cmd *cobra.Command, sum resigned) error {
	if f.output == "json" {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(sum)
	}
	did := "signed"
	if sum.DryRun {
		did = "to be signed"
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: %d images looked at, %d signatures %s, %d there already, %d images failed\n",
		sum.Repository, sum.Images, sum.Signed, did, sum.Already, sum.Failed)
	return err
}

// resigning is the work on one repository.
type resigning struct {
	flags    *resignFlags
	cmd      *cobra.Command
	key      crypto.Signer
	old, new verifier.Key

	image, evidence *repository
	config          signer.Config
}

func (r *resigning) repository(ctx context.Context, repo name.Repository) (resigned, error) {
	sum := resigned{Repository: repo.Name(), DryRun: r.flags.dryRun}
	var err error
	r.image, r.evidence, err = r.flags.places(ctx, repo.Tag("latest"), !r.flags.dryRun)
	if err != nil {
		return sum, err
	}
	if r.evidence == nil {
		r.evidence = r.image
	}
	r.config = signer.Config{
		Registry: carrier.Registry{Target: r.evidence}, Key: r.key, Locker: locker(r.cmd.ErrOrStderr()), DockerMediaTypes: dockerMediaTypes(),
	}
	tags, err := r.image.Tags(ctx)
	if err == nil && r.evidence != r.image {
		var more []string
		more, err = r.evidence.Tags(ctx)
		tags = append(tags, more...)
	}
	if err != nil {
		return sum, notThere(fmt.Errorf("list the tags of %s: %w", repo.Name(), err))
	}
	subjects, failed := r.subjects(ctx, tags)
	sum.Failed = failed
	progress, end := progressBar(r.cmd.ErrOrStderr(), repo.RepositoryStr(), numberCounters())
	defer end()
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(resignedAtOnce)
	for _, subject := range subjects {
		g.Go(func() error {
			made, already, err := r.subject(ctx, subject)
			mu.Lock()
			defer mu.Unlock()
			sum.Images++
			sum.Signed += made
			sum.Already += already
			if err != nil {
				sum.Failed++
				fmt.Fprintf(r.cmd.ErrOrStderr(), "%s@%s: %v\n", repo.Name(), subject, err)
			}
			if progress != nil {
				progress(int64(sum.Images), int64(len(subjects)))
			}
			return ctx.Err()
		})
	}
	return sum, g.Wait()
}

// resignedAtOnce is how many images are under way at once: most of the time of each
// is spent on looking whether its signature stays.
const resignedAtOnce = 8

var evidenceTag = regexp.MustCompile(`^sha256-([0-9a-f]{64})(\.sig|\.cosign|\.att|\.sbom|)$`)

// subjects returns the digests that may be signed: those that tags of signatures
// name, those that other tags name, and those that indexes under these list.
func (r *resigning) subjects(ctx context.Context, tags []string) (subjects []v1.Hash, failed int) {
	seen := make(map[v1.Hash]bool)
	add := func(digest v1.Hash) {
		if !seen[digest] {
			seen[digest] = true
			subjects = append(subjects, digest)
		}
	}
	slices.Sort(tags)
	for _, tag := range slices.Compact(tags) {
		if parts := evidenceTag.FindStringSubmatch(tag); parts != nil {
			if parts[2] != ".sbom" {
				add(v1.Hash{Algorithm: "sha256", Hex: parts[1]})
			}
			continue
		}
		found, err := signer.ResolveAll(ctx, carrier.Registry{Target: r.image}, r.image.Name(), tag)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile, or a tag of the other repository
		}
		if err != nil {
			failed++
			fmt.Fprintf(r.cmd.ErrOrStderr(), "%v\n", err)
			continue
		}
		for _, desc := range found {
			add(desc.Digest)
		}
	}
	return subjects, failed
}

// subject signs what the old key says of one manifest. What the new key says already
// is told by what it signed: payloads, and what bundles are over.
func (r *resigning) subject(ctx context.Context, digest v1.Hash) (made, already int, err error) {
	saidByOld, err := r.said(ctx, digest, r.old)
	if err != nil || len(saidByOld) == 0 {
		return 0, 0, err
	}
	saidByNew, err := r.said(ctx, digest, r.new)
	if err != nil {
		return 0, 0, err
	}
	var missing []claim
	for _, c := range saidByOld {
		if slices.ContainsFunc(saidByNew, c.same) {
			already++
		} else if !slices.ContainsFunc(missing, c.same) {
			missing = append(missing, c)
		}
	}
	if r.flags.dryRun {
		for _, c := range missing {
			fmt.Fprintf(r.cmd.ErrOrStderr(), "%s@%s: would be signed as %s is\n", r.image.Name(), digest, c.where)
		}
		return len(missing), already, nil
	}
	if err := r.sign(ctx, digest, missing); err != nil {
		return 0, already, err
	}
	return len(missing), already, nil
}

// claim is what a key signed.
type claim struct {
	form   string // of the evidence
	signed string // the bytes
	where  string // it was found
	bundle bundle // in one
}

// same reports whether another claim is over the same bytes in the same form. Bundles
// that say the same, in other words, are others.
func (c claim) same(other claim) bool { return c.form == other.form && c.signed == other.signed }

// said returns the signatures that a key made of a manifest, verified as a policy
// verifies them.
func (r *resigning) said(ctx context.Context, digest v1.Hash, key verifier.Key) ([]claim, error) {
	registry := split{verifierRegistry{r.evidence}, verifierRegistry{r.image}}
	authority := verifier.Authority{Name: "key", Keys: []verifier.Key{key}}
	subject := verifier.Subject{Repository: r.image.Name(), Digest: digest}
	report := verifier.Verify(ctx, registry, subject, []verifier.Authority{authority}, verifier.Sources(), nil)
	if len(report.Failures) > 0 {
		return nil, fmt.Errorf("%s: %w", report.Failures[0].Source, report.Failures[0].Err)
	}
	if report.TooMany {
		return nil, errors.New("it has more signatures than are looked at")
	}
	var claims []claim
	for _, e := range report.Evidence {
		if !e.Verified() || !e.IsSignature() {
			continue
		}
		c, err := r.read(ctx, registry, digest, e)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Source(), err)
		}
		claims = append(claims, c)
	}
	return claims, nil
}

// split reads evidence from the one and the image from the other.
type split struct {
	verifierRegistry
	image verifierRegistry
}

// Manifest implements verifier.Registry.
func (s split) Manifest(ctx context.Context, repository, reference string) ([]byte, error) {
	data, err := s.verifierRegistry.Manifest(ctx, repository, reference)
	if errors.Is(err, fs.ErrNotExist) && strings.Contains(reference, ":") {
		return s.image.Manifest(ctx, repository, reference)
	}
	return data, err
}

// read returns what a piece of verified evidence is over.
func (r *resigning) read(ctx context.Context, registry split, digest v1.Hash, e verifier.Evidence) (claim, error) {
	blob, err := readWhole(ctx, r.evidence, e.Digest())
	if err != nil {
		return claim{}, err
	}
	if e.Form() == verifier.FormSimpleSigning {
		return claim{form: e.Form(), signed: string(blob), where: e.Source()}, nil
	}
	b, err := parseBundle(blob)
	if err != nil {
		return claim{}, err
	}
	signed := b.signed.Signed
	if b.statement == nil {
		if signed, err = registry.Manifest(ctx, "", digest.String()); err != nil {
			return claim{}, err
		}
	}
	return claim{e.Form(), string(signed), e.Source(), b}, nil
}

// readWhole reads a small blob of which only the digest is known.
func readWhole(ctx context.Context, repo *repository, digest v1.Hash) ([]byte, error) {
	body, err := repo.Blob(ctx, digest)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := readAtMost(body, verifier.MaxPayloadSize)
	if err == nil && sha256Of(data) != digest {
		err = fmt.Errorf("blob %s: the registry sent other bytes", digest)
	}
	return data, err
}

// sign signs the same as claims of one manifest, and attaches all of it in one go: each
// write is watched for a while.
func (r *resigning) sign(ctx context.Context, digest v1.Hash, claims []claim) error {
	if len(claims) == 0 {
		return nil
	}
	tagged := signer.Addition{Repository: r.evidence.Name(), Tag: signer.Tag(digest)}
	var bundles []bundle
	for _, c := range claims {
		var err error
		if c.form == verifier.FormSimpleSigning {
			err = r.signPayload(&tagged, c)
		} else {
			var b bundle
			b, err = c.bundle.signAgain(ctx, r.key, []byte(c.signed))
			bundles = append(bundles, b)
		}
		if err != nil {
			return fmt.Errorf("sign as %s is: %w", c.where, err)
		}
	}
	if len(bundles) == 0 { // the manifest itself may be gone
		_, err := signer.Add(ctx, r.config, tagged)
		return err
	}
	var more []signer.Addition
	if len(tagged.Descriptors) > 0 {
		more = append(more, tagged)
	}
	g, err := carrier.Find(ctx, r.image, nil, digest.String(), carrier.Options{Alone: true})
	if err != nil {
		return err
	}
	_, err = putBundles(ctx, r.config, r.evidence, g.Root, bundles, more...)
	return err
}

// signPayload adds to what is to be under a tag a signature of what c is over.
func (r *resigning) signPayload(tagged *signer.Addition, c claim) error {
	signature, err := signer.SignPayload(r.key, []byte(c.signed))
	if err != nil {
		return err
	}
	annotations := map[string]string{signatureAnnotation: base64.StdEncoding.EncodeToString(signature)}
	raw, blob, err := signer.Layer(envelope.MediaTypeSimpleSigning, annotations, []byte(c.signed))
	tagged.Descriptors, tagged.Blobs = append(tagged.Descriptors, raw), append(tagged.Blobs, blob)
	return err
}
