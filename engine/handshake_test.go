package engine

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// request builds an upgrade request with lines replaced: "Name: value" replaces
// the field or adds it, "-Name" removes it.
func request(line string, changes ...string) string {
	fields := []string{"Host: server", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}
	for _, ch := range changes {
		name, _, _ := strings.Cut(strings.TrimPrefix(ch, "-"), ":")
		found := false
		for i, f := range fields {
			if strings.HasPrefix(strings.ToLower(f), strings.ToLower(name)+":") {
				found = true
				fields[i] = ch
				if ch[0] == '-' {
					fields = append(fields[:i], fields[i+1:]...)
				}
				break
			}
		}
		if !found {
			fields = append(fields, ch)
		}
	}
	return line + "\r\n" + strings.Join(fields, "\r\n") + "\r\n\r\n"
}

const get = "GET / HTTP/1.1"

// handshakeCases lists requests and the status they get. http is the status
// through an http.Server where net/http decides before us; 0 means the same.
var handshakeCases = []struct {
	name    string
	request string
	status  int
	http    int
}{
	{"plain", request(get), 101, 0},
	{"field names in any case", strings.ToLower(request(get))[len(get):], 400, 0},
	{"lower case names", get + "\r\nhost: server\r\nupgrade: WebSocket\r\nconnection: keep-alive, upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", 101, 0},
	{"subprotocol offered", request(get, "Sec-WebSocket-Protocol: chat, superchat"), 101, 0},
	{"extension offered", request(get, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"), 101, 0},
	{"Content-Length: 0", request(get, "Content-Length: 0"), 101, 0},
	{"any path", request("GET /a/b?c=d HTTP/1.1"), 101, 0},
	{"absolute target", request("GET ws://server/a HTTP/1.1"), 101, 0},
	{"POST", request("POST / HTTP/1.1"), 405, 0},
	{"HTTP/1.0", request("GET / HTTP/1.0"), 505, 0},
	{"HTTP/2.0", request("GET / HTTP/2.0"), 505, 505},
	{"HTTP/1.9", request("GET / HTTP/1.9"), 505, 101},
	{"no version", request("GET /"), 400, 0},
	{"two spaces", request("GET  / HTTP/1.1"), 400, 0},
	{"no target", request("GET HTTP/1.1"), 400, 0},
	{"fragment in target", request("GET /#x HTTP/1.1"), 400, 101},
	{"asterisk", request("GET * HTTP/1.1"), 400, 400},
	{"control byte in target", request("GET /\x01 HTTP/1.1"), 400, 0},
	{"not HTTP", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", 400, 0},
	{"no Host", request(get, "-Host"), 400, 0},
	{"two Hosts", strings.Replace(request(get), "Host: server", "Host: server\r\nHost: other", 1), 400, 0},
	{"bad Host", request(get, "Host: a/b"), 400, 0},
	{"no Upgrade", request(get, "-Upgrade"), 426, 0},
	{"other Upgrade", request(get, "Upgrade: h2c"), 426, 0},
	{"no Connection", request(get, "-Connection"), 400, 0},
	{"other Connection", request(get, "Connection: close"), 400, 0},
	{"no version field", request(get, "-Sec-WebSocket-Version"), 400, 0},
	{"version 8", request(get, "Sec-WebSocket-Version: 8"), 426, 0},
	{"no key", request(get, "-Sec-WebSocket-Key"), 400, 0},
	{"short key", request(get, "Sec-WebSocket-Key: dGhlIHNhbXBsZQ=="), 400, 0},
	{"key not base64", request(get, "Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!=="), 400, 0},
	{"two keys", strings.Replace(request(get), "Sec-WebSocket-Key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key", 1), 400, 0},
	{"two versions", strings.Replace(request(get), "Sec-WebSocket-Version", "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version", 1), 400, 0},
	{"body", request(get, "Content-Length: 5") + "hello", 400, 0},
	{"chunked body", request(get, "Transfer-Encoding: chunked") + "0\r\n\r\n", 400, 0},
	{"two Content-Lengths", request(get, "Content-Length: 0\r\nContent-Length: 5") + "hello", 400, 0},
	{"bare LF", strings.ReplaceAll(request(get), "\r\n", "\n"), 400, 101},
	{"one bare LF", strings.Replace(request(get), "Host: server\r\n", "Host: server\n", 1), 400, 101},
	{"bare CR", request(get, "X: a\rb"), 400, 0},
	{"space before colon", request(get, "X : a"), 400, 0},
	{"folded line", request(get, "X: a\r\n b"), 400, 101},
	{"no colon", request(get, "X"), 400, 0},
	{"NUL in value", request(get, "X: a\x00b"), 400, 0},
	{"empty name", request(get, ": a"), 400, 0},
	{"empty first line", "\r\n" + request(get), 400, 0},
	{"cross origin", request(get, "Origin: https://evil.example"), 403, 0},
	{"null origin", request(get, "Origin: null"), 403, 0},
	{"two origins", request(get, "Origin: http://server\r\nOrigin: http://evil.example"), 400, 0},
	{"same origin", request(get, "Origin: http://server"), 101, 0},
	{"same origin, port written", request(get, "Origin: http://SERVER:80"), 101, 0},
	{"other port", request(get, "Origin: http://server:8080"), 403, 0},
	{"fetch metadata says cross-site", request(get, "Origin: http://server\r\nSec-Fetch-Site: cross-site"), 403, 0},
	{"fetch metadata says same-origin", request(get, "Origin: http://public.example\r\nSec-Fetch-Site: same-origin"), 101, 0},
	{"fetch metadata without origin", request(get, "Sec-Fetch-Site: cross-site"), 403, 0},
}

func TestHandshakeRequests(t *testing.T) {
	for _, d := range drivers() {
		t.Run(d.name, func(t *testing.T) {
			run := func(t *testing.T) {
				p := d.listen(t)
				s := NewServer(Config{TLS: p.tls, Driver: p.driver}, func(c *Conn) { c.Start(NewEcho(c)) })
				t.Cleanup(p.serve(s, p.ln))
				for _, tt := range handshakeCases {
					want := tt.status
					if d.name == "http" && tt.http != 0 {
						want = tt.http
					}
					testHandshake(t, p, tt.name, tt.request, want, d.name != "http")
				}
			}
			if d.virtual {
				synctest.Test(t, run)
				return
			}
			run(t)
		})
	}
}

func testHandshake(t *testing.T, p *place, name, req string, status int, ours bool) {
	t.Helper()
	nc, err := p.dial()
	if err != nil {
		t.Fatal(err)
	}
	tc := newConversation(t, nc, true)
	defer nc.Close()
	tc.write([]byte(req))
	resp := tc.wantStatus(name, status)
	if status == 101 {
		for _, h := range []string{"Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"} {
			if got := resp.Header.Get(h); got != "" {
				t.Errorf("%s: answer has %s: %s, want none", name, h, got)
			}
		}
		tc.writeFrame(text, "works")
		tc.wantFrame(name, text, "works")
		return
	}
	io.Copy(io.Discard, resp.Body)
	if !ours {
		return
	}
	if !resp.Close || resp.ContentLength <= 0 {
		t.Errorf("%s: answer has close %v, length %d, want a complete answer with Connection: close", name, resp.Close, resp.ContentLength)
	}
	if status == 426 && (resp.Header.Get("Upgrade") != "websocket" || resp.Header.Get("Sec-WebSocket-Version") != "13") {
		t.Errorf("%s: answer has header %v, want Upgrade and Sec-WebSocket-Version", name, resp.Header)
	}
	tc.wantEOF(name + ": orderly end after the answer")
}

// TestHandshakeLimits checks the limits on the head of a request, at the limit
// and past it.
func TestHandshakeLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := listenMemory(t)
		s := NewServer(Config{MaxHeaderBytes: 1000, MaxRequestLine: 200}, func(c *Conn) { c.Start(NewEcho(c)) })
		t.Cleanup(p.serve(s, p.ln))
		line := func(n int) string { return "GET /" + strings.Repeat("x", n-len("GET / HTTP/1.1\r\n")) + " HTTP/1.1" }
		head := func(n int) string {
			const f = "X: "
			empty := len(request(get, f))
			return request(get, f+strings.Repeat("y", n-empty))
		}
		for _, tt := range []struct {
			name, request string
			status        int
		}{
			{"line at the limit", request(line(200)), 101},
			{"line past it", request(line(202)), 414},
			{"endless line", strings.Repeat("x", 5000), 414},
			{"head at the limit", head(1000), 101},
			{"head past it", head(1001), 431},
			{"many fields", get + "\r\n" + strings.Repeat("A: b\r\n", 1000), 431},
			{"head past it, body behind", head(1001) + strings.Repeat("z", 60<<10), 431},
		} {
			testHandshake(t, p, tt.name, tt.request, tt.status, true)
		}
		if got := s.Stats(); got.Accepted != 2 || got.Refused != 5 {
			t.Errorf("Stats() = %+v, want 2 accepted and 5 refused", got)
		}
	})
}

func TestHandshakeTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := listenMemory(t)
		s := NewServer(Config{}, func(c *Conn) { c.Start(NewEcho(c)) })
		t.Cleanup(p.serve(s, p.ln))
		for name, sent := range map[string]string{"nothing sent": "", "half a request": goodRequest[:40]} {
			nc, _ := p.dial()
			tc := newConversation(t, nc, true)
			start := time.Now()
			tc.write([]byte(sent))
			tc.wantStatus(name, http.StatusRequestTimeout)
			if d := time.Since(start); d != 10*time.Second {
				t.Errorf("%s: answer after %v, want 10s", name, d)
			}
		}
		// A drip does not extend the time.
		nc, _ := p.dial()
		dripped := nc
		tc := newConversation(t, nc, true)
		start := time.Now()
		go func() {
			for i := range len(goodRequest) {
				if _, err := dripped.Write([]byte(goodRequest[i : i+1])); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		tc.wantStatus("drip", http.StatusRequestTimeout)
		if d := time.Since(start); d != 10*time.Second {
			t.Errorf("drip: answer after %v, want 10s", d)
		}
		nc.Close()
		// A client that ignores the answer is cut off.
		nc, _ = p.dial()
		tc = newConversation(t, nc, true)
		tc.nc.SetDeadline(time.Now().Add(time.Hour))
		tc.wantStatus("no request", http.StatusRequestTimeout)
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if _, err := nc.Write([]byte("x")); err == nil {
			t.Error("socket still open after the close limit")
		}
	})
}

