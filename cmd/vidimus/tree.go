package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/spf13/cobra"

	"vidimus/carrier"
)

type treeFlags struct {
	imageFlags
	output string
}

func newTreeCommand() *cobra.Command { return new(treeFlags).command() }

func (f *treeFlags) command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tree IMAGE",
		Short: "Show what is attached to an image",
		Long: `Show the signatures, attestations and SBOMs of an image that are under cosign's
tags, and all that refers to it, with what refers to these; and for an index the
manifests that it lists, with theirs. Nothing is verified: explain does that.

Exit code 0: shown; 2: misuse, or an image that is not there; 3: could not tell.`,
		Example: `  vidimus tree ghcr.io/acme/web:v1
  vidimus tree --output json ghcr.io/acme/web:v1`,
		Args: takesOne("one image"),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	f.register(cmd, 3*time.Minute)
	cmd.Flags().StringVarP(&f.output, "output", "o", "text", "text or json")
	registerCosignFlags(cmd, "tree")
	return cmd
}

func (f *treeFlags) run(cmd *cobra.Command, image string) error {
	if err := checkOutput(f.output); err != nil {
		return err
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
	if f.output == "json" {
		encoder := json.NewEncoder(cmd.OutOrStdout())
		encoder.SetIndent("", "  ")
		return encoder.Encode(treeOf(g.Root, make(map[*carrier.Node]bool)))
	}
	var text strings.Builder
	fmt.Fprintf(&text, "📦 Supply Chain Security Related artifacts for an image: %s\n", ref)
	printTree(&text, "", ref, g.Root, make(map[*carrier.Node]bool))
	_, err = io.WriteString(cmd.OutOrStdout(), text.String())
	return err
}

// treeNode is a manifest in the output of tree; its names are stable.
type treeNode struct {
	Digest       string      `json:"digest"`
	MediaType    string      `json:"mediaType"`
	Size         int         `json:"size"`
	Repository   string      `json:"repository"`
	Tag          string      `json:"tag,omitempty"`
	Kind         string      `json:"kind,omitempty"` // of evidence: signature, attestation, sbom, artifact
	Platform     string      `json:"platform,omitempty"`
	ArtifactType string      `json:"artifactType,omitempty"`
	Predicate    string      `json:"predicateType,omitempty"`
	Layers       []treeLayer `json:"layers,omitempty"`
	Tagged       []treeNode  `json:"tagged,omitempty"`
	Referrers    []treeNode  `json:"referrers,omitempty"`
	Manifests    []treeNode  `json:"manifests,omitempty"` // of an index
}

type treeLayer struct {
	Digest    string `json:"digest"`
	MediaType string `json:"mediaType"`
	Size      int64  `json:"size"`
}

// treeOf returns the tree below a node. What was shown above is not shown again
// below itself: who refers to whom may go in a circle.
func treeOf(n *carrier.Node, above map[*carrier.Node]bool) treeNode {
	t := treeNode{
		Digest: n.Digest.String(), MediaType: string(n.MediaType), Size: len(n.Data), Repository: n.From.Name(),
		Kind: string(n.Kind), Predicate: n.Predicate,
	}
	if n.Kind != "" {
		t.ArtifactType = n.ArtifactType
	}
	if n.Platform != nil {
		t.Platform = n.Platform.String()
	}
	for _, layer := range n.Layers {
		t.Layers = append(t.Layers, treeLayer{layer.Digest.String(), string(layer.MediaType), layer.Size})
	}
	if above[n] {
		return t
	}
	above[n] = true
	defer delete(above, n)
	for _, tagged := range n.Tagged {
		under := treeOf(tagged.Node, above)
		under.Tag = tagIn(tagged.From, tagged.Tag)
		t.Tagged = append(t.Tagged, under)
	}
	for _, referrer := range n.Referrers {
		t.Referrers = append(t.Referrers, treeOf(referrer, above))
	}
	for _, child := range n.Children {
		t.Manifests = append(t.Manifests, treeOf(child, above))
	}
	return t
}

// headings are cosign's.
var headings = map[carrier.Kind]string{
	carrier.Signature:   "🔐 Signatures for an image tag:",
	carrier.Attestation: "💾 Attestations for an image tag:",
	carrier.SBOM:        "📦 SBOMs for an image tag:",
}

// tagIn is what a tag of evidence is called where it is.
func tagIn(from carrier.Place, tag string) string {
	if repo, ok := from.(*repository); ok {
		return repo.flags.tagged(tag)
	}
	return tag
}

func printTree(w io.Writer, indent string, ref name.Reference, n *carrier.Node, above map[*carrier.Node]bool) {
	if above[n] {
		return
	}
	above[n] = true
	defer delete(above, n)
	for _, tagged := range n.Tagged {
		fmt.Fprintf(w, "%s└── %s %s:%s\n", indent, headings[tagged.Kind], tagged.From.Name(), tagIn(tagged.From, tagged.Tag))
		printLayers(w, indent, tagged.Node)
		printTree(w, indent+"   ", ref, tagged.Node, above)
	}
	for _, referrer := range n.Referrers {
		kind := printable(referrer.Predicate)
		if kind == "" {
			kind = printable(referrer.ArtifactType)
		}
		fmt.Fprintf(w, "%s└── 🔗 %s artifacts via OCI referrer: %s@%s\n", indent, kind, referrer.From.Name(), referrer.Digest)
		printLayers(w, indent, referrer)
		printTree(w, indent+"   ", ref, referrer, above)
	}
	if indent == "" && len(n.Tagged)+len(n.Referrers) == 0 {
		fmt.Fprintf(w, "No Supply Chain Security Related Artifacts found for image %s\n", ref)
	}
	for _, child := range n.Children {
		platform := "manifest"
		if child.Platform != nil {
			platform = printable(child.Platform.String())
		}
		fmt.Fprintf(w, "%s└── 📦 %s: %s@%s\n", indent, platform, child.From.Name(), child.Digest)
		printTree(w, indent+"   ", ref, child, above)
	}
}

func printLayers(w io.Writer, indent string, n *carrier.Node) {
	for i, layer := range n.Layers {
		branch := "├──"
		if i == len(n.Layers)-1 {
			branch = "└──"
		}
		fmt.Fprintf(w, "%s   %s 🍒 %s\n", indent, branch, layer.Digest)
	}
}

// printable is text of a registry, as it may go to a terminal: on one line, bounded.
func printable(s string) string {
	const limit = 200
	if len(s) > limit {
		s = s[:limit] + "..."
	}
	quoted := fmt.Sprintf("%+q", s)
	if quoted[1:len(quoted)-1] == s {
		return s
	}
	return quoted
}
