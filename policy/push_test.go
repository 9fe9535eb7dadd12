package policy

import (
	"strings"
	"testing"
	"time"
)

// What a key signs that signs pushes counts only where it says that it was signed:
// who may push into one repository must not vouch for what is in another.
func TestAKeyThatSignsPushesVouchesForTheNamedRepositoryAlone(t *testing.T) {
	const elsewhere = "release @ghcr.io/other/web"
	for _, test := range []struct {
		name      string
		as        SignedAs
		signs     string // whose key signs pushes
		signature string
		reason    string
	}{
		{"the name, ifPresent", IfPresent, "release", "release", ""},
		{"the name, ignored", Ignore, "release", "release", ""},
		{"no name, ifPresent", IfPresent, "release", "release @", ReasonIdentityMismatch},
		{"no name, ignored", Ignore, "release", "release @", ReasonIdentityMismatch},
		{"another name, ifPresent", IfPresent, "release", elsewhere, ReasonIdentityMismatch},
		{"another name, ignored", Ignore, "release", elsewhere, ReasonIdentityMismatch},
		{"no name, by a key that signs no pushes", IfPresent, "dev", "release @", ""},
		{"another name, ignored, by a key that signs no pushes", Ignore, "dev", elsewhere, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.sign(web, test.signature)
			signs := w.key(test.signs)
			e := w.evaluator(Config{
				SigningKeys: []string{signs.ID()},
				Policies:    []Policy{{Match: mustMatch(t, "**"), Require: one("release"), SignedAs: test.as}},
			}, Options{})
			d := Decision{}
			if test.reason == "" {
				d = allow(t, e, w, subject())
			} else {
				d = deny(t, e, w, subject(), test.reason)
			}
			// and the record tells the same of it
			for _, piece := range d.Pieces() {
				if counts := len(piece.Counts) > 0; counts != (test.reason == "") {
					t.Errorf("the record says that it counts for %v", piece.Counts)
				}
			}
		})
	}
}

func TestPushIsChecked(t *testing.T) {
	all := mustMatch(t, "**")
	for _, test := range []struct {
		name   string
		policy Policy
		want   string // of the one fault; empty: none
	}{
		{"unsigned", Policy{AllowUnverified: true, Push: &Push{}}, ""},
		{"signed", Policy{Require: one("release"), Push: &Push{Sign: "release", Recursive: true}}, ""},
		{"signed where nothing is verified", Policy{AllowUnverified: true, Push: &Push{Sign: "release"}}, ""},
		{"by nobody known", Policy{Require: one("release"), Push: &Push{Sign: "relaese"}}, "push.sign names relaese, which is no authority"},
		{"where nobody may pull", Policy{Deny: "no", Push: &Push{}}, "push and deny"},
		{"unsigned, with annotations", Policy{AllowUnverified: true, Push: &Push{Annotations: map[string]string{"a": "b"}}}, "only sign reads"},
		{"with an annotation of Vidimus's own", Policy{AllowUnverified: true, Push: &Push{Sign: "release", Annotations: map[string]string{"vidimus.dev/pusher": "me"}}}, "begin with vidimus.dev/"},
		{"where a time must be proven", Policy{Require: one("release"), MaxAge: time.Hour, Push: &Push{Sign: "release"}}, "proven time"},
		{"without an annotation that is wanted", Policy{Require: one("release"), Annotations: map[string]string{"env": "prod"}, Push: &Push{Sign: "release"}}, "push.annotations"},
		{"with the annotation that is wanted", Policy{Require: one("release"), Annotations: map[string]string{"env": "prod"}, Push: &Push{Sign: "release", Annotations: map[string]string{"env": "prod"}}}, ""},
		{"without an annotation that others sign", Policy{Require: one("ci"), Annotations: map[string]string{"env": "prod"}, Push: &Push{Sign: "release"}}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.policy.Match = all
			set, err := New(Config{Authorities: newWorld(t).authorities(), Policies: []Policy{test.policy}})
			if test.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if got := set.Scope(web).Push; got == nil || got.Sign != test.policy.Push.Sign {
					t.Errorf("the scope says %v", got)
				}
				return
			}
			// beside it may stand that nothing can prove a time at all
			if list := faults(t, err); len(list) > 2 || len(list) == 0 || !strings.Contains(list[0].Message, test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}
