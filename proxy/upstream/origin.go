package upstream

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// origin is a scheme, host and port in one spelling, so that == compares them:
// lower case, the port always there, IP addresses in their short form.
type origin struct{ scheme, host, port string }

// originOf returns the origin of an absolute http or https URL. It refuses
// hosts that different programs read differently: "2130706433" and "0x7f.1"
// are names to one and 127.0.0.1 to another. Its errors quote nothing, for the
// URL may be an upstream's.
func originOf(u *url.URL) (origin, error) {
	o := origin{scheme: u.Scheme, port: u.Port()}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return origin{}, errors.New("the scheme is neither https nor http")
	case u.User != nil:
		return origin{}, errors.New("a user name in the URL is not accepted")
	}
	host, err := canonicalHost(u.Hostname())
	if err != nil {
		return origin{}, err
	}
	o.host = host
	if o.port == "" {
		o.port = map[string]string{"http": "80", "https": "443"}[o.scheme]
	}
	number, err := strconv.ParseUint(o.port, 10, 16)
	if err != nil || number == 0 {
		return origin{}, errors.New("the port is not a port")
	}
	o.port = strconv.FormatUint(number, 10)
	return o, nil
}

func canonicalHost(host string) (string, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.Zone() != "" {
			return "", errors.New("an address with a zone is not accepted")
		}
		return addr.String(), nil
	}
	host = strings.ToLower(host)
	switch {
	case host == "":
		return "", errors.New("the URL has no host")
	case len(host) > 253 || !plainLabels(host):
		return "", errors.New("the host is not a host name")
	case endsInNumber(host):
		return "", errors.New("the host is an address in an unusual form")
	}
	return host, nil
}

// plainLabels reports whether each label of host has 1 to 63 characters of the
// alphabet of host names; the underscore is what container networks use. A dot
// at the end is not plain: "a.test." and "a.test" would be two spellings.
func plainLabels(host string) bool {
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for _, c := range []byte(label) {
			if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}

// endsInNumber reports whether the URL standard would read host as an IPv4
// address: its last label is decimal, or 0x and hexadecimal.
// https://url.spec.whatwg.org/#ends-in-a-number-checker
func endsInNumber(host string) bool {
	last := host[strings.LastIndexByte(host, '.')+1:]
	if digits, ok := strings.CutPrefix(last, "0x"); ok {
		return strings.Trim(digits, "0123456789abcdef") == ""
	}
	return strings.Trim(last, "0123456789") == ""
}

// address is what net.Dial takes.
func (o origin) address() string { return net.JoinHostPort(o.host, o.port) }

// String is the origin as URLs have it, without a port that the scheme implies.
func (o origin) String() string { return o.scheme + "://" + o.authority() }

// authority is the host, and the port unless the scheme implies it.
func (o origin) authority() string {
	if o.scheme == "https" && o.port == "443" || o.scheme == "http" && o.port == "80" {
		if strings.Contains(o.host, ":") {
			return "[" + o.host + "]"
		}
		return o.host
	}
	return o.address()
}

// literal returns the address that the host is, without any lookup, and whether
// it is one. localhost is one: an HTTP proxy would take it for itself.
func (o origin) literal() (netip.Addr, bool) {
	if o.host == "localhost" || strings.HasSuffix(o.host, ".localhost") {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), true
	}
	addr, err := netip.ParseAddr(o.host)
	return addr, err == nil
}

// private reports whether the origin is written as a private address.
func (o origin) private() bool {
	addr, ok := o.literal()
	return ok && classify(addr) == privateAddress
}

// clip makes untrusted text fit for an error: quoted, and at most 100 bytes.
func clip(untrusted string) string {
	const most = 100
	if len(untrusted) > most {
		return strconv.QuoteToASCII(untrusted[:most]) + "..."
	}
	return strconv.QuoteToASCII(untrusted)
}