// TestHandshakeEveryCut delivers a request in two parts, cut at every byte.
func TestHandshakeEveryCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := listenMemory(t)
		s := NewServer(Config{}, func(c *Conn) { c.Start(NewEcho(c)) })
		t.Cleanup(p.serve(s, p.ln))
		stream := append([]byte(goodRequest), testFrame(true, text, []byte("behind"))...)
		for cut := range len(stream) {
			nc, _ := p.dial()
			tc := newConversation(t, nc, true)
			tc.write(stream[:cut])
			synctest.Wait()
			tc.write(stream[cut:])
			tc.wantUpgrade()
			tc.wantFrame("bytes behind the request", text, "behind")
			nc.Close()
		}
	})
}

func TestOriginRules(t *testing.T) {
	for _, tt := range []struct {
		allowed []string
		origin  string
		host    string
		want    bool
	}{
		{nil, "https://a.example", "a.example", true},
		{nil, "https://a.example", "a.example:443", true},
		{nil, "https://a.example:443", "a.example", true},
		{nil, "http://a.example", "a.example:443", false},
		{nil, "https://a.example", "b.example", false},
		{nil, "https://a.example.evil", "a.example", false},
		{nil, "http://[::1]:80", "[::1]", true},
		{nil, "http://[::1]:8080", "[::1]:8080", true},
		{nil, "", "a.example", false}, // the field is there, and empty
		{nil, "a.example", "a.example", false},
		{[]string{"https://a.example"}, "https://a.example", "other", true},
		{[]string{"https://a.example/"}, "https://A.example", "other", true},
		{[]string{"https://a.example"}, "http://a.example", "other", false},
		{[]string{"https://a.example"}, "https://b.example", "other", false},
		{[]string{"*"}, "null", "other", true},
	} {
		cfg := Config{AllowedOrigins: tt.allowed}
		r := &Request{Host: tt.host, Header: http.Header{"Origin": {tt.origin}}}
		if got := cfg.originAllowed(r); got != tt.want {
			t.Errorf("originAllowed(%q to %q, allowing %q) = %v, want %v", tt.origin, tt.host, tt.allowed, got, tt.want)
		}
	}
}

