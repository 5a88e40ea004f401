package mux

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/d-e-v-grid/netron/internal/buf"
	"github.com/d-e-v-grid/netron/internal/wire"
)

// givingConn is a link that gives the memory of messages away, and overwrites what nobody took.
type givingConn struct {
	*testConn
	message *buf.Buf // that is being delivered
	given   []*buf.Buf
}

func (c *givingConn) TakeMessage() *buf.Buf {
	b := c.message
	c.message = nil
	if b != nil {
		c.given = append(c.given, b)
	}
	return b
}

// deliver has the session take a message. Its memory has something in front.
func (c *givingConn) deliver(p []byte) {
	c.message = buf.Copy(append([]byte("header"), p...))
	c.message.Cut(6, 6+len(p))
	lent := c.message.B
	c.session.Message(false, lent)
	if c.message != nil {
		clear(lent)
		c.message.Release()
		c.message = nil
	}
	c.session.ReadDone()
}

func (c *givingConn) chunk(id, index uint32, payload string, flags wire.Flags) {
	p := wire.AppendHeader(nil, index, wire.Request(wire.TypeStream)|flags)
	c.deliver(wire.AppendTrailer(append(p, payload...), id, index))
}

// TestStreamTakesMessages checks that large chunks stay in the memory that they came in, that
// small ones do not, and that all of it is given back whatever becomes of the stream.
func TestStreamTakesMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, end := range []string{"read", "cancel", "lost"} {
			c := newStreamConn(t, StreamConfig{}, FeatureCredit)
			link := &givingConn{testConn: c.testConn}
			c.session.link = link
			r, err := c.session.NewReader(true)
			if err != nil {
				t.Fatal(err)
			}
			sizes := []int{1, joinedChunk, joinedChunk + 1, 1, 20_000, 70_000, 100}
			for i, n := range sizes {
				link.chunk(r.ID(), uint32(i), strings.Repeat(string(rune('a'+i)), n), 0)
			}
			if got := len(link.given); got != 3 {
				t.Errorf("%d messages were taken, want the large ones", got)
			}
			link.chunk(r.ID(), 99, strings.Repeat("x", 20_000), 0) // out of turn: it is dropped
			if got := len(link.given); got != 3 {
				t.Error("a message was taken that is dropped")
			}
			for i, n := range sizes {
				p, err := r.Next(t.Context())
				if err != nil || !bytes.Equal(p, bytes.Repeat([]byte{byte('a' + i)}, n)) {
					t.Fatalf("chunk %d of %d bytes: got %d bytes, %v", i, n, len(p), err)
				}
				if i == 4 && end != "read" {
					break
				}
			}
			switch end {
			case "read":
				if _, err := r.Next(t.Context()); errors.Is(err, io.EOF) || err == nil {
					t.Errorf("after a chunk out of turn: %v, want an error", err)
				}
			case "cancel":
				r.Cancel("")
			}
			c.end()
			if end == "lost" {
				r.Cancel("")
			}
			for i, b := range link.given {
				if b.B != nil {
					t.Errorf("%s: the memory of message %d was not given back", end, i)
				}
			}
			if st := c.session.streamsOf(); st.buffered != 0 {
				t.Errorf("%s: %d bytes count as buffered", end, st.buffered)
			}
		}
	})
}
