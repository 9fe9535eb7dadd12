package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/e2e/lying"
)

// textAbout is a referrer that is no signature.
func textAbout(subject lying.Content, text string) lying.Content {
	return lying.Artifact("text/plain", subject.Descriptor(), lying.Layer{MediaType: "text/plain", Data: []byte(text)})
}

// listed returns what the upstream has on the list of referrers under the fallback tag.
func (p *pushing) listed(repository string, subject v1.Hash) []string {
	p.Helper()
	body, _, ok := p.up.Manifest(repository, lying.FallbackTag(subject))
	if !ok {
		return nil
	}
	var list v1.IndexManifest
	if err := json.Unmarshal(body, &list); err != nil {
		p.Fatalf("the list is %s: %v", body, err)
	}
	digests := make(map[string]bool)
	for _, desc := range list.Manifests {
		digests[desc.Digest.String()] = true
	}
	return slices.Sorted(maps.Keys(digests))
}

func sortedDigests(all ...lying.Content) []string {
	var digests []string
	for _, content := range all {
		digests = append(digests, content.Digest().String())
	}
	return slices.Sorted(slices.Values(digests))
}

// Whenever another writes the list of referrers while one is taken off it, what the other
// added is there at the end, and what was deleted is not.
func TestTakingAReferrerOffItsListLosesNoOther(t *testing.T) {
	t.Parallel()
	image := lying.Image("web")
	one, two, three := textAbout(image, "one"), textAbout(image, "two"), textAbout(image, "three")
	tag := lying.FallbackTag(image.Digest())
	reads, writes := lying.Manifest("open/web", tag).GET(), lying.Manifest("open/web", tag).Method("PUT")
	theirs := lying.IndexOf(one.Descriptor(), two.Descriptor(), three.Descriptor()) // who wrote it had read it before
	for _, compares := range []bool{true, false} {
		steps, refused := 1, 0
		for step := 0; step < steps; step++ { // at the last read it was seen to have stayed
			up := lying.Start(t)
			up.WithoutReferrers()
			if compares {
				up.Compares()
			}
			p := newPushing(t, up)
			up.Push("open/web", image, "v1")
			for _, referrer := range []lying.Content{one, two, three} {
				up.Push("open/web", referrer)
			}
			up.Push("open/web", lying.IndexOf(one.Descriptor(), two.Descriptor()), tag)
			if step > 0 {
				up.Lie(reads.Nth(step), lying.Before(func(context.Context) { up.Push("open/web", theirs, tag) }))
			}
			if response, text := p.do("DELETE", "/v2/local/open/web/manifests/"+one.Digest().String(), nil, nil); response.StatusCode != http.StatusAccepted {
				t.Fatalf("%d %s", response.StatusCode, text)
			}
			want := sortedDigests(two, three)
			switch {
			case step == 0:
				want, steps = sortedDigests(two), len(up.Requests(reads))
			case step == 1 && !compares: // between a read and the write that follows it nothing is promised
				want = sortedDigests(two)
			}
			if got := p.listed("open/web", image.Digest()); !slices.Equal(got, want) {
				t.Errorf("compares %v, at read %d: listed %q, want %q", compares, step, got, want)
			}
			if _, _, ok := up.Manifest("open/web", one.Digest().String()); ok {
				t.Errorf("compares %v, at read %d: it is not deleted", compares, step)
			}
			for _, q := range up.Requests(writes) {
				if q.Header.Get("If-Match")+q.Header.Get("If-None-Match") == "" {
					t.Errorf("at read %d a write asks for nothing: %v", step, q.Header)
				}
				if q.Status == http.StatusPreconditionFailed {
					refused++
				}
			}
		}
		if steps < 3 || compares && refused == 0 {
			t.Errorf("%d reads, %d writes were refused", steps, refused)
		}
	}
}

