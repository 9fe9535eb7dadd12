package proxy

import (
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/gorilla/mux"
)

// NewAdmin returns the handler of the admin listener:
//
//	GET /api/decisions?image=&client=&reason=&id=&since=   {"decisions": [...]}: the recent records, the oldest first
//	GET /api/decisions/{id}                                the oldest recent record of one decision
//
// A decision that answered under several references has a record for each; the
// first was written when it was reached, the others repeat it. The beginning of
// an identifier will do while it is that of one decision.
//
// Records name images and clients, so the listener must be on loopback, and
// the handler answers only requests that were made there: to a loopback host,
// by no page of another origin.
func NewAdmin(log *DecisionLog) http.Handler {
	router := mux.NewRouter()
	router.HandleFunc("/api/decisions", func(w http.ResponseWriter, r *http.Request) {
		query, err := parseQuery(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		records := log.Search(query)
		if records == nil {
			records = []Record{}
		}
		writeJSON(w, map[string][]Record{"decisions": records})
	}).Methods(http.MethodGet)
	router.HandleFunc("/api/decisions/{id:[0-9a-f]+}", func(w http.ResponseWriter, r *http.Request) {
		records := log.Search(Query{ID: mux.Vars(r)["id"]})
		if len(records) == 0 {
			http.Error(w, "no recent decision has this identifier", http.StatusNotFound)
			return
		}
		if slices.ContainsFunc(records, func(r Record) bool { return r.ID != records[0].ID }) {
			http.Error(w, "more than one recent decision has an identifier that begins like this", http.StatusConflict)
			return
		}
		writeJSON(w, records[0])
	}).Methods(http.MethodGet)
	return onlyLocal(router)
}

func parseQuery(r *http.Request) (Query, error) {
	values := r.URL.Query()
	query := Query{
		Image: values.Get("image"), Client: values.Get("client"),
		Reason: values.Get("reason"), ID: values.Get("id"),
	}
	if since := values.Get("since"); since != "" {
		at, err := time.Parse(time.RFC3339Nano, since)
		if err != nil {
			return Query{}, &Error{Message: "invalid since " + quote(since) + ": want a time like 2026-01-31T15:04:05Z"}
		}
		query.Since = at
	}
	return query, nil
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	json.NewEncoder(w).Encode(v) // an error here is the client's leaving
}

// onlyLocal refuses requests that a web page of elsewhere could have caused:
// under a name that was made to resolve to this machine, or across origins.
func onlyLocal(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isLoopbackHost(r.Host) || r.Header.Get("Origin") != "" {
			http.Error(w, "the admin interface answers on loopback only", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func isLoopbackHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if host == "localhost" {
		return true
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.Unmap().IsLoopback()
}
