package auth_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/rpc"
	"github.com/d-e-v-grid/netron/rpc/auth"
)

var (
	ann = &auth.Identity{UserID: "ann", Roles: []string{"admin"}, Permissions: []string{"read", "write"}, Metadata: map[string]any{"secret": "s3cret"}}
	old = &auth.Identity{UserID: "old", Expires: time.Unix(1, 0)}
)

type service struct{}

func (service) Who(ctx context.Context) string {
	if i := auth.From(ctx); i != nil {
		return i.UserID
	}
	return "nobody"
}
func (service) Write(context.Context) {}

func newEndpoint(t *testing.T, cfg auth.Config) *rpc.Endpoint {
	t.Helper()
	c := rpc.Config{ID: "node", Logger: slog.New(slog.DiscardHandler)}
	if cfg.Authenticator != nil {
		cfg.Logger = c.Logger
		g, err := auth.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		g.Install(&c)
	}
	e, err := rpc.NewEndpoint(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := e.Expose("service@1.0.0", service{}); err != nil {
		t.Fatal(err)
	}
	return e
}

func call(t *testing.T, e *rpc.Endpoint, member string) (who string, err error) {
	t.Helper()
	s, err := e.Local().Service(t.Context(), "service@1.0.0")
	if err != nil {
		return "", err
	}
	var result any
	err = s.Call(t.Context(), member, &result)
	who, _ = result.(string)
	return who, err
}

func wantCode(t *testing.T, why string, err error, want rpc.Code) {
	t.Helper()
	if got := rpc.CodeOf(err); got != want {
		t.Errorf("%s: got error %v of code %v, want %v", why, err, got, want)
	}
}

var tokens = auth.StaticTokens(map[string]*auth.Identity{"good": ann, "old": old})

func TestLogin(t *testing.T) {
	e := newEndpoint(t, auth.Config{Authenticator: tokens})
	if who, err := call(t, e, "who"); who != "nobody" || err != nil {
		t.Errorf("who = %s, %v before authentication", who, err)
	}
	i, err := auth.Login(t.Context(), e.Local(), auth.Credentials{Token: "good"})
	if err != nil || i.UserID != "ann" || !i.HasRole("admin") || !i.HasPermissions("read", "write") {
		t.Fatalf("Login = %+v, %v", i, err)
	}
	if len(i.Metadata) > 0 {
		t.Errorf("metadata was sent: %v", i.Metadata)
	}
	_, err = auth.Login(t.Context(), e.Local(), auth.Credentials{Token: "bad"})
	wantCode(t, "a wrong token", err, rpc.Unauthenticated)
	if who, err := call(t, e, "who"); who != "ann" || err != nil {
		t.Errorf("who = %s, %v, want who it was before the wrong token", who, err)
	}
}

func TestLoginNotConfigured(t *testing.T) {
	_, err := auth.Login(t.Context(), newEndpoint(t, auth.Config{}).Local(), auth.Credentials{Token: "good"})
	wantCode(t, "without authenticator", err, rpc.Unavailable)
	if !strings.Contains(err.Error(), "authentication is not configured") {
		t.Errorf("got %v", err)
	}
}

func TestAuthenticateTask(t *testing.T) {
	secret := errors.New("connect to db.internal: secret")
	e := newEndpoint(t, auth.Config{Authenticator: auth.Func(func(ctx context.Context, c auth.Credentials) (*auth.Identity, error) {
		switch c.Username {
		case "plain":
			return nil, secret
		case "told":
			return nil, rpc.Errorf(rpc.PermissionDenied, "account locked")
		case "down":
			return nil, rpc.Errorf(rpc.Unavailable, "try later")
		case "late":
			return nil, fmt.Errorf("%w: secret", context.DeadlineExceeded)
		case "panic":
			panic("secret")
		case "extra":
			return ann, map[bool]error{false: secret}[c.Extra["otp"] == "1"]
		}
		return tokens.Authenticate(ctx, c)
	})})
	user := func(name string) map[string]any { return map[string]any{"username": name, "password": "secret"} }
	for _, test := range []struct {
		name   string
		arg    any
		code   rpc.Code
		ok     bool
		answer string
	}{
		{"good", map[string]any{"token": "good"}, 0, true, ""},
		{"other members undefined", map[string]any{"token": "good", "username": nil}, 0, true, ""},
		{"extra", map[string]any{"username": "extra", "otp": "1"}, 0, true, ""},
		{"extra missing", user("extra"), 0, false, "invalid credentials"},
		{"wrong", map[string]any{"token": "bad"}, 0, false, "invalid credentials"},
		{"expired", map[string]any{"token": "old"}, 0, false, "invalid credentials"},
		{"empty token", map[string]any{"token": ""}, 0, false, "a token is required"},
		{"no token", user("eve"), 0, false, "a token is required"},
		{"plain error", user("plain"), 0, false, "invalid credentials"},
		{"told", user("told"), 0, false, "account locked"},
		{"down", user("down"), rpc.Unavailable, false, ""},
		{"late", user("late"), rpc.DeadlineExceeded, false, ""},
		{"panic", user("panic"), rpc.Internal, false, ""},
		{"empty", map[string]any{}, rpc.InvalidArgument, false, ""},
		{"nil", nil, rpc.InvalidArgument, false, ""},
		{"text", "good", rpc.InvalidArgument, false, ""},
		{"number", map[string]any{"token": 1}, rpc.InvalidArgument, false, ""},
		{"array", map[string]any{"username": []string{"x"}}, rpc.InvalidArgument, false, ""},
		{"large", map[string]any{"token": strings.Repeat("x", auth.MaxCredentialBytes)}, rpc.ResourceExhausted, false, ""},
	} {
		var got struct {
			Success bool
			Error   string
			Context codec.Raw
		}
		err := e.Local().RunTask(t.Context(), "authenticate", &got, test.arg)
		wantCode(t, test.name, err, test.code)
		if got.Success != test.ok || got.Error != test.answer || (len(got.Context) > 0) != test.ok {
			t.Errorf("%s: got %+v, want %t %q", test.name, got, test.ok, test.answer)
		}
		if text := fmt.Sprint(err, got); strings.Contains(text, "secret") {
			t.Errorf("%s: the answer leaks: %s", test.name, text)
		}
	}
	wantCode(t, "no argument", e.Local().RunTask(t.Context(), "authenticate", nil), rpc.InvalidArgument)
}

func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint(t, auth.Config{Timeout: time.Second, Authenticator: auth.Func(func(ctx context.Context, _ auth.Credentials) (*auth.Identity, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})})
		start := time.Now()
		_, err := auth.Login(t.Context(), e.Local(), auth.Credentials{Token: "x"})
		wantCode(t, "an authenticator that waits", err, rpc.DeadlineExceeded)
		if got := time.Since(start); got != time.Second {
			t.Errorf("it took %v, want 1s", got)
		}
	})
}

