package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/policy"
	"vidimus/verifier/envelope"
)

func TestKeyThatIsGoneSuspendsItsAuthorityAtOnce(t *testing.T) {
	key := readFixture(t, "release.pub")
	reload(t, nil, func(r *reloading) {
		metrics := newReloadMetrics(r.reloader)
		before := r.Revision().ID
		os.Remove("release.pub")
		r.pass(lookEvery)
		r.wantSuspended("release")
		r.wantRevisions(1)
		if r.Revision().ID == before {
			r.Error("decisions of the whole revision count under the one without an authority: they have the same id")
		}
		if got := r.Revision().Proxy.ID; got != r.Revision().ID {
			r.Errorf("the proxy's revision is %s, want %s", got, r.Revision().ID)
		}
		wantMetric(r, metrics, "vidimus_authorities_suspended", 1)
		r.pass(time.Minute) // the configuration, which names a missing file, is no new one
		r.wantRevisions(1)
		if r.Status().Successful() {
			r.Error("the status does not say that the configuration does not hold")
		}

		writeFile(r.T, "release.pub", key)
		r.pass(withinPromise)
		r.wantSuspended()
		r.wantRevisions(2)
		if got := r.Revision().ID; got != before {
			r.Errorf("the files are as they were, and the revision is %s, want %s", got, before)
		}
		wantMetric(r, metrics, "vidimus_authorities_suspended", 0)
	})
}

// strangers is a registry in which every manifest has one signature, by a key
// that nobody here has.
type strangers struct{ payload []byte }

func (s strangers) Manifest(_ context.Context, _, reference string) ([]byte, error) {
	if !strings.HasSuffix(reference, ".sig") {
		return nil, fs.ErrNotExist
	}
	digest, size, err := v1.SHA256(bytes.NewReader(s.payload))
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, `{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": %[1]q, "size": %[2]d},
		"layers": [{"mediaType": "application/vnd.dev.cosign.simplesigning.v1+json", "digest": %[1]q, "size": %[2]d,
			"annotations": {"dev.cosignproject.cosign/signature": "c3RyYW5nZXI="}}]}`, digest, size), nil
}

func (s strangers) Referrers(context.Context, string, v1.Hash) ([]v1.Descriptor, error) {
	return nil, fs.ErrNotExist
}

func (s strangers) Blob(context.Context, string, v1.Descriptor) ([]byte, error) {
	return s.payload, nil
}

// TestSuspendedAuthorityMakesADenialInconclusive asks the gate that the proxy
// asks, before and after the key has gone.
func TestSuspendedAuthorityMakesADenialInconclusive(t *testing.T) {
	image := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}
	payload, err := envelope.EncodePayload(envelope.Payload{Form: envelope.Modern, Digest: image.String()})
	if err != nil {
		t.Fatal(err)
	}
	reload(t, nil, func(r *reloading) {
		want := func(repository string, inconclusive bool) {
			r.Helper()
			d, err := r.Revision().Gate.Evaluate(r.Context(), strangers{payload}, policy.Subject{Repository: repository, Digest: image})
			if d.Allowed || (err != nil) != inconclusive {
				r.Errorf("%s: allowed %v, reason %s, error %v; want it inconclusive: %v", repository, d.Allowed, d.Reason, err, inconclusive)
			}
		}
		want("docker.io/a/x", false)
		os.Remove("release.pub")
		r.pass(lookEvery)
		want("docker.io/a/x", true)
		want("docker.io/b/x", false)
	})
}

func TestKeyThatCannotBeUsedSuspendsItsAuthority(t *testing.T) {
	for name, spoil := range map[string]func(*testing.T){
		"garbage":                func(t *testing.T) { writeFile(t, "release.pub", "no key") },
		"empty":                  func(t *testing.T) { writeFile(t, "release.pub", "") },
		"a directory":            func(t *testing.T) { os.Remove("release.pub"); os.Mkdir("release.pub", 0o700) },
		"a link to nothing":      func(t *testing.T) { os.Remove("release.pub"); link(t, "nothing", "release.pub") },
		"a link to itself":       func(t *testing.T) { os.Remove("release.pub"); link(t, "release.pub", "release.pub") },
		"larger than any key is": func(t *testing.T) { os.Truncate("release.pub", 2<<20) },
	} {
		t.Run(name, func(t *testing.T) {
			key := readFixture(t, "release.pub")
			reload(t, nil, func(r *reloading) {
				spoil(r.T)
				r.pass(withinPromise)
				r.wantSuspended("release")
				os.RemoveAll("release.pub")
				writeFile(r.T, "release.pub", key)
				r.pass(withinPromise)
				r.wantSuspended()
			})
		})
	}
}

func TestSuspensionDoesNotWaitForAValidConfiguration(t *testing.T) {
	key := readFixture(t, "other.pub")
	reload(t, nil, func(r *reloading) {
		writeFile(r.T, "vidimus.yaml", "no configuration")
		r.pass(withinPromise)
		r.wantRevisions(0)
		os.Remove("other.pub")
		r.pass(lookEvery)
		r.wantSuspended("other")
		r.wantMatches("docker.io/a/**", "docker.io/b/**")

		writeFile(r.T, "other.pub", key) // heals, though the configuration does not
		r.pass(withinPromise)
		r.wantSuspended()
		if r.Status().Successful() {
			r.Error("the configuration holds, says the status")
		}
		writeFile(r.T, "vidimus.yaml", changedConfig)
		r.pass(withinPromise)
		r.wantMatches("docker.io/acme/changed")
	})
}

func TestKeyOfANewConfigurationThatIsMissingSuspendsNothing(t *testing.T) {
	reload(t, nil, func(r *reloading) {
		writeFile(r.T, "vidimus.yaml", plainConfig+"include: [more.yaml]\n")
		writeFile(r.T, "more.yaml", "authorities: {third: {keys: [third.pub]}}\n")
		r.pass(withinPromise)
		r.wantRevisions(0)
		r.wantSuspended()
		writeFile(r.T, "third.pub", mustReadFile(r.T, "other.pub"))
		r.pass(withinPromise)
		r.wantRevisions(1)
	})
}

func TestKeyThatIsReplacedTakesEffect(t *testing.T) {
	reload(t, map[string]string{"vidimus.yaml": "version: 1\nupstreams: {docker.io: {}}\nauthorities: {release: {keys: [release.pub]}}\n"}, func(r *reloading) {
		before := r.Revision().Policy.Authorities[0].Keys[0].ID()
		if err := os.Rename("other.pub", "release.pub"); err != nil {
			r.Fatal(err)
		}
		r.pass(withinPromise)
		r.wantRevisions(1)
		if r.Revision().Policy.Authorities[0].Keys[0].ID() == before {
			r.Error("the old key is still in effect")
		}
	})
}

func TestReloadHealsASuspension(t *testing.T) {
	key := readFixture(t, "release.pub")
	reload(t, nil, func(r *reloading) {
		os.Remove("release.pub")
		r.Reload()
		synctest.Wait()
		r.wantSuspended("release")
		writeFile(r.T, "release.pub", key)
		r.Reload()
		synctest.Wait()
		r.wantSuspended()
	})
}
