package signer

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/verifier/envelope"
)

// layerOf is an addition of one layer of its own.
func layerOf(t *testing.T, subject v1.Hash, what string) Addition {
	t.Helper()
	raw, blob, err := Layer(envelope.MediaTypeDSSE, map[string]string{signatureAnnotation: "", "predicateType": "x"}, []byte(what))
	if err != nil {
		t.Fatal(err)
	}
	return Addition{
		Repository: testRepository, Tag: subject.Algorithm + "-" + subject.Hex + ".att",
		Descriptors: []json.RawMessage{raw}, Blobs: []Blob{blob},
	}
}

// imageWith is an image of just what an addition is of.
func imageWith(t *testing.T, a Addition) document {
	t.Helper()
	a.Exact = nil
	add, err := new(Signer).descriptors(a)
	if err != nil {
		t.Fatal(err)
	}
	d, err := add.read(nil)
	if err == nil {
		d, err = add.to(d)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestAdditionsOfManyWritersAllStayOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newTestRegistry()
		subject := reg.image(t, "v1")
		const writers = 12
		var all sync.WaitGroup
		for i := range writers {
			all.Go(func() {
				a := layerOf(t, subject, fmt.Sprint("envelope ", i%(writers/2))) // everyone's twice
				if _, err := Add(t.Context(), Config{Registry: reg}, a); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		raw, err := reg.Manifest(t.Context(), testRepository, layerOf(t, subject, "").Tag)
		if err != nil {
			t.Fatal(err)
		}
		img, err := parseSignatureImage(raw)
		if err != nil || len(img.layers) != writers/2 {
			t.Fatalf("%d layers, want %d: %v\n%s", len(img.layers), writers/2, err, raw)
		}
		added, err := Add(t.Context(), Config{Registry: reg}, layerOf(t, subject, "envelope 3"))
		if err != nil || !added[0].Kept || added[0].Count != writers/2 {
			t.Errorf("again: %+v, %v", added, err)
		}
	})
}

func TestAnExactImageIsWrittenToTheByteOnceAndMergedElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newTestRegistry()
		subject := reg.image(t, "v1")
		a := layerOf(t, subject, "theirs")
		exact, config, err := imageWith(t, a).encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := reg.PutBlob(t.Context(), testRepository, digestOf(config), config); err != nil {
			t.Fatal(err)
		}
		a.Exact = []byte(strings.Replace(string(exact), "{", "{ ", 1))
		read := func() string {
			raw, err := reg.Manifest(t.Context(), testRepository, a.Tag)
			if err != nil {
				t.Fatal(err)
			}
			return string(raw)
		}
		if _, err := Add(t.Context(), Config{Registry: reg}, a); err != nil {
			t.Fatal(err)
		}
		if got := read(); got != string(a.Exact) {
			t.Errorf("written as %s, want %s", got, a.Exact)
		}
		other := layerOf(t, subject, "ours")
		if _, err := Add(t.Context(), Config{Registry: reg}, other, a); err != nil {
			t.Fatal(err)
		}
		img, err := parseSignatureImage([]byte(read()))
		if err != nil || len(img.layers) != 2 {
			t.Errorf("%d layers, want both: %v", len(img.layers), err)
		}
	})
}

func TestAListOfReferrersKeepsWhatItLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newTestRegistry()
		subject, other := reg.image(t, "v1"), digestOf([]byte("other"))
		tag := subject.Algorithm + "-" + subject.Hex
		theirs := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"x":1,"digest":%q}],"annotations":{"a":"b"}}`, types.OCIImageIndex, other)
		if _, err := reg.PutManifest(t.Context(), testRepository, tag, types.OCIImageIndex, []byte(theirs)); err != nil {
			t.Fatal(err)
		}
		raw := json.RawMessage(fmt.Sprintf(`{"mediaType":%q,"size":7,"digest":%q}`, types.OCIManifestSchema1, subject))
		a := Addition{Repository: testRepository, Tag: tag, List: true, Descriptors: []json.RawMessage{raw}}
		if _, err := Add(t.Context(), Config{Registry: reg}, a); err != nil {
			t.Fatal(err)
		}
		got, err := reg.Manifest(t.Context(), testRepository, tag)
		if err != nil || !strings.Contains(string(got), `{"x":1,"digest":"`+other.String()+`"},{"mediaType"`) || !strings.Contains(string(got), `"annotations":{"a":"b"}`) {
			t.Errorf("%s, %v", got, err)
		}
		a.Tag = "v1" // an image
		if _, err := Add(t.Context(), Config{Registry: reg}, a); err == nil || !strings.Contains(err.Error(), "not an index of referrers that could be added to") {
			t.Errorf("an image was added to: %v", err)
		}
	})
}

func TestWhatWasAddedAndOverwrittenIsAddedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newTestRegistry()
		subject := reg.image(t, "v1")
		a, other := layerOf(t, subject, "ours"), layerOf(t, subject, "theirs")
		done := false
		reg.after = func(method, path string) error {
			if done || method != http.MethodPut || !strings.HasSuffix(path, a.Tag) {
				return nil
			}
			done = true // another writer, which read before we wrote
			manifest, _, err := imageWith(t, other).encode()
			if err != nil {
				return err
			}
			_, err = reg.PutManifest(t.Context(), testRepository, a.Tag, types.OCIManifestSchema1, manifest)
			return err
		}
		if _, err := Add(t.Context(), Config{Registry: reg}, a); err != nil {
			t.Fatal(err)
		}
		raw, err := reg.Manifest(t.Context(), testRepository, a.Tag)
		if err != nil {
			t.Fatal(err)
		}
		if img, err := parseSignatureImage(raw); err != nil || len(img.layers) != 2 {
			t.Errorf("%d layers, want both: %v", len(img.layers), err)
		}
	})
}

// ECDSA signs the same payload otherwise each time: it is told by the key, not by the
// bytes of the signature.
func TestAPayloadThatOurKeySignedIsNotAddedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newTestRegistry()
		subject := reg.image(t, "v1")
		ours, theirs := testKeys(t)["P-256"], testKeys(t)["P-384"]
		signed := func(key crypto.Signer, payload string) Addition {
			signature, err := SignPayload(key, []byte(payload))
			if err != nil {
				t.Fatal(err)
			}
			raw, blob, err := Layer(envelope.MediaTypeSimpleSigning,
				map[string]string{signatureAnnotation: base64.StdEncoding.EncodeToString(signature)}, []byte(payload))
			if err != nil {
				t.Fatal(err)
			}
			return Addition{
				Repository: testRepository, Tag: Tag(subject),
				Descriptors: []json.RawMessage{raw}, Blobs: []Blob{blob},
			}
		}
		for _, row := range []struct {
			what      string
			known, by crypto.Signer
			payload   string
			kept      bool
			count     int
		}{
			{what: "first", known: ours, by: ours, payload: "a", count: 1},
			{what: "again", known: ours, by: ours, payload: "a", kept: true, count: 1},
			{what: "another payload", known: ours, by: ours, payload: "b", count: 2},
			{what: "another key", known: theirs, by: theirs, payload: "a", count: 3},
			{what: "nobody says whose it is", by: ours, payload: "a", count: 4},
		} {
			added, err := Add(t.Context(), Config{Registry: reg, Key: row.known}, signed(row.by, row.payload))
			if err != nil || added[0].Kept != row.kept || added[0].Count != row.count {
				t.Errorf("%s: %+v, %v; want kept %v and %d", row.what, added, err, row.kept, row.count)
			}
		}
	})
}
