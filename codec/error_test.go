package codec_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/d-e-v-grid/netron/codec"
)

func TestErrorText(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{&codec.Error{Message: "boom"}, "boom"},
		{&codec.Error{Kind: codec.KindOfTypeError, Message: "bad"}, "TypeError: bad"},
		{&codec.Error{Name: "Custom"}, "Custom"},
		{&codec.Error{Kind: 99, Message: "x"}, "x"},
		{&codec.TitanError{Name: "NotFound", Message: "gone"}, "NotFound: gone"},
	} {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("Error() of %#v = %q, want %q", tt.err, got, tt.want)
		}
	}
}

func TestAppendGoErrors(t *testing.T) {
	for _, tt := range []struct {
		in   any
		want error
	}{
		{errors.New("plain"), &codec.Error{Kind: codec.KindOfError, Name: "Error", Message: "plain"}},
		{fmt.Errorf("outer: %w", &codec.Error{Message: "in"}), &codec.Error{Kind: codec.KindOfError, Name: "Error", Message: "outer: in"}},
		{codec.Error{Kind: 99, Message: "x"}, &codec.Error{Kind: codec.KindOfError, Name: "Error", Message: "x"}},
		{(*codec.Error)(nil), nil},
		{(*codec.TitanError)(nil), nil},
		{struct{ E error }{errors.New("in")}.E, &codec.Error{Kind: codec.KindOfError, Name: "Error", Message: "in"}},
	} {
		var got error
		if err := codec.Unmarshal(mustAppend(t, tt.in), &got); err != nil {
			t.Errorf("Unmarshal(%v) = %v", tt.in, err)
		} else if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("Unmarshal(%v) differs (-want +got):\n%s", tt.in, diff)
		}
	}
}

func TestErrorValue(t *testing.T) {
	plain := func(name, msg string, f ...codec.Field) *codec.Error {
		return &codec.Error{Kind: codec.KindOfError, Name: name, Message: msg, Fields: f}
	}
	titan := &codec.TitanError{Name: "TitanError", Code: 404, Message: "gone", Details: codec.Fields{{"id", "x"}}}
	for _, tt := range []struct {
		src    any
		want   error
		asType *codec.Error // what the target *Error makes of it
	}{
		{nil, nil, nil},
		{codec.Undefined{}, nil, nil},
		{"text", plain("Error", "text"), plain("Error", "text")},
		{codec.Fields{{"message", "m"}, {"name", "N"}, {"code", 5}, {"stack", nil}}, plain("N", "m", codec.Field{Name: "code", Value: int64(5)}), plain("N", "m", codec.Field{Name: "code", Value: int64(5)})},
		{codec.Fields{{"message", 1}}, plain("Error", "", codec.Field{Name: "message", Value: int64(1)}), plain("Error", "", codec.Field{Name: "message", Value: int64(1)})},
		{5, plain("Error", "error without a message", codec.Field{Name: "value", Value: int64(5)}), nil},
		{titan, titan, plain("TitanError", "gone", codec.Field{Name: "code", Value: int64(404)}, codec.Field{Name: "details", Value: titan.Details})},
	} {
		src := mustAppend(t, tt.src)
		var got error
		if err := codec.Unmarshal(src, &got); err != nil {
			t.Errorf("Unmarshal(%v) = %v", tt.src, err)
		}
		opts := cmp.Options{valueOptions}
		if diff := cmp.Diff(tt.want, got, opts); diff != "" {
			t.Errorf("Unmarshal(%v, *error) differs (-want +got):\n%s", tt.src, diff)
		}
		var e codec.Error
		err := codec.Unmarshal(src, &e)
		if tt.asType == nil {
			if err == nil {
				t.Errorf("Unmarshal(%v, *Error) = %v, want an error", tt.src, e)
			}
			continue
		}
		if diff := cmp.Diff(*tt.asType, e, opts); diff != "" || err != nil {
			t.Errorf("Unmarshal(%v, *Error) differs (-want +got): %v\n%s", tt.src, err, diff)
		}
	}
}

func TestTitanErrorIsTolerant(t *testing.T) {
	var body []byte
	for _, v := range []any{nil, "x", true, nil, 5, "y", 1, 2, 3, nil, []any{1}, 7, []any{}} {
		body = append(body, mustAppend(t, v)...)
	}
	src := append(codec.AppendExtHeader(nil, 110, len(body)), body...)
	var got any
	if err := codec.Unmarshal(src, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&codec.TitanError{}, got); diff != "" {
		t.Errorf("TitanError of odd members differs (-want +got):\n%s", diff)
	}
}

func TestTitanErrorCause(t *testing.T) {
	in := &codec.TitanError{Name: "E", Message: "m", Cause: errors.New("deep"), Extras: codec.Fields{{"a", int64(1)}}, Stack: "s", TraceID: "t"}
	var got codec.TitanError
	if err := codec.Unmarshal(mustAppend(t, in), &got); err != nil {
		t.Fatal(err)
	}
	want := *in
	want.Cause = &codec.Error{Kind: codec.KindOfError, Name: "Error", Message: "deep"}
	want.Details, want.Context = codec.Fields{}, codec.Fields{}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("round trip differs (-want +got):\n%s", diff)
	}
	if got.Unwrap() != got.Cause { //nolint:errorlint // identity is what is promised
		t.Errorf("Unwrap() = %v, want %v", got.Unwrap(), got.Cause)
	}
}

// Found by fuzzing: the fields of a plain cause were lost, and an error without a
// name came back with one.
func TestPlainCauseKeepsFields(t *testing.T) {
	in := &codec.TitanError{Name: "E", Cause: &codec.Error{
		Kind: codec.KindOfError, Name: "C", Message: "m", Fields: codec.Fields{{"code", int64(5)}, {"name", "hidden"}},
	}}
	var got codec.TitanError
	if err := codec.Unmarshal(mustAppend(t, in), &got); err != nil {
		t.Fatal(err)
	}
	want := &codec.Error{Kind: codec.KindOfError, Name: "C", Message: "m", Fields: codec.Fields{{"code", int64(5)}}}
	if diff := cmp.Diff(error(want), got.Cause); diff != "" {
		t.Errorf("cause differs (-want +got):\n%s", diff)
	}
	var nameless codec.Error
	if err := codec.Unmarshal(unhex(t, "d77e0003a0c0a1780000"), &nameless); err != nil || nameless.Name != "TypeError" {
		t.Errorf("Unmarshal(error without a name) = %+v, %v, want TypeError", nameless, err)
	}
}
