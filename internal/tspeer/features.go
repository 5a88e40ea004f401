package tspeer

import "strings"

// Features is a set of abilities that a conversation needs from the implementation under test.
type Features uint32

// The abilities. A server needs those of a conversation that it is to answer, a dialler those that its program has to use.
const (
	Streams        Features = 1 << iota // streams in results or arguments
	Events                              // subscriptions
	Properties                          // GET and SET
	Nested                              // services as results, references to them
	RemoteExposure                      // expose_service and unexpose_service
	ServerTasks                         // tasks that the server runs on the client
	ClientServices                      // services of the client that the server calls
	UserTasks                           // tasks that are not core tasks
	HostTasks                           // the tasks ask, askService, askProperty and callExposed, which are not part of the reference service
	Pings                               // PING packets
	Malformed                           // messages that no peer can decode, or that do not follow the protocol
	Connections                         // more than one connection
	Large                               // messages over 1 MiB
	Slow                                // waits of a second or more
)

var featureNames = [...]string{
	"Streams", "Events", "Properties", "Nested", "RemoteExposure", "ServerTasks", "ClientServices", "UserTasks", "HostTasks", "Pings", "Malformed", "Connections", "Large", "Slow",
}

// String lists the features.
func (f Features) String() string {
	var names []string
	for i, name := range featureNames {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, "|")
}

// Has reports whether f contains any of g.
func (f Features) Has(g Features) bool { return f&g != 0 }

// hostTasks are tasks that the recording's server had for some conversations only.
var hostTasks = map[string]bool{"ask": true, "askService": true, "askProperty": true, "callExposed": true}

// Needs returns what the conversation uses. It is computed from the messages.
func (c *Conversation) Needs() (Features, error) {
	msgs, err := c.Messages()
	if err != nil {
		return 0, err
	}
	var f Features
	if len(c.upgrades) > 1 {
		f |= Connections
	}
	greeted := map[int]bool{}
	for i := range msgs {
		m := &msgs[i]
		const large, slow = 1 << 20, 1_000_000_000
		if len(m.Raw) > large {
			f |= Large
		}
		if i > 0 && m.At-msgs[i-1].At >= slow {
			f |= Slow
		}
		switch {
		case m.Hello != nil:
			greeted[m.Conn] = greeted[m.Conn] || m.Client
		case m.Packet == nil, m.Client && !greeted[m.Conn] && m.Packet.Type != TypePing, Check(m.Packet) != nil:
			f |= Malformed
		default:
			f |= m.needs()
		}
	}
	return f, nil
}

// needs returns what one packet uses.
func (m *Message) needs() Features {
	p := m.Packet
	switch {
	case p.Type == TypePing:
		return Pings
	case p.Type >= TypeStream:
		return Streams
	case p.isResponse():
		return payloadNeeds(p.Payload)
	case p.Type == TypeTask:
		return m.taskNeeds()
	case !m.Client:
		return ClientServices
	case p.Type != TypeCall:
		return Properties
	}
	var f Features
	for _, arg := range p.args() {
		f |= payloadNeeds(arg)
	}
	return f
}

func (m *Message) taskNeeds() Features {
	name := m.Packet.word(0)
	switch {
	case hostTasks[name]:
		return HostTasks
	case name == "emit", name == "subscribe", name == "unsubscribe":
		return Events
	case name == "expose_service", name == "unexpose_service":
		return RemoteExposure
	case name == "unref_service":
		return Nested
	case name == "query_interface" && !m.Client:
		return ClientServices
	case name == "query_interface", name == "abilities", name == "authenticate", name == "invalidate_cache":
		return 0
	case !m.Client:
		return ServerTasks
	}
	return UserTasks
}

func payloadNeeds(v any) Features {
	switch v := v.(type) {
	case StreamRef:
		return Streams
	case *Definition:
		if v.ParentID != "" {
			return Nested
		}
	}
	return 0
}
