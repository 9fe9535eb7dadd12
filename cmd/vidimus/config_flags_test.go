package main

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"vidimus/policy"
)

func TestFlagsSpellAConfiguration(t *testing.T) {
	inDirectory(t, nil)
	l, err := load(fromFlags(quickFlags{
		Require:     []string{"ghcr.io/me/**=release.pub", "local/app=release.pub,other.pub"},
		AllowRest:   true,
		Upstreams:   []string{"local=http://127.0.0.1:5002"},
		Addr:        "127.0.0.1:0",
		MetricsAddr: optionalText{"", true},
		AdminAddr:   optionalText{"127.0.0.1:5999", true},
		Cache:       "store",
	}), lookupIn(nil), clock)
	if err != nil {
		t.Fatal(err)
	}
	var upstreams []string
	for _, u := range l.Upstreams {
		upstreams = append(upstreams, u.Name+" "+u.Config.URL)
	}
	slices.Sort(upstreams)
	for _, row := range []struct {
		name      string
		got, want any
	}{
		{"upstreams", upstreams, []string{"docker.io https://registry-1.docker.io", "ghcr.io https://ghcr.io", "local http://127.0.0.1:5002"}},
		{"default", l.DefaultUpstream.Value, "docker.io"},
		{"policies", names(l), []string{"ghcr.io/me/**", "local/app", "**"}},
		{"one key", l.Policy.Policies[0].Require, policy.Require{AtLeast: 1, Of: []string{"release.pub"}}},
		{"any of two keys", l.Policy.Policies[1].Require, policy.Require{AtLeast: 1, Of: []string{"release.pub", "other.pub"}}},
		{"the rest", l.Policy.Policies[2].AllowUnverified, true},
		{"authorities", len(l.Policy.Authorities), 2},
		{"address", l.HTTP.Addr.Value, "127.0.0.1:0"},
		{"metrics", l.Metrics.Addr, ""},
		{"admin", l.Admin.Addr, "127.0.0.1:5999"},
		{"cache", l.Cache.Directory.Name, "store"},
	} {
		if diff := cmp.Diff(row.want, row.got, compareAll); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.name, diff)
		}
	}
}

func TestRevisionIDCoversFlags(t *testing.T) {
	inDirectory(t, nil)
	seen := make(map[string]quickFlags)
	for _, q := range []quickFlags{
		{AllowRest: true},
		{Require: []string{"docker.io/a/**=release.pub"}},
		{Require: []string{"docker.io/b/**=release.pub"}},
		{Require: []string{"docker.io/b/**=release.pub"}, AllowRest: true},
		{AllowRest: true, MetricsAddr: optionalText{"", true}},
	} {
		l, err := load(fromFlags(q), lookupIn(nil), clock)
		if err != nil {
			t.Fatal(err)
		}
		if other, taken := seen[l.ID]; taken {
			t.Errorf("%+v and %+v have the same revision", q, other)
		}
		seen[l.ID] = q
	}
}

func TestFlagsLogInAsDockerDoes(t *testing.T) {
	inDirectory(t, nil)
	l, err := load(fromFlags(quickFlags{Require: []string{"ghcr.io/me/**=release.pub"}, DockerLogin: true}), lookupIn(nil), clock)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range l.Upstreams {
		if u.Config.Credentials == nil {
			t.Errorf("%s has no credentials", u.Name)
		}
	}
}

