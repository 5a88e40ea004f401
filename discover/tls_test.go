package discover

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/d-e-v-grid/netron/internal/code"
	"github.com/d-e-v-grid/netron/internal/redistest"
)

// TestTLS has registries that reach Redis over TLS, with a certificate of their own.
func TestTLS(t *testing.T) {
	t.Parallel()
	a := redistest.NewAuthority(t)
	s := redistest.StartTLS(t, a)
	cfg := quick()
	cfg.TLS = &tls.Config{RootCAs: a.Roots, Certificates: []tls.Certificate{a.Client}}
	cfg.URL = "rediss://" + s.TLSAddr()
	x := startReady(t, cfg)
	register(t, x, Node{ID: "x", Services: services("s")})
	cfg.URL, cfg.Addrs = "", []string{s.TLSAddr()} // the configuration is enough
	y := startReady(t, cfg)
	if got, err := y.Fresh(t.Context(), "s"); err != nil || len(got) != 1 {
		t.Errorf("Fresh() over TLS = %v, %v", got, err)
	}
	register(t, y, Node{ID: "y", Services: services("s")})
	s.Restart()
	for _, r := range []*Registry{x, y} {
		eventually(t, "it is there after a restart", func() bool {
			got, err := r.Fresh(t.Context(), "s")
			return err == nil && len(got) == 2 && r.Err() == nil && r.Stats().Suspect == 0
		})
	}
}

// TestTLSNames shows that each address that is given is to have a certificate for itself,
// and not for that of the URL.
func TestTLSNames(t *testing.T) {
	t.Parallel()
	s := redistest.StartTLS(t, redistest.NewAuthority(t))
	cfg := quick()
	cfg.URL, cfg.Addrs = "rediss://127.0.0.2:1", []string{s.TLSAddr()} // of which the first has no server
	r := start(t, cfg)
	eventually(t, "only the authority is wrong", func() bool { return strings.Contains(fmt.Sprint(r.Err()), "unknown authority") })
}

// TestTLSRefusals has registries that do not trust Redis, and that it does not trust.
func TestTLSRefusals(t *testing.T) {
	t.Parallel()
	a := redistest.NewAuthority(t)
	s := redistest.StartTLS(t, a)
	for name, tc := range map[string]struct {
		config *tls.Config
		addr   string
		code   Code
		text   string
	}{
		"an authority that nobody knows": {nil, s.TLSAddr(), code.Unauthenticated, "unknown authority"},
		"another authority":              {&tls.Config{RootCAs: redistest.NewAuthority(t).Roots}, s.TLSAddr(), code.Unauthenticated, "unknown authority"},
		"another name":                   {&tls.Config{RootCAs: a.Roots, ServerName: "other"}, s.TLSAddr(), code.Unauthenticated, "other"},
		"no certificate":                 {&tls.Config{RootCAs: a.Roots}, s.TLSAddr(), code.Unauthenticated, "certificate required"},
		"a certificate of nobody":        {&tls.Config{RootCAs: a.Roots, Certificates: []tls.Certificate{redistest.NewAuthority(t).Client}}, s.TLSAddr(), code.Unauthenticated, "unknown certificate authority"},
		"a server without TLS":           {&tls.Config{RootCAs: a.Roots}, s.Addr(), code.Unavailable, "TLS handshake"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := quick()
			cfg.Timeout = time.Second
			cfg.URL, cfg.TLS = "rediss://"+tc.addr, tc.config
			r := start(t, cfg)
			check := func(what string, err error) {
				t.Helper()
				if codeOf(err) != tc.code || !strings.Contains(err.Error(), tc.text) {
					t.Errorf("%s = %v (%v), want %v with %q", what, err, codeOf(err), tc.code, tc.text)
				}
			}
			if err := r.Register(t.Context(), Node{ID: "n", Address: "h:1"}); tc.code != code.Unavailable || err != nil {
				check("Register()", err)
			}
			eventually(t, "there is an error", func() bool { err := r.Err(); return err != nil && !errors.Is(err, errNotYet) })
			check("Err()", r.Err())
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if err := r.WaitReady(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("WaitReady() = %v, want %q in it", err, tc.text)
			}
		})
	}
}
