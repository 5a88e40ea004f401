package rpc

import (
	"strings"
	"testing"
)

func TestConceal(t *testing.T) {
	e := newEndpoint(t, Config{})
	s, err := NewServiceOf("sample@1.0.0", &sample{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for range 2 { // it may be exposed again
		if err := e.ExposeService(s); err != nil {
			t.Fatal(err)
		}
		stub, err := e.Local().Service(t.Context(), "sample")
		if err != nil {
			t.Fatal(err)
		}
		if err := stub.Call(t.Context(), "nothing", nil); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, stub.definition.ID)
		for _, name := range []string{"sample", "sample@2.0.0", "sample@*", ""} {
			if err := e.Conceal(name); CodeOf(err) != NotFound {
				t.Errorf("Conceal(%q) = %v, want not_found: there is only sample@1.0.0", name, err)
			}
		}
		if err := e.Conceal("sample@1.0.0"); err != nil {
			t.Errorf("Conceal = %v, want nil", err)
		}
		// Browser clients read the wording.
		want := "Definition with id " + stub.definition.ID + " not found"
		if err := stub.Call(t.Context(), "nothing", nil); CodeOf(err) != NotFound || !strings.Contains(err.Error(), want) {
			t.Errorf("a call after Conceal = %v, want %q", err, want)
		}
		if _, err := e.Local().Service(t.Context(), "sample"); CodeOf(err) != NotFound {
			t.Errorf("Service after Conceal = %v, want not_found", err)
		}
	}
	if ids[0] == ids[1] {
		t.Error("exposed again under the same definition id, want a new one")
	}
}
