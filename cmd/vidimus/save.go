package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/spf13/cobra"

	"vidimus/carrier"
)

type saveFlags struct {
	imageFlags
	dir    string
	output string
}

func newSaveCommand() *cobra.Command { return new(saveFlags).command() }

func (f *saveFlags) command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "save --dir DIRECTORY IMAGE",
		Short: "Save an image with all evidence about it in a directory",
		Long: `Save an image with everything that is said about it in a directory, for a place
that no network reaches. The directory is an OCI image layout as cosign save makes
it; cosign load reads it, and so does vidimus load, which brings referrers, SBOMs
and the evidence about what an index lists too.

The directory is made; one that is such a layout already is written anew, and any
other must be empty.

Exit code 0: saved; 2: misuse, or an image that is not there; 3: it could not be
done.`,
		Example: `  vidimus save --dir web ghcr.io/acme/web:v1`,
		Args:    takesOne("one image"),
		RunE:    func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	f.register(cmd, time.Hour)
	f.registerPlatform(cmd, "save only what an index lists for this `PLATFORM`, as linux/arm64")
	cmd.Flags().StringVar(&f.dir, "dir", "", "the `DIRECTORY`")
	cmd.Flags().StringVarP(&f.output, "output", "o", "text", "text or json")
	registerCosignFlags(cmd, "save")
	return cmd
}

func (f *saveFlags) run(cmd *cobra.Command, image string) error {
	if err := checkOutput(f.output); err != nil {
		return err
	}
	if f.dir == "" {
		return misuse(errors.New("say where to with --dir"))
	}
	ref, err := f.parse(image)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	g, err := f.find(ctx, cmd, ref, carrier.Options{})
	if err != nil {
		return err
	}
	called := ""
	if tag, ok := ref.(name.Tag); ok {
		called = tag.TagStr()
	}
	progress, end := progressBar(cmd.ErrOrStderr(), ref.Context().RepositoryStr(), byteCounters())
	done, err := carrier.Save(ctx, g, f.dir, called, progress)
	end()
	if errors.Is(err, carrier.ErrNotLayout) {
		return misuse(err)
	}
	if err != nil {
		return fmt.Errorf("save to %s: %w", f.dir, err)
	}
	return printCarried(cmd, f.output, f.dir, g, done)
}

type loadFlags struct {
	imageFlags
	dir    string
	force  bool
	output string
}

func newLoadCommand() *cobra.Command { return new(loadFlags).command() }

func (f *loadFlags) command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "load --dir DIRECTORY IMAGE",
		Short: "Load what save wrote into a registry",
		Long: `Load an image with its evidence from a directory that vidimus save, or cosign save,
has written, and push it under the name that is given.

All of it is hashed before anything is pushed. Evidence that is there already is
kept. The tag is written last; one that names another image is moved only with -f,
where cosign load always moves it. With COSIGN_REPOSITORY evidence goes there.

Exit code 0: loaded; 1: the directory holds something else than its names say;
2: misuse; 3: it could not be done.`,
		Example: `  vidimus load --dir web registry.example/acme/web:v1`,
		Args:    takesOne("one image"),
		RunE:    func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	f.register(cmd, time.Hour)
	flags := cmd.Flags()
	flags.StringVar(&f.dir, "dir", "", "the `DIRECTORY`")
	flags.BoolVarP(&f.force, "force", "f", false, "move the tag when it names another image")
	flags.StringVarP(&f.output, "output", "o", "text", "text or json")
	registerCosignFlags(cmd, "load")
	return cmd
}

func (f *loadFlags) run(cmd *cobra.Command, image string) error {
	if err := checkOutput(f.output); err != nil {
		return err
	}
	if f.dir == "" {
		return misuse(errors.New("say where from with --dir"))
	}
	to, err := f.parse(image)
	if err != nil {
		return err
	}
	layout, err := carrier.OpenLayout(f.dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, carrier.ErrNotLayout) {
		return misuse(err)
	}
	if err != nil {
		return err
	}
	defer layout.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	g, err := f.findIn(ctx, cmd, layout, nil, layout.Image().String(), carrier.Options{})
	if err == nil {
		err = carrier.Check(ctx, g)
	}
	if err != nil && ctx.Err() == nil {
		return doesNotHold(fmt.Errorf("%s: nothing was loaded: %w", f.dir, err))
	}
	if err != nil {
		return err
	}
	return f.put(ctx, cmd, g, to, to.Context(), carrier.Plan{Overwrite: f.force, Apart: true}, f.output)
}
