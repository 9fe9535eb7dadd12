package signer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/verifier/envelope"
)

func TestNewRefusesWhatCannotSign(t *testing.T) {
	for name, config := range map[string]Config{
		"nothing":     {},
		"no key":      {Registry: newTestRegistry()},
		"no registry": {Key: mustKey(t)},
	} {
		if _, err := New(config); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestSign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newTestRegistry()
		subject := reg.image(t, "v1")
		key := mustKey(t)
		s := mustSigner(t, Config{Registry: reg, Key: key})
		r := Request{
			Subject: subject, Repository: testRepository, Reference: "reg.test/acme/web",
			Annotations: map[string]string{"env": "prod", "b": "<&>"},
		}
		results, err := s.Sign(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]Result{{Request: r, Tag: "sha256-" + subject.Hex + ".sig", Signatures: 1}}, results); diff != "" {
			t.Error(diff)
		}

		m, first := reg.signatures(t, subject)
		reg.checkConfig(t, m)
		payload := reg.blob(t, m.Layers[0].Digest)
		want := `{"critical":{"identity":{"docker-reference":"reg.test/acme/web"},"image":{"docker-manifest-digest":"` +
			subject.String() + `"},"type":"cosign container image signature"},"optional":{"b":"\u003c\u0026\u003e","env":"prod"}}`
		if diff := cmp.Diff(want, string(payload)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{signatureAnnotation}, sortedKeys(m.Layers[0].Annotations)); diff != "" {
			t.Error(diff)
		}
		if m.MediaType != types.OCIManifestSchema1 || m.Layers[0].MediaType != envelope.MediaTypeSimpleSigning {
			t.Errorf("media types %q, %q", m.MediaType, m.Layers[0].MediaType)
		}

		t.Log("the same again is kept, and nothing is written")
		if results, err = s.Sign(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		_, second := reg.signatures(t, subject)
		if !results[0].Kept || results[0].Signatures != 1 || !bytes.Equal(first, second) {
			t.Errorf("result %+v", results[0])
		}

		t.Log("another payload by the same key, and another key, are added")
		r.Annotations = nil
		if _, err := s.Sign(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if results, err = mustSigner(t, Config{Registry: reg}).Sign(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		m, third := reg.signatures(t, subject)
		if len(m.Layers) != 3 || results[0].Signatures != 3 || results[0].Kept {
			t.Errorf("%d layers, result %+v", len(m.Layers), results[0])
		}
		before, _ := parseSignatureImage(first)
		if !bytes.Contains(third, before.layers[0].raw) {
			t.Error("the first layer's descriptor has changed")
		}
		reg.checkConfig(t, m)
	})
}

func TestSignWithDockerMediaTypes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newTestRegistry()
		subject := reg.image(t, "v1")
		if _, err := mustSigner(t, Config{Registry: reg, DockerMediaTypes: true}).Sign(t.Context(), request(subject)); err != nil {
			t.Fatal(err)
		}
		m, _ := reg.signatures(t, subject)
		if m.MediaType != types.DockerManifestSchema2 || m.Config.MediaType != types.DockerConfigJSON {
			t.Errorf("%q, %q", m.MediaType, m.Config.MediaType)
		}
	})
}

func TestTheTimeOfASignatureImageIsSaidWhenItIsAskedFor(t *testing.T) {
	for _, said := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			reg := newTestRegistry()
			subject := reg.image(t, "v1")
			if _, err := mustSigner(t, Config{Registry: reg, RecordTime: said}).Sign(t.Context(), request(subject)); err != nil {
				t.Fatal(err)
			}
			m, _ := reg.signatures(t, subject)
			reg.checkConfig(t, m)
			config, err := v1.ParseConfigFile(bytes.NewReader(reg.blob(t, m.Config.Digest)))
			if err != nil {
				t.Fatal(err)
			}
			if ago := time.Since(config.Created.Time); said != (ago >= 0 && ago < time.Minute) || !said && !config.Created.IsZero() {
				t.Errorf("asked for %t: created %v", said, config.Created)
			}
		})
	}
}

func TestSignRefuses(t *testing.T) {
	reg := newTestRegistry()
	subject := reg.image(t, "v1")
	s := mustSigner(t, Config{Registry: reg})
	for name, r := range map[string]Request{
		"no subject":                {Repository: testRepository},
		"a subject of no sha256":    {Repository: testRepository, Subject: v1.Hash{Algorithm: "sha512", Hex: strings.Repeat("a", 128)}},
		"a name with a line break":  {Repository: testRepository, Subject: subject, Reference: "a\nb"},
		"names that are read alike": {Repository: testRepository, Subject: subject, Annotations: map[string]string{"k": "1", "K": "2"}},
		"a payload without end":     {Repository: testRepository, Subject: subject, Annotations: map[string]string{"k": strings.Repeat("x", maxPayloadSize)}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := s.Sign(t.Context(), request(subject), r); err == nil {
				t.Error("no error")
			}
			if _, err := reg.Manifest(t.Context(), testRepository, Tag(subject)); err == nil {
				t.Error("the other request was carried out")
			}
		})
	}
	t.Run("a tag that holds an index", func(t *testing.T) {
		other := reg.image(t, "v2")
		reg.index(t, Tag(other), types.OCIManifestSchema1)
		_, err := s.Sign(t.Context(), request(other))
		if err == nil || !strings.Contains(err.Error(), "not a signature image") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a context that has ended", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Sign(ctx, request(subject)); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
}

func TestManySubjectsSettleTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newTestRegistry()
		var requests []Request
		for i := range 50 {
			requests = append(requests, request(reg.image(t, fmt.Sprint("v", i))))
		}
		if _, err := mustSigner(t, Config{Registry: reg}).Sign(t.Context(), requests...); err != nil {
			t.Fatal(err)
		}
		for _, r := range requests {
			if m, _ := reg.signatures(t, r.Subject); len(m.Layers) != 1 {
				t.Errorf("%s has %d signatures", r.Subject, len(m.Layers))
			}
		}
	})
}