func TestPathPrefix(t *testing.T) {
	for _, tt := range []struct {
		prefix, path string
		want         bool
	}{
		{"", "/any", true},
		{"/", "/any", true},
		{"/ws", "/ws", true},
		{"ws/", "/ws", true},
		{"/ws", "/ws/a", true},
		{"/ws", "/wsx", false},
		{"/ws", "/", false},
		{"/a/b", "/a", false},
		{"/a/b", "/a/b/c", true},
	} {
		if got := pathMatches(tt.prefix, tt.path); got != tt.want {
			t.Errorf("pathMatches(%q, %q) = %v, want %v", tt.prefix, tt.path, got, tt.want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		p := listenMemory(t)
		s := NewServer(Config{Path: "/ws"}, func(c *Conn) { c.Start(NewEcho(c)) })
		t.Cleanup(p.serve(s, p.ln))
		testHandshake(t, p, "the path", request("GET /ws?x=1 HTTP/1.1"), 101, true)
		testHandshake(t, p, "another path", request("GET /other HTTP/1.1"), 404, true)
	})
}

func TestRequestContents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := listenMemory(t)
		conns := make(chan *Conn, 1)
		s := NewServer(Config{}, func(c *Conn) { c.Start(NewEcho(c)); conns <- c })
		t.Cleanup(p.serve(s, p.ln))
		cfg := p.cfg
		cfg.Header = http.Header{"X-Netron-Id": {"me"}, "Upgrade": {"nonsense"}, "X-Evil": {"a\r\nHost: b"}}
		cfg.Query = url.Values{"id": {"a b&c"}}
		c, err := Dial(t.Context(), "ws://user:pw@server/p%20q?x=1", &cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		r := (<-conns).Request()
		if r.Path != "/p q" || r.Query.Get("x") != "1" || r.Query.Get("id") != "a b&c" || r.Host != "server" {
			t.Errorf("Request() = %+v, want path, query and host as dialled", r)
		}
		user, pw, _ := (&http.Request{Header: r.Header}).BasicAuth()
		if r.Header.Get("X-Netron-Id") != "me" || user != "user" || pw != "pw" || len(r.Header["Host"]) != 0 {
			t.Errorf("Request().Header = %v, want the dialler's fields", r.Header)
		}
	})
}

func TestDialTargets(t *testing.T) {
	for _, tt := range []struct{ in, want, addr string }{
		{"127.0.0.1:8080", "ws://127.0.0.1:8080/", "127.0.0.1:8080"},
		{"localhost", "ws://localhost/", "localhost:80"},
		{"ws://h/p?q", "ws://h/p?q", "h:80"},
		{"wss://h", "wss://h/", "h:443"},
		{"ws://[::1]:99/x", "ws://[::1]:99/x", "[::1]:99"},
		{"[::1]", "ws://[::1]/", "[::1]:80"},
		{"http://h", "", ""},
		{"ws://", "", ""},
		{"ws://h/#f", "", ""},
		{"ws://h/#", "", ""},
		{"ws://h:port", "", ""},
		{"", "", ""},
	} {
		var addr string
		stop := errors.New("stop")
		cfg := DialConfig{NetDial: func(_ context.Context, _, a string) (net.Conn, error) { addr = a; return nil, stop }}
		u, err := cfg.target(tt.in)
		if (err == nil) != (tt.want != "") || err == nil && u.String() != tt.want {
			t.Errorf("target(%q) = %v, %v, want %q", tt.in, u, err, tt.want)
		}
		if _, err := Dial(t.Context(), tt.in, &cfg); tt.want != "" && !errors.Is(err, stop) || addr != tt.addr {
			t.Errorf("Dial(%q) = %v at %q, want to dial %q", tt.in, err, addr, tt.addr)
		}
	}
}

