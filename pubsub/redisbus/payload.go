package redisbus

import (
	"sync"
	"sync/atomic"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/internal/code"
)

// payload is the arguments of an event that came in, decoded on demand. It also marks
// the event as one that leaves through no bridge.
type payload struct {
	encoded []byte // an array
	limits  codec.Limits
	bad     *atomic.Uint64 // counts payloads that did not decode

	counted atomic.Bool // in bad
	once    sync.Once   // decodes all arguments
	args    []any
	err     error
}

// Args returns all arguments.
func (p *payload) Args() ([]any, error) {
	p.once.Do(func() {
		d := codec.NewDecoder(p.encoded, p.limits)
		n, err := d.ArrayHeader()
		if err != nil {
			p.err = p.failed(err)
			return
		}
		args := []any{} // not by n, which is what somebody else says
		for range n {
			arg, err := d.Any()
			if err != nil {
				p.err = p.failed(err)
				return
			}
			args = append(args, arg)
		}
		p.args = args
	})
	return p.args, p.err
}

// Decode stores the first arguments in the pointers vs.
func (p *payload) Decode(vs ...any) error {
	d := codec.NewDecoder(p.encoded, p.limits)
	n, err := d.ArrayHeader()
	if err != nil {
		return p.failed(err)
	}
	for _, v := range vs[:min(n, len(vs))] {
		if err := d.Decode(v); err != nil {
			return p.failed(err)
		}
	}
	return nil
}

// failed counts the event, once, and makes an error of what is wrong with it.
func (p *payload) failed(err error) error {
	if p.counted.CompareAndSwap(false, true) {
		p.bad.Add(1)
	}
	return &Error{Code: code.InvalidArgument, Message: "the arguments of the event do not decode", cause: err}
}
