package upstream

import (
	"net/http"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// validator is a strong entity tag and who gave it. It goes back to nobody else:
// to a second server of the same content it would be the wrong one, and cost the
// whole transfer.
type validator struct {
	etag string
	from origin
}

// maxETagLength bounds one entity tag that is remembered.
const maxETagLength = 256

// validatorOf returns the strong entity tag of an answer, or the zero validator.
// RFC 9110, section 13.1.5, allows no weak one in If-Range.
func validatorOf(response *http.Response) validator {
	values := response.Header.Values("Etag")
	from, err := originOf(response.Request.URL)
	if len(values) != 1 || !strongETag(values[0]) || err != nil {
		return validator{}
	}
	return validator{values[0], from}
}

// strongETag reports whether value is a strong entity tag of plain characters.
func strongETag(value string) bool {
	inner, opened := strings.CutPrefix(value, `"`)
	inner, closed := strings.CutSuffix(inner, `"`)
	return opened && closed && len(value) <= maxETagLength &&
		!strings.ContainsFunc(inner, func(c rune) bool { return c <= ' ' || c == '"' || c >= 0x7f })
}

// blobName is one blob of one repository.
type blobName struct {
	repository string
	digest     v1.Hash
}

// validators remembers, of a bounded number of transfers, what the answer was
// that they began with. The zero value is ready.
type validators struct {
	mu   sync.Mutex
	held map[blobName]validator
}

func (v *validators) get(blob blobName) validator {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.held[blob]
}

// set remembers what a transfer begins with; the zero validator forgets it.
func (v *validators) set(blob blobName, begun validator) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if begun == (validator{}) {
		delete(v.held, blob)
		return
	}
	v.held = remember(v.held, blob, begun)
}
