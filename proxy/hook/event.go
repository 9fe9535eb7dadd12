// Package hook reads what registries tell of the tags that were pushed to them, and
// keeps it until somebody has acted upon it.
//
// Nothing that a registry tells is believed: it says where to look, and nothing is
// dialled for what it says.
package hook

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Limits of one notification.
const (
	MaxSize   = 1 << 20 // bytes
	MaxEvents = 1000
)

// MaxAge is how old an event may be that is told: older ones are dropped, and so are
// those that lie as far in the future.
const MaxAge = time.Hour

// Event is one tag that somebody has pushed to a registry, as that tells it: nothing
// in it has been checked.
type Event struct {
	ID         string // the same for what is told again
	Time       time.Time
	Hosts      []string // by which the registry may be known
	Repository string   // as the registry knows it
	Tag        string
	Digest     string
}

// ErrTooMany says that a notification has more than MaxEvents.
var ErrTooMany = fmt.Errorf("more than %d events are told at once", MaxEvents)

// Parse returns the tags that a notification tells of, and how many events in it are
// about something else. It takes the envelope of distribution
// (distribution.github.io/distribution/about/notifications) and the default format of
// Harbor's webhooks (goharbor.io/docs, "Configure Webhook Notifications").
func Parse(body []byte) (events []Event, others int, err error) {
	var form struct {
		Events *[]json.RawMessage `json:"events"`
		Type   *string            `json:"type"`
		Data   json.RawMessage    `json:"event_data"`
		At     int64              `json:"occur_at"`
	}
	if err := json.Unmarshal(body, &form); err != nil {
		return nil, 0, errors.New("it is not JSON, or not of the form that registries send")
	}
	switch {
	case form.Events != nil && form.Type == nil && form.Data == nil:
		return ofDistribution(*form.Events)
	case form.Events == nil && form.Type != nil && form.Data != nil:
		return ofHarbor(*form.Type, form.At, form.Data)
	}
	return nil, 0, errors.New("it is neither distribution's envelope (events) nor Harbor's default format (type and event_data)")
}

func ofDistribution(all []json.RawMessage) (events []Event, others int, err error) {
	if len(all) > MaxEvents {
		return nil, 0, ErrTooMany
	}
	for i, raw := range all {
		var e struct {
			ID        string    `json:"id"`
			Timestamp time.Time `json:"timestamp"`
			Action    string    `json:"action"`
			Target    struct {
				Digest     string `json:"digest"`
				Repository string `json:"repository"`
				URL        string `json:"url"`
				Tag        string `json:"tag"`
			} `json:"target"`
			Request struct {
				Host string `json:"host"`
			} `json:"request"`
		}
		if err := json.Unmarshal(raw, &e); err != nil {
			return nil, 0, fmt.Errorf("event %d is not of the form that distribution sends", i)
		}
		if e.Action != "push" || e.Target.Tag == "" {
			others++
			continue
		}
		event := Event{ID: e.ID, Time: e.Timestamp, Repository: e.Target.Repository, Tag: e.Target.Tag, Digest: e.Target.Digest}
		if e.Request.Host != "" {
			event.Hosts = append(event.Hosts, e.Request.Host)
		}
		if u, err := url.Parse(e.Target.URL); err == nil && u.Host != "" {
			event.Hosts = append(event.Hosts, u.Host)
		}
		events = append(events, event)
	}
	return events, others, nil
}

// harborPush is the type of Harbor's event for an artifact that was pushed.
const harborPush = "PUSH_ARTIFACT"

func ofHarbor(kind string, at int64, data json.RawMessage) (events []Event, others int, err error) {
	if kind != harborPush {
		return nil, 1, nil
	}
	var d struct {
		Resources []struct {
			Digest string `json:"digest"`
			Tag    string `json:"tag"`
			URL    string `json:"resource_url"`
		} `json:"resources"`
		Repository struct {
			FullName string `json:"repo_full_name"`
		} `json:"repository"`
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, 0, errors.New("event_data is not of the form that Harbor sends")
	}
	if len(d.Resources) > MaxEvents {
		return nil, 0, ErrTooMany
	}
	for _, r := range d.Resources {
		if r.Tag == "" || strings.HasPrefix(r.Tag, "sha256:") { // pushed by digest
			others++
			continue
		}
		host, _, _ := strings.Cut(r.URL, "/")
		events = append(events, Event{
			ID: harborPush + " " + strconv.FormatInt(at, 10), Time: time.Unix(at, 0), Hosts: []string{host},
			Repository: d.Repository.FullName, Tag: r.Tag, Digest: r.Digest,
		})
	}
	return events, others, nil
}
