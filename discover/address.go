package discover

import (
	"net"
	"net/netip"
	"strings"

	"github.com/d-e-v-grid/netron/internal/code"
)

// AdvertisedAddress returns the address under which others reach a node that listens at
// listen, as for [Node].Address. An override that is not empty wins: it may have a scheme,
// ws:// or wss://, and lack the port, which is that of listen then. A listen address
// without a host, or with that of all interfaces, gets the first suitable address of this
// machine.
func AdvertisedAddress(listen, override string) (string, error) {
	host, port, listenErr := net.SplitHostPort(listen)
	if override != "" {
		scheme, rest, found := strings.Cut(override, "://")
		if !found {
			scheme, rest = "", override
		} else {
			scheme += "://"
		}
		rest = strings.TrimSuffix(rest, "/")
		if _, _, err := net.SplitHostPort(rest); err != nil && listenErr == nil {
			rest = net.JoinHostPort(strings.Trim(rest, "[]"), port)
		}
		_, _, err := splitAddress(scheme + rest)
		return scheme + rest, err
	}
	if listenErr != nil || port == "" || port == "0" {
		return "", errorf(code.InvalidArgument, "the address %.200q that the node listens at is not host:port", listen)
	}
	if ip, err := netip.ParseAddr(host); host != "" && (err != nil || !ip.IsUnspecified()) {
		_, _, err := splitAddress(listen)
		return listen, err
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "", &Error{Code: code.FailedPrecondition, Message: "the addresses of this machine", cause: err}
	}
	return net.JoinHostPort(suitable(addrs), port), nil
}

// suitable returns the first of the best addresses: one that others may know, before those
// of this machine alone; and of version 4 before those of version 6.
func suitable(addrs []net.Addr) string {
	best, rank := "127.0.0.1", 0
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		if !ok {
			continue
		}
		ip = ip.Unmap()
		r := 0
		switch {
		case !ip.IsGlobalUnicast():
		case ip.Is4():
			r = 2
		default:
			r = 1
		}
		if r > rank {
			best, rank = ip.String(), r
		}
	}
	return best
}
