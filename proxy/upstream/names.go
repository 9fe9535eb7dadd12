package upstream

import (
	"fmt"
	"io/fs"
	"regexp"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// The grammars of the distribution specification, "Pulling manifests".
var (
	repositoryGrammar = sync.OnceValue(func() *regexp.Regexp {
		const component = `[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*`
		return regexp.MustCompile(`^` + component + `(?:/` + component + `)*$`)
	})
	tagGrammar = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	})
)

// maxRepository is how long a repository's name may be: what clients that
// follow the specification's note keep to.
const maxRepository = 255

func checkRepository(repository string) error {
	if len(repository) > maxRepository || !repositoryGrammar().MatchString(repository) {
		return fmt.Errorf("%s is not a repository's name: %w", clip(repository), fs.ErrInvalid)
	}
	return nil
}

// checkReference accepts a tag, or a digest that v1.NewHash accepts.
func checkReference(reference string) error {
	if !strings.Contains(reference, ":") {
		if tagGrammar().MatchString(reference) {
			return nil
		}
	} else if _, err := v1.NewHash(reference); err == nil {
		return nil
	}
	return fmt.Errorf("%s is neither a tag nor a digest: %w", clip(reference), fs.ErrInvalid)
}

// checkDigest accepts what v1.NewHash would have returned.
func checkDigest(digest v1.Hash) error {
	if parsed, err := v1.NewHash(digest.String()); err != nil || parsed != digest {
		return fmt.Errorf("%s is not a digest: %w", clip(digest.String()), fs.ErrInvalid)
	}
	return nil
}
