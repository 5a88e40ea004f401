package memlink

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func wantErr(t *testing.T, op string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s = %v, want %v", op, err, want)
	}
}

// inBubble runs f in virtual time with a fresh link.
func inBubble(t *testing.T, f func(t *testing.T, a, b *Conn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe()
		defer a.Close()
		defer b.Close()
		f(t, a, b)
	})
}

func TestBytesArriveInOrder(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b *Conn) {
		want := bytes.Repeat([]byte("0123456789abcdef"), 64<<10) // 1 MiB, far over the buffer
		go func() {
			for p := want; len(p) > 0; {
				k := min(len(p), 7777)
				a.Write(p[:k])
				p = p[k:]
			}
			a.CloseWrite()
		}()
		got, err := io.ReadAll(b)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("ReadAll = %d bytes, %v, want the %d bytes written", len(got), err, len(want))
		}
	})
}

func TestWriteBlocksWhenBufferIsFull(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b *Conn) {
		a.SetWriteDeadline(time.Now().Add(time.Second))
		start := time.Now()
		n, err := a.Write(make([]byte, 100<<10))
		wantErr(t, "Write", err, os.ErrDeadlineExceeded)
		if n != bufferBytes {
			t.Errorf("Write = %d bytes, want the buffer's %d", n, bufferBytes)
		}
		if d := time.Since(start); d != time.Second {
			t.Errorf("Write blocked for %v, want 1s", d)
		}
		var ne net.Error
		if !errors.As(err, &ne) || !ne.Timeout() {
			t.Errorf("Write error %v is no net.Error with Timeout", err)
		}
		a.SetWriteDeadline(time.Time{})
		written := make(chan error)
		go func() { _, err := a.Write([]byte("x")); written <- err }()
		synctest.Wait()
		select {
		case err := <-written:
			t.Fatalf("Write to a full buffer returned %v, want it to block", err)
		default:
		}
		b.Read(make([]byte, 10))
		wantErr(t, "Write after Read", <-written, nil)
	})
}

func TestReadDeadline(t *testing.T) {
	inBubble(t, func(t *testing.T, _, b *Conn) {
		start := time.Now()
		b.SetReadDeadline(start.Add(time.Minute))
		_, err := b.Read(make([]byte, 1))
		wantErr(t, "Read", err, os.ErrDeadlineExceeded)
		if d := time.Since(start); d != time.Minute {
			t.Errorf("Read blocked for %v, want 1m", d)
		}
		// A deadline set while Read waits counts too.
		b.SetReadDeadline(time.Time{})
		got := make(chan error)
		go func() { _, err := b.Read(make([]byte, 1)); got <- err }()
		synctest.Wait()
		b.SetDeadline(time.Now())
		wantErr(t, "Read", <-got, os.ErrDeadlineExceeded)
	})
}

func TestHalfClose(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b *Conn) {
		a.Write([]byte("last"))
		a.CloseWrite()
		got, err := io.ReadAll(b)
		if string(got) != "last" || err != nil {
			t.Errorf("ReadAll = %q, %v, want \"last\"", got, err)
		}
		_, err = a.Write([]byte("x"))
		wantErr(t, "Write after CloseWrite", err, syscall.EPIPE)
		b.Write([]byte("answer"))
		b.Close()
		got, err = io.ReadAll(a)
		if string(got) != "answer" || err != nil {
			t.Errorf("ReadAll = %q, %v, want \"answer\"", got, err)
		}
	})
}

func TestClose(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b *Conn) {
		read := make(chan error)
		go func() { _, err := a.Read(make([]byte, 1)); read <- err }()
		synctest.Wait()
		a.Close()
		a.Close()
		wantErr(t, "Read during Close", <-read, net.ErrClosed)
		_, err := a.Write([]byte("x"))
		wantErr(t, "Write after Close", err, net.ErrClosed)
		_, err = b.Read(make([]byte, 1))
		wantErr(t, "Read at the other end", err, io.EOF)
		_, err = b.Write([]byte("x"))
		wantErr(t, "Write to a closed end", err, syscall.EPIPE)
		_, err = b.Read(make([]byte, 1))
		wantErr(t, "Read after that", err, syscall.ECONNRESET)
	})
}

func TestCloseWithUnreadDataResets(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b *Conn) {
		b.Write([]byte("unread"))
		a.Write([]byte("lost"))
		a.Close()
		_, err := b.Read(make([]byte, 10))
		wantErr(t, "Read", err, syscall.ECONNRESET)
	})
}

func TestCut(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b *Conn) {
		errs := make(chan error)
		for _, c := range []*Conn{a, b} {
			go func() { _, err := c.Read(make([]byte, 1)); errs <- err }()
		}
		synctest.Wait()
		a.Cut()
		wantErr(t, "Read", <-errs, syscall.ECONNRESET)
		wantErr(t, "Read", <-errs, syscall.ECONNRESET)
		_, err := b.Write([]byte("x"))
		wantErr(t, "Write", err, syscall.ECONNRESET)
	})
}

func TestStall(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b *Conn) {
		a.Stall()
		a.Write([]byte("held"))
		a.CloseWrite()
		b.SetReadDeadline(time.Now().Add(time.Hour))
		_, err := b.Read(make([]byte, 10))
		wantErr(t, "Read of a stalled link", err, os.ErrDeadlineExceeded)
		b.SetReadDeadline(time.Time{})
		b.Write([]byte("other way"))
		buf := make([]byte, 20)
		if n, err := a.Read(buf); string(buf[:n]) != "other way" {
			t.Errorf("Read of the other direction = %q, %v", buf[:n], err)
		}
		a.Resume()
		if got, err := io.ReadAll(b); string(got) != "held" || err != nil {
			t.Errorf("ReadAll after Resume = %q, %v, want \"held\"", got, err)
		}
	})
}

