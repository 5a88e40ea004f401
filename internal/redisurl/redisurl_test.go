package redisurl

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"
)

func TestOptions(t *testing.T) {
	for _, tt := range []struct{ url, addr string }{
		{"", "127.0.0.1:6379"}, {"redis://user:secret@host:7000/2", "host:7000"}, {"rediss://host:7000", "host:7000"}, {"unix:///run/redis", "/run/redis"},
	} {
		o, err := Options(tt.url, nil, time.Second)
		if err != nil || len(o.InitAddress) != 1 || o.InitAddress[0] != tt.addr {
			t.Errorf("Options(%q) = %v, %v, want %s", tt.url, o.InitAddress, err, tt.addr)
		}
		if o.Dialer.Timeout != time.Second || o.ConnWriteTimeout != time.Second || !o.DisableRetry {
			t.Errorf("Options(%q) = %+v, want the timeout, and no retries", tt.url, o)
		}
	}
	for _, url := range []string{"http://host", "redis://user:secret@host:port", "redis://user:secret@ho st", "redis://user:secret@host/x"} {
		if _, err := Options(url, nil, time.Second); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("Options(%q) = %v, want an error without the password", url, err)
		}
	}
	config := &tls.Config{ServerName: "other"}
	if o, err := Options("rediss://host:7000", config, time.Second); err != nil || o.TLSConfig == config || o.TLSConfig.ServerName != "other" {
		t.Errorf("Options with a TLS configuration = %+v, %v, want a copy of it", o.TLSConfig, err)
	}
}
