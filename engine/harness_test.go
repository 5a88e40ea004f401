package engine

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron/internal/memlink"
)

// patience is how long a conversation waits for the other side. It is real time,
// except on the memory link, and longer than every limit of the engine; tests do not measure it.
const patience = 100 * time.Second

// driver is one way for two sides to meet. The contract tests run over each.
type driver struct {
	name    string
	virtual bool // runs in a synctest bubble
	// listen returns a listener, and how to reach it: url and cfg for Dial, dial
	// for a raw connection. serve runs a server on it.
	listen func(t testing.TB) *place
	// noDial is set where only the server's side differs from another driver.
	noDial bool
}

// place is a listener and the way to it.
type place struct {
	ln     net.Listener
	driver Driver // for Config.Driver
	url    string
	cfg    DialConfig
	dial   func() (net.Conn, error)
	tls    *tls.Config // for Config.TLS
	serve  func(s *Server, ln net.Listener) (stop func())
}

func drivers() []driver {
	return []driver{
		{name: "tcp", listen: listenTCP},
		{name: "epoll", listen: listenEpoll},
		{name: "tls", listen: listenTLS},
		{name: "memory", listen: listenMemory, virtual: true},
		{name: "http", listen: listenHTTP, noDial: true},
	}
}

// socketDrivers are those that talk to a plain socket.
func socketDrivers() []driver { return drivers()[:2] }

func serveEngine(s *Server, ln net.Listener) (stop func()) {
	var wg sync.WaitGroup
	wg.Go(func() { s.Serve(ln) })
	return func() { s.Close(); wg.Wait() }
}

func listenTCP(t testing.TB) *place {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return &place{
		ln: ln, driver: DriverStd, url: "ws://" + ln.Addr().String(), serve: serveEngine,
		dial: func() (net.Conn, error) { return net.Dial("tcp", ln.Addr().String()) },
	}
}

func listenEpoll(t testing.TB) *place {
	t.Helper()
	p := listenTCP(t)
	p.driver = DriverEpoll
	return p
}

func listenTLS(t testing.TB) *place {
	p := listenTCP(t)
	p.tls = &tls.Config{Certificates: []tls.Certificate{testCertificate(t)}}
	addr := p.ln.Addr().String()
	roots := x509.NewCertPool()
	roots.AddCert(p.tls.Certificates[0].Leaf)
	p.cfg.TLS = &tls.Config{RootCAs: roots}
	p.url = "wss://" + addr
	p.dial = func() (net.Conn, error) { return tls.Dial("tcp", addr, p.cfg.TLS) }
	return p
}

func listenMemory(testing.TB) *place {
	l := memlink.Listen("server")
	p := &place{ln: l, url: "ws://server", serve: serveEngine}
	p.cfg.NetDial = l.Dial
	p.dial = func() (net.Conn, error) { return l.Dial(context.Background(), "", "") }
	return p
}

func listenHTTP(t testing.TB) *place {
	p := listenTCP(t)
	p.serve = func(s *Server, ln net.Listener) func() {
		hs := &http.Server{Handler: s}
		var wg sync.WaitGroup
		wg.Go(func() { hs.Serve(ln) })
		return func() { hs.Close(); s.Close(); wg.Wait() }
	}
	return p
}

var testCert struct {
	once sync.Once
	cert tls.Certificate
	err  error
}

func testCertificate(t testing.TB) tls.Certificate {
	t.Helper()
	c := &testCert
	c.once.Do(func() {
		var key *ecdsa.PrivateKey
		if key, c.err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); c.err != nil {
			return
		}
		tmpl := &x509.Certificate{
			SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		}
		var der []byte
		if der, c.err = x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key); c.err != nil {
			return
		}
		c.cert = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
		c.cert.Leaf, c.err = x509.ParseCertificate(der)
	})
	if c.err != nil {
		t.Fatal(c.err)
	}
	return c.cert
}

