package redistest

import (
	"bufio"
	"io"
	"net"
	"testing"
	"time"
)

func TestProxy(t *testing.T) {
	s := Start(t)
	p := StartProxy(t, s.Addr())
	if want := "redis://" + p.Addr(); p.URL() != want {
		t.Errorf("URL() = %q, want %q", p.URL(), want)
	}
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	conn := dial()
	if got, err := ask(conn, "PING", patience); got != "+PONG" {
		t.Fatalf("PING = %q, %v", got, err)
	}

	const late = 50 * time.Millisecond
	p.Delay(late)
	began := time.Now()
	if got, err := ask(conn, "PING", patience); got != "+PONG" || time.Since(began) < late {
		t.Errorf("PING with a delay of %v = %q, %v after %v", late, got, err, time.Since(began))
	}
	p.Delay(0)

	p.Stall()
	p.Stall()
	other := dial()
	for _, c := range []net.Conn{conn, other} {
		if got, err := ask(c, "PING", 50*time.Millisecond); err == nil {
			t.Errorf("PING over a stalled proxy = %q", got)
		}
	}
	p.Mend()
	p.Mend()
	for _, c := range []net.Conn{conn, other} {
		c.SetDeadline(time.Now().Add(patience))
		if got, err := bufio.NewReader(c).ReadString('\n'); got != "+PONG\r\n" {
			t.Errorf("the answer after Mend = %q, %v", got, err)
		}
	}

	p.Stall()
	p.Cut()
	for _, c := range []net.Conn{conn, other, dial()} {
		c.SetDeadline(time.Now().Add(patience))
		if n, err := io.Copy(io.Discard, c); n > 0 || isTimeout(err) {
			t.Errorf("a connection that was cut has %d bytes, %v", n, err)
		}
	}
	p.Mend()
	if got, err := ask(dial(), "PING", patience); got != "+PONG" {
		t.Errorf("PING after Mend = %q, %v", got, err)
	}
	p.Stall()
	ask(dial(), "PING", time.Millisecond) // which the end of the test cuts off
	s.Kill()
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}
