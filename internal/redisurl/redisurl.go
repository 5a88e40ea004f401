// Package redisurl says how the packages that use Redis connect to it.
package redisurl

import (
	"crypto/tls"
	"errors"
	"net/url"
	"time"

	"github.com/redis/rueidis"
)

// Default is where Redis is if nobody says so.
const Default = "redis://127.0.0.1:6379"

// bufferBytes is the size of each of the two buffers of a connection.
const bufferBytes = 64 << 10

// Options returns how to connect to what a URL names, [Default] if it is empty: over one connection,
// without trying again. config replaces the TLS configuration of the URL unless it
// is nil. Redis may take the timeout to accept a connection and to answer. An error does not have
// the URL in it, which may hold a password.
func Options(rawURL string, config *tls.Config, timeout time.Duration) (rueidis.ClientOption, error) {
	if rawURL == "" {
		rawURL = Default
	}
	o, err := rueidis.ParseURL(rawURL)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		return o, err
	}
	if config != nil {
		o.TLSConfig = config.Clone()
	}
	o.Dialer.Timeout = timeout
	o.Dialer.KeepAlive = min(time.Second, timeout) // of silence, before Redis is asked whether it is there
	o.ConnWriteTimeout = timeout
	o.ReadBufferEachConn = bufferBytes
	o.WriteBufferEachConn = bufferBytes
	o.PipelineMultiplex = -1 // one connection, whose order counts
	o.DisableRetry = true    // who asks knows what may be asked again
	return o, nil
}
