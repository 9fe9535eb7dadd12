package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"vidimus/e2e/lying"
)

// within fails the test when a request is not answered within a time that no honest
// one needs.
func (p *pushing) within(method, path, mediaType string, body []byte) int {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, p.url+path, bytes.NewReader(body))
	if err != nil {
		p.Fatal(err)
	}
	request.Header.Set("Content-Type", mediaType)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		p.Fatalf("%s %s: %v", method, path, err)
	}
	response.Body.Close()
	return response.StatusCode
}

// A list of referrers that refers to a subject itself would have to be listed under
// the tag that it is being put under, for which it would wait for itself.
func TestAListOfReferrersThatRefersToSomethingIsAnImage(t *testing.T) {
	t.Parallel()
	up := lying.Start(t)
	up.WithoutReferrers()
	p := newPushing(t, up)
	image := lying.Image("subject")
	p.created(p.image("local/acme/web", image, "v1"))
	for _, subject := range []lying.Content{image, lying.Image("another subject")} {
		var fields map[string]any
		if err := json.Unmarshal(lying.IndexOf().Body, &fields); err != nil {
			t.Fatal(err)
		}
		fields["subject"] = subject.Descriptor()
		list := lying.RawManifest(lying.IndexOf().MediaType, lying.Encode(fields))
		unlisted := lying.Image("unlisted " + subject.Digest().Hex)
		p.within("PUT", "/v2/local/acme/web/manifests/"+lying.FallbackTag(subject.Digest()), list.MediaType, list.Body)
		if status := p.within("PUT", "/v2/local/acme/web/manifests/"+lying.FallbackTag(unlisted.Digest()), list.MediaType, list.Body); status != http.StatusCreated {
			t.Errorf("where no list is, it is put with %d", status)
		}
		if n := len(p.signatures("acme/web", list.Digest())); n != 1 {
			t.Errorf("it is put with %d signatures", n)
		}
	}
	if status := p.within("PUT", "/v2/local/acme/web/manifests/v2", image.MediaType, image.Body); status != http.StatusCreated {
		t.Errorf("the subject is put with %d afterwards", status)
	}
}
