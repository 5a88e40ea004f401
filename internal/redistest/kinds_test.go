package redistest

import (
	"crypto/tls"
	"testing"
)

func TestTLS(t *testing.T) {
	t.Parallel()
	a := NewAuthority(t)
	s := StartTLS(t, a)
	secure := func(config *tls.Config) (string, error) {
		conn, err := tls.Dial("tcp", s.TLSAddr(), config)
		if err != nil {
			return "", err
		}
		defer conn.Close()
		return ask(conn, "PING", patience)
	}
	if got, err := secure(&tls.Config{RootCAs: a.Roots, Certificates: []tls.Certificate{a.Client}}); got != "+PONG" {
		t.Errorf("PING over TLS = %q, %v", got, err)
	}
	if got, err := secure(&tls.Config{RootCAs: a.Roots}); err == nil {
		t.Errorf("PING without a certificate = %q", got)
	}
	if got, err := secure(&tls.Config{RootCAs: NewAuthority(t).Roots, Certificates: []tls.Certificate{a.Client}}); err == nil {
		t.Errorf("PING of a server that nobody knows = %q", got)
	}
	if got, err := ask(dial(t, s), "PING", patience); got != "+PONG" {
		t.Errorf("PING without TLS = %q, %v", got, err)
	}
}

func TestCluster(t *testing.T) {
	t.Parallel()
	all := StartCluster(t, 3)
	for i, s := range all {
		key := []string{"b", "c", "a"}[i] // of the slots 3300, 7365 and 15495
		if got, err := s.say("SET " + key + " value"); got != "+OK\r\n" {
			t.Errorf("SET of a key of server %d = %q, %v", i, got, err)
		}
	}
	all[0].Restart()
	all[0].await("works again", "CLUSTER INFO", "cluster_state:ok")
}

func TestSentinels(t *testing.T) {
	t.Parallel()
	master := Start(t)
	all := StartSentinels(t, master, 2)
	if all[0].Addr() == all[1].Addr() {
		t.Error("two sentinels have one address")
	}
}
