package stream

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// TestBytesHere reads a stream of bytes in the process that makes it.
func TestBytesHere(t *testing.T) {
	broken := errors.New("broken")
	r := Bytes(func(_ context.Context, w *Writer) error {
		if n, err := w.Write([]byte(strings.Repeat("x", 200_000))); n != 200_000 || err != nil {
			t.Errorf("Write = %d, %v", n, err)
		}
		p, err := w.Reserve(10)
		if err != nil || len(p) != 10 {
			t.Errorf("Reserve = %d bytes, %v, want 10", len(p), err)
		}
		if err := w.Commit(copy(p, "abc")); err != nil {
			t.Errorf("Commit = %v", err)
		}
		if _, err := w.Reserve(10); err != nil { // dropped
			t.Errorf("Reserve = %v", err)
		}
		if p, err = w.Reserve(1); err != nil {
			t.Errorf("Reserve = %v", err)
		}
		if err := w.Commit(0 * len(p)); err != nil {
			t.Errorf("Commit(0) = %v", err)
		}
		if n, err := w.ReadFrom(iotest.OneByteReader(strings.NewReader("def"))); n != 3 || err != nil {
			t.Errorf("ReadFrom = %d, %v", n, err)
		}
		if _, err := w.ReadFrom(idle{}); !errors.Is(err, io.ErrNoProgress) {
			t.Errorf("ReadFrom of a reader that does nothing = %v, want ErrNoProgress", err)
		}
		return broken
	})
	got, err := io.ReadAll(r)
	if len(got) != 200_006 || !strings.HasSuffix(string(got), "xabcdef") || !errors.Is(err, broken) {
		t.Errorf("read %d bytes, %v, want 200006 and what the function returned", len(got), err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

// TestBytesClosed gives up a stream of bytes in the process that makes it.
func TestBytesClosed(t *testing.T) {
	ended := make(chan error, 1)
	r := Bytes(func(ctx context.Context, w *Writer) error {
		var err error
		for err == nil {
			_, err = w.Write([]byte("x"))
		}
		<-ctx.Done()
		ended <- err
		return err
	})
	if _, err := io.ReadFull(r, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if err := <-ended; !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("Write = %v, want ErrClosedPipe", err)
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("Read after Close = %v, want ErrClosedPipe", err)
	}
	unread := Bytes(func(context.Context, *Writer) error {
		t.Error("it is written although nobody reads")
		return nil
	})
	unread.Close()
	if _, err := unread.Read(make([]byte, 1)); err == nil {
		t.Error("Read after Close = nil, want an error")
	}
}

// TestBytesEndsAlone reads streams to their ends without closing them.
func TestBytesEndsAlone(t *testing.T) {
	var kept *Writer
	r := Bytes(func(_ context.Context, w *Writer) error {
		kept = w
		_, err := io.WriteString(w, "x")
		return err
	})
	if got, err := io.ReadAll(r); string(got) != "x" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := kept.Write([]byte("y")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("Write after the function has returned = %v, want ErrClosedPipe", err)
	}
	if n, err := r.Read(nil); n != 0 || err != nil {
		t.Errorf("Read of nothing = %d, %v", n, err)
	}
}

// TestCommitBounds checks that no memory is sent which was not reserved.
func TestCommitBounds(t *testing.T) {
	for name, use := range map[string]func(w *Writer){
		"without Reserve":   func(w *Writer) { _ = w.Commit(1) },
		"twice":             func(w *Writer) { _, _ = w.Reserve(5); _ = w.Commit(5); _ = w.Commit(0) },
		"too much":          func(w *Writer) { _, _ = w.Reserve(5); _ = w.Commit(6) },
		"negative":          func(w *Writer) { _, _ = w.Reserve(5); _ = w.Commit(-1) },
		"negative Reserve":  func(w *Writer) { _, _ = w.Reserve(-1) },
		"dropped by a file": func(w *Writer) { _, _ = w.Reserve(5); _, _ = w.ReadFrom(strings.NewReader("")); _ = w.Commit(1) },
	} {
		r := Bytes(func(_ context.Context, w *Writer) error {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			use(w)
			return nil
		})
		if _, err := io.ReadAll(r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
