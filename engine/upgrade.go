package engine

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/gobwas/ws"
)

// checkFields applies the rules for an upgrade request (RFC 6455 section 4.2.1)
// that go beyond those of ws.Upgrader, or have another status here.
func (r *Request) checkFields(method string) *refusal {
	switch {
	case method != http.MethodGet:
		return refuse(http.StatusMethodNotAllowed, "the method must be GET", [2]string{"Allow", "GET"})
	case len(r.Header["Content-Length"]) > 0 && !allZero(r.Header["Content-Length"]), len(r.Header["Transfer-Encoding"]) > 0:
		return refuse(http.StatusBadRequest, "an upgrade request has no body")
	case !hasToken(r.Header["Upgrade"], "websocket"):
		return refuse(http.StatusUpgradeRequired, "this is a WebSocket endpoint", upgradeHeader, versionHeader)
	case !hasToken(r.Header["Connection"], "upgrade"):
		return refuse(http.StatusBadRequest, "the Connection field must name Upgrade")
	}
	switch v := r.Header["Sec-Websocket-Version"]; {
	case len(v) != 1:
		return refuse(http.StatusBadRequest, "exactly one Sec-WebSocket-Version is required", versionHeader)
	case v[0] != "13":
		return refuse(http.StatusUpgradeRequired, "the WebSocket version must be 13", upgradeHeader, versionHeader)
	}
	key := r.Header["Sec-Websocket-Key"]
	if len(key) != 1 {
		return refuse(http.StatusBadRequest, "exactly one Sec-WebSocket-Key is required")
	}
	if raw, err := base64.StdEncoding.Strict().DecodeString(key[0]); err != nil || len(raw) != 16 {
		return refuse(http.StatusBadRequest, "Sec-WebSocket-Key must be 16 bytes in base64")
	}
	return nil
}

// allZero accepts the Content-Length: 0 that some clients send with a GET.
func allZero(values []string) bool { return len(values) == 1 && values[0] == "0" }

// hasToken reports whether one of the lists of comma-separated tokens has it.
func hasToken(lists []string, token string) bool {
	for _, list := range lists {
		for t := range strings.SplitSeq(list, ",") {
			if strings.EqualFold(strings.Trim(t, " \t"), token) {
				return true
			}
		}
	}
	return false
}

// upgradeAnswer returns the 101 response to a key that was checked. No
// subprotocol and no extension is ever accepted.
func upgradeAnswer(key string) ([]byte, *refusal) {
	var out bytes.Buffer
	in := strings.NewReader("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + "\r\n\r\n")
	_, err := ws.Upgrader{}.Upgrade(struct {
		io.Reader
		io.Writer
	}{in, &out})
	var rejected *ws.ConnectionRejectedError
	switch {
	case errors.As(err, &rejected):
		return nil, refuse(rejected.StatusCode(), rejected.Error())
	case err != nil:
		return nil, refuse(http.StatusBadRequest, "malformed upgrade request")
	}
	return out.Bytes(), nil
}

// checkAccess applies the path and origin rules of the server.
func (c *Config) checkAccess(r *Request) *refusal {
	if !pathMatches(c.Path, r.Path) {
		return refuse(http.StatusNotFound, "no such path")
	}
	if len(r.Header["Origin"]) > 1 {
		return refuse(http.StatusBadRequest, "more than one Origin field")
	}
	if !c.originAllowed(r) {
		return refuse(http.StatusForbidden, "origin not allowed")
	}
	return nil
}

// pathMatches reports whether path is prefix or below it.
func pathMatches(prefix, path string) bool {
	prefix = strings.Trim(prefix, "/")
	if prefix == "" {
		return true
	}
	rest, ok := strings.CutPrefix(strings.TrimPrefix(path, "/"), prefix)
	return ok && (rest == "" || rest[0] == '/')
}