// role is the side of the connection that the engine plays in a test; the test
// plays the other one, byte by byte.
type role struct {
	driver
	dials bool
}

// forEachRole runs f over every driver, with the engine as server and as client.
func forEachRole(t *testing.T, f func(t *testing.T, r role)) {
	for _, d := range drivers() {
		for _, dials := range []bool{false, true} {
			if dials && d.noDial {
				continue
			}
			r := role{d, dials}
			name := d.name + "/server"
			if dials {
				name = d.name + "/client"
			}
			t.Run(name, func(t *testing.T) {
				if !d.virtual {
					f(t, r)
					return
				}
				synctest.Test(t, func(t *testing.T) { f(t, r) })
			})
		}
	}
}

// echo is the usual way to make a handler for open.
func echo(c *Conn) Handler { return NewEcho(c) }

// open connects the engine, with handler h, to a conversation.
func (r role) open(t testing.TB, cfg Config, h func(*Conn) Handler) (*conversation, *Conn) {
	t.Helper()
	tc, c := r.openUnstarted(t, cfg, nil)
	c.Start(h(c))
	return tc, c
}

// openUnstarted leaves the calling of Start to the test. early is what the other
// side sends right behind its handshake.
func (r role) openUnstarted(t testing.TB, cfg Config, early []byte) (*conversation, *Conn) {
	t.Helper()
	p := r.listen(t)
	if r.dials {
		return r.openClient(t, p, cfg, early)
	}
	cfg.TLS, cfg.Driver = p.tls, p.driver
	conns := make(chan *Conn, 1)
	s := NewServer(cfg, func(c *Conn) { conns <- c })
	stop := p.serve(s, p.ln)
	t.Cleanup(stop)
	nc, err := p.dial()
	if err != nil {
		t.Fatal(err)
	}
	tc := newConversation(t, nc, true)
	tc.write(append([]byte(goodRequest), early...))
	tc.wantUpgrade()
	return tc, <-conns
}

func (r role) openClient(t testing.TB, p *place, cfg Config, early []byte) (*conversation, *Conn) {
	t.Helper()
	type result struct {
		nc  net.Conn
		err error
	}
	accepted := make(chan result, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		nc, err := p.ln.Accept()
		if err == nil && p.tls != nil {
			nc = tls.Server(nc, p.tls)
		}
		if err == nil {
			err = answerUpgrade(nc, early)
		}
		accepted <- result{nc, err}
	})
	dc := p.cfg
	tlsCfg := dc.TLS
	dc.Config = cfg
	dc.TLS, dc.Driver = tlsCfg, p.driver
	c, err := Dial(t.Context(), p.url, &dc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); p.ln.Close(); wg.Wait() })
	got := <-accepted
	if got.err != nil {
		t.Fatal(got.err)
	}
	return newConversation(t, got.nc, false), c
}

