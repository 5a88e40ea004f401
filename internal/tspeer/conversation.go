package tspeer

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/json"
	"fmt"
	"time"
)

//go:embed testdata/conversations.json.gz
var recorded []byte

// Clients of the recordings.
const (
	Titan              = "titan"                // the current Node client
	Browser            = "browser"              // the current browser client
	BrowserNoDiscovery = "browser-no-discovery" // the same, which calls services by name without asking for their definition
	Raw                = "raw"                  // a client that sends what no library would
)

// Conversation is one recorded conversation of a client with a server process of its own.
type Conversation struct {
	Client string // one of Titan, Browser, BrowserNoDiscovery, Raw
	Name   string // unique per client
	// Outcome is what the original client thought of it: "passed" or "done", or why it failed.
	Outcome string
	// Note says how the two processes were prepared, "" if as usual.
	Note string
	// ServerEnded holds the last words of the original's server process if the conversation ended it.
	ServerEnded string

	upgrades   []upgrade
	entries    []entry
	closes     []closing
	calculator *Definition // of the reference service, from whichever conversation has it
}

// upgrade is one recorded HTTP upgrade.
type upgrade struct {
	Conn            int
	RequestLine     string
	RequestHeaders  json.RawMessage
	StatusLine      string
	ResponseHeaders map[string]string
}

// entry is one element of a recording's list of messages: a message, or a run of them that was left out.
type entry struct {
	T, UntilT  float64 // ms
	Conn       int
	From, Kind string
	Hex        string
	HexPrefix  string
	SHA256     string
	Length     int
	JSON       json.RawMessage
	Packet     *recordedPacket
	Elided     int
	What       string
}

type recordedPacket struct {
	ID, Type       int64
	Impulse, Error int
	EOS, Live      bool
	Payload        json.RawMessage
	StreamID       uint32
	Index          uint32
	Trailing       string
	Undecodable    string
}

type closing struct {
	T      float64
	From   string
	Code   int
	Reason string
	Conn   int
}

// Load returns the recorded conversations, in the order of recording.
func Load() ([]*Conversation, error) {
	raw, err := unzip(recorded)
	if err != nil {
		return nil, err
	}
	var file struct {
		Conversations []struct {
			Client, Name, Outcome, Note, ServerEnded string
			Upgrade                                  upgrade
			MoreUpgrades                             []upgrade
			Messages                                 []entry
			Closes                                   []closing
		}
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		return nil, fmt.Errorf("tspeer: conversations: %w", err)
	}
	var all []*Conversation
	for _, f := range file.Conversations {
		c := &Conversation{
			Client: f.Client, Name: f.Name, Outcome: f.Outcome, Note: f.Note, ServerEnded: f.ServerEnded,
			upgrades: append([]upgrade{f.Upgrade}, f.MoreUpgrades...), entries: f.Messages, closes: f.Closes,
		}
		c.upgrades[0].Conn = 1
		for i := range c.entries {
			c.entries[i].Conn = max(c.entries[i].Conn, 1)
		}
		for i := range c.closes {
			c.closes[i].Conn = max(c.closes[i].Conn, 1)
		}
		all = append(all, c)
	}
	return all, shareDefinition(all)
}

func unzip(p []byte) ([]byte, error) {
	zr, err := gzip.NewReader(bytes.NewReader(p))
	if err != nil {
		return nil, fmt.Errorf("tspeer: recordings: %w", err)
	}
	var out bytes.Buffer
	if _, err := out.ReadFrom(zr); err != nil {
		return nil, fmt.Errorf("tspeer: recordings: %w", err)
	}
	return out.Bytes(), nil
}

// shareDefinition gives all conversations the first definition of the reference service that one of them has.
func shareDefinition(all []*Conversation) error {
	for _, c := range all {
		msgs, err := c.Messages()
		if err != nil {
			return err
		}
		for _, m := range msgs {
			if def := m.definition(); def != nil && def.ParentID == "" && !m.Client {
				for _, other := range all {
					other.calculator = def
				}
				return nil
			}
		}
	}
	return fmt.Errorf("tspeer: recordings without a definition")
}

// String returns "client/name".
func (c *Conversation) String() string { return c.Client + "/" + c.Name }

// Failed reports whether the original's client was not content with the original's server. [Amendments] says what is right.
func (c *Conversation) Failed() bool { return c.Outcome != "passed" && c.Outcome != "done" }

// Message is one message of a conversation, complete: runs that the recording leaves out are filled in, and so are long payloads.
type Message struct {
	Conn   int           // 1-based
	At     time.Duration // since the first connection was accepted
	Client bool          // whether the client sent it
	Text   bool          // whether it is a text frame
	Hello  *Hello        // set for the two messages of the handshake
	Packet *Packet       // set for a packet that every peer understands
	Bad    *Violation    // set for a message that some peers cannot take, which a raw client sent
	// Raw is the message as sent; nil where the recording lacks bytes (a run that was left out, or an error with a stack).
	Raw []byte

	// What a right implementation may answer instead; see Amendments.
	also     []alternative
	only     bool // nothing but one of also
	optional bool // need not come
}

// Hello is a message of the handshake.
type Hello struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	raw  json.RawMessage
}

// definition returns the definition that the message is an answer with, or nil.
func (m *Message) definition() *Definition {
	if m.Packet == nil || m.Packet.Impulse {
		return nil
	}
	def, _ := m.Packet.Payload.(*Definition)
	return def
}

// String renders the message in one line.
func (m *Message) String() string {
	who := "server"
	if m.Client {
		who = "client"
	}
	s := fmt.Sprintf("%s, connection %d: ", who, m.Conn)
	switch {
	case m.Hello != nil:
		return s + string(m.Hello.raw)
	case m.Packet != nil:
		return s + m.Packet.String()
	}
	return s + fmt.Sprintf("%x (%s)", m.Raw[:min(len(m.Raw), 64)], m.Bad.Rule)
}
