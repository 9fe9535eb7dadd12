package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"vidimus/verifier"
)

const (
	anotherKey = "holds another key, and the configuration does not hold"
	bothConfig = `
version: 1
upstreams: {docker.io: {}}
authorities: {release: {keys: [release.pub]}, other: {keys: [other.pub]}}
policies: [{match: "docker.io/a/**", require: {all: [release, other]}}]
`
)

// wantReason checks what is said of a suspended authority.
func (r *reloading) wantReason(authority, want string) {
	r.Helper()
	if why := r.Status().Suspended[authority]; !strings.Contains(why, want) {
		r.Errorf("%s is suspended because %q, want %q; log:\n%s", authority, why, want, &r.log)
	}
}

// TestSuspendedAuthorityDoesNotComeBackWithTheKeyThatWasRemoved replaces a key
// while the configuration has a fault elsewhere: the running revision has only
// the old one to give.
func TestSuspendedAuthorityDoesNotComeBackWithTheKeyThatWasRemoved(t *testing.T) {
	key := readFixture(t, "release.pub")
	third := readFixture(t, "third.pub")
	reload(t, nil, func(r *reloading) {
		os.Remove("release.pub")
		r.pass(lookEvery)
		r.wantSuspended("release")
		r.wantReason("release", "release.pub does not exist")
		writeFile(r.T, "vidimus.yaml", plainConfig+"unknown: key\n")
		writeFile(r.T, "release.pub", third)
		r.pass(withinPromise)
		r.wantSuspended("release")
		r.wantReason("release", "release.pub "+anotherKey)
		r.pass(time.Minute)
		r.wantSuspended("release")

		writeFile(r.T, "release.pub", key) // the one that runs
		r.pass(withinPromise)
		r.wantSuspended()
		if r.Status().Successful() {
			r.Error("the configuration holds, says the status")
		}
	})
}

// TestKeyThatMakesTheConfigurationInvalidIsNoReturn replaces a key by one that
// another authority of the same require has.
func TestKeyThatMakesTheConfigurationInvalidIsNoReturn(t *testing.T) {
	key, other := readFixture(t, "release.pub"), readFixture(t, "other.pub")
	for name, first := range map[string]func(*reloading){
		"removed before": func(r *reloading) { os.Remove("release.pub"); r.pass(withinPromise); r.wantSuspended("release") },
		"never missing":  func(*reloading) {},
	} {
		t.Run(name, func(t *testing.T) {
			reload(t, map[string]string{"vidimus.yaml": bothConfig}, func(r *reloading) {
				first(r)
				writeFile(r.T, "release.pub", other)
				r.pass(withinPromise)
				r.wantSuspended("release")
				r.wantReason("release", "release.pub "+anotherKey)
				writeFile(r.T, "release.pub", key)
				r.pass(withinPromise)
				r.wantSuspended()
				if !r.Status().Successful() {
					r.Errorf("all is as it was, and the status says: %s", r.Status().Fault)
				}
			})
		})
	}
}

func TestKeyThatIsReplacedUnderAnInvalidConfigurationIsNotTrustedAnyMore(t *testing.T) {
	third := readFixture(t, "third.pub")
	reload(t, nil, func(r *reloading) {
		writeFile(r.T, "vidimus.yaml", "no configuration")
		r.pass(withinPromise)
		r.wantSuspended()
		writeFile(r.T, "release.pub", third)
		r.pass(withinPromise)
		r.wantSuspended("release")
		r.wantReason("release", "release.pub "+anotherKey)

		writeFile(r.T, "vidimus.yaml", plainConfig) // the new key comes with a configuration that holds
		r.pass(withinPromise)
		r.wantSuspended()
		if got, want := r.Revision().Policy.Authorities[0].Keys[0].ID(), keyID(r.T, third); got != want {
			r.Errorf("the key in effect is %s, want the new one, %s", got, want)
		}
	})
}

func TestReasonOfASuspensionFollowsTheFile(t *testing.T) {
	reload(t, nil, func(r *reloading) {
		os.Remove("release.pub")
		r.pass(withinPromise)
		r.wantReason("release", "release.pub does not exist")
		writeFile(r.T, "release.pub", "no key")
		r.pass(withinPromise)
		r.wantReason("release", "release.pub: public key: neither a PEM block")
		os.Remove("release.pub")
		r.pass(withinPromise)
		r.wantReason("release", "release.pub does not exist")
	})
}

func keyID(t *testing.T, text string) string {
	t.Helper()
	key, err := verifier.ParseKey([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return key.ID()
}
