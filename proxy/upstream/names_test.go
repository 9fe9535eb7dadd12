package upstream

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func TestNamesOutsideTheGrammarAreNotSent(t *testing.T) {
	h, c := plainRegistry(t, text("bytes"), nil)
	good := digestOf(t, "x")
	for _, repository := range []string{
		"", "/", "a/", "/a", "a//b", "A", "a/../b", "..", ".", "a..b", "a___b", "-a", "a-", "a?x=y", "a#b", "a%2fb", "a b", "a\x00", "a\n", "ä",
		"a:b", "a@b", "a/b\n", strings.Repeat("a", 256),
	} {
		for name, call := range map[string]func() error{
			"Manifest":  func() error { _, _, err := manifestOf(t.Context(), c, repository, "v1"); return err },
			"Blob":      func() error { _, _, err := c.Blob(t.Context(), repository, good, 0); return err },
			"Exists":    func() error { _, err := c.Exists(t.Context(), repository, good); return err },
			"Tags":      func() error { _, _, err := c.Tags(t.Context(), repository, 0, ""); return err },
			"Referrers": func() error { _, err := c.Referrers(t.Context(), repository, good, ""); return err },
		} {
			if err := call(); !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("%s of %q: %v", name, repository, err)
			}
		}
	}
	for _, reference := range []string{
		"", ".", "..", "-a", "a/b", "a?b", "a b", "a\n", "sha256:abc", "sha256:" + strings.Repeat("A", 64), "sha256:../../x", "sha999:" + good.Hex,
		"md5:" + good.Hex[:32], ":" + good.Hex, "sha256:" + good.Hex + "0", strings.Repeat("a", 129), "%2e%2e",
	} {
		if _, _, err := manifestOf(t.Context(), c, "acme/web", reference); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("reference %q: %v", reference, err)
		}
		if reference == "" {
			continue
		}
		if _, _, err := c.Tags(t.Context(), "acme/web", 0, reference); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("last %q: %v", reference, err)
		}
	}
	for _, digest := range []v1.Hash{{}, {Algorithm: "sha256", Hex: "../../x"}, {Algorithm: "sha256:" + good.Hex + "?", Hex: good.Hex}, {Algorithm: "sha256", Hex: good.Hex[1:]}} {
		if _, err := c.Exists(t.Context(), "acme/web", digest); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("digest %v: %v", digest, err)
		}
	}
	if got := h.lines(); len(got) != 0 {
		t.Errorf("sent %q", got)
	}
	for _, repository := range []string{"a", "library/nginx", "a.b_c__d-e---f/0", strings.Repeat("a", 255)} {
		if _, _, err := manifestOf(t.Context(), c, repository, "_V1.0-x"); err != nil {
			t.Errorf("repository %q: %v", repository, err)
		}
	}
}
