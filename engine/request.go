package engine

import (
	"bytes"
	"crypto/tls"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
)

// Request is what the upgrade request of a client said.
type Request struct {
	// Path is the decoded path.
	Path string
	// RawQuery is the query as it came, without the question mark.
	RawQuery string
	// Query holds the parameters of RawQuery that could be decoded.
	Query url.Values
	// Header holds all fields except Host, under canonical names.
	Header http.Header
	// Host is the Host field.
	Host string
	// TLS describes the TLS connection; nil without TLS.
	TLS *tls.ConnectionState

	head []byte // as it came; nil if net/http has read it
}

// refusal is an HTTP answer that is not an upgrade.
type refusal struct {
	status int
	text   string
	header [][2]string
}

func refuse(status int, text string, header ...[2]string) *refusal {
	return &refusal{status: status, text: text, header: header}
}

func (r *refusal) Error() string { return r.text }

// versionHeader tells a client which version to use (RFC 6455 section 4.4).
var versionHeader = [2]string{"Sec-WebSocket-Version", "13"}

// upgradeHeader must be part of status 426 (RFC 9110 section 15.5.22).
var upgradeHeader = [2]string{"Upgrade", "websocket"}

// append appends the refusal as a complete HTTP response.
func (r *refusal) append(dst []byte) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = appendInt(dst, r.status)
	dst = append(dst, ' ')
	dst = append(dst, http.StatusText(r.status)...)
	connection := "close"
	for _, h := range r.header {
		if h == upgradeHeader {
			connection = "Upgrade, close"
		}
		dst = append(dst, "\r\n"+h[0]+": "+h[1]...)
	}
	dst = append(dst, "\r\nConnection: "+connection+"\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\nContent-Length: "...)
	dst = appendInt(dst, len(r.text)+1)
	dst = append(dst, "\r\n\r\n"...)
	dst = append(dst, r.text...)
	return append(dst, '\n')
}

func appendInt(dst []byte, n int) []byte {
	if n >= 10 {
		dst = appendInt(dst, n/10)
	}
	return append(dst, byte('0'+n%10))
}

// parseRequest reads the head of an upgrade request: the lines up to and
// including the empty one; the request keeps head. It is stricter than HTTP allows where leniency lets
// two parsers disagree about a request (RFC 9112 section 11.2).
func parseRequest(head []byte) (*Request, *refusal) {
	line, rest, _ := bytes.Cut(head, crlf)
	method, target, version, ok := splitRequestLine(string(line))
	if !ok {
		return nil, refuse(http.StatusBadRequest, "malformed request line")
	}
	if version != "HTTP/1.1" {
		return nil, refuse(http.StatusHTTPVersionNotSupported, "HTTP/1.1 is required")
	}
	req := &Request{Header: make(http.Header), head: head}
	for {
		line, rest, ok = bytes.Cut(rest, crlf)
		if !ok || len(line) == 0 {
			break
		}
		name, value, ok := splitField(line)
		if !ok {
			return nil, refuse(http.StatusBadRequest, "malformed header field")
		}
		req.Header[name] = append(req.Header[name], value)
	}
	host := req.Header["Host"]
	if len(host) != 1 || strings.ContainsAny(host[0], "/@, \t") {
		return nil, refuse(http.StatusBadRequest, "exactly one valid Host field is required")
	}
	req.Host = host[0]
	delete(req.Header, "Host")
	if r := req.checkFields(method); r != nil {
		return nil, r
	}
	return req, req.setTarget(target)
}

var crlf = []byte("\r\n")

func splitRequestLine(line string) (method, target, version string, ok bool) {
	method, rest, ok1 := strings.Cut(line, " ")
	target, version, ok2 := strings.Cut(rest, " ")
	if !ok1 || !ok2 || method == "" || target == "" || strings.Contains(version, " ") {
		return "", "", "", false
	}
	for i := range len(line) {
		if line[i] < ' ' || line[i] >= 0x7f {
			return "", "", "", false
		}
	}
	return method, target, version, true
}

// splitField splits a header line. It accepts no white space around the name,
// which rules out line folding too.
func splitField(line []byte) (name, value string, ok bool) {
	k, v, ok := bytes.Cut(line, []byte(":"))
	if !ok || len(k) == 0 {
		return "", "", false
	}
	for _, b := range k {
		if !isTokenByte(b) {
			return "", "", false
		}
	}
	v = bytes.Trim(v, " \t")
	for _, b := range v {
		if b < ' ' && b != '\t' || b == 0x7f {
			return "", "", false
		}
	}
	return textproto.CanonicalMIMEHeaderKey(string(k)), string(v), true
}

// isTokenByte reports whether b may be in a field name (RFC 9110 section 5.6.2).
func isTokenByte(b byte) bool {
	switch {
	case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b >= '0' && b <= '9':
		return true
	}
	return strings.IndexByte("!#$%&'*+-.^_`|~", b) >= 0
}

// setTarget takes path and query from the request target, in origin form or
// absolute form.
func (r *Request) setTarget(target string) *refusal {
	u, err := url.ParseRequestURI(target)
	if err != nil || target[0] != '/' && u.Host == "" || strings.Contains(target, "#") {
		return refuse(http.StatusBadRequest, "malformed request target")
	}
	r.setURL(u)
	return nil
}

func (r *Request) setURL(u *url.URL) {
	r.Path = u.Path
	if r.Path == "" {
		r.Path = "/"
	}
	r.RawQuery = u.RawQuery
	r.Query, _ = url.ParseQuery(u.RawQuery) // what can be decoded
}
