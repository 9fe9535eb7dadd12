package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vidimus/policy"
)

var recordTime = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func testRecord(id string) Record {
	return Record{
		ID: id, Time: recordTime, Decision: "denied", Reason: "unsigned", Repository: "ghcr.io/acme/web", Reference: "v1",
		Digest: "sha256:" + strings.Repeat("ab", 32), Policy: "production", Enforcement: "enforce", Client: "192.0.2.7",
		Evidence: json.RawMessage(`[{"form":"simple-signing"}]`), Revision: "r1",
	}
}

func TestDecisionLogWritesWhatReadDecisionsReads(t *testing.T) {
	var out bytes.Buffer
	log := NewDecisionLog(&out)
	want := []Record{testRecord("aa01"), testRecord("aa02")}
	for _, r := range want {
		if err := log.Record(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if lines := strings.Count(out.String(), "\n"); lines != 2 {
		t.Errorf("%d lines for 2 records", lines)
	}
	mixed := "{\"level\":\"INFO\",\"msg\":\"request\"}\nno JSON at all\n" + out.String()
	var got []Record
	if err := ReadDecisions(strings.NewReader(mixed), Query{}, func(r Record) error { got = append(got, r); return nil }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("records (-written +read):\n%s", diff)
	}
	if diff := cmp.Diff(want, log.Search(Query{})); diff != "" {
		t.Errorf("search (-written +found):\n%s", diff)
	}
}

func TestReadDecisionsRefusesInputWithoutAnyRecord(t *testing.T) {
	err := ReadDecisions(strings.NewReader("one\ntwo\n"), Query{}, func(Record) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "none of 2 lines") {
		t.Errorf("error %v", err)
	}
	stop := errors.New("enough")
	line, _ := json.Marshal(testRecord("aa01"))
	if err := ReadDecisions(bytes.NewReader(line), Query{}, func(Record) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("error %v, want that of yield", err)
	}
}

func TestQueryMatches(t *testing.T) {
	r := testRecord("aa01")
	for _, c := range []struct {
		name  string
		query Query
		want  bool
	}{
		{"everything", Query{}, true},
		{"part of the repository", Query{Image: "acme/web"}, true},
		{"repository and tag", Query{Image: "acme/web:v1"}, true},
		{"the digest", Query{Image: r.Digest}, true},
		{"another image", Query{Image: "acme/api"}, false},
		{"the client", Query{Client: "192.0.2.7"}, true},
		{"part of the client is not the client", Query{Client: "192.0.2"}, false},
		{"the reason", Query{Reason: "unsigned"}, true},
		{"the decision", Query{Reason: "denied"}, true},
		{"another reason", Query{Reason: "allowed"}, false},
		{"the beginning of the id", Query{ID: "aa"}, true},
		{"another id", Query{ID: "ab"}, false},
		{"since before", Query{Since: recordTime.Add(-time.Second)}, true},
		{"since then", Query{Since: recordTime}, true},
		{"since after", Query{Since: recordTime.Add(time.Second)}, false},
		{"all must hold", Query{Image: "acme/web", Reason: "allowed"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.query.Matches(r); got != c.want {
				t.Errorf("matches: %t, want %t", got, c.want)
			}
		})
	}
}

// A payload may hold a megabyte of annotations, each of which is evidence.
func TestDecisionLogIsBoundedInBytes(t *testing.T) {
	log := NewDecisionLog(nil)
	for i := range 100 {
		r := testRecord("aa01")
		r.Time = recordTime.Add(time.Duration(i) * time.Second)
		r.Evidence = make(json.RawMessage, 1<<20)
		copy(r.Evidence, `"`+strings.Repeat("x", len(r.Evidence)-2)+`"`)
		if err := log.Record(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	found := log.Search(Query{})
	if held := len(found) << 20; held > MaxRecentBytes || held < MaxRecentBytes-2<<20 || !found[len(found)-1].Time.Equal(recordTime.Add(99*time.Second)) {
		t.Errorf("%d records are kept, the last of %v", len(found), found[len(found)-1].Time)
	}
}

func TestDecisionLogKeepsTheLatest(t *testing.T) {
	log := NewDecisionLog(nil)
	for i := range MaxRecent + 5 {
		r := testRecord("aa01")
		r.Client = string(rune('a' + i%26))
		r.Time = recordTime.Add(time.Duration(i) * time.Second)
		if err := log.Record(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	found := log.Search(Query{})
	if len(found) != MaxRecent {
		t.Fatalf("%d records kept, want %d", len(found), MaxRecent)
	}
	if first := found[0].Time; !first.Equal(recordTime.Add(5 * time.Second)) {
		t.Errorf("the oldest is of %v", first)
	}
	for i := 1; i < len(found); i++ {
		if !found[i].Time.After(found[i-1].Time) {
			t.Fatalf("record %d is not newer than the one before", i)
		}
	}
}

func TestDecisionLogRotatesItsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	line, err := json.Marshal(testRecord("aa01"))
	if err != nil {
		t.Fatal(err)
	}
	log, err := OpenDecisionLog(path, int64(2*len(line)+2))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"aa01", "aa02", "aa03"} {
		if err := log.Record(t.Context(), testRecord(id)); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]int{path + ".1": 2, path: 1} {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := bytes.Count(content, []byte("\n")); got != want {
			t.Errorf("%s has %d lines, want %d", filepath.Base(file), got, want)
		}
	}
	if err := log.Record(t.Context(), testRecord("aa04")); err == nil {
		t.Error("a closed log recorded")
	}
}

func TestDecisionLogGoesOnInAFileThatExists(t *testing.T) {
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	for _, id := range []string{"aa01", "aa02"} {
		log, err := OpenDecisionLog(path, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := log.Record(t.Context(), testRecord(id)); err != nil {
			t.Fatal(err)
		}
		log.Close()
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	count := 0
	if err := ReadDecisions(file, Query{}, func(Record) error { count++; return nil }); err != nil || count != 2 {
		t.Errorf("%d records, error %v", count, err)
	}
}

func TestAdmin(t *testing.T) {
	log := NewDecisionLog(nil)
	for _, id := range []string{"aa01", "aa02", "bb01", "cc01"} {
		if err := log.Record(t.Context(), testRecord(id)); err != nil {
			t.Fatal(err)
		}
	}
	again := testRecord("cc01")
	again.Reference = "v2"
	if err := log.Record(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	admin := NewAdmin(log)
	for _, c := range []struct {
		name, method, url, host, origin string
		status                          int
		contains                        string
	}{
		{"lists all", "GET", "/api/decisions", "127.0.0.1:5082", "", 200, "bb01"},
		{"searches", "GET", "/api/decisions?id=aa&reason=denied", "localhost:5082", "", 200, "aa02"},
		{"finds none", "GET", "/api/decisions?image=nothing", "[::1]:5082", "", 200, `"decisions":[]`},
		{"shows one", "GET", "/api/decisions/bb01", "127.0.0.1", "", 200, `"id":"bb01"`},
		{"shows the oldest of one", "GET", "/api/decisions/cc", "127.0.0.1", "", 200, `"reference":"v1"`},
		{"finds one by each reference", "GET", "/api/decisions?image=acme/web:v2", "127.0.0.1", "", 200, `"id":"cc01"`},
		{"knows no other", "GET", "/api/decisions/dd", "127.0.0.1", "", 404, "no recent decision"},
		{"wants one", "GET", "/api/decisions/aa", "127.0.0.1", "", 409, "more than one"},
		{"wants a time", "GET", "/api/decisions?since=yesterday", "127.0.0.1", "", 400, "2026-01-31"},
		{"changes nothing", "POST", "/api/decisions", "127.0.0.1", "", 405, ""},
		{"refuses a name that was made to resolve here", "GET", "/api/decisions", "evil.example:5082", "", 403, "loopback"},
		{"refuses a page of elsewhere", "GET", "/api/decisions", "127.0.0.1:5082", "https://evil.example", 403, "loopback"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(c.method, c.url, nil)
			r.Host = c.host
			if c.origin != "" {
				r.Header.Set("Origin", c.origin)
			}
			w := httptest.NewRecorder()
			admin.ServeHTTP(w, r)
			body, err := io.ReadAll(w.Result().Body)
			if err != nil {
				t.Fatal(err)
			}
			if w.Code != c.status || !strings.Contains(string(body), c.contains) {
				t.Errorf("%d %s\nwant %d with %q", w.Code, body, c.status, c.contains)
			}
			if c.status == http.StatusOK && w.Header().Get("Cache-Control") != "no-store" {
				t.Error("a record may be cached")
			}
		})
	}
}

func TestAnInconclusiveRecordTellsItsCauses(t *testing.T) {
	err := errors.New("upstream local:\nunreachable")
	for _, c := range []struct {
		name     string
		decision policy.Decision
		want     []string
	}{
		{"those of the decision", policy.Decision{Explained: "short", Causes: []string{"tags: 503"}}, []string{"tags: 503"}},
		{"or the error, in one line", policy.Decision{Explained: "short"}, []string{"upstream local: unreachable"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRecord(c.decision, err, asker{})
			if diff := cmp.Diff(c.want, r.Causes); diff != "" || r.Decision != "inconclusive" || r.Explained != "short" {
				t.Errorf("%s: %q (-want +got):\n%s", r.Decision, r.Explained, diff)
			}
		})
	}
	if r := newRecord(policy.Decision{Causes: []string{"x"}}, nil, asker{}); r.Causes != nil || r.Decision != "denied" {
		t.Errorf("a denial tells causes: %+v", r)
	}
}
