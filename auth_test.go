package netron_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/rpc"
	"github.com/d-e-v-grid/netron/rpc/auth"
)

func guarded(required bool) netron.Config {
	return netron.Config{Auth: &auth.Config{
		Required: required,
		Deadline: 300 * time.Millisecond,
		Authenticator: auth.Bearer(func(_ context.Context, token string) (*auth.Identity, error) {
			switch token {
			case "good":
				return &auth.Identity{UserID: "ann"}, nil
			case "down":
				return nil, rpc.Errorf(rpc.Unavailable, "no database")
			case "panic":
				panic("of the authenticator")
			}
			return nil, errors.New("secret reason")
		}),
	}}
}

func TestAuthAtTheHandshake(t *testing.T) {
	for _, driver := range []netron.Driver{netron.DriverStd, netron.DriverAuto} {
		cfg := guarded(true)
		cfg.Driver = driver
		n, url := serve(t, cfg)
		if err := n.AddTask("who", func(ctx context.Context) string { return auth.From(ctx).UserID }); err != nil {
			t.Fatal(err)
		}
		var who string
		for _, p := range []*netron.Peer{dial(t, url, netron.DialToken("good")), dial(t, url+"/?token=good")} {
			if err := p.RunTask(t.Context(), "who", &who); err != nil || who != "ann" {
				t.Errorf("who = %s, %v, want ann", who, err)
			}
		}
		for token, want := range map[string]string{"bad": "1008", "": "1008", "down": "1013", "panic": "1011"} {
			_, err := newNode(t, netron.Config{}).Dial(t.Context(), url, netron.DialToken(token))
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("Dial with token %q = %v, want close code %s", token, err, want)
			}
			if code := netron.CodeOf(err); (code == netron.Unauthenticated) != (want == "1008") {
				t.Errorf("Dial with token %q: code %v", token, code)
			}
		}
	}
}

func TestAuthRequired(t *testing.T) {
	_, url := serve(t, guarded(true))
	p := dial(t, url)
	for _, task := range []string{"query_interface", "no such task", "unref_service"} {
		if err := p.RunTask(t.Context(), task, nil, "x"); netron.CodeOf(err) != netron.Unauthenticated {
			t.Errorf("%s before authentication: %v, want unauthenticated", task, err)
		}
	}
	if _, err := auth.Login(t.Context(), p, auth.Credentials{Token: "bad"}); netron.CodeOf(err) != netron.Unauthenticated {
		t.Errorf("Login with a wrong token: %v", err)
	}
	if _, err := auth.Login(t.Context(), p, auth.Credentials{Token: "good"}); err != nil {
		t.Fatal(err)
	}
	if err := p.RunTask(t.Context(), "no such task", nil); netron.CodeOf(err) != netron.NotFound {
		t.Errorf("a task after authentication: %v, want not found", err)
	}
	late := dial(t, url, netron.DialReconnect(0, -1))
	select {
	case <-late.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("a peer that does not authenticate stays connected")
	}
	if err := late.Err(); !strings.Contains(err.Error(), "authentication timeout") {
		t.Errorf("the connection ended with %v, want an authentication timeout", err)
	}
	if p.Err() != nil {
		t.Errorf("the peer that authenticated has lost its connection: %v", p.Err())
	}
}

func TestAuthOptional(t *testing.T) {
	_, url := serve(t, guarded(false))
	if err := dial(t, url).RunTask(t.Context(), "no such task", nil); netron.CodeOf(err) != netron.NotFound {
		t.Errorf("a task without authentication: %v, want not found", err)
	}
	if _, err := netron.New(netron.Config{Auth: &auth.Config{}}); err == nil {
		t.Error("New with Config.Auth but no Authenticator succeeded")
	}
}
