//go:build !(linux && (amd64 || arm64 || loong64))

package engine

import (
	"net"
)

// There is no epoll driver here: no connection has a socket.

type socket struct{}

func (*socket) release() {}

func (*Conn) useSocket(net.Conn)                    {}
func (*Conn) startPolledLocked()                    {}
func (*Conn) parkWrite() bool                       { return false }
func (*Conn) unparkWrite()                          {}
func (*Server) handlePolled(net.Conn) bool          { return false }
func (*DialConfig) pollSocket(nc net.Conn) net.Conn { return nc }
