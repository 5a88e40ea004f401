// Command metrics counts and times requests, and shows the figures in the text format of
// Prometheus, beside checks whether the server lives and whether it takes new peers.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/d-e-v-grid/netron"
)

// Metrics counts requests. With a library for metrics the method Ended is the same, and the
// rest is the library's.
type Metrics struct {
	mu    sync.Mutex
	calls map[string]int           // by labels; guarded by mu
	times map[string]time.Duration // in all, by labels; guarded by mu
}

// NewMetrics returns metrics without figures.
func NewMetrics() *Metrics {
	return &Metrics{calls: make(map[string]int), times: make(map[string]time.Duration)}
}

// Ended counts a request that has ended.
func (m *Metrics) Ended(_ context.Context, r *netron.Request, took time.Duration, err error) {
	if r.Op() == netron.OpTask {
		return // such as the one that looks a service up
	}
	status := "ok"
	if err != nil {
		status = netron.CodeOf(err).String()
	}
	m.add(fmt.Sprintf("service=%q,method=%q,status=%q", r.Service(), r.Member(), status), took)
}

func (m *Metrics) add(labels string, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls[labels]++
	m.times[labels] += took
}

// ServeHTTP writes the figures.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, labels := range slices.Sorted(maps.Keys(m.calls)) {
		_, err := fmt.Fprintf(w, "netron_calls_total{%s} %d\nnetron_seconds_total{%s} %g\n",
			labels, m.calls[labels], labels, m.times[labels].Seconds())
		if err != nil {
			return // nobody listens any more
		}
	}
}

// Divider is the service.
type Divider struct{}

// Divide returns a / b.
func (Divider) Divide(_ context.Context, a, b int) (int, error) {
	if b == 0 {
		return 0, netron.Errorf(netron.InvalidArgument, "division by zero")
	}
	return a / b, nil
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	metrics := NewMetrics()
	server, err := netron.New(netron.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	defer server.Close()
	// Those that the node serves; UseOutgoing has those that it makes.
	server.Use(netron.Observe(nil, metrics.Ended))
	if err := server.Expose("divider@1.0.0", Divider{}); err != nil {
		return err
	}
	if err := server.Listen(); err != nil {
		return err
	}

	// What a balancer and a collector ask has a port of its own, which need not be public.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	signalled, stop := netron.SignalContext(ctx)
	defer stop()
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, "%d peers\n", len(server.Peers()))
	})
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		if signalled.Err() != nil {
			http.Error(w, "shutting down", http.StatusServiceUnavailable)
		}
	})
	admin := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	adminServed := make(chan error, 1)
	go func() { adminServed <- admin.Serve(ln) }()
	served := make(chan error, 1)
	go func() { served <- server.Serve(signalled) }()

	url := "http://" + ln.Addr().String()
	err = errors.Join(use(ctx, server.Addr()), show(ctx, url+"/metrics"), show(ctx, url+"/ready"))
	stop() // as a signal does
	err = errors.Join(err, show(ctx, url+"/ready"), <-served, admin.Shutdown(ctx))
	if failed := <-adminServed; !errors.Is(failed, http.ErrServerClosed) {
		err = errors.Join(err, failed)
	}
	return err
}

// use makes three calls.
func use(ctx context.Context, addr string) error {
	client, err := netron.New(netron.Config{})
	if err != nil {
		return err
	}
	defer client.Close()
	peer, err := client.Dial(ctx, addr)
	if err != nil {
		return err
	}
	divider, err := peer.Service(ctx, "divider")
	if err != nil {
		return err
	}
	for _, by := range []int{1, 2, 0} {
		if err := divider.Call(ctx, "divide", nil, 10, by); err != nil {
			fmt.Println(err)
		}
	}
	return nil
}

// show prints an answer, but not the times in it, which differ.
func show(ctx context.Context, url string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	web := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := web.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	fmt.Println(r.URL.Path, answer.Status)
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "netron_seconds_total") {
			fmt.Print(line)
		}
	}
	return nil
}
