package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/spf13/cobra"

	"vidimus/carrier"
	"vidimus/signer"
	"vidimus/verifier/envelope"
)

type cleanFlags struct {
	imageFlags
	kind   string
	force  bool
	output string
}

func newCleanCommand() *cobra.Command { return new(cleanFlags).command() }

func (f *cleanFlags) command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "clean IMAGE",
		Short: "Remove the signatures and other evidence of an image",
		Long: `Remove evidence about an image from its registry: what is under cosign's tags, and
referrers. Only what is about this very digest is removed: not what is about the
manifests that an index lists, nor artifacts of other types. What remains is said.

Many registries delete only when they are configured to.

Exit code 0: removed, or there was nothing; 2: misuse, or an image that is not there;
3: something could not be removed.`,
		Example: `  vidimus clean --type signature ghcr.io/acme/web@sha256:...`,
		Args:    takesOne("one image"),
		RunE:    func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	f.register(cmd, 3*time.Minute)
	flags := cmd.Flags()
	flags.StringVar(&f.kind, "type", "all", "all, signature, attestation, sbom, or referrer for what refers to it")
	flags.BoolVarP(&f.force, "force", "f", false, "do not ask")
	flags.BoolVarP(&f.force, "yes", "y", false, "the same")
	flags.StringVarP(&f.output, "output", "o", "text", "text or json")
	registerCosignFlags(cmd, "clean")
	return cmd
}

// removal is one thing that is to be removed.
type removal struct {
	Kind   carrier.Kind `json:"kind"`
	Tag    string       `json:"tag,omitempty"`
	Digest string       `json:"digest"`
	Error  string       `json:"error,omitempty"` // why it remains

	node *carrier.Node
}

func (r removal) String() string {
	if r.Tag != "" {
		return fmt.Sprintf("%s %s", r.Kind, r.Tag)
	}
	return fmt.Sprintf("%s %s", r.Kind, r.Digest)
}

func (f *cleanFlags) run(cmd *cobra.Command, image string) error {
	if err := checkOutput(f.output); err != nil {
		return err
	}
	if !slices.Contains([]string{"all", "signature", "attestation", "sbom", "referrer"}, f.kind) {
		return misuse(fmt.Errorf("--type %s: want all, signature, attestation, sbom or referrer", f.kind))
	}
	ref, err := f.parse(image)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	where, evidence, err := f.places(ctx, ref, true)
	if err != nil {
		return err
	}
	g, err := f.findIn(ctx, cmd, where, evidence, ref.Identifier(), carrier.Options{Alone: true})
	if err != nil {
		return err
	}
	removals, others := f.choose(g.Root)
	if len(removals) > 0 && !f.force {
		question := fmt.Sprintf("Remove %d pieces of evidence about %s@%s?", len(removals), ref.Context().Name(), g.Root.Digest)
		yes, err := newPrompter(cmd).confirm(ctx, question)
		if err != nil {
			return err
		}
		if !yes {
			return misuse(errors.New("nothing was removed: say yes, or give -f"))
		}
	}
	failed := 0
	for i := range removals {
		r := &removals[i]
		if err := f.remove(ctx, g.Root, r); err != nil {
			failed++
			r.Error = err.Error()
		}
	}
	if err := f.print(cmd, removals, others); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d pieces of evidence remain: a registry that deletes nothing has to be told to (distribution: storage.delete.enabled), and credentials need the right", failed, len(removals))
	}
	return nil
}

// choose returns what is to be removed, and how much remains of other kinds.
func (f *cleanFlags) choose(root *carrier.Node) (removals []removal, others int) {
	for _, t := range root.Tagged {
		if f.kind == "all" || f.kind == string(t.Kind) {
			removals = append(removals, removal{Kind: t.Kind, Tag: t.Tag, Digest: t.Digest.String(), node: t.Node})
		} else {
			others++
		}
	}
	for _, r := range root.Referrers {
		if r.Kind != carrier.Artifact && (f.kind == "all" || f.kind == "referrer" || f.kind == string(r.Kind)) {
			removals = append(removals, removal{Kind: r.Kind, Digest: r.Digest.String(), node: r})
		} else {
			others++
		}
	}
	return removals, others
}

