package upstream

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

// dialFunc is http.Transport.DialContext.
type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// egress says which addresses may be dialled. Its zero value allows public ones.
type egress struct {
	own     origin         // whose host and port may resolve to private addresses
	private bool           // own is written as a private address: others may be private as well
	allow   []netip.Prefix // private networks that others may be in
}

// dialler returns a dialFunc that checks each address after the lookup, just
// before it connects: a name that resolves differently the next time is checked
// the next time.
func (e egress) dialler(timeout time.Duration, resolver *net.Resolver) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		own := strings.EqualFold(address, e.own.address())
		dialer := net.Dialer{
			Timeout:   timeout,
			KeepAlive: 30 * time.Second,
			Resolver:  resolver,
			ControlContext: func(_ context.Context, _, resolved string, _ syscall.RawConn) error {
				addr, err := netip.ParseAddrPort(resolved)
				if err != nil {
					return fault(KindRefused, "the address of %s is not an IP address", clip(address))
				}
				return e.check(addr.Addr(), own, address)
			},
		}
		return dialer.DialContext(ctx, network, address)
	}
}

// checkURL refuses, before anything is dialled, an origin that is written as an
// address that may not be dialled. The dialler does not see it when an HTTP
// proxy is used.
func (e egress) checkURL(o origin) error {
	addr, ok := o.literal()
	if !ok {
		return nil
	}
	return e.check(addr, o.address() == e.own.address(), o.address())
}

// check returns an error that names the key to set when addr, which name
// resolved to, may not be dialled.
func (e egress) check(addr netip.Addr, own bool, name string) error {
	addr = addr.WithZone("")
	for _, reached := range reaches(addr) {
		switch classify(reached) {
		case publicAddress:
		case privateAddress:
			if own || e.private || e.allows(addr) || e.allows(reached) {
				continue
			}
			return fault(KindRefused, "%s has the private address %s, which redirects, token hosts and proxies may have only when egress.allow lists it", clip(name), addr).
				advise("it leads to a private address, which egress.allow would have to list").
				set("egress", "allow: [%q]", netip.PrefixFrom(addr, addr.BitLen()).String())
		default:
			return fault(KindRefused, "%s has the address %s, which is never dialled (link-local, unspecified or multicast)", clip(name), addr).
				advise("it leads to an address that is never dialled")
		}
	}
	return nil
}

func (e egress) allows(addr netip.Addr) bool {
	for _, prefix := range e.allow {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

type addressClass int

const (
	neverAddress addressClass = iota
	privateAddress
	publicAddress
)

// classify judges one address by itself; see reaches.
func classify(addr netip.Addr) addressClass {
	addr = addr.Unmap()
	switch {
	case !addr.IsValid(), addr.IsUnspecified(), addr.IsMulticast(), addr.IsLinkLocalUnicast(), within(addr, neverNetworks):
		return neverAddress
	case addr.IsLoopback(), addr.IsPrivate(), within(addr, privateNetworks):
		return privateAddress
	}
	return publicAddress
}

func within(addr netip.Addr, networks func() []netip.Prefix) bool {
	for _, network := range networks() {
		if network.Contains(addr) {
			return true
		}
	}
	return false
}

// neverNetworks are, besides link-local and multicast, "this network" and the
// reserved block with the broadcast address.
func neverNetworks() []netip.Prefix {
	return []netip.Prefix{
		v4net(0, 0, 0, 0, 8), v4net(240, 0, 0, 0, 4),
	}
}

// privateNetworks are, besides RFC 1918, unique local and loopback addresses,
// those of IANA's special-purpose registries that are not globally reachable,
// and the address under which Azure's hosts answer their guests.
func privateNetworks() []netip.Prefix {
	return []netip.Prefix{
		v4net(100, 64, 0, 0, 10),    // carrier-grade NAT
		v4net(192, 0, 0, 0, 24),     // protocol assignments
		v4net(192, 0, 2, 0, 24),     // documentation
		v4net(198, 18, 0, 0, 15),    // benchmarks
		v4net(198, 51, 100, 0, 24),  // documentation
		v4net(203, 0, 113, 0, 24),   // documentation
		v4net(168, 63, 129, 16, 32), // Azure's host
		nat64Local(),
		v6net(0x0100, 0, 64),      // discard
		v6net(0x2001, 0x0db8, 32), // documentation
		v6net(0xfec0, 0, 10),      // site-local, deprecated
	}
}

// nat64Local is the prefix for translators of one network, RFC 8215. Where in it
// the IPv4 address is, only that network knows.
func nat64Local() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0, 0x64, 0xff, 0x9b, 0, 1}), 48)
}

func v4net(a, b, c, d byte, bits int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{a, b, c, d}), bits)
}

func v6net(first, second uint16, bits int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{byte(first >> 8), byte(first), byte(second >> 8), byte(second)}), bits)
}

// reaches returns the addresses that a packet to addr may arrive at: addr
// itself, or the IPv4 address that a translator or tunnel finds in it.
func reaches(addr netip.Addr) []netip.Addr {
	if !addr.Is6() || addr.Is4In6() {
		return []netip.Addr{addr.Unmap()}
	}
	raw := addr.As16()
	v4 := func(at int) netip.Addr { return netip.AddrFrom4([4]byte(raw[at : at+4])) }
	switch {
	case v6net(0x2002, 0, 16).Contains(addr): // 6to4, RFC 3056
		return []netip.Addr{v4(2)}
	case v6net(0x2001, 0, 32).Contains(addr): // Teredo, RFC 4380: a server, and a client's address inverted
		client := v4(12).As4()
		for i := range client {
			client[i] = ^client[i]
		}
		return []netip.Addr{v4(4), netip.AddrFrom4(client)}
	case nat64Local().Contains(addr):
		return []netip.Addr{addr, v4(12)}
	case v6net(0x0064, 0xff9b, 32).Contains(addr): // NAT64, RFC 6052
		return []netip.Addr{v4(12)}
	case raw[8]&^2 == 0 && raw[9] == 0 && raw[10] == 0x5e && raw[11] == 0xfe: // ISATAP, RFC 5214
		return []netip.Addr{addr, v4(12)}
	case v6net(0, 0, 64).Contains(addr) && addr != netip.IPv6Loopback() && !addr.IsUnspecified():
		return []netip.Addr{v4(12)} // IPv4-compatible (RFC 4291) and IPv4-translated (RFC 2765)
	}
	return []netip.Addr{addr}
}
