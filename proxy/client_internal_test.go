package proxy

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

func TestD12WhoseAddressIsBelieved(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for name, test := range map[string]struct {
		peer      string
		forwarded []string
		want      string
	}{
		"a client":                               {"203.0.113.7:1", nil, "203.0.113.7"},
		"a client that claims another":           {"203.0.113.7:1", []string{"127.0.0.1"}, "203.0.113.7"},
		"a proxy that says nothing":              {"10.1.1.1:1", nil, "10.1.1.1"},
		"a proxy":                                {"10.1.1.1:1", []string{"203.0.113.7"}, "203.0.113.7"},
		"a proxy before a client that claims":    {"10.1.1.1:1", []string{"127.0.0.1, 203.0.113.7"}, "203.0.113.7"},
		"two proxies":                            {"10.1.1.1:1", []string{"6.6.6.6, 203.0.113.7, 10.2.2.2"}, "203.0.113.7"},
		"two proxies, in two lines":              {"10.1.1.1:1", []string{"6.6.6.6", "203.0.113.7, 10.2.2.2"}, "203.0.113.7"},
		"proxies alone":                          {"10.1.1.1:1", []string{"10.3.3.3, 10.2.2.2"}, "10.3.3.3"},
		"a proxy that says no address":           {"10.1.1.1:1", []string{"203.0.113.7, unknown"}, "10.1.1.1"},
		"a proxy that says a line break":         {"10.1.1.1:1", []string{"203.0.113.7, \n"}, "10.1.1.1"},
		"IPv6":                                   {"[fd00::1]:1", []string{"2001:db8::7"}, "2001:db8::7"},
		"IPv4 in IPv6":                           {"[::ffff:10.1.1.1]:1", []string{"::ffff:203.0.113.7"}, "203.0.113.7"},
		"a peer that is no address, as a pipe's": {"pipe", []string{"203.0.113.7"}, "pipe"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &http.Request{RemoteAddr: test.peer, Header: http.Header{"X-Forwarded-For": test.forwarded}}
			if got := clientOf(r, trusted); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
			if got := clientOf(r, nil); strings.Contains(test.peer, ":") && !strings.HasPrefix(strings.TrimPrefix(test.peer, "["), strings.TrimPrefix(got, "::ffff:")) && !strings.Contains(test.peer, got) {
				t.Errorf("without trusted proxies %s", got)
			}
		})
	}
}

func TestIfNoneMatch(t *testing.T) {
	const etag = `"sha256:ab"`
	for value, want := range map[string]bool{
		etag: true, "W/" + etag: true, `"x", ` + etag: true, etag + `,"x"`: true, " " + etag + " ": true, "*": true,
		"": false, `"x"`: false, "sha256:ab": false, `"sha256:abc"`: false, `"sha256:a"`: false, `w/` + etag: false,
	} {
		if got := matches([]string{value}, etag); got != want {
			t.Errorf("%q: %v", value, got)
		}
	}
	if matches(nil, etag) || !matches([]string{`"x"`, etag}, etag) {
		t.Error("several lines")
	}
}