func TestRequire(t *testing.T) {
	e := newEndpoint(t, auth.Config{Authenticator: tokens})
	e.Use(auth.Require())
	_, err := call(t, e, "who")
	wantCode(t, "before", err, rpc.Unauthenticated)
	if _, err := auth.Login(t.Context(), e.Local(), auth.Credentials{Token: "good"}); err != nil {
		t.Fatal(err)
	}
	if who, err := call(t, e, "who"); who != "ann" || err != nil {
		t.Errorf("who = %s, %v", who, err)
	}
}

func TestPolicy(t *testing.T) {
	for _, test := range []struct {
		rules map[string]auth.Rule
		deny  bool
		anon  rpc.Code
		known rpc.Code
	}{
		{nil, false, 0, 0},
		{nil, true, rpc.Unauthenticated, rpc.PermissionDenied},
		{map[string]auth.Rule{"service.write": {}}, true, rpc.Unauthenticated, 0},
		{map[string]auth.Rule{"service.*": {Public: true}}, true, 0, 0},
		{map[string]auth.Rule{"service.*": {Public: true}, "service.write": {Roles: []string{"boss"}}}, false, rpc.Unauthenticated, rpc.PermissionDenied},
		{map[string]auth.Rule{"service@1.0.0.write": {Roles: []string{"boss", "admin"}}, "service.write": {Roles: []string{"boss"}}}, false, rpc.Unauthenticated, 0},
		{map[string]auth.Rule{"service@1.0.0.*": {Permissions: []string{"read", "write"}}}, false, rpc.Unauthenticated, 0},
		{map[string]auth.Rule{"service.write": {Permissions: []string{"read", "fly"}}}, false, rpc.Unauthenticated, rpc.PermissionDenied},
		{map[string]auth.Rule{"service.who": {Roles: []string{"boss"}}}, false, 0, 0},
		{map[string]auth.Rule{"task:query_interface": {}}, false, rpc.Unauthenticated, 0},
		{map[string]auth.Rule{"task:*": {Roles: []string{"boss"}}}, false, rpc.Unauthenticated, rpc.PermissionDenied},
	} {
		e := newEndpoint(t, auth.Config{Authenticator: tokens})
		m, err := auth.Policy{Rules: test.rules, DefaultDeny: test.deny}.Middleware()
		if err != nil {
			t.Fatal(err)
		}
		e.Use(m)
		why := fmt.Sprint(test.rules, test.deny)
		_, err = call(t, e, "write")
		wantCode(t, why+" nobody", err, test.anon)
		if _, err := auth.Login(t.Context(), e.Local(), auth.Credentials{Token: "good"}); err != nil {
			t.Fatal(err)
		}
		_, err = call(t, e, "write")
		wantCode(t, why+" ann", err, test.known)
	}
}

