package store

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func numbered(n int) v1.Hash { return digestOf([]byte{byte(n), byte(n >> 8)}) }

func testTags(t *testing.T, s *Store) {
	ctx := t.Context()
	noon := time.Date(2026, 11, 22, 12, 0, 0, 5, time.FixedZone("", 3600))
	if _, _, err := s.Tag(ctx, "a/b", "v1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("unknown tag: %v", err)
	}
	for i, tag := range []string{"v1", "v2", "v1"} {
		if err := s.SetTag(ctx, "a/b", tag, numbered(i), noon.Add(time.Duration(i))); err != nil {
			t.Fatal(err)
		}
	}
	for tag, i := range map[string]int{"v1": 2, "v2": 1} {
		digest, confirmed, err := s.Tag(ctx, "a/b", tag)
		if err != nil || digest != numbered(i) || !confirmed.Equal(noon.Add(time.Duration(i))) {
			t.Errorf("%s: %v, %v, %v", tag, digest, confirmed, err)
		}
	}
	if _, _, err := s.Tag(ctx, "a/bv", "1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("tag of another repository: %v", err)
	}
	if err := s.SetTag(ctx, "a/b", "v1", v1.Hash{}, noon); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Tag(ctx, "a/b", "v1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("forgotten tag: %v", err)
	}
}

func known(t *testing.T, s *Store, repository string, digest v1.Hash) (bool, []v1.Hash) {
	t.Helper()
	delivered, parents, err := s.Known(t.Context(), repository, digest)
	if err != nil {
		t.Fatal(err)
	}
	return delivered, parents
}

func testDelivered(t *testing.T, s *Store) {
	ctx := t.Context()
	if err := s.Delivered(ctx, "a/b", numbered(1)); err != nil {
		t.Fatal(err)
	}
	if err := s.Delivered(ctx, "a/c", numbered(2), numbered(3)); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		repository string
		digest     int
		want       bool
	}{
		{"a/b", 1, true}, {"a/c", 1, false}, {"a", 1, false}, {"a/b/c", 1, false},
		{"a/b", 2, false}, {"a/c", 2, true},
		{"a/c", 3, false}, // a manifest references it; that is no delivery
	} {
		if got, _ := known(t, s, row.repository, numbered(row.digest)); got != row.want {
			t.Errorf("%s delivered %d: %v", row.repository, row.digest, got)
		}
	}
}

func testParents(t *testing.T, s *Store) {
	ctx := t.Context()
	child := numbered(1000)
	if _, parents := known(t, s, "a/b", child); len(parents) != 0 {
		t.Errorf("parents of the unknown: %v", parents)
	}
	for i := range MaxParents + 8 {
		if err := s.Delivered(ctx, "a/b", numbered(i), numbered(2000), child); err != nil {
			t.Fatal(err)
		}
	}
	// One that is there already comes to the front, once.
	if err := s.Delivered(ctx, "a/b", numbered(20), child); err != nil {
		t.Fatal(err)
	}
	want := []v1.Hash{numbered(20)}
	for i := MaxParents + 7; len(want) < MaxParents; i-- {
		if i != 20 {
			want = append(want, numbered(i))
		}
	}
	_, parents := known(t, s, "a/b", child)
	if diff := cmp.Diff(want, parents); diff != "" {
		t.Errorf("parents (-want +got):\n%s", diff)
	}
	if _, parents := known(t, s, "a/c", child); len(parents) != 0 {
		t.Errorf("parents in another repository: %v", parents)
	}
}

func testRepositories(t *testing.T, s *Store) {
	ctx := t.Context()
	for _, name := range []string{"ghcr.io/b", "docker.io/library/a", "ghcr.io/a", "ghcr.io/a", "zot"} {
		if err := s.Delivered(ctx, name, numbered(1), numbered(2)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Delivered(ctx, "only/delivered", numbered(1)); err != nil {
		t.Fatal(err)
	}
	all := []string{"docker.io/library/a", "ghcr.io/a", "ghcr.io/b", "zot"}
	for _, row := range []struct {
		n    int
		last string
		want []string
	}{
		{100, "", all}, {4, "", all}, {2, "", all[:2]}, {2, "ghcr.io/a", all[2:]}, {1, "ghcr", all[1:2]},
		{100, "zot", nil}, {0, "", nil}, {-1, "", nil},
	} {
		got, err := s.Repositories(ctx, row.n, row.last)
		if err != nil || !cmp.Equal(append([]string{}, got...), append([]string{}, row.want...)) {
			t.Errorf("%d after %q: %q, %v; want %q", row.n, row.last, got, err, row.want)
		}
	}
}

func testNames(t *testing.T, s *Store) {
	ctx := t.Context()
	for _, row := range []struct{ repository, tag string }{
		{"", "v1"}, {"a/b", ""}, {"a\x00b", "v1"}, {strings.Repeat("a", MaxName+1), "v1"},
		{"a/b", strings.Repeat("a", MaxName+1)},
	} {
		if err := s.SetTag(ctx, row.repository, row.tag, numbered(1), time.Now()); err == nil {
			t.Errorf("%.20q %.20q was remembered", row.repository, row.tag)
		}
		if _, _, err := s.Tag(ctx, row.repository, row.tag); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%.20q %.20q: %v", row.repository, row.tag, err)
		}
	}
	if err := s.SetTag(ctx, "a/b", "v1", v1.Hash{Algorithm: "md5", Hex: "00"}, time.Now()); err == nil {
		t.Error("a tag may mean what is no digest")
	}
}
