package discover

import (
	"net"
	"testing"

	"github.com/d-e-v-grid/netron/internal/code"
)

func TestAdvertisedAddress(t *testing.T) {
	for _, tc := range []struct{ listen, override, want string }{
		{"10.1.2.3:8080", "", "10.1.2.3:8080"},
		{"host.example:8080", "", "host.example:8080"},
		{"[2001:db8::1]:8080", "", "[2001:db8::1]:8080"},
		{"0.0.0.0:8080", "public.example:443", "public.example:443"},
		{"0.0.0.0:8080", "public.example", "public.example:8080"},
		{":8080", "wss://public.example:443/", "wss://public.example:443"},
		{":8080", "wss://public.example", "wss://public.example:8080"},
		{":8080", "2001:db8::1", "[2001:db8::1]:8080"},
		{"", "public.example:443", "public.example:443"},
	} {
		if got, err := AdvertisedAddress(tc.listen, tc.override); err != nil || got != tc.want {
			t.Errorf("AdvertisedAddress(%q, %q) = %q, %v, want %q", tc.listen, tc.override, got, err, tc.want)
		}
	}
	for _, listen := range []string{":8080", "0.0.0.0:8080", "[::]:8080"} {
		got, err := AdvertisedAddress(listen, "")
		host, port, _ := net.SplitHostPort(got)
		if ip := net.ParseIP(host); err != nil || port != "8080" || ip == nil || ip.IsUnspecified() {
			t.Errorf("AdvertisedAddress(%q) = %q, %v", listen, got, err)
		}
	}
	for _, bad := range [][2]string{{"", ""}, {"h", ""}, {"h:0", ""}, {"", "h"}, {":8080", "http://h:1"}, {":8080", "h/path"}} {
		if got, err := AdvertisedAddress(bad[0], bad[1]); codeOf(err) != code.InvalidArgument {
			t.Errorf("AdvertisedAddress(%q, %q) = %q, %v", bad[0], bad[1], got, err)
		}
	}
}

func TestSuitable(t *testing.T) {
	for _, tc := range []struct {
		addrs []string
		want  string
	}{
		{nil, "127.0.0.1"},
		{[]string{"127.0.0.1/8", "::1/128", "fe80::1/64", "169.254.0.1/16"}, "127.0.0.1"},
		{[]string{"127.0.0.1/8", "2001:db8::1/64"}, "2001:db8::1"},
		{[]string{"127.0.0.1/8", "2001:db8::1/64", "10.0.0.5/24", "192.168.0.1/24"}, "10.0.0.5"},
	} {
		var addrs []net.Addr
		for _, a := range tc.addrs {
			ip, n, err := net.ParseCIDR(a)
			if err != nil {
				t.Fatal(err)
			}
			addrs = append(addrs, &net.IPNet{IP: ip, Mask: n.Mask})
		}
		if got := suitable(addrs); got != tc.want {
			t.Errorf("suitable(%v) = %s, want %s", tc.addrs, got, tc.want)
		}
	}
}
