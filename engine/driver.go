package engine

import "fmt"

// Driver says how connections are driven.
type Driver uint8

const (
	// DriverAuto is DriverEpoll for what a server accepts, where that is possible,
	// and DriverStd for everything else, dialling included.
	DriverAuto Driver = iota
	// DriverStd drives each connection by a goroutine of its own that reads
	// through package net. It is there on every platform and for every kind of
	// connection.
	DriverStd
	// DriverEpoll drives connections by the pollers of
	// github.com/cloudwego/netpoll: an idle one has neither a goroutine nor a
	// buffer, and handlers run on a poller, which its connections share. It exists on
	// Linux (amd64, arm64, loong64) and carries TCP and Unix sockets without TLS
	// ([net.TCPConn], [net.UnixConn]) from [Server.Serve] and [Dial]. Everywhere
	// else DriverStd takes its place: for TLS, for the connections of an
	// [net/http.Server], for other types of connection, on other platforms.
	DriverEpoll
)

// String returns the name that ParseDriver knows.
func (d Driver) String() string {
	switch d {
	case DriverAuto:
		return "auto"
	case DriverStd:
		return "std"
	case DriverEpoll:
		return "epoll"
	}
	return fmt.Sprintf("Driver(%d)", uint8(d))
}

// ParseDriver returns the driver called "auto", "std" or "epoll".
func ParseDriver(name string) (Driver, error) {
	for d := DriverAuto; d <= DriverEpoll; d++ {
		if d.String() == name {
			return d, nil
		}
	}
	return 0, fmt.Errorf("engine: no driver %q: want auto, std or epoll", name)
}