// stallBoth stalls both directions.
func stallBoth(a, b *Conn) {
	a.Stall()
	b.Stall()
}

func TestStallHoldsResetOfUnreadData(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b *Conn) {
		b.Write([]byte("unread"))
		stallBoth(a, b)
		a.Close()
		b.SetReadDeadline(time.Now().Add(time.Hour))
		_, err := b.Read(make([]byte, 10))
		wantErr(t, "Read while the other end has closed behind a stall", err, os.ErrDeadlineExceeded)
		if _, err := b.Write([]byte("into the dark")); err != nil {
			t.Errorf("Write = %v, want nil as nothing comes back", err)
		}
		if a.Ended() {
			t.Error("Ended before the other end knows")
		}
		b.SetReadDeadline(time.Time{})
		b.Resume() // its bytes are answered with a reset, which does not arrive
		if _, err := b.Write([]byte("again")); err != nil {
			t.Errorf("Write = %v, want nil as the reset is held back", err)
		}
		a.Resume()
		_, err = b.Read(make([]byte, 10))
		wantErr(t, "Read after Resume", err, syscall.ECONNRESET)
		if !a.Ended() || !b.Ended() {
			t.Error("not Ended after a reset")
		}
	})
}

func TestStallHoldsClose(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b *Conn) {
		stallBoth(a, b)
		b.Write([]byte("never read"))
		a.Close() // without unread data: nothing has arrived
		a.Resume()
		_, err := b.Read(make([]byte, 10))
		wantErr(t, "Read behind the end", err, io.EOF)
		b.Resume()
		_, err = b.Read(make([]byte, 10))
		wantErr(t, "Read after the bytes met a closed end", err, syscall.ECONNRESET)
	})
}

func TestEnded(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b *Conn) {
		if a.Far() != b || b.Far() != a {
			t.Error("Far is not the other end")
		}
		a.Close()
		if a.Ended() || b.Ended() {
			t.Error("Ended with one end open")
		}
		b.Close()
		if !a.Ended() || !b.Ended() {
			t.Error("not Ended with both ends closed")
		}
	})
}

func TestDelay(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b *Conn) {
		a.Delay(200 * time.Millisecond)
		start := time.Now()
		a.Write([]byte("one"))
		a.Delay(0)
		a.Write([]byte("two")) // must not overtake
		a.CloseWrite()
		got, _ := io.ReadAll(b)
		if d := time.Since(start); string(got) != "onetwo" || d != 200*time.Millisecond {
			t.Errorf("ReadAll = %q after %v, want \"onetwo\" after 200ms", got, d)
		}
	})
}

func TestThrottle(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b *Conn) {
		a.Throttle(10_000)
		start := time.Now()
		go func() {
			a.Write(make([]byte, 100_000)) // over the buffer
			a.CloseWrite()
		}()
		buf := make([]byte, 1000)
		if n, _ := b.Read(buf); n != 100 || time.Since(start) != 10*time.Millisecond {
			t.Errorf("first Read = %d bytes after %v, want 100 after 10ms", n, time.Since(start))
		}
		io.Copy(io.Discard, b)
		if d := time.Since(start); d != 10*time.Second {
			t.Errorf("100,000 bytes at 10,000 a second took %v, want 10s", d)
		}
	})
}

func TestListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Listen("server")
		ctx := context.Background()
		accepted := make(chan net.Conn)
		go func() { c, _ := l.Accept(); accepted <- c }()
		near, err := l.Dial(ctx, "tcp", "anything")
		if err != nil {
			t.Fatal(err)
		}
		far := <-accepted
		near.Write([]byte("hi"))
		buf := make([]byte, 2)
		if _, err := io.ReadFull(far, buf); err != nil || string(buf) != "hi" {
			t.Errorf("Read = %q, %v, want \"hi\"", buf, err)
		}
		if near.RemoteAddr().String() != "server" || far.RemoteAddr().String() != near.LocalAddr().String() {
			t.Errorf("addresses %v -> %v do not mirror %v -> %v", near.LocalAddr(), near.RemoteAddr(), far.LocalAddr(), far.RemoteAddr())
		}

		for range backlog {
			if _, err := l.Dial(ctx, "", ""); err != nil {
				t.Fatalf("Dial within the backlog: %v", err)
			}
		}
		_, err = l.Dial(ctx, "", "")
		wantErr(t, "Dial past the backlog", err, syscall.ECONNREFUSED)
		if _, err := l.Accept(); err != nil {
			t.Errorf("Accept = %v", err)
		}
		go func() { time.Sleep(time.Second); l.Close() }()
		for {
			if _, err = l.Accept(); err != nil {
				break
			}
		}
		wantErr(t, "Accept after Close", err, net.ErrClosed)
		_, err = l.Dial(ctx, "", "")
		wantErr(t, "Dial after Close", err, syscall.ECONNREFUSED)
		ended, cancel := context.WithCancel(ctx)
		cancel()
		_, err = l.Dial(ended, "", "")
		wantErr(t, "Dial with a canceled context", err, context.Canceled)
	})
}
