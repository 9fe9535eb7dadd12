package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"
)

// judgingFlags are those of the commands that say of images whether somebody has
// signed them, or attested something about them.
type judgingFlags struct {
	registryFlags
	signerFlags
	output  string
	timeout time.Duration
}

// register adds the flags to cmd, which has its own already; output says what -o does.
func (f *judgingFlags) register(cmd *cobra.Command, output string) {
	flags := cmd.Flags()
	f.signerFlags.register(flags)
	flags.StringVarP(&f.output, "output", "o", "json", output)
	flags.DurationVarP(&f.timeout, "timeout", "t", 3*time.Minute, "give up after this time")
	f.registryFlags.register(cmd)
	cmd.Flag("allow-insecure-registry").Hidden = true // it is refused where there is a certificate
	registerCosignFlags(cmd, cmd.Name())
}

// takesImages is the Args of a command about images.
func takesImages(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return errors.New("name at least one image")
	}
	return nil
}

// refuse returns an error for what is not done here.
func (f *judgingFlags) refuse(cmd *cobra.Command) error {
	if f.output != "json" && f.output != "text" {
		return misuse(fmt.Errorf("unknown output %q: want json or text", f.output))
	}
	return nil
}

// judgeEach judges one image after the other, and shows what holds of each, until one
// does not hold.
func judgeEach[T any](cmd *cobra.Command, f *judgingFlags, images []string,
	judge func(context.Context, name.Reference) (T, error), show func(image string, holds T) error,
) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	for _, image := range images {
		reference, err := name.ParseReference(image, f.nameOptions()...)
		if err != nil {
			return misuse(err)
		}
		holds, err := judge(ctx, reference)
		if err != nil {
			return fmt.Errorf("%s: %w", image, withHint(err, reference))
		}
		if err := show(image, holds); err != nil {
			return err
		}
	}
	return nil
}

// find returns the digest that a reference names, and what reads that and its evidence,
// until it is freed.
func (f *judgingFlags) find(ctx context.Context, reference name.Reference) (registry direct, digest v1.Hash, free func(), err error) {
	registry, free, err = f.openDirect(ctx, reference)
	if err != nil {
		return direct{}, v1.Hash{}, nil, err
	}
	if digest, err = resolveDigest(ctx, registry, reference); err != nil {
		free()
		return direct{}, v1.Hash{}, nil, err
	}
	return registry, digest, free, nil
}

// printChecks tells a person what was checked, as cosign does: the annotations, if some
// were asked for, and a certificate or a key.
func printChecks(w io.Writer, image string, annotated, certified bool) {
	fmt.Fprintf(w, "\nVerification for %s --\nThe following checks were performed on each of these signatures:\n", image)
	if annotated {
		fmt.Fprintln(w, "  - The specified annotations were verified.")
	}
	fmt.Fprintln(w, "  - The cosign claims were validated")
	if certified {
		fmt.Fprintln(w, "  - The certificates and the times of the signatures were verified against the trust root")
	} else {
		fmt.Fprintln(w, "  - The signatures were verified against the specified public key")
	}
}
