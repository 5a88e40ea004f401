package balance

import "github.com/d-e-v-grid/netron/rpc"

// Router returns the client as stubs see it, to measure what it costs them.
func (c *Client) Router() rpc.Router { return (*router)(c) }
