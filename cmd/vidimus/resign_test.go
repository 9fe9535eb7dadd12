package main

import (
	"crypto"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/cobra"

	"vidimus/signer"
	"vidimus/verifier"
)

// A write to a tag is watched for a second. All that an image is signed with is written
// and watched in one go.
func TestResigningAnImageIsWatchedOnce(t *testing.T) {
	isolate(t)
	synctest.Test(t, func(t *testing.T) {
		o, old, next := newOffline(), generateKey(t), generateKey(t)
		o.image(t, "source.test/acme/web:v1")
		for _, env := range []string{"dev", "test", "prod"} {
			f := new(signFlags)
			f.base = o
			cmd, formats := new(cobra.Command), []signer.Format{signer.FormatTag, signer.FormatBundle}
			cmd.SetOut(t.Output())
			cmd.SetErr(t.Output())
			if err := f.sign(t.Context(), cmd, signedBy{key: old}, formats, ref(t, "source.test/acme/web:v1"), map[string]string{"env": env}); err != nil {
				t.Fatal(err)
			}
		}
		keys := make([]verifier.Key, 2)
		for i, key := range []crypto.Signer{old, next} {
			var err error
			if keys[i], err = verifier.NewKey(key.Public()); err != nil {
				t.Fatal(err)
			}
		}
		flags, cmd := new(resignFlags), new(cobra.Command)
		flags.base = o
		cmd.SetErr(t.Output())
		resign := func() (resigned, time.Duration) {
			t.Helper()
			begun := time.Now()
			r := resigning{flags: flags, cmd: cmd, key: next, old: keys[0], new: keys[1]}
			sum, err := r.repository(t.Context(), ref(t, "source.test/acme/web:v1").Context())
			if err != nil {
				t.Fatal(err)
			}
			return sum, time.Since(begun)
		}
		sum, took := resign()
		if want := (resigned{Repository: "source.test/acme/web", Images: 1, Signed: 6}); sum != want {
			t.Errorf("%+v, want %+v", sum, want)
		}
		if took >= 2*signer.SettleFloor {
			t.Errorf("it took %v", took)
		}
		if sum, _ := resign(); sum.Already != 6 || sum.Signed != 0 {
			t.Errorf("again: %+v", sum)
		}
	})
}