// Two replicas, which share nothing but the upstream, add and delete referrers at once.
func TestReferrersComeAndGoAtTwoReplicas(t *testing.T) {
	t.Parallel()
	const each = 6
	up := lying.Start(t)
	up.WithoutReferrers()
	up.Compares()
	replicas := []*pushing{newPushing(t, up), newPushing(t, up)}
	image := lying.Image("web")
	replicas[0].created(replicas[0].image("local/open/web", image, "v1"))
	var gone, stays, come []lying.Content
	for i := range each {
		gone = append(gone, textAbout(image, fmt.Sprint("gone ", i)))
		stays = append(stays, textAbout(image, fmt.Sprint("stays ", i)))
		come = append(come, textAbout(image, fmt.Sprint("comes ", i)))
	}
	for _, content := range slices.Concat(gone, stays) {
		up.Push("open/web", content)
	}
	var held []v1.Descriptor
	for _, content := range slices.Concat(gone, stays) {
		held = append(held, content.Descriptor())
	}
	up.Push("open/web", lying.IndexOf(held...), lying.FallbackTag(image.Digest()))
	var group sync.WaitGroup
	for i := range each {
		group.Go(func() {
			p := replicas[i%2]
			if response, text := p.do("DELETE", "/v2/local/open/web/manifests/"+gone[i].Digest().String(), nil, nil); response.StatusCode != http.StatusAccepted {
				t.Errorf("%d %s", response.StatusCode, text)
			}
		})
		group.Go(func() {
			p := replicas[(i+1)%2]
			p.created(p.image("local/open/web", come[i], come[i].Digest().String()))
		})
	}
	group.Wait()
	if got, want := replicas[0].listed("open/web", image.Digest()), sortedDigests(slices.Concat(stays, come)...); !slices.Equal(got, want) {
		t.Errorf("listed %q, want %q", got, want)
	}
}

// What the list says besides stays when something is taken off it.
func TestAListThatLosesAReferrerKeepsWhatItSays(t *testing.T) {
	t.Parallel()
	up := lying.Start(t)
	up.WithoutReferrers()
	p := newPushing(t, up)
	image := lying.Image("web")
	one, two := textAbout(image, "one"), textAbout(image, "two")
	up.Push("open/web", image, "v1")
	up.Push("open/web", one)
	up.Push("open/web", two)
	var fields map[string]any
	if err := json.Unmarshal(lying.IndexOf(one.Descriptor(), two.Descriptor()).Body, &fields); err != nil {
		t.Fatal(err)
	}
	fields["annotations"] = map[string]string{"kept": "yes"}
	fields["manifests"].([]any)[1].(map[string]any)["unknown"] = "kept too"
	up.Push("open/web", lying.RawManifest(lying.IndexOf().MediaType, lying.Encode(fields)), lying.FallbackTag(image.Digest()))
	for _, content := range []lying.Content{one, two} {
		if response, text := p.do("DELETE", "/v2/local/open/web/manifests/"+content.Digest().String(), nil, nil); response.StatusCode != http.StatusAccepted {
			t.Fatalf("%d %s", response.StatusCode, text)
		}
		body, _, _ := up.Manifest("open/web", lying.FallbackTag(image.Digest()))
		var list struct {
			Manifests   []map[string]any
			Annotations map[string]string
		}
		if err := json.Unmarshal(body, &list); err != nil || list.Manifests == nil || list.Annotations["kept"] != "yes" {
			t.Fatalf("%v: %s", err, body)
		}
		if content.Digest() == one.Digest() && (len(list.Manifests) != 1 || list.Manifests[0]["unknown"] != "kept too") {
			t.Errorf("what is left is %s", body)
		}
	}
}

// Who deletes a referrer whose list others keep writing is told to do that again, and not
// to push.
func TestADeletionThatOthersUndoIsToldOf(t *testing.T) {
	t.Parallel()
	up := lying.Start(t)
	up.WithoutReferrers()
	p := newPushing(t, up)
	image := lying.Image("web")
	one, tag := textAbout(image, "one"), lying.FallbackTag(image.Digest())
	list := lying.IndexOf(one.Descriptor())
	up.Push("open/web", image, "v1")
	up.Push("open/web", one)
	up.Push("open/web", list, tag)
	up.Lie(lying.Manifest("open/web", tag).GET(), lying.Before(func(context.Context) { up.Push("open/web", list, tag) }))
	response, text := p.do("DELETE", "/v2/local/open/web/manifests/"+one.Digest().String(), nil, nil)
	if response.StatusCode != http.StatusServiceUnavailable || !strings.Contains(text, "others keep overwriting the tag "+tag) || strings.Contains(text, "push again") {
		t.Errorf("%d %s", response.StatusCode, text)
	}
	up.BeHonest()
	if response, text := p.do("DELETE", "/v2/local/open/web/manifests/"+one.Digest().String(), nil, nil); response.StatusCode != http.StatusNotFound {
		t.Errorf("again: %d %s", response.StatusCode, text)
	}
	if listed := p.listed("open/web", image.Digest()); len(listed) > 0 {
		t.Errorf("listed are %q", listed)
	}
}
