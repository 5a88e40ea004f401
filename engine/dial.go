package engine

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gobwas/ws"
)

// errHeaderTooLarge reports an answer to the upgrade over Config.MaxHeaderBytes.
var errHeaderTooLarge = errors.New("answer too large")

// Dial connects to a WebSocket server. target is a ws:// or wss:// URL, or a bare
// host:port that means ws://. A nil cfg is the zero DialConfig.
//
// ctx and Config.HandshakeTimeout cover name resolution, TCP, TLS and the
// upgrade; afterwards ctx has no effect. A server that answers with another
// status than 101 gives a [*HandshakeError]. The caller must call Start, or
// Close, on the connection.
//
// RFC 6455 section 4.1.
func Dial(ctx context.Context, target string, cfg *DialConfig) (*Conn, error) {
	if cfg == nil {
		cfg = &DialConfig{}
	}
	u, err := cfg.target(target)
	if err != nil {
		return nil, err
	}
	if d := cfg.handshakeTimeout(); d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	nc, err := cfg.dialNet(ctx, u)
	if err != nil {
		return nil, fmt.Errorf("engine: dial %s: %w", u.Host, err)
	}
	c, err := cfg.handshake(ctx, nc, u)
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("engine: dial %s: %w", u.Host, err)
	}
	return c, nil
}

// target parses where to dial.
func (cfg *DialConfig) target(target string) (*url.URL, error) {
	if !strings.Contains(target, "://") {
		target = "ws://" + target
	}
	u, err := url.Parse(target)
	if err != nil {
		return nil, fmt.Errorf("engine: dial: %w", err)
	}
	switch {
	case u.Scheme != "ws" && u.Scheme != "wss":
		return nil, fmt.Errorf("engine: dial: scheme %q is not ws or wss", u.Scheme)
	case u.Hostname() == "":
		return nil, fmt.Errorf("engine: dial: no host in %q", target)
	case u.Fragment != "" || strings.Contains(target, "#"):
		return nil, errors.New("engine: dial: a WebSocket URL has no fragment") // RFC 6455 section 3
	}
	if u.Path == "" {
		u.Path = "/"
	}
	if len(cfg.Query) > 0 {
		if u.RawQuery != "" {
			u.RawQuery += "&"
		}
		u.RawQuery += cfg.Query.Encode()
	}
	return u, nil
}

// dialNet opens the plain connection.
func (cfg *DialConfig) dialNet(ctx context.Context, u *url.URL) (net.Conn, error) {
	port := u.Port()
	if port == "" {
		port = "80"
		if u.Scheme == "wss" {
			port = "443"
		}
	}
	dial := cfg.NetDial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	return dial(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
}

// handshake does TLS and the upgrade on nc, which stays the caller's on error.
func (cfg *DialConfig) handshake(ctx context.Context, nc net.Conn, u *url.URL) (*Conn, error) {
	// A deadline in the past wakes whatever waits on the socket.
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	sock := nc
	if u.Scheme == "wss" {
		tc := &tls.Config{}
		if cfg.TLS != nil {
			tc = cfg.TLS.Clone()
		}
		if tc.ServerName == "" {
			tc.ServerName = u.Hostname()
		}
		t := tls.Client(nc, tc)
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		sock = t
	}
	early, err := cfg.upgrade(sock, u)
	switch {
	case !stop():
		// The deadline was or will be set: the socket is not usable any more.
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, err
	}
	if u.Scheme == "ws" {
		sock = cfg.pollSocket(sock)
	}
	return newConn(sock, true, cfg.limits(), nil, early), nil
}

// upgrade sends the request and checks the answer. It returns the bytes that
// came behind it.
func (cfg *DialConfig) upgrade(nc net.Conn, u *url.URL) (early []byte, err error) {
	header := cfg.Header.Clone()
	if header == nil {
		header = make(http.Header)
	}
	host := u.Host
	if h := header.Get("Host"); h != "" {
		host = h
	}
	for _, own := range []string{"Host", "Upgrade", "Connection", "Sec-Websocket-Key", "Sec-Websocket-Version", "Sec-Websocket-Extensions", "Sec-Websocket-Protocol"} {
		header.Del(own)
	}
	if u.User != nil && header.Get("Authorization") == "" {
		password, _ := u.User.Password()
		header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.User.Username()+":"+password)))
	}
	d := ws.Dialer{Header: ws.HandshakeHeaderHTTP(header), Host: host}
	d.OnStatusError = func(status int, reason []byte, _ io.Reader) {
		err = &HandshakeError{Status: status, Reason: string(reason)}
	}
	// Frames may follow the answer: they count, but cannot be many.
	lim := &limitedReads{nc: nc, left: cfg.maxHeaderBytes()}
	br, _, upErr := d.Upgrade(lim, u)
	if err != nil {
		return nil, err
	}
	if upErr != nil {
		return nil, upErr
	}
	return takeBuffered(br), nil
}

// takeBuffered returns a copy of what br has read ahead and gives br back.
func takeBuffered(br *bufio.Reader) []byte {
	if br == nil {
		return nil
	}
	early := make([]byte, br.Buffered())
	_, _ = br.Read(early) // cannot fail: they are in the buffer
	ws.PutReader(br)
	return early
}

// limitedReads fails when more is read than an answer may have.
type limitedReads struct {
	nc   net.Conn
	left int
}

func (l *limitedReads) Write(p []byte) (int, error) { return l.nc.Write(p) }

func (l *limitedReads) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, errHeaderTooLarge
	}
	n, err := l.nc.Read(p[:min(len(p), l.left)])
	l.left -= n
	return n, err
}
