package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"vidimus/carrier"
	"vidimus/signer"
)

// imageFlags are those of a command about images with their evidence.
type imageFlags struct {
	writerFlags
	timeout  time.Duration
	platform string
}

func (f *imageFlags) register(cmd *cobra.Command, patience time.Duration) {
	f.writerFlags.register(cmd)
	cmd.Flags().DurationVarP(&f.timeout, "timeout", "t", patience, "give up after this time")
}

func (f *imageFlags) registerPlatform(cmd *cobra.Command, what string) {
	cmd.Flags().StringVar(&f.platform, "platform", "", what)
}

// parse reads the name of an image.
func (f *imageFlags) parse(image string) (name.Reference, error) {
	ref, err := name.ParseReference(image, f.nameOptions()...)
	if err != nil {
		return nil, misuse(err)
	}
	return ref, nil
}

// places opens the repository of ref, and where its evidence is when that is
// elsewhere; nil when it is not.
func (f *imageFlags) places(ctx context.Context, ref name.Reference, writes bool, from ...name.Repository) (image, evidence *repository, err error) {
	where, err := f.signatureRepository(ref.Context())
	if err != nil {
		return nil, nil, err
	}
	if image, err = f.repository(ctx, ref.Context(), writes, from...); err != nil {
		return nil, nil, err
	}
	if where.Name() == ref.Context().Name() {
		return image, nil, nil
	}
	evidence, err = f.repository(ctx, where, writes, from...)
	return image, evidence, err
}

// find finds what ref names, with its evidence.
func (f *imageFlags) find(ctx context.Context, cmd *cobra.Command, ref name.Reference, o carrier.Options) (*carrier.Graph, error) {
	image, evidence, err := f.places(ctx, ref, false)
	if err != nil {
		return nil, err
	}
	return f.findIn(ctx, cmd, image, evidence, ref.Identifier(), o)
}

func (f *imageFlags) findIn(ctx context.Context, cmd *cobra.Command, image carrier.Place, evidence *repository, reference string, o carrier.Options) (*carrier.Graph, error) {
	if f.platform != "" {
		platform, err := v1.ParsePlatform(f.platform)
		if err != nil {
			return nil, misuse(fmt.Errorf("--platform %s: %w", f.platform, err))
		}
		o.Platform = platform
	}
	var elsewhere []carrier.Place
	if evidence != nil {
		elsewhere = append(elsewhere, evidence)
	}
	g, err := carrier.Find(ctx, image, elsewhere, reference, o)
	if errors.Is(err, carrier.ErrNoPlatform) {
		return nil, misuse(err)
	}
	if err != nil {
		return nil, notThere(err)
	}
	for _, warning := range g.Warnings {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", warning)
	}
	return g, nil
}

// locker is the host's, or none with a warning.
func locker(w io.Writer) signer.Locker {
	lock, err := hostLock()
	if err != nil {
		fmt.Fprintf(w, "warning: no lock file, so that writers on this host do not take turns: %v\n", err)
		return nil
	}
	return lock
}

// checkOutput refuses an --output that is none.
func checkOutput(output string) error {
	if output != "text" && output != "json" {
		return misuse(fmt.Errorf("unknown output %q: want text or json", output))
	}
	return nil
}

// carried is what --output json says of a copy, a save or a load.
type carried struct {
	Image     string `json:"image"` // at the target
	Digest    string `json:"digest"`
	Manifests int    `json:"manifests"`
	Blobs     int    `json:"blobs"`
	Bytes     int64  `json:"bytes"`
	Mounted   int    `json:"mounted"`
	Present   int    `json:"present"`
}

// printCarried says what came of it: on stdout for programs, on stderr for people.
func printCarried(cmd *cobra.Command, output, where string, g *carrier.Graph, done carrier.Copied) error {
	if output == "json" {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(carried{
			where, g.Root.Digest.String(), done.Manifests, done.Blobs, done.Bytes, done.Mounted, done.Present,
		})
	}
	_, err := fmt.Fprintf(cmd.ErrOrStderr(), "%s: %d manifests and %d blobs (%d bytes) written, %d blobs mounted, %d there already\n",
		where, done.Manifests, done.Blobs, done.Bytes, done.Mounted, done.Present)
	return err
}

// readInput reads a file of at most limit bytes, or standard input for "-".
func readInput(cmd *cobra.Command, flag, file string, limit int64) ([]byte, error) {
	var from io.Reader = cmd.InOrStdin()
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, misuse(fmt.Errorf("--%s: %w", flag, err))
		}
		defer f.Close()
		from = f
	}
	data, err := io.ReadAll(io.LimitReader(from, limit+1))
	if err != nil {
		return nil, fmt.Errorf("--%s %s: %w", flag, file, err)
	}
	if int64(len(data)) > limit {
		return nil, misuse(fmt.Errorf("--%s %s: larger than %d bytes", flag, file, limit))
	}
	if len(data) == 0 {
		return nil, misuse(fmt.Errorf("--%s %s is empty", flag, file))
	}
	return data, nil
}

// parseKinds reads --only: sig, att, sbom.
func parseKinds(only []string) ([]carrier.Kind, error) {
	var kinds []carrier.Kind
	for _, word := range only {
		switch strings.TrimSpace(word) {
		case "sig":
			kinds = append(kinds, carrier.Signature)
		case "att":
			kinds = append(kinds, carrier.Attestation)
		case "sbom":
			kinds = append(kinds, carrier.SBOM)
		default:
			return nil, misuse(fmt.Errorf("--only %s: want sig, att or sbom", word))
		}
	}
	return kinds, nil
}

// readAtMost reads all of a reader that has at most limit bytes.
func readAtMost(from io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(from, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("larger than %d bytes", limit)
	}
	return data, err
}
