package upstream

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

func TestEgress(t *testing.T) {
	const refused, own, listed, allowed = "refused always", "for the registry's own host", "for listed networks", "allowed"
	for address, want := range map[string]string{
		"8.8.8.8": allowed, "2606:4700::1111": allowed, "172.32.0.1": allowed, "100.128.0.1": allowed,
		"169.254.0.1": refused, "169.254.169.254": refused, "::ffff:169.254.169.254": refused, "fe80::1": refused, "febf::1": refused,
		"fe80::1%eth0": refused, "0.0.0.0": refused, "0.1.2.3": refused, "::": refused, "224.0.0.1": refused, "239.1.1.1": refused,
		"ff02::1": refused, "255.255.255.255": refused, "240.0.0.1": refused,
		"10.0.0.1": own, "172.16.0.1": own, "172.31.255.255": own, "192.168.1.1": own, "127.0.0.1": own, "127.255.255.255": own,
		"::1": own, "::ffff:127.0.0.1": own, "::ffff:10.0.0.1": own, "fc00::1": own, "fd00:ec2::254": own, "100.64.0.1": own,
		"100.127.255.255": own, "168.63.129.16": own, "192.0.0.192": own, "198.18.0.1": own, "fec0::1": own, "64:ff9b:1::8.8.8.8": own,
		// Addresses that carry another one.
		"64:ff9b::8.8.8.8": allowed, "64:ff9b::10.0.0.1": own, "64:ff9b::169.254.169.254": refused, "64:ff9b:1::169.254.169.254": refused,
		"2002:808:808::1": allowed, "2002:a00:1::1": own, "2002:a9fe:a9fe::1": refused,
		"::10.0.0.1": own, "::169.254.169.254": refused, "::8.8.8.8": allowed, "::ffff:0:169.254.169.254": refused,
		"2001:0:808:808::f7f7:f7f7":     allowed, // Teredo: server 8.8.8.8, client 8.8.8.8
		"2001:0:808:808::5601:5601":     refused, // client 169.254.169.254
		"2001:0:a00:1::f7f7:f7f7":       own,     // server 10.0.0.1
		"2606:4700::5efe:a00:1":         own,     // ISATAP
		"2606:4700::200:5efe:a9fe:a9fe": refused,
		"10.9.0.1":                      listed, "64:ff9b::10.9.0.1": listed,
	} {
		t.Run(address, func(t *testing.T) {
			addr := netip.MustParseAddr(address)
			rules := egress{allow: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("::/128")}}
			got := allowed
			switch foreign, own_ := rules.check(addr, false, "x"), rules.check(addr, true, "x"); {
			case own_ != nil:
				got = refused
			case foreign != nil:
				got = own
			case egress{}.check(addr, false, "x") != nil:
				got = listed
			}
			if got != want {
				t.Errorf("%s, want %s", got, want)
			}
		})
	}
	if (egress{}).check(netip.Addr{}, true, "x") == nil {
		t.Error("no address at all is allowed")
	}
}

func TestOwnHost(t *testing.T) {
	t.Run("may resolve to a private address", func(t *testing.T) {
		w := newWorld(t)
		registry := w.serve("https", "registry.example", text("content"))
		c := w.client(registry, func(config *Config) { config.Egress = nil })
		if _, _, err := manifestOf(t.Context(), c, "acme/web", "v1"); err != nil {
			t.Error(err)
		}
	})
	t.Run("may not resolve to a link-local one", func(t *testing.T) {
		w := newWorld(t)
		registry := w.serve("https", "registry.example", text("content"))
		w.resolve("registry.example", "169.254.169.254")
		_, _, err := manifestOf(t.Context(), w.client(registry, nil), "acme/web", "v1")
		wantKind(t, err, KindRefused)
	})
}

func TestHTTPProxy(t *testing.T) {
	// The proxy answers requests for http registries itself.
	start := func(t *testing.T, registry string, egress []netip.Prefix, target string) (*host, error) {
		w := newWorld(t)
		proxy := w.serve("http", "proxy.corp.example", func(rw http.ResponseWriter, r *http.Request) {
			if target != "" && !strings.Contains(r.RequestURI, "after") {
				http.Redirect(rw, r, target, http.StatusFound)
			}
		})
		proxyURL, err := url.Parse(proxy.url())
		if err != nil {
			t.Fatal(err)
		}
		c := w.client(&host{scheme: "http", name: registry}, func(config *Config) {
			config.Egress, config.Proxy = egress, http.ProxyURL(proxyURL)
		})
		_, _, err = manifestOf(t.Context(), c, "acme/web", "v1")
		return proxy, err
	}
	t.Run("at a private address is used when egress.allow lists it", func(t *testing.T) {
		proxy, err := start(t, "registry.test", loopback, "")
		if err != nil {
			t.Fatal(err)
		}
		if got := proxy.last().line; got != "GET http://registry.test/v2/acme/web/manifests/v1" {
			t.Errorf("the proxy was asked %q", got)
		}
	})
	t.Run("at a private address is refused otherwise", func(t *testing.T) {
		proxy, err := start(t, "registry.test", nil, "")
		wantKind(t, err, KindRefused)
		if !strings.Contains(err.Error(), "egress.allow") || len(proxy.lines()) != 0 {
			t.Errorf("%v; asked %q", err, proxy.lines())
		}
		if where, config := settingOf(err); where != "egress" || config != `allow: ["127.0.0.1/32"]` {
			t.Errorf("setting is %s in %s", config, where)
		}
	})
	t.Run("is not sent to addresses that we would not dial", func(t *testing.T) {
		for _, target := range []string{"http://169.254.169.254/after", "http://10.0.0.1/after", "http://0x7f.1/after"} {
			proxy, err := start(t, "registry.test", loopback, target)
			wantKind(t, err, KindRefused)
			if got := len(proxy.lines()); got != 1 {
				t.Errorf("%s: the proxy was asked %q", target, proxy.lines())
			}
		}
	})
	t.Run("that refuses CONNECT is told from the registry", func(t *testing.T) {
		w := newWorld(t)
		proxy := w.serve("http", "proxy.corp.example", func(rw http.ResponseWriter, _ *http.Request) {
			rw.WriteHeader(http.StatusProxyAuthRequired)
		})
		proxyURL, _ := url.Parse(proxy.url())
		proxyURL.User = url.UserPassword("me", "pr0xy-pass")
		c := w.client(&host{scheme: "https", name: "registry.test"}, func(config *Config) { config.Proxy = http.ProxyURL(proxyURL) })
		_, _, err := manifestOf(t.Context(), c, "acme/web", "v1")
		wantKind(t, err, KindUnavailable)
		if !strings.Contains(err.Error(), "proxy answers 407") || strings.Contains(err.Error(), "pr0xy-pass") {
			t.Error(err)
		}
	})
	t.Run("of the environment is not looked at", func(t *testing.T) {
		t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
		t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
		w := newWorld(t)
		registry := w.serve("https", "registry.example", text("content"))
		if _, _, err := manifestOf(t.Context(), w.client(registry, nil), "acme/web", "v1"); err != nil {
			t.Error(err)
		}
	})
}