func TestPolicyKeys(t *testing.T) {
	for key, want := range map[string]bool{
		"a.b": true, "a.b.c": true, "a.*": true, "a@1.0.0.b": true, "a@1.0.0.*": true, "task:x": true, "task:*": true,
		"": false, "a": false, "a.": false, ".b": false, "task:": false, "a@1.0.0": false, "*": false,
	} {
		if _, err := (auth.Policy{Rules: map[string]auth.Rule{key: {}}}).Middleware(); (err == nil) != want {
			t.Errorf("rule %q: got error %v, want allowed %t", key, err, want)
		}
	}
}

func TestTokenOf(t *testing.T) {
	for _, test := range []struct {
		header, query, token string
		shown                bool
	}{
		{"", "", "", false},
		{"Bearer a", "", "a", true},
		{"bearer  a ", "token=b", "a", true},
		{"Bearer", "", "", true},
		{"Basic eDp5", "", "", false},
		{"Basic eDp5", "token=b", "b", true},
		{"", "token=", "", true},
	} {
		h := http.Header{}
		if test.header != "" {
			h.Set("Authorization", test.header)
		}
		q, _ := url.ParseQuery(test.query)
		if token, shown := auth.TokenOf(h, q); token != test.token || shown != test.shown {
			t.Errorf("TokenOf(%q, %q) = %q, %t, want %q, %t", test.header, test.query, token, shown, test.token, test.shown)
		}
	}
}

func TestCredentialsKeepSecrets(t *testing.T) {
	c := auth.Credentials{Token: "s3cret", Username: "u", Password: "s3cret"}
	var b strings.Builder
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "c", c)
	if text := fmt.Sprintf("%v %+v %#v %s", c, c, c, b.String()); strings.Contains(text, "s3cret") {
		t.Errorf("printed as %s", text)
	}
}

func TestNewWithoutAuthenticator(t *testing.T) {
	if _, err := auth.New(auth.Config{}); err == nil {
		t.Error("New without an Authenticator succeeded")
	}
}

func Example() {
	g, err := auth.New(auth.Config{Authenticator: auth.StaticTokens(map[string]*auth.Identity{
		"s3cret": {UserID: "ann", Roles: []string{"admin"}},
	})})
	if err != nil {
		fmt.Println(err)
		return
	}
	cfg := rpc.Config{ID: "node"} // Config.Auth of a node does this by itself
	g.Install(&cfg)
	e, err := rpc.NewEndpoint(cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer e.Close()
	ctx := context.Background()
	_, err = auth.Login(ctx, e.Local(), auth.Credentials{Token: "guess"})
	fmt.Println(err)
	i, err := auth.Login(ctx, e.Local(), auth.Credentials{Token: "s3cret"})
	fmt.Println(i.UserID, i.Roles, err)

	// Output:
	// unauthenticated: invalid credentials
	// ann [admin] <nil>
}
