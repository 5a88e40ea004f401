package netron_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/internal/demo"
	"github.com/d-e-v-grid/netron/mux"
)

var quiet = slog.New(slog.DiscardHandler)

// newNode returns a node that ends with the test.
func newNode(t testing.TB, cfg netron.Config) *netron.Node {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = quiet
	}
	n, err := netron.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// serve returns a listening node with the reference service, and its URL.
func serve(t testing.TB, cfg netron.Config) (*netron.Node, string) {
	t.Helper()
	cfg.Addr = "127.0.0.1:0"
	n := start(t, cfg)
	return n, "ws://" + n.Addr()
}

// start returns a listening node with the reference service.
func start(t testing.TB, cfg netron.Config) *netron.Node {
	t.Helper()
	n := newNode(t, cfg)
	if err := demo.Expose(n); err != nil {
		t.Fatal(err)
	}
	if err := n.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := n.Serve(ctx); err != nil && !errors.Is(err, netron.ErrClosed) {
			t.Errorf("Serve = %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return n
}

// dial returns a peer, connected by a node of its own.
func dial(t testing.TB, url string, opts ...netron.DialOption) *netron.Peer {
	t.Helper()
	p, err := newNode(t, netron.Config{ID: "client"}).Dial(t.Context(), url, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func query(t testing.TB, p *netron.Peer) *demo.Client {
	t.Helper()
	c, err := netron.Query[demo.Client](t.Context(), p, "calculator@1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCallsOverTCP(t *testing.T) {
	n, url := serve(t, netron.Config{ID: "server"})
	p := dial(t, strings.TrimPrefix(url, "ws://")) // a bare host:port means ws://
	if p.ID() != "server" || p.Kind() != mux.KindNetron {
		t.Errorf("peer = %q of kind %v, want server of kind netron", p.ID(), p.Kind())
	}
	c := query(t, p)
	if got, err := c.Add(t.Context(), 5, 3); err != nil || got != 8 {
		t.Errorf("Add(5, 3) = %v, %v, want 8", got, err)
	}
	if _, err := c.Divide(t.Context(), 1, 0); err == nil || err.Error() != "Division by zero" {
		t.Errorf("Divide(1, 0) = %v, want Division by zero", err)
	}
	err := c.Fail(t.Context(), "E_X")
	if e, ok := errors.AsType[*netron.Error](err); !ok || e.Name != "TypeError" || e.Message != "custom failure" || e.Fields["code"] != "E_X" || e.Details == nil {
		t.Errorf("Fail = %#v, want the error with its name, fields and details", err)
	}
	if err := c.Nothing(t.Context()); err != nil {
		t.Errorf("Nothing = %v", err)
	}
	large := make([]byte, 8<<20)
	for i := range large {
		large[i] = byte(i)
	}
	if got, err := c.Echo(t.Context(), large); err != nil || string(got.([]byte)) != string(large) {
		t.Errorf("Echo of 8 MiB failed: %v", err)
	}
	var sum int
	if err := p.RunTask(t.Context(), "sum", &sum, 1, 2, 3); err != nil || sum != 6 {
		t.Errorf("sum = %d, %v, want 6", sum, err)
	}
	if got := n.Peer("client"); got == nil || len(n.Peers()) != 1 {
		t.Errorf("Peer(client) = %v of %d peers, want the one", got, len(n.Peers()))
	}
}

func TestConcurrentCalls(t *testing.T) {
	_, url := serve(t, netron.Config{})
	c := query(t, dial(t, url))
	var wg sync.WaitGroup
	for g := range 32 {
		wg.Go(func() {
			for i := range 100 {
				if got, err := c.Multiply(t.Context(), float64(g), float64(i)); err != nil || got != float64(g*i) {
					t.Errorf("Multiply(%d, %d) = %v, %v", g, i, got, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestCallBack has the server call a service of its client while it serves the
// client's call.
func TestCallBack(t *testing.T) {
	server, url := serve(t, netron.Config{})
	err := server.AddTask("viaClient", func(ctx context.Context, a, b float64) (float64, error) {
		if netron.NodeFrom(ctx) != server {
			return 0, errors.New("NodeFrom is not the server")
		}
		stub, err := netron.PeerFrom(ctx).Service(ctx, "mine")
		if err != nil {
			return 0, err
		}
		var sum float64
		err = stub.Call(ctx, "add", &sum, a, b)
		return sum, err
	})
	if err != nil {
		t.Fatal(err)
	}
	client := newNode(t, netron.Config{})
	if err := client.Expose("mine", &demo.Calculator{}); err != nil {
		t.Fatal(err)
	}
	p, err := client.Dial(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	var sum float64
	if err := p.RunTask(t.Context(), "viaClient", &sum, 1, 2); err != nil || sum != 3 {
		t.Errorf("viaClient = %v, %v, want 3", sum, err)
	}
}

func TestTLS(t *testing.T) {
	cert, pool := certificate(t)
	_, url := serve(t, netron.Config{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}})
	wss := "wss" + strings.TrimPrefix(url, "ws")
	c := query(t, dial(t, wss, netron.DialTLS(&tls.Config{RootCAs: pool})))
	if got, err := c.Add(t.Context(), 1, 2); err != nil || got != 3 {
		t.Errorf("Add over TLS = %v, %v, want 3", got, err)
	}
	if _, err := newNode(t, netron.Config{}).Dial(t.Context(), wss); err == nil {
		t.Error("Dial with an unknown certificate = nil, want an error")
	}
}

// certificate returns a certificate for 127.0.0.1 and the pool that trusts it.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestHandler(t *testing.T) {
	n := newNode(t, netron.Config{})
	if err := demo.Expose(n); err != nil {
		t.Fatal(err)
	}
	handler := http.NewServeMux()
	handler.Handle("GET /netron", n.Handler())
	handler.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "other") })
	s := httptest.NewServer(handler)
	defer s.Close()
	c := query(t, dial(t, "ws"+strings.TrimPrefix(s.URL, "http")+"/netron"))
	if got, err := c.Add(t.Context(), 1, 2); err != nil || got != 3 {
		t.Errorf("Add through http.Handler = %v, %v, want 3", got, err)
	}
}

func TestDialErrors(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	n := newNode(t, netron.Config{ConnectTimeout: 200 * time.Millisecond})
	start := time.Now()
	if _, err := n.Dial(t.Context(), silent.Addr().String()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Dial of a silent listener = %v after %v, want the time limit", err, time.Since(start))
	}
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, _ := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
		w.WriteHeader(status)
	}))
	defer refusing.Close()
	for path, want := range map[string]netron.Code{
		"/401": netron.Unauthenticated, "/403": netron.PermissionDenied, "/404": netron.NotFound, "/429": netron.ResourceExhausted, "/503": netron.Unavailable, "/200": netron.Unavailable,
	} {
		if _, err := n.Dial(t.Context(), strings.Replace(refusing.URL, "http", "ws", 1)+path); netron.CodeOf(err) != want {
			t.Errorf("Dial of what answers %s = %v, code %v, want %v", path, err, netron.CodeOf(err), want)
		}
	}
	if _, err := n.Dial(t.Context(), "127.0.0.1:1"); netron.CodeOf(err) != netron.Unavailable {
		t.Errorf("Dial of nobody: code %v", netron.CodeOf(err))
	}
	for _, url := range []string{"", "http://127.0.0.1:1", "ws://", "ws://127.0.0.1:1", "://"} {
		if _, err := n.Dial(t.Context(), url); err == nil {
			t.Errorf("Dial(%q) = nil, want an error", url)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.Dial(ctx, "127.0.0.1:1"); !errors.Is(err, context.Canceled) {
		t.Errorf("Dial with an ended ctx = %v, want context.Canceled", err)
	}
}

func TestShutdown(t *testing.T) {
	server, url := serve(t, netron.Config{})
	p := dial(t, url, netron.DialReconnect(0, -1))
	c := query(t, p)
	type outcome struct {
		v   any
		err error
	}
	slow := make(chan outcome, 1)
	started := make(chan struct{})
	if err := server.AddTask("slow", func(ctx context.Context) string {
		close(started)
		select {
		case <-time.After(100 * time.Millisecond):
			return "done"
		case <-ctx.Done():
			return "cut off"
		}
	}); err != nil {
		t.Fatal(err)
	}
	go func() {
		var v string
		err := p.RunTask(context.Background(), "slow", &v)
		slow <- outcome{v, err}
	}()
	<-started
	if err := server.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown = %v, want nil", err)
	}
	if got := <-slow; got.err != nil || got.v != "done" {
		t.Errorf("the running task = %v, %v, want it to finish", got.v, got.err)
	}
	<-p.Done()
	if !strings.Contains(p.Err().Error(), "1001") {
		t.Errorf("the connection ended with %v, want close code 1001", p.Err())
	}
	if _, err := c.Add(t.Context(), 1, 2); netron.CodeOf(err) != netron.Unavailable {
		t.Errorf("Add after the end = %v, want unavailable", err)
	}
	if err := server.Shutdown(t.Context()); err != nil {
		t.Errorf("second Shutdown = %v, want nil", err)
	}
	if err := server.Listen(); !errors.Is(err, netron.ErrClosed) {
		t.Errorf("Listen after Shutdown = %v, want ErrClosed", err)
	}
	if _, err := server.Dial(t.Context(), url); !errors.Is(err, netron.ErrClosed) {
		t.Errorf("Dial after Shutdown = %v, want ErrClosed", err)
	}
	<-server.Done()
}

func TestShutdownCutsOff(t *testing.T) {
	server, url := serve(t, netron.Config{})
	p := dial(t, url, netron.DialReconnect(0, -1))
	started := make(chan struct{})
	var cause atomic.Value
	if err := server.AddTask("stuck", func(ctx context.Context) error {
		close(started)
		<-ctx.Done()
		cause.Store(context.Cause(ctx).Error())
		return ctx.Err()
	}); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() { failed <- p.RunTask(context.Background(), "stuck", nil) }()
	<-started
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := server.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown = %v, want context.DeadlineExceeded", err)
	}
	if err := <-failed; netron.CodeOf(err) != netron.Unavailable {
		t.Errorf("the stuck task = %v, want unavailable", err)
	}
	if cause.Load() == nil {
		t.Error("the context of the stuck handler did not end")
	}
	<-p.Done()
	if !strings.Contains(p.Err().Error(), "1001") {
		t.Errorf("the connection ended with %v, want close code 1001", p.Err())
	}
}

func TestServeErrors(t *testing.T) {
	if err := newNode(t, netron.Config{}).Serve(t.Context()); err == nil {
		t.Error("Serve without an address = nil, want an error")
	}
	_, url := serve(t, netron.Config{})
	if err := newNode(t, netron.Config{Addr: strings.TrimPrefix(url, "ws://")}).Serve(t.Context()); err == nil {
		t.Error("Serve on a taken address = nil, want an error")
	}
	for _, cfg := range []netron.Config{{ID: strings.Repeat("x", 300)}, {Path: "no slash"}} {
		if _, err := netron.New(cfg); err == nil {
			t.Errorf("New(%.20q, %q) = nil, want an error", cfg.ID, cfg.Path)
		}
	}
	served, servedURL := serve(t, netron.Config{})
	dial(t, servedURL) // so that the first Serve runs
	if err := served.Serve(t.Context()); err == nil {
		t.Error("second Serve = nil, want an error")
	}
	n := newNode(t, netron.Config{})
	if n.ID() == "" || n.Addr() != "" {
		t.Errorf("ID %q, Addr %q of a new node, want an id and no address", n.ID(), n.Addr())
	}
}

func TestLimitsOverTheNetwork(t *testing.T) {
	_, url := serve(t, netron.Config{MaxMessageBytes: 100_000})
	p := dial(t, url, netron.DialReconnect(0, -1))
	c := query(t, p)
	if _, err := c.Echo(t.Context(), make([]byte, 90_000)); err != nil {
		t.Errorf("Echo within the limit = %v", err)
	}
	if _, err := c.Echo(t.Context(), make([]byte, 110_000)); netron.CodeOf(err) != netron.Unavailable {
		t.Errorf("Echo over the limit of the server = %v, want the connection to end", err)
	}
	<-p.Done()
	if !strings.Contains(p.Err().Error(), "1009") {
		t.Errorf("the connection ended with %v, want close code 1009", p.Err())
	}
}

// TestSecondConnectionWithAnID checks that a peer cannot take over the id of a
// living one.
func TestSecondConnectionWithAnID(t *testing.T) {
	server, url := serve(t, netron.Config{})
	first := dial(t, url)
	query(t, first)
	mine := server.Peer("client")
	second := dial(t, url)
	query(t, second)
	if got := server.Peer("client"); got != mine {
		t.Error("a second connection took the id of the first")
	}
	if got := len(server.Peers()); got != 2 {
		t.Errorf("%d peers, want 2", got)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	<-mine.Done()
	// A peer that came back before its old connection was found dead must be found.
	got := server.Peer("client")
	if got == nil || got == mine {
		t.Errorf("Peer after the first has gone = %v, want the second", got)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if got != nil {
		<-got.Done()
	}
	if got := server.Peer("client"); got != nil {
		t.Errorf("Peer after both have gone = %v, want nil", got)
	}
}