const goodRequest = "GET / HTTP/1.1\r\nHost: server\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// answerUpgrade plays the server's side of the handshake.
func answerUpgrade(nc net.Conn, early []byte) error {
	br := bufio.NewReader(nc)
	req, err := http.ReadRequest(br)
	if err != nil {
		return err
	}
	if br.Buffered() > 0 {
		return errors.New("bytes behind the upgrade request")
	}
	sum := sha1.Sum([]byte(req.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	_, err = nc.Write(append([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: "+base64.StdEncoding.EncodeToString(sum[:])+"\r\n\r\n"), early...))
	return err
}

// conversation is the other side of the wire: it can send anything, and says
// what it wants to receive and why.
type conversation struct {
	t      testing.TB
	nc     net.Conn
	br     *bufio.Reader
	client bool // this side masks
}

func newConversation(t testing.TB, nc net.Conn, client bool) *conversation {
	t.Cleanup(func() { nc.Close() })
	tc := &conversation{t: t, nc: nc, br: bufio.NewReader(nc), client: client}
	tc.nc.SetDeadline(time.Now().Add(patience))
	return tc
}

// write sends bytes as they are.
func (tc *conversation) write(b []byte) {
	tc.t.Helper()
	if _, err := tc.nc.Write(b); err != nil {
		tc.t.Fatalf("write of %d bytes: %v", len(b), err)
	}
}

// frame builds a frame as this side has to send it.
func (tc *conversation) frame(first byte, payload string) []byte {
	return testFrame(tc.client, first, []byte(payload))
}

// testFrame builds frames independently of the engine's code.
func testFrame(masked bool, first byte, payload []byte) []byte {
	b := []byte{first}
	var m byte
	if masked {
		m = 0x80
	}
	switch n := len(payload); {
	case n < 126:
		b = append(b, m|byte(n))
	case n < 65536:
		b = binary.BigEndian.AppendUint16(append(b, m|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, m|127), uint64(n))
	}
	if !masked {
		return append(b, payload...)
	}
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d} // the key of RFC 6455 section 5.7
	b = append(b, key[:]...)
	for i, c := range payload {
		b = append(b, c^key[i%4])
	}
	return b
}

func (tc *conversation) writeFrame(first byte, payload string) {
	tc.t.Helper()
	tc.write(tc.frame(first, payload))
}

// readFrame reads the next frame.
func (tc *conversation) readFrame() (first byte, payload []byte, err error) {
	var h [2]byte
	if _, err := io.ReadFull(tc.br, h[:]); err != nil {
		return 0, nil, err
	}
	n := uint64(h[1] & 0x7f)
	switch n {
	case 126:
		var b [2]byte
		if _, err := io.ReadFull(tc.br, b[:]); err != nil {
			return 0, nil, err
		}
		n = uint64(binary.BigEndian.Uint16(b[:]))
	case 127:
		var b [8]byte
		if _, err := io.ReadFull(tc.br, b[:]); err != nil {
			return 0, nil, err
		}
		n = binary.BigEndian.Uint64(b[:])
	}
	masked := h[1]&0x80 != 0
	if masked == tc.client {
		return 0, nil, errors.New("frame masked by a server, or not by a client")
	}
	var key [4]byte
	if masked {
		if _, err := io.ReadFull(tc.br, key[:]); err != nil {
			return 0, nil, err
		}
	}
	payload = make([]byte, n)
	if _, err := io.ReadFull(tc.br, payload); err != nil {
		return 0, nil, err
	}
	if masked {
		for i := range payload {
			payload[i] ^= key[i%4]
		}
	}
	return h[0], payload, nil
}

// wantFrame reads the next frame and compares it.
func (tc *conversation) wantFrame(why string, first byte, payload string) {
	tc.t.Helper()
	gotFirst, got, err := tc.readFrame()
	if err != nil {
		tc.t.Fatalf("%s: reading a frame: %v", why, err)
	}
	if gotFirst != first || string(got) != payload {
		tc.t.Fatalf("%s: got frame %#02x %s, want %#02x %s", why, gotFirst, brief(string(got)), first, brief(payload))
	}
}

func brief(s string) string {
	if len(s) > 60 {
		return fmt.Sprintf("%q... (%d bytes)", s[:60], len(s))
	}
	return fmt.Sprintf("%q", s)
}

// wantClose wants a close frame with the code, 0 for none.
func (tc *conversation) wantClose(code uint16, why string) {
	tc.t.Helper()
	first, payload, err := tc.readFrame()
	if err != nil {
		tc.t.Fatalf("%s: want close %d, got: %v", why, code, err)
	}
	got := uint16(0)
	if len(payload) >= 2 {
		got = binary.BigEndian.Uint16(payload)
	}
	if first != 0x88 || got != code {
		tc.t.Fatalf("%s: got frame %#02x %s, want close %d", why, first, brief(string(payload)), code)
	}
}

// wantEOF wants the end of the other direction, in order and with nothing before.
func (tc *conversation) wantEOF(why string) {
	tc.t.Helper()
	b, err := tc.br.ReadByte()
	if err != io.EOF {
		tc.t.Fatalf("%s: got byte %#02x, %v, want the end of the stream", why, b, err)
	}
}

// wantGone wants the connection to be over, in whatever way.
func (tc *conversation) wantGone(why string) {
	tc.t.Helper()
	for {
		if _, err := tc.br.ReadByte(); err != nil {
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				tc.t.Fatalf("%s: still open", why)
			}
			return
		}
	}
}

// wantUpgrade reads the answer to the upgrade.
func (tc *conversation) wantUpgrade() {
	tc.t.Helper()
	resp := tc.wantStatus("upgrade", http.StatusSwitchingProtocols)
	if got := resp.Header.Get("Sec-WebSocket-Accept"); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		tc.t.Fatalf("Sec-WebSocket-Accept = %q, want the example of RFC 6455 section 1.3", got)
	}
}

func (tc *conversation) wantStatus(why string, status int) *http.Response {
	tc.t.Helper()
	resp, err := http.ReadResponse(tc.br, nil)
	if err != nil {
		tc.t.Fatalf("%s: reading the answer: %v", why, err)
	}
	if resp.StatusCode != status {
		body, _ := io.ReadAll(resp.Body)
		tc.t.Fatalf("%s: status %d (%s), want %d", why, resp.StatusCode, bytes.TrimSpace(body), status)
	}
	return resp
}

// closeWrite ends this side's direction.
func (tc *conversation) closeWrite() {
	tc.t.Helper()
	if err := tc.nc.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		tc.t.Fatalf("CloseWrite: %v", err)
	}
}

// ended returns how the connection ended.
func ended(t testing.TB, c *Conn) error {
	t.Helper()
	select {
	case <-c.Done():
		return c.Err()
	case <-time.After(patience):
		t.Fatal("connection did not end")
		return nil
	}
}

// wantCloseError checks how the connection ended.
func wantCloseError(t testing.TB, c *Conn, code uint16, remote, clean bool) {
	t.Helper()
	err := ended(t, c)
	var ce *CloseError
	if !errors.As(err, &ce) || ce.Code != code || ce.Remote != remote || ce.Clean != clean {
		t.Errorf("Err() = %v (%+v), want code %d, remote %v, clean %v", err, ce, code, remote, clean)
	}
}

// isReset reports whether err is what a socket says after a reset.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// recorder is a handler that keeps what it is told, and sends what the test says.
type recorder struct {
	mu        sync.Mutex
	cond      *sync.Cond
	messages  []string
	readDones int
	closed    []error
	toSend    [][]byte
	onMessage func(text bool, p []byte)
	onCollect func()
	onDone    func()
}

func newRecorder() *recorder {
	r := &recorder{}
	r.cond = sync.NewCond(&r.mu)
	return r
}

func (r *recorder) Message(text bool, p []byte) {
	if r.onMessage != nil {
		r.onMessage(text, p)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	kind := "b:"
	if text {
		kind = "t:"
	}
	r.messages = append(r.messages, kind+string(p))
	r.cond.Broadcast()
}

func (r *recorder) ReadDone() {
	if r.onDone != nil {
		r.onDone()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.readDones++
}

func (r *recorder) Collect(dst [][]byte) [][]byte {
	if r.onCollect != nil {
		r.onCollect()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	dst = append(dst, r.toSend...)
	r.toSend = nil
	return dst
}

func (r *recorder) Closed(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = append(r.closed, err)
	r.cond.Broadcast()
}

// send queues frames; the caller kicks.
func (r *recorder) send(frames ...[]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.toSend = append(r.toSend, frames...)
}

// wait blocks until n messages have come, or the connection has ended.
func (r *recorder) wait(n int) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.messages) < n && len(r.closed) == 0 {
		r.cond.Wait()
	}
	return append([]string(nil), r.messages...)
}