// TestDialAnswers checks what Dial makes of answers to its upgrade.
func TestDialAnswers(t *testing.T) {
	const accept = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: KEY\r\n"
	for _, tt := range []struct {
		name, answer string
		ok           bool
		status       int
	}{
		{"good", accept + "\r\n", true, 0},
		{"wrong key", strings.Replace(accept, "KEY", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", 1) + "\r\n", false, 0},
		{"no key", strings.Replace(accept, "Sec-WebSocket-Accept: KEY\r\n", "", 1) + "\r\n", false, 0},
		{"no upgrade", strings.Replace(accept, "Upgrade: websocket\r\n", "", 1) + "\r\n", false, 0},
		{"subprotocol not asked for", accept + "Sec-WebSocket-Protocol: chat\r\n\r\n", false, 0},
		{"extension not asked for", accept + "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n", false, 0},
		{"refused", "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", false, 403},
		{"redirect", "HTTP/1.1 302 Found\r\nLocation: ws://other\r\n\r\n", false, 302},
		{"not HTTP", "SSH-2.0-OpenSSH\r\n\r\n", false, 0},
		{"end of stream", "", false, 0},
		{"endless header", accept + strings.Repeat("X-A: b\r\n", 10_000), false, 0},
		{"endless line", "HTTP/1.1 101 " + strings.Repeat("x", 100_000), false, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := listenMemory(t)
			go func() {
				nc, _ := p.ln.Accept()
				head, _, _ := (&headScanner{maxHead: 1 << 20, maxLine: 1 << 20}).readHead(nc)
				req, _ := parseRequest(head)
				good, _ := upgradeAnswer(req.Header.Get("Sec-WebSocket-Key"))
				_, key, _ := bytes.Cut(good, []byte("Accept: "))
				key, _, _ = bytes.Cut(key, []byte("\r"))
				nc.Write([]byte(strings.Replace(tt.answer, "KEY", string(key), 1)))
				nc.(interface{ CloseWrite() error }).CloseWrite()
				io.Copy(io.Discard, nc)
				nc.Close()
			}()
			c, err := Dial(t.Context(), p.url, &p.cfg)
			if (err == nil) != tt.ok {
				t.Errorf("%s: Dial = %v, want success %v", tt.name, err, tt.ok)
			}
			var he *HandshakeError
			if errors.As(err, &he) != (tt.status != 0) || he != nil && he.Status != tt.status {
				t.Errorf("%s: Dial = %v, want status %d", tt.name, err, tt.status)
			}
			if c != nil {
				c.Close()
			}
			p.ln.Close()
		})
	}
}

func TestDialContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := listenMemory(t) // nobody answers
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		_, err := Dial(ctx, p.url, &p.cfg)
		if d := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || d != 3*time.Second {
			t.Errorf("Dial = %v after %v, want DeadlineExceeded after 3s", err, d)
		}
		start = time.Now()
		_, err = Dial(t.Context(), p.url, &p.cfg)
		if d := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || d != 10*time.Second {
			t.Errorf("Dial = %v after %v, want DeadlineExceeded after 10s", err, d)
		}
		ctx, cancel = context.WithCancel(t.Context())
		go func() { time.Sleep(time.Second); cancel() }()
		if _, err = Dial(ctx, p.url, &p.cfg); !errors.Is(err, context.Canceled) {
			t.Errorf("Dial = %v, want Canceled", err)
		}
		// After the upgrade the context has no effect.
		s := NewServer(Config{}, func(c *Conn) { c.Start(NewEcho(c)) })
		p = listenMemory(t)
		t.Cleanup(p.serve(s, p.ln))
		ctx, cancel = context.WithCancel(t.Context())
		c, err := Dial(ctx, p.url, &p.cfg)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		rec := newRecorder()
		c.Start(rec)
		rec.send(c.AppendFrame(nil, true, []byte("alive")))
		c.Kick()
		if got := rec.wait(1); len(got) != 1 {
			t.Errorf("messages = %q, want the echo", got)
		}
		c.Close()
	})
}

// TestDialTLSTimeout checks that ctx covers the TLS handshake.
func TestDialTLSTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := listenMemory(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := Dial(ctx, "wss://server", &p.cfg); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Dial = %v, want DeadlineExceeded", err)
		}
	})
}

// TestDialTLSVerifies checks that certificates are verified unless asked otherwise.
func TestDialTLSVerifies(t *testing.T) {
	p := listenTLS(t)
	s := NewServer(Config{TLS: p.tls}, func(c *Conn) { c.Start(NewEcho(c)) })
	t.Cleanup(p.serve(s, p.ln))
	var unknown *tls.CertificateVerificationError
	if _, err := Dial(t.Context(), p.url, nil); !errors.As(err, &unknown) {
		t.Errorf("Dial = %v, want a certificate error", err)
	}
	c, err := Dial(t.Context(), p.url, &p.cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func ExampleHandshakeError() {
	var err error = &HandshakeError{Status: 403, Reason: "Forbidden"}
	fmt.Println(err)
	// Output: engine: upgrade refused: 403 Forbidden
}
