package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/spf13/cobra"

	"vidimus/carrier"
)

type copyFlags struct {
	imageFlags
	only    []string
	sigOnly bool
	force   bool
	output  string
}

func newCopyCommand() *cobra.Command { return new(copyFlags).command() }

func (f *copyFlags) command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "copy SOURCE DESTINATION",
		Short: "Copy an image with all evidence about it",
		Long: `Copy an image to another repository or registry, with everything that is said
about it: signatures, attestations and SBOMs under cosign's tags, referrers of
every type and what refers to them, and for an index all of this for each manifest
that it lists.

Every byte is hashed on the way. Evidence that the destination has already is kept,
and what comes is merged with it. The destination's tag is written last, so that it
never stands without its evidence; a tag that names another image is moved only
with -f.

With COSIGN_REPOSITORY evidence is looked for there too, and stays there.

Exit code 0: copied; 2: misuse, a source that is not there, or a destination that
names another image; 3: it could not be done, and the tag is as it was.`,
		Example: `  vidimus copy ghcr.io/acme/web:v1 registry.example/mirror/web:v1
  vidimus copy --only sig,att ghcr.io/acme/web:v1 registry.example/mirror/web
  vidimus copy --platform linux/arm64 ghcr.io/acme/web:v1 registry.example/edge/web:v1`,
		Args: takesTwo("a source and a destination"),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0], args[1]) },
	}
	f.register(cmd, time.Hour)
	f.registerPlatform(cmd, "copy only what an index lists for this `PLATFORM`, as linux/arm64")
	flags := cmd.Flags()
	flags.StringSliceVar(&f.only, "only", nil, "copy evidence of these kinds and no image: sig, att, sbom")
	flags.BoolVar(&f.sigOnly, "sig-only", false, "")
	flags.Lookup("sig-only").Hidden = true // of cosign's past
	flags.BoolVarP(&f.force, "force", "f", false, "move the destination's tag when it names another image")
	flags.StringVarP(&f.output, "output", "o", "text", "text or json")
	registerCosignFlags(cmd, "copy")
	return cmd
}

func (f *copyFlags) run(cmd *cobra.Command, source, destination string) error {
	if err := checkOutput(f.output); err != nil {
		return err
	}
	if f.sigOnly {
		f.only = append(f.only, "sig")
	}
	only, err := parseKinds(f.only)
	if err != nil {
		return err
	}
	from, err := f.parse(source)
	if err != nil {
		return err
	}
	to, err := f.parse(destination)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	g, err := f.find(ctx, cmd, from, carrier.Options{})
	if err != nil {
		return err
	}
	plan := carrier.Plan{Only: only, Overwrite: f.force}
	return f.put(ctx, cmd, g, to, from.Context(), plan, f.output)
}

// put copies g to where to says.
func (f *imageFlags) put(ctx context.Context, cmd *cobra.Command, g *carrier.Graph, to name.Reference, from name.Repository, plan carrier.Plan, output string) error {
	where := to.Context().Name() + "@" + g.Root.Digest.String()
	switch to := to.(type) {
	case name.Tag:
		plan.Tag = to.TagStr()
		if len(plan.Only) == 0 {
			where = to.Name()
		}
	case name.Digest:
		if to.DigestStr() != g.Root.Digest.String() {
			return misuse(fmt.Errorf("%s is not the digest of the image, which is %s: name a tag instead", to, g.Root.Digest))
		}
	}
	besides := []name.Repository{from}
	if elsewhere, err := f.signatureRepository(from); err == nil {
		besides = append(besides, elsewhere)
	}
	image, evidence, err := f.places(ctx, to, true, besides...)
	if err != nil {
		return err
	}
	plan.Image = image
	if evidence != nil {
		plan.Evidence = evidence
	}
	plan.Locker = locker(cmd.ErrOrStderr())
	progress, end := progressBar(cmd.ErrOrStderr(), to.Context().RepositoryStr(), byteCounters())
	plan.Progress = progress
	done, err := carrier.Copy(ctx, g, plan)
	end()
	if errors.Is(err, carrier.ErrExists) {
		return misuse(fmt.Errorf("%w: -f moves the tag", err))
	}
	if err != nil {
		return fmt.Errorf("copy to %s: %w", to, err)
	}
	return printCarried(cmd, output, where, g, done)
}