func TestBadFlagsAreNamed(t *testing.T) {
	inDirectory(t, nil)
	for _, row := range []struct {
		flags quickFlags
		want  string
	}{
		{quickFlags{Addr: "127.0.0.1:0"}, "command line: nothing would be served; add --require PATTERN=KEY, or --allow-rest"},
		{quickFlags{AllowRest: true, Addr: "5080"}, `--addr "5080": "5080" is not host:port; write an address like 127.0.0.1:5080`},
		{quickFlags{Require: []string{"ghcr.io/me/**"}}, `--require "ghcr.io/me/**": is not PATTERN=KEY; write it like 'ghcr.io/me/**=cosign.pub'`},
		{quickFlags{Require: []string{"ghcr.io/me/**=nothere.pub"}}, `--require "ghcr.io/me/**=nothere.pub": nothere.pub does not exist; name a PEM file with a public key`},
		{quickFlags{Require: []string{"GHCR.io/me=release.pub"}}, `--require "GHCR.io/me=release.pub": match: match "GHCR.io/me": repositories are in lower case: write ghcr.io/me`},
		{quickFlags{Require: []string{"ghcr.io/**=release.pub", "ghcr.io/me=other.pub"}}, `never decides`},
		{quickFlags{AllowRest: true, Upstreams: []string{"local"}}, `--upstream "local": is not NAME=URL; write it like local=http://127.0.0.1:5000`},
		{quickFlags{AllowRest: true, Upstreams: []string{"local=ftp://x"}}, `--upstream "local=ftp://x": is not an http or https URL`},
		{quickFlags{AllowRest: true, Addr: ":0", DockerLogin: true}, `--addr ":0": is not a loopback address, and there are credentials for docker.io: everyone who reaches the port would read with them; listen on loopback, or write a file for --config that says under auth who may pull, or {anonymousPull: true}`},
		{quickFlags{AllowRest: true, MetricsAddr: optionalText{"5081", true}}, `--metrics-addr "5081": "5081" is not host:port; write an address like 127.0.0.1:5080, or "" to switch it off`},
		{quickFlags{AllowRest: true, AdminAddr: optionalText{":5082", true}}, `--admin-addr ":5082": "" is not a loopback address`},
		{quickFlags{MetricsAddr: optionalText{"", true}}, "command line: nothing would be served; add --require PATTERN=KEY, or --allow-rest"},
		{quickFlags{AllowRest: true, Require: []string{"acme/**=release.pub"}}, `--require "acme/**=release.pub": acme is no registry; write docker.io/acme/**, or name it with --upstream acme=URL`},
		{quickFlags{AllowRest: true, Require: []string{"acme=release.pub"}}, `acme is no registry; write docker.io/library/acme, or name it with --upstream acme=URL`},
		{quickFlags{AllowRest: true, Require: []string{"library/nginx=release.pub"}}, `library is no registry; write docker.io/library/nginx, or name it`},
		{quickFlags{AllowRest: true, Require: []string{"127.0.0.1:5000/me/**=release.pub"}}, `--require "127.0.0.1:5000/me/**=release.pub": 127.0.0.1:5000 is a host with a port, which docker cannot spell behind Vidimus; give it a name: --upstream local=http://127.0.0.1:5000 --require 'local/me/**=KEY'`},
		{quickFlags{AllowRest: true, Require: []string{"localhost:5000/**=release.pub"}}, `give it a name: --upstream local=http://localhost:5000 --require 'local/**=KEY'`},
		{quickFlags{AllowRest: true, Require: []string{"registry.example:8443/me/app=release.pub"}}, `give it a name: --upstream registry.example=https://registry.example:8443 --require 'registry.example/me/app=KEY'`},
		{quickFlags{AllowRest: true, Require: []string{"ac*/web=release.pub"}}, `--require "ac*/web=release.pub"`},
		{quickFlags{AllowRest: true, Require: []string{"ghcr.io/me/**=env://KEY"}}, `--require "ghcr.io/me/**=env://KEY": keys of the environment are not supported in the configuration; write the public key into a file and name that`},
		{quickFlags{AllowRest: true, Require: []string{"ghcr.io/me/**=release.pub,awskms:///alias/x"}}, `keys of awskms are not supported yet; write the public key into a file`},
		{quickFlags{AllowRest: true, Require: []string{"ghcr.io/me/**=release.pub,release.pub"}}, `names release.pub twice`},
	} {
		_, err := load(fromFlags(row.flags), lookupIn(nil), clock)
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%+v:\n got %v\nwant %s", row.flags, err, row.want)
		}
	}
}

func TestWordsThatAreNoRegistryAreUpstreamsWhenNamed(t *testing.T) {
	inDirectory(t, nil)
	for _, row := range []struct {
		flags quickFlags
		want  []string
	}{
		{quickFlags{Require: []string{"acme/**=release.pub"}, Upstreams: []string{"acme=http://127.0.0.1:5002"}}, []string{"docker.io", "acme"}},
		{quickFlags{Require: []string{"localhost/**=release.pub"}}, []string{"docker.io", "localhost"}},
		{quickFlags{Require: []string{"localhost:5000/**=release.pub"}, Upstreams: []string{"localhost:5000=http://localhost:5000"}}, []string{"docker.io", "localhost:5000"}},
		{quickFlags{Require: []string{"docker.io/acme/**=release.pub"}}, []string{"docker.io"}},
		{quickFlags{Require: []string{"*/acme/**=release.pub"}}, []string{"docker.io"}},
	} {
		l, err := load(fromFlags(row.flags), lookupIn(nil), clock)
		if err != nil {
			t.Errorf("%+v: %v", row.flags, err)
			continue
		}
		var got []string
		for _, u := range l.Upstreams {
			got = append(got, u.Name)
		}
		if !slices.Equal(got, row.want) {
			t.Errorf("%+v: upstreams are %v, want %v", row.flags, got, row.want)
		}
	}
}

func TestEmptyAddressOfAFlagIsNotTheDefault(t *testing.T) {
	for _, row := range []struct {
		args []string
		want optionalText
	}{
		{nil, optionalText{}},
		{[]string{"--metrics-addr="}, optionalText{"", true}},
		{[]string{"--metrics-addr", "127.0.0.1:1"}, optionalText{"127.0.0.1:1", true}},
	} {
		var q quickFlags
		flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
		q.add(flags)
		if err := flags.Parse(row.args); err != nil || q.MetricsAddr != row.want || q.given() != row.want.Given {
			t.Errorf("%q: %+v, given %v, %v; want %+v", row.args, q.MetricsAddr, q.given(), err, row.want)
		}
	}
}

func TestConfigurationIsLookedForInOrder(t *testing.T) {
	inDirectory(t, nil)
	if _, err := findConfig("", lookupIn(nil)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file anywhere, and the error is %v", err)
	}
	writeFile(t, "vidimus.yaml", "")
	for _, row := range []struct {
		named, variable, want string
	}{
		{"", "", "vidimus.yaml"},
		{"", "from-env.yaml", "from-env.yaml"},
		{"named.yaml", "from-env.yaml", "named.yaml"},
	} {
		got, err := findConfig(row.named, lookupIn(map[string]string{configVariable: row.variable}))
		if err != nil || got != row.want {
			t.Errorf("--config %q, $%s %q: %q, %v; want %q", row.named, configVariable, row.variable, got, err, row.want)
		}
	}
}

func TestFlagsAndFileExcludeEachOther(t *testing.T) {
	_, err := chooseSource("vidimus.yaml", quickFlags{AllowRest: true}, lookupIn(nil))
	if exit, ok := errors.AsType[*exitError](err); !ok || exit.code != exitMisuse {
		t.Errorf("both are given, and the error is %v", err)
	}
}
