package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/vbauerster/mpb/v8"
)

func TestTheFirstCosignsSpellings(t *testing.T) {
	for _, row := range []struct{ typed, meant string }{
		{"sign -key k img", "sign --key k img"},
		{"sign -key=k img", "sign --key=k img"},
		{"verify -key k -output json img", "verify --key k --output json img"},
		{"attach signature -signature s -payload p img", "attach signature --signature s --payload p img"},
		{"upload -signature s img", "upload --signature s img"},
		{"sign -kms awskms:///k -f img", "sign --kms awskms:///k -f img"}, // which --key takes now
		{"verify-blob -cert c -signature s f", "verify-blob --cert c --signature s f"},
		{"sign -a -key img", "sign -a -key img"},               // the value of -a
		{"sign --payload -key img", "sign --payload -key img"}, // the value of --payload
		{"sign -ry img", "sign -ry img"},                       // two short ones
		{"sign -upload=false -- -key img", "sign --upload=false -- -key img"},
		{"sign -no-such img", "sign -no-such img"},
		{"copy -f a b", "copy -f a b"},
		{"client-config -key k img", "client-config -key k img"}, // its flags are not known
		{"-key k", "-key k"},
		{"", ""},
	} {
		got := modernSpelling(newRootCommand(), strings.Fields(row.typed))
		if !slices.Equal(got, strings.Fields(row.meant)) {
			t.Errorf("%q is read as %q, want %q", row.typed, got, row.meant)
		}
	}
}

func TestProgressIsForTerminals(t *testing.T) {
	var nobody bytes.Buffer
	progress, end := progressBar(&nobody, "acme/web", byteCounters())
	end()
	if progress != nil || nobody.Len() > 0 {
		t.Errorf("written to what is no terminal: %q", &nobody)
	}
	var shown bytes.Buffer
	progress, end = drawBar(&shown, "acme/web", byteCounters(), mpb.WithAutoRefresh())
	progress(1024, 4096)
	progress(4096, 4096)
	end()
	if !strings.Contains(shown.String(), "acme/web") || !strings.Contains(shown.String(), "4.0 KiB / 4.0 KiB") {
		t.Errorf("shown: %q", &shown)
	}
}
