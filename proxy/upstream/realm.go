package upstream

import (
	"net/netip"
	"net/url"

	"golang.org/x/net/publicsuffix"
)

// realms says which token hosts may be given the upstream's credentials.
type realms struct {
	name  string // for the key to name
	own   origin
	hosts map[origin]bool // Config.AuthHosts
}

// check returns the URL of a realm that is allowed: on the upstream's own host
// and port, on its registrable domain, or on a host that is listed, and over
// https unless it is the own origin of an http upstream. The error for another
// one names the key to set.
func (r realms) check(realm string) (*url.URL, error) {
	u, err := url.Parse(realm)
	if err != nil {
		return nil, fault(KindMismatch, "the token realm is not a URL")
	}
	o, err := originOf(u)
	if err != nil {
		return nil, fault(KindRefused, "the token realm is refused: %v", err)
	}
	u.Fragment, u.RawFragment = "", ""
	switch {
	case o == r.own:
		return u, nil
	case o.scheme != "https":
		return nil, fault(KindRefused, "the token realm %s is not https, and credentials go nowhere else", clip(o.String()))
	case o.host == r.own.host && o.port == r.own.port, r.hosts[o], sameDomain(o.host, r.own.host):
		return u, nil
	}
	return nil, fault(KindRefused, "the token realm %s is neither on the registry's own host nor on its domain; if it is to have the credentials, add %s to upstreams.%s.authHosts",
		clip(o.String()), clip(o.authority()), r.name).
		advise("it asks for its credentials to be given to another host, which upstreams.%s.authHosts would have to list", r.name).
		set("upstreams", "%s: {authHosts: [%q]}", r.name, o.authority())
}

// sameDomain reports whether two host names have the same registrable domain:
// one label below a public suffix. registry-1.docker.io and auth.docker.io do,
// two tenants of a hosting domain that is on the public suffix list do not.
func sameDomain(a, b string) bool {
	for _, host := range []string{a, b} {
		if _, err := netip.ParseAddr(host); err == nil {
			return false
		}
	}
	domainA, errA := publicsuffix.EffectiveTLDPlusOne(a)
	domainB, errB := publicsuffix.EffectiveTLDPlusOne(b)
	return errA == nil && errB == nil && domainA == domainB
}
