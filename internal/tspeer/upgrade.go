package tspeer

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

const (
	helloID       = "id"
	helloClientID = "client-id"

	maxHelloBytes  = 500 // the browser client takes a longer binary frame for a packet
	idFrameDelay   = 10 * time.Millisecond
	delayTolerance = time.Millisecond // timers are not more exact
)

// requestUpgrade sends an upgrade request as recorded, with ids replaced, and checks the answer.
func (l *link) requestUpgrade(u upgrade, actual func(string) string) error {
	headers, err := parseJSON(json.NewDecoder(bytes.NewReader(u.RequestHeaders)))
	if err != nil {
		return fmt.Errorf("tspeer: recorded headers: %w", err)
	}
	var req strings.Builder
	req.WriteString(actual(u.RequestLine) + "\r\n")
	for _, h := range headers.(Object) {
		fmt.Fprintf(&req, "%s: %s\r\n", h.Key, actual(h.Value.(string)))
	}
	req.WriteString("\r\n")
	if _, err := l.nc.Write([]byte(req.String())); err != nil {
		return violation(RuleUpgrade, "the request was not read: %v", err)
	}
	resp, err := http.ReadResponse(l.r, nil)
	if err != nil {
		return violation(RuleUpgrade, "no response: %v", err)
	}
	return checkResponse(resp, headers.(Object).text("sec-websocket-key"))
}

// checkResponse checks an upgrade's response as the clients do. RFC 6455 section 4.1.
func checkResponse(resp *http.Response, key string) error {
	h := resp.Header
	switch {
	case resp.StatusCode != http.StatusSwitchingProtocols:
		return violation(RuleUpgrade, "status %s, want 101", resp.Status)
	case !strings.EqualFold(h.Get("Upgrade"), "websocket") || !strings.EqualFold(h.Get("Connection"), "upgrade"):
		return violation(RuleUpgrade, "response headers %v", h)
	case h.Get("Sec-Websocket-Accept") != acceptKey(key):
		return violation(RuleUpgrade, "sec-websocket-accept %q, want %q", h.Get("Sec-Websocket-Accept"), acceptKey(key))
	case h.Get("Sec-Websocket-Protocol") != "":
		return violation(RuleUpgrade, "subprotocol %q, which nobody offered", h.Get("Sec-Websocket-Protocol"))
	case h.Get("Sec-Websocket-Extensions") != "":
		return violation(RuleUpgrade, "extension %q, which the original's server never accepts", h.Get("Sec-Websocket-Extensions"))
	}
	return nil
}

// acceptKey returns the answer to a Sec-WebSocket-Key. RFC 6455 section 4.2.2.
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// acceptUpgrade reads an upgrade request, checks it as the servers do, and accepts it with the headers that the original writes.
func (l *link) acceptUpgrade() (*http.Request, error) {
	req, err := http.ReadRequest(l.r)
	if err != nil {
		return nil, violation(RuleUpgrade, "no request: %v", err)
	}
	if err := checkRequest(req); err != nil {
		return req, err
	}
	var resp bytes.Buffer
	w := bufio.NewWriter(&resp)
	_, _ = fmt.Fprintf(w, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", acceptKey(req.Header.Get("Sec-Websocket-Key")))
	_ = w.Flush()
	if _, err := l.nc.Write(resp.Bytes()); err != nil {
		return req, violation(RuleUpgrade, "the response was not read: %v", err)
	}
	return req, nil
}

// checkRequest checks an upgrade request. RFC 6455 section 4.2.1.
func checkRequest(req *http.Request) error {
	h := req.Header
	key, err := base64.StdEncoding.DecodeString(h.Get("Sec-Websocket-Key"))
	const keyBytes = 16
	switch {
	case req.Method != http.MethodGet || !req.ProtoAtLeast(1, 1):
		return violation(RuleUpgrade, "%s %s", req.Method, req.Proto)
	case !strings.EqualFold(h.Get("Upgrade"), "websocket") || !strings.Contains(strings.ToLower(h.Get("Connection")), "upgrade"):
		return violation(RuleUpgrade, "request headers %v", h)
	case h.Get("Sec-Websocket-Version") != "13":
		return violation(RuleUpgrade, "version %q", h.Get("Sec-Websocket-Version"))
	case err != nil || len(key) != keyBytes:
		return violation(RuleUpgrade, "key %q", h.Get("Sec-Websocket-Key"))
	case h.Get("Sec-Websocket-Protocol") != "":
		return violation(RuleUpgrade, "subprotocol %q: the original's server echoes it blindly", h.Get("Sec-Websocket-Protocol"))
	case req.Host == "":
		return violation(RuleUpgrade, "no host")
	}
	return nil
}

// parseHello reads a handshake message that must be of the given type.
func parseHello(data []byte, want string) (*Hello, error) {
	var h Hello
	if err := json.Unmarshal(data, &h); err != nil || len(data) == 0 || data[0] != '{' {
		return nil, violation(RuleHello, "%.80q is no JSON object (%v)", data, errors.Unwrap(err))
	}
	if h.Type != want || h.ID == "" {
		return nil, violation(RuleHello, "%s, want type %q and an id", data, want)
	}
	h.raw = data
	return &h, nil
}
