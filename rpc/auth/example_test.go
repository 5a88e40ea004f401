package auth_test

import (
	"context"
	"fmt"
	"log"
	"strings"

	"github.com/d-e-v-grid/netron/rpc"
	"github.com/d-e-v-grid/netron/rpc/auth"
)

// known are the tokens of two peers.
var known = map[string]*auth.Identity{
	"token-of-ann": {UserID: "ann", Roles: []string{"editor"}, Permissions: []string{"notes:delete"}},
	"token-of-bob": {UserID: "bob", Roles: []string{"reader"}},
}

// notes is a service.
type notes struct{}

func (notes) Read(ctx context.Context) string   { return "read by " + auth.From(ctx).UserID }
func (notes) Delete(ctx context.Context) string { return "deleted by " + auth.From(ctx).UserID }
func (notes) Help(context.Context) string       { return "help for everybody" }

// guarded returns an endpoint that authenticates by an authenticator. In a program it is
// netron.Config.Auth that does this.
func guarded(a auth.Authenticator) *rpc.Endpoint {
	guard, err := auth.New(auth.Config{Authenticator: a})
	if err != nil {
		log.Fatal(err)
	}
	cfg := rpc.Config{ID: "node"}
	guard.Install(&cfg)
	e, err := rpc.NewEndpoint(cfg)
	if err != nil {
		log.Fatal(err)
	}
	return e
}

// ask prints what a method without arguments returns.
func ask(ctx context.Context, p *rpc.Peer, method string) {
	s, err := p.Service(ctx, "notes")
	if err != nil {
		log.Fatal(err)
	}
	var text string
	if err := s.Call(ctx, method, &text); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(text)
}

// A peer says over its connection who it is, as often as it likes.
func ExampleLogin() {
	ctx := context.Background()
	e := guarded(auth.StaticTokens(known))
	defer e.Close()
	peer := e.Local()
	for _, token := range []string{"guess", "token-of-bob", "token-of-ann"} {
		who, err := auth.Login(ctx, peer, auth.Credentials{Token: token})
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(who.UserID, who.Roles, who.HasPermissions("notes:delete"))
	}
	// Output:
	// unauthenticated: invalid credentials
	// bob [reader] false
	// ann [editor] true
}

// Rules are found by service and member. The first that fits counts.
func ExamplePolicy() {
	ctx := context.Background()
	e := guarded(auth.StaticTokens(known))
	defer e.Close()
	policy, err := auth.Policy{
		Rules: map[string]auth.Rule{
			"notes.help":   {Public: true},
			"notes.delete": {Roles: []string{"editor"}, Permissions: []string{"notes:delete"}},
			"notes.*":      {}, // everybody who is known
		},
		DefaultDeny: true, // for what is exposed later
	}.Middleware()
	if err != nil {
		log.Fatal(err)
	}
	e.Use(policy)
	if err := e.Expose("notes@1.0.0", notes{}); err != nil {
		log.Fatal(err)
	}
	// A key that cannot match is a mistake, not a rule that protects nothing.
	_, err = auth.Policy{Rules: map[string]auth.Rule{"notes": {}}}.Middleware()
	fmt.Println(err != nil)

	peer := e.Local()
	ask(ctx, peer, "help")
	ask(ctx, peer, "read")
	for _, token := range []string{"token-of-bob", "token-of-ann"} {
		if _, err := auth.Login(ctx, peer, auth.Credentials{Token: token}); err != nil {
			log.Fatal(err)
		}
		ask(ctx, peer, "read")
		ask(ctx, peer, "delete")
	}
	// Output:
	// true
	// help for everybody
	// unauthenticated: authentication required
	// read by bob
	// permission_denied: not allowed
	// read by ann
	// deleted by ann
}

// A single service can ask that its callers are known.
func ExampleRequire() {
	ctx := context.Background()
	e := guarded(auth.StaticTokens(known))
	defer e.Close()
	if err := e.Expose("notes@1.0.0", notes{}, rpc.Use(auth.Require())); err != nil {
		log.Fatal(err)
	}
	peer := e.Local()
	ask(ctx, peer, "read")
	if _, err := auth.Login(ctx, peer, auth.Credentials{Token: "token-of-ann"}); err != nil {
		log.Fatal(err)
	}
	ask(ctx, peer, "read")
	// Output:
	// unauthenticated: authentication required
	// read by ann
}

// Tokens are looked at by a function of the application: it asks a database, or verifies a
// signature.
func ExampleBearer() {
	ctx := context.Background()
	e := guarded(auth.Bearer(func(_ context.Context, token string) (*auth.Identity, error) {
		name, ok := strings.CutPrefix(token, "token-of-")
		switch {
		case !ok:
			return nil, rpc.Errorf(rpc.Unauthenticated, "no token of ours")
		case name == "eve":
			return nil, fmt.Errorf("eve is on the list of %s", "the tax office") // the peer does not see why
		}
		return &auth.Identity{UserID: name}, nil
	}))
	defer e.Close()
	for _, token := range []string{"token-of-ann", "x", "token-of-eve"} {
		who, err := auth.Login(ctx, e.Local(), auth.Credentials{Token: token})
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(who.UserID)
	}
	// Output:
	// ann
	// unauthenticated: no token of ours
	// unauthenticated: invalid credentials
}

// Names and passwords are credentials as well.
func ExampleFunc() {
	ctx := context.Background()
	e := guarded(auth.Func(func(_ context.Context, c auth.Credentials) (*auth.Identity, error) {
		if c.Username != "ann" || c.Password != "correct horse" { // compare hashes, in constant time
			return nil, rpc.Errorf(rpc.Unauthenticated, "wrong name or password")
		}
		return &auth.Identity{UserID: c.Username}, nil
	}))
	defer e.Close()
	who, err := auth.Login(ctx, e.Local(), auth.Credentials{Username: "ann", Password: "correct horse"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(who.UserID)
	_, err = auth.Login(ctx, e.Local(), auth.Credentials{Username: "ann", Password: "guess"})
	fmt.Println(err)
	// Output:
	// ann
	// unauthenticated: wrong name or password
}
