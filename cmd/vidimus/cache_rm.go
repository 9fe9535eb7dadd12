package main

import (
	"errors"
	"fmt"
	"io/fs"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"vidimus/proxy/store"
)

type cacheRmFlags struct {
	cachePlace
	all bool
}

func newCacheRmCommand() *cobra.Command {
	var f cacheRmFlags
	cmd := &cobra.Command{
		Use:   "rm (DIGEST... | --all)",
		Short: "Remove content by its digest",
		Long: `Remove content by its digest, or all of it. A running server goes on: answers
under way are finished, and what is asked for again is fetched again. What it
holds in memory (manifests) it may go on to serve; to forbid an image, add its
digest to revoked.

Exit code 0: removed; 1: something was not there, and all else is removed;
2: misuse, or no such directory; 3: something could not be removed.`,
		Example: `  vidimus cache rm sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03
  vidimus cache rm --directory /var/lib/vidimus --all`,
		Args: func(_ *cobra.Command, args []string) error {
			if (len(args) == 0) == !f.all {
				return errors.New("name what to remove: digests, or --all")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	f.register(cmd)
	cmd.Flags().BoolVar(&f.all, "all", false, "remove all content")
	return cmd
}

func (f *cacheRmFlags) run(cmd *cobra.Command, args []string) error {
	digests := make([]v1.Hash, len(args))
	for i, arg := range args {
		digest, err := parseDigest(arg)
		if err != nil {
			return misuse(err)
		}
		digests[i] = digest
	}
	d, err := f.open()
	if err != nil {
		return err
	}
	defer d.Close()
	if f.all {
		return removeAll(cmd, d)
	}
	missing := false
	var failed error
	for _, digest := range digests {
		size, err := d.Remove(digest)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing = true
			fmt.Fprintf(cmd.ErrOrStderr(), "vidimus: %s is not held\n", digest)
		case err != nil:
			failed = errors.Join(failed, err)
		default:
			fmt.Fprintf(cmd.OutOrStdout(), "removed  %s  %s\n", digest, sizeText(size))
		}
	}
	if failed == nil && missing {
		return &exitError{code: exitDoesNotHold}
	}
	return failed
}

// removeAll removes what it can, and says what that was whatever happens.
func removeAll(cmd *cobra.Command, d *store.Directory) error {
	removed, bytes := 0, int64(0)
	var failed error
	err := d.Contents(cmd.Context(), func(c store.Content) error {
		size, err := d.Remove(c.Digest)
		switch {
		case err == nil:
			removed++
			bytes += size
		case failed == nil && !errors.Is(err, fs.ErrNotExist): // a server may evict meanwhile
			failed = err
		}
		return nil
	}, nil)
	if _, err := fmt.Fprintf(cmd.OutOrStdout(), "removed %s\n", contentsText(removed, bytes)); err != nil {
		return err
	}
	return interrupted(cmd.Context(), errors.Join(err, failed))
}
