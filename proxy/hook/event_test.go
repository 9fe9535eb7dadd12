package hook

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// What distribution v3 sends for a tag, an index by digest and a blob, shortened.
const distributionEnvelope = `{"events":[
 {"id":"e1","timestamp":"2026-11-01T12:00:00.5Z","action":"push","target":{"mediaType":"application/vnd.oci.image.index.v1+json",
  "digest":"sha256:aa","size":7,"length":7,"repository":"acme/web","url":"http://registry.internal:5000/v2/acme/web/manifests/sha256:aa","tag":"v1"},
  "request":{"id":"r1","addr":"192.0.2.7:1234","host":"registry.example","method":"PUT","useragent":"docker"},"actor":{"name":"mallory"},
  "source":{"addr":"registry:5000","instanceID":"i"}},
 {"id":"e2","timestamp":"2026-11-01T12:00:01Z","action":"push","target":{"digest":"sha256:bb","repository":"acme/web"}},
 {"id":"e3","timestamp":"2026-11-01T12:00:01Z","action":"pull","target":{"digest":"sha256:aa","repository":"acme/web","tag":"v1"}}]}`

const harborEvent = `{"type":"PUSH_ARTIFACT","occur_at":1793534400,"operator":"mallory","event_data":{"resources":[
 {"digest":"sha256:aa","tag":"v1","resource_url":"hub.example/team/app/web:v1"},
 {"digest":"sha256:bb","tag":"sha256:bb","resource_url":"hub.example/team/app/web@sha256:bb"}],
 "repository":{"date_created":1,"name":"app/web","namespace":"team","repo_full_name":"team/app/web","repo_type":"private"}}}`

func TestWhatRegistriesTell(t *testing.T) {
	at := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name, body string
		want       []Event
		others     int
	}{
		{"distribution", distributionEnvelope, []Event{{
			ID: "e1", Time: at.Add(time.Second / 2), Hosts: []string{"registry.example", "registry.internal:5000"},
			Repository: "acme/web", Tag: "v1", Digest: "sha256:aa",
		}}, 2},
		{"harbor", harborEvent, []Event{{
			ID: "PUSH_ARTIFACT 1793534400", Time: at, Hosts: []string{"hub.example"}, Repository: "team/app/web", Tag: "v1", Digest: "sha256:aa",
		}}, 1},
		{"something else of harbor's", `{"type":"SCANNING_COMPLETED","occur_at":1,"event_data":{}}`, nil, 1},
		{"nothing", `{"events":[]}`, nil, 0},
	} {
		got, others, err := Parse([]byte(test.body))
		if diff := cmp.Diff(test.want, got, cmp.Comparer(time.Time.Equal)); diff != "" || others != test.others || err != nil {
			t.Errorf("%s: %d others, %v (-want +got):\n%s", test.name, others, err, diff)
		}
	}
	for _, body := range []string{
		"", "[]", "{}", "null", "{\"events\":1}", `{"events":[1]}`, `{"events":[],"type":"PUSH_ARTIFACT","event_data":{}}`, `{"type":"PUSH_ARTIFACT"}`,
		`{"type":"PUSH_ARTIFACT","event_data":[]}`, `{"specversion":"1.0","type":"harbor.artifact.pushed","data":{}}`, distributionEnvelope + "x",
	} {
		if got, _, err := Parse([]byte(body)); err == nil {
			t.Errorf("%s is taken for %v", body, got)
		}
	}
	many := strings.Repeat("{},", MaxEvents)
	for _, form := range []string{`{"events":[%s{}]}`, `{"type":"PUSH_ARTIFACT","event_data":{"resources":[%s{}]}}`} {
		if _, _, err := Parse(fmt.Appendf(nil, form, many)); !errors.Is(err, ErrTooMany) {
			t.Errorf("the error is %v", err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(distributionEnvelope))
	f.Add([]byte(harborEvent))
	f.Fuzz(func(t *testing.T, body []byte) {
		events, others, err := Parse(body)
		if err != nil && (len(events) > 0 || others > 0) {
			t.Errorf("%d events and %v", len(events), err)
		}
		for _, e := range events {
			if e.Tag == "" {
				t.Error("an event without a tag")
			}
		}
	})
}
