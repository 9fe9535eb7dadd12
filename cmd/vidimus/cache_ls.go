package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"vidimus/proxy/store"
)

type cacheLsFlags struct {
	cachePlace
	output string
}

func newCacheLsCommand() *cobra.Command {
	var f cacheLsFlags
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List what is kept, the latest use first",
		Long: `List what is kept: digest, size and last use, the latest first, and the total.
A use is known about a second late; where none is known, it is the time at which
the content was stored. What lies between the contents and is none is named on
standard error.

With --output json the contents come in the order of their digests, each a line
as it is found, in memory that does not depend on how many there are; the last
line is the total, and is missing when the listing is not whole.

Exit code 0: listed; 2: misuse, or no such directory; 3: something could not be
listed.`,
		Example: `  vidimus cache ls --directory /var/lib/vidimus
  vidimus cache ls --output json | jq -r 'select(.size > 1e9).digest'`,
		Args: takesNothing,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	f.register(cmd)
	cmd.Flags().StringVarP(&f.output, "output", "o", "text", "text or json (a content a line)")
	return cmd
}

// listedContent is a line of cache ls --output json.
type listedContent struct {
	Digest string    `json:"digest"`
	Size   int64     `json:"size"`
	Used   time.Time `json:"used"`
}

// listedTotal is the last one.
type listedTotal struct {
	Contents int   `json:"contents"`
	Bytes    int64 `json:"bytes"`
}

func (f *cacheLsFlags) run(cmd *cobra.Command) error {
	if f.output != "text" && f.output != "json" {
		return misuse(fmt.Errorf("unknown output %q: want text or json", f.output))
	}
	d, err := f.open()
	if err != nil {
		return err
	}
	defer d.Close()
	notes := cmd.ErrOrStderr()
	if !d.KnowsUse() {
		fmt.Fprintln(notes, "vidimus: the record of use cannot be read: the times are those of storing")
	}
	stray := func(name string) {
		fmt.Fprintf(notes, "vidimus: %s is in the way: it is no content\n", quote(name))
	}
	out := bufio.NewWriter(cmd.OutOrStdout())
	encoder := json.NewEncoder(out)
	var total listedTotal
	show := func(c store.Content) error {
		total.Contents++
		total.Bytes += c.Size
		if f.output == "json" {
			return encoder.Encode(listedContent{c.Digest.String(), c.Size, c.Used.UTC()})
		}
		_, err := fmt.Fprintf(out, "%s  %10s  %s\n", c.Digest, sizeText(c.Size), c.Used.UTC().Format(time.RFC3339))
		return err
	}
	if f.output == "json" {
		if err = d.Contents(cmd.Context(), show, stray); err == nil {
			err = encoder.Encode(total)
		}
	} else {
		err = d.ContentsByUse(cmd.Context(), show, stray)
		if cmd.Context().Err() == nil {
			fmt.Fprintln(out, contentsText(total.Contents, total.Bytes)) // Flush tells of a failure
		}
	}
	return interrupted(cmd.Context(), errors.Join(err, out.Flush()))
}
