package netrontest

import "strconv"

// Cluster is a [Network] of nodes that all listen, and that can all dial each other.
type Cluster struct {
	*Network

	// Nodes are at the addresses "node-1:8080", "node-2:8080" and so on; Nodes[0] is
	// the first of them. After a [Node.Restart] put its result here, where it is
	// wanted.
	Nodes []*Node
}

// NewCluster returns n nodes that are not connected yet. They are closed when the
// test ends. What goes wrong ends the test.
func NewCluster(t TB, n int, opts ...Option) *Cluster {
	t.Helper()
	c := &Cluster{Network: new(Network), Nodes: make([]*Node, n)}
	for i := range c.Nodes {
		c.Nodes[i] = c.Start(t, "node-"+strconv.Itoa(i+1)+":8080", opts...)
	}
	return c
}
