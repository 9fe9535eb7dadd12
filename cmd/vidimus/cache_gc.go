package main

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"vidimus/proxy/store"
)

type cacheGcFlags struct {
	cachePlace
	maxSize string
}

func newCacheGcCommand() *cobra.Command {
	var f cacheGcFlags
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Tidy a directory that no server runs on",
		Long: `Do at once what a server does when it starts and while it runs: remove temporary
files that were left behind, compare the record of use with what is there, and
remove the content that was used longest ago until what is left is within
cache.maxSize (with --directory, within 80% of the file system) or --max-size.
In a large directory that is the oldest of a sample each time.

A server that starts meanwhile finds the directory in use. One that is running
keeps its bound by itself: to have it keep less, lower cache.maxSize and restart
it.

Exit code 0: done; 1: a server is running on the directory; 2: misuse, or no such
directory; 3: failed.`,
		Example: `  vidimus cache gc
  vidimus cache gc --directory /var/lib/vidimus --max-size 20GiB`,
		Args: takesNothing,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	f.register(cmd)
	cmd.Flags().StringVar(&f.maxSize, "max-size", "", "`SIZE` to keep at most, like 20GiB or 50%, instead of cache.maxSize")
	return cmd
}

// bound is what may be kept.
func (f *cacheGcFlags) bound(config cacheConfig) (int64, error) {
	size := config.MaxSize
	if f.maxSize != "" {
		var d decoder
		var ok bool
		if size, ok = fileSystemShare().decode(&d, flagValue("--max-size", f.maxSize)); !ok {
			return 0, misuse(errors.New(d.faults[0].String()))
		}
	}
	return size.bytes(config.Directory.Name)
}

func (f *cacheGcFlags) run(cmd *cobra.Command) error {
	config, err := f.find()
	if err != nil {
		return err
	}
	bound, err := f.bound(config)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	did, err := store.Collect(cmd.Context(), store.Config{
		Directory: config.Directory.Name, MaxSize: bound,
		Logger: slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil)),
	}, func(c store.Content) {
		fmt.Fprintf(out, "evicted  %s  %10s  last used %s\n", c.Digest, sizeText(c.Size), c.Used.UTC().Format(time.RFC3339))
	})
	switch {
	case errors.Is(err, store.ErrInUse):
		return doesNotHold(fmt.Errorf("a server is running on %s and keeps within cache.maxSize by itself; to have it keep less, lower that and restart it",
			config.Directory.Name))
	case err != nil && did == (store.Collected{}):
		return interrupted(cmd.Context(), cacheError(err))
	}
	fmt.Fprintf(out, "swept %d temporary %s, %s\n", did.Swept, plural(did.Swept, "file", "files"), sizeText(did.SweptBytes))
	fmt.Fprintf(out, "evicted %s\n", contentsText(did.Evicted, did.EvictedBytes))
	if err == nil {
		_, err = fmt.Fprintf(out, "held %s, of at most %s\n", contentsText(did.Held.Contents, did.Held.Bytes), sizeText(bound))
	}
	return interrupted(cmd.Context(), err)
}
