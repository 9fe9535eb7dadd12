package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"vidimus/proxy/store"
)

func newCacheCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cache",
		Short: "Look at what a server keeps on disk, check and tidy it",
		Long: `Look at the content that a server keeps in cache.directory, check it and tidy it.

ls, rm and scrub work while a server runs on the directory, and while none does;
gc is for when none does. What is removed beside a running server is missing for
it from then on, and fetched again when somebody asks; answers under way are not
cut short. Nothing here can make a server serve what it should not: all content
is hashed by it, and removing content forbids nothing (revoked does).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newCacheLsCommand(), newCacheRmCommand(), newCacheGcCommand(), newCacheScrubCommand())
	return cmd
}

// cachePlace is how a command is told which directory is meant.
type cachePlace struct {
	config    string
	directory string
}

func (p *cachePlace) register(cmd *cobra.Command) {
	addConfigFlag(cmd, &p.config)
	cmd.Flags().StringVar(&p.directory, "directory", "", "`DIRECTORY` of the content, instead of a configuration's cache.directory")
}

// find returns what a configuration says of the cache, or what it would say that
// only names the directory. Of a configuration nothing else is judged: whoever
// tidies a disk need not have the keys and passwords that it names.
func (p *cachePlace) find() (cacheConfig, error) {
	if p.directory != "" && p.config != "" {
		return cacheConfig{}, misuse(errors.New("--config and --directory exclude each other: both say where the content is"))
	}
	if p.directory != "" {
		config, _ := decodeFile(commandLine, []byte(flagBase), configShape())
		config.Cache.Directory.Name = p.directory
		return config.Cache, nil
	}
	name, err := findConfig(p.config, os.LookupEnv)
	if err != nil {
		return cacheConfig{}, misuse(fmt.Errorf("%w; or say where the content is with --directory", err))
	}
	data, err := newReader(os.LookupEnv).read(name)
	if err != nil {
		return cacheConfig{}, misuse(fmt.Errorf("configuration: %s", plainError(err)))
	}
	config, found := decodeFile(name, data, configShape())
	if err := found.sorted().err(); err != nil {
		return cacheConfig{}, misuse(err)
	}
	if config.Cache.Directory.Name == "" {
		return cacheConfig{}, misuse(fmt.Errorf("%s has no cache.directory: its cache is in memory, and gone when the server ends", name))
	}
	return config.Cache, nil
}

// open opens the directory.
func (p *cachePlace) open() (*store.Directory, error) {
	config, err := p.find()
	if err != nil {
		return nil, err
	}
	d, err := store.OpenDirectory(config.Directory.Name)
	if err != nil {
		return nil, cacheError(err)
	}
	return d, nil
}

// cacheError makes a directory that is not there one of who named it.
func cacheError(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return misuse(err)
	}
	return err
}

// interrupted is err, or that the person ended the command.
func interrupted(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return err
}

// sizeText is a number of bytes as people read it.
func sizeText(n int64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/(1<<10), 0
	for value >= 1023.95 && unit < 3 { // which would be rounded to 1024.0
		value /= 1 << 10
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGT"[unit])
}

// contentsText is a number of contents and their bytes.
func contentsText(n int, bytes int64) string {
	return fmt.Sprintf("%d %s, %s", n, plural(n, "content", "contents"), sizeText(bytes))
}