func (f *cleanFlags) print(cmd *cobra.Command, removals []removal, others int) error {
	if f.output == "json" {
		if removals == nil {
			removals = []removal{}
		}
		return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"evidence": removals, "others": others})
	}
	for _, r := range removals {
		if r.Error == "" {
			fmt.Fprintf(cmd.ErrOrStderr(), "removed: %s\n", r)
		} else {
			fmt.Fprintf(cmd.ErrOrStderr(), "remains: %s: %s\n", r, r.Error)
		}
	}
	if len(removals) == 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), "there is nothing to remove")
	}
	if others > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "%d of other kinds were left: vidimus tree shows them\n", others)
	}
	return nil
}

// remove removes one piece of evidence and looks whether it is gone.
func (f *cleanFlags) remove(ctx context.Context, root *carrier.Node, r *removal) error {
	repo, ok := r.node.From.(*repository)
	if !ok {
		return errors.New("it is not in a registry")
	}
	if r.Tag != "" {
		return removeTag(ctx, repo, root, r)
	}
	if err := repo.Delete(ctx, r.Digest); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return unlist(ctx, repo, root.Digest, r.Digest)
}

// removeTag deletes a tag. Where only manifests can be deleted, the one under it is,
// when it is evidence and nothing else: whoever may push can put the tag of a
// signature on an image.
func removeTag(ctx context.Context, repo *repository, root *carrier.Node, r *removal) error {
	err := repo.Delete(ctx, r.Tag)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil || !errors.Is(err, signer.ErrNoDelete) {
		return err
	}
	if r.node.Digest == root.Digest || !holdsEvidenceOnly(r.node) {
		return fmt.Errorf("%w; and what is under %s is no evidence: it is not deleted by its digest", err, r.Tag)
	}
	byDigest := repo.Delete(ctx, r.Digest)
	if errors.Is(byDigest, fs.ErrNotExist) {
		return nil
	}
	return byDigest
}

func holdsEvidenceOnly(n *carrier.Node) bool {
	for _, layer := range n.Layers {
		kind := string(layer.MediaType)
		sbom := slices.ContainsFunc([]string{"text/spdx", "application/vnd.cyclonedx", "application/vnd.syft"}, func(prefix string) bool {
			return strings.HasPrefix(kind, prefix)
		})
		if !sbom && kind != envelope.MediaTypeSimpleSigning && kind != envelope.MediaTypeDSSE {
			return false
		}
	}
	return !n.IsIndex() && len(n.Layers) > 0
}

// maxUnlistings bounds how often a list of referrers is written anew.
const maxUnlistings = 10

// unlist takes a referrer off the list under the fallback tag, where there is one,
// and reads it again: who writes it at the same moment may put it back.
func unlist(ctx context.Context, repo *repository, subject v1.Hash, digest string) error {
	tag := carrier.Tag(subject, "")
	for range maxUnlistings {
		m, err := repo.Manifest(ctx, tag)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("it is deleted, and may still be listed under %s: %w", tag, err)
		}
		changed, left, err := without(m.Data, digest)
		if err != nil || changed == nil {
			return err
		}
		if left == 0 {
			// An empty list says the same as none.
			if repo.Delete(ctx, tag) == nil {
				continue
			}
		}
		if _, err := repo.PutManifest(ctx, tag, carrier.Manifest{Data: changed, MediaType: types.OCIImageIndex}); err != nil {
			return fmt.Errorf("it is deleted, and still listed under %s: %w", tag, err)
		}
	}
	return fmt.Errorf("it is deleted, and another writer keeps listing it under %s", tag)
}

// without returns a list of referrers without one of them, and how many it has left;
// nil when it does not list it. All else stays the bytes it was.
func without(list []byte, digest string) (changed []byte, left int, err error) {
	if err := envelope.CheckJSON(list, envelope.MaxDepth); err != nil {
		return nil, 0, err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(list, &fields); err != nil {
		return nil, 0, err
	}
	var all []json.RawMessage
	if json.Unmarshal(fields["manifests"], &all) != nil {
		return nil, 0, nil // no list
	}
	kept := slices.DeleteFunc(slices.Clone(all), func(raw json.RawMessage) bool {
		var desc struct {
			Digest string `json:"digest"`
		}
		return json.Unmarshal(raw, &desc) == nil && desc.Digest == digest
	})
	if len(kept) == len(all) {
		return nil, len(all), nil
	}
	if kept == nil {
		kept = []json.RawMessage{}
	}
	joined := append(append([]byte("["), bytes.Join(bytesOf(kept), []byte(","))...), ']')
	return bytes.Replace(list, fields["manifests"], joined, 1), len(kept), nil
}

func bytesOf(raw []json.RawMessage) [][]byte {
	all := make([][]byte, len(raw))
	for i := range raw {
		all[i] = raw[i]
	}
	return all
}
