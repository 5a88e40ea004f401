package engine

import (
	"net"
	"net/url"
	"strings"
)

// originAllowed decides about a request by the page it comes from. Browsers let
// any page open a WebSocket to any server, with the user's cookies, and leave
// the check to the server (RFC 6455 section 10.2).
func (c *Config) originAllowed(r *Request) bool {
	origin := r.Header.Get("Origin")
	for _, allowed := range c.AllowedOrigins {
		if allowed == "*" || origin != "" && strings.EqualFold(strings.TrimSuffix(allowed, "/"), origin) {
			return true
		}
	}
	// A page cannot set this field, and it stays right behind a proxy that
	// rewrites Host.
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin":
		return true
	case "cross-site", "same-site":
		return false
	}
	if _, sent := r.Header["Origin"]; !sent {
		return true // not a browser
	}
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" {
		return false // "null" and the like
	}
	return sameHost(u.Scheme, u.Host, r.Host)
}

// sameHost compares the host of an origin with a Host field. The port that goes
// without saying for the origin's scheme may be written or not.
func sameHost(scheme, origin, host string) bool {
	if strings.EqualFold(origin, host) {
		return true
	}
	port := "80"
	if scheme == "https" || scheme == "wss" {
		port = "443"
	}
	return strings.EqualFold(withPort(origin, port), withPort(host, port))
}

func withPort(host, port string) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}
