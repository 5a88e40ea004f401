// Command http mounts a node on an http.Server: pages, a check of health and the services
// have one port, with TLS.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"time"

	"github.com/d-e-v-grid/netron"
)

// Greeter is the service.
type Greeter struct{}

// Hello greets.
func (Greeter) Hello(_ context.Context, name string) (string, error) { return "hello, " + name, nil }

// GreeterClient is the service as callers see it.
type GreeterClient struct {
	Hello func(ctx context.Context, name string) (string, error)
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	cert, roots, err := certificate()
	if err != nil {
		return err
	}
	node, err := netron.New(netron.Config{
		// Pages of other hosts may not connect, unless they are listed.
		AllowedOrigins: []string{"https://app.example.com"},
	})
	if err != nil {
		return err
	}
	if err := node.Expose("greeter@1.0.0", Greeter{}); err != nil {
		return err
	}

	mux := http.NewServeMux()
	mux.Handle("GET /netron", node.Handler())
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "fine")
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	web := &http.Server{
		Handler:           mux,
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: 5 * time.Second, // but no WriteTimeout: connections last
	}
	served := make(chan error, 1)
	go func() { served <- web.ServeTLS(ln, "", "") }()

	trust := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	err = errors.Join(visit(ctx, ln.Addr().String(), trust), call(ctx, ln.Addr().String(), trust))

	// The node first: the web server does not know of the connections it has given away.
	err = errors.Join(err, node.Shutdown(ctx), web.Shutdown(ctx))
	if failed := <-served; !errors.Is(failed, http.ErrServerClosed) {
		err = errors.Join(err, failed)
	}
	return err
}

// call asks the service.
func call(ctx context.Context, addr string, trust *tls.Config) error {
	client, err := netron.New(netron.Config{TLS: trust})
	if err != nil {
		return err
	}
	defer client.Close()
	peer, err := client.Dial(ctx, "wss://"+addr+"/netron")
	if err != nil {
		return err
	}
	greeter, err := netron.Query[GreeterClient](ctx, peer, "greeter")
	if err != nil {
		return err
	}
	text, err := greeter.Hello(ctx, "Ann")
	if err != nil {
		return err
	}
	fmt.Println("wss:", text)
	return nil
}

// visit gets an ordinary page of the same port.
func visit(ctx context.Context, addr string, trust *tls.Config) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+addr+"/health", http.NoBody)
	if err != nil {
		return err
	}
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: trust, DisableKeepAlives: true}}
	answer, err := web.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	fmt.Println("https:", string(text))
	return nil
}

// certificate returns one for this machine, and the roots by which it is trusted. A real
// program has one from its authority: see tls.LoadX509KeyPair.
func certificate() (tls.Certificate, *x509.CertPool, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		NotAfter:              time.Now().Add(time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots, nil
}
