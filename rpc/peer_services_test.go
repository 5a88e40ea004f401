package rpc

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/d-e-v-grid/netron/mux"
)

func TestServicesOfPeer(t *testing.T) {
	e := newEndpoint(t, Config{})
	if got, err := e.Local().Services(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("Services of a node without any = %v, %v, want none", got, err)
	}
	for _, name := range []string{"b", "a@1.10.0", "a@1.2.0"} {
		if err := e.Expose(name, &sample{}); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"a@1.10.0", "a@1.2.0", "b"}
	if got, err := e.Local().Services(t.Context()); err != nil || !slices.Equal(got, want) {
		t.Errorf("Services = %v, %v, want %v", got, err, want)
	}

	legacy := newScripted(t, mux.KindLegacy, map[string]func(any) (any, error){"abilities": abilities("z", "a@1.0.0")})
	if got, err := legacy.Services(t.Context()); err != nil || !slices.Equal(got, []string{"a@1.0.0", "z"}) {
		t.Errorf("Services of a 0.6 peer = %v, %v, want those of its table", got, err)
	}
	legacy.wantRuns("the table", "abilities map[allowServiceEvents:false]")
	if _, err := legacy.Service(t.Context(), "z"); err != nil {
		t.Errorf("Service of a 0.6 peer = %v, want nil", err)
	}
	legacy.wantRuns("the table is known now")

	for _, kind := range []mux.Kind{mux.KindNode, mux.KindBrowser} {
		_, err := newScripted(t, kind, typeScript("1.0.0")).Services(t.Context())
		if CodeOf(err) != Unimplemented || !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "does not list its services") {
			t.Errorf("Services of a peer without abilities = %v, want unimplemented that wraps ErrUnsupported", err)
		}
	}
	broken := newScripted(t, mux.KindNetron, map[string]func(any) (any, error){"abilities": failing(Errorf(PermissionDenied, "no"))})
	if _, err := broken.Services(t.Context()); CodeOf(err) != PermissionDenied || errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Services = %v, want the peer's error", err)
	}
}

func TestHasService(t *testing.T) {
	e := newEndpoint(t, Config{})
	if err := e.Expose("a@1.2.0", &sample{}); err != nil {
		t.Fatal(err)
	}
	legacy := map[string]func(any) (any, error){"abilities": abilities("a@1.2.0")}
	for name, p := range map[string]*Peer{
		"own":                               e.Local(),
		"current":                           newScripted(t, mux.KindNode, typeScript("1.2.0")).Peer,
		"0.6":                               newScripted(t, mux.KindLegacy, legacy).Peer,
		"0.6 that looks like a current one": newScripted(t, mux.KindNode, legacy).Peer,
	} {
		for _, tt := range []struct {
			qualified string
			want      bool
			code      Code
		}{
			{"a", true, 0},
			{"a@*", true, 0},
			{"a@1.2.0", true, 0},
			{"a@^1", true, 0},
			{"a@^2", false, 0},
			{"a@1.2.1", false, 0},
			{"b", false, 0},
			{"a@^", false, InvalidArgument},
			{strings.Repeat("a", 256), false, InvalidArgument},
		} {
			if got, err := p.HasService(t.Context(), tt.qualified); got != tt.want || CodeOf(err) != tt.code {
				t.Errorf("%s: HasService(%.10q) = %v, %v, want %v and code %v", name, tt.qualified, got, err, tt.want, tt.code)
			}
		}
	}
	// A failure is not an answer.
	for name, script := range map[string]map[string]func(any) (any, error){
		"neither task is there": {},
		"the task fails":        {"query_interface": failing(errors.New("broken"))},
		"the table fails":       {"abilities": failing(errors.New("broken"))},
	} {
		if got, err := newScripted(t, mux.KindNode, script).HasService(t.Context(), "a"); got || err == nil {
			t.Errorf("%s: HasService = %v, %v, want an error", name, got, err)
		}
	}
	p := newEndpoint(t, Config{}).Local()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := p.HasService(t.Context(), "a"); got || CodeOf(err) != Unavailable {
		t.Errorf("HasService of a closed peer = %v, %v, want unavailable", got, err)
	}
}
