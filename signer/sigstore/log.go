package sigstore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/sigstore/rekor/pkg/generated/client/entries"
	"github.com/sigstore/rekor/pkg/generated/models"
)

// logClient speaks with a log of version 1. It implements sigstore-go's interface,
// whose own client reads answers without end.
type logClient struct{ url string }

// CreateLogEntry stores an entry. One that is there already is as good.
func (c logClient) CreateLogEntry(params *entries.CreateLogEntryParams, _ ...entries.ClientOption) (*entries.CreateLogEntryCreated, error) {
	proposed, err := json.Marshal(params.ProposedEntry)
	if err != nil {
		return nil, err
	}
	resp, body, err := c.do(params.Context, http.MethodPost, "/api/v1/log/entries", proposed)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusConflict {
		location, err := url.Parse(resp.Header.Get("Location"))
		if err != nil || location.Path == "" {
			return nil, errors.New("it has the entry already, and does not say where")
		}
		resp, body, err = c.do(params.Context, http.MethodGet, "/api/v1/log/entries/"+url.PathEscape(path.Base(location.Path)), nil)
		if err != nil {
			return nil, err
		}
	}
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusOK {
		return nil, refused(resp, body)
	}
	var stored models.LogEntry
	if err := json.Unmarshal(body, &stored); err != nil {
		return nil, fmt.Errorf("its answer: %w", err)
	}
	if len(stored) != 1 {
		return nil, fmt.Errorf("its answer has %d entries, where one is wanted", len(stored))
	}
	created := &entries.CreateLogEntryCreated{Payload: stored}
	for uuid, entry := range stored {
		if entry.LogIndex == nil || entry.LogID == nil || entry.IntegratedTime == nil || entry.Verification == nil {
			return nil, errors.New("its answer is not an entry")
		}
		created.ETag = uuid
	}
	return created, nil
}

// GetLogEntryByUUID is not called: a conflict is settled above.
func (c logClient) GetLogEntryByUUID(*entries.GetLogEntryByUUIDParams, ...entries.ClientOption) (*entries.GetLogEntryByUUIDOK, error) {
	return nil, errors.ErrUnsupported
}

func (c logClient) do(ctx context.Context, method, path string, body []byte) (*http.Response, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.url, "/")+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	return answer(req)
}
