// Command auth has a server whose peers must say who they are, and a policy that says what
// they may do.
package main

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/rpc/auth"
)

// Notes is the service.
type Notes struct{}

// Read returns a note, and for whom.
func (Notes) Read(ctx context.Context) (string, error) {
	return "a note for " + auth.From(ctx).UserID, nil
}

// Delete removes a note.
func (Notes) Delete(context.Context) error { return nil }

// NotesClient is the service as callers see it.
type NotesClient struct {
	Read   func(ctx context.Context) (string, error)
	Delete func(ctx context.Context) error
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	// A real Authenticator asks a database, or verifies a signature: see auth.Bearer.
	known := auth.StaticTokens(map[string]*auth.Identity{
		"token-of-ann": {UserID: "ann", Roles: []string{"editor"}},
		"token-of-bob": {UserID: "bob", Roles: []string{"reader"}},
	})
	server, err := netron.New(netron.Config{
		Addr: "127.0.0.1:0",
		Auth: &auth.Config{Authenticator: known, Required: true},
	})
	if err != nil {
		return err
	}
	defer server.Close()
	if err := server.Start(); err != nil {
		return err
	}
	policy, err := auth.Policy{
		Rules: map[string]auth.Rule{
			"notes.read":   {}, // everybody who is known
			"notes.delete": {Roles: []string{"editor"}},
		},
		DefaultDeny: true,
	}.Middleware()
	if err != nil {
		return err
	}
	if err := server.Expose("notes@1.0.0", Notes{}, netron.Use(policy)); err != nil {
		return err
	}

	client, err := netron.New(netron.Config{})
	if err != nil {
		return err
	}
	defer client.Close()
	for _, name := range []string{"ann", "bob"} {
		// The token is part of the upgrade request, and of each one when the peer
		// reconnects.
		peer, err := client.Dial(ctx, server.Addr(), netron.DialToken("token-of-"+name))
		if err != nil {
			return err
		}
		if err := use(ctx, peer); err != nil {
			return err
		}
	}

	// A peer that shows a wrong token is not let in.
	_, err = client.Dial(ctx, server.Addr(), netron.DialToken("guess"))
	fmt.Println("with a wrong token:", err != nil)

	// One without a token may log in over its connection, soon; until then nothing
	// else is served.
	peer, err := client.Dial(ctx, server.Addr())
	if err != nil {
		return err
	}
	_, err = peer.Service(ctx, "notes")
	fmt.Println("before the login:", netron.CodeOf(err))
	_, err = auth.Login(ctx, peer, auth.Credentials{Token: "guess"})
	fmt.Println(err)
	who, err := auth.Login(ctx, peer, auth.Credentials{Token: "token-of-bob"})
	if err != nil {
		return err
	}
	fmt.Println("logged in as", who.UserID)
	return use(ctx, peer)
}

// use calls both methods of the service.
func use(ctx context.Context, peer *netron.Peer) error {
	notes, err := netron.Query[NotesClient](ctx, peer, "notes")
	if err != nil {
		return err
	}
	text, err := notes.Read(ctx)
	if err != nil {
		return err
	}
	fmt.Println(text)
	err = notes.Delete(ctx)
	if netron.CodeOf(err) == netron.PermissionDenied {
		fmt.Println("delete:", err)
		return nil
	}
	if err == nil {
		fmt.Println("delete: done")
	}
	return err
}
