package upstream

import (
	"errors"
	"io/fs"
	"net/http"
	"testing"
)

// What a tag was called when it was read is asked for when it is replaced.
func TestATagIsReplacedOnlyWhileItIsTheSame(t *testing.T) {
	etag := func(values ...string) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) { rw.Header()["Etag"] = values }
	}
	for name, tt := range map[string]struct {
		answer          http.HandlerFunc
		match, absent   string
		fails, notThere bool
	}{
		"with an entity tag":   {answer: etag(`"abc"`), match: `"abc"`},
		"with a weak one":      {answer: etag(`W/"abc"`)},
		"with two":             {answer: etag(`"a"`, `"b"`)},
		"with one of a header": {answer: etag("\"a\"\tX: y\"")},
		"with none":            {answer: etag()},
		"that is not there":    {answer: http.NotFound, absent: "*", fails: true, notThere: true},
		"that is not told of":  {answer: func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(403) }, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, c := plainRegistry(t, func(rw http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPut {
					rw.WriteHeader(http.StatusPreconditionFailed)
					return
				}
				tt.answer(rw, r)
			}, nil)
			_, _, version, err := c.ReadTag(t.Context(), "acme/web", "v1")
			if (err != nil) != tt.fails || errors.Is(err, fs.ErrNotExist) != tt.notThere {
				t.Errorf("read: %v", err)
			}
			_, err = c.PutManifestOver(t.Context(), "acme/web", "v1", "application/x", []byte("x"), version)
			if e, ok := errors.AsType[*Error](err); !ok || e.Status() != http.StatusPreconditionFailed {
				t.Errorf("put: %v", err)
			}
			header := h.last().header
			if header.Get("If-Match") != tt.match || header.Get("If-None-Match") != tt.absent {
				t.Errorf("it asks for %v", header)
			}
		})
	}

	t.Run("the name that another server gives it is not sent to the upstream", func(t *testing.T) {
		w, registry, _, _ := redirectWorld(t, etag(`"abc"`))
		if _, _, version, err := w.client(registry, nil).ReadTag(t.Context(), "acme/web", "v1"); err != nil || version != "" {
			t.Errorf("version %q, %v", version, err)
		}
	})
}
