package proxy

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	"vidimus/verifier"
)

// A manifest of a few MiB takes no hundreds of them to be read: not one with so many
// entries that they cannot all be descriptors.
func TestB13AManifestOfNothingButEntriesIsRefusedBeforeItTakesMemory(t *testing.T) {
	const config = `"config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}`
	for _, entry := range []string{`{}`, `1`, `""`, `[]`, `{"a":1}`} {
		for _, begin := range []string{`{"schemaVersion":2,` + config + `,"layers":[`, `{"schemaVersion":2,"manifests":[`} {
			if entry != `{}` && strings.HasSuffix(begin, `"manifests":[`) {
				continue // each takes seconds under the race detector, and both lists are looked at alike
			}
			manifest := []byte(begin + strings.Repeat(entry+",", (verifier.MaxManifestSize-len(begin)-len(entry)-2)/(len(entry)+1)) + entry + `]}`)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			m, err := parseManifest(manifest, "")
			runtime.ReadMemStats(&after)
			if !errors.Is(err, errMismatch) {
				t.Errorf("%s...: it is %v, %v", begin, m, err)
			}
			if took := after.TotalAlloc - before.TotalAlloc; took > 64<<20 {
				t.Errorf("%s%s...: it takes %d MiB", begin, entry, took>>20)
			}
		}
	}
	empty := []byte(`{"schemaVersion":2,` + config + `,"layers":[]}`)
	if _, err := parseManifest(empty, ""); err != nil {
		t.Errorf("no layers at all: %v", err)
	}
	short := []byte(`{"schemaVersion":2,"manifests":[` + strings.Repeat(`{"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},`, 1000) + `{"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}]}`)
	if _, err := parseManifest(short, ""); err != nil {
		t.Errorf("the shortest descriptors: %v", err)
	}
}
