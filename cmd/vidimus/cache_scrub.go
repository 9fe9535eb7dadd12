package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"vidimus/proxy/store"
)

type cacheScrubFlags struct {
	cachePlace
	rate   string
	keep   bool
	output string
}

func newCacheScrubCommand() *cobra.Command {
	var f cacheScrubFlags
	cmd := &cobra.Command{
		Use:   "scrub",
		Short: "Hash all content as the medium holds it, and remove what is wrong",
		Long: `Read all content from the medium, hash it, and remove what does not hash to its
digest. A server would find that out, too, but only of what is asked for, and of
what the system holds in memory perhaps much later.

On Linux content is read past the page cache where the file system lets it; where
it does not, the page cache of each content is dropped first; and on other systems
reading is as usual and says little of the medium. The result says which of these
it was. (A file system that compresses or encrypts may take direct reads and use
the page cache all the same.)

A running server is not disturbed but by the reading, which --rate bounds. What
it has just fetched anew is not removed in place of what was read.

With --output json each content that is wrong or cannot be read is a line, and
the last line is the result.

Exit code 0: all is right; 1: something was wrong, and is removed (or --keep);
2: misuse, or no such directory; 3: something could not be read or removed, or
the scrub was interrupted.`,
		Example: `  vidimus cache scrub
  vidimus cache scrub --directory /var/lib/vidimus --rate 50MiB --keep --output json`,
		Args: takesNothing,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	f.register(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.rate, "rate", "", "`BYTES` to read in a second at most, like 50MiB")
	flags.BoolVar(&f.keep, "keep", false, "remove nothing")
	flags.StringVarP(&f.output, "output", "o", "text", "text or json (a line for each that is wrong, and the result)")
	return cmd
}

// scrubFinding is a line of cache scrub --output json.
type scrubFinding struct {
	Digest  string `json:"digest"`
	Size    int64  `json:"size"`
	State   string `json:"state"` // rotten or unreadable
	Removed bool   `json:"removed"`
	Error   string `json:"error,omitempty"`
}

// scrubResult is the last one.
type scrubResult struct {
	Complete   bool    `json:"complete"`
	Contents   int     `json:"contents"`
	Bytes      int64   `json:"bytes"`
	Rotten     int     `json:"rotten"`
	Removed    int     `json:"removed"`
	Unreadable int     `json:"unreadable"`
	Direct     int     `json:"direct"`
	Dropped    int     `json:"dropped"`
	Cached     int     `json:"cached"`
	Seconds    float64 `json:"seconds"`
}

func (f *cacheScrubFlags) run(cmd *cobra.Command) error {
	if f.output != "text" && f.output != "json" {
		return misuse(fmt.Errorf("unknown output %q: want text or json", f.output))
	}
	rate := int64(0)
	if f.rate != "" {
		var err error
		if rate, err = parseSize(strings.TrimSuffix(f.rate, "/s")); err != nil {
			return misuse(fmt.Errorf("--rate %s: want bytes a second, like 50MiB", quote(f.rate)))
		}
	}
	d, err := f.open()
	if err != nil {
		return err
	}
	defer d.Close()
	begin := time.Now()
	line := newScrubProgress(cmd.ErrOrStderr(), begin)
	seen, err := d.Scrub(cmd.Context(), store.Scrub{
		Keep: f.keep, Rate: rate, Progress: line.show,
		Found: func(found store.Finding) { line.clear(); f.printFinding(cmd.OutOrStdout(), found) },
	})
	line.clear()
	if printed := f.printResult(cmd, seen, time.Since(begin), err == nil); printed != nil {
		return printed
	}
	switch {
	case err != nil:
		return interrupted(cmd.Context(), err)
	case seen.Unreadable > 0 || !f.keep && seen.Removed < seen.Rotten:
		return &exitError{code: exitUnknown}
	case seen.Rotten > 0:
		return &exitError{code: exitDoesNotHold}
	}
	return nil
}

func (f *cacheScrubFlags) printFinding(out io.Writer, found store.Finding) {
	state := "unreadable"
	if found.Rotten {
		state = "rotten"
	}
	reason := ""
	if found.Err != nil {
		reason = found.Err.Error()
	}
	if f.output == "json" {
		json.NewEncoder(out).Encode(scrubFinding{found.Digest.String(), found.Size, state, found.Gone, reason})
		return
	}
	if reason == "" {
		reason = "kept"
		if found.Gone {
			reason = "removed"
		}
	}
	fmt.Fprintf(out, "%-10s  %s  %10s  %s\n", state, found.Digest, sizeText(found.Size), reason)
}

func (f *cacheScrubFlags) printResult(cmd *cobra.Command, seen store.Scrubbed, took time.Duration, complete bool) error {
	if f.output == "json" {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(scrubResult{
			Complete: complete, Contents: seen.Contents, Bytes: seen.Bytes,
			Rotten: seen.Rotten, Removed: seen.Removed, Unreadable: seen.Unreadable,
			Direct: seen.Direct, Dropped: seen.Dropped, Cached: seen.Cached,
			Seconds: float64(took.Milliseconds()) / 1000,
		})
	}
	end, judgement := "read", "all right"
	if !complete {
		end, judgement = "not all was looked at: read", "nothing wrong so far"
	}
	if seen.Rotten+seen.Unreadable > 0 {
		judgement = fmt.Sprintf("%d rotten, of which %d removed; %d unreadable", seen.Rotten, seen.Removed, seen.Unreadable)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %s in %s: %s\n", end, contentsText(seen.Contents, seen.Bytes), took.Round(time.Millisecond), judgement)
	if seen.Dropped > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "vidimus: the file system has no direct reads: the page cache of %s was dropped first\n", counted(seen.Dropped))
	}
	if seen.Cached > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "vidimus: %s could be read as usual only, perhaps from memory, which says little of the medium\n", counted(seen.Cached))
	}
	return err
}

func counted(contents int) string {
	return fmt.Sprintf("%d %s", contents, plural(contents, "content", "contents"))
}

// scrubProgress is a line on a terminal that says how far a scrub has come.
type scrubProgress struct {
	w     io.Writer // nil: there is no terminal
	begin time.Time
	last  time.Time
	shown bool
}

// progressEvery is how often the line changes at most.
const progressEvery = 200 * time.Millisecond

func newScrubProgress(w io.Writer, begin time.Time) *scrubProgress {
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return &scrubProgress{w: w, begin: begin}
	}
	return &scrubProgress{}
}

func (p *scrubProgress) show(soFar store.Scrubbed, part float64) {
	now := time.Now()
	if p.w == nil || now.Sub(p.last) < progressEvery {
		return
	}
	p.last, p.shown = now, true
	rate := float64(soFar.Bytes) / max(now.Sub(p.begin).Seconds(), 0.001)
	fmt.Fprintf(p.w, "\r\x1b[K%3.0f%%  %s, %s/s", 100*part, contentsText(soFar.Contents, soFar.Bytes), sizeText(int64(rate)))
}

// clear makes room for other lines.
func (p *scrubProgress) clear() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
}
