package mux

// Link is the connection below a [Session]: it carries whole messages. A
// *engine.Conn is one. All methods are safe for concurrent use and never block.
type Link interface {
	// AppendFrame appends p to dst as one message in the link's framing. It copies p.
	AppendFrame(dst []byte, text bool, p []byte) []byte

	// Kick tells the link that the session has something to send. The link then
	// calls [Session.Collect], one call at a time, until nothing comes.
	Kick()

	// CloseWith sends what was queued, then closes in an orderly way with a
	// WebSocket close code (RFC 6455 section 7.4).
	CloseWith(code uint16, reason string)
}

// Close codes that a session uses (RFC 6455 section 7.4.1).
const (
	closeNormal   = 1000
	closeProtocol = 1002
	closePolicy   = 1008
)
