package balance

import "github.com/d-e-v-grid/netron/rpc"

// Router returns the client as stubs see it, to measure what it costs them.
func (c *Client) Router() rpc.Router { return (*router)(c) }

// MayRepeat takes one from the budget for repeated calls.
func (c *Client) MayRepeat() bool { return c.mayRepeat(c.now()) }
