package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestASignerThatCannotSignIsRefused(t *testing.T) {
	const config = `version: 1
http: {addr: '%ADDR%', externalURL: '%URL%'}
upstreams: {local: {url: 'http://127.0.0.1:1'}}
authorities: {release: {keys: [release.pub], signer: {key: %KEY%, passwordFile: %PASSWORD%}}}
policies: [{match: local/**, require: release, push: {sign: release}}]
%AUTH%
`
	for _, test := range []struct {
		name, key, password, addr, url, auth string
		want                                 string // of the fault; empty: none
	}{
		{name: "as it should be"},
		{name: "another password", password: "other.pub", want: "the password does not open"},
		{name: "the key of another", key: "other.key", want: "none of the authority's keys"},
		{name: "a public key", key: "release.pub", want: "name a key file"},
		{name: "for everybody", addr: "0.0.0.0:5080", want: "nobody has to log in"},
		{name: "by another name", url: "https://registry.example", want: "nobody has to log in"},
		{name: "by another name, for whom nobody knows", url: "https://registry.example", want: "let anonymous not push",
			auth: "auth: {access: [{subjects: [anonymous], match: '**', actions: [pull, push]}]}"},
		{name: "by another name, of which nobody unknown pushes", url: "https://registry.example",
			auth: "auth: {htpasswd: htpasswd, access: [{subjects: [anonymous], match: '**', actions: [pull]}, {subjects: [ci], match: '**', actions: [push]}]}"},
		{name: "here, for whom nobody knows", auth: "auth: {access: [{subjects: [anonymous], match: '**', actions: [pull, push]}]}"},
		{name: "for who has logged in", addr: "0.0.0.0:5080", auth: "auth: {htpasswd: htpasswd, access: [{subjects: [ci], match: '**', actions: [push]}]}"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel() // most of them decrypt a key
			fill := func(value, otherwise string) string {
				if value == "" {
					return otherwise
				}
				return value
			}
			dir := t.TempDir()
			text := strings.NewReplacer("%KEY%", fill(test.key, "release.key"), "%PASSWORD%", fill(test.password, "password"),
				"%ADDR%", fill(test.addr, "127.0.0.1:5080"), "%URL%", test.url, "%AUTH%", test.auth).Replace(config)
			if err := pushDirectory(dir, text); err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Join(dir, "htpasswd"), "ci:$2y$05$abcdefghijklmnopqrstuu5s/Nl0oUEkpYcFTUUG3KkXcOqEXs5eq\n")
			l, err := load(fromFile(filepath.Join(dir, "vidimus.yaml")), lookupIn(nil), time.Now())
			if test.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				var summary strings.Builder
				if err := l.summarize(&summary, "vidimus.yaml", time.Now()); err != nil || !strings.Contains(summary.String(), "; pushes signed by release\n") {
					t.Errorf("%v: the summary does not tell of pushes:\n%s", err, &summary)
				}
				if len(l.Signers) != 1 || len(l.Policy.SigningKeys) != 1 {
					t.Errorf("%d signers", len(l.Signers))
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("the error is %v, want %q", err, test.want)
			}
		})
	}
}
