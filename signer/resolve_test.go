package signer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func TestResolve(t *testing.T) {
	reg := newTestRegistry()
	digest := reg.image(t, "v1")
	for _, reference := range []string{"v1", digest.String()} {
		if got, err := Resolve(t.Context(), reg, testRepository, reference); err != nil || got != digest {
			t.Errorf("%s: %v, %v", reference, got, err)
		}
	}
	if _, err := Resolve(t.Context(), reg, testRepository, "missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	if _, err := Resolve(t.Context(), reg, testRepository, "sha512:"+strings.Repeat("a", 128)); err == nil {
		t.Error("sha512: no error")
	}
}

// fixed answers every request for a manifest with the same bytes.
type fixed struct {
	Registry
	data []byte
}

func (f fixed) Manifest(context.Context, string, string) ([]byte, error) { return f.data, nil }

func TestResolveBelievesBytesOnly(t *testing.T) {
	data := imageManifest("v1")
	for name, tt := range map[string]struct {
		data      []byte
		reference string
		want      string
	}{
		"other bytes for a digest": {data, "sha256:" + strings.Repeat("a", 64), "the registry sent bytes whose digest is " + digestOf(data).String()},
		"too much":                 {append(data, make([]byte, maxManifestSize)...), "v1", "larger than"},
		"a login page":             {[]byte("<html>"), "v1", "json"},
		"schema 1":                 {[]byte(`{"schemaVersion":1}`), "v1", "schema version 2"},
		"both an index and not":    {[]byte(`{"schemaVersion":2,"manifests":[],"layers":[]}`), "v1", "ambiguous"},
		"an index that says image": {[]byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","manifests":[]}`), "v1", "ambiguous"},
		"an index without a list":  {[]byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json"}`), "v1", "ambiguous"},
		"a list that is none":      {[]byte(`{"schemaVersion":2,"manifests":1}`), "v1", "not a list"},
		"an entry without digest":  {[]byte(`{"schemaVersion":2,"manifests":[{}]}`), "v1", "no digest"},
		"a digest that is none":    {[]byte(`{"schemaVersion":2,"manifests":[{"digest":"sha256:../.."}]}`), "v1", "manifest 0"},
		"a list without end":       {[]byte(`{"schemaVersion":2,"manifests":[` + strings.Repeat("{},", maxManifests) + `{}]}`), "v1", "more than 1000"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Resolve(t.Context(), fixed{data: tt.data}, testRepository, tt.reference)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestResolveAll(t *testing.T) {
	reg := newTestRegistry()
	a, b, c := reg.image(t, "a"), reg.image(t, "b"), reg.image(t, "c")
	inner := reg.index(t, "inner", types.OCIManifestSchema1, b, a)
	middle := reg.index(t, "middle", types.OCIImageIndex, inner)
	outer := reg.index(t, "outer", types.OCIImageIndex, middle, inner)
	tooDeep := reg.index(t, "too-deep", types.OCIImageIndex, outer)

	for name, want := range map[string][]v1.Hash{
		"a":     {a},
		"inner": {inner, b, a},
		"outer": {outer, middle, inner, b, a},
	} {
		got, err := ResolveAll(t.Context(), reg, testRepository, name)
		if err != nil {
			t.Fatal(err)
		}
		var digests []v1.Hash
		for _, desc := range got {
			digests = append(digests, desc.Digest)
			if desc.MediaType == "" || desc.Size == 0 {
				t.Errorf("%s: %+v", name, desc)
			}
		}
		if diff := cmp.Diff(want, digests); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if _, err := ResolveAll(t.Context(), reg, testRepository, tooDeep.String()); err == nil || !strings.Contains(err.Error(), "deeper than 3") {
		t.Errorf("error %v", err)
	}

	sparse := shelf{}
	t.Run("manifests are counted over all levels", func(t *testing.T) {
		digests := func(prefix string) []v1.Hash {
			var hs []v1.Hash
			for i := range maxManifests / 2 {
				hs = append(hs, digestOf(fmt.Append(nil, prefix, i)))
			}
			return hs
		}
		half := sparse.add("", indexManifest(t, types.OCIManifestSchema1, digests("x")...))
		rest := sparse.add("", indexManifest(t, types.OCIManifestSchema1, digests("y")...))
		sparse.add("enough", indexManifest(t, types.OCIImageIndex, half))
		if got, err := ResolveAll(t.Context(), sparse, testRepository, "enough"); err != nil || len(got) != 2+maxManifests/2 {
			t.Errorf("%d manifests, %v", len(got), err)
		}
		sparse.add("many", indexManifest(t, types.OCIImageIndex, half, rest))
		if _, err := ResolveAll(t.Context(), sparse, testRepository, "many"); err == nil || !strings.Contains(err.Error(), "more than 1000") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a child index that is missing is an error, a child image is not fetched", func(t *testing.T) {
		missing := digestOf([]byte("missing"))
		sparse.add("sparse", indexManifest(t, types.OCIManifestSchema1, missing, c))
		if got, err := ResolveAll(t.Context(), sparse, testRepository, "sparse"); err != nil || len(got) != 3 {
			t.Errorf("%v, %v", got, err)
		}
		sparse.add("broken", indexManifest(t, types.OCIImageIndex, missing))
		if _, err := ResolveAll(t.Context(), sparse, testRepository, "broken"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("error %v", err)
		}
	})
}

// shelf holds manifests by tag and digest, also an index whose manifests are
// missing, which a registry would not take.
type shelf map[string][]byte

func (s shelf) add(tag string, data []byte) v1.Hash {
	digest := digestOf(data)
	s[digest.String()], s[tag] = data, data
	return digest
}

func (s shelf) Manifest(_ context.Context, _, reference string) ([]byte, error) {
	if data, ok := s[reference]; ok {
		return data, nil
	}
	return nil, fs.ErrNotExist
}

func (shelf) PutBlob(context.Context, string, v1.Hash, []byte) error { return errors.ErrUnsupported }

func (shelf) PutManifest(context.Context, string, string, types.MediaType, []byte) error {
	return errors.ErrUnsupported
}
