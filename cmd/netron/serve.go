package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/bench"
	"github.com/d-e-v-grid/netron/discover"
	"github.com/d-e-v-grid/netron/engine"
	"github.com/d-e-v-grid/netron/internal/demo"
	"github.com/d-e-v-grid/netron/pubsub"
)

// runServe serves until the process is told to stop.
func runServe(ctx context.Context, e *env, args []string) error {
	flags := newFlags(e, "serve", "--demo | --echo [flags]")
	demoService := flags.Bool("demo", false, "expose the reference service calculator@1.0.0")
	benchServices := flags.Bool("bench", false, "expose what netron bench calls, the reference service included")
	echo := flags.Bool("echo", false, "echo text and binary messages instead, for WebSocket conformance suites")
	listen := flags.String("listen", "127.0.0.1:8080", "address to listen on; port 0 takes a free one")
	cert := flags.String("tls-cert", "", "`FILE` with the certificate chain, for wss://")
	key := flags.String("tls-key", "", "`FILE` with the certificate's key")
	origins := flags.StringArray("origin", nil, "`ORIGIN` of web pages that may connect besides the same host; * for all; may be repeated")
	driverName := flags.String("driver", "auto", "what drives connections: epoll, std or auto, which is epoll for ws:// where it is available")
	pollers := flags.Int("pollers", 0, "pollers of the epoll driver; 0: one for every 20 processors")
	whenFull := flags.String("when-full", "drop-oldest", "what becomes of events for a subscriber that reads too slowly: drop-oldest, drop-newest, block or disconnect")
	maxQueued := flags.Int("max-queued", 0, "events that may wait for one subscriber; 0: the default, 8,192")
	redis := flags.String("redis", "", "`URL` of a Redis where others find the server, as redis://user:password@host:6379")
	advertise := flags.String("advertise", "", "`ADDRESS` under which others reach the server; default is that of --listen")
	zone := flags.String("zone", "", "where the server is, for callers that prefer their own zone")
	profile := flags.String("cpuprofile", "", "write a CPU profile to `FILE`")
	if err := parse(flags, args); err != nil {
		return err
	}
	stopProfile, err := startProfile(*profile)
	if err != nil {
		return err
	}
	defer stopProfile()
	if flags.NArg() > 0 {
		return usagef("unexpected argument %q", flags.Arg(0))
	}
	if !*demoService && !*benchServices && !*echo {
		return usagef("say what to serve: --demo or --echo")
	}
	driver, err := netron.ParseDriver(*driverName)
	if err != nil {
		return usagef("%v", err)
	}
	config, err := loadTLS(*cert, *key)
	if err != nil {
		return err
	}
	policy, ok := policies[*whenFull]
	if !ok {
		return usagef("unknown policy %q, want drop-oldest, drop-newest, block or disconnect", *whenFull)
	}
	discovery, err := foundAt(*redis, *advertise, *zone)
	if err != nil {
		return err
	}
	if *echo {
		if discovery.Redis != nil {
			return usagef("--redis goes with services, not with --echo")
		}
		return serveEcho(ctx, e, *listen, engine.Config{TLS: config, AllowedOrigins: *origins, Driver: driver, Pollers: *pollers})
	}
	node, err := netron.New(netron.Config{
		Addr: *listen, TLS: config, AllowedOrigins: *origins, Driver: driver, Pollers: *pollers,
		Discovery: discovery,
		Events:    netron.EventConfig{WhenFull: policy, MaxQueued: *maxQueued, ServiceEvents: true, Receive: relay},
	})
	if err != nil {
		return err
	}
	defer node.Close()
	expose := demo.Expose
	if *benchServices {
		expose = bench.Expose
	}
	if err := expose(node); err != nil {
		return err
	}
	if err := node.Listen(); err != nil {
		return err
	}
	announce(e, config, node.Addr())
	return node.Serve(ctx)
}

// foundAt returns how others find the server; without a Redis they do not.
func foundAt(redis, advertise, zone string) (d netron.DiscoveryConfig, err error) {
	switch {
	case redis != "":
		d = netron.DiscoveryConfig{Redis: &discover.Config{URL: redis}, Advertise: advertise, Zone: zone}
	case advertise != "" || zone != "":
		err = usagef("--advertise and --zone go with --redis")
	}
	return d, err
}

// policies are the names that the flag --when-full knows.
var policies = map[string]pubsub.Policy{
	"drop-oldest": pubsub.DropOldest, "drop-newest": pubsub.DropNewest, "block": pubsub.Block, "disconnect": pubsub.Disconnect,
}

// announce prints the URL of the server, which callers wait for.
func announce(e *env, config *tls.Config, addr string) {
	scheme := "ws"
	if config != nil {
		scheme = "wss"
	}
	fmt.Fprintf(e.stdout, "listening %s://%s\n", scheme, addr)
}

// serveEcho runs the echo server on the engine alone.
func serveEcho(ctx context.Context, e *env, addr string, cfg engine.Config) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	server := engine.NewServer(cfg, func(c *engine.Conn) { c.Start(engine.NewEcho(c)) })
	stop := context.AfterFunc(ctx, func() {
		server.StopAccepting()
		for _, c := range server.Conns() {
			c.CloseWith(engine.CloseGoingAway, "shutting down")
		}
	})
	defer stop()
	announce(e, cfg.TLS, ln.Addr().String())
	if err := server.Serve(ln); !errors.Is(err, engine.ErrServerClosed) {
		return err
	}
	server.Wait()
	return nil
}

// loadTLS returns nil without files.
func loadTLS(cert, key string) (*tls.Config, error) {
	if cert == "" && key == "" {
		return nil, nil
	}
	if cert == "" || key == "" {
		return nil, usagef("--tls-cert and --tls-key go together")
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}}, nil
}
