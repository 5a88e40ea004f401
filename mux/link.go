package mux

// Link is the connection below a [Session]: it carries whole messages. A
// *engine.Conn is one. All methods are safe for concurrent use and never block.
type Link interface {
	// BeginFrame appends room for what the link's framing puts before a message to
	// dst. The message is to be appended behind it.
	BeginFrame(dst []byte) []byte

	// EndFrame completes, in place, the message that BeginFrame began when b was
	// start bytes long. What it returns may be longer than b, and replaces it.
	EndFrame(b []byte, start int, text bool) []byte

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
